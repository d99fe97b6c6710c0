"""Texts without a single token, as a tokenizer without special tokens leaves them: zeros, whatever is pooled."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TEXTS, change_json, reference_vectors, save_sentence_transformers, save_with_heads
from exports import SHARE, quick, shorten_the_gate
from routed import dense, save, static
from sentence_transformers.sentence_transformer.modules import LayerNorm
from tokenizers import Tokenizer
from tolerances import close

from fastembed_rt import EmbeddingModel, native
from fastembed_rt_export.checkpoint.modules import POOLING_MODES
from fastembed_rt_export.gate import order, parity, reference
from fastembed_rt_export.pipeline import ExportOptions, export

NOTHING = ["", " ", "\t\n", "\u200b"]
SOME = [text for text in TEXTS if text]
MIXED = [*NOTHING[:2], *SOME, *NOTHING[2:]]
NOTE = "a text without any token has the zero vector here; in sentence-transformers it has "
PRECISIONS = ("fp32", *(("bf16",) if native.kernels() else ()), "int8")
NARROW = ("cls", "max", "mean")  # poolings that are tried in all of them; int8 knows means from others, and no more


@pytest.fixture(autouse=True)
def gate_of_empty_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short gate in which more texts are without a token than the reference's batch has room for."""
    shorten_the_gate(monkeypatch)
    few = parity.parity_texts()[::SHARE]
    empty = [
        parity.Case(f"nothing-{k}", NOTHING[k % len(NOTHING)], kind="empty")
        for k in range(2 * reference.REFERENCE_BATCH)
    ]
    monkeypatch.setattr(order, "parity_texts", lambda: [*few, *empty])


def without_special_tokens(directory: Path) -> Path:
    file = directory / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    bare: Any = Tokenizer(tokenizer.model)
    bare.normalizer, bare.pre_tokenizer = tokenizer.normalizer, tokenizer.pre_tokenizer
    bare.add_special_tokens([token.content for token in tokenizer.get_added_tokens_decoder().values()])
    bare.save(str(file))
    change_json(directory / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    return directory


def assert_zeros(output: Path, source: Path, **options: Any) -> None:
    """Alone, together, and among others, whose vectors are what they are without them."""
    with EmbeddingModel(output, **options) as model:
        assert model.count_tokens(NOTHING).tolist() == [0] * len(NOTHING)
        found = model.encode(MIXED)
        empty = np.array([not text.strip("\u200b \t\n") for text in MIXED])
        assert np.isfinite(found).all()
        assert not found[empty].any() and found[~empty].any(axis=1).all()
        np.testing.assert_array_equal(found[~empty], model.encode(SOME))
        assert not model.encode(NOTHING).any() and not model.encode("").any()
        assert not np.stack(list(model.embed(NOTHING))).any()
        if options.get("precision", "fp32") == "fp32":
            close(found[~empty], reference_vectors(source, SOME))


@pytest.mark.parametrize("pooling", [*POOLING_MODES, ("cls", "mean")])
def test_the_vector_of_no_tokens_is_zeros_under_every_pooling(tmp_path: Path, pooling: Any) -> None:
    source = without_special_tokens(save_sentence_transformers(tmp_path / "source", pooling=pooling, max_seq_length=40))
    precisions = PRECISIONS if pooling in NARROW else ("fp32",)
    options = ExportOptions(output=tmp_path / "out", precisions=precisions, min_cosine=0.5)
    made = export(str(source), options).manifest
    assert made.parity["status"] == "passed" and not made.refused
    for precision in precisions:
        assert_zeros(tmp_path / "out", source, precision=precision)
    assert_zeros(tmp_path / "out", source, target="portable")
    said = [note.partition(NOTE)[2] for note in made.notes if NOTE in note]
    kinds = {"cls": ["the state of whatever fills its batch up"], "max": ["no number"]}
    expected = kinds.get(pooling if isinstance(pooling, str) else pooling[0], [])
    assert [text.removesuffix(", which is not compared") for text in said] == expected


def test_zeros_are_said_where_the_reference_makes_something_else_of_them(tmp_path: Path) -> None:
    source = without_special_tokens(save_with_heads(tmp_path / "heads", LayerNorm(24)))
    made = export(str(source), ExportOptions(output=tmp_path / "out")).manifest
    assert made.parity["status"] == "passed"
    assert [note for note in made.notes if f"{NOTE}what LayerNorm(24) makes of zeros" in note]
    assert_zeros(tmp_path / "out", source)


def test_a_table_with_a_layer_behind_it_has_zeros_too(tmp_path: Path) -> None:
    source = save(tmp_path / "table", static(tmp_path / "static"), dense(8))
    made = export(str(source), ExportOptions(output=tmp_path / "out")).manifest
    assert made.parity["status"] == "passed"
    assert [note for note in made.notes if f"{NOTE}what Dense(24 -> 8, tanh) makes of zeros" in note]
    assert_zeros(tmp_path / "out", source)


def test_token_states_of_no_tokens_are_none(tmp_path: Path) -> None:
    source = without_special_tokens(save_sentence_transformers(tmp_path / "source", pooling="cls", max_seq_length=40))
    quick(source, tmp_path / "out", tokens=True)
    with EmbeddingModel(tmp_path / "out") as model:
        for found in (*model.encode(NOTHING, output="tokens"), model.encode("", output="tokens")):
            assert found.vectors.shape == (0, 24)
