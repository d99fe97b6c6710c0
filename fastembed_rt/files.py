"""The files of a model as they were when it was loaded: what opens later is what was checked, or an error.

Sessions for bulk, those of a forked child, a route's, and a second tokenizer open long after the hashes were compared.
Meanwhile the process may have changed its directory, a link may lead to another model, the directory may have been
exported again. So the files are held open from the beginning: a path is used while it leads to them, else they are
read through what is held. A file that is written to in place is an error, also for sessions that have it mapped.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path

from .errors import IntegrityError
from .manifest import FileRecord

PIECE = 1 << 20  # bytes that are read and hashed at a time
AGAIN = "restore the file or export the model again"
ADVICE = {errno.EMFILE: "raise the limit (ulimit -n)", errno.EACCES: "give this user the right to read it"}
Identity = tuple[int, int, int, int]  # device, inode, size, time of the last change of the contents


_position = threading.Lock()  # of descriptors, where reading moves it (Windows): a file is hashed while it is read


class ModelFiles:
    """Files of one directory, held open. Safe to use from several threads and after a fork."""

    def __init__(self, directory: Path, records: Iterable[FileRecord]) -> None:
        """Open the files that the manifest names.

        Raises:
            IntegrityError: a file that is missing, or is no file.
        """
        self.directory = directory
        self._records: dict[str, FileRecord] = {}
        self._descriptors: dict[str, int] = {}
        self._identities: dict[str, Identity] = {}
        self._release = weakref.finalize(self, _close, self._descriptors, self._identities)
        self._release.atexit = False  # what runs at exit may still open a session
        for record in records:
            if record.file not in self._records:
                self._hold(record.file)
                self._records[record.file] = record

    @property
    def names(self) -> tuple[str, ...]:
        """Of the files that are held."""
        return tuple(self._records)

    def _hold(self, name: str) -> None:
        path = self.directory / name
        if path.exists() and not path.is_file():  # a pipe would wait for a writer
            raise IntegrityError(f"{path} is not a file; {AGAIN}")
        try:
            self._descriptors[name] = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError as error:
            raise IntegrityError(f"{path} is missing ({error.strerror}); {AGAIN}") from error
        except OSError as error:
            what = ADVICE.get(error.errno or 0, AGAIN)
            raise IntegrityError(f"{path} cannot be opened ({error.strerror}); {what}") from error
        self._identities[name] = _identity(os.fstat(self._descriptors[name]))

    def check(self, name: str) -> None:
        """Compare the size and the hash of a file that is held with the manifest's.

        Raises:
            IntegrityError: they differ.
        """
        path, record = self.directory / name, self._records[name]
        identity = _identity(os.fstat(self._descriptor(name)))
        if identity[2] != record.size:
            raise IntegrityError(f"{path} has {identity[2]} bytes, the manifest says {record.size}; {AGAIN}")
        digest = hashlib.sha256()
        for piece in self._pieces(name):
            digest.update(piece)
        if digest.hexdigest() != record.sha256:
            found, wanted = digest.hexdigest()[:12], record.sha256[:12]
            raise IntegrityError(f"{path} has SHA-256 {found}…, the manifest says {wanted}…; {AGAIN}")
        self._identities[name] = identity  # taken before the hash: what is written later shows

    def read(self, name: str) -> bytes:
        """The contents of a file.

        Raises:
            IntegrityError: they were written to since the file was opened.
        """
        content = b"".join(self._pieces(name))
        self.check_unwritten([name])
        return content

    def in_place(self, names: Iterable[str]) -> bool:
        """Whether the directory's path still leads to the files that are held."""
        for name in names:
            try:
                found = (self.directory / name).stat()
            except OSError:
                return False
            if _identity(found)[:2] != self._identities[name][:2]:
                return False
        return True

    def check_unwritten(self, names: Iterable[str]) -> None:
        """Raise IntegrityError where a file's contents were written to since it was opened."""
        for name in names:
            if _identity(os.fstat(self._descriptor(name))) != self._identities[name]:
                try:
                    self.check(name)  # its time alone may have changed
                except IntegrityError as error:
                    raise IntegrityError(
                        f"{self.directory / name} was written to since the model was loaded; load the model again "
                        "(export --force replaces a directory without touching what is in use)"
                    ) from error

    def check_mapped(self, names: Iterable[str]) -> None:
        """As `check_unwritten`, in microseconds, for each call of a session that reads mapped files.

        A descriptor that somebody closed says nothing, and what is mapped stays.
        """
        for name in names:
            try:
                found = _identity(os.fstat(self._descriptors[name]))
            except OSError:
                continue
            known = self._identities[name]
            if found != known and found[:2] == known[:2]:
                self.check_unwritten([name])

    def identity(self, name: str) -> Identity:
        """What tells the file from others of the same name, for another process."""
        return self._identities[name]

    def _descriptor(self, name: str) -> int:
        """The file's descriptor; a new one where somebody closed it, as daemons close all that they inherit."""
        descriptor, identity = self._descriptors[name], self._identities[name]
        if _leads_to(descriptor, identity):
            return descriptor
        path = self.directory / name
        try:
            found = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except OSError:
            found = -1
        if not _leads_to(found, identity):
            if found >= 0:
                os.close(found)
            raise IntegrityError(
                f"{path} was closed from outside (os.closerange, as daemons do) and is gone since; load the model again"
            )
        self._descriptors[name] = found
        return found

    def _pieces(self, name: str) -> Iterator[bytes]:
        descriptor, offset = self._descriptor(name), 0
        while piece := _read(descriptor, offset):
            yield piece
            offset += len(piece)


def check_file(directory: Path, record: FileRecord) -> None:
    """Raise IntegrityError unless the file is there with the recorded size and hash."""
    ModelFiles(directory, (record,)).check(record.file)


def _read(descriptor: int, offset: int) -> bytes:
    if hasattr(os, "pread"):  # which leaves alone the position that a forked child shares
        return os.pread(descriptor, PIECE, offset)
    with _position:
        os.lseek(descriptor, offset, os.SEEK_SET)
        return os.read(descriptor, PIECE)


def _identity(found: os.stat_result) -> Identity:
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _leads_to(descriptor: int, identity: Identity) -> bool:
    try:
        return _identity(os.fstat(descriptor))[:2] == identity[:2]
    except OSError:  # closed
        return False


def _close(descriptors: dict[str, int], identities: dict[str, Identity]) -> None:
    while descriptors:
        name, descriptor = descriptors.popitem()
        if name not in identities or _leads_to(descriptor, identities[name]):  # else it is another's by now
            os.close(descriptor)
