"""LoRA adapters that are refused: what is no plain LoRA, what does not fit its base, and what the message says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import FRONT, Made, copied
from checkpoints import change_json, write_json
from exports import quick
from lora_merges import QUERY, refusal
from safetensors.torch import load_file, save_file

from fastembed_rt.errors import FastembedRtError, InvalidInputError
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"use_dora": True}, ["use_dora True", "DoRA", "merge"]),
        ({"init_lora_weights": "loftq"}, ["init_lora_weights 'loftq'", "path_initial_model_for_weight_conversion"]),
        ({"init_lora_weights": "pissa_niter_4"}, ["'pissa_niter_4'", "plain LoRA"]),
        ({"peft_type": "IA3"}, ["peft_type 'IA3'", "merge_and_unload()"]),
        ({"peft_type": "PROMPT_TUNING"}, ["peft_type 'PROMPT_TUNING'"]),
        ({"layer_replication": [[0, 2], [1, 3]]}, ["layer_replication", "merge"]),
        ({"trainable_token_indices": [1, 2]}, ["trainable_token_indices", "merge"]),
        ({"target_parameters": ["experts.weight"]}, ["target_parameters"]),
        ({"alora_invocation_tokens": [5]}, ["alora_invocation_tokens"]),
        ({"use_qalora": True}, ["use_qalora"]),
        ({"of_the_year_2031": {"gate": 1}}, ["'of_the_year_2031'", "not known what it changes", "merge"]),
        ({"target_modules": None}, ["target_modules", "name them"]),
    ],
)
def test_what_is_no_plain_lora_is_refused_by_name(tmp_path: Path, said: dict[str, Any], words: list[str]) -> None:
    made = Made(tmp_path).queries_and_values()
    message = refusal(made.save(**said), UnsupportedCheckpointError)
    assert [word for word in words if word not in message] == []


def test_what_a_newer_peft_leaves_empty_changes_nothing(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    quick(made.save(of_the_year_2031=None, and_that=False, or_this={}), tmp_path / "onnx")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"r": 4}, ["A (8, 24)", "rank 4", "expected A (4, 24)"]),
        ({"r": 0}, ["r 0", "above 0"]),
        ({"lora_alpha": "16"}, ["lora_alpha '16'"]),
        ({"rank_pattern": {"query": 2.5}}, ["query 2.5", "whole number"]),
        ({"rank_pattern": {"(": 8}}, ["pattern '('"]),
        ({"target_modules": ["query"]}, ["value.lora_A.weight", "no target_modules match"]),
        ({"target_modules": ["query", "value", "key"]}, ["no tensors of", "self.key", "is it whole?"]),
        ({"modules_to_save": ["intermediate"]}, ["no tensors of", "intermediate"]),
        ({"layers_to_transform": [0, 1]}, ["encoder.layer.2", "no target_modules match"]),
        ({"layers_to_transform": "first"}, ["layers_to_transform 'first'"]),
        ({"layers_to_transform": [0], "target_modules": ".*query"}, ["layers_to_transform", "one of both"]),
    ],
)
def test_settings_and_tensors_that_do_not_fit(tmp_path: Path, said: dict[str, Any], words: list[str]) -> None:
    made = Made(tmp_path).queries_and_values()
    message = refusal(made.save(**said))
    assert [word for word in words if word not in message] == []


@pytest.mark.parametrize(
    ("name", "tensor", "kind", "words"),
    [
        ("encoder.layer.9.attention.self.query.lora_A.weight", (8, 24), CheckpointError, ["the base has no weights"]),
        ("encoder.layer.0.gate.weight", (24, 24), CheckpointError, ["gate.weight", "the base has no tensor"]),
        ("embeddings.word_embeddings.weight", (301, 24), CheckpointError, ["(301, 24)", "(300, 24)", "--base"]),
        (f"{QUERY.format(0)}.lora_magnitude_vector", (24,), UnsupportedCheckpointError, ["magnitude", "merge"]),
        (f"{QUERY.format(0)}.lora_A.other.weight", (8, 24), UnsupportedCheckpointError, ["lora_A.other", "merge"]),
        ("prompt_embeddings.lora_x", (2, 24), UnsupportedCheckpointError, ["prompt_embeddings"]),
    ],
)
def test_tensors_left_over(
    tmp_path: Path, name: str, tensor: tuple[int, ...], kind: type[FastembedRtError], words: list[str]
) -> None:
    made = Made(tmp_path).queries_and_values()
    made.tensors[FRONT + name] = torch.ones(tensor)
    message = refusal(made.save(), kind)
    assert [word for word in words if word not in message] == []


def test_half_of_a_pair(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    del made.tensors[f"{FRONT}{QUERY.format(0)}.lora_B.weight"]
    assert "lora_A.weight of encoder.layer.0.attention.self.query alone" in refusal(made.save())


def test_another_base(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    wider = Made(tmp_path / "wider", base=None)
    write_json(wider.base / "config.json", json.loads((wider.base / "config.json").read_text()))
    tensors = load_file(wider.base / "model.safetensors")
    name = f"{QUERY.format(0)}.weight"
    tensors[name] = torch.zeros(48, 24)
    save_file(tensors, wider.base / "model.safetensors", metadata={"format": "pt"})
    message = refusal(made.save(), base=str(wider.base))
    assert "whose base is (48, 24)" in message
    assert "--base" in message


def test_a_base_that_is_an_adapter(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    first = copied(made.save(), tmp_path / "first")
    change_json(made.adapter / "adapter_config.json", base_model_name_or_path=str(first))
    assert "is an adapter itself; merge that one first" in refusal(made.adapter, UnsupportedCheckpointError)


def test_no_base_and_no_weights(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    assert "names no base model; name it with --base" in refusal(made.save(base_model_name_or_path=None))
    made.file.unlink()
    assert "adapter_model.safetensors and adapter_model.bin" in refusal(made.adapter, base=str(made.base))


def test_a_base_for_what_is_no_adapter(tmp_path: Path) -> None:
    made = Made(tmp_path)
    assert "leave --base out" in refusal(made.base, InvalidInputError, base=str(made.base))
