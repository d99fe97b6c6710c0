"""What comes before the times: what the machine has, the tests that need a card, and the same bits in any batch."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .candidates import ENGINES, Contender, Encode, failing
from .shapes import Shape, texts
from .timing import Plan, mixed_lengths

ROOT = Path(__file__).parents[2]
ALONE = 84  # texts that are encoded alone and in batches
CALLERS, SECONDS = 16, 5.0  # threads with a short text each at a time


# Loads a model, as anybody does, and says what it measured and chose: of a directory, with options, for so many tokens.
LOADING = """
import json, sys, time
from dataclasses import asdict
start = time.perf_counter()
from fastembed_rt import EmbeddingModel
model = EmbeddingModel(sys.argv[1], **json.loads(sys.argv[2]))
loaded = time.perf_counter() - start
texts = [" ".join(["w1"] * words) for words in range(1, int(sys.argv[3]) - 1)]
first = model.encode(texts[0]) is not None and time.perf_counter() - start
for count in (1, 4, 16):
    for text in texts:
        model.encode([text] * count)
session = model._running().sessions[0]
plan = getattr(session, "plan", None)
print(json.dumps({"target": model.variant.target, "loaded": loaded, "first_vector": first,
                  "plan": plan and asdict(plan), "captured": session.captured_shapes() if plan else None}))
"""


def doctor() -> list[dict[str, Any]]:
    """Its findings that are no "ok"."""
    done = _ran([sys.executable, "-m", "fastembed_rt", "doctor", "--json"], 300)
    try:
        found: list[dict[str, Any]] = json.loads(done.stdout)["findings"]
    except (ValueError, KeyError):
        return [{"level": "problem", "check": "doctor", "what": (done.stderr or done.stdout)[-500:]}]
    return [entry for entry in found if entry["level"] != "ok" or entry["check"] == "cuda operators"]


def marked() -> list[str]:
    """The files that have tests with the marker `gpu`: the others may want packages that are not here."""
    files = sorted((ROOT / "tests").rglob("test_*.py"))
    return [str(file.relative_to(ROOT)) for file in files if "mark.gpu" in file.read_text(encoding="utf-8")]


def tests() -> dict[str, Any]:
    """`pytest -m gpu`, its last line and what failed."""
    done = _ran([sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", *marked()], 1800)
    lines = done.stdout.strip().splitlines()
    failed = [line for line in lines if re.match(r"(FAILED|ERROR) ", line)]
    return {"exit_code": done.returncode, "said": lines[-1] if lines else done.stderr[-500:], "failed": failed}


def loads(names: list[str], directory: Path, longest: int) -> list[dict[str, Any]]:
    """What this package's models measure and choose when they are first loaded here, and what a second load takes.

    Each in a process and a cache of its own: target, seconds until it is loaded, until its first vector, the plan of
    batches, captured shapes after calls of 1, 4 and 16 texts of every length up to `longest` tokens.
    """
    rows: list[dict[str, Any]] = []
    for name in names:
        if name not in ENGINES:
            continue
        with tempfile.TemporaryDirectory() as cache, failing(name):
            environment = {**os.environ, "FASTEMBED_RT_CACHE": cache}
            command = [sys.executable, "-c", LOADING, str(directory), json.dumps(ENGINES[name]), str(longest)]
            for load in ("first", "second"):
                done = _ran(command, 300, environment)
                if done.returncode:
                    raise RuntimeError(done.stderr.strip()[-300:] or f"exit code {done.returncode}")
                rows.append({"contender": name, "load": load, **json.loads(done.stdout.splitlines()[-1])})
    return rows


def _ran(
    command: list[str], seconds: float, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """A command at the root; without an end in time, as one that failed."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=seconds, env=environment
        )
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 124, "", f"no end within {seconds:.0f} s")


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


def callers(
    shape: Shape,
    encoders: Mapping[str, Encode],
    contenders: Mapping[str, Contender],
    plan: Plan,
    seconds: float = SECONDS,
) -> dict[str, float]:
    """Short texts a second from CALLERS threads, each with one at a time; ours may put them into one batch.

    Raises:
        ContenderError: a call failed.
    """
    length = min(plan.lengths)
    work = texts(shape, [length] * 64, seed=2)
    found = {}
    for name, encode in encoders.items():
        batch = 0 if contenders[name].ours else 1
        encode(work[:1], batch, length)
        counts, errors, end = [0] * CALLERS, list[Exception](), time.perf_counter() + seconds

        def call(number: int, encode: Encode = encode, batch: int = batch, end: float = end) -> None:
            try:
                while time.perf_counter() < end:
                    encode([work[counts[number] % len(work)]], batch, length)  # noqa: B023  joined below
                    counts[number] += 1  # noqa: B023
            except Exception as error:  # noqa: BLE001  of a thread
                errors.append(error)  # noqa: B023

        threads = [threading.Thread(target=call, args=(number,)) for number in range(CALLERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if errors:
            raise errors[0]
        found[name] = sum(counts) / seconds
    return found
