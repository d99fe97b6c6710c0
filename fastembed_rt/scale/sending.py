"""A model's files on their way to machines that have neither its directory nor the hub.

Only what runs is packed: the manifest, the tokenizer, one variant's graph and weights. A machine unpacks it once, under
the hash of the archive; the model checks each file's own hash when it opens.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import secrets
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidInputError, ModelNotFoundError
from ..system import leftovers
from ..system.locks import locked
from .embed import Embed

MODEL = "model"  # the directory in the archive
SIZES = "sizes.json"  # beside it, of all files that were unpacked
LEFT = re.compile(r"[0-9a-f]{32}\.[0-9a-f]{8}")  # of a process that died while it unpacked


@dataclass(frozen=True)
class Archive:
    """A packed model; it pickles as its bytes."""

    content: bytes  # a tar file
    key: str  # of the content

    def unpack(self) -> Path:
        """The model's directory on this machine, written by the first process that asks."""
        return unpacked(self.key, lambda: self)


def packed(embed: Embed) -> Archive:
    """What the model of an Embed needs, read from its directory here.

    Raises:
        ModelNotFoundError: there is none.
    """
    place = Path(embed._plan.ticket.path)
    if not place.is_dir():
        raise ModelNotFoundError(f"the model's directory {place} is gone, so that nothing can be sent")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", dereference=True) as tar:  # links lead nowhere on another machine
        for name in sorted(embed._plan.files):
            tar.add(place / name, f"{MODEL}/{name}", filter=_bare)
    content = stream.getvalue()
    return Archive(content, hashlib.sha256(content).hexdigest()[:32])


def _bare(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same archive whoever packs it and when."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime, entry.mode = 0, 0o644
    return entry


def folder() -> Path:
    """Where models that were sent lie: `fastembed-rt-sent-USER` in the temporary directory, nobody else's.

    Raises:
        InvalidInputError: somebody else made it.
    """
    user = getattr(os, "getuid", lambda: "all")()
    found = Path(tempfile.gettempdir()) / f"fastembed-rt-sent-{user}"
    found.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and found.lstat().st_uid != user:
        raise InvalidInputError(f"{found} belongs to somebody else; set TMPDIR to a directory of your own")
    return found


def unpacked(key: str, read: Callable[[], Archive]) -> Path:
    """The directory of a model under the key of its archive; `read` gives that to the first who asks on a machine.

    One that lacks a file, which whoever cleans the temporary directory may have taken, is unpacked again.
    """
    there = folder() / key
    if _is_whole(there):
        return there / MODEL
    with locked(there.with_suffix(".lock")):
        if not _is_whole(there):
            leftovers.remove_left_behind(there.parent, LEFT)
            with leftovers.unfinished(lambda: _fresh(there), lambda work: work.mkdir(mode=0o700)) as work:
                with tarfile.open(fileobj=io.BytesIO(read().content)) as tar:
                    tar.extractall(work, filter="data")
                _settle(work)
                if not _is_whole(there):  # or another has done it, where there are no locks
                    if os.path.lexists(there):  # a process may run it: what it has open stays its own
                        there.rename(aside := _fresh(there))
                        leftovers.remove(aside)
                    work.rename(there)
            with contextlib.suppress(OSError):
                _synchronize(there.parent)
    return there / MODEL


def _is_whole(there: Path) -> bool:
    """Whether all files of a model that was unpacked are there, in their sizes."""
    try:
        sizes = json.loads((there / SIZES).read_text(encoding="utf-8"))
        return all((there / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError):
        return False


def _settle(work: Path) -> None:
    """Write down what was unpacked, let it be new to those who clean up by age, and bring it to the disk."""
    paths = sorted(path for path in work.rglob("*") if path.is_file())
    sizes = {path.relative_to(work).as_posix(): path.stat().st_size for path in paths}
    (work / SIZES).write_text(json.dumps(sizes), encoding="utf-8")
    for path in (*paths, work / SIZES):
        os.utime(path)
        _synchronize(path)
    with contextlib.suppress(OSError):  # a directory cannot be synchronized everywhere
        for directory in {work, *(path.parent for path in paths)}:
            _synchronize(directory)


def _synchronize(path: Path) -> None:
    descriptor = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fresh(there: Path) -> Path:
    """A name for what is being unpacked or removed."""
    return there.with_name(f"{there.name}.{secrets.token_hex(4)}")


@dataclass(frozen=True)
class Sent:
    """For `find=`: a model that something else has unpacked on this machine."""

    key: str

    def __call__(self) -> Path:
        """Its directory.

        Raises:
            ModelNotFoundError: it is not there, or not all of it.
        """
        there = folder() / self.key
        if not _is_whole(there):
            if there.is_dir():
                raise ModelNotFoundError(
                    f"of the model that was sent to this machine as {there}, files are gone; send it again"
                )
            raise ModelNotFoundError(f"no model was sent to this machine as {there}; send it before the first batch")
        return there / MODEL
