"""Columns of the inputs: which there are and of what types, what becomes of Python's objects, and a row's text."""

from __future__ import annotations

import math
import string
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ..errors import InvalidInputError
from .extras import arrow
from .lossless import looker, takes
from .plain import plain, plain_type
from .rows import Fault, delimiter_meant

SAMPLE = 1000  # rows at the beginning of the inputs that decide the columns of formats without types
ESCAPES = {r"\n": "\n", r"\t": "\t", r"\r": "\r", r"\\": "\\"}


@dataclass(frozen=True)
class Template:
    """How a text is made of a row: `{title}\\n{body}`, or one column as it is."""

    pattern: str
    plain: bool = False  # the pattern is the name of a column

    @cached_property
    def parts(self) -> list[tuple[str, str | None]]:
        """Literal texts, each with the column behind it, None at the end.

        Raises:
            InvalidInputError: a pattern that cannot be read, or names no column.
        """
        if self.plain:
            return [("", self.pattern)]
        try:
            parsed = list(string.Formatter().parse(self.pattern))
        except ValueError as error:
            raise InvalidInputError(f"--template {self.pattern!r} cannot be read ({error})") from error
        found: list[tuple[str, str | None]] = []
        for literal, name, spec, conversion in parsed:
            if name == "" or spec or conversion:
                raise InvalidInputError(f"--template {self.pattern!r}: braces hold a column's name and nothing else")
            found.append((_unescaped(literal), name))
        if not any(name for _, name in found):
            raise InvalidInputError(f"--template {self.pattern!r} names no column; write one in braces, as {{text}}")
        return found

    @property
    def names(self) -> list[str]:
        """Columns that it wants."""
        return list(dict.fromkeys(name for _, name in self.parts if name is not None))

    def texts(self, table: Any) -> list[str | None]:
        """A text for each row, None where a column that it wants is null."""
        columns = {name: _strings(table.column(name)) for name in self.names}
        if self.plain:
            return columns[self.pattern]
        rows: list[str | None] = []
        for values in zip(*columns.values(), strict=True):
            if None in values:
                rows.append(None)
            else:
                row = dict(zip(columns, values, strict=True))
                rows.append("".join(literal + (row[name] if name else "") for literal, name in self.parts))
        return rows


def _unescaped(text: str) -> str:
    made, k = [], 0
    while k < len(text):
        pair = text[k : k + 2]
        made.append(ESCAPES.get(pair, text[k]))
        k += 2 if pair in ESCAPES else 1
    return "".join(made)


def _strings(column: Any) -> list[Any]:
    pyarrow = arrow()
    if pyarrow.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    values: list[Any] = column.to_pylist()
    if _is_text(column.type):
        return values
    # A float that is no number is pandas' way to say that there is nothing.
    return [None if value is None or value != value else str(value) for value in values]  # noqa: PLR0124


def _is_text(kind: Any) -> bool:
    types = arrow().types
    inner = kind.value_type if types.is_dictionary(kind) else kind
    return bool(types.is_string(inner) or types.is_large_string(inner) or types.is_string_view(inner))


