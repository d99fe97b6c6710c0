"""Scores of a Unigram model, written so that the tokenizers library reads the number that is meant.

Its JSON reader takes the digits as one whole number, rounds that to float64, and divides it by a power of ten: of a
number with 17 digits that is often a neighbour. transformers gives its classes the scores as Python reads
them. A sum of scores decides how a text is split, and where two splits are equal, as in a row of dashes, so does the
last bit.
"""

from __future__ import annotations

import json
from fractions import Fraction

_LARGEST = 2**64 - 1  # of the reader's whole number
_SHORT = 16  # characters of a number with no more than 15 digits, sign and point among them, which is read well
_PLACES = range(15, 20)  # behind the point, to be tried
_VOCABULARY = "the vocabulary goes here"


def as_read(literal: str) -> float:
    """The number that the tokenizers library reads from a JSON number with a point or an exponent."""
    digits, _, exponent = literal.lower().partition("e")
    before, _, after = digits.lstrip("-").partition(".")
    whole, places = int(before + after), len(after)
    while whole > _LARGEST:  # digits that have no room are passed over
        whole, places = whole // 10, places - 1
    power = int(exponent or 0) - places
    value = float(whole) * 10.0**power if power >= 0 else float(whole) / float(f"1e{-power}")
    return -value if literal.startswith("-") else value


def literal(score: float) -> str:
    """A JSON number from which the library reads `score`, the shortest one where that does.

    For one number of a thousand there is none; its neighbour is read then, as ever.
    """
    shortest = repr(score)
    if len(shortest) <= _SHORT or as_read(shortest) == score:
        return shortest
    for places in _PLACES:
        near = round(abs(Fraction(score)) * 10**places)
        step = max(1, 1 << max(0, near.bit_length() - 53))  # from one float64 to the next
        for whole in (near, near - step, near + step, near - 2 * step, near + 2 * step):
            digits = str(whole).rjust(places + 1, "0")
            found = f"{'-' if score < 0 else ''}{digits[:-places]}.{digits[-places:]}"
            if as_read(found) == score:
                return found
    return shortest


def exact(text: str) -> str:
    """tokenizer.json with scores that the library reads as they are written."""
    body = json.loads(text)
    vocabulary = body["model"].get("vocab")
    if not isinstance(vocabulary, list) or all(literal(score) == repr(score) for _, score in vocabulary):
        return text
    pieces = ",".join(f"[{json.dumps(piece, ensure_ascii=False)},{literal(score)}]" for piece, score in vocabulary)
    body["model"]["vocab"] = _VOCABULARY
    before, after = json.dumps(body, ensure_ascii=False).split(f'"{_VOCABULARY}"')
    return f"{before}[{pieces}]{after}"
