"""FAISS, usearch, hnswlib and sqlite-vec: libraries that take arrays as `encode` gives them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import hnswlib
import numpy as np
from stores_case import StoresCase as Case
from stores_case import case, run_page
from usearch.index import Index

__all__ = ["case"]


def nearest(case: Case) -> tuple[list[int], Any]:
    """All texts by falling cosine with the query, and these cosines."""
    cosines = case.documents @ case.queried
    order = np.argsort(-cosines, kind="stable")
    return order.tolist(), cosines[order]


def test_the_page(case: Case, tmp_path: Path) -> None:
    # Builds of Python leave out what loads sqlite's extensions; this package has it, under the same calls.
    sqlite = ("import sqlite3\n", "import pysqlite3 as sqlite3\n")
    found = run_page("faiss.md", case, tmp_path, lambda code: code.replace(*sqlite))
    texts, question = found["texts"], "which dog runs?"
    cosines = case.model.encode_document(texts) @ case.model.encode_query(question)
    order = np.argsort(-cosines).tolist()
    assert found["found_faiss"].tolist() == found["found_usearch"].tolist() == found["found_hnswlib"].tolist() == order
    assert [text for text, _ in found["found_sqlite"]] == [texts[k] for k in order]
    near = [1 - distance for _, distance in found["found_sqlite"]]
    np.testing.assert_allclose(near, cosines[order], rtol=0, atol=1e-5)
    bits = np.unpackbits(case.model.encode_document(texts, precision="ubinary"), axis=1)
    apart = (bits != np.unpackbits(case.model.encode_query(question, precision="ubinary"))).sum(axis=1)
    assert found["bits_apart"].tolist() == sorted(apart) == apart[found["found_bits"]].tolist()


def test_faiss(case: Case) -> None:
    order, cosines = nearest(case)
    index = faiss.IndexFlatIP(case.model.dim)
    index.add(case.model.encode_document(case.texts))
    (scores,), (found,) = index.search(case.model.encode_query([case.query]), len(case.texts))
    assert found.tolist() == order
    np.testing.assert_allclose(scores, cosines, rtol=0, atol=1e-6)


def test_usearch(case: Case) -> None:
    order, cosines = nearest(case)
    index = Index(ndim=case.model.dim, metric="cos", dtype="f32")
    index.add(np.arange(len(case.texts)), case.model.encode_document(case.texts))
    found = index.search(case.model.encode_query(case.query), len(case.texts), exact=True)
    assert found.keys.tolist() == order
    np.testing.assert_allclose(1 - found.distances, cosines, rtol=0, atol=1e-5)


def test_hnswlib(case: Case) -> None:
    order, cosines = nearest(case)
    index = hnswlib.Index(space="cosine", dim=case.model.dim)
    index.init_index(max_elements=len(case.texts))
    index.add_items(case.model.encode_document(case.texts))
    index.set_ef(len(case.texts))
    (found,), (distances,) = index.knn_query(case.model.encode_query(case.query), k=len(case.texts))
    assert found.tolist() == order
    np.testing.assert_allclose(1 - distances, cosines, rtol=0, atol=1e-5)
