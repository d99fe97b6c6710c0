"""Names on the command line -> files in order, each with its format and what tells it from others; and a rank's share.

Nothing is opened here beyond what an identity needs.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import InvalidInputError
from . import databases, listing
from .extras import filesystem, is_url

ENDINGS = {
    ".txt": "txt",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".ipc": "arrow",
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".db": "sqlite",
    ".duckdb": "duckdb",
}
FORMATS = tuple(dict.fromkeys(ENDINGS.values()))
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".zstd": "zstd"}
COMPRESSED = ("txt", "jsonl", "json", "csv", "tsv")  # read from the first byte to the last
LINES = ("txt", "jsonl")  # formats that can be begun at any line
COLUMNAR = ("parquet", "arrow")  # formats that can be begun at any row
HASHED_WHOLE = 256 << 20  # bytes of all inputs; reading more than that twice would be felt
ENDS = 1 << 16
HIDDEN = (".", "_")  # what names of a directory's files begin with that are no inputs


@dataclass(frozen=True, kw_only=True)
class Source:
    """One input file, or the query on a database."""

    name: str
    format: str
    compression: str = ""
    size: int = 0

    @property
    def divisible(self) -> bool:
        """Whether ranks can share it."""
        return self.format in COLUMNAR or (self.format in LINES and not self.compression)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Bytes [start, stop) of a file whose share a rank has; all of one that cannot be divided."""

    source: Source
    start: int
    stop: int

    @property
    def whole(self) -> bool:
        """Whether it is all of the file."""
        return self.start == 0 and self.stop == self.source.size


def find(names: Iterable[str], given_format: str | None = None) -> list[Source]:
    """The files that names stand for: files, directories, patterns, URLs, datasets that were saved to disk.

    Raises:
        InvalidInputError: a name without a file, or one whose ending tells no format.
        MissingDependencyError: a URL whose package is missing.
    """
    found = [source for name in names for source in _expanded(name, given_format)]
    if not found:
        raise InvalidInputError("a job in parts needs inputs that can be read again: name files, not standard input")
    return found


def _expanded(name: str, given_format: str | None) -> Iterator[Source]:
    if name == "-":
        raise InvalidInputError("standard input cannot be read again after a stop; name files for a job in parts")
    if is_url(name):
        yield from _at_url(name, given_format)
        return
    path = Path(name)
    if path.is_dir():
        yield from _in_directory(path, given_format)
    elif path.exists():
        yield _of_file(name, given_format)
    elif glob.has_magic(name):
        matched = [found for found in listing.matching(name) if not Path(found).is_dir()]
        if not matched:
            raise InvalidInputError(f"no file matches {name}")
        for match in matched:
            yield _of_file(match, given_format)
    else:
        raise InvalidInputError(f"input {name} does not exist; pass a file, a directory, a pattern or a URL")


def _at_url(name: str, given_format: str | None) -> Iterator[Source]:
    system, path = filesystem(name)
    protocol = name.partition("://")[0]
    if system.isdir(path):
        found = [entry for entry in system.find(path) if _known(entry, given_format)]
    elif glob.has_magic(path):
        found = [entry for entry in system.glob(path) if system.isfile(entry)]
    else:
        found = [path] if system.exists(path) else []
    if not found:
        raise InvalidInputError(f"input {name} does not exist, or has no file of a known format")
    for entry in sorted(found):
        url = entry if is_url(entry) else f"{protocol}://{entry}"
        size = system.size(entry)
        if size is None:  # by which its end is known, and its share of many machines
            raise InvalidInputError(f"input {url}: its server does not say how many bytes it has; download it first")
        yield _source(url, given_format, int(size))


def _in_directory(path: Path, given_format: str | None) -> Iterator[Source]:
    if (path / "dataset_dict.json").is_file():
        splits = json.loads((path / "dataset_dict.json").read_text(encoding="utf-8"))["splits"]
        raise InvalidInputError(
            f"{path} holds the splits {', '.join(splits)} of a dataset; name one, such as {path / splits[0]}"
        )
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        yield from _dataset(path)
        return
    found = [name for name in listing.below(str(path), HIDDEN) if _known(os.path.relpath(name, path), given_format)]
    if not found:
        raise InvalidInputError(f"the directory {path} has no file with one of {', '.join(ENDINGS)}")
    for name in found:
        yield _of_file(name, given_format)


def _of_file(name: str, given_format: str | None) -> Source:
    listing.check_file(name)
    return _source(name, given_format)


def _dataset(path: Path) -> Iterator[Source]:
    """Files of `datasets.Dataset.save_to_disk`, in the order of its state."""
    try:
        state = json.loads((path / "state.json").read_text(encoding="utf-8"))
        selected, names = state.get("_indices_data_files"), [entry["filename"] for entry in state["_data_files"]]
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise InvalidInputError(f"{path / 'state.json'} does not name the files of a dataset ({error!r})") from error
    if selected:
        raise InvalidInputError(f"{path} has a selection beside its rows; save it again with flatten_indices()")
    for file in names:
        name = path / file
        listing.check_file(str(name))
        yield Source(name=str(name), format="arrow", size=name.stat().st_size)


