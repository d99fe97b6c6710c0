"""Parts that ask the loaded contenders: texts, lengths, texts a call, one text, many callers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...data import fidelity
from ...errors import ContenderError
from ...report.records import REFERENCE
from ..measure import rotated
from .run import Run

BATCHES = (1, 4, 16, 64, 256)  # texts a call
CALLERS = (1, 2, 4, 8, 16)  # threads that ask at once
CALLERS_SECONDS = 1.0  # at least: the beginning and the end, where fewer ask, are to be a small part
TURNS = 5  # of everybody in a round of single texts


def throughput(run: Run) -> None:
    """Seconds for all texts of each workload of the group "texts", in one call."""
    for number, names in run.rounds("throughput", run.settings.rounds):
        _pass(run, "throughput", run.work.timed, number, names)
    run.remember_memory(run.names("throughput"))


def lengths(run: Run) -> None:
    """Seconds for all texts of each workload of the group "length", in one call; all must see that many tokens."""
    for name in run.names("lengths"):
        try:
            for workload, length in run.work.lengths.items():
                file = str(run.work.files[workload])
                counts = run.serving(name).ask("tokens", timeout=run.patience.tokens, texts=file)["counts"]
                objection = fidelity.token_objection(counts, [length] * len(counts))
                if objection is not None:
                    raise ContenderError(objection)
            run.serving(name).stop()
        except ContenderError as error:
            run.failed("lengths", name, error)
    for number, names in run.rounds("lengths", run.settings.other_rounds if run.work.lengths else 0):
        _pass(run, "lengths", run.work.lengths, number, names)


def latency(run: Run) -> None:
    """Seconds of each of many calls of one text, a part of the texts in each turn: machines change speed in seconds."""
    for number, names in run.rounds("latency", run.settings.rounds):
        for turn in range(TURNS):
            for position, name in enumerate(rotated(names, turn)):
                seen = run.ask("latency", name, "latencies", "single", run.patience.single, first=turn, step=TURNS)
                if seen is not None:
                    where = {"round": number, "turn": turn, "position": position}
                    run.result.latencies.append({"contender": name, **where, **seen})
    run.remember_memory(run.names("latency"))


def batches(run: Run) -> None:
    """Seconds for the same texts, so and so many a call: what a caller pays who has few at a time."""
    tokens = _tokens(run, "mixed-small")
    for number, names in run.rounds("batches", run.settings.other_rounds):
        for batch in BATCHES:
            for position, name in enumerate(names):
                seen = run.ask("batches", name, "batches", "mixed-small", run.patience.encode, batch=batch)
                if seen is not None:
                    where = {"workload": "mixed-small", "batch": batch, "round": number, "position": position}
                    run.result.batches.append({"contender": name, **where, "tokens": tokens, **seen})


def concurrent(run: Run) -> None:
    """Seconds of each call when that many threads of one process ask for one text at a time."""
    for number, names in run.rounds("concurrent", run.settings.other_rounds):
        for callers in CALLERS:
            for position, name in enumerate(names):
                how = {"callers": callers, "least": CALLERS_SECONDS}
                seen = run.ask("concurrent", name, "callers", "single", run.patience.single, **how)
                if seen is not None:
                    where = {"callers": callers, "round": number, "position": position}
                    run.result.concurrent.append({"contender": name, **where, **seen})


def _tokens(run: Run, workload: str) -> int | None:
    """Tokens of all texts, by the reference, whose counts all contenders agreed with; None where it cannot say."""
    file = str(run.work.files[workload])
    try:
        process = run.serving(REFERENCE)
        counts: list[int] = process.ask("tokens", timeout=run.patience.tokens, texts=file)["counts"]
        process.stop()
    except ContenderError as error:
        run.failed("batches", REFERENCE, error)
        return None
    return sum(counts)


def _pass(run: Run, part: str, workloads: Iterable[str], number: int, names: Sequence[str]) -> None:
    for workload in workloads:
        for position, name in enumerate(names):
            seen = run.ask(part, name, "encode", workload, run.patience.encode)
            if seen is not None:
                where = {"workload": workload, "round": number, "position": position}
                run.result.samples.append({"contender": name, **where, **seen})
