"""Formats of parts: columns and vectors as the bytes of one file. The same rows give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

import numpy as np

from ..errors import InvalidInputError, MissingDependencyError
from .extras import arrow, flat, required

FINGERPRINT_KEY = "fastembed_rt.fingerprint"  # in the metadata of Parquet and Arrow files
NULLS = 26  # of pyarrow, the first that writes null among vectors of one length into Parquet and reads it again
ROW_GROUP = 2048  # rows; readers that look for few rows read no more than one, and a writer holds one twice


class Layout(Protocol):
    """How vectors of one kind lie in columns."""

    def fields(self, pyarrow: Any) -> list[tuple[str, Any]]:
        """Names and types."""

    def columns(self, pyarrow: Any, values: Sequence[Any]) -> list[Any]:
        """What they hold for several texts."""

    def is_finite(self, value: Any) -> bool:
        """Whether all numbers of a text's vectors are."""


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


def check_types(columns: Any, kind: str) -> None:
    """Raise InvalidInputError where a column of a schema has a type that cannot be written, before a model works."""
    pyarrow = arrow()
    for field in columns:
        table = pyarrow.Table.from_arrays([pyarrow.nulls(0, field.type)], names=[field.name])
        try:
            table.take(flat(np.empty(0, np.int64)))
            if kind == "parquet":
                required("pyarrow.parquet", "Parquet").write_table(table, pyarrow.BufferOutputStream())
        except pyarrow.ArrowNotImplementedError as error:
            raise InvalidInputError(
                f"column {field.name!r} holds {field.type}, which cannot be written ({error}); choose others with "
                "--columns" + (", or take another format" if kind == "parquet" else "")
            ) from error


def check_nulls(table: Any, layout: Layout) -> None:
    """Raise MissingDependencyError where a vector is null and this pyarrow has no way to keep that in Parquet."""
    pyarrow = arrow()
    if int(pyarrow.__version__.partition(".")[0]) >= NULLS:
        return
    for name, kind in layout.fields(pyarrow):
        if pyarrow.types.is_fixed_size_list(kind) and table.column(name).null_count:
            raise MissingDependencyError(
                f"a null vector in Parquet needs pyarrow {NULLS} or newer, and this is {pyarrow.__version__}; "
                "pip install --upgrade pyarrow, or take another format or --on-null zero"
            )


def parquet(table: Any, layout: Layout, stream: BinaryIO) -> None:
    """A Parquet file; vectors have no repeated values, so that dictionaries are for the other columns."""
    writer = required("pyarrow.parquet", "Parquet")
    check_nulls(table, layout)
    vectors = {name for name, _ in layout.fields(arrow())}
    plain = [name for name in table.column_names if name not in vectors]
    writer.write_table(table, stream, row_group_size=ROW_GROUP, use_dictionary=plain)


def ipc(table: Any, layout: Layout, stream: BinaryIO) -> None:
    """An Arrow IPC file, uncompressed: read by mapping it."""
    with arrow().ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=ROW_GROUP)


def npy(values: Any, layout: Layout, stream: BinaryIO) -> None:
    """(n, width) as a .npy file, which numpy maps."""
    values = np.ascontiguousarray(values)
    np.lib.format.write_array_header_1_0(stream, np.lib.format.header_data_from_array_1_0(values))
    stream.write(values.data.cast("B") if values.size else b"")


@dataclass(frozen=True)
class Format:
    """One format of parts."""

    ending: str
    write: Callable[[Any, Layout, BinaryIO], None]
    arrays: bool = False  # of vectors alone, where the others are of tables


FORMATS: Mapping[str, Format] = {
    "parquet": Format("parquet", parquet),
    "arrow": Format("arrow", ipc),
    "npy": Format("npy", npy, arrays=True),
}
