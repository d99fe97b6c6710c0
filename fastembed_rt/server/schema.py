"""Bodies as small records: each checks what came, by hand and fast, and writes its part of the OpenAPI file.

What is wrong is told with the place of the key, never with what a client sent. Keys that a body does not have are left
alone, as in the servers whose clients come here; null stands for a key that was left out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

JSON_NAMES = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list",
    dict: "an object",
    type(None): "null",
}
Schema = dict[str, Any]
MISSING: Any = object()  # default of a key that must be there


class WrongError(Exception):
    """A value that its kind does not take; `place` is completed on the way up."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
        self.place: list[str | int] = []

    def where(self) -> str:
        """The key, such as inputs[3]."""
        named = ""
        for part in self.place:
            named += f"[{part}]" if isinstance(part, int) else f".{part}" if named else part
        return named


class Kind(Protocol):
    """What a value may be."""

    def check(self, value: Any) -> Any:
        """The value, as the server uses it.

        Raises:
            WrongError: it is something else.
        """

    def schema(self) -> Schema:
        """In JSON Schema's words."""


def named(value: Any) -> str:
    """What a value of JSON is."""
    return JSON_NAMES.get(type(value), "something else")


@dataclass(frozen=True)
class Text:
    """A string."""

    example: str | None = None

    def check(self, value: Any) -> Any:
        """See Kind."""
        if type(value) is not str:
            raise WrongError(f"expected a string, got {named(value)}")
        return value

    def schema(self) -> Schema:
        """See Kind."""
        return {"type": "string", **({} if self.example is None else {"examples": [self.example]})}


@dataclass(frozen=True)
class Flag:
    """True or false."""

    def check(self, value: Any) -> Any:
        """See Kind."""
        if type(value) is not bool:
            raise WrongError(f"expected true or false, got {named(value)}")
        return value

    def schema(self) -> Schema:
        """See Kind."""
        return {"type": "boolean"}


@dataclass(frozen=True)
class Whole:
    """A whole number from `least` to `most`."""

    least: int = 0
    most: int = 2**53

    def check(self, value: Any) -> Any:
        """See Kind."""
        if type(value) is not int:
            raise WrongError(f"expected a whole number, got {named(value)}")
        if not self.least <= value <= self.most:
            raise WrongError(f"expected a whole number from {self.least} to {self.most}")
        return value

    def schema(self) -> Schema:
        """See Kind."""
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True)
class Choice:
    """One of some words, in any case of its letters; the first is what it is called here."""

    words: tuple[str, ...]

    def check(self, value: Any) -> Any:
        """See Kind."""
        found = value.lower() if type(value) is str else None
        if found not in self.words:
            raise WrongError(f"expected one of {', '.join(self.words)}")
        return found

    def schema(self) -> Schema:
        """See Kind."""
        spelt = dict.fromkeys(spelling for word in self.words for spelling in (word, word.capitalize()))
        return {"type": "string", "enum": [*spelt]}


@dataclass(frozen=True)
class Listed:
    """A list of values of one kind, at least `least` of them."""

    of: Kind
    least: int = 0

    def check(self, value: Any) -> Any:
        """See Kind."""
        if type(value) is not list:
            raise WrongError(f"expected a list, got {named(value)}")
        if len(value) < self.least:
            raise WrongError("the list is empty" if not value else f"expected {self.least} or more")
        if isinstance(self.of, Text) and set(map(type, value)) <= {str}:  # nearly always
            return value
        check, made = self.of.check, []
        for k, entry in enumerate(value):
            try:
                made.append(check(entry))
            except WrongError as wrong:
                wrong.place.insert(0, k)
                raise
        return made

    def schema(self) -> Schema:
        """See Kind."""
        return {"type": "array", "items": self.of.schema(), **({"minItems": self.least} if self.least else {})}


@dataclass(frozen=True)
class Anything:
    """What is taken and not looked at."""

    def check(self, value: Any) -> Any:
        """See Kind."""
        return value

    def schema(self) -> Schema:
        """See Kind."""
        return {}


@dataclass(frozen=True)
class Key:
    """A key of a body."""

    name: str
    kind: Kind
    default: Any = MISSING
    says: str = ""


@dataclass(frozen=True)
class Body:
    """An object with these keys."""

    name: str
    keys: Sequence[Key]
    says: str = ""

    def check(self, value: Any) -> Any:
        """See Kind: all keys, those left out with their defaults."""
        if type(value) is not dict:
            raise WrongError(f"expected an object, got {named(value)}")
        made = dict(self._defaults)
        for name, given in value.items():
            check = self._checks.get(name)
            if check is None or given is None:
                continue
            try:
                made[name] = check(given)
            except WrongError as wrong:
                wrong.place.insert(0, name)
                raise
        for name in self._required:
            if name not in made:
                missing = WrongError("is missing" if name not in value else "is null")
                missing.place.insert(0, name)
                raise missing
        return made

    @cached_property
    def _defaults(self) -> dict[str, Any]:
        return {key.name: key.default for key in self.keys if key.default is not MISSING}

    @cached_property
    def _checks(self) -> dict[str, Callable[[Any], Any]]:
        return {key.name: key.kind.check for key in self.keys}

    @cached_property
    def _required(self) -> list[str]:
        return [key.name for key in self.keys if key.default is MISSING]

    def schema(self) -> Schema:
        """See Kind."""
        properties = {}
        for key in self.keys:
            about = key.kind.schema()
            if key.default is not MISSING:
                about = _nullable(about) | ({} if key.default is None else {"default": key.default})
            properties[key.name] = about | ({"description": key.says} if key.says else {})
        required = [key.name for key in self.keys if key.default is MISSING]
        made: Schema = {"type": "object", "properties": properties}
        made |= {"required": required} if required else {}
        return made | ({"description": self.says} if self.says else {})


def _nullable(about: Schema) -> Schema:
    if isinstance(about.get("type"), str):
        null = {"enum": [*about["enum"], None]} if "enum" in about else {}
        return about | {"type": [about["type"], "null"]} | null
    return {"anyOf": [about, {"type": "null"}]} if about else about
