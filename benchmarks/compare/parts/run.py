"""What all parts of a run share: the contenders' processes, the texts, and how a round goes.

A round gives every contender the same work one after the other, another one first each time; whoever is not at work is
stopped. A contender that fails in a part is left out of the rest of that part, and the others go on.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ...data.tasks import Task
from ...errors import ContenderError
from ...report.records import REFERENCE
from .. import conditions, measure
from ..contenders import Contender
from ..measure import Patience, Reference, Result, Work, rotated
from ..preparation import Preparation
from ..processes import Process

ESSENTIAL = ("throughput", "latency")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How often, and on what, each part measures."""

    rounds: int
    cold_rounds: int
    other_rounds: int
    quality_contenders: Sequence[str] = ()
    tasks: Sequence[Task] = ()
    skipped: Sequence[tuple[str, str]] = ()  # tasks that are not there, and why


@dataclass(frozen=True, kw_only=True)
class Run:
    """One run: what is measured goes into `result`, `save` writes it."""

    result: Result
    contenders: Sequence[Contender]
    work: Work
    preparation: Preparation
    patience: Patience
    settings: Settings
    save: Callable[[], None]
    reference: Reference = field(default_factory=Reference)
    processes: dict[str, Process] = field(default_factory=dict)

    def say(self, line: str) -> None:
        """Tell whoever watches how far it is."""
        print(line, file=sys.stderr, flush=True)

    def names(self, part: str) -> list[str]:
        """Contenders that still take part, in the table's order."""
        return [row.name for row in self.contenders if self.result.rows[row.name].takes(part)]

    def start(self, mode: str, name: str, preparation: Preparation | None = None) -> Process:
        """A fresh process of a contender."""
        contender = next(row for row in self.contenders if row.name == name)
        return (preparation or self.preparation).start(contender, mode)

    def load_all(self) -> None:
        """Load and check every contender, the reference first; without it nothing can be held against anything."""
        for name in sorted(self.names("loading"), key=lambda name: name != REFERENCE):
            self.say(f"loading and checking {name}")
            self.processes[name] = self.start("serve", name)
            measure.check(self.result.rows[name], self.processes[name], self.work, self.reference, self.patience)
            if self.result.rows[REFERENCE].status != "ok":
                return
        for name, counts in self.reference.counts.items():
            self.result.about["workloads"][name]["tokens"] = sum(counts)

    def serving(self, name: str) -> Process:
        """The loaded process of a contender; a new one where a part ended the last.

        Raises:
            ContenderError: it cannot be loaded again.
        """
        if not self.processes[name].alive:
            self.processes[name].kill()
            self.processes[name] = self.start("serve", name)
            self.processes[name].ask("load", timeout=self.patience.load)
        return self.processes[name]

    def ask(self, part: str, name: str, what: str, workload: str, timeout: float, **more: Any) -> dict[str, Any] | None:
        """One timed measurement; None when the contender failed, now or earlier in this part."""
        row = self.result.rows[name]
        if not row.takes(part):
            return None
        try:
            file = self.work.files[workload]
            return measure.timed(self.serving(name), what, file, timeout, warm=self.work.warm, **more)
        except ContenderError as error:
            self.failed(part, name, error)
            return None

    def failed(self, part: str, name: str, error: ContenderError) -> None:
        """Leave a contender out of a part, or of all that follows when it fails at the work that everybody does."""
        row = self.result.rows[name]
        if part in ESSENTIAL:
            row.fail(str(error))
        else:
            row.fail_in(part, str(error))

    def rounds(self, part: str, count: int) -> Iterator[tuple[int, list[str]]]:
        """Number of each round and who takes part, in the order of that round; saves after each."""
        names = self.names(part)
        for number in range(count):
            with self._round(part, number, count):
                yield number, rotated(names, number)

    def remember_memory(self, names: Sequence[str]) -> None:
        """Record the memory of the serving processes, after texts and single texts and before the other parts."""
        for name in names:
            row = self.result.rows[name]
            if row.status != "ok":
                continue
            try:
                process = self.serving(name)
                with measure.working(process):
                    row.facts["after_rounds"] = process.ask("usage", timeout=self.patience.tokens)
            except ContenderError as error:
                row.fail(str(error))

    def end_processes(self) -> None:
        """End what serves: the parts that follow start their own."""
        for process in self.processes.values():
            process.kill()

    @contextmanager
    def _round(self, part: str, number: int, count: int) -> Iterator[None]:
        before = conditions.load()
        yield
        after = conditions.load()
        self.result.about["loads"].append({"part": part, "round": number, "before": before, "after": after})
        self.save()
        self.say(f"{part}: round {number + 1} of {count} done")
