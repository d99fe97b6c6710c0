"""Where a job's files go: a directory, or an object store, in which a name leads to whole contents or to nothing.

In a directory, the order of what is done is the promise, also for a machine that loses its power at any point:

1. the contents go under a temporary name, and `fsync` of that file returns;
2. the file is renamed;
3. `fsync` of the directory returns.

Only then is a name said to be there, and what speaks of it (a part's record, `_SUCCESS`) begins. An object store shows
an object when all of it has arrived, which is the same promise.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, Protocol, cast

from ..errors import InvalidInputError
from ..system import locks
from .extras import filesystem, is_url

PIECE = 1 << 20  # bytes that are hashed at a time
UNFINISHED = re.compile(r"\..+\.[0-9a-f]{8}\.unfinished")
# Stores that show an object when it is complete; on the others a name is given by a move.
WHOLE_OBJECTS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oss", "memory"}


class Digest(NamedTuple):
    """What tells a file's contents from others."""

    size: int
    sha256: str


def digest(content: bytes | memoryview) -> Digest:
    """Of bytes in memory."""
    return Digest(len(content), hashlib.sha256(content).hexdigest())


Content = bytes | memoryview | Callable[[BinaryIO], object]  # or what writes it, piece by piece


class Hashing(io.RawIOBase):
    """A stream that passes on what is written into it, and knows its digest."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream, self._hash, self._size = stream, hashlib.sha256(), 0

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, content: Any) -> int:
        """All of it."""
        piece = memoryview(content).cast("B")
        self._stream.write(piece)
        self._hash.update(piece)
        self._size += len(piece)
        return len(piece)

    def tell(self) -> int:
        """Bytes so far."""
        return self._size

    @property
    def digest(self) -> Digest:
        """Of all that was written."""
        return Digest(self._size, self._hash.hexdigest())


def put(content: Content, stream: BinaryIO) -> Digest:
    """Write contents into a stream."""
    hashing = Hashing(stream)
    if callable(content):
        content(cast("BinaryIO", hashing))
    else:
        hashing.write(content)
    return hashing.digest


class Store(Protocol):
    """Files by names relative to a root; `/` parts folders."""

    root: str

    def write(self, name: str, content: Content) -> Digest:
        """Let the name lead to these bytes, and to nothing else before; on return they outlive the machine."""

    def read(self, name: str) -> bytes | None:
        """All of a file, None where there is none."""

    def digest(self, name: str) -> Digest | None:
        """Of a file as it lies there, None where there is none."""

    def names(self, folder: str = "") -> list[str]:
        """Files directly in a folder, by name and sorted; none where there is no such folder."""

    def folders(self, folder: str = "") -> list[str]:
        """Folders directly in a folder, as `names`."""

    def remove(self, name: str) -> None:
        """Take a file away, if it is there."""

    def remove_folder(self, folder: str) -> None:
        """Take a folder away with all that is in it."""

    def remove_unfinished(self, folder: str, beginning: str = "") -> None:
        """Take away what dead processes have left behind of files whose names begin so."""

    def lock(self, name: str) -> contextlib.AbstractContextManager[bool]:
        """Hold a lock until the block ends; False where another process has it. True where there are no locks."""


def open_store(root: str) -> Store:
    """The store under a path or a URL.

    Raises:
        InvalidInputError: a path that leads to a file.
        MissingDependencyError: a URL whose package is missing.
    """
    if is_url(root):
        system, path = filesystem(root)
        if "file" not in _protocols(system):
            return ObjectStore(system, path, root)
        root = path
    if Path(root).exists() and not Path(root).is_dir():
        raise InvalidInputError(f"{root} is not a directory; name one for the parts")
    return Directory(Path(root))


class Directory:
    """Files below a directory of this machine, or of a network file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.root = str(path)

    def write(self, name: str, content: Content) -> Digest:  # noqa: D102
        target = self.path / name
        self._make_folder(target.parent)
        unfinished = target.with_name(f".{target.name}.{secrets.token_hex(4)}.unfinished")
        try:
            made = self._fill(unfinished, content)
            self._rename(unfinished, target)
        except BaseException:
            with contextlib.suppress(OSError):
                unfinished.unlink(missing_ok=True)
            raise
        self._sync_folder(target.parent)
        return made

    def read(self, name: str) -> bytes | None:  # noqa: D102
        with contextlib.suppress(FileNotFoundError):
            return (self.path / name).read_bytes()
        return None

    def digest(self, name: str) -> Digest | None:  # noqa: D102
        try:
            with (self.path / name).open("rb") as stream:
                found = hashlib.sha256()
                size = 0
                while piece := stream.read(PIECE):
                    found.update(piece)
                    size += len(piece)
        except FileNotFoundError:
            return None
        except OSError:  # a sector that cannot be read: the part is as good as gone
            return Digest(-1, "")
        return Digest(size, found.hexdigest())

    def names(self, folder: str = "") -> list[str]:  # noqa: D102
        return self._entries(folder, files=True)

    def folders(self, folder: str = "") -> list[str]:  # noqa: D102
        return self._entries(folder, files=False)

    def _entries(self, folder: str, *, files: bool) -> list[str]:
        try:
            with os.scandir(self.path / folder) as entries:
                return sorted(entry.name for entry in entries if entry.is_file() == files)
        except FileNotFoundError:
            return []

    def remove(self, name: str) -> None:  # noqa: D102
        path = self.path / name
        with contextlib.suppress(FileNotFoundError):
            self._unlink(path)
            self._sync_folder(path.parent)

    def remove_folder(self, folder: str) -> None:  # noqa: D102
        for name in self.names(folder):
            with contextlib.suppress(FileNotFoundError):
                self._unlink(self.path / folder / name)
        for inner in self.folders(folder):
            self.remove_folder(f"{folder}/{inner}")
        with contextlib.suppress(FileNotFoundError):
            (self.path / folder).rmdir()

    def remove_unfinished(self, folder: str, beginning: str = "") -> None:  # noqa: D102
        for name in self.names(folder):
            if UNFINISHED.fullmatch(name) and name.startswith("." + beginning):
                with contextlib.suppress(FileNotFoundError):
                    self._unlink(self.path / folder / name)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[bool]:  # noqa: D102
        path = self.path / name
        self._make_folder(path.parent)
        with locks.locked(path, wait=False) as state:
            yield state != locks.BUSY

    # What reaches the disk, step by step; tests make each of them fail.

    def _make_folder(self, folder: Path) -> None:
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        for each in reversed(missing):
            each.mkdir(exist_ok=True)
            self._sync_folder(each.parent)

    def _fill(self, path: Path, content: Content) -> Digest:
        with path.open("xb", buffering=PIECE) as stream:
            made = put(content, stream)
            stream.flush()
            os.fsync(stream.fileno())
        return made

    def _rename(self, unfinished: Path, target: Path) -> None:
        unfinished.replace(target)

    def _unlink(self, path: Path) -> None:
        path.unlink()

    def _sync_folder(self, folder: Path) -> None:
        if os.name == "nt":  # which has no such call, and keeps names in a journal of its own
            return
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class ObjectStore:
    """Objects of an fsspec file system. No locks: two processes of one rank are not told from each other."""

    def __init__(self, system: Any, path: str, root: str) -> None:
        self._system, self._path, self.root = system, path.rstrip("/"), root
        self._whole = bool(WHOLE_OBJECTS & set(_protocols(system)))

    def _at(self, name: str) -> str:
        return f"{self._path}/{name}" if name else self._path

    def write(self, name: str, content: Content) -> Digest:  # noqa: D102
        target = self._at(name)
        self._system.makedirs(target.rpartition("/")[0], exist_ok=True)
        stream = io.BytesIO()
        made = put(content, stream)
        body = stream.getvalue()
        if self._whole:
            self._system.pipe_file(target, body)
        else:
            folder, _, last = target.rpartition("/")
            unfinished = f"{folder}/.{last}.{secrets.token_hex(4)}.unfinished"
            self._system.pipe_file(unfinished, body)
            self._system.mv(unfinished, target)
        self._system.invalidate_cache()
        if (found := self._system.size(target)) != made.size:
            raise OSError(f"{self.root}/{name} has {found} bytes after {made.size} were written")
        return made

    def read(self, name: str) -> bytes | None:  # noqa: D102
        with contextlib.suppress(FileNotFoundError):
            found: bytes = self._system.cat_file(self._at(name))
            return found
        return None

    def digest(self, name: str) -> Digest | None:  # noqa: D102
        found = hashlib.sha256()
        size = 0
        try:
            with self._system.open(self._at(name), "rb") as stream:
                while piece := stream.read(PIECE):
                    found.update(piece)
                    size += len(piece)
        except FileNotFoundError:
            return None
        return Digest(size, found.hexdigest())

    def names(self, folder: str = "") -> list[str]:  # noqa: D102
        return self._entries(folder, "file")

    def folders(self, folder: str = "") -> list[str]:  # noqa: D102
        return self._entries(folder, "directory")

    def _entries(self, folder: str, kind: str) -> list[str]:
        self._system.invalidate_cache()
        try:
            found = self._system.ls(self._at(folder), detail=True)
        except FileNotFoundError:
            return []
        names = (entry["name"].rstrip("/").rpartition("/")[2] for entry in found if entry["type"] == kind)
        return sorted(name for name in names if name)

    def remove(self, name: str) -> None:  # noqa: D102
        with contextlib.suppress(FileNotFoundError):
            self._system.rm_file(self._at(name))

    def remove_folder(self, folder: str) -> None:  # noqa: D102
        with contextlib.suppress(FileNotFoundError):
            self._system.rm(self._at(folder), recursive=True)

    def remove_unfinished(self, folder: str, beginning: str = "") -> None:  # noqa: D102
        for name in self.names(folder):
            if UNFINISHED.fullmatch(name) and name.startswith("." + beginning):
                self.remove(f"{folder}/{name}" if folder else name)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[bool]:  # noqa: D102
        yield True


def _protocols(system: Any) -> tuple[str, ...]:
    found = system.protocol
    return (found,) if isinstance(found, str) else tuple(found)
