"""The task scores beside scipy and scikit-learn."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score

from benchmarks import quality


def test_spearman_is_that_of_scipy_ties_included() -> None:
    random = np.random.default_rng(0)
    left, right = random.integers(0, 9, 200), random.normal(size=200)
    assert quality.spearman(left, right) == pytest.approx(spearmanr(left, right).statistic)


def test_ndcg_is_that_of_scikit_learn(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    corpus = [{"_id": f"d{k}", "title": "", "text": f"document {k}"} for k in range(30)]
    queries = [{"_id": f"q{k}", "text": f"query {k}"} for k in range(8)]
    for name, entries in (("corpus", corpus), ("queries", queries)):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, entries)), encoding="utf-8")
    judged = random.integers(0, 2, (8, 30))
    judged[:, 0] = 1
    lines = [f"q{q}\td{d}\t{judged[q, d]}" for q in range(8) for d in range(30)]
    (tmp_path / "qrels.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines]), encoding="utf-8")
    known = {entry["text"]: random.normal(size=16).astype(np.float32) for entry in (*corpus, *queries)}

    found = quality.ndcg_at_10(lambda texts: np.stack([known[text] for text in texts]), tmp_path)

    documents = np.stack([known[entry["text"]] for entry in corpus])
    documents /= np.linalg.norm(documents, axis=1, keepdims=True)
    scores = np.stack([known[entry["text"]] for entry in queries]) @ documents.T
    assert found == pytest.approx(100 * ndcg_score(judged, scores, k=10))
