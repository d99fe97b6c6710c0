"""Options as callers give them, checked, with messages that say what is possible; one call's, resolved."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import InvalidInputError, InvalidTypeError
from ..text.columns import is_null
from ..text.inputs import check_iterable, check_texts, check_unicode, plain
from ..vectors.dense import Vectors, normalized


@dataclass(frozen=True, kw_only=True)
class Settings:
    """One call's options, resolved."""

    prompt: str
    prompt_tokens: int
    dim: int
    normalize: bool
    normalized_already: bool

    def finish(self, vectors: Vectors) -> Vectors:
        """Vectors (n, dim of the graph) -> (n, dim): cut and normalized, where the graph has not done so."""
        cut = self.dim < vectors.shape[1]
        vectors = vectors[:, : self.dim]
        return normalized(vectors) if self.normalize and (cut or not self.normalized_already) else vectors


def check_out(out: object, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raise unless `out` is an array into which vectors of this shape and type can be written as they are.

    Raises:
        InvalidTypeError: no numpy array, or one of another type.
        InvalidInputError: another shape, gaps between its rows, or one that must not be written to.
    """
    if not isinstance(out, np.ndarray):
        raise InvalidTypeError(f"out is {type(out).__name__}; pass a numpy array of shape {shape} and {dtype}")
    if out.dtype != dtype:
        raise InvalidTypeError(f"out holds {out.dtype}, and the vectors are {dtype}")
    if out.shape != shape:
        raise InvalidInputError(f"out has shape {out.shape}, and the vectors have {shape}")
    if not out.flags.c_contiguous:
        raise InvalidInputError("out is not contiguous; pass whole rows of an array in C order")
    if not out.flags.writeable:
        raise InvalidInputError("out is read-only; pass an array that may be written to")


def all_texts(inputs: object) -> list[str]:
    """Texts of a call that takes no `on_null`, as `check_texts` gives them: each of them has to be there.

    Raises:
        InvalidTypeError, InvalidInputError: as of `check_texts`, with what to do about rows without a text.
    """
    return check_texts(without_nulls(check_iterable(inputs)))


def without_nulls(texts: Iterable[Any]) -> Iterator[Any]:
    """The same, one by one; InvalidTypeError for one that is no text, which the call has no option for."""
    for k, text in enumerate(texts):
        if not isinstance(text, str) and is_null(text):
            raise InvalidTypeError(
                f"text {k} is {type(text).__name__}, expected str; leave rows without a text out, or pass '' for them"
            )
        yield text


def flag(name: str, value: object) -> bool:
    """`value` where it is True or False, Python's or numpy's; InvalidTypeError for what would only count as one."""
    if value is True or value is False:
        return value
    if isinstance(value, np.bool_):
        return bool(value)
    raise InvalidTypeError(f"{name} is {type(value).__name__}, expected bool; pass True or False")


def optional_flag(name: str, value: object) -> bool | None:
    """`flag`, or None."""
    return None if value is None else flag(name, value)


def seconds(name: str, value: float) -> float:
    """`value` as seconds, 0 or more, or InvalidInputError."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InvalidInputError(f"{name} {value!r} is not possible; expected seconds, 0 or more")
    return float(value)


def checked_prompts(prompts: Mapping[str, str]) -> dict[str, str]:
    """A copy of prompts by name, or InvalidInputError where they are not texts."""
    if not isinstance(prompts, Mapping):
        raise InvalidInputError(f"prompts are {type(prompts).__name__}; pass a dict of texts by name")
    for name, text in prompts.items():
        if not isinstance(text, str):
            raise InvalidInputError(f"prompt {name!r} is {type(text).__name__}, expected str")
        check_unicode(plain(text), f"prompt {name!r}")
    return {name: plain(text) for name, text in prompts.items()}


def positive(name: str, value: int | None, default: int, most: int | None = None) -> int:
    """`value` between 1 and `most`, `default` for None, or InvalidInputError."""
    if value is None:
        return default
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool):
        raise InvalidTypeError(f"{name} is {type(value).__name__}, expected int")
    if value < 1 or (most is not None and value > most):
        raise InvalidInputError(f"{name} {value} is not possible; expected 1 to {most or 'any number'}")
    return int(value)


def check_device_ids(device_ids: Sequence[int] | None) -> tuple[int, ...]:
    """Numbers of devices; (0,) where none are given.

    Raises:
        InvalidTypeError, InvalidInputError: not whole numbers from 0 on, each once.
    """
    if device_ids is None:
        return (0,)
    if isinstance(device_ids, (str, bytes, int)) or not isinstance(device_ids, Sequence):
        raise InvalidTypeError(f"device_ids is {type(device_ids).__name__}; pass a list of numbers, such as [0, 1]")
    made = tuple(device_ids)
    if any(not isinstance(entry, int) or isinstance(entry, bool) for entry in made):
        raise InvalidTypeError(f"device_ids {list(made)} are not all whole numbers; pass such as [0, 1]")
    if not made or min(made) < 0 or len(set(made)) != len(made):
        raise InvalidInputError(f"device_ids {list(made)} is not possible; expected numbers from 0 on, each once")
    return made
