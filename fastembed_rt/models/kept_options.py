"""A hub token among a model's options: it stays in this process, and is in nothing that is shown, stored or sent."""

from __future__ import annotations

import copy
from collections.abc import Callable, ItemsView, Mapping, ValuesView
from typing import Any

SECRETS = ("token",)  # of the options of a model


def without_secrets(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they may be stored or sent: without a hub token."""
    return {name: options[name] for name in options if name not in SECRETS}


class ModelOptions(dict[str, Any]):
    """Options of `from_checkpoint` as an object keeps them, with a hub token that is not shown, pickled or written.

    `options["token"]`, `**options` and copies, which stay in this process, have it. Whoever walks through items and
    values does not: json and others write those, and dataclasses.asdict makes records of them. What reads a dict past
    its methods, as orjson and dict() do, is given `without_secrets` of it.
    """

    def items(self) -> ItemsView[str, Any]:  # type: ignore[override]
        """Names and values without the token."""
        return without_secrets(self).items()

    def values(self) -> ValuesView[Any]:  # type: ignore[override]
        """Values without the token."""
        return without_secrets(self).values()

    @classmethod
    def __get_pydantic_core_schema__(cls, _: Any, handler: Any) -> Any:
        """As a field of pydantic's: read from any dict, written without the token."""
        from pydantic_core import core_schema

        written = core_schema.plain_serializer_function_ser_schema(without_secrets)
        known = handler.generate_schema(dict[str, Any])
        return core_schema.no_info_wrap_validator_function(_read, known, serialization=written)

    def __repr__(self) -> str:
        return repr(without_secrets(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (without_secrets(self),)

    def __copy__(self) -> ModelOptions:
        return type(self)(self)

    def copy(self) -> ModelOptions:
        """One of the same kind, where a dict's own would show the token."""
        return type(self)(self)

    def __or__(self, other: Any) -> Any:  # a dict's own would show the token
        return type(self)({**self, **other}) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> Any:
        return type(self)({**other, **self}) if isinstance(other, Mapping) else NotImplemented

    def __deepcopy__(self, memo: dict[int, Any]) -> ModelOptions:
        made = memo[id(self)] = type(self)()
        made.update({name: copy.deepcopy(self[name], memo) for name in self})
        return made


def _read(value: Any, handler: Callable[[Any], dict[str, Any]]) -> ModelOptions:
    """A field's value for pydantic, which walks through the items of a dict: its own kind is copied whole."""
    return value.copy() if isinstance(value, ModelOptions) else ModelOptions(handler(value))


class KeptOptions:
    """An attribute: a mapping that is assigned to it becomes ModelOptions, other values stay what they are."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: object | None, owner: type) -> Any:
        if instance is None:
            return self
        try:
            return vars(instance)[self._name]  # where pickle and copy look for it
        except KeyError:
            raise AttributeError(f"{owner.__name__!r} object has no attribute {self._name!r}") from None

    def __set__(self, instance: object, value: Any) -> None:
        vars(instance)[self._name] = kept(value)


def kept(value: Any) -> Any:
    """A mapping as ModelOptions, itself if it is one; anything else as it is."""
    return value if isinstance(value, ModelOptions) or not isinstance(value, Mapping) else ModelOptions(value)
