"""Tokenizers with more tokens than the model knows: no obstacle, until a text has one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import (
    TEXTS,
    VOCABULARY,
    assert_vectors_agree,
    change_json,
    enlarge_tokenizer,
    reference_vectors,
    save_sentence_transformers,
)
from cross_encoders import save_cross_encoder
from exports import quick
from tokenizers import Tokenizer

from fastembed_rt import EmbeddingModel, Reranker, manifest
from fastembed_rt.errors import InvalidInputError

TOLD = r"text 2 has the token 'word250' \(id 351\), and the model knows 300 tokens"


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The export of such a checkpoint."""
    root = tmp_path_factory.mktemp("larger")
    chain = save_sentence_transformers(root / "chain")
    enlarge_tokenizer(chain)
    assert_vectors_agree(chain, root / "out", [*TEXTS, "word7 word198"])
    with pytest.raises(IndexError):
        reference_vectors(chain, ["word250"])
    return root / "out"


def test_the_manifest_says_how_many_tokens_the_model_knows(larger: Path) -> None:
    described = manifest.read(larger)
    assert described.vocabulary == VOCABULARY
    assert any("ids beyond the 300 rows of the word table" in note for note in described.notes)


@pytest.mark.parametrize("truncation", ["truncate", "chunk"])
def test_a_token_that_the_model_does_not_know_is_named(larger: Path, truncation: str) -> None:
    texts = ["a", "the cat", "a word250 dog", "word7"]
    with EmbeddingModel(larger, truncation=truncation) as model:
        with pytest.raises(InvalidInputError, match=TOLD):
            model.encode(texts)
        with pytest.raises(InvalidInputError, match=TOLD):
            list(model.embed(texts))
        assert model.encode(texts[:2]).shape == (2, 24)  # an error leaves nothing behind


def test_a_token_beyond_the_cut_is_no_error_unless_the_rest_is_encoded_too(larger: Path) -> None:
    text = "the cat " * 40 + "word250"
    with EmbeddingModel(larger) as model:
        assert np.isfinite(model.encode(text)).all()
    with (
        EmbeddingModel(larger, truncation="chunk") as model,
        pytest.raises(InvalidInputError, match="text 0 has the token 'word250'"),
    ):
        model.encode(text)


def test_a_pair_with_a_token_that_the_model_does_not_know_is_named(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "reranker")
    enlarge_tokenizer(source)
    quick(source, tmp_path / "out")
    with Reranker(tmp_path / "out") as model:
        assert np.isfinite(model.predict([("the cat", "a dog"), ("word7", "red")])).all()
        with pytest.raises(InvalidInputError, match="text 1 has the token 'word250'"):
            model.predict([("the cat", "a dog"), ("red", "word250")])


def test_one_id_beyond_the_word_table_is_enough(tmp_path: Path) -> None:
    chain = save_sentence_transformers(tmp_path / "chain")
    model: dict[str, Any] = json.loads((chain / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    change_json(chain / "tokenizer.json", model={**model, "vocab": {**model["vocab"], "##z": VOCABULARY}})
    assert quick(chain, tmp_path / "out").vocabulary == VOCABULARY


def test_a_tokenizer_that_fits_is_not_looked_at_again(tmp_path: Path) -> None:
    assert quick(save_sentence_transformers(tmp_path / "chain"), tmp_path / "out").vocabulary is None


def test_a_pad_token_that_the_model_does_not_know_fills_no_position(tmp_path: Path) -> None:
    chain = save_sentence_transformers(tmp_path / "chain")
    enlarge_tokenizer(chain)
    change_json(chain / "tokenizer_config.json", pad_token="word250")
    described = quick(chain, tmp_path / "out")
    assert described.pad_token_id == 0
    with EmbeddingModel(tmp_path / "out") as model:
        assert np.isfinite(model.encode(TEXTS)).all()


def test_a_table_of_a_static_embedding_may_be_the_smaller_one(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    tokenizer = Tokenizer.from_file(str(save_sentence_transformers(tmp_path / "chain") / "tokenizer.json"))
    module = StaticEmbedding(tokenizer, embedding_weights=np.random.default_rng(0).normal(size=(20, 8)))
    SentenceTransformer(modules=[module], device="cpu").save_pretrained(str(tmp_path / "static"))
    assert_vectors_agree(tmp_path / "static", tmp_path / "out", ["the cat", "a dog"])
    with (
        EmbeddingModel(tmp_path / "out") as model,
        pytest.raises(InvalidInputError, match=r"text 0 has the token 'text' \(id \d+\), and the model knows 20"),
    ):
        model.encode(["the text"])
