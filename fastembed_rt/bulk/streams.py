"""Bytes of an input: opened wherever they lie, decompressed, and cut into lines."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

from ..errors import InvalidInputError
from .extras import arrow, filesystem, is_url
from .inputs import Piece, Source

BUFFER = 1 << 20
UTF8_BOM = b"\xef\xbb\xbf"
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError)


class Meter:
    """How many bytes of the inputs have been read, for whoever wants to say how long it takes."""

    def __init__(self) -> None:
        self._before = 0
        self._stream: Any = None
        self._now = 0

    def begin(self, stream: Any) -> None:
        """Another file's turn."""
        self._stream = stream

    def look(self) -> None:
        """Take the position down; by the thread that reads."""
        if self._stream is not None:
            with contextlib.suppress(OSError, ValueError):
                self._now = self._stream.tell()

    def end(self, size: int) -> None:
        """The file is read, all of its share."""
        self._stream, self._now = None, 0
        self._before += size

    @property
    def read(self) -> int:
        """Bytes so far."""
        return self._before + self._now


@contextlib.contextmanager
def raw(source: Source) -> Iterator[BinaryIO]:
    """The file's own bytes, seekable."""
    if is_url(source.name):
        system, path = filesystem(source.name)
        with system.open(path, "rb") as stream:
            yield io.BufferedReader(stream, BUFFER)
    else:
        with Path(source.name).open("rb", buffering=BUFFER) as stream:
            yield stream


@contextlib.contextmanager
def contents(piece: Piece, meter: Meter) -> Iterator[BinaryIO]:
    """The file's contents, decompressed.

    Raises:
        InvalidInputError: inside the block, where they are damaged.
    """
    source = piece.source
    with raw(source) as stream:
        if source.compression and not source.size:  # of gzip and zstd, what nothing was left of would have no row
            raise InvalidInputError(f"{source.name} is no whole {source.compression} file (it is empty)")
        meter.begin(stream)
        try:
            yield _decompressed(stream, source.compression)
        except DAMAGED as error:
            raise InvalidInputError(f"{source.name} is no whole {source.compression} file ({error})") from error
        except OSError as error:
            if not source.compression or error.errno is not None:
                raise
            raise InvalidInputError(f"{source.name} is no whole {source.compression} file ({error})") from error
        finally:
            meter.end(piece.stop - piece.start)


def _decompressed(stream: BinaryIO, compression: str) -> BinaryIO:
    if not compression:
        return stream
    if compression == "gzip":
        return cast("BinaryIO", gzip.GzipFile(fileobj=stream, mode="rb"))
    if compression == "bz2":
        return cast("BinaryIO", bz2.BZ2File(stream, "rb"))
    if compression == "xz":
        return cast("BinaryIO", lzma.LZMAFile(stream, "rb"))
    pyarrow = arrow()
    inner = pyarrow.CompressedInputStream(pyarrow.PythonFile(stream, mode="r"), compression)
    return cast("BinaryIO", io.BufferedReader(_Readable(inner), BUFFER))


class _Readable(io.RawIOBase):
    """A pyarrow stream as the io module wants one."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return int(self._stream.readinto(buffer))


def lines(stream: BinaryIO, piece: Piece) -> Iterator[bytes]:
    """Lines that begin inside the piece, with their ends; only \\n ends one."""
    if piece.start:
        stream.seek(piece.start - 1)  # a line that begins at `start` is ours; the rest of one before it is not
        at = piece.start - 1 + len(stream.readline())
    else:
        at = 0
    if piece.source.compression:
        yield from stream
        return
    while at < piece.stop:
        line = stream.readline()
        if not line:
            return
        at += len(line)
        yield line
