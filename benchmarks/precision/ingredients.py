"""What each part of INT8 brings: the same checkpoint, each time without one of them or with ranges that clip.

    python -m benchmarks.precision.ingredients CHECKPOINT [--task TASK] [--data DIR] [--texts 600]

Cosine of target native and target cpu to the directory's own fp32, on the texts of benchmarks.precision.int8.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from ..data.scores import Vectors
from ..data.workloads import data_folder
from ..errors import printed
from ..report.table import table
from .int8 import degenerate_texts, encoder, figures, real_texts, texts_of
from .real_weights import task_of


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 0 done, 2 wrong arguments or data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", help="a sentence-transformers directory or hub id")
    parser.add_argument("--task", help="of the checkpoint: embedding, sparse; auto: as it says")
    parser.add_argument("--data", help="folder with texts/ and unicode/")
    parser.add_argument("--texts", type=int, default=600, help="real texts")
    return printed(measured, parser.parse_args(words))


def without() -> dict[str, Callable[[], Any]]:
    """By the name of a part, what leaves it out."""
    from fastembed_rt_export.graph.int8 import GroupRecipe
    from fastembed_rt_export.quantize import calibration, ranges, rounding, texts

    from . import clips

    whole = property(lambda group: group)
    ones = lambda _, sample: np.ones(len(sample), np.float32)  # noqa: E731
    return {
        "all parts": lambda: mock.patch.object(ranges, "TAILS", ranges.TAILS),
        "no tails (whole ranges in native too)": lambda: mock.patch.object(GroupRecipe, "with_tails", whole),
        "no dither": lambda: mock.patch.object(calibration, "WORTH_DITHER", 2.0),
        "nearest integers": lambda: mock.patch.object(rounding, "PASSES", 0),
        "tokens count alike": lambda: mock.patch.object(ranges.Outputs, "counts", ones),
        "no smoothing": lambda: mock.patch.object(ranges, "ALPHAS", ()),
        "no outlier channels": lambda: mock.patch.object(ranges, "OUTLIERS", (0,)),
        "no degenerate texts": lambda: mock.patch.object(texts, "degenerate_texts", lambda share=1.0: []),
        "no margin": lambda: mock.patch.multiple(ranges, MARGIN=1.0, MARGIN_OF_MIXED=1.0),
        "clipped at 0.8": lambda: mock.patch.multiple(ranges, MARGIN=0.8, MARGIN_OF_MIXED=0.8),
        "clipped at 99.99 %": lambda: clips.clipped(clips.percentile(0.9999)),
        "clipped by squared error": lambda: clips.clipped(clips.least_squares),
        "clipped by KL divergence": lambda: clips.clipped(clips.least_divergence),
    }


def measured(args: argparse.Namespace) -> str:
    """The table."""
    from fastembed_rt_export.pipeline import ExportOptions, export

    data = data_folder(args.data)
    texts = real_texts(data, args.texts)
    both = [*texts, *degenerate_texts(data)]
    exact: Vectors | None = None
    body = []
    with tempfile.TemporaryDirectory() as work:
        for name, patched in without().items():
            made = Path(work) / "made"
            # min_cosine: nothing goes back to float, so that the part itself is seen.
            options = ExportOptions(
                output=made,
                force=True,
                task=args.task or task_of(args.checkpoint),
                precisions=("fp32", "int8"),
                verify=False,
                min_cosine=-1.0,
            )
            print(name, file=sys.stderr)
            with patched():
                export(args.checkpoint, options)
            if exact is None:
                exact = encoder(made, "fp32")(both)
            for target in ("native", "cpu"):
                found = encoder(made, "int8", target)(both)
                body.append([name, target, *texts_of(figures(found, exact, len(texts)))])
    return table(["", "target", "mean", "p1", "min", "degenerate: mean", "min"], body)


if __name__ == "__main__":
    sys.exit(main())
