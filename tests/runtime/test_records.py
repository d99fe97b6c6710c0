"""A record is what a frozen dataclass is."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pytest

from fastembed_rt.records import record


@record(frozen=True)
class Light:
    a: int
    b: str = "b"
    c: list[int] = field(default_factory=list, compare=False)
    d: str = field(default="hidden", repr=False)
    e: int = field(default=7, kw_only=True)
    f: int = field(default=0, init=False)
    shared: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if self.a < 0:
            raise ValueError(self.a)


@dataclass(frozen=True)
class Compiled:
    a: int
    b: str = "b"
    c: list[int] = field(default_factory=list, compare=False)
    d: str = field(default="hidden", repr=False)
    e: int = field(default=7, kw_only=True)
    f: int = field(default=0, init=False)
    shared: ClassVar[int] = 3


@record(frozen=True, kw_only=True)
class Named:
    a: int
    b: Light | None = None


GIVEN: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    ((1,), {}),
    ((1, "x", [1]), {"e": 2}),
    ((), {"b": "y", "a": 2, "d": "z"}),
    ((1, "x", [2], "d"), {}),
]


@pytest.mark.parametrize(("values", "named"), GIVEN)
def test_it_is_made_shown_and_compared_as_a_dataclass_is(values: Any, named: Any) -> None:
    mine, theirs = Light(*values, **named), Compiled(*values, **named)
    assert dataclasses.asdict(mine) == dataclasses.asdict(theirs)
    assert repr(mine) == repr(theirs).replace("Compiled", "Light")
    assert hash(mine) == hash(theirs)
    assert mine == Light(*values, **named)
    assert mine != object()
    assert mine != dataclasses.replace(mine, a=9)
    assert mine == dataclasses.replace(mine, c=[5]), "c is not compared"
    assert pickle.loads(pickle.dumps(mine)) == mine
    assert copy.deepcopy(mine) == mine
    assert mine.c is not Light(*values, **named).c or values[2:]


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), ((1, "b", [], "d", 7), {}), ((1,), {"a": 1}), ((1,), {"g": 1}), ((1,), {"f": 1}), ((), {"b": "b"})],
)
def test_what_a_dataclass_refuses_is_refused(values: Any, named: Any) -> None:
    for kind in (Compiled, Light):
        with pytest.raises(TypeError):
            kind(*values, **named)


def test_fields_by_name_alone() -> None:
    with pytest.raises(TypeError, match="takes 0 positional"):
        Named(1)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="lacks 'a'"):
        Named()  # type: ignore[call-arg]
    assert Named(a=1, b=Light(2)) == Named(b=Light(2), a=1)


def test_nothing_is_assigned_or_deleted() -> None:
    made = Light(1)
    for name in ("a", "g"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(made, name, 2)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del made.a
    assert (made.a, made.f, made.shared) == (1, 0, 3)
    with pytest.raises(ValueError, match="-1"):
        Light(-1)
