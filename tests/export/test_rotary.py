"""Rotary positions as config.json has them, in its places old and new at once: merged as transformers merges them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import (
    assert_vectors_agree,
    change_json,
    exported_vectors,
    save_sentence_transformers,
    save_transformers,
)
from mean_states import assert_agrees

from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError

LINEAR = {"rope_type": "linear", "factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 40,
}
FULL, SLIDING = "full_attention", "sliding_attention"
OLD_BASES: dict[str, dict[str, float]] = {
    "gemma3_text": {"rope_theta": 500.0, "rope_local_base_freq": 30.0},
    "modernbert": {"global_rope_theta": 500.0, "local_rope_theta": 30.0},
}


def saved(directory: Path, model_type: str, *remove: str, **changes: Any) -> Path:
    """A plain directory whose config.json is changed after it was saved."""
    made = save_transformers(directory, model_type)
    change_json(made / "config.json", *remove, **changes)
    return made


def assert_counts(directory: Path, tmp_path: Path, model_type: str) -> None:
    """The export is transformers', and not that of the checkpoint as it was saved."""
    assert_agrees(directory, tmp_path / "out")
    untouched = save_transformers(tmp_path / "untouched", model_type)
    apart = exported_vectors(directory, tmp_path / "a") - exported_vectors(untouched, tmp_path / "b")
    assert np.abs(apart).max() > 1e-3, "the change tells nothing"


@pytest.mark.parametrize("model_type", ["qwen2", "qwen3", "nomic_bert", "gte"])
@pytest.mark.parametrize("base", [{}, {"rope_theta": 300.0}])
def test_rope_scaling_takes_the_place_of_rope_parameters(
    tmp_path: Path, model_type: str, base: dict[str, float]
) -> None:
    parameters = {"rope_type": "default", "rope_theta": 77.0}  # a base that is dropped with the rest
    directory = saved(tmp_path / "both", model_type, rope_parameters=parameters, rope_scaling=LINEAR, **base)
    assert_counts(directory, tmp_path, model_type)


@pytest.mark.parametrize("model_type", ["qwen3", "nomic_bert", "gte"])
def test_a_base_outside_of_rope_parameters_counts_where_they_name_none(tmp_path: Path, model_type: str) -> None:
    directory = saved(tmp_path / "outside", model_type, rope_parameters={"rope_type": "default"}, rope_theta=300.0)
    assert_counts(directory, tmp_path, model_type)
    named = saved(
        tmp_path / "named", model_type, rope_parameters={"rope_type": "default", "rope_theta": 40.0}, rope_theta=300.0
    )
    assert_agrees(named, tmp_path / "named-out")


@pytest.mark.parametrize(
    ("model_type", "parameters"),
    [
        *(
            (model_type, parameters)
            for model_type in OLD_BASES
            for parameters in (
                {FULL: {"rope_type": "default"}, SLIDING: {"rope_type": "default"}},
                {FULL: LINEAR, SLIDING: {"rope_type": "default", "rope_theta": 70.0}},
                {},
            )
        ),
        # ModernBERT's class takes neither.
        ("gemma3_text", {FULL: None}),
        ("gemma3_text", {"rope_type": "linear", "factor": 4.0, "rope_theta": 70.0}),  # of no layer type: nobody's
    ],
)
def test_bases_outside_of_each_layer_types_entry_count_where_it_names_none(
    tmp_path: Path, model_type: str, parameters: dict[str, Any]
) -> None:
    directory = saved(tmp_path / "outside", model_type, rope_parameters=parameters, **OLD_BASES[model_type])
    assert_counts(directory, tmp_path, model_type)


