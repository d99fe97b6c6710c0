"""The entries of the cache: a directory each, which appears whole by a rename and goes away by one.

exports/STEM.TASK/entry.json, model/    an export; STEM is the checkpoint's name, a precision and a key
exports/STEM.lock                       held by whoever makes or removes an entry of that stem
exports/.STEM.xxxxxxxx.partial/         what is being made or removed, or what a dead process left
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .. import manifest
from ..errors import FastembedRtError, ModelNotFoundError
from ..manifest import TASKS
from ..system import leftovers, locks, user_cache
from ..system.paths import as_text, expanded
from .contents import recalled
from .wanted import LETTERS, Wanted

MODEL, ENTRY = "model", "entry.json"
REFS, HASHES = "refs", "hashes"  # folders beside the entries: what was found out, to be found out again if they go
STEM = rf"(?P<stem>[A-Za-z0-9_.-]+-[0-9a-f]{{{LETTERS}}})"
DIRECTORY = re.compile(rf"{STEM}\.(?P<task>{'|'.join(TASKS)})")
LOCK = re.compile(rf"{STEM}\.lock")
PARTIAL = re.compile(rf"\.{STEM}\.[0-9a-f]{{8}}\.partial")
MOST = 80  # letters of a checkpoint's name in a directory's


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What an entry was made of and how, as its file has it."""

    checkpoint: str  # hub name, or what the manifest calls a local one
    path: str | None  # of a local checkpoint
    revision: str | None  # commit on the hub
    identity: str  # of the contents
    precision: str
    target: str
    options: dict[str, Any]  # those given beside
    created_by: str
    created: float  # seconds since 1970


@dataclass(frozen=True, kw_only=True)
class Entry:
    """An export in the cache."""

    directory: Path
    task: str
    origin: Origin
    size: int  # bytes
    used: float  # the last time it was opened, seconds since 1970

    @property
    def model(self) -> Path:
        """The model directory."""
        return self.directory / MODEL

    @property
    def stem(self) -> str:
        """Its name without the task."""
        return self.directory.name.rpartition(".")[0]

    def named(self, name: str) -> bool:
        """Whether somebody means this entry: by its checkpoint, the checkpoint's place, or its own directory."""
        place = os.path.realpath(expanded(name))
        return name in (self.origin.checkpoint, self.directory.name) or as_text(place) in (
            self.origin.path,
            as_text(os.path.realpath(self.directory)),
        )


@dataclass(frozen=True, kw_only=True)
class Cleared:
    """What became of a stem."""

    name: str  # of the checkpoint and the precision, as far as they are known
    freed: int  # bytes
    left: str = ""  # why it is still there; "": it is not


def folder() -> Path:
    """Where the entries are; may not be there."""
    return user_cache.folder("exports")


def stem(checkpoint: str, wanted: Wanted, key: str) -> str:
    """The name of what is made of a checkpoint, without its task."""
    letters = re.sub(r"[^A-Za-z0-9_.-]", "_", checkpoint.replace("/", "--")).lstrip(".")[:MOST]
    return f"{letters or 'checkpoint'}-{wanted.precision}-{key}"


def whole(directory: Path) -> manifest.Manifest | None:
    """The manifest of an entry that has all its files, in their sizes; None where there is none, or a damaged one."""
    try:
        described = manifest.read(directory / MODEL)
        sizes = [(directory / MODEL / record.file).stat().st_size == record.size for record in described.files]
    except (FastembedRtError, OSError):
        return None
    return described if all(sizes) and _origin(directory) is not None else None


def touch(directory: Path) -> None:
    """Note that an entry is used now, where that can be written."""
    with suppress(OSError):
        os.utime(directory / ENTRY)


def put(work: Path, destination: Path, origin: Origin) -> None:
    """Make an entry of `work`, which has the model; one that is there and whole stays instead.

    To be called with the stem's lock.
    """
    (work / ENTRY).write_text(json.dumps(asdict(origin), indent=1), encoding="utf-8")
    if os.path.lexists(destination):
        if whole(destination) is not None:  # made meanwhile by one who could not lock
            return
        _remove(destination)
    work.rename(destination)


def unfinished_name(stem: str) -> Path:
    """A new name for what is being made."""
    return folder() / f".{stem}.{secrets.token_hex(4)}.partial"


