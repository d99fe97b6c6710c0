"""What clients give as inputs: one text, several, or token ids among them; what each kind takes and gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .schema import Schema, WrongError, named


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