@pytest.mark.parametrize("model_type", sorted(OLD_BASES))
@pytest.mark.parametrize("scaling", [LINEAR, {"type": "linear", "factor": 4.0}, {**LINEAR, "rope_theta": 90.0}])
@pytest.mark.parametrize("nested", [True, False])
def test_rope_scaling_changes_the_entries_of_the_layer_types_that_it_is_for(
    tmp_path: Path, model_type: str, scaling: dict[str, Any], nested: bool
) -> None:
    """Gemma's whole texts, all of ModernBERT. An entry's own type counts more than the older name of it."""
    parameters = {FULL: {"rope_theta": 40.0}, SLIDING: {"rope_type": "default"}} if nested else None
    directory = saved(
        tmp_path / "scaled", model_type, rope_parameters=parameters, rope_scaling=scaling, **OLD_BASES[model_type]
    )
    assert_counts(directory, tmp_path, model_type)


@pytest.mark.parametrize(
    "changes",
    [
        {"rope_parameters": {FULL: {"rope_type": "default"}, SLIDING: {"rope_type": "default"}}},
        {"rope_parameters": {FULL: LINEAR, SLIDING: {"rope_type": "default", "rope_theta": 50.0}}},
        {"rope_parameters": {FULL: LINEAR, SLIDING: LINEAR}, "rope_theta": [70.0, 60.0, 50.0]},
        {
            "rope_scaling": {
                FULL: {**LINEAR, "rope_theta": 300.0},
                SLIDING: {"rope_type": "default", "rope_theta": 50.0},
            }
        },
    ],
)
def test_entries_of_ultrabert_stand_for_themselves(tmp_path: Path, changes: dict[str, Any]) -> None:
    """Its bases are for a config.json without any entry, and bases by layer for one without settings."""
    assert_counts(saved(tmp_path / "made", "ultrabert", **changes), tmp_path, "ultrabert")


def test_rope_scaling_of_embedding_gemma_2_takes_the_place_of_all_entries(tmp_path: Path) -> None:
    scaling = {FULL: {**LINEAR, "rope_theta": 300.0}, SLIDING: {"rope_type": "default", "rope_theta": 50.0}}
    directory = saved(tmp_path / "scaled", "embedding_gemma2_text", rope_scaling=scaling)
    assert_counts(directory, tmp_path, "embedding_gemma2_text")


@pytest.mark.parametrize("changes", [{"rope_theta": 10.0}, {"partial_rotary_factor": 0.5}])
def test_what_stands_outside_of_embedding_gemma_2s_entries_is_nobodys(tmp_path: Path, changes: dict[str, Any]) -> None:
    directory = saved(tmp_path / "outside", "embedding_gemma2_text", "rope_parameters", **changes)
    assert_agrees(directory, tmp_path / "out")


@pytest.mark.parametrize("model_type", ["qwen3", "gemma3_text"])
@pytest.mark.parametrize(
    "scaling",
    [
        YARN,
        {"rope_type": "yarn", "factor": 4.0},  # reckoned from max_position_embeddings
        {**YARN, "attention_factor": 0.7},
        {**YARN, "mscale": 1.0, "mscale_all_dim": 0.5, "beta_fast": 3, "beta_slow": 0.2},
        {**YARN, "truncate": False, "beta_fast": 2.5},
        {**YARN, "factor": 0.5},
        LLAMA3,
        {**LLAMA3, "high_freq_factor": 30.0},
        {key: value for key, value in LLAMA3.items() if not key.startswith("original")},
    ],
)
def test_scalings_for_longer_texts_are_those_of_transformers(
    tmp_path: Path, model_type: str, scaling: dict[str, Any]
) -> None:
    parameters = {"rope_theta": 50.0, **scaling}
    nested = {FULL: parameters, SLIDING: parameters} if model_type == "gemma3_text" else parameters
    assert_counts(saved(tmp_path / "scaled", model_type, rope_parameters=nested), tmp_path, model_type)


@pytest.mark.parametrize("model_type", ["eurobert", "gte", "qwen3"])
def test_a_scaling_of_the_tables_is_in_the_first_tokens_query_too(tmp_path: Path, model_type: str) -> None:
    """Where the pooling takes the first token alone, the last layer asks for no other."""
    parameters = {**YARN, "rope_theta": 50.0, "attention_factor": 2.0}
    causal: dict[str, Any] = {"is_causal": False} if model_type == "qwen3" else {}
    source = save_sentence_transformers(
        tmp_path / "yarn", model_type, pooling="cls", max_seq_length=40, rope_parameters=parameters, **causal
    )
    assert_vectors_agree(source, tmp_path / "out")


