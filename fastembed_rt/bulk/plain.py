"""Arrow's several layouts of the same values, each as the one that all of Arrow's functions and Parquet take.

polars writes strings and bytes as views, which have no kernels for taking rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .extras import arrow

# Types whose values are found by places and lengths that the file says.
PLACES = ("string", "large_string", "string_view", "binary", "large_binary", "binary_view", "dictionary", "nested")


def plain_type(kind: Any) -> Any:
    """A type without views, outside and inside."""
    if not _has_view(kind):
        return kind
    pyarrow = arrow()
    types = pyarrow.types

    def inner(of: Any) -> Any:
        return of.value_field.with_type(plain_type(of.value_type))

    made: tuple[tuple[Any, Any], ...] = (
        (types.is_string_view, lambda of: pyarrow.string()),
        (types.is_binary_view, lambda of: pyarrow.binary()),
        (types.is_dictionary, lambda of: pyarrow.dictionary(of.index_type, plain_type(of.value_type), of.ordered)),
        (types.is_struct, lambda of: pyarrow.struct([field.with_type(plain_type(field.type)) for field in of])),
        (types.is_map, lambda of: pyarrow.map_(plain_type(of.key_type), plain_type(of.item_type), of.keys_sorted)),
        (types.is_fixed_size_list, lambda of: pyarrow.list_(inner(of), of.list_size)),
        (types.is_list, lambda of: pyarrow.list_(inner(of))),
        (types.is_large_list, lambda of: pyarrow.large_list(inner(of))),
    )
    return next((make(kind) for told, make in made if told(kind)), kind)


def _has_view(kind: Any) -> bool:
    types = arrow().types
    if types.is_dictionary(kind):
        return _has_view(kind.value_type)
    inner = (kind.field(k).type for k in range(kind.num_fields)) if types.is_nested(kind) else ()
    return types.is_string_view(kind) or types.is_binary_view(kind) or any(map(_has_view, inner))


def plain(column: Any) -> Any:
    """A column (ChunkedArray) of its plain type.

    Raises:
        pyarrow.ArrowException: a dictionary of views somewhere inside another type.
    """
    wanted = plain_type(column.type)
    if wanted == column.type:
        return column
    pyarrow = arrow()
    if not pyarrow.types.is_dictionary(wanted):
        return _cast(column, wanted)
    chunks = [
        pyarrow.DictionaryArray.from_arrays(
            chunk.indices, _cast(chunk.dictionary, wanted.value_type), ordered=wanted.ordered
        )
        for chunk in column.chunks
    ]
    return pyarrow.chunked_array(chunks, wanted)


def _cast(column: Any, wanted: Any) -> Any:
    pyarrow = arrow()
    try:
        return column.cast(wanted)
    except pyarrow.ArrowNotImplementedError:  # of views, by early releases that have them
        made = pyarrow.array(column.to_pylist(), wanted)
        return pyarrow.chunked_array([made]) if isinstance(column, pyarrow.ChunkedArray) else made


def not_utf8(table: Any, names: Sequence[str]) -> dict[str, list[int]]:
    """Rows, by column, with a string that is no UTF-8, which Arrow takes and Python does not hold.

    Raises:
        pyarrow.ArrowInvalid: columns that are damaged: to read such lengths and places would be to read anything.
    """
    types = arrow().types
    of_places = [getattr(types, f"is_{kind}") for kind in PLACES]
    found = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name not in names:
            continue
        column.validate()
        kind = column.type
        if not any(told(kind) for told in of_places) or types.is_union(kind) or _is_utf8(column):
            continue
        decoded = column.cast(kind.value_type) if types.is_dictionary(kind) else column
        found[name] = [k for k in range(len(decoded)) if not _is_utf8(decoded.slice(k, 1))]
    return found


def _is_utf8(column: Any) -> bool:
    try:
        column.validate(full=True)
    except arrow().ArrowInvalid as error:
        if "UTF8" not in str(error):
            raise
        return False
    return True


def without(table: Any, bad: Mapping[str, list[int]]) -> Any:
    """The table with null in these rows of its columns."""
    pyarrow = arrow()
    for name, places in bad.items():
        at, gone = table.schema.get_field_index(name), set(places)
        kept = pyarrow.array([None if k in gone else k for k in range(table.num_rows)], pyarrow.int64())
        table = table.set_column(at, table.schema.field(at), table.column(at).take(kept))
    return table
