"""What counts as texts: checked one by one, in messages under their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import InvalidInputError, InvalidTypeError
from .columns import column, is_null

Pair = tuple[str, str]


def check_texts(inputs: object, first: int = 0) -> list[str]:
    """The inputs as a list of valid texts; `first` is the number of the first one in messages.

    Raises:
        InvalidTypeError: not a sequence of str.
        InvalidInputError: a lone surrogate, which has no UTF-8 form and so no tokens.
    """
    texts = list(check_iterable(inputs))
    for index, given in enumerate(texts, first):
        text = given
        if type(text) is not str:  # seldom
            if not isinstance(text, str):
                hint = "; decode it first" if isinstance(text, (bytes, bytearray)) else ""
                if is_null(text):
                    hint = "; for rows without a text pass on_null='empty' (the empty text's vector) or 'zero' (zeros)"
                raise InvalidTypeError(f"text {index} is {type(text).__name__}, expected str{hint}")
            texts[index - first] = text = plain(text)
        if not text.isascii():
            check_unicode(text, f"text {index}")
    return texts


def check_pairs(inputs: object, first: int = 0) -> list[Pair]:
    """The inputs as a list of valid pairs of texts; `first` is the number of the first one in messages.

    Raises:
        InvalidTypeError: not a sequence of pairs of str.
        InvalidInputError: a lone surrogate, which has no UTF-8 form and so no tokens.
    """
    pairs = []
    for index, pair in enumerate(check_iterable(inputs), first):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            found = f"{len(pair)} things" if isinstance(pair, (list, tuple)) else type(pair).__name__
            raise InvalidTypeError(f"pair {index} is {found}, expected two texts, such as (query, document)")
        for text in pair:
            if not isinstance(text, str):
                raise InvalidTypeError(f"pair {index} holds {type(text).__name__}, expected str")
            check_unicode(plain(text), f"pair {index}")
        pairs.append((plain(pair[0]), plain(pair[1])))
    return pairs


def check_iterable(inputs: object) -> Iterator[Any]:
    """An iterator over inputs that are several things in a given order; see `columns` for those of other libraries.

    Raises:
        InvalidTypeError: one thing, or several without an order that vectors could keep.
    """
    if type(inputs) is list:  # nearly always
        return iter(inputs)
    if (found := column(inputs)) is not None:
        return found[1]
    if isinstance(inputs, (bytes, bytearray)):
        raise InvalidTypeError("inputs are bytes; decode them to str first, for example inputs.decode('utf-8')")
    if isinstance(inputs, Mapping) or hasattr(inputs, "columns"):
        kind = f"{type(inputs).__module__.partition('.')[0]}.{type(inputs).__name__}"
        raise InvalidTypeError(
            f"inputs are {kind.removeprefix('builtins.')}, whose names or keys would be taken for texts; "
            "pass one column, or the values, as a list"
        )
    try:
        if isinstance(inputs, (set, frozenset)):
            raise TypeError
        return iter(inputs)  # type: ignore[call-overload, no-any-return]
    except TypeError:  # also from arrays of no dimension, which have __iter__
        raise InvalidTypeError(f"inputs are {type(inputs).__name__}; pass a str, or a list of str") from None


def counted(inputs: object) -> tuple[int, Iterator[Any]]:
    """How many there are, and an iterator over them: of one text, or of inputs as for `check_iterable`."""
    if isinstance(inputs, str):
        return 1, iter((inputs,))
    if type(inputs) is not list and (found := column(inputs)) is not None:
        return found
    texts = list(check_iterable(inputs))
    return len(texts), iter(texts)


def plain(text: str) -> str:
    """A text without its class, where that is one below str: those may add otherwise (markupsafe.Markup), or encode."""
    return text if type(text) is str else str.__str__(text)


def check_unicode(text: str, what: str) -> None:
    """Raise InvalidInputError when `text` holds a lone surrogate."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidInputError(
            f"{what} has a lone surrogate U+{ord(text[error.start]):04X} at character {error.start}; "
            "it is not valid Unicode: read it with errors='replace' or clean it first"
        ) from None