def test_the_length_trained_on_that_stands_beside_the_settings_comes_first(tmp_path: Path) -> None:
    parameters = {"rope_theta": 50.0, **LLAMA3}
    directory = saved(tmp_path / "beside", "llama", rope_parameters=parameters, original_max_position_embeddings=400)
    assert_counts(directory, tmp_path, "llama")


def test_a_base_of_another_family_is_nobodys(tmp_path: Path) -> None:
    assert_agrees(saved(tmp_path / "modernbert", "modernbert", "rope_parameters", rope_theta=3.0), tmp_path / "out")


@pytest.mark.parametrize("model_type", ["qwen3", "gemma3_text"])
@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"rope_scaling": {"rope_type": "longrope", "factor": 4.0}}, "rotary scaling 'longrope'; built are 'default'"),
        ({"rope_scaling": {**LINEAR, "rope_type": ["linear"]}}, r"rotary scaling \['linear'\]"),
        ({"rope_scaling": {**LINEAR, "attention_factor": 2.0}}, "rotary attention_factor = 2.0"),
        ({"rope_scaling": {**YARN, "partial_rotary_factor": 0.5}}, "rotary partial_rotary_factor = 0.5"),
        ({"rope_scaling": LINEAR, "partial_rotary_factor": 0.5}, "rotary partial_rotary_factor = 0.5"),
    ],
)
def test_what_is_not_built_is_refused_wherever_it_stands(
    tmp_path: Path, model_type: str, changes: dict[str, Any], said: str
) -> None:
    directory = saved(tmp_path / "refused", model_type, **changes)
    with pytest.raises(UnsupportedCheckpointError, match=said):
        exported_vectors(directory, tmp_path / "out")


def test_settings_by_layer_type_of_a_model_with_one_kind_of_layers_are_refused(tmp_path: Path) -> None:
    parameters = {FULL: {"rope_type": "default", "rope_theta": 40.0}}
    directory = saved(tmp_path / "nested", "qwen3", rope_parameters=parameters)
    with pytest.raises(UnsupportedCheckpointError, match=r"for each type of layer \('full_attention'\)"):
        exported_vectors(directory, tmp_path / "out")


@pytest.mark.parametrize("changes", [{"rope_scaling": "yarn"}, {"rope_parameters": [1]}])
def test_settings_that_are_no_object_are_an_error(tmp_path: Path, changes: dict[str, Any]) -> None:
    directory = saved(tmp_path / "odd", "qwen3", **changes)
    with pytest.raises(CheckpointError, match=f"{next(iter(changes))} = .*, expected an object with rotary settings"):
        exported_vectors(directory, tmp_path / "out")


@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), 0, -1.0, 10**400, [1.0], "x"], ids=lambda value: str(value)[:9]
)
@pytest.mark.parametrize(
    "made",
    [
        lambda value: {"rope_type": "default", "rope_theta": value},
        lambda value: {**LINEAR, "rope_theta": 1e4, "factor": value},
        lambda value: {"rope_type": "ntk", "rope_theta": 1e4, "factor": value, "mixed_b": value},
        lambda value: {**LLAMA3, "rope_theta": 1e4, "factor": value},
        lambda value: {**YARN, "rope_theta": 1e4, "factor": value},
    ],
    ids=["default", "linear", "ntk", "llama3", "yarn"],
)
def test_settings_that_give_no_numbers_are_refused_or_give_numbers(
    tmp_path: Path, made: Callable[[object], dict[str, Any]], value: object
) -> None:
    directory = saved(tmp_path / "odd", "qwen3", rope_parameters=made(value))
    try:
        found = exported_vectors(directory, tmp_path / "out")
    except (CheckpointError, UnsupportedCheckpointError) as error:
        assert "config.json" in str(error)
    else:
        assert np.isfinite(found).all()
