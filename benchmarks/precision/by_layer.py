"""What each kind of layer costs INT8: the cosine to fp32 with all of its layers in float, and nothing else.

    python -m benchmarks.precision.by_layer CHECKPOINT [--task TASK] [--each]

On the texts that the export measures its graphs on. `--each`: every group of layers by itself instead of by kind.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from ..errors import printed
from ..report.table import table
from .real_weights import task_of


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 0 done, 2 wrong arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a sentence-transformers directory or hub id")
    parser.add_argument("--task", help="of the checkpoint: embedding, sparse; auto: as it says")
    parser.add_argument("--each", action="store_true", help="every group of layers by itself")
    return printed(measured, parser.parse_args(words))


def kind(key: str) -> str:
    """The name of a group of layers without its layer's number: `layer.3.intermediate` is of `layer.*.intermediate`."""
    return re.sub(r"\d+", "*", key)


def measured(args: argparse.Namespace) -> str:
    """The table."""
    from fastembed_rt_export.pipeline import ExportOptions, export
    from fastembed_rt_export.quantize import Fitting

    body: list[list[str]] = []
    passing = Fitting.passing

    def tried(fitting: Any, found: Any, make: Callable[[Any], Any], named: str) -> Any:
        def fall_back(found: Any, trial: Any) -> Any:
            names = {key: key if args.each else kind(key) for key in found.recipe.groups}
            result = None
            for name in ("", *dict.fromkeys(names.values())):
                kept = {key: group for key, group in found.recipe.groups.items() if not name or names[key] != name}
                recipe = replace(found.recipe, groups=kept)
                fidelity = trial.measured(recipe, found.exact)
                figures = (f"{value:.5f}" for value in (fidelity.mean_cosine, fidelity.min_cosine))
                body.append([named, name or "none", str(len(names) - len(kept)), *figures])
                result = result or (recipe, fidelity)
            return result

        return passing(replace(fitting, fall_back=fall_back), found, make, named)

    with tempfile.TemporaryDirectory() as work, mock.patch.object(Fitting, "passing", tried):
        options = ExportOptions(
            output=Path(work) / "made",
            task=args.task or task_of(args.checkpoint),
            precisions=("fp32", "int8"),
            verify=False,
            min_cosine=-1.0,
        )
        export(args.checkpoint, options)
    return table(["", "in float", "groups", "mean", "min"], body)


if __name__ == "__main__":
    sys.exit(main())
