"""Scores of an INT8 export through our SentenceTransformer beside those of the checkpoint on torch.

    python tests/interop_suites/scores.py CHECKPOINT MODEL_DIRECTORY

sentence-transformers' EmbeddingSimilarityEvaluator, InformationRetrievalEvaluator and paraphrase_mining, and, where
mteb is installed, its STS and retrieval tasks, over the data in FASTEMBED_RT_DATA.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DATA = Path(os.environ.get("FASTEMBED_RT_DATA", "../shared/data"))
Rows = list[tuple[str, str, float]]
MINED = 1000  # pairs of paraphrase_mining that are compared


def sts() -> Rows:
    """STS-B's development set: two texts and a score from 0 to 1."""
    with (DATA / "stsb" / "stsb-en-dev.csv").open(encoding="utf-8", newline="") as lines:
        return [(left, right, float(score) / 5) for left, right, score in csv.reader(lines)]


def retrieval() -> tuple[dict[str, str], dict[str, str], dict[str, set[str]]]:
    """Queries, corpus and what is relevant, by id."""
    place = DATA / "retrieval" / "xquad-en"

    def texts(name: str) -> dict[str, str]:
        lines = (place / name).read_text(encoding="utf-8").splitlines()
        return {entry["_id"]: entry["text"] for entry in map(json.loads, lines)}

    relevant: dict[str, set[str]] = {}
    for line in (place / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, _ = line.split("\t")
        relevant.setdefault(query, set()).add(document)
    return texts("queries.jsonl"), texts("corpus.jsonl"), relevant


def by_evaluators(model: Any) -> Iterator[tuple[str, float]]:
    from sentence_transformers.sentence_transformer.evaluation import (
        EmbeddingSimilarityEvaluator,
        InformationRetrievalEvaluator,
    )

    left, right, scores = zip(*sts(), strict=True)
    similar = model.evaluate(EmbeddingSimilarityEvaluator(left, right, scores, name="stsb"))
    yield "EmbeddingSimilarityEvaluator, STS-B dev, Spearman of cosine", similar["stsb_spearman_cosine"]
    yield "EmbeddingSimilarityEvaluator, STS-B dev, Pearson of cosine", similar["stsb_pearson_cosine"]
    found = model.evaluate(InformationRetrievalEvaluator(*retrieval(), name="xquad"))
    for measure in ("accuracy@1", "ndcg@10", "mrr@10"):
        yield f"InformationRetrievalEvaluator, XQuAD-en, {measure}", found[f"xquad_cosine_{measure}"]


def mined(model: Any) -> list[tuple[int, int]]:
    """The nearest pairs of STS-B's texts, best first."""
    from sentence_transformers.util import paraphrase_mining

    texts = list(dict.fromkeys(text for left, right, _ in sts() for text in (left, right)))
    return [(i, j) for _, i, j in paraphrase_mining(model, texts)[:MINED]]


def by_mteb(model: Any) -> Iterator[tuple[str, float]]:
    import mteb
    from datasets import Dataset, DatasetDict
    from mteb.abstasks.retrieval import AbsTaskRetrieval
    from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
    from mteb.abstasks.sts import AbsTaskSTS
    from mteb.abstasks.task_metadata import TaskMetadata
    from mteb.models import SentenceTransformerEncoderWrapper

    facts: dict[str, Any] = {
        "description": "local data",
        "dataset": {"path": "local", "revision": "1"},
        "category": "t2t",
        "eval_splits": ["test"],
        "eval_langs": ["eng-Latn"],
        "modalities": ["text"],
    }

    class Similarity(AbsTaskSTS):  # type: ignore[misc]
        metadata = TaskMetadata(type="STS", name="LocalSTS", main_score="cosine_spearman", **facts)
        max_score = 1

        def load_data(self, **_: Any) -> None:
            columns = dict(zip(("sentence1", "sentence2", "score"), zip(*sts(), strict=True), strict=True))
            self.dataset = DatasetDict({"test": Dataset.from_dict({k: list(v) for k, v in columns.items()})})
            self.data_loaded = True

    class Retrieval(AbsTaskRetrieval):  # type: ignore[misc]
        metadata = TaskMetadata(type="Retrieval", name="LocalRetrieval", main_score="ndcg_at_10", **facts)

        def load_data(self, **_: Any) -> None:
            queries, corpus, relevant = retrieval()

            def table(texts: dict[str, str]) -> Any:
                return Dataset.from_list([{"id": name, "text": text} for name, text in texts.items()])

            judged = {query: dict.fromkeys(found, 1) for query, found in relevant.items()}
            split = RetrievalSplitData(
                queries=table(queries), corpus=table(corpus), relevant_docs=judged, top_ranked=None
            )
            self.dataset = {"default": {"test": split}}
            self.data_loaded = True

    wrapped = SentenceTransformerEncoderWrapper(model)
    for task in (Similarity(), Retrieval()):
        results = mteb.evaluate(wrapped, task, cache=None, show_progress_bar=False)
        name = f"MTEB {task.metadata.type} task, {task.metadata.main_score}"
        yield name, results.task_results[0].get_score()


def main() -> None:
    """Print a table."""
    checkpoint, directory = sys.argv[1:3]
    from sentence_transformers import SentenceTransformer

    from fastembed_rt.compat.sentence_transformers import SentenceTransformer as Ours

    theirs, ours = SentenceTransformer(checkpoint, device="cpu"), Ours(directory, precision="int8")
    print(f"{ours!r}\n\n| | torch fp32 | INT8 |\n| --- | --- | --- |")
    parts = [by_evaluators, *([by_mteb] if importlib.util.find_spec("mteb") else [])]
    for part in parts:
        for (name, left), (_, right) in zip(part(theirs), part(ours), strict=True):
            print(f"| {name} | {left:.4f} | {right:.4f} |", flush=True)
    pairs = mined(theirs), mined(ours)
    print(f"| paraphrase_mining, of torch's {MINED} best pairs of STS-B's texts | {MINED} | ", end="")
    print(f"{len(set(pairs[0]) & set(pairs[1]))} |")


if __name__ == "__main__":
    main()