@dataclass(frozen=True)
class Plan:
    """What a job takes of its inputs."""

    schema: Any  # pyarrow.Schema: all columns that are read
    template: Template
    carried: list[str]  # columns that go into the parts
    sampled: bool = False  # the columns are those of a sample: rows may have others
    every: bool = True  # all columns are carried, so that one beyond the schema would be lost
    beside_csv: bool = False  # some of the inputs are csv, others not: plain values are strings, as they are there

    @property
    def described(self) -> list[list[str]]:
        """Names and types of what is carried."""
        return [[name, str(self.schema.field(name).type)] for name in self.carried]

    @property
    def carried_schema(self) -> Any:
        """Of what is carried."""
        return arrow().schema([self.schema.field(name) for name in self.carried])

    @classmethod
    def of(
        cls,
        schema: Any,
        template: Template,
        chosen: Sequence[str] | None,
        *,
        sampled: bool,
        label: str,
        beside_csv: bool = False,
    ) -> Plan:
        """Take what a job wants out of all that its first input has; `chosen` None carries everything.

        Raises:
            InvalidInputError: a column that is not there, is there twice, or holds no texts where no template is.
        """
        names = list(schema.names)
        wanted = [*(names if chosen is None else chosen), *template.names]
        for name in wanted:
            if names.count(name) != 1:
                fault = "twice a" if name in names else "no"
                has = ", ".join(map(repr, names)) or "none"
                option = "--columns" if name not in template.names else "--column or --template"
                meant = delimiter_meant(names)
                if meant is not None:
                    option = f"--delimiter {meant!r}, or {option}"
                raise InvalidInputError(f"{label} has {fault} column {name!r}; it has {has}: pass {option}")
        if template.plain and not _is_text(schema.field(template.pattern).type):
            raise InvalidInputError(
                f"{label}: column {template.pattern!r} holds {schema.field(template.pattern).type}, not strings; "
                f"pass --column, or --template '{{{template.pattern}}}' to write its values as texts"
            )
        taken = [name for name in names if name in wanted]
        pyarrow = arrow()
        fields = [schema.field(name).remove_metadata() for name in taken]
        fields = [field.with_type(plain_type(field.type)) for field in fields]
        if beside_csv:
            fields = [field.with_type(pyarrow.string()) if _is_plain(field.type) else field for field in fields]
        carried = taken if chosen is None else list(dict.fromkeys(chosen))
        return cls(pyarrow.schema(fields), template, carried, sampled, chosen is None, beside_csv)

    def fit(self, table: Any, label: str) -> Any:
        """A table of a file with the job's columns and types.

        Raises:
            InvalidInputError: a file that has other columns than the first one.
        """
        pyarrow = arrow()
        self.check_names(table.column_names, label)
        try:
            taken = table.select(self.schema.names)
            for k, field in enumerate(taken.schema):
                if plain_type(field.type) != field.type:
                    taken = taken.set_column(k, field.name, plain(taken.column(k)))
            if self.beside_csv:
                for k, field in enumerate(taken.schema):
                    if pyarrow.types.is_floating(field.type):
                        taken = taken.set_column(k, field.name, _written_floats(taken.column(k)))
            for wanted, field in zip(self.schema, taken.schema, strict=True):
                written = self.beside_csv and _is_text(wanted.type) and _is_plain(field.type)
                if not written and not takes(wanted.type, field.type):
                    raise InvalidInputError(
                        f"{label}: its columns are not of the first input's types ({field.name!r} is {field.type}, and "
                        f"{wanted.type} there)"
                    )
            return taken.cast(self.schema)
        except pyarrow.ArrowException as error:
            raise InvalidInputError(f"{label}: its columns are not of the first input's types ({error})") from error

    def check_names(self, names: Sequence[str], label: str) -> None:
        """Raise InvalidInputError where a file has other columns than the first one, which would be null or be lost."""
        for name in self.schema.names:
            if names.count(name) > 1:
                raise InvalidInputError(f"{label} has twice a column {name!r}, which the first input has once")
            if name not in names:
                raise InvalidInputError(f"{label} has no column {name!r}, which the first input has; choose --columns")
        if self.every and (more := sorted(set(names) - set(self.schema.names))):
            raise InvalidInputError(f"{label} has a column {more[0]!r}, which the first input lacks; choose --columns")

    @property
    def lacks(self) -> str:
        """What is said of a key that no column is for."""
        return f"which no row of the first {SAMPLE} has" if self.sampled else "which the first input lacks"


def _is_plain(kind: Any) -> bool:
    """Whether a csv file can hold such values: numbers, truth values, days and times."""
    types = arrow().types
    numbers = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return bool(numbers or types.is_boolean(kind) or types.is_temporal(kind))


