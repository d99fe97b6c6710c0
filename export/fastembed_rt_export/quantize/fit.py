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
from .fallback import Measure
from .sample import Sample, vectors

Recipe = Any  # of graph/int8.py or graph/fp8.py
FallBack = Callable[
    [Any, Sample, Callable[[Recipe, Sample], Floats], Measure, float, Callable[[str], None]], tuple[Recipe, Fidelity]
]


@dataclass(frozen=True)
class Fitting:
    """Measuring on texts that took no part in calibration, but for a few of no or one token."""

    held_out: Sample
    work: Path  # where graphs are tried
    bound: float  # least fidelity of the worst text
    fidelity: Measure
    outputs: str  # what messages call what comes out
    say: Callable[[str], None]
    advice: str = "lower --min-cosine if that will do, or export fp32"

    def passing(
        self,
        found: Any,
        make: Callable[[Recipe], Graph],
        named: str,
        precision: str = "int8",
        fall_back: FallBack = fallback.passing,
    ) -> tuple[Recipe, dict[str, Any]]:
        """The recipe with which the graphs that `make` makes pass, and what the manifest says of it.

        Raises:
            ParityError: none does.
        """

        def outputs(recipe: Recipe, of: Sample) -> Floats:
            with tempfile.TemporaryDirectory(dir=self.work) as folder:
                write(make(recipe), Path(folder), "tried.onnx", name="tried", metadata={})
                return vectors(Path(folder) / "tried.onnx", of, available_threads())

        def say(line: str) -> None:
            self.say(f"{precision} {named}: {line}")

        recipe, fidelity = fall_back(found, self.held_out, outputs, self.fidelity, self.bound, say)
        if not fidelity.passes(self.bound):
            raise ParityError(
                f"{precision} {self.outputs} {named} are too far from fp32: {fidelity}, asked for {self.bound} "
                f"or more; {self.advice}"
            )
        left = sorted(set(found.errors) - set(recipe.groups))
        return recipe, {"fidelity": fidelity.as_dict(), f"{precision}_groups": len(recipe.groups), "float_groups": left}
