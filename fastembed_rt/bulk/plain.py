"""Arrow's several layouts of the same values, each as the one that all of Arrow's functions and Parquet take.

polars writes strings and bytes as views, which have no kernels for taking rows.
"""

from __future__ import annotations

from typing import Any

from .extras import arrow


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
        return column.cast(wanted)
    chunks = [
        pyarrow.DictionaryArray.from_arrays(
            chunk.indices, chunk.dictionary.cast(wanted.value_type), ordered=wanted.ordered
        )
        for chunk in column.chunks
    ]
    return pyarrow.chunked_array(chunks, wanted)


def readable(table: Any) -> tuple[Any, dict[int, str]]:
    """A table whose values Python can hold: strings that are no UTF-8 are null in it, and why, by row."""
    pyarrow = arrow()
    faults: dict[int, str] = {}
    try:
        table.validate(full=True)
    except pyarrow.ArrowException:  # or values of a type that is not looked at
        for place, name in enumerate(table.column_names):
            column = table.column(place)
            bad = [k for k in range(len(column)) if not _is_readable(column[k])]
            if bad:
                faults |= {k: f"{name!r} is not UTF-8" for k in bad if k not in faults}
                kept = pyarrow.array([None if k in faults else k for k in range(len(column))], pyarrow.int64())
                table = table.set_column(place, table.schema.field(place), column.take(kept))
    return table, faults


def _is_readable(value: Any) -> bool:
    try:
        value.as_py()
    except UnicodeDecodeError:
        return False
    return True
