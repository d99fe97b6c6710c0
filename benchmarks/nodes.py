"""A large job on paper: how long machines of a list take for so many texts, and what holds them up.

    python -m benchmarks.nodes benchmarks/nodes.json --texts 1e9
    python -m benchmarks.nodes benchmarks/nodes.json --texts 1e9 --tokens 200 --vector-bytes 384 --failures 0.02

A simulation of what the engines do: parts of equal size, each given to the next worker that is free, read and written
while it computes, done again from its beginning where its machine fails. Nothing is measured here: rates come from the
list, and those of benchmarks/nodes.json from the committed record that it names.

The list: {"machines": [{"name", "count", "cores", "tokens_per_second_core", "network_gbit", "price_hour"}, ...],
"storage_gbit": what the store gives all of them together, "model_megabytes", "start_seconds": of a machine}.
"""

from __future__ import annotations

import argparse
import heapq
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.errors import BenchmarkError, printed

BYTES_PER_GBIT = 1e9 / 8
BYTES_PER_TOKEN = 4.5  # UTF-8 of English in MiniLM's tokens, special ones included: 4.1 of questions, 4.8 of paragraphs


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One kind of machine."""

    name: str
    count: int
    cores: int
    tokens_per_second_core: float  # special tokens included, with all cores busy
    network_gbit: float
    price_hour: float = 0.0

    def __post_init__(self) -> None:
        numbers = (self.count, self.cores, self.tokens_per_second_core, self.network_gbit)
        if any(not isinstance(number, (int, float)) or number <= 0 for number in numbers) or self.price_hour < 0:
            raise BenchmarkError(f"machine {self.name!r} has a number that is not positive")


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is to be done."""

    texts: int
    tokens: float  # a text, special tokens included
    vector_bytes: int
    part: int  # texts that are done again where a machine fails
    failures: float  # of a machine, an hour
    again_seconds: float = 120.0  # until a machine that failed works again
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.texts, self.tokens, self.vector_bytes, self.part) <= 0 or not self.failures >= 0:
            raise BenchmarkError("texts, tokens, vector bytes and part have to be positive, failures not negative")


