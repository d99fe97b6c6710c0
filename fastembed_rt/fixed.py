"""Attributes that say how a model was loaded: to be read, and refused with a sentence when assigned to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from .errors import FixedError

T = TypeVar("T")


class Fixed(Generic[T]):
    """An attribute that is set once."""

    def __init__(self, option: str | None = None) -> None:
        """`option` of the constructor chooses it, if one does."""
        self._option = option

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Fixed[T]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> T: ...
    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self
        try:
            return instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(f"{owner.__name__} has no {self._name} yet") from None

    def __set__(self, instance: object, value: T) -> None:
        if self._name in instance.__dict__:
            raise fixed(self._name, self._option)
        instance.__dict__[self._name] = value


def fixed(name: str, option: str | None) -> FixedError:
    """The error of an assignment to something that is chosen when a model is loaded, by `option` if by any."""
    how = f"load the model again with {option}=" if option else "load another model"
    return FixedError(f"{name} is fixed once a model is loaded; {how}")


class Chosen:
    """A read-only property whose value an option of the constructor chose."""

    def __init__(self, read: Callable[[Any], str]) -> None:
        self._read = read
        self.__doc__ = read.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> Chosen: ...
    @overload
    def __get__(self, instance: object, owner: type) -> str: ...
    def __get__(self, instance: object | None, owner: type) -> Chosen | str:
        return self if instance is None else self._read(instance)

    def __set__(self, instance: object, value: object) -> None:
        raise fixed(self._name, self._name)
