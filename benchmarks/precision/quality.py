"""How good the vectors are at the task: STS-B and SICK Spearman, retrieval nDCG@10 and Recall@10, by precision.

    python -m benchmarks.precision.quality MODEL_DIR [--data DIR] [--reference CHECKPOINT] [--hub mteb/scifact]

Which files of the data folder are tasks: see benchmarks/data/tasks.py. With `--reference`, sentence-transformers on
torch is a row too. The runner's part `quality` scores the same tasks by the contenders' own processes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from fastembed_rt import EmbeddingModel

from ..data import tasks
from ..data.scores import Vectors
from ..data.workloads import data_folder
from ..errors import BenchmarkError, printed
from ..report.table import table

Encode = Callable[[list[str]], Vectors]


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 0 done, 2 wrong arguments or data."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model directory")
    parser.add_argument("--data", help="folder with stsb/, sick/, sts/ and retrieval/")
    parser.add_argument("--reference", help="checkpoint for sentence-transformers on torch")
    tasks.add_arguments(parser)
    return printed(scored, parser.parse_args(words))


def scored(args: argparse.Namespace) -> str:
    """Score every precision of the directory, and the reference."""
    found, skipped = tasks.find(
        data_folder(args.data, texts=False), tasks.words_of(args.languages), tasks.words_of(args.hub)
    )
    if not found:
        raise BenchmarkError(f"no task to score: {'; '.join(f'{name}: {reason}' for name, reason in skipped)}")
    rows: dict[str, Encode] = {}
    if args.reference:
        from sentence_transformers import SentenceTransformer

        reference = SentenceTransformer(args.reference, device="cpu")
        rows["sentence-transformers"] = lambda texts: reference.encode(texts, show_progress_bar=False)
    with EmbeddingModel(args.model) as first:
        precisions = list(dict.fromkeys(variant.precision for variant in first.manifest.variants))
    for precision in precisions:
        rows[f"fastembed-rt {precision}"] = EmbeddingModel(args.model, precision=precision).encode
    head = ["percent", *(f"{task.name}, {metric}" for task in found for metric in task.metrics)]
    body = []
    for name, encode in rows.items():
        scores = [task.scores(encode(task.texts)) for task in found]
        body.append([name, *(f"{value:.2f}" for score in scores for value in score.values())])
    lines = [table(head, body), *(f"skipped: {name}: {reason}" for name, reason in skipped)]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