@dataclass(frozen=True)
class Cluster:
    """Machines and what they share."""

    machines: tuple[Machine, ...]
    storage_gbit: float
    model_megabytes: float
    start_seconds: float

    @property
    def count(self) -> int:
        return sum(machine.count for machine in self.machines)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a job takes."""

    seconds: float
    first_idle: float  # seconds until the first machine finds no part left
    redone: int  # texts
    failed: int  # times that a machine failed
    limits: dict[str, int]  # machines by what holds them up
    read_bytes: float
    written_bytes: float
    price: float


def read(path: Path) -> Cluster:
    """A machine list.

    Raises:
        BenchmarkError: no such file, or something that is missing in it or unknown.
    """
    try:
        said: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        machines = tuple(Machine(**entry) for entry in said["machines"])
        shared = [float(said[name]) for name in ("storage_gbit", "model_megabytes", "start_seconds")]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BenchmarkError(f"{path} is no machine list ({type(error).__name__}: {error})") from error
    if not machines or shared[0] <= 0:
        raise BenchmarkError(f"{path} has no machines, or no storage")
    return Cluster(machines, *shared)


def rate(machine: Machine, job: Job, storage: float) -> tuple[float, str]:
    """Texts/s of one machine, and what holds it up; `storage` is its share of the store, bytes/s."""
    moved = job.tokens * BYTES_PER_TOKEN + job.vector_bytes
    ways = {
        "compute": machine.cores * machine.tokens_per_second_core / job.tokens,
        "network": machine.network_gbit * BYTES_PER_GBIT / moved,
        "storage": storage / moved,
    }
    slowest = min(ways, key=lambda name: ways[name])
    return ways[slowest], slowest


def simulate(cluster: Cluster, job: Job) -> Outcome:
    """The job on these machines; the same seed gives the same failures."""
    share = cluster.storage_gbit * BYTES_PER_GBIT / cluster.count
    chance = random.Random(job.seed)
    rates: list[float] = []
    limits: dict[str, int] = {}
    begin: list[tuple[float, int]] = []  # when a machine is free, and which
    failing: list[float] = []
    for machine in cluster.machines:
        speed, limit = rate(machine, job, share)
        limits[limit] = limits.get(limit, 0) + machine.count
        fetched = cluster.model_megabytes * 1e6 / min(share, machine.network_gbit * BYTES_PER_GBIT)
        for _ in range(machine.count):
            begin.append((cluster.start_seconds + fetched, len(rates)))
            failing.append(_next_failure(chance, job, 0.0))
            rates.append(speed)
    heapq.heapify(begin)
    parts = [job.part] * (job.texts // job.part) + ([job.texts % job.part] if job.texts % job.part else [])
    ends, first_idle, redone, failed = 0.0, 0.0, 0, 0
    for texts in parts:
        while True:
            now, which = heapq.heappop(begin)
            done = now + texts / rates[which]
            if done <= failing[which]:
                break
            failed += 1  # and the part goes to the next that is free
            redone += int(max(failing[which] - now, 0.0) * rates[which])
            back = max(failing[which], now) + job.again_seconds
            failing[which] = _next_failure(chance, job, back)
            heapq.heappush(begin, (back, which))
        ends = max(ends, done)
        heapq.heappush(begin, (done, which))
    first_idle = min(min(begin)[0], ends)
    hours = ends / 3600
    return Outcome(
        seconds=ends,
        first_idle=first_idle,
        redone=redone,
        failed=failed,
        limits=limits,
        read_bytes=(job.texts + redone) * job.tokens * BYTES_PER_TOKEN,
        written_bytes=float(job.texts) * job.vector_bytes,
        price=sum(machine.count * machine.price_hour * hours for machine in cluster.machines),
    )


def _next_failure(chance: random.Random, job: Job, now: float) -> float:
    return now + chance.expovariate(job.failures / 3600) if job.failures else float("inf")


def report(args: argparse.Namespace) -> str:
    """The outcome in a few lines."""
    cluster = read(args.machines)
    job = Job(
        texts=int(args.texts),
        tokens=args.tokens,
        vector_bytes=args.vector_bytes,
        part=int(args.part),
        failures=args.failures,
        seed=args.seed,
    )
    found = simulate(cluster, job)
    hours = found.seconds / 3600
    held = ", ".join(f"{name} ({count} machines)" for name, count in sorted(found.limits.items()))
    lines = [
        f"{job.texts:,} texts of {job.tokens:g} tokens on {cluster.count} machines: {hours:.2f} hours, "
        f"{job.texts / found.seconds:,.0f} texts/s, {hours * cluster.count:,.0f} machine hours",
        f"held up by {held}; the first machine is idle after {found.first_idle / 3600:.2f} hours",
        f"read {found.read_bytes / 1e12:.2f} TB, written {found.written_bytes / 1e12:.2f} TB, on average "
        f"{(found.read_bytes + found.written_bytes) / found.seconds / BYTES_PER_GBIT:.2f} Gbit/s",
        f"machines failed {found.failed} times, {found.redone:,} texts done again",
    ]
    return "\n".join(lines + ([f"price {found.price:,.0f}"] if found.price else []))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodes", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("machines", type=Path, help="the machine list, JSON")
    parser.add_argument("--texts", type=float, default=1e9)
    parser.add_argument("--tokens", type=float, default=54, help="a text, special tokens included (default 54)")
    parser.add_argument("--vector-bytes", type=int, default=1536, help="as stored (default: 384 float32)")
    parser.add_argument("--part", type=float, default=100_000, help="texts that are done again after a failure")
    parser.add_argument("--failures", type=float, default=0.0, help="of a machine, an hour (default 0)")
    parser.add_argument("--seed", type=int, default=0)
    return printed(report, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
