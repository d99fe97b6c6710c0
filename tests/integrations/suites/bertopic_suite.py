"""BERTopic and KeyBERT: topics and keywords of a model's own vectors; topics saved and loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bertopic import BERTopic
from bertopic.backend import BaseEmbedder
from conftest import Case, close, run_page
from keybert import KeyBERT
from sklearn.feature_extraction.text import CountVectorizer
from umap import UMAP

from fastembed_rt import EmbeddingModel
from fastembed_rt.compat.sentence_transformers import SentenceTransformer


@pytest.fixture(scope="module")
def documents(case: Case) -> list[str]:
    return [f"{first} {second}" for first in case.texts for second in case.texts]


@pytest.fixture(scope="module")
def embedder(case: Case) -> Any:
    class Embedder(BaseEmbedder):
        def embed(self, documents: Any, verbose: bool = False) -> Any:
            return self.embedding_model.encode(list(documents), show_progress_bar=verbose)

    return Embedder(case.model)


def topics_of(embedder: Any) -> Any:
    flat = UMAP(n_components=2, n_neighbors=5, random_state=1)  # without a seed topics are others each time
    return BERTopic(embedding_model=embedder, umap_model=flat, min_topic_size=5)


def test_topics_are_those_of_the_models_vectors(case: Case, documents: list[str], embedder: Any) -> None:
    model = topics_of(embedder)
    topics, _ = model.fit_transform(documents)
    wanted, _ = topics_of(embedder).fit_transform(documents, embeddings=case.model.encode(documents))
    assert topics == wanted
    assert len(set(topics)) > 2
    found, _ = model.find_topics(documents[0], top_n=2)
    cosines = case.model.encode([documents[0]]) @ np.asarray(model.topic_embeddings_).T
    cosines /= np.linalg.norm(model.topic_embeddings_, axis=1)
    assert found == [int(k) - model._outliers for k in np.argsort(-cosines[0])[:2]]


def test_topics_are_saved_and_loaded(case: Case, documents: list[str], embedder: Any, tmp_path: Path) -> None:
    model = topics_of(embedder)
    model.fit(documents)
    model.save(str(tmp_path / "topics"), serialization="safetensors", save_ctfidf=True)
    loaded = BERTopic.load(str(tmp_path / "topics"), embedding_model=embedder)
    assert (
        loaded.transform(documents[:5])[0].tolist()
        == BERTopic.load(str(tmp_path / "topics"), embedding_model=embedder)
        .transform(documents[:5], embeddings=case.model.encode(documents[:5]))[0]
        .tolist()
    )


def test_keywords_are_those_of_the_models_cosines(case: Case, tmp_path: Path) -> None:
    names = run_page("bertopic.md", case, tmp_path)
    text = case.texts[0]
    words = CountVectorizer(stop_words="english").fit([text]).get_feature_names_out().tolist()
    cosines = case.model.encode(words) @ case.model.encode(text)
    order = np.argsort(-cosines)[:3]
    found = KeyBERT(names["Embedder"](case.model)).extract_keywords(text, top_n=3)
    assert [word for word, _ in found] == [words[k] for k in order]
    np.testing.assert_allclose([score for _, score in found], cosines[order], rtol=0, atol=1e-4)  # rounded there


def test_the_page_runs_as_written(case: Case, tmp_path: Path) -> None:
    names = run_page("bertopic.md", case, tmp_path)
    close(names["topics"].embedding_model.embed(case.texts), case.model.encode(case.texts))
    assert len(names["words"]) == 2


def test_our_classes_as_they_are_are_not_taken(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    model = SentenceTransformer(case.dense)
    for taken in (lambda: topics_of(model).fit(case.texts), lambda: KeyBERT(model)):
        with pytest.raises(ValueError, match="Please select a correct SentenceTransformers model"):
            taken()
    opened: list[str] = []

    class Opened:
        def __init__(self, name: str) -> None:
            opened.append(name)

    monkeypatch.setattr("keybert.backend._sentencetransformers.SentenceTransformer", Opened)
    KeyBERT(EmbeddingModel(case.dense))
    assert opened == ["paraphrase-multilingual-MiniLM-L12-v2"]  # another model, without a word
