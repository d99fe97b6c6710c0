"""Sockets that listen, and how their connections are shared out among the processes that accept from them."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import socket
import stat
import struct
import sys
import tempfile
from pathlib import Path

from ..errors import InvalidInputError

BACKLOG = 2048  # connections that wait to be accepted; the kernel may allow fewer
UDS_MODE = 0o660  # owner and group: whoever may write may ask
ATTACH_FILTER = 26  # SO_ATTACH_FILTER of Linux
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # a classic BPF program: return 0
GONE = -1  # on the board: a worker that accepts nothing


def let_nobody_in(listener: socket.socket) -> None:
    """Drop connections that come from now on, in all processes that share the socket; those that wait can be accepted.

    Without it a client may be let in by the kernel between the last accept and the close, and is then reset. It asks
    again after a second and is refused. Where the system has no such filter, that gap stays.
    """
    if sys.platform == "linux" and listener.family != socket.AF_UNIX:
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
    try:
        for family, kind, protocol, _, place in dict.fromkeys(found):
            listener = socket.socket(family, kind, protocol)
            made.append(listener)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            # Where any is asked for, all addresses have the one that the first was given.
            chosen = made[0].getsockname()[1] if port == 0 and len(made) > 1 else place[1]
            listener.bind((place[0], chosen, *place[2:]))
            listener.listen(BACKLOG)
            listener.setblocking(False)
    except OSError as error:
        for listener in made:
            listener.close()
        raise InvalidInputError(f"cannot listen on {host} port {port}: {os.strerror(error.errno or 0)}") from None
    return made


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
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)  # a path that is too long has no number
        raise InvalidInputError(f"cannot listen on the Unix socket {path}: {reason}") from None
    listener.setblocking(False)
    return listener


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


class Board:
    """How many connections each worker has, in memory that all of them see."""

    def __init__(self, count: int, descriptor: int | None = None) -> None:
        """Of so many workers; `descriptor` is another process's, as it was inherited."""
        size = 4 * count
        if descriptor is None:
            file = tempfile.TemporaryFile()  # noqa: SIM115  the mapping outlives it
            file.truncate(size)
            descriptor = os.dup(file.fileno())
            file.close()
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
