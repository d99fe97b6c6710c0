"""The index as one Parquet file: a row a chunk, what made it in the metadata. It is replaced whole, by a rename.

Columns: file, start, stop (characters of its text), line, text, code (dim bytes, int8), scale (float32). A code times
its scale is the chunk's vector.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInputError, MissingDependencyError, ModelFormatError
from ..system import leftovers
from .codes import Codes, Floats

FOLDER, NAME, LOCK = ".fastembed-rt", "index.parquet", "lock"  # in the folder that is searched
REBUILDING = "rebuilding.parquet"  # what a build that begins anew has so far, beside the index that it will replace
KEY = b"fastembed_rt.index"
FORMAT = 2
GROUP = 1024  # rows of a Parquet row group: what is read for the text of one hit


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What decides the chunks and vectors of an index."""

    model: str  # where it was opened from
    checkpoint: str  # its name
    precision: str  # of the graph that ran
    documents: str  # fingerprint of the chunks' vectors
    questions: str  # and of a question's
    chunk_tokens: int
    dim: int
    similarity: str


@dataclass(frozen=True)
class Contents:
    """An index, or as much of it as a build has so far."""

    settings: Settings
    files: Mapping[str, str]  # SHA-256 of each by name, those without a chunk too
    table: Any  # pyarrow.Table
    complete: bool = True  # its build came to its end


def pyarrow() -> Any:
    """The package that reads Parquet.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("an index is a Parquet file: pip install 'fastembed-rt[parquet]'") from error
    return pyarrow


def place(folder: Path) -> Path:
    """Where the index of a folder is."""
    return folder / FOLDER / NAME


def schema(dim: int) -> Any:
    """The columns."""
    pa = pyarrow()
    return pa.schema(
        [
            ("file", pa.string()),
            ("start", pa.int64()),
            ("stop", pa.int64()),
            ("line", pa.string()),
            ("text", pa.string()),
            ("code", pa.binary(dim)),
            ("scale", pa.float32()),
        ]
    )


def rows(name: str, chunks: Sequence[tuple[int, int, str, str]], codes: Codes, scales: Floats) -> Any:
    """A table of a file's chunks: (start, stop, line, text) of each."""
    pa = pyarrow()
    dim = codes.shape[1]
    starts, stops, lines, texts = zip(*chunks, strict=True) if chunks else ((), (), (), ())
    columns = [
        pa.array([name] * len(chunks), pa.string()),
        pa.array(starts, pa.int64()),
        pa.array(stops, pa.int64()),
        pa.array(lines, pa.string()),
        pa.array(texts, pa.string()),
        pa.FixedSizeBinaryArray.from_buffers(pa.binary(dim), len(chunks), [None, pa.py_buffer(codes.tobytes())]),
        pa.array(scales, pa.float32()),
    ]
    return pa.Table.from_arrays(columns, schema=schema(dim))


def write(path: Path, contents: Contents) -> None:
    """Replace the index; a crash at any moment leaves the old one or the new one."""
    pa = pyarrow()
    about = {
        "format": FORMAT,
        "settings": asdict(contents.settings),
        "files": dict(contents.files),
        "complete": contents.complete,
    }
    body = json.dumps(about, ensure_ascii=False).encode()
    table = contents.table.replace_schema_metadata({KEY: body})
    path.parent.mkdir(exist_ok=True)
    leftovers.remove_left_behind(path.parent, re.compile(rf"{re.escape(path.name)}\.\d+\.\d+\.tmp"))
    numbers = itertools.count()

    def fresh() -> Path:
        return path.with_name(f"{path.name}.{os.getpid()}.{next(numbers)}.tmp")

    with leftovers.unfinished(fresh, lambda new: new.open("xb").close()) as temporary:
        with temporary.open("wb") as stream:
            pa.parquet.write_table(
                table,
                stream,
                row_group_size=GROUP,
                # Codes are close to random: neither compression nor a dictionary would make them smaller.
                use_dictionary=["file"],
                compression={name: "NONE" if name in ("code", "scale") else "ZSTD" for name in table.column_names},
                write_page_checksum=True,
            )
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    with contextlib.suppress(OSError):  # a directory cannot be synchronized everywhere
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


class Stored:
    """An index file that is open: its settings now, its columns when they are asked for."""

    def __init__(self, path: Path) -> None:
        """Open it.

        Raises:
            InvalidInputError: there is none.
            ModelFormatError: a file that this version cannot read.
        """
        pa = pyarrow()
        if not path.is_file():
            folder = path.parent.parent
            if not folder.is_dir():
                raise InvalidInputError(f"{folder} is not a directory; give the folder whose files are searched")
            raise InvalidInputError(
                f"{path} does not exist; make it with: fastembed-rt index build {folder} --model MODEL"
            )
        self.path = path
        try:
            self._stream = path.open("rb")  # by Python: pyarrow takes no name with bytes that are not UTF-8
        except OSError as error:
            raise self._damaged(error) from error
        try:
            self._file = pa.parquet.ParquetFile(self._stream, page_checksum_verification=True)
        except (pa.ArrowException, OSError) as error:
            self._stream.close()
            raise self._damaged(error) from error
        try:
            about = json.loads((self._file.schema_arrow.metadata or {})[KEY])
        except (KeyError, ValueError) as error:
            self.close()
            raise self._damaged(error) from error
        if about.get("format") != FORMAT:
            self.close()
            raise ModelFormatError(
                f"{path} has format {about.get('format')}, this version reads {FORMAT}; build it again with --rebuild"
            )
        self.settings = Settings(**about["settings"])
        self.files: dict[str, str] = about["files"]
        self.complete: bool = about["complete"]  # else a build goes on, or was stopped

    def __len__(self) -> int:
        count: int = self._file.metadata.num_rows
        return count

    def vectors(self) -> tuple[Codes, Floats]:
        """Codes (n, dim) and scales (n,) of all chunks."""
        table = self._read(["code", "scale"])
        codes = np.empty((len(self), self.settings.dim), np.int8)
        start = 0
        for piece in table.column("code").chunks:
            found = np.frombuffer(piece.buffers()[1], np.int8).reshape(-1, self.settings.dim)
            codes[start : start + len(piece)] = found[piece.offset : piece.offset + len(piece)]
            start += len(piece)
        return codes, table.column("scale").to_numpy()

    def chunks(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """File, start, stop, line and text of some chunks; reads the row groups that have them."""
        groups = sorted({number // GROUP for number in numbers})
        columns = ["file", "start", "stop", "line", "text"]
        found: dict[int, Any] = {}
        for group in groups:
            found[group] = self._read(columns, group)
        return [found[n // GROUP].slice(n % GROUP, 1).to_pylist()[0] for n in numbers]

    def contents(self) -> Contents:
        """All of it, in memory."""
        return Contents(self.settings, self.files, self._read(None).replace_schema_metadata(None), self.complete)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        self._stream.close()

    def _read(self, columns: Sequence[str] | None, group: int | None = None) -> Any:
        try:
            if group is not None:
                return self._file.read_row_group(group, columns=columns)
            return self._file.read(columns=columns)
        except (pyarrow().ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> ModelFormatError:
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return ModelFormatError(f"{self.path} is damaged or no index ({said}); build it again with --rebuild")
