"""What clients give as inputs: one text, several, or token ids among them; what each kind takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .schema import Choice, Schema, WrongError, named

ENDS = ("none", "end", "start")  # where a text that is too long loses tokens; none: that is an error


@dataclass(frozen=True)
class Given:
    """Inputs of a request."""

    texts: list[Any]  # str, or lists of token ids
    single: bool  # one that stood alone
    ids: bool = False  # there are token ids among them


TEXT_OR_IDS = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}]
}


@dataclass(frozen=True)
class Inputs:
    """A text, token ids, or a list of either."""

    def check(self, value: Any) -> Given:
        """See schema.Kind."""
        if type(value) is str:
            return Given([value], single=True)
        if type(value) is not list:
            raise WrongError(f"expected a string or a list of strings, got {named(value)}")
        kinds = set(map(type, value))
        if kinds <= {str}:
            return Given(value, single=False)
        if kinds == {int}:
            _check_ids(value)
            return Given([value], single=True, ids=True)
        for k, entry in enumerate(value):
            try:
                if type(entry) is list:
                    _check_ids(entry)
                elif type(entry) is not str:
                    raise WrongError(f"expected a string, got {named(entry)}")
            except WrongError as wrong:
                wrong.place.insert(0, k)
                raise
        return Given(value, single=False, ids=True)

    def schema(self) -> Schema:
        """See schema.Kind."""
        return {
            "anyOf": [*TEXT_OR_IDS["anyOf"], {"type": "array", "items": TEXT_OR_IDS, "minItems": 1}],
            "examples": [["What is deep learning?"]],
        }


def _check_ids(ids: list[Any]) -> None:
    if not ids:
        raise WrongError("the list of token ids is empty")
    if set(map(type, ids)) != {int} or min(ids) < 0 or max(ids) >= 2**31:
        raise WrongError("expected token ids, whole numbers from 0 on")


@dataclass(frozen=True)
class InputsOrObjects:
    """The same, where a text may be an object with a key `text`, as some of Jina's clients send it."""

    def check(self, value: Any) -> Given:
        """See schema.Kind."""
        if type(value) is list and dict in set(map(type, value)):
            return Given([text for text, _ in Documents().check(value)], single=False)
        return Inputs().check(value)

    def schema(self) -> Schema:
        """See schema.Kind."""
        about = Inputs().schema()
        return {**about, "anyOf": [*about["anyOf"], Documents().schema()]}


@dataclass(frozen=True)
class Cut:
    """Which end a text over the model's length loses: true and false, or end, start and none; gives the latter."""

    def check(self, value: Any) -> str:
        """See schema.Kind."""
        if type(value) is bool:
            return "end" if value else "none"
        cut: str = Choice(ENDS).check(value)
        return cut

    def schema(self) -> Schema:
        """See schema.Kind."""
        return {"anyOf": [{"type": "boolean"}, Choice(ENDS).schema()]}


@dataclass(frozen=True)
class Texts:
    """A text or a list of texts."""

    def check(self, value: Any) -> Given:
        """See schema.Kind."""
        given = Inputs().check(value)
        if given.ids:
            raise WrongError("expected strings, got token ids")
        return given

    def schema(self) -> Schema:
        """See schema.Kind."""
        return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


@dataclass(frozen=True)
class IdRows:
    """Token ids of one text or of several."""

    def check(self, value: Any) -> list[list[int]]:
        """See schema.Kind."""
        if type(value) is not list:
            raise WrongError(f"expected a list of token ids, got {named(value)}")
        if set(map(type, value)) == {int}:
            _check_ids(value)
            return [value]
        for k, row in enumerate(value):
            try:
                if type(row) is not list:
                    raise WrongError(f"expected a list of token ids, got {named(row)}")
                _check_ids(row)
            except WrongError as wrong:
                wrong.place.insert(0, k)
                raise
        return value

    def schema(self) -> Schema:
        """See schema.Kind."""
        row = {"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1}
        return {"anyOf": [row, {"type": "array", "items": row}]}


@dataclass(frozen=True)
class Pairs:
    """A pair of texts, or a list of pairs."""

    def check(self, value: Any) -> Given:
        """See schema.Kind."""
        if type(value) is list and len(value) == 2 and set(map(type, value)) == {str}:
            return Given([tuple(value)], single=True)
        if type(value) is not list:
            raise WrongError("expected a pair of strings or a list of pairs: the model compares two texts")
        pairs = []
        for k, pair in enumerate(value):
            if type(pair) is not list or len(pair) != 2 or set(map(type, pair)) != {str}:
                wrong = WrongError("expected a pair of strings: the model compares two texts")
                wrong.place.insert(0, k)
                raise wrong
            pairs.append(tuple(pair))
        return Given(pairs, single=False)

    def schema(self) -> Schema:
        """See schema.Kind."""
        pair = {"type": "array", "items": {"type": "string"}, "minItems": 2, "maxItems": 2}
        return {"anyOf": [pair, {"type": "array", "items": pair}]}


@dataclass(frozen=True)
class Documents:
    """Texts, or objects with a key `text`: pairs of the text and the object that is given back."""

    def check(self, value: Any) -> list[tuple[str, dict[str, Any]]]:
        """See schema.Kind."""
        if type(value) is not list:
            raise WrongError(f"expected a list, got {named(value)}")
        found = []
        for k, entry in enumerate(value):
            text = entry.get("text") if type(entry) is dict else entry
            if type(text) is not str:
                wrong = WrongError("expected a string, or an object with a string as `text`")
                wrong.place.insert(0, k)
                raise wrong
            found.append((text, entry if type(entry) is dict else {"text": text}))
        return found

    def schema(self) -> Schema:
        """See schema.Kind."""
        about = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}
        return {"type": "array", "items": {"anyOf": [{"type": "string"}, about]}}
