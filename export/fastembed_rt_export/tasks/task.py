"""What a task is: a row of functions that turn a checkpoint into graphs, facts of the manifest, and a parity report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ..checkpoint.read import Checkpoint
from ..gate.report import Refuse
from ..graph.target import Target
from ..variants import Built, Quantizing, TokenStates

Say = Callable[[str], None]


class Verify(Protocol):
    """Compares a model directory with its checkpoint; see verify.verify."""

    def __call__(
        self,
        directory: Path,
        checkpoint: Checkpoint,
        say: Say = ...,
        *,
        min_cosine: float,
        refuse: Refuse,
        show_progress: bool = False,
    ) -> dict[str, Any]:
        """Parity report, or ParityError."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """Functions of one task."""

    load: Callable[[Path, str, str | None, str], Checkpoint]  # root, name, revision, exporter
    build: Callable[[Checkpoint, Target, int], Built]  # target, opset
    facts: Callable[[Checkpoint, Path], Mapping[str, Any]]  # fields of the manifest; the directory has its tokenizer
    quantizing: Callable[[Checkpoint], Quantizing]
    verify: Verify
    tokens: Callable[[Checkpoint], TokenStates] | None = None  # graphs of token states beside those of the task
    overrides: tuple[str, ...]  # what the user may say against the checkpoint, by field of Overrides
