"""Texts at and beyond a limit: of exactly so many tokens, of one more, of far more; and how long texts may get."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from .checkpoint import Checkpoint
from .parity import parity_texts

EXACT, ONE_MORE, FAR_MORE = "as-long-as-max-length", "one-token-longer", "longer-than-max-length"
LONGEST = "as-long-as-compared"
# Texts of up to so many tokens cost little, whatever the model.
SHORT = 512
# Multiply-adds of the one long text: 8,192 tokens of a model like BERT-base, about a minute on two cores.
WORK = 2.5e12
# A StaticEmbedding adds token after token in float32: of 2,000 alike the reference itself is 8e-6 from the exact mean.
LONG_SUM = 1024
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


def filled(limit: int, count: Callable[[str], int]) -> str:
    """A text of `limit` tokens, or the nearest below."""
    material = _material()
    while len(material) < 64 * limit and count(material) < limit:
        material += "\n" + material
    low, high = 0, min(len(material), 64 * limit)  # no text of a language has tokens of 64 characters
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if count(material[:middle]) <= limit else (low, middle - 1)
    text = material[:low].rstrip()
    while (tokens := count(text)) < limit:
        longer = next((text + filler for filler in FILLERS if tokens < count(text + filler) <= limit), None)
        if longer is None:
            break
        text = longer
    return text


def longest_compared(checkpoint: Checkpoint, limit: int) -> int:
    """Tokens of the longest text whose vectors are compared: `limit`, or what takes the reference about a minute.

    A layer costs a token its weights, and a pair of tokens the width twice. Of a StaticEmbedding it is where the
    reference's own sum loses more than the bound allows.
    """
    if checkpoint.is_static:
        return min(limit, LONG_SUM)
    config = checkpoint.config
    width = int(config.get("hidden_size") or config.get("dim") or 0)
    layers = next((int(config[name]) for name in ("num_hidden_layers", "n_layers", "num_layers") if name in config), 1)
    words = int(config.get("vocab_size") or 0)
    stored = (tensor.shape for tensor in checkpoint.stored.values() if len(tensor.shape) == 2)
    weights = max(sum(math.prod(shape) for shape in stored if shape[0] != words), 12 * layers * width**2)
    tokens = limit
    while tokens > SHORT and tokens * weights + 2 * layers * width * tokens**2 > WORK:
        tokens = 1 << (tokens - 1).bit_length() - 1  # the next power of two below
    return tokens


def _next(text: str, count: Callable[[str], int]) -> str:
    """The text with the filler that adds the fewest tokens, one or more."""
    tokens = count(text)
    longer = [(count(text + filler), text + filler) for filler in FILLERS]
    return min((one for one in longer if one[0] > tokens), default=(0, text + " a b c"), key=lambda one: one[0])[1]


def _material() -> str:
    return "\n".join(case.text for case in parity_texts() if case.id.startswith(("long-", "paragraph-")))
