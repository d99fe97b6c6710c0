"""Attributes that say how a model was loaded: to be read, and refused with a sentence when assigned to."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

from ..errors import FixedError, UnknownSettingError

T = TypeVar("T")
PACKAGE = __name__.partition(".")[0]

if TYPE_CHECKING:

    class Fixed(Generic[T]):
        """An attribute that is set once; an `option` of the constructor chooses it, if one does."""

        def __init__(self, option: str | None = None) -> None: ...
        @overload
        def __get__(self, instance: None, owner: type) -> Fixed[T]: ...
        @overload
        def __get__(self, instance: object, owner: type) -> T: ...
        def __get__(self, instance: object | None, owner: type) -> Any: ...
        def __set__(self, instance: object, value: T) -> None: ...

else:

    class Fixed(property):
        """A property whose getter is written in C: every call reads some of them."""

        def __init__(self, option=None):
            super().__init__()
            self._option = option

        def __class_getitem__(cls, _):
            return cls

        def __set_name__(self, owner, name):
            place, option = f"_fixed_{name}", self._option

            def set_once(instance, value):
                if place in instance.__dict__:
                    raise fixed(name, option)
                instance.__dict__[place] = value

            super().__init__(attrgetter(place), set_once)


def fixed(name: str, option: str | None) -> FixedError:
    """The error of an assignment to something that is chosen when a model is loaded, by `option` if by any."""
    how = f"load the model again with {option}=" if option else "load another model"
    return FixedError(f"{name} is fixed once a model is loaded; {how}")


def check_assigned(kind: type, name: str) -> None:
    """Raise unless a name that is assigned to may be one of an object of this class.

    Any may be of a class that somebody else derived from one of ours: it is theirs to have attributes.

    Raises:
        UnknownSettingError: a public name that the class, which is ours, does not have.
    """
    if name.startswith("_") or hasattr(kind, name) or kind.__module__.partition(".")[0] != PACKAGE:
        return
    known = {
        known
        for base in kind.__mro__
        for known, entry in vars(base).items()
        if isinstance(entry, property) and entry.fset is not None and not isinstance(entry, Fixed)
    }
    raise UnknownSettingError(
        f"{kind.__name__} has no setting {name!r}; what can be assigned: {', '.join(sorted(known))}. Other options "
        "are given when the model is loaded, or to the call"
    )


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
