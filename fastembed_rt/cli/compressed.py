"""Compressed files by the ending of their names: which are read and written, and which are refused by name."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import zlib
from collections.abc import Callable, Iterator
from pathlib import PurePath
from typing import Any, BinaryIO, cast

from ..errors import InvalidInputError

KNOWN = (".gz", ".bz2", ".xz")
# Endings that promise another content than the one inside: nothing is read or written under them.
OTHERS = (".zst", ".zstd", ".lz4", ".lzma", ".br", ".z", ".zip", ".7z", ".tar", ".tgz", ".rar", ".sz")
FORMATS = ("txt", "jsonl", "csv")  # read and written from the first byte to the last; the others compress inside
# What the decompressors raise for damaged or cut files.
DAMAGED = (gzip.BadGzipFile, EOFError, zlib.error, lzma.LZMAError)


def split(name: str) -> tuple[PurePath, str]:
    """A file name without the ending of its compression, and that ending, "" for none.

    Raises:
        InvalidInputError: a compression that is not known.
    """
    path = PurePath(name)
    ending = path.suffix.lower()
    if ending in OTHERS:
        raise InvalidInputError(
            f"{name} would be compressed with {ending}, which is not known; known: {', '.join(KNOWN)}, or none"
        )
    return (path.with_suffix(""), ending) if ending in KNOWN else (path, "")


def check_format(name: str, format_name: str) -> None:
    """Raise InvalidInputError where a file of that name is compressed and its format is not one that can be."""
    plain, ending = split(name)
    if ending and format_name not in FORMATS:
        raise InvalidInputError(
            f"{name}: {format_name} is not compressed with {ending}; name it {plain}.{format_name}"
            if plain.suffix.lower() != f".{format_name}"
            else f"{name}: {format_name} is not compressed with {ending}; name it {plain}"
        )


@contextlib.contextmanager
def writing(stream: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """A stream whose contents reach `stream` compressed as the name says; the same contents give the same bytes."""
    ending = split(name)[1]
    if not ending:
        yield stream
    elif ending == ".gz":
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=stream, mtime=0) as packed:
            yield cast("BinaryIO", packed)
    elif ending == ".bz2":
        with bz2.BZ2File(stream, "wb") as packed:
            yield cast("BinaryIO", packed)
    else:
        with lzma.LZMAFile(stream, "wb") as packed:
            yield cast("BinaryIO", packed)


@contextlib.contextmanager
def reading(stream: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """The contents of a stream that is compressed as the name says.

    Raises:
        InvalidInputError: inside the block, where they are damaged.
    """
    ending = split(name)[1]
    openers: dict[str, Callable[[BinaryIO], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    opened = openers[ending](stream) if ending else stream
    try:
        if ending and not stream.peek(1):  # type: ignore[attr-defined]
            raise EOFError("it is empty")
        yield cast("BinaryIO", opened)
    except DAMAGED as error:
        raise InvalidInputError(f"{name} is not what its ending {ending} says ({error}); compress it again") from error
    except OSError as error:
        if not ending or error.errno is not None:
            raise
        raise InvalidInputError(f"{name} is not what its ending {ending} says ({error}); compress it again") from error
