"""Attributes that say how a model was loaded: to be read, and refused with a sentence when assigned to."""

from __future__ import annotations

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
            how = f"load the model again with {self._option}=" if self._option else "load another model"
            raise FixedError(f"{self._name} is fixed once a model is loaded; {how}")
        instance.__dict__[self._name] = value
