"""Texts of lengths as they come: short, mixed and long ones, each contender with the batches that suit it best.

Lengths are drawn around the means of real texts in sentence-transformers' own kind of use (15, 44 and 240 tokens); with
a checkpoint and a folder of texts (`--real`, `--data`) the texts are real, and so are the weights.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from .candidates import Contender, Encode
from .shapes import POSITIONS, Shape, texts
from .timing import Plan

# Tokens of a text: the mean, and how far the logarithm of lengths spreads.
LENGTHS = {"short": (15, 0.35), "mixed": (44, 1.0), "long": (240, 0.4)}
BATCHES = (32, 256)  # of those who want to be told; the better one counts
MOST = 512  # tokens of a text
LEAST_ROUNDS = 3


def lengths(name: str, count: int) -> list[int]:
    """Tokens of so many texts, the same ones every time."""
    mean, spread = LENGTHS[name]
    drawn = np.random.default_rng(0).lognormal(np.log(mean) - spread**2 / 2, spread, count)
    return [int(tokens) for tokens in np.clip(np.rint(drawn), 3, POSITIONS)]


def made(shape: Shape, tokens: int) -> dict[str, list[str]]:
    """Texts of about so many tokens in all, by the name of the mix."""
    return {
        name: texts(shape, lengths(name, max(tokens // mean, 32)), seed=mean) for name, (mean, _) in LENGTHS.items()
    }


def real(data: Path, tokens: int) -> dict[str, list[str]]:
    """Texts of a data folder, as `made` has them."""
    from ..precision.int8 import SHARES, real_texts

    every = real_texts(data, 1 << 30)
    if not every:
        raise SystemExit(f"--data {data} has no texts/: {', '.join(SHARES)}")
    short = [text for text in every if len(text) < 100]
    long = [text for text in every if len(text) > 900]
    return {
        name: (found * (tokens // (LENGTHS[name][0] * len(found)) + 1))[: max(tokens // LENGTHS[name][0], 32)]
        for name, found in (("short", short), ("mixed", every), ("long", long))
    }


def measure(
    work: Mapping[str, list[str]], encoders: Mapping[str, Encode], contenders: Mapping[str, Contender], plan: Plan
) -> list[dict[str, Any]]:
    """Seconds for the same texts, contenders in turn; ours batch by themselves. Fewer rounds where time runs out."""
    rows: list[dict[str, Any]] = []
    for name, given in work.items():
        ways = [(who, batch) for who in encoders for batch in ((0,) if contenders[who].ours else BATCHES)]
        seconds: dict[tuple[str, int], list[float]] = {way: [] for way in ways}
        for turn in range(plan.rounds + 1):  # one that is not counted
            if turn > LEAST_ROUNDS and plan.over():
                break
            for who, batch in ways:
                start = time.perf_counter()
                encoders[who](given, batch, MOST)
                if turn:
                    seconds[who, batch].append(time.perf_counter() - start)
        rows += [
            {"contender": who, "mix": name, "batch": batch, "texts": len(given), "seconds": samples}
            for (who, batch), samples in seconds.items()
        ]
    return rows
