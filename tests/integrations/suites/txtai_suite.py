"""txtai: vectors by path and by method="external", indexes saved and opened elsewhere, sparse vectors, its Reranker."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Case, close, run_page, same
from txtai import Embeddings
from txtai.pipeline import Reranker

import fastembed_rt
from fastembed_rt import EmbeddingModel, SparseModel
from fastembed_rt.errors import InvalidInputError
from fastembed_rt.integrations.txtai import FastEmbedRtSimilarity, transform

DENSE = "fastembed_rt.integrations.txtai.FastEmbedRtVectors"
SPARSE = "fastembed_rt.integrations.txtai.FastEmbedRtSparseVectors"


def best(scores: Any, count: int = 3) -> list[tuple[int, float]]:
    order = np.argsort(-scores, kind="stable")[:count]
    return [(int(k), float(scores[k])) for k in order]


def agree(found: list[tuple[int, float]], wanted: list[tuple[int, float]]) -> None:
    assert [place for place, _ in found] == [place for place, _ in wanted]
    np.testing.assert_allclose([score for _, score in found], [score for _, score in wanted], rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def index(case: Case) -> Any:
    made = Embeddings(path=case.dense, method=DENSE, content=True)
    made.index(case.texts)
    return made


def test_vectors_are_those_of_encode_by_category(case: Case) -> None:
    index = Embeddings(path=case.dense, method=DENSE)
    same(index.batchtransform(case.texts, "data"), case.documents)
    same(index.batchtransform([case.query], "query")[0], case.queried)
    same(index.transform(case.query), case.queried)


def test_an_index_finds_what_the_model_does(case: Case) -> None:
    index = Embeddings(path=case.dense, method=DENSE)
    index.index(case.texts)
    agree(index.search(case.query, 3), best(case.documents @ case.queried))


def test_texts_that_are_none_empty_or_very_long(case: Case) -> None:
    index = Embeddings(path=case.dense, method=DENSE)
    texts = ["", "a dog " * 200_000]
    same(index.batchtransform(texts, "data"), case.model.encode_document(texts))
    for wrong in (None, float("nan"), 3):
        with pytest.raises(TypeError):
            index.batchtransform(["a", wrong], "data")
        with pytest.raises(TypeError, match="inputs are"):
            FastEmbedRtSimilarity(case.reranker)(wrong, case.texts)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="one str; pass a list"):
        FastEmbedRtSimilarity(case.reranker)(case.query, "abc")  # type: ignore[arg-type]
    made = Embeddings(path=case.dense, method=DENSE)
    made.index([(0, texts[0], None), (1, texts[1], None)])
    assert {place for place, _ in made.search(texts[1], 2)} == {0, 1}


def test_many_texts_are_few_calls(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    encode = EmbeddingModel.encode

    def counted(self: Any, inputs: Any, **options: Any) -> Any:
        counts.append(len(inputs))
        return encode(self, inputs, **options)

    monkeypatch.setattr(EmbeddingModel, "encode", counted)
    index = Embeddings(path=case.dense, method=DENSE, batch=1000)
    index.index(case.texts * 125)
    assert max(counts) >= 500 and sum(counts) == 1000
    assert index.count() == 1000


def test_an_index_opens_in_another_process(case: Case, index: Any, tmp_path: Path) -> None:
    index.save(str(tmp_path / "index"))
    code = """
import json, sys
from txtai import Embeddings
made = Embeddings()
made.load(sys.argv[1])
print(json.dumps([[int(row["id"]), row["score"]] for row in made.search(sys.argv[2], 3)]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "index"), case.query], capture_output=True, text=True, check=True
    )
    found = [(place, score) for place, score in json.loads(done.stdout.splitlines()[-1])]
    agree(found, best(case.documents @ case.queried))


