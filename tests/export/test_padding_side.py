"""Texts alone that are padded, on the left: refused where that changes a vector, taken where it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TEXTS, assert_vectors_agree, change_json, reference_vectors, save_sentence_transformers
from cross_encoders import save_cross_encoder
from exports import quick
from multi_vectors import FIXED, save_multi_vector

from fastembed_rt_export.errors import UnsupportedCheckpointError

PADDED: dict[str, dict[str, Any]] = {
    "to the limit": {"text": {"padding": "max_length"}},
    "to a multiple": {"text": {"pad_to_multiple_of": 8}},
}
SETTINGS = "sentence_bert_config.json"


def left(checkpoint: Path, where: str) -> None:
    """Say that texts are padded on the left, in one of the places for it."""
    if where == "tokenizer_config.json":
        change_json(checkpoint / where, padding_side="left")
    elif where == "tokenizer.json":
        change_json(checkpoint / "tokenizer_config.json", "padding_side")
        filled = {"strategy": "BatchLongest", "direction": "Left", "pad_to_multiple_of": None}
        change_json(checkpoint / where, padding={**filled, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"})
    elif where == "its class":
        change_json(checkpoint / "tokenizer_config.json", "padding_side", tokenizer_class="LlamaTokenizer")
    else:
        change_json(checkpoint / SETTINGS, **{where: {"padding_side": "left"}})


@pytest.mark.parametrize("padded", PADDED)
@pytest.mark.parametrize("where", ["tokenizer_config.json", "tokenizer.json", "processor_kwargs"])
def test_positions_that_follow_from_padding_are_refused(where: str, padded: str, tmp_path: Path) -> None:
    checkpoint = save_sentence_transformers(tmp_path / "checkpoint", max_seq_length=40)
    before = reference_vectors(checkpoint, TEXTS[2:3])
    change_json(checkpoint / SETTINGS, processing_kwargs=PADDED[padded])
    left(checkpoint, where)
    assert np.abs(reference_vectors(checkpoint, TEXTS[2:3]) - before).max() > 1e-3
    with pytest.raises(UnsupportedCheckpointError, match="set padding_side to right, if vectors were made so"):
        quick(checkpoint, tmp_path / "model")
    change_json(checkpoint / SETTINGS, processing_kwargs={"text": {**PADDED[padded]["text"], "padding_side": "right"}})
    assert_vectors_agree(checkpoint, tmp_path / "model")


@pytest.mark.parametrize("model_type", ["modernbert", "roberta", "mpnet"])
def test_positions_that_do_not_are_taken(model_type: str, tmp_path: Path) -> None:
    checkpoint = save_sentence_transformers(tmp_path / "checkpoint", model_type, max_seq_length=40)
    change_json(checkpoint / SETTINGS, processing_kwargs={"text": {"padding": "max_length", "padding_side": "left"}})
    assert_vectors_agree(checkpoint, tmp_path / "model", TEXTS[1:])


def test_the_first_token_of_a_pair_that_may_be_padding_is_refused(tmp_path: Path) -> None:
    checkpoint = save_cross_encoder(tmp_path / "checkpoint", "modernbert")
    change_json(checkpoint / SETTINGS, processing_kwargs={"text": {"padding": "max_length", "padding_side": "left"}})
    with pytest.raises(UnsupportedCheckpointError, match="a pair's first token, which would be padding"):
        quick(checkpoint, tmp_path / "model")


@pytest.mark.parametrize("where", ["tokenizer_config.json", "tokenizer.json", "its class"])
def test_queries_that_are_filled_up_on_the_left_are_refused(where: str, tmp_path: Path) -> None:
    from sentence_transformers import MultiVectorEncoder

    checkpoint = save_multi_vector(tmp_path / "checkpoint", query_expansion=FIXED)
    query = MultiVectorEncoder(str(checkpoint), device="cpu").encode_query("a dog")
    left(checkpoint, where)
    if where != "its class":  # which makes another tokenizer of the words
        other = MultiVectorEncoder(str(checkpoint), device="cpu").encode_query("a dog")
        assert np.abs(np.asarray(query) - np.asarray(other)).max() > 1e-3
    with pytest.raises(UnsupportedCheckpointError, match="queries are filled up on the left"):
        quick(checkpoint, tmp_path / "model")


@pytest.mark.parametrize("padded", PADDED)
def test_a_padded_prompt_that_is_left_out_is_refused(padded: str, tmp_path: Path) -> None:
    """The reference counts its padding as tokens of the prompt."""
    prompts = {"query": "the new red "}
    checkpoint = save_sentence_transformers(
        tmp_path / "checkpoint", "roberta", include_prompt=False, prompts=prompts, max_seq_length=40
    )
    before = reference_vectors(checkpoint, TEXTS[2:3], prompt_name="query")
    change_json(checkpoint / SETTINGS, processing_kwargs=PADDED[padded])
    assert np.abs(reference_vectors(checkpoint, TEXTS[2:3], prompt_name="query") - before).max() > 1e-3
    with pytest.raises(UnsupportedCheckpointError, match="also the prompt whose tokens are counted"):
        quick(checkpoint, tmp_path / "model")
