"""A stream of texts in pieces: checked, bounded in number and characters, so that memory is bounded too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from typing import Any

from ..errors import InvalidInputError
from .columns import is_null
from .inputs import check_texts

# Texts tokenized at a time: enough for batches of like length, few enough to bound memory.
TEXTS = 4096
FEW_TEXTS = 64
CHARACTERS = 4_000_000
STREAM_TEXTS = (64, 512, TEXTS)  # a stream shows its first vectors early


@dataclass
class Window:
    """Checked texts that are tokenized together, and the number of the first one in its call."""

    texts: list[Any]  # str, or pairs of str
    first: int
    parallel: bool = True  # whether all cores may tokenize them


@dataclass
class WindowWithNulls(Window):
    """A window in which there may have been no text in places, where "" stands now."""

    nulls: tuple[int, ...] = ()


def estimate(text: Any) -> int:
    """About how many tokens a text, a pair (a tuple) or a list of token ids has, before any cut."""
    if isinstance(text, str):
        return len(text) // 3 + 2
    return sum(map(len, text)) // 3 + 3 if isinstance(text, tuple) else len(text) + 2


def few_tokens(texts: Sequence[Any], most: int) -> int | None:
    """About how many tokens these texts, or pairs, have together; None where it is over `most`, or they are many."""
    if len(texts) > FEW_TEXTS:
        return None
    try:
        tokens = sum(map(estimate, texts))
    except TypeError:  # no text: said where all are checked
        return None
    return tokens if tokens <= most else None


ERROR = "error"
ON_NULL = (ERROR, "empty", "zero")


def check_on_null(on_null: str) -> None:
    """Raise InvalidInputError for what cannot be done with rows without a text."""
    if on_null not in ON_NULL:
        raise InvalidInputError(f"on_null {on_null!r} is not known; known: {', '.join(ON_NULL)}")


def windows(texts: Iterator[Any], sizes: Sequence[int], *, nulls: bool = False) -> Iterator[Window]:
    """Texts in pieces of `sizes`, whose last one repeats, or fewer when they are long; `nulls` may be among them.

    Raises:
        InvalidTypeError, InvalidInputError: see `check_texts`; the message has the text's number.
    """
    first = 0
    for size in chain(sizes, repeat(sizes[-1])):
        window: list[Any] = []
        characters = 0
        for text in islice(texts, size):
            window.append(text)
            characters += len(text) if isinstance(text, str) else 0
            if characters >= CHARACTERS:
                break
        if not window:
            return
        if nulls:
            found = tuple(k for k, text in enumerate(window) if not isinstance(text, str) and is_null(text))
            for k in found:
                window[k] = ""
            yield WindowWithNulls(check_texts(window, first), first, nulls=found)
        else:
            yield Window(check_texts(window, first), first)
        first += len(window)