def test_options_and_instructions(case: Case) -> None:
    index = Embeddings(
        path=case.dense, method=DENSE, vectors={"threads": 1, "max_length": 8}, encodeargs={"truncate_dim": 8}
    )
    model = EmbeddingModel(case.dense, max_length=8)
    close(index.batchtransform(case.texts, "data"), model.encode_document(case.texts, truncate_dim=8))
    assert index.model.model.threads == 1
    cut = Embeddings(path=case.dense, method=DENSE, dimensionality=8)
    close(cut.batchtransform(case.texts, "data"), case.model.encode_document(case.texts, truncate_dim=8))
    told = Embeddings(path=case.dense, method=DENSE, instructions={"query": "the ", "data": "a "})
    same(told.batchtransform(case.texts, "data"), case.model.encode(case.texts, prompt="a "))
    same(told.batchtransform([case.query], "query"), case.model.encode([case.query], prompt="the "))


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_a_hub_token_is_refused_since_it_would_be_stored(case: Case, kind: str) -> None:
    options = {"threads": 1, "token": "a-secret"}
    scoring = {"method": "sparse", "path": case.sparse, "vectormethod": SPARSE, "vectors": options}
    with pytest.raises(ImportError) as caught:  # as txtai says that a method's class could not be made, and then why
        if kind == "dense":
            Embeddings(path=case.dense, method=DENSE, vectors=options)
        else:
            Embeddings(scoring=scoring, defaults=False).index(case.texts)
    assert isinstance(caught.value.__cause__, InvalidInputError)
    assert "token in vectors would be stored with the index; set HF_TOKEN" in str(caught.value.__cause__)


def test_an_external_function(case: Case) -> None:
    default = Embeddings(
        method="external", transform=transform(EmbeddingModel(case.dense, default_prompt_name="query"))
    )
    close(default.batchtransform([case.query])[0], case.queried)
    index = Embeddings(method="external", transform=transform(case.dense))
    close(index.batchtransform(case.texts), case.model.encode(case.texts))
    index.index(case.texts)
    plain = case.model.encode(case.texts)
    agree(index.search(case.query, 3), best(plain @ case.model.encode(case.query)))
    prompted = Embeddings(method="external", transform=transform(case.model, prompt_name="query"))
    close(prompted.batchtransform([case.query])[0], case.queried)


def test_sparse_vectors(case: Case) -> None:
    scoring = {"method": "sparse", "path": case.sparse, "vectormethod": SPARSE, "vectors": {"threads": 1}}
    index = Embeddings(scoring=scoring, defaults=False)
    index.index(case.texts)
    scores = SparseModel(case.sparse).similarity(case.query_weights, case.weights)[0]
    assert [place for place, _ in index.search(case.query, 3)] == [place for place, _ in best(scores)]
    found = index.scoring.model.encode(case.texts, "data").toarray()
    same(found, [vector.to_dense() for vector in case.weights])
    same(index.scoring.model.encode([case.query], "query").toarray()[0], case.query_weights.to_dense())
    assert index.scoring.model.encode([], "data").shape == (0, found.shape[1])


def test_a_hybrid_index(case: Case) -> None:
    index = Embeddings(
        path=case.dense, method=DENSE, scoring={"method": "sparse", "path": case.sparse, "vectormethod": SPARSE}
    )
    index.index(case.texts)
    dense = case.documents @ case.queried
    found = dict(index.search(case.query, 8, weights=1.0))
    for place, score in found.items():
        assert score == pytest.approx(float(dense[place]), abs=1e-5)
    assert len(index.search(case.query, 3)) == 3


def test_their_reranker_with_our_scores(case: Case, index: Any) -> None:
    similarity = FastEmbedRtSimilarity(case.reranker)
    logits = similarity.client.predict([(case.query, text) for text in case.texts], activation="identity")
    wanted = best(1 / (1 + np.exp(-np.asarray(logits, np.float64))), 3)
    found = Reranker(index, similarity)(case.query, limit=3, factor=10)
    agree([(int(row["id"]), row["score"]) for row in found], wanted)
    agree(similarity(case.query, case.texts, multilabel=None)[:3], best(np.asarray(logits)))
    shares = similarity([case.query], case.texts, multilabel=False)[0]
    assert sum(score for _, score in shares) == pytest.approx(1)
    assert [place for place, _ in shares] == [place for place, _ in similarity(case.query, case.texts)]
    with pytest.raises(InvalidInputError, match="3 scores"):
        FastEmbedRtSimilarity(str(Path(case.dense).with_name("labels-onnx")))
    assert fastembed_rt.__version__


def test_the_page_runs_as_written(case: Case, tmp_path: Path) -> None:
    names = run_page("txtai.md", case, tmp_path)
    assert len(names["found"]) == len(names["ranked"]) == 1
    close(names["external"].transform("a dog"), case.model.encode("a dog"))
