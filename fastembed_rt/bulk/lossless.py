"""Which values of one type are the same under another; where Arrow would take them all, and change or cut some."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .extras import arrow

Look = Callable[[Any, str], str]  # a value that is not None, and its column -> why it does not fit, "" where it does


def takes(wanted: Any, kind: Any) -> bool:
    """Whether a column of type `kind` may be cast to `wanted`: each value stays what it is, or the cast fails."""
    types = arrow().types
    if kind == wanted or types.is_null(kind):
        return True
    if types.is_dictionary(kind) or types.is_dictionary(wanted):
        return takes(*(each.value_type if types.is_dictionary(each) else each for each in (wanted, kind)))
    if types.is_nested(kind) and types.is_nested(wanted):
        return _takes_inside(wanted, kind)
    if types.is_floating(kind) and types.is_floating(wanted):
        return bool(kind.bit_width <= wanted.bit_width)
    if types.is_timestamp(kind) and types.is_timestamp(wanted):
        return (kind.tz is None) == (wanted.tz is None)
    return any(told(kind) and told(wanted) for told in _families())


def _takes_inside(wanted: Any, kind: Any) -> bool:
    types = arrow().types
    if types.is_struct(kind) and types.is_struct(wanted):
        fields, others = ({field.name: field.type for field in each} for each in (wanted, kind))
        same = fields.keys() == others.keys() and len(fields) == wanted.num_fields == kind.num_fields
        return same and all(takes(fields[name], others[name]) for name in fields)
    if types.is_map(kind) and types.is_map(wanted):
        return takes(wanted.key_type, kind.key_type) and takes(wanted.item_type, kind.item_type)
    return _is_list(kind) and _is_list(wanted) and takes(wanted.value_type, kind.value_type)


def _families() -> tuple[Callable[[Any], bool], ...]:
    """Kinds of types among which Arrow's cast itself fails where a value would not be the same."""
    types = arrow().types
    return (
        lambda kind: types.is_integer(kind) or types.is_floating(kind),
        lambda kind: types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind),
        lambda kind: (
            types.is_binary(kind)
            or types.is_large_binary(kind)
            or types.is_binary_view(kind)
            or types.is_fixed_size_binary(kind)
        ),
        types.is_decimal,
        types.is_date,
        types.is_time,
        types.is_duration,
    )


def _is_list(kind: Any) -> bool:
    types = arrow().types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def looker(kind: Any, lacks: str) -> Look | None:
    """What finds objects of Python that pyarrow.array would change for a type, or take without some of their keys.

    None where it would raise for all others. `lacks` says of a key that the type does not have where it is missing.
    """
    types = arrow().types

    def of_another_type(value: Any, name: str) -> str:
        return f"{name!r} is {type(value).__name__}, and {kind} in the rows before"

    if types.is_dictionary(kind):
        numbers = (bool, int, float)  # which would be written as texts
        return lambda value, name: of_another_type(value, name) if isinstance(value, numbers) else ""
    if types.is_temporal(kind):  # a number would be one of days or seconds
        return lambda value, name: of_another_type(value, name) if isinstance(value, (int, float)) else ""
    if types.is_floating(kind):
        holds = _digits(kind)

        def number(value: Any, name: str) -> str:
            if isinstance(value, bool):
                return of_another_type(value, name)
            return "" if holds(value) else f"{name!r} is {value!r}, which {kind} in the rows before does not hold"

        return number
    if types.is_struct(kind):
        fields = {field.name: looker(field.type, lacks) for field in kind}

        def struct(value: Any, name: str) -> str:
            if not isinstance(value, dict):
                return of_another_type(value, name)
            for key, inner in value.items():
                if key not in fields:
                    return f"{name!r} has {key!r}, {lacks}; choose columns with --columns"
                look = fields[key]
                if look is not None and inner is not None and (reason := look(inner, f"{name}.{key}")):
                    return reason
            return ""

        return struct
    if _is_list(kind):
        element = looker(kind.value_type, lacks)

        def several(value: Any, name: str) -> str:
            if not isinstance(value, list):
                return of_another_type(value, name)
            reasons = (element(inner, name) for inner in value if inner is not None) if element is not None else ()
            return next(filter(None, reasons), "")

        return several
    return None


def _digits(kind: Any) -> Callable[[Any], bool]:
    """Whether a number that was written has as many digits as a type of floats keeps: 0.1 is the float32 0.1."""
    if arrow().types.is_float64(kind):
        return lambda value: True
    narrow = kind.to_pandas_dtype()

    def holds(value: Any) -> bool:
        with np.errstate(over="ignore"):
            return not isinstance(value, float) or not math.isfinite(value) or float(str(narrow(value))) == value

    return holds