def _known(name: str, given_format: str | None) -> bool:
    """Whether a directory's file is an input: not hidden, no other's bookkeeping, and of a format that is read."""
    path = PurePosixPath(name.replace(os.sep, "/"))
    if any(part.startswith(HIDDEN) for part in path.parts):
        return False
    plain, compression = _split(path.name)
    told = ENDINGS.get(PurePosixPath(plain).suffix.lower())
    return given_format is not None or (told is not None and (not compression or told in COMPRESSED))


def _split(name: str) -> tuple[str, str]:
    suffix = PurePosixPath(name).suffix.lower()
    compression = COMPRESSIONS.get(suffix, "")
    return (name[: -len(suffix)], compression) if compression else (name, "")


def _source(name: str, given_format: str | None, size: int | None = None) -> Source:
    plain, compression = _split(name)
    found = given_format or ENDINGS.get(PurePosixPath(plain.replace(os.sep, "/")).suffix.lower())
    if found is None:
        raise InvalidInputError(
            f"the name {name} does not tell its format ({', '.join(ENDINGS)}); pass --input-format {'|'.join(FORMATS)}"
        )
    if compression and found not in COMPRESSED:
        raise InvalidInputError(f"{name}: {found} is compressed inside and is not read from a compressed file")
    if size is None:
        size = databases.size(name, found)
    return Source(name=name, format=found, compression=compression, size=size)


def identities(sources: Sequence[Source], rows: Callable[[Source], str], *, shared: bool) -> list[dict[str, Any]]:
    """What tells each file from others of its name.

    Up to 256 MiB of inputs the hash of all of it, so that a copy is the same. To hash more would mean to read it twice:
    then a file is known by its size, the time of its last change and the hash of its first and last 64 KiB; an object
    by what its store says (ETag, version or time).

    A database is known by the rows that its query gives, of which `rows` makes a hash: where they lie, in the file or
    in its log, and what else is there makes no difference. With `shared`, by ranks, its size counts too, which decides
    their shares.
    """
    whole = sum(source.size for source in sources if source.format not in databases.DATABASES) <= HASHED_WHOLE
    return [_identity(source, rows, whole=whole, shared=shared) for source in sources]


def _identity(source: Source, rows: Callable[[Source], str], *, whole: bool, shared: bool) -> dict[str, Any]:
    if source.format in databases.DATABASES:
        return {"name": source.name, **({"size": source.size} if shared else {}), "rows_sha256": rows(source)}
    return {"name": source.name, "size": source.size, **_told_by(source, whole=whole)}


def _told_by(source: Source, *, whole: bool) -> dict[str, Any]:
    if is_url(source.name):
        system, place = filesystem(source.name)
        if not whole:
            info = system.info(place)
            said = {key: str(info[key]) for key in ("ETag", "etag", "VersionId", "md5Hash", "mtime") if key in info}
            return said or {"modified": str(info.get("LastModified") or info.get("created"))}
        with system.open(place, "rb") as stream:
            return {"sha256": hashlib.sha256(stream.read()).hexdigest()}
    return _told_by_file(Path(source.name), whole=whole)


def _told_by_file(path: Path, *, whole: bool) -> dict[str, Any]:
    with path.open("rb") as stream:
        if whole:
            return {"sha256": hashlib.file_digest(stream, "sha256").hexdigest()}
        found = hashlib.sha256(stream.read(ENDS))
        stream.seek(max(path.stat().st_size - ENDS, 0))
        found.update(stream.read(ENDS))
    return {"modified_ns": path.stat().st_mtime_ns, "ends_sha256": found.hexdigest()}


def _log(source: Source) -> Path | None:
    return None if is_url(source.name) else databases.log_of(source.name, source.format)


def stamps(sources: Sequence[Source]) -> list[tuple[tuple[str, int, int], ...]]:
    """What changes when a file, or its log, is written to while it is read: cheap; nothing for what is at a URL."""
    found = []
    for source in sources:
        log = _log(source)
        paths = [] if is_url(source.name) else [Path(source.name), *([log] if log is not None else [])]
        found.append(tuple((str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths))
    return found


def share(sources: list[Source], rank: int, world: int) -> list[Piece]:
    """What a rank reads: its part of all bytes in order, cut at lines, rows, or files that cannot be cut.

    All ranks' pieces, one after the other, are all inputs in order. A file that cannot be cut is that rank's in whose
    part it begins.
    """
    total = sum(source.size for source in sources)
    low, high = total * rank // world, total * (rank + 1) // world
    last = rank == world - 1
    pieces = []
    begin = 0
    for source in sources:
        end = begin + source.size
        if source.divisible and source.size:
            start, stop = max(low, begin), min(high, end)
            if start < stop:
                pieces.append(Piece(source=source, start=start - begin, stop=stop - begin))
        elif low <= begin < high or (last and begin >= high):
            pieces.append(Piece(source=source, start=0, stop=source.size))
        begin = end
    return pieces