def lock_of(stem: str) -> Path:
    """The file whose lock whoever makes or removes entries of this stem holds."""
    return folder() / f"{stem}.lock"


def entries() -> list[Entry]:
    """Whole entries, by name."""
    found = []
    for path in _listed():
        named = DIRECTORY.fullmatch(path.name)
        origin = _origin(path) if named else None
        if named and origin is not None and whole(path) is not None:
            used = (path / ENTRY).stat().st_mtime
            found.append(Entry(directory=path, task=named["task"], origin=origin, size=_size(path), used=used))
    return found


def meant(names: Sequence[str]) -> list[Entry]:
    """Whole entries that somebody means by these names; all where there are no names.

    Raises:
        ModelNotFoundError: a name that no entry has.
    """
    there = entries()
    for name in names:
        if not any(entry.named(name) for entry in there):
            have = ", ".join(dict.fromkeys(entry.origin.checkpoint for entry in there)) or "nothing"
            raise ModelNotFoundError(f"{name} is not in the cache {folder()}, which has {have}")
    return [entry for entry in there if not names or any(map(entry.named, names))]


def clear(names: Sequence[str] = ()) -> list[Cleared]:
    """Remove entries, those that `names` mean or all, and what dead processes left; nothing that is being written.

    Raises:
        ModelNotFoundError: a name that no entry has.
    """
    known = {entry.stem: entry for entry in meant(names)}
    done = []
    for one in sorted(known if names else _stems()):
        shown = known.get(one)
        name = one if shown is None else f"{shown.origin.checkpoint} ({shown.origin.precision})"
        done.append(_cleared(one, name))
    if not names:
        for kept in (REFS, HASHES):
            leftovers.remove(folder() / kept)
    return done


def writing() -> list[str]:
    """Stems that some process makes or removes entries of, now."""
    found = []
    for path in _listed():
        if named := LOCK.fullmatch(path.name):
            with locks.locked(path, wait=False) as state:
                if state == locks.BUSY:
                    found.append(named["stem"])
    return found


def remove_unfinished(stem: str) -> int:
    """Delete what nobody works on any more, and what that frees. To be called with the stem's lock."""
    freed = 0
    for path in _listed():
        named = PARTIAL.fullmatch(path.name)
        if named and named["stem"] == stem:
            freed += _size(path)
            leftovers.remove(path)
            freed -= _size(path) if path.exists() else 0
    return freed


def _cleared(stem: str, name: str) -> Cleared:
    freed = 0
    with locks.locked(lock_of(stem), wait=False) as state:
        if state == locks.BUSY:
            return Cleared(name=name, freed=0, left="another process is writing it")
        try:
            for task in TASKS:
                path = folder() / f"{stem}.{task}"
                if os.path.lexists(path):
                    size = _size(path)
                    _remove(path)
                    freed += size
        except OSError as error:
            return Cleared(name=name, freed=freed, left=f"it cannot be removed ({error.strerror})")
        if state == locks.HELD:
            freed += remove_unfinished(stem)
        with suppress(OSError):  # Windows keeps what is open
            lock_of(stem).unlink(missing_ok=True)
    return Cleared(name=name, freed=freed)


def _remove(path: Path) -> None:
    """Delete an entry: at once for others, who find all of it or nothing."""
    aside = unfinished_name(path.name.rpartition(".")[0])
    path.rename(aside)
    leftovers.remove(aside)


def _origin(directory: Path) -> Origin | None:
    try:
        return Origin(**recalled(directory / ENTRY))
    except TypeError:  # of another version, or damaged
        return None


def _stems() -> set[str]:
    patterns = (DIRECTORY, LOCK, PARTIAL)
    return {found["stem"] for path in _listed() for pattern in patterns if (found := pattern.fullmatch(path.name))}


def _listed() -> list[Path]:
    with suppress(OSError):
        return sorted(folder().iterdir())
    return []


def _size(path: Path) -> int:
    return sum(size for size in _sizes(path))


def _sizes(path: Path) -> Iterator[int]:
    for here, _, files in os.walk(path):
        for file in files:
            with suppress(OSError):
                yield (Path(here) / file).lstat().st_size
