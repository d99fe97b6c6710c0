"""Texts by their number of tokens: of many lengths up to a limit, at it, beyond it; and how long texts may get."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from ..checkpoint.read import Checkpoint
from .parity import Case, parity_texts

LENGTH, REPEATED = "length", "repeated"  # kinds of cases
EXACT, ONE_MORE, FAR_MORE = "as-long-as-max-length", "one-token-longer", "longer-than-max-length"
LONGEST = "as-long-as-compared"
# Texts of up to so many tokens cost little, whatever the model.
SHORT = 512
# Multiply-adds of the one long text: 8,192 tokens of a model like BERT-base, about a minute on two cores.
WORK = 2.5e12
# A StaticEmbedding adds token after token in float32: of 2,000 alike the reference itself is 8e-6 from the exact mean.
LONG_SUM = 1024
# All texts of many lengths together, and all that repeat one thing: a quarter of that.
SHARE = WORK / 4
# Kernels take rows, keys and vector lanes by 8, 16, 48, 64, 128: these lengths, and one less and one more.
EDGES = (1, 2, 3, 4, 6, 8, 12, *(n + k for n in (16, 32, 48, 64, 128) for k in (-1, 0, 1)), 24, 80, 96, 112, 160, 192)
# What is said again and again, to the limit.
UNITS = {
    **{"word": "the ", "digit": "7 ", "mark": "! "},
    "script": "вода ",  # which many vocabularies have no word for
    "sentence": "The shop opens at nine on Mondays. ",
}
FILLERS = (" a", " the", " .", " 1", "a", "1", ".", "!")


@dataclass(frozen=True)
class AtLimit:
    """Texts around a number of tokens."""

    exact: str
    one_more: str
    far_more: str


def at_limit(limit: int, count: Callable[[str], int]) -> AtLimit:
    """Texts of `limit` tokens, of one more and of about twice as many; `count` says a text's tokens before any cut.

    Where a vocabulary has no token that adds exactly one, they are as near as it has them.
    """
    exact = filled(limit, count)
    return AtLimit(exact, _next(exact, count), filled(2 * limit, count))


def filled(limit: int, count: Callable[[str], int], material: str = "") -> str:
    """A text of `limit` tokens, or the nearest below, that begins as `material` does."""
    material = material or _material()
    while len(material) < 64 * limit and count(material) < limit:
        material += "\n" + material
    most = min(len(material), 64 * limit)  # no text of a language has tokens of 64 characters
    text = material[: _most(most, lambda n: count(material[:n]) <= limit)].rstrip()
    while (tokens := count(text)) < limit:
        longer = next((text + filler for filler in FILLERS if tokens < count(text + filler) <= limit), None)
        if longer is None:
            break
        text = longer
    return text


@dataclass(frozen=True)
class Reach:
    """How far texts whose vectors are compared may go, in tokens."""

    longest: int
    lengths: tuple[int, ...]  # of texts on the way there
    repeated: int  # of each text that repeats one thing
    per_token: float  # multiply-adds of a token in a short text

    @classmethod
    def of(cls, checkpoint: Checkpoint, limit: int) -> Reach:
        """The longest up to `limit`, or what takes the reference about a minute; the others a quarter of that."""
        work, longest = _work(checkpoint), longest_compared(checkpoint, limit)
        lengths, spent = [], 0.0
        for length in sorted({*EDGES, *(1 << k for k in range(8, longest.bit_length()))}):
            spent += work(length)
            if length >= longest or (spent > SHARE and length > SHORT):
                break
            lengths.append(length)
        repeated = _within(longest, lambda tokens: len(UNITS) * work(tokens) <= SHARE)
        return cls(longest, tuple(lengths), repeated, work(1))


def between(reach: Reach, count: Callable[[str], int]) -> list[Case]:
    """Texts of many lengths below the longest, and texts that repeat one word, mark or sentence as often as may be.

    `count` says a text's tokens before any cut. A length that no text has, such as one below the special tokens', is
    left out.
    """
    cases = []
    for number, length in enumerate(reach.lengths):
        text = filled(length, count, _material(number))
        if count(text) == length:
            cases.append(Case(f"length-{length}", text, kind=LENGTH))
    for name, unit in UNITS.items():
        times = _most(reach.repeated, lambda n, unit=unit: count(unit * n) <= reach.repeated)  # type: ignore[misc]
        cases.append(Case(f"same-{name}-to-the-limit", (unit * times).rstrip(), kind=REPEATED))
    return cases


def longest_compared(checkpoint: Checkpoint, limit: int) -> int:
    """Tokens of the longest text whose vectors are compared: `limit`, or what takes the reference about a minute.

    Of a StaticEmbedding it is where the reference's own sum loses more than the bound allows.
    """
    if checkpoint.is_static:
        return min(limit, LONG_SUM)
    work = _work(checkpoint)
    return _within(limit, lambda tokens: work(tokens) <= WORK)


def _within(limit: int, fits: Callable[[int], bool]) -> int:
    """The limit, or the largest power of two below that fits; a short one fits always."""
    tokens = limit
    while tokens > SHORT and not fits(tokens):
        tokens = 1 << (tokens - 1).bit_length() - 1
    return tokens


def _work(checkpoint: Checkpoint) -> Callable[[int], float]:
    """Multiply-adds of a text by its tokens: a layer costs each its weights, and each pair of them the width twice."""
    if checkpoint.is_static:
        return lambda _: 0.0
    width = _size(checkpoint, "hidden_size", "dim")
    layers = _size(checkpoint, "num_hidden_layers", "n_layers", "num_layers") or 1
    words = _size(checkpoint, "vocab_size")
    stored = (tensor.shape for tensor in checkpoint.stored.values() if len(tensor.shape) == 2)
    weights = max(sum(math.prod(shape) for shape in stored if shape[0] != words), 12 * layers * width**2)
    return lambda tokens: float(tokens * weights + 2 * layers * width * tokens**2)


def _size(checkpoint: Checkpoint, *names: str) -> int:
    """The first of these that config.json has; 0 where there is none, or what the build refuses."""
    found = next((checkpoint.config[name] for name in names if name in checkpoint.config), 0)
    return found if isinstance(found, int) else 0


def _most(limit: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 0 to `limit` that fits, where all below one that fits do."""
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle) else (low, middle - 1)
    return low


def _next(text: str, count: Callable[[str], int]) -> str:
    """The text with the filler that adds the fewest tokens, one or more."""
    tokens = count(text)
    longer = [(count(text + filler), text + filler) for filler in FILLERS]
    return min((one for one in longer if one[0] > tokens), default=(0, text + " a b c"), key=lambda one: one[0])[1]


def _material(first: int = 0) -> str:
    """Paragraphs and long texts one after another, from that number on and around."""
    texts = [case.text for case in parity_texts() if case.kind in ("long", "paragraph")]
    first %= len(texts)
    return "\n".join([*texts[first:], *texts[:first]])
