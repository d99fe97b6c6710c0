"""Recipes with which graphs pass: each is made, measured beside the float one, and given what it needs of float."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastembed_rt.machine import available_threads
from fastembed_rt.run import memory

from ..errors import ParityError
from ..gate.parity import Fidelity
from ..graph.common import Place
from ..graph.graph import Graph
from ..graph.weight import Floats
from ..graph.writer import write
from . import fallback
from .fallback import Measure, Trial
from .sample import Sample, vectors

Recipe = Any  # of graph/int8.py or graph/fp8.py


@dataclass(frozen=True, kw_only=True)
class Fitting:
    """Measuring on texts that took no part in calibration, but for a few of no or one token."""

    held_out: Sample
    work: Path  # where graphs are tried
    bound: float  # least fidelity of the worst text
    fidelity: Measure
    outputs: str  # what messages call what comes out
    say: Callable[[str], None]
    precision: str = "int8"
    fall_back: Callable[[Any, Trial], tuple[Recipe, Fidelity]] = fallback.passing  # groups in full width, one by one
    advice: str = "lower --min-cosine if that will do, or export fp32"

    def passing(self, found: Any, make: Callable[[Recipe], Graph], named: str) -> tuple[Recipe, dict[str, Any]]:
        """The recipe with which the graphs that `make` makes pass, and what the manifest says of it.

        Raises:
            ParityError: none does.
        """

        def say(line: str) -> None:
            self.say(f"{self.precision} {named}: {line}")

        with tempfile.TemporaryDirectory(dir=self.work) as folder:
            trial = Trial(
                held_out=self.held_out,
                vectors=_Tried(make, Path(folder)),
                fidelity=self.fidelity,
                bound=self.bound,
                say=say,
            )
            recipe, fidelity = self.fall_back(found, trial)
        if not fidelity.passes(self.bound):
            raise ParityError(
                f"{self.precision} {self.outputs} {named} are too far from fp32: {fidelity}, asked for {self.bound} "
                f"or more; {self.advice}"
            )
        left = sorted(set(found.errors) - set(recipe.groups))
        return recipe, {
            "fidelity": fidelity.as_dict(),
            f"{self.precision}_groups": len(recipe.groups),
            "float_groups": left,
        }


class _Tried:
    """Outputs of the graph of a recipe. Weights of the first one are written once: later recipes have most of them."""

    def __init__(self, make: Callable[[Recipe], Graph], folder: Path) -> None:
        self._make, self._folder = make, folder
        self._places: Mapping[str, Place] | None = None

    def __call__(self, recipe: Recipe, of: Sample) -> Floats:
        first = self._places is None
        file = "first.onnx" if first else "tried.onnx"
        # Beside the graph: a session maps the weights that it would hold twice more while it is made.
        written = write(
            self._make(recipe), self._folder, file, name="tried", metadata={}, external=True, shared=self._places
        )
        if first:
            self._places = written.offsets
        found = vectors(self._folder / file, of, available_threads())
        memory.give_back()
        return found
