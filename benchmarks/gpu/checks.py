"""What comes before the times: what the machine has, the tests that need a card, and the same bits in any batch."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .candidates import Encode
from .shapes import Shape, texts
from .timing import Plan, mixed_lengths

ROOT = Path(__file__).parents[2]
ALONE = 84  # texts that are encoded alone and in batches
CALLERS, SECONDS = 16, 5.0  # threads with a short text each at a time


def doctor() -> list[dict[str, Any]]:
    """Its findings that are no "ok"."""
    command = [sys.executable, "-m", "fastembed_rt", "doctor", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=300)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    except (ValueError, KeyError):
        return [{"level": "problem", "check": "doctor", "what": (done.stderr or done.stdout)[-500:]}]
    return [entry for entry in found if entry["level"] != "ok" or entry["check"] == "cuda operators"]


def tests() -> dict[str, Any]:
    """`pytest -m gpu`, its last line and what failed."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=1800)
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if re.match(r"(FAILED|ERROR) ", line)]
    return {"exit_code": done.returncode, "said": lines[-1] if lines else done.stderr[-500:], "failed": failed}


def bits(shape: Shape, encoders: Mapping[str, Encode], plan: Plan, count: int = ALONE) -> dict[str, dict[str, int]]:
    """Of texts of mixed lengths, how many have alone the very bits that they have in a batch."""
    work = texts(shape, mixed_lengths(plan.lengths, count - 2), seed=1)
    longest = max(plan.lengths)
    found = {}
    for name, encode in encoders.items():
        together = encode(work, 32, longest)
        alone = [encode([text], 32, longest)[0] for text in work]
        equal = sum(one.tobytes() == other.tobytes() for one, other in zip(alone, together, strict=True))
        found[name] = {"equal": equal, "of": len(work)}
    return found


def callers(shape: Shape, encoders: Mapping[str, Encode], plan: Plan, seconds: float = SECONDS) -> dict[str, float]:
    """Short texts a second from CALLERS threads, each with one at a time."""
    length = min(plan.lengths)
    work = texts(shape, [length] * 64, seed=2)
    found = {}
    for name, encode in encoders.items():
        encode(work[:1], 1, length)
        counts, end = [0] * CALLERS, time.perf_counter() + seconds

        def call(number: int, encode: Encode = encode, counts: list[int] = counts, end: float = end) -> None:
            while time.perf_counter() < end:
                encode([work[counts[number] % len(work)]], 1, length)
                counts[number] += 1

        threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found[name] = sum(counts) / seconds
    return found
