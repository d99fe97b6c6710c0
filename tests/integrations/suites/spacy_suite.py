"""spaCy: vectors of Docs and Spans, batches, similarity, pipelines saved and loaded, Docs from other processes."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import spacy
from conftest import Case, close, run_page, same
from spacy.tokens import Doc, DocBin
from thinc.config import ConfigValidationError

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError, ModelNotFoundError
from fastembed_rt.integrations.spacy import attach


@pytest.fixture(scope="module")
def nlp(case: Case) -> Any:
    made = spacy.blank("en")
    made.add_pipe("sentencizer")
    made.add_pipe("fastembed_rt", config={"model": case.dense})
    return made


def test_a_doc_has_the_models_vector(case: Case, nlp: Any) -> None:
    wanted = case.model.encode(case.texts)
    for text, vector in zip(case.texts, wanted, strict=True):
        doc = nlp(text)
        same(doc.vector, case.model.encode(text))
        same(doc._.embedding, doc.vector)
        assert doc.has_vector
        np.testing.assert_allclose(doc.vector, vector, rtol=0, atol=1e-6)
        assert doc.vector_norm == pytest.approx(np.linalg.norm(vector))
    assert nlp.get_pipe("fastembed_rt").client.dim == len(doc.vector)


def test_a_thousand_docs_are_one_call(case: Case, nlp: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    encode = EmbeddingModel.encode

    def counted(self: Any, inputs: Any, **options: Any) -> Any:
        counts.append(len(inputs))
        return encode(self, inputs, **options)

    monkeypatch.setattr(EmbeddingModel, "encode", counted)
    docs = list(nlp.pipe(case.texts * 150, batch_size=64))
    assert counts == [1000, 200]
    assert [doc.text for doc in docs] == case.texts * 150
    close([doc.vector for doc in docs[:8]], case.model.encode(case.texts))


@pytest.mark.parametrize("role", ["query", "document"])
def test_roles_and_options(case: Case, role: str) -> None:
    nlp = spacy.blank("en")
    config = {"model": case.dense, "role": role, "model_kwargs": {"threads": 1}, "encode_kwargs": {"truncate_dim": 8}}
    with pytest.raises(Exception, match="token in model_kwargs would be stored with the pipeline"):
        spacy.blank("en").add_pipe("fastembed_rt", config={**config, "model_kwargs": {"token": "secret"}})
    nlp.add_pipe("fastembed_rt", config=config)
    wanted = getattr(case.model, f"encode_{role}")(case.query, truncate_dim=8)
    same(nlp(case.query).vector, wanted)
    assert np.abs(wanted - case.model.encode(case.query, truncate_dim=8)).max() > 0.01
    assert nlp.get_pipe("fastembed_rt").client.threads == 1


def test_without_a_role_docs_have_the_default_prompt(case: Case) -> None:
    nlp = spacy.blank("en")
    nlp.add_pipe("fastembed_rt", config={"model": case.dense, "model_kwargs": {"default_prompt_name": "query"}})
    same(nlp(case.query).vector, case.queried)


def test_similarity_is_the_cosine_of_the_vectors(case: Case, nlp: Any) -> None:
    left, right = nlp(case.texts[0]), nlp(case.texts[1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # spaCy warns where a pipeline has no vectors
        found = left.similarity(right)
    cosine = left.vector @ right.vector / np.linalg.norm(left.vector) / np.linalg.norm(right.vector)
    assert found == pytest.approx(float(cosine), abs=1e-6)
    assert left.similarity(left) == pytest.approx(1, abs=1e-6)


def test_a_span_has_the_vector_of_its_text(case: Case, nlp: Any) -> None:
    doc = nlp("a cat sleeps. the river, the light")
    first, second = doc.sents
    same(first.vector, case.model.encode(first.text))
    same(second.vector, case.model.encode("the river, the light"))
    assert first.has_vector


def test_a_saved_pipeline_gives_the_same(case: Case, nlp: Any, tmp_path: Path) -> None:
    nlp.to_disk(tmp_path / "pipeline")
    again = spacy.load(tmp_path / "pipeline")
    same(again(case.query).vector, nlp(case.query).vector)
    assert again.config["components"]["fastembed_rt"]["model"] == case.dense


def test_saved_docs_keep_their_vectors(case: Case, nlp: Any) -> None:
    docs = list(nlp.pipe(case.texts))
    stored = DocBin(docs=docs, store_user_data=True).to_bytes()
    loaded = list(DocBin().from_bytes(stored).get_docs(nlp.vocab))
    for doc, again in zip(docs, loaded, strict=True):
        same(attach(again).vector, doc.vector)
        same(attach(Doc(nlp.vocab).from_bytes(doc.to_bytes())).vector, doc.vector)
    with pytest.raises(InvalidInputError, match=r"no doc\._\.embedding"):
        attach(spacy.blank("en")("a dog"))


def test_docs_of_other_processes(case: Case, nlp: Any) -> None:
    docs = list(nlp.pipe(case.texts, n_process=2, batch_size=4))
    close([doc._.embedding for doc in docs], case.model.encode(case.texts))
    close([attach(doc).vector for doc in docs], case.model.encode(case.texts))


def test_wrong_arguments_are_named(case: Case) -> None:
    for config, error in (
        ({"model": "/nowhere"}, ModelNotFoundError),
        ({"model": case.dense, "role": "passage"}, InvalidInputError),
        ({"model": case.reranker}, InvalidInputError),
        ({"model": case.dense, "batch": 3}, ConfigValidationError),
    ):
        with pytest.raises(error):
            spacy.blank("en").add_pipe("fastembed_rt", config=config)


def test_the_page_runs_as_written(case: Case, tmp_path: Path) -> None:
    names = run_page("spacy.md", case, tmp_path)
    close(names["first"].vector, case.model.encode("a dog runs"))
