"""Files that stand for others: adapters without their model, pointers of Git LFS, tensors under a wrapper's names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_faults import built, refusal
from checkpoints import change_tensors, exported_vectors, save_sentence_transformers, save_with_heads, write_json
from exports import quick
from safetensors.numpy import save_file
from sentence_transformers.sentence_transformer.modules import Dense

from fastembed_rt import manifest
from fastembed_rt.errors import CheckpointError
from fastembed_rt_export import tasks
from fastembed_rt_export.checkpoint.read import load
from fastembed_rt_export.errors import UnsupportedCheckpointError
from fastembed_rt_export.tokenizer import tokenizer_json

# --- adapters --------------------------------------------------------------------------------------------------------

LORA = {"peft_type": "LORA", "base_model_name_or_path": "org/base", "r": 8}


def add_adapter(directory: Path, **said: Any) -> None:
    write_json(directory / "adapter_config.json", {**LORA, **said})
    save_file({"base_model.model.lora_A.weight": np.zeros((2, 2), np.float32)}, directory / "adapter_model.safetensors")


@pytest.mark.parametrize("task", ["auto", "embedding", "sparse", "reranking"])
def test_an_adapter_alone_says_what_it_is(tmp_path: Path, task: str) -> None:
    add_adapter(tmp_path)
    with pytest.raises(UnsupportedCheckpointError) as caught:
        tasks.load(tmp_path, "adapter", task=task)
    message = str(caught.value)
    assert f"{tmp_path} is a LoRA adapter for org/base, not a model; merge it first" in message
    assert "merge_and_unload()" in message
    assert "\n" not in message


def test_another_kind_of_adapter_says_its_kind(tmp_path: Path) -> None:
    add_adapter(tmp_path, peft_type="IA3", base_model_name_or_path=None)
    message = refusal(tmp_path, UnsupportedCheckpointError)
    assert "is a IA3 adapter for a model that it does not name" in message


def test_an_adapter_of_sentence_transformers_says_what_it_is(chain: Path) -> None:
    for name in ("config.json", "model.safetensors"):
        (chain / name).unlink()
    add_adapter(chain)
    assert "is a LoRA adapter for org/base" in refusal(chain, UnsupportedCheckpointError)


@pytest.mark.parametrize("kind", ["plain", "chain"])
def test_an_adapter_beside_a_model_is_refused(kind: str, request: pytest.FixtureRequest) -> None:
    directory: Path = request.getfixturevalue(kind)
    add_adapter(directory)
    message = refusal(directory, UnsupportedCheckpointError)
    assert "holds a LoRA adapter for org/base beside a model, to which transformers applies it" in message


def test_weights_of_an_adapter_without_its_config_are_noted(chain: Path) -> None:
    add_adapter(chain)
    (chain / "adapter_config.json").unlink()
    assert any("adapter_model.safetensors is not read" in note for note in built(chain).notes)


# --- Git LFS ---------------------------------------------------------------------------------------------------------

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 90868376\n"
WEIGHTS = ["model.safetensors", "pytorch_model.bin", "model.safetensors.index.json"]


def exported(directory: Path) -> None:
    tokenizer_json.load(load(directory, directory.name))


def assert_pointer_is_named(directory: Path, file: Path) -> None:
    file.write_bytes(POINTER)
    with pytest.raises(CheckpointError) as caught:
        exported(directory)
    assert f"{file} is a Git LFS pointer, not the file itself; run git lfs pull in {file.parent}" in str(caught.value)


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_pointer_in_place_of_weights_is_named(chain: Path, name: str) -> None:
    (chain / "model.safetensors").unlink()
    assert_pointer_is_named(chain, chain / name)


@pytest.mark.parametrize(
    "name",
    [
        *("config.json", "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json"),
        *("tokenizer.json", "tokenizer_config.json", "1_Pooling/config.json"),
    ],
)
def test_a_pointer_in_place_of_a_setting_is_named(chain: Path, name: str) -> None:
    assert_pointer_is_named(chain, chain / name)


@pytest.mark.parametrize("name", ["vocab.txt", "sentencepiece.bpe.model", "merges.txt"])
def test_a_pointer_in_place_of_a_vocabulary_is_named(chain: Path, name: str) -> None:
    (chain / "tokenizer.json").unlink()
    assert_pointer_is_named(chain, chain / name)


def test_a_pointer_in_place_of_a_modules_weights_is_named(tmp_path: Path) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(24, 10))
    assert_pointer_is_named(directory, directory / "2_Dense" / "model.safetensors")


def test_a_pointer_in_place_of_a_shard_is_named(chain: Path) -> None:
    shutil.move(chain / "model.safetensors", chain / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"a": "model-00001-of-00001.safetensors"}}
    (chain / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    assert_pointer_is_named(chain, chain / "model-00001-of-00001.safetensors")


# --- wrappers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("front", ["module.", "_orig_mod.", "_orig_mod.module."])
def test_names_that_a_wrapper_left_in_front_are_taken_off(tmp_path: Path, front: str) -> None:
    directory = save_sentence_transformers(tmp_path / "wrapped")
    before = exported_vectors(directory, tmp_path / "before")
    change_tensors(directory, lambda tensors: [tensors.update({front + n: tensors.pop(n)}) for n in list(tensors)])
    np.testing.assert_array_equal(exported_vectors(directory, tmp_path / "out"), before)
    assert any(f"all tensors are called {front}..." in note for note in manifest.read(tmp_path / "out").notes)


def test_a_front_of_some_tensors_alone_is_a_name_like_any_other(tmp_path: Path) -> None:
    directory = save_sentence_transformers(tmp_path / "half")
    name = "encoder.layer.0.output.dense.weight"
    change_tensors(directory, lambda tensors: tensors.update({f"module.{name}": tensors.pop(name)}))
    assert f"missing: {name}" in refusal(directory)


def test_a_wrapped_module_is_read(tmp_path: Path) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(24, 10))
    quick(directory, tmp_path / "before")
    change_tensors(
        directory / "2_Dense", lambda tensors: [tensors.update({f"module.{n}": tensors.pop(n)}) for n in list(tensors)]
    )
    assert quick(directory, tmp_path / "out").dim == 10
