"""Quality of `fastembed-rt search` beside float32 vectors of the same texts: ndcg@10 and recall@10 of a retrieval set.

    python -m benchmarks.precision.index_quality MODEL    # the set xquad-en in FASTEMBED_RT_DATA

Each document becomes a file, the folder is indexed, and each query searched for; a file is where its best chunk is.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import tasks
from benchmarks.data.workloads import data_folder
from fastembed_rt import EmbeddingModel
from fastembed_rt.search import Index, build

DEPTH = 10


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model directory")
    parser.add_argument("--precision", help="of the graph")
    parser.add_argument("--data", help="folder of data (default: FASTEMBED_RT_DATA)")
    args = parser.parse_args()
    place = data_folder(args.data, texts=False) / "retrieval" / "xquad-en"
    with EmbeddingModel(args.model, precision=args.precision) as model:
        for name, found in compared(model, place).items():
            print(f"{name}: " + ", ".join(f"{measure} {value:.2f}" for measure, value in found.items()))
    return 0


def compared(model: EmbeddingModel, place: Path) -> dict[str, dict[str, float]]:
    """Scores in percent by what ranked: float32 vectors of whole documents, and the index."""
    task = tasks.retrieval(place.name, lambda file: place / file)
    judged = len(task.texts) - sum(1 for _ in (place / "corpus.jsonl").open(encoding="utf-8"))
    queries, documents = task.texts[:judged], task.texts[judged:]
    vectors = np.concatenate([model.encode_query(queries), model.encode_document(documents)])
    return {"float32": task.scores(vectors), "index": task.scores(ranked(model, queries, documents))}


def ranked(model: EmbeddingModel, queries: list[str], documents: list[str]) -> Any:
    """Vectors whose cosines order the documents of each query as the index does."""
    order = np.zeros((len(queries), len(documents)), np.float32)
    with tempfile.TemporaryDirectory() as work:
        folder = Path(work)
        for number, text in enumerate(documents):
            (folder / f"{number}.txt").write_text(text, encoding="utf-8")
        build(folder, model, opened_from="model")
        with Index(folder, model) as index:
            for row, query in enumerate(queries):
                names = [hit.file for hit in index.search(query, 5 * DEPTH, highlight=False)]
                for rank, name in enumerate(dict.fromkeys(names)):
                    order[row, int(name.partition(".")[0])] = 1 / (1 + rank)
    return np.concatenate([order, np.eye(len(documents), dtype=np.float32)])


if __name__ == "__main__":
    raise SystemExit(main())
