"""Values in config.json with which the reference itself does not run, or means nothing: refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoint_faults import refusal
from checkpoints import change_json, random_model, reference_vectors, save_transformers
from mean_states import assert_agrees

from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError


@pytest.mark.parametrize("model_type", ["albert", "bert", "electra", "ernie", "roberta", "squeezebert"])
def test_no_token_types_are_refused(tmp_path: Path, model_type: str) -> None:
    checkpoint = save_transformers(tmp_path / "checkpoint", model_type, type_vocab_size=0)
    with pytest.raises((IndexError, RuntimeError)):
        reference_vectors(checkpoint)
    assert "type_vocab_size 0" in refusal(checkpoint)


@pytest.mark.parametrize(
    ("buckets", "furthest"),
    [(0, 20), (1, 20), (2, 20), (8, 0), (8, -1), (8, 1), (8, 2)],
)
def test_buckets_of_t5_that_no_distance_has_are_refused(tmp_path: Path, buckets: int, furthest: int) -> None:
    checkpoint = save_transformers(
        tmp_path / "t5", "t5", relative_attention_num_buckets=buckets, relative_attention_max_distance=furthest
    )
    with pytest.raises((IndexError, RuntimeError, ValueError, ZeroDivisionError)):
        reference_vectors(checkpoint)
    message = refusal(checkpoint)
    assert f"relative_attention_num_buckets {buckets}" in message
    assert f"relative_attention_max_distance {furthest}" in message


@pytest.mark.parametrize(
    ("model_type", "changes", "said"),
    [
        ("deberta-v2", {"position_buckets": 1}, "position_buckets 1"),
        ("ultrabert", {"sliding_window": -1}, "sliding_window -1"),
        ("embedding_gemma2_text", {"sliding_window": -1}, "sliding_window -1"),
        ("embedding_gemma2_text", {"embedding_dim": 0}, "embedding_dim 0"),
        ("embedding_gemma2_text", {"hidden_size": 0}, "hidden_size 0"),
    ],
)
def test_sizes_that_nothing_has_are_refused(
    tmp_path: Path, model_type: str, changes: dict[str, Any], said: str
) -> None:
    checkpoint = save_transformers(tmp_path / "checkpoint", model_type)
    change_json(checkpoint / "config.json", **changes)
    assert said in refusal(checkpoint)


@pytest.mark.parametrize("kinds", ["", "c2p|", ["c2p", "c2p"]])
@pytest.mark.parametrize("model_type", ["deberta", "deberta-v2"])
def test_kinds_of_debertas_distances_that_are_nothing_or_twice_are_refused(
    tmp_path: Path, model_type: str, kinds: str | list[str]
) -> None:
    """The first version divides its scores by how many there are, the second by how many it knows."""
    checkpoint = save_transformers(tmp_path / "deberta", model_type)
    change_json(checkpoint / "config.json", pos_att_type=kinds)
    kind = CheckpointError if isinstance(kinds, list) else UnsupportedCheckpointError
    assert "pos_att_type = " in refusal(checkpoint, kind)


@pytest.mark.parametrize("key", ["moe_top_k", "moe_every_n_layers", "rotary_emb_base"])
def test_what_code_of_a_checkpoints_own_would_fill_in_is_asked_for(tmp_path: Path, key: str) -> None:
    checkpoint = save_transformers(tmp_path / "nomic", "nomic_bert_moe")
    change_json(checkpoint / "config.json", key)
    assert f"config.json lacks {key!r}" in refusal(checkpoint)


@pytest.mark.parametrize("name", ["relu", "gelu_new", "gelu_pytorch_tanh"])
def test_another_activation_of_nomics_experts_is_refused(tmp_path: Path, name: str) -> None:
    checkpoint = save_transformers(tmp_path / "nomic", "nomic_bert_moe")
    change_json(checkpoint / "config.json", activation_function=name)
    assert f"activation_function = {name!r}" in refusal(checkpoint, UnsupportedCheckpointError)


@pytest.mark.parametrize("changes", [{"rope_theta": 300.0}, {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}])
def test_rotary_settings_that_code_of_a_checkpoints_own_does_not_know_change_nothing(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    checkpoint = save_transformers(tmp_path / "nomic", "nomic_bert_moe")
    change_json(checkpoint / "config.json", **changes)
    assert_agrees(checkpoint, tmp_path / "out", random_model("nomic_bert_moe"))
