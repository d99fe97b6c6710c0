"""Decoders used as encoders, Qwen and Gemma: what a token sees, and settings from before transformers 5."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import transformers
from checkpoints import (
    CONFIGS,
    WORDS,
    assert_vectors_agree,
    change_json,
    change_tensors,
    exported_vectors,
    random_model,
    save_sentence_transformers,
    save_tokenizer,
    save_transformers,
)
from mean_states import assert_agrees

from fastembed_rt import native
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export

pytestmark = pytest.mark.usefixtures("short_gate")


def test_qwen3_windows_and_biases_are_those_of_transformers(tmp_path: Path) -> None:
    changes = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1, "attention_bias": True}
    directory = save_transformers(tmp_path / "qwen3", "qwen3", **changes)
    assert_agrees(directory, tmp_path / "out")


def test_qwen3_windows_are_found_without_layer_types(tmp_path: Path) -> None:
    changes = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
    directory = save_transformers(tmp_path / "qwen3", "qwen3", **changes)
    change_json(directory / "config.json", "layer_types")
    assert_agrees(directory, tmp_path / "out")


# Windows in the first two layers of three, and how transformers' config says so.
WINDOWS: dict[str, dict[str, Any]] = {
    "qwen2": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "qwen3": {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1},
    "mistral": {"sliding_window": 4},
    "gemma2": {"sliding_window": 4},
    "gemma3_text": {"use_bidirectional_attention": False, "sliding_window": 4},
}


@pytest.mark.parametrize("model_type", sorted(WINDOWS))
@pytest.mark.parametrize("windows", [True, False])
def test_is_causal_false_shows_a_token_all_others_or_those_of_a_window_to_each_side(
    tmp_path: Path, model_type: str, windows: bool
) -> None:
    whole = {"sliding_window": None} if model_type == "mistral" else {"layer_types": ["full_attention"] * 3}
    changes = WINDOWS[model_type] if windows else whole
    if model_type == "gemma3_text":
        changes = {**changes, "use_bidirectional_attention": False}
    both = save_transformers(tmp_path / "both", model_type, is_causal=False, **changes)
    assert_agrees(both, tmp_path / "both-out")
    causal = save_transformers(tmp_path / "causal", model_type, **changes)
    assert np.abs(exported_vectors(both, tmp_path / "b") - exported_vectors(causal, tmp_path / "c")).max() > 0.01


@pytest.mark.parametrize("model_type", ["gemma", "llama"])
def test_a_decoder_without_windows_that_is_not_causal_shows_a_token_all_others(tmp_path: Path, model_type: str) -> None:
    both = save_transformers(tmp_path / "both", model_type, is_causal=False)
    assert_agrees(both, tmp_path / "out")


@pytest.mark.parametrize(
    "changes", [{"is_causal": True}, {"is_causal": True, "sliding_window": 4}, {"sliding_window": 4}]
)
def test_ministral3_sees_what_its_config_says(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert_agrees(save_transformers(tmp_path / "made", "ministral3", **changes), tmp_path / "out")


def test_ministral3_has_its_own_sizes_and_turns_where_config_json_is_silent(tmp_path: Path) -> None:
    sizes = {"num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 1}
    directory = save_transformers(tmp_path / "made", "ministral3", rope_parameters=None, **sizes)
    change_json(directory / "config.json", "num_key_value_heads", "head_dim", "rope_parameters", "sliding_window")
    assert_agrees(directory, tmp_path / "out")


def test_texts_of_ministral3_end_where_its_queries_are_scaled(tmp_path: Path) -> None:
    """The gate compares texts of up to that length, and beyond it where nothing is scaled."""
    turns = {**CONFIGS["ministral3"]["rope_parameters"], "original_max_position_embeddings": 16}
    for beta, longest in ((0.1, 16), (0.0, 40)):
        turns["llama_4_scaling_beta"] = beta
        source = save_sentence_transformers(
            tmp_path / f"source-{beta}", "ministral3", max_seq_length=40, rope_parameters=turns
        )
        made = export(str(source), ExportOptions(output=tmp_path / f"out-{beta}")).manifest
        assert made.max_length == longest
        assert made.parity["status"] == "passed"
        assert ("max_length 40 is more than the 16 positions of the model; capped" in made.notes) is (longest == 16)


@pytest.mark.parametrize("model_type", ["gemma", "gemma2"])
def test_gemma_is_found_as_the_hub_has_it(tmp_path: Path, model_type: str) -> None:
    """An activation that was called gelu and is not, a base beside the other keys; null where nothing is capped."""
    directory = save_transformers(tmp_path / "gemma", model_type, attention_bias=True)
    changes: dict[str, Any] = {"rope_theta": 700.0, "hidden_act": "gelu", "hidden_activation": None}
    if model_type == "gemma2":
        changes = {
            "rope_theta": 700.0,
            "hidden_act": "gelu",
            "attn_logit_softcapping": None,
            "cache_implementation": "hybrid",
        }
    change_json(directory / "config.json", "rope_parameters", "layer_types", **changes)
    assert_agrees(directory, tmp_path / "out")


def test_gemma_has_its_own_sizes_where_config_json_is_silent(tmp_path: Path) -> None:
    for model_type, heads in (("gemma", 16), ("gemma2", 4)):
        sizes = {"num_attention_heads": 16, "num_key_value_heads": heads, "head_dim": 256, "num_hidden_layers": 1}
        directory = save_transformers(tmp_path / model_type, model_type, hidden_size=32, **sizes)
        change_json(directory / "config.json", "num_key_value_heads", "head_dim")
        assert_agrees(directory, tmp_path / f"{model_type}-out")


def test_caps_and_masks_of_gemma_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "gemma", "gemma2")
    change_json(directory / "config.json", attn_logit_softcapping=-1.0)
    with pytest.raises(CheckpointError, match=r"attn_logit_softcapping -1\.0, expected a number above 0"):
        exported_vectors(directory, tmp_path / "out")
    for model_type in ("gemma", "gemma2"):
        directory = save_transformers(tmp_path / model_type, model_type)
        change_json(directory / "config.json", use_bidirectional_attention=True)
        with pytest.raises(UnsupportedCheckpointError, match="use_bidirectional_attention = True"):
            exported_vectors(directory, tmp_path / "out")


@pytest.mark.parametrize("model_type", ["llama", "eurobert", "ultrabert"])
@pytest.mark.parametrize("biases", [{"attention_bias": True, "mlp_bias": False}, {"mlp_bias": True}])
def test_biases_of_llamas_kin_are_those_of_transformers(
    tmp_path: Path, model_type: str, biases: dict[str, bool]
) -> None:
    assert_agrees(save_transformers(tmp_path / "made", model_type, **biases), tmp_path / "out")


def test_mistrals_window_is_there_where_config_json_is_silent(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "made", "mistral", sliding_window=4096)
    change_json(directory / "config.json", "sliding_window")
    assert_agrees(directory, tmp_path / "out")
    if native.kernels():  # texts here are shorter than the window
        graph = onnx.load(str(tmp_path / "out" / "model.native.fp32.onnx"), load_external_data=False).graph
        seen = [attribute.i for node in graph.node for attribute in node.attribute if attribute.name == "before"]
        assert {*seen} == {4095}
    change_json(directory / "config.json", sliding_window=0)
    with pytest.raises(CheckpointError, match="sliding_window 0, expected a number of tokens"):
        exported_vectors(directory, tmp_path / "zero")


@pytest.mark.parametrize("model_type", ["llama", "mistral", "eurobert", "ultrabert"])
def test_sizes_that_are_null_follow_from_the_others(tmp_path: Path, model_type: str) -> None:
    sizes = {"num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 8}
    directory = save_transformers(tmp_path / "made", model_type, **sizes)
    nulls: dict[str, Any] = {"head_dim": None, "num_key_value_heads": None}
    if model_type == "mistral":  # whose class takes no null for it
        del nulls["num_key_value_heads"]
    change_json(directory / "config.json", **nulls)
    assert_agrees(directory, tmp_path / "out")


def test_mistral_has_eight_heads_of_keys_where_config_json_is_silent(tmp_path: Path) -> None:
    sizes = {"num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 4}
    directory = save_transformers(tmp_path / "made", "mistral", **sizes)
    change_json(directory / "config.json", "num_key_value_heads")
    assert_agrees(directory, tmp_path / "out")


def test_turns_that_old_llamas_hold_are_passed_over(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "made", "llama")
    name = "layers.0.self_attn.rotary_emb.inv_freq"
    change_tensors(directory, lambda tensors: tensors.update({name: np.ones(4, np.float32)}))
    assert_agrees(directory, tmp_path / "out")


def test_ultrabert_settings_from_before_transformers_are_read(tmp_path: Path) -> None:
    """Windows and bases by layer."""
    directory = save_transformers(tmp_path / "made", "ultrabert")
    change_json(
        directory / "config.json",
        *("rope_parameters", "layer_types", "sliding_window"),
        attention_windows=[None, 3, 3],
        rope_theta=[500.0, 30.0, 30.0],
    )
    assert_agrees(directory, tmp_path / "out")


def test_a_gemma_that_is_not_causal_and_sees_both_ways_has_the_wider_of_both_windows(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "gemma", "gemma3_text", is_causal=False, use_bidirectional_attention=True)
    assert_agrees(directory, tmp_path / "out")


def test_heads_that_cannot_share_keys_are_refused(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "qwen3", "qwen3")
    change_json(directory / "config.json", num_key_value_heads=4)
    with pytest.raises(CheckpointError, match="6 heads cannot share 4 heads of keys"):
        exported_vectors(directory, tmp_path / "out")


@pytest.mark.parametrize("both", [True, False])
def test_gemma_settings_from_before_transformers_5_are_read(tmp_path: Path, both: bool) -> None:
    """As on the hub: two bases, a scaling for whole texts only, windows by a pattern."""
    directory = save_transformers(tmp_path / "gemma", "gemma3_text", use_bidirectional_attention=both)
    change_json(
        directory / "config.json",
        "rope_parameters",
        "layer_types",
        rope_theta=50_000.0,
        rope_local_base_freq=700.0,
        rope_scaling={"rope_type": "linear", "factor": 4.0},
        _sliding_window_pattern=3,
        sliding_window_pattern=3,
    )
    assert_agrees(directory, tmp_path / "out")


@pytest.mark.parametrize("audio", [292, WORDS.index("dog") + 5])  # a token that no text has, and one of a word
def test_the_text_model_of_embedding_gemma_2_is_found_inside(tmp_path: Path, audio: int) -> None:
    """What stands for an image, a film or a sound is the pad token where there is none."""
    tokens = {"image_token_id": 290, "video_token_id": 291, "audio_token_id": audio}
    settings = {"text_config": CONFIGS["embedding_gemma2_text"], "vision_config": None, "audio_config": None, **tokens}
    model = transformers.AutoModel.from_config(transformers.AutoConfig.for_model("embedding_gemma2", **settings))
    model.language_model.load_state_dict(random_model("embedding_gemma2_text").state_dict())
    model.save_pretrained(tmp_path / "whole")
    save_tokenizer(tmp_path / "whole", "embedding_gemma2_text")
    assert_agrees(tmp_path / "whole", tmp_path / "out", model.eval())
    said = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert "the text model is built: no images, films or sounds" in str(said["notes"])


def test_embedding_gemma_2_has_its_own_sizes_where_config_json_is_silent(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"global_head_dim": 512, "num_global_key_value_heads": 1, "num_hidden_layers": 6}
    directory = save_transformers(tmp_path / "made", "embedding_gemma2_text", **sizes, sliding_window_pattern=6)
    change_json(directory / "config.json", "per_layer_config", "layer_types", "rope_parameters")
    assert_agrees(directory, tmp_path / "out")


def test_embedding_gemma_is_whole_with_its_dense_heads(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "gemma", "gemma3_text", dense=40, max_seq_length=40)
    assert_vectors_agree(source, tmp_path / "out")


def test_lfm2_has_its_own_sizes_where_config_json_is_silent(tmp_path: Path) -> None:
    """As older checkpoints have them: the numbers of the layers with attention, the width under another name."""
    directory = save_transformers(
        tmp_path / "made", "lfm2", hidden_size=32, num_key_value_heads=8, num_attention_heads=8, conv_bias=True
    )
    change_json(
        directory / "config.json",
        *("layer_types", "num_key_value_heads", "rope_parameters", "conv_L_cache", "norm_eps"),
        full_attn_idxs=[1],
        block_ff_dim=56,
        intermediate_size=1000,
        tie_embedding=True,
    )
    assert_agrees(directory, tmp_path / "out")


@pytest.mark.parametrize(
    "changes",
    [
        {"block_auto_adjust_ff_dim": False},
        {"block_ffn_dim_multiplier": 1.3},
        {"conv_L_cache": 4},
        {"conv_L_cache": 1},
    ],
)
def test_widths_and_convolutions_of_lfm2_are_those_of_transformers(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert_agrees(save_transformers(tmp_path / "made", "lfm2", **changes), tmp_path / "out")


def test_lfm2_that_names_the_other_class_sees_both_ways(tmp_path: Path) -> None:
    """As LFM2.5's embedders are published, under the name of the causal one; and as later versions call them."""
    directory = save_transformers(tmp_path / "made", "lfm2_bidirectional", conv_L_cache=5)
    said = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    assert (said["model_type"], said["architectures"]) == ("lfm2", ["Lfm2BidirectionalModel"])
    assert_agrees(directory, tmp_path / "out", random_model("lfm2_bidirectional", conv_L_cache=5))
    both = exported_vectors(directory, tmp_path / "both")
    change_json(directory / "config.json", "auto_map", model_type="lfm2_bidirectional")
    np.testing.assert_array_equal(exported_vectors(directory, tmp_path / "later"), both)
    change_json(directory / "config.json", model_type="lfm2", architectures=["Lfm2Model"])
    assert np.abs(exported_vectors(directory, tmp_path / "causal") - both).max() > 0.01


def test_is_causal_of_lfm2_is_about_its_attention_alone(tmp_path: Path) -> None:
    """Convolutions see what is before a token, as in the class that transformers has."""
    directory = save_transformers(tmp_path / "made", "lfm2", is_causal=False)
    assert_agrees(directory, tmp_path / "out")
    change_json(directory / "config.json", "is_causal")
    causal = exported_vectors(directory, tmp_path / "causal")
    change_json(directory / "config.json", is_causal=False)
    assert np.abs(exported_vectors(directory, tmp_path / "both") - causal).max() > 0.01


def test_convolutions_of_lfm2_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "made", "lfm2_bidirectional")
    for changes, words in (
        ({"conv_L_cache": 4}, "conv_L_cache 4, expected a number of tokens, odd"),
        ({"conv_L_cache": 0}, "conv_L_cache 0"),
        ({"layer_types": ["conv", "sliding_attention", "conv"]}, "expected 'full_attention' or 'conv'"),
        ({"layer_types": ["conv"] * 3, "block_multiple_of": 0}, "block_multiple_of 0"),
    ):
        change_json(directory / "config.json", **changes)
        with pytest.raises(CheckpointError, match=words):
            exported_vectors(directory, tmp_path / "out")
