"""Frozen dataclasses that cost no time at import: `dataclass` compiles six methods a class, in half a millisecond.

For what is made a few times in a process. What calls make is a dataclass, whose own methods are faster.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["record"]
T = TypeVar("T")

if TYPE_CHECKING:
    from dataclasses import dataclass as record
else:

    def record(*, frozen: bool, kw_only: bool = False) -> Callable[[type[T]], type[T]]:
        """As `dataclasses.dataclass` with these arguments; `fields`, `replace` and `asdict` take its instances."""
        if not frozen:
            raise TypeError("a record is frozen")

        def made(kind: type[T]) -> type[T]:
            fielded = dataclasses.dataclass(init=False, repr=False, eq=False, kw_only=kw_only)(kind)
            for method in METHODS:
                if method.__name__ not in vars(fielded):
                    setattr(fielded, method.__name__, method)
            return fielded

        return made


def __init__(self: Any, /, *values: object, **named: object) -> None:  # noqa: N807
    fields, kind = dataclasses.fields(self), type(self).__qualname__
    taken = [field.name for field in fields if field.init]
    in_order = [field.name for field in fields if field.init and not field.kw_only]
    if len(values) > len(in_order):
        raise TypeError(f"{kind}() takes {len(in_order)} positional arguments, and {len(values)} were given")
    given = dict(zip(in_order, values, strict=False))
    if wrong := [name for name in named if name in given or name not in taken]:
        raise TypeError(f"{kind}() got {wrong[0]!r} " + ("twice" if wrong[0] in given else "and has no such field"))
    given.update(named)
    if missing := [
        field.name for field in fields if field.name in taken and field.name not in given and _needed(field)
    ]:
        raise TypeError(f"{kind}() lacks {', '.join(map(repr, missing))}")
    for field in fields:
        if field.name in given:
            self.__dict__[field.name] = given[field.name]
        elif field.default_factory is not dataclasses.MISSING:
            self.__dict__[field.name] = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            self.__dict__[field.name] = field.default
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def __repr__(self: Any) -> str:  # noqa: N807
    shown = [f"{field.name}={getattr(self, field.name)!r}" for field in dataclasses.fields(self) if field.repr]
    return f"{type(self).__qualname__}({', '.join(shown)})"


def _compared(self: Any) -> tuple[object, ...]:
    return tuple(getattr(self, field.name) for field in dataclasses.fields(self) if field.compare)


def __eq__(self: Any, other: object) -> bool:  # noqa: N807
    return _compared(self) == _compared(other) if other.__class__ is self.__class__ else NotImplemented


def __hash__(self: Any) -> int:  # noqa: N807
    return hash(_compared(self))


def __setattr__(self: Any, name: str, value: object) -> None:  # noqa: N807
    raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")


def __delattr__(self: Any, name: str) -> None:  # noqa: N807
    raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")


METHODS = (__init__, __repr__, __eq__, __hash__, __setattr__, __delattr__)
