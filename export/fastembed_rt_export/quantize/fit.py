"""Recipes with which graphs pass: each is made, measured beside the float one, and given what it needs of float."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastembed_rt.machine import available_threads

from ..errors import ParityError
from ..gate.parity import Fidelity
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

        def outputs(recipe: Recipe, of: Sample) -> Floats:
            with tempfile.TemporaryDirectory(dir=self.work) as folder:
                write(make(recipe), Path(folder), "tried.onnx", name="tried", metadata={})
                return vectors(Path(folder) / "tried.onnx", of, available_threads())

        def say(line: str) -> None:
            self.say(f"{self.precision} {named}: {line}")

        trial = Trial(held_out=self.held_out, vectors=outputs, fidelity=self.fidelity, bound=self.bound, say=say)
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
