"""How large batches on a GPU are, which are captured and how many are in flight: measured on the card, not guessed.

It takes about a second when a model is first loaded there, and is kept in the user's cache by graph, card and versions.
FASTEMBED_RT_CALIBRATE=0 leaves it out and takes what an H200 wanted.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

from ..manifest import Variant
from ..system import user_cache
from . import nvidia
from .providers import PROVIDERS, load_onnxruntime

SWITCH = "FASTEMBED_RT_CALIBRATE"
FOLDER = "cuda"
LENGTH = 128  # tokens of the texts that it measures with
# Not above the provider's own bound: a larger batch is 0.99 to 1.09 times as fast on an H200, in four times the memory.
BATCHES = tuple(tokens for tokens in (4096, 8192, 16384) if tokens <= PROVIDERS["cuda"].batch_tokens)
CAPTURED = ((1, 16), (4, 128), (16, 64), (16, 128), (16, 256))  # texts and their tokens, of the shapes that are tried
FLIGHTS = (1, 2, 3)
ENOUGH = 0.97  # what is nearly as fast as the best and takes less memory is taken


@dataclass(frozen=True)
class Plan:
    """What is measured; by default what an H200 wanted."""

    batch_tokens: int = 16384  # most in a batch, where the caller says nothing
    captured_tokens: int = 2048  # most in a captured batch, filling included
    flights: int = 2  # batches that are copied and run side by side


MOST = Plan(batch_tokens=max(BATCHES), captured_tokens=4096, flights=max(FLIGHTS))


class Card(Protocol):
    """A loaded graph, as it is measured: seconds of a batch of so many texts with so many tokens each."""

    def plain(self, texts: int, tokens: int) -> float:
        """Of one batch alone, neither captured nor replayed."""

    def replayed(self, texts: int, tokens: int) -> float:
        """Of one that was captured before."""

    def side_by_side(self, flights: int, texts: int, tokens: int) -> float:
        """Of each of many, so many of them in flight."""


def choose(card: Card, longest: int) -> Plan:
    """The smallest batch, fewest batches in flight and largest captured shape that pay; texts have up to `longest`."""
    length = min(LENGTH, longest)
    seconds = {tokens: card.plain(max(tokens // length, 1), length) / max(tokens // length, 1) for tokens in BATCHES}
    batch = next(tokens for tokens in BATCHES if ENOUGH * seconds[tokens] <= min(seconds.values()))
    captured = 0
    for texts, tokens in CAPTURED:
        # A shape is filled up from half of it, on average: that half, run as it is, is what it competes with.
        if tokens > longest or card.replayed(texts, tokens) > card.plain((texts + 1) // 2, tokens):
            break
        captured = texts * tokens
    waits = {flights: card.side_by_side(flights, max(batch // length, 1), length) for flights in FLIGHTS}
    flights = next(flights for flights in FLIGHTS if ENOUGH * waits[flights] <= min(waits.values()))
    return Plan(batch, captured, flights)


def wanted() -> bool:
    """Whether the environment lets it measure."""
    return os.environ.get(SWITCH, "") != "0"


def place(variant: Variant, device: int, longest: int) -> Path:
    """Where the plan of a graph on a device is kept."""
    facts = [
        *(record.sha256 for record in variant.files),
        *(nvidia.device_name(device), str(load_onnxruntime().__version__), str(longest)),
        *map(str, (BATCHES, CAPTURED, FLIGHTS)),
    ]
    return user_cache.folder(FOLDER) / f"{hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:24]}.plan.json"


def read(file: Path) -> Plan | None:
    """The plan that is kept; None where there is none, or one that `choose` would not make."""
    try:
        plan = Plan(**json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    possible = {0, *(texts * tokens for texts, tokens in CAPTURED)}
    right = plan.batch_tokens in BATCHES and plan.captured_tokens in possible and plan.flights in FLIGHTS
    return plan if right else None


def write(file: Path, plan: Plan) -> None:
    """Keep a plan, whole or not at all; where the directory cannot be written, the next load measures again."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        user_cache.write_whole(file, json.dumps(asdict(plan)).encode())
