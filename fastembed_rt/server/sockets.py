"""Sockets that listen, and how their connections are shared out among the processes that accept from them."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import socket
import stat
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError

BACKLOG = 2048  # connections that wait to be accepted; the kernel may allow fewer
UDS_MODE = 0o660  # owner and group: whoever may write may ask
ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # a classic BPF program: return 0
NO_IPV6 = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # where it is switched off, localhost still stands for ::1 too
_made: dict[str, tuple[Path, int, int]] = {}  # Unix sockets of this process
GONE = -1  # on the board: a worker that accepts nothing


def let_nobody_in(listener: socket.socket) -> None:
    """Drop connections that come from now on, in all processes that share the socket; those that wait can be accepted.

    Without it a client may be let in by the kernel between the last accept and the close, and is then reset. It asks
    again after a second and is refused. Where the system has no such filter, that gap stays. A Unix socket loses its
    name instead, in the process that gave it.
    """
    if sys.platform != "win32" and listener.family == socket.AF_UNIX:
        _remove_own(listener.getsockname())
    elif sys.platform == "linux":
        program = ctypes.create_string_buffer(DROP_ALL, len(DROP_ALL))
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))


def bind(host: str, port: int) -> list[socket.socket]:
    """Listening sockets, one for each address that the host stands for.

    Raises:
        InvalidInputError: no such host, or the port is taken or not ours to take.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise InvalidInputError(f"host {host!r} is not known here: {error.strerror}") from None
    made: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, kind, protocol, _, place in dict.fromkeys(found):
            # Where any port is asked for, all addresses have the one that the first was given.
            chosen = made[0].getsockname()[1] if port == 0 and made else place[1]
            try:
                made.append(_listening(family, kind, protocol, (place[0], chosen, *place[2:])))
            except OSError as error:
                if family != socket.AF_INET6 or error.errno not in NO_IPV6:
                    raise
                missing = error
        if missing is not None and not made:
            raise missing
    except OSError as error:
        for listener in made:
            listener.close()
        raise InvalidInputError(f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}") from None
    return made


def _listening(family: int, kind: int, protocol: int, place: tuple[Any, ...]) -> socket.socket:
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(place)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def bind_unix(path: str) -> socket.socket:
    """A listening Unix socket; one that a dead server has left is replaced.

    Raises:
        InvalidInputError: something else is there, or a server that answers.
    """
    _remove_dead(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # Not open to others for a moment either, as it would be between bind and chmod.
        before = os.umask(0o777 & ~UDS_MODE)
        try:
            listener.bind(path)
        finally:
            os.umask(before)
        _made[path] = _file(path)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)  # a path that is too long has no number
        raise InvalidInputError(f"cannot listen on the Unix socket {path}: {reason}") from None
    listener.setblocking(False)
    return listener


def _file(path: str) -> tuple[Path, int, int]:
    """A file's place, and its numbers: another one may take the place."""
    place = Path(path).absolute()
    about = place.lstat()
    return place, about.st_dev, about.st_ino


def _remove_own(path: str) -> None:
    made = _made.pop(path, None)
    with contextlib.suppress(OSError):
        if made is not None and _file(path) == made:
            made[0].unlink()


def _remove_dead(path: str) -> None:
    try:
        mode = Path(path).lstat().st_mode
    except OSError:
        return
    if not stat.S_ISSOCK(mode):
        raise InvalidInputError(f"--uds {path} is a file that is no socket; give another path, or remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asked:
        asked.settimeout(1)
        try:
            asked.connect(path)
        except ConnectionRefusedError:
            with contextlib.suppress(FileNotFoundError):
                Path(path).unlink()
            return
        except OSError:
            return  # bind says what is wrong
    raise InvalidInputError(f"a server listens on the Unix socket {path} already")


def _in_memory() -> int:
    """A file without a name; where the system has none in memory, one on a disk, which may be full or read-only."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("fastembed-rt-board")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


class Board:
    """How many connections each worker has, in memory that all of them see."""

    def __init__(self, count: int, descriptor: int | None = None) -> None:
        """Of so many workers; `descriptor` is another process's, as it was inherited."""
        size = 4 * count
        if descriptor is None:
            descriptor = _in_memory()
            os.truncate(descriptor, size)
        self.descriptor = descriptor
        self._counts = memoryview(mmap.mmap(descriptor, size)).cast("i")
        self.count = count

    def set(self, slot: int, connections: int) -> None:
        """What a worker has now, or GONE."""
        self._counts[slot] = connections

    def get(self, slot: int) -> int:
        """What a worker has."""
        return self._counts[slot]

    def others_have_fewer(self, slot: int) -> bool:
        """Whether a connection is rather for another worker."""
        mine = self._counts[slot]
        return any(0 <= count < mine for count in self._counts)
