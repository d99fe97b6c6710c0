"""Formats of parts: columns and vectors as the bytes of one file. The same rows give the same bytes."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..errors import InvalidInputError
from .extras import arrow, required

FINGERPRINT_KEY = "fastembed_rt.fingerprint"  # in the metadata of Parquet and Arrow files
ROW_GROUP = 8192  # rows; readers that look for few rows read no more than one


class Layout(Protocol):
    """How vectors of one kind lie in columns."""

    def fields(self, pyarrow: Any) -> list[tuple[str, Any]]:
        """Names and types."""

    def columns(self, pyarrow: Any, values: Sequence[Any]) -> list[Any]:
        """What they hold for several texts."""


def with_vectors(table: Any, layout: Layout, values: Sequence[Any], absent: Sequence[bool], fingerprint: str) -> Any:
    """The table with the vectors' columns behind its own; null where `absent`, whose values stand in `values` too."""
    pyarrow = arrow()
    fields = layout.fields(pyarrow)
    columns = layout.columns(pyarrow, values) if len(values) else [pyarrow.array([], kind) for _, kind in fields]
    if any(absent):
        keep = pyarrow.array([None if gone else k for k, gone in enumerate(absent)], pyarrow.int64())
        columns = [column.take(keep) for column in columns]
    schema = pyarrow.schema([*table.schema, *fields], metadata={FINGERPRINT_KEY: fingerprint})
    return pyarrow.Table.from_arrays([*table.columns, *columns], schema=schema)


def schema(carried: Any, layout: Layout) -> Any:
    """Of a part's rows."""
    pyarrow = arrow()
    return pyarrow.schema([*carried, *layout.fields(pyarrow)])


def check_names(columns: Sequence[str], layout: Layout) -> None:
    """Raise InvalidInputError where a column of the input has the name of one with vectors."""
    for name, _ in layout.fields(arrow()):
        if name in columns:
            raise InvalidInputError(
                f"the input has a column {name!r}, which is the name of the vectors'; choose others with --columns"
            )


def parquet(table: Any, layout: Layout) -> memoryview:
    """A Parquet file; vectors have no repeated values, so that dictionaries are for the other columns."""
    pyarrow = arrow()
    writer = required("pyarrow.parquet", "Parquet")
    vectors = {name for name, _ in layout.fields(pyarrow)}
    sink = pyarrow.BufferOutputStream()
    plain = [name for name in table.column_names if name not in vectors]
    writer.write_table(table, sink, row_group_size=ROW_GROUP, use_dictionary=plain)
    return memoryview(sink.getvalue())


def ipc(table: Any, layout: Layout) -> memoryview:
    """An Arrow IPC file, uncompressed: read by mapping it."""
    pyarrow = arrow()
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=ROW_GROUP)
    return memoryview(sink.getvalue())


@dataclass(frozen=True)
class Format:
    """One format of parts."""

    ending: str
    dump: Callable[[Any, Layout], memoryview] | None  # a table; None: vectors alone, as an array


FORMATS: Mapping[str, Format] = {
    "parquet": Format("parquet", parquet),
    "arrow": Format("arrow", ipc),
    "npy": Format("npy", None),
}


def npy(values: Any) -> memoryview:
    """(n, width) as a .npy file, which numpy maps."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ascontiguousarray(values), allow_pickle=False)
    return stream.getbuffer()
