"""What a directory holds, as one hash; files that have not changed since are not read again.

A file is the same while its device, inode, size and times are: no program writes to it, replaces it or sets its
modification time without changing one of them (the change time, which a program cannot set).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import ModelNotFoundError
from ..manifest import sha256_file
from ..system.paths import as_text

# Everything counts but what no export reads: hidden files, what training leaves beside a checkpoint, gigabytes of it,
# and copies of the weights for other runtimes. What is left out wrongly and changes is an export that is wrong.
FOLDERS = re.compile(r"\..*|onnx|openvino|checkpoint-\d+|runs|__pycache__")
FILES = re.compile(
    r"\..*|(optimizer|scheduler|rng_state|training_args|trainer_state|events\.out).*"
    r"|.*\.(onnx|onnx_data|onnx\.data|h5|msgpack|ot|gguf|tflite|log)"
)
SETTLED = 2.0  # seconds: a file that was written more recently may be again within one step of its clock

Known = dict[str, list[Any]]  # by name: its identity, and its SHA-256


def fingerprint(root: Path, memory: Path) -> str:
    """SHA-256 over names and contents of a checkpoint's files.

    Args:
        root: the directory.
        memory: a folder that keeps the hashes of files for the next time; nothing is kept where it cannot be written.

    Raises:
        ModelNotFoundError: a directory that cannot be read.
    """
    place = os.path.realpath(root)
    note = memory / f"{hashlib.sha256(os.fsencode(place)).hexdigest()[:32]}.json"
    before, known = _recalled(note), {}
    digest = hashlib.sha256()
    try:
        for name, path in sorted(_files(root)):
            status = path.stat()
            own = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            kept = before.get(name)
            sha256 = kept[1] if kept is not None and kept[0] == own else sha256_file(path)
            if time.time() - max(status.st_mtime, status.st_ctime) > SETTLED:
                known[name] = [own, sha256]
            digest.update(f"{sha256} {name}\n".encode())
    except OSError as error:
        raise ModelNotFoundError(f"{as_text(root)} cannot be read ({error.strerror}: {error.filename})") from error
    if known != before:
        remember(note, {"checkpoint": as_text(place), "files": known})
    return digest.hexdigest()


def remember(note: Path, body: object) -> None:
    """Write a JSON file, whole or not at all; where that is not possible, nothing."""
    work = note.with_name(f".{note.name}.{os.getpid()}.{time.monotonic_ns():x}")
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        work.write_text(json.dumps(body), encoding="utf-8")
        work.replace(note)
    except OSError:  # read-only, or full: found out again the next time
        try:
            work.unlink(missing_ok=True)
        except OSError:
            return


def recalled(note: Path) -> dict[str, Any]:
    """The object of a JSON file; an empty one where there is none that can be read."""
    try:
        body = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _recalled(note: Path) -> Known:
    files = recalled(note).get("files")
    found = files.items() if isinstance(files, dict) else ()
    return {name: entry for name, entry in found if isinstance(entry, list) and len(entry) == 2}


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """Files that an export may read, with their names in the directory; links are followed."""
    modules = _module_folders(root)
    for folder, below, files in os.walk(root, followlinks=True, onerror=_raise):
        here = Path(folder)
        above = here.parents[: len(here.relative_to(root).parts)]
        if os.path.realpath(here) in map(os.path.realpath, above):  # a link back
            below[:] = []
            continue
        below[:] = [name for name in below if here / name in modules or not FOLDERS.fullmatch(name)]
        for name in files:
            if not FILES.fullmatch(name) and (here / name).is_file():
                yield as_text((here / name).relative_to(root).as_posix()), here / name


def _module_folders(root: Path) -> set[Path]:
    """Folders that modules.json names, and those on the way to them: read whatever they are called."""
    try:
        entries = json.loads((root / "modules.json").read_text(encoding="utf-8"))
        folders = [root / str(entry["path"]) for entry in entries if entry.get("path")]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return set()
    return {part for folder in folders for part in (folder, *folder.parents)}


def _raise(error: OSError) -> None:
    raise error