def _written(value: Any) -> Any:
    """A plain value as JSON writes it; NaN, which says that there is nothing, as null."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return None if math.isnan(value) else repr(value)
    return str(value) if isinstance(value, int) else value


def _written_floats(column: Any) -> Any:
    """A column of floats as strings, each with as many digits as its type has."""
    pyarrow = arrow()
    values = column.to_pylist()
    if not pyarrow.types.is_float64(column.type):
        kind = column.type.to_pandas_dtype()
        values = [None if value is None else float(str(kind(value))) for value in values]
    return pyarrow.array([_written(value) for value in values], pyarrow.string())


def infer(rows: Iterable[Mapping[str, Any]], label: str, text: str = "") -> Any:
    """The schema of a sample of objects: columns in the order in which they are met.

    A column `text` that has any string is one of strings: other values there are faults of their rows.

    Raises:
        InvalidInputError: a column with values of several types.
    """
    pyarrow = arrow()
    sample = list(rows)
    names = list(dict.fromkeys(name for row in sample for name in row if not _has_half_pair(name)))
    fields = []
    for name in names:
        values = [row.get(name) for row in sample]
        if name == text and any(isinstance(value, str) for value in values):
            fields.append((name, pyarrow.string()))
            continue
        try:
            kind = _type_of([value for value in values if not _has_half_pair(value)])
        except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
            kinds = sorted({type(value).__name__ for value in values if value is not None})
            raise InvalidInputError(
                f"{label}: column {name!r} holds {', '.join(kinds)} in the first {len(sample)} rows ({error}); give it "
                "one type, or choose others with --columns"
            ) from error
        fields.append((name, _known_type(kind)))
    return pyarrow.schema(fields)


def _type_of(values: list[Any]) -> Any:
    """Arrow's type for them; of whole numbers of 64 bits without a sign, such as hashes, uint64."""
    pyarrow = arrow()
    try:
        return pyarrow.array(values).type
    except OverflowError:
        if not {type(value) for value in values} <= {int, type(None)}:
            raise
        return pyarrow.array(values, pyarrow.uint64()).type


def _has_half_pair(value: Any) -> bool:
    """Whether a string in it, a key too, has no UTF-8: that is a fault of its row."""
    if isinstance(value, str):
        return not value.isascii() and any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, dict):
        return any(_has_half_pair(inner) for inner in (*value, *value.values()))
    return isinstance(value, list) and any(map(_has_half_pair, value))


def _known_type(kind: Any) -> Any:
    """A type for a column: of one that had nothing in the sample, a string."""
    pyarrow = arrow()
    types = pyarrow.types
    if types.is_null(kind):
        return pyarrow.string()
    if types.is_list(kind):
        return pyarrow.list_(_known_type(kind.value_type))
    if types.is_struct(kind):
        return pyarrow.struct([(field.name, _known_type(field.type)) for field in kind])
    return kind


def table_of(rows: Sequence[Mapping[str, Any] | Fault], plan: Plan) -> tuple[Any, dict[int, str]]:
    """Objects as a table of the plan's columns, and why rows that do not fit are null in it."""
    pyarrow = arrow()
    faults = {k: row.reason for k, row in enumerate(rows) if isinstance(row, Fault)}
    known = set(plan.schema.names)
    if plan.every:
        for k, row in enumerate(rows):
            if not isinstance(row, Fault) and not known.issuperset(row):
                more = sorted(set(row) - known)[0]
                faults[k] = f"it has {more!r}, {plan.lacks}; choose columns with --columns"
    columns = {
        field.name: _column([_value(row, field.name) for row in rows], field, plan, faults) for field in plan.schema
    }
    made = []
    for field in plan.schema:
        column = columns[field.name]
        if faults:
            column = column if isinstance(column, list) else column.to_pylist()
            column = pyarrow.array([None if k in faults else value for k, value in enumerate(column)], field.type)
        made.append(column)
    return pyarrow.Table.from_arrays(made, schema=plan.schema), faults


def _value(row: Mapping[str, Any] | Fault, name: str) -> Any:
    return None if isinstance(row, Fault) else row.get(name)


def _column(values: list[Any], field: Any, plan: Plan, faults: dict[int, str]) -> Any:
    """An array of a field; a list, to become one without these rows, where some do not fit: `faults` gets them."""
    pyarrow = arrow()
    if plan.beside_csv and _is_text(field.type):
        values = [_written(value) for value in values]
    if (look := looker(field.type, plan.lacks)) is not None:
        for k, value in enumerate(values):
            if value is not None and k not in faults and (reason := look(value, field.name)):
                faults[k] = reason
    try:
        return pyarrow.array(values, field.type)
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError):
        for k, value in enumerate(values):
            if k not in faults and (reason := _misfit(value, field)):
                faults[k] = reason
        return values


def _misfit(value: Any, field: Any) -> str:
    pyarrow = arrow()
    try:
        pyarrow.array([value], field.type)
    except UnicodeEncodeError as error:  # "\ud800" is good JSON and no text
        return f"{field.name!r} holds half a surrogate pair ({error.object[error.start]!r})"
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError):
        return f"{field.name!r} is {type(value).__name__}, and {field.type} in the rows before"
    return ""
