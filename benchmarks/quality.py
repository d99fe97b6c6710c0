"""How good the vectors are at the task: STS Spearman and retrieval nDCG@10, for every precision of a model directory.

    python -m benchmarks.quality MODEL_DIR [--data DIR] [--reference CHECKPOINT]

Reads stsb/stsb-en-dev.csv (two sentences and a score a line) and retrieval/<name>/, in BEIR's layout, from the data
folder. With `--reference`, sentence-transformers on torch is a row too.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.workloads import data_folder
from fastembed_rt import EmbeddingModel

Vectors = npt.NDArray[np.float32]
Encode = Callable[[list[str]], Vectors]


def ranks(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Ranks from 0, ties share their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts + 1) / 2)[inverse]


def spearman(left: npt.ArrayLike, right: npt.ArrayLike) -> float:
    """Rank correlation."""
    a, b = ranks(np.asarray(left, np.float64)), ranks(np.asarray(right, np.float64))
    return float(np.corrcoef(a, b)[0, 1])


def sts(encode: Encode, path: Path) -> float:
    """Spearman of cosine and score, times 100."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = [(row[0], row[1], float(row[2])) for row in csv.reader(stream)]
    left, right = encode([row[0] for row in rows]), encode([row[1] for row in rows])
    lengths = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    return 100 * spearman((left * right).sum(axis=1) / lengths, [row[2] for row in rows])


def ndcg_at_10(encode: Encode, folder: Path) -> float:
    """Mean nDCG@10 over the queries, times 100, by cosine."""
    corpus = _jsonl(folder / "corpus.jsonl")
    queries = _jsonl(folder / "queries.jsonl")
    wanted: dict[str, dict[str, int]] = defaultdict(dict)
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, score = line.split("\t")
        wanted[query][document] = int(score)
    documents = encode([f"{entry.get('title', '')} {entry['text']}".strip() for entry in corpus])
    asked = encode([entry["text"] for entry in queries])
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    scores = asked @ documents.T
    found = []
    for row, entry in zip(scores, queries, strict=True):
        judged = wanted[entry["_id"]]
        best = [judged.get(corpus[k]["_id"], 0) for k in np.argsort(-row, kind="stable")[:10]]
        ideal = sorted(judged.values(), reverse=True)[:10]
        found.append(_gain(best) / (_gain(ideal) or 1.0))
    return 100 * float(np.mean(found))


def _gain(relevance: list[int]) -> float:
    return sum((2.0**value - 1) / math.log2(place + 2) for place, value in enumerate(relevance))


def _jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="model directory")
    parser.add_argument("--data", help="folder with stsb/ and retrieval/")
    parser.add_argument("--reference", help="checkpoint for sentence-transformers on torch")
    args = parser.parse_args()
    data = data_folder(args.data)
    rows: dict[str, Encode] = {}
    if args.reference:
        from sentence_transformers import SentenceTransformer

        reference = SentenceTransformer(args.reference, device="cpu")
        rows["sentence-transformers"] = lambda texts: reference.encode(texts, show_progress_bar=False)
    with EmbeddingModel(args.model) as first:
        precisions = list(dict.fromkeys(variant.precision for variant in first.manifest.variants))
    for precision in precisions:
        rows[f"fastembed-rt {precision}"] = EmbeddingModel(args.model, precision=precision).encode
    retrieval = sorted((data / "retrieval").glob("*/"))
    print(f"{'':<24} {'STS-B dev':>10} " + " ".join(f"{folder.name:>12}" for folder in retrieval))
    for name, encode in rows.items():
        found = [ndcg_at_10(encode, folder) for folder in retrieval]
        print(
            f"{name:<24} {sts(encode, data / 'stsb' / 'stsb-en-dev.csv'):10.2f} "
            + " ".join(f"{score:12.2f}" for score in found),
            flush=True,
        )


if __name__ == "__main__":
    main()
