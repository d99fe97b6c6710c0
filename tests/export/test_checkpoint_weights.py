"""Weights as they lie on disks: every form is read, every fault is named, no code runs."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoint_faults import built, refusal
from checkpoints import (
    SIZES,
    assert_vectors_agree,
    change_json,
    change_tensors,
    exported_vectors,
    random_model,
    reference_vectors,
    save_sentence_transformers,
    save_tokenizer,
    save_transformers,
    save_with_heads,
    write_json,
)
from exports import quick
from routed import save, static
from safetensors.torch import load_file, save_file
from sentence_transformers.sentence_transformer.modules import Dense
from tolerances import close

from fastembed_rt import manifest
from fastembed_rt_export.architectures import ARCHITECTURES
from fastembed_rt_export.errors import CheckpointError, MissingDependencyError
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.traced import torch_model

WIDTH = SIZES["hidden_size"]
QUERY = "encoder.layer.1.attention.self.query.weight"


# --- values that are not finite --------------------------------------------------------------------------------------


def spoil(directory: Path, name: str, value: float = np.nan) -> None:
    """Set the last number of a tensor."""

    def change(tensors: dict[str, Any]) -> None:
        tensors[name] = tensors[name].copy()
        tensors[name].reshape(-1)[-1] = value

    change_tensors(directory, change)


def assert_not_finite(directory: Path, name: str, file: Path, output: Path, **options: Any) -> None:
    with pytest.raises(CheckpointError) as caught:
        export(str(directory), ExportOptions(output=output, verify=False, **options))
    assert type(caught.value) is CheckpointError
    assert f"weight {name} in {file} is NaN or infinite in 1 of its " in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not output.exists()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precisions", [("fp32",), ("int8", "fp32"), ("int8",), ("bf16",)])
def test_a_weight_that_is_not_finite_is_named(
    plain: Path, tmp_path: Path, value: float, precisions: tuple[str, ...]
) -> None:
    spoil(plain, QUERY, value)
    assert_not_finite(plain, QUERY, plain / "model.safetensors", tmp_path / "out", precisions=precisions)


def test_a_number_that_float32_does_not_hold_is_infinite(plain: Path, tmp_path: Path) -> None:
    change_tensors(plain, lambda tensors: tensors.update({QUERY: tensors[QUERY].astype(np.float64)}))
    spoil(plain, QUERY, 1e300)
    assert_not_finite(plain, QUERY, plain / "model.safetensors", tmp_path / "out")


def test_a_module_with_weights_that_are_not_finite_is_named_by_its_file(tmp_path: Path) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10))
    spoil(directory / "2_Dense", "linear.bias")
    assert_not_finite(directory, "linear.bias", directory / "2_Dense" / "model.safetensors", tmp_path / "out")


def test_a_pickle_and_a_static_table_with_numbers_that_are_not_finite_are_named(plain: Path, tmp_path: Path) -> None:
    tensors = load_file(plain / "model.safetensors")
    tensors[QUERY][0, 0] = torch.inf
    (plain / "model.safetensors").unlink()
    torch.save(tensors, plain / "pytorch_model.bin")
    assert_not_finite(plain, QUERY, plain / "pytorch_model.bin", tmp_path / "out")
    table = save(tmp_path / "table", static(tmp_path / "static"))
    file = next(table.rglob("model.safetensors"))
    spoil(file.parent, "embedding.weight")
    assert_not_finite(table, "embedding.weight", file, tmp_path / "out")


def test_numbers_that_nobody_computes_with_may_be_infinite(plain: Path, tmp_path: Path) -> None:
    wanted = exported_vectors(plain, tmp_path / "before")
    change_tensors(
        plain, lambda tensors: tensors.update({"pooler.dense.weight": np.full((WIDTH, WIDTH), -np.inf, np.float32)})
    )
    np.testing.assert_array_equal(exported_vectors(plain, tmp_path / "out"), wanted)


def test_weights_of_a_model_to_trace_are_looked_at(plain: Path) -> None:
    assert torch_model.load(plain, torch_model.config_of(plain)).config.model_type == "bert"
    spoil(plain, QUERY)
    with pytest.raises(CheckpointError, match=f"weight {QUERY} in {plain} is NaN or infinite in 1 of its "):
        torch_model.load(plain, torch_model.config_of(plain))


# --- tensors ---------------------------------------------------------------------------------------------------------


def test_a_missing_tensor_is_named(plain: Path) -> None:
    change_tensors(plain, lambda tensors: tensors.pop(QUERY))
    message = refusal(plain)
    assert f"missing: {QUERY}" in message
    assert "unknown" not in message
    assert "misshapen" not in message


@pytest.mark.parametrize(
    "name",
    [
        "encoder.layer.1.attention.self.query.lora_A.default.weight",
        "encoder.layer.3.output.dense.weight",  # a layer more than the config has
        "embeddings.factor.weight",
    ],
)
def test_a_tensor_that_the_encoder_does_not_compute_with_is_refused(plain: Path, name: str) -> None:
    change_tensors(plain, lambda tensors: tensors.update({name: np.ones((2, WIDTH), np.float32)}))
    message = refusal(plain)
    assert f"unknown inside the encoder: {name}" in message
    assert "merge adapters" in message


def test_a_tensor_beside_the_encoder_is_left_out_and_noted(plain: Path, tmp_path: Path) -> None:
    before = exported_vectors(plain, tmp_path / "before")
    change_tensors(plain, lambda tensors: tensors.update({"score_head.weight": np.ones((2, 3), np.float32)}))
    np.testing.assert_array_equal(exported_vectors(plain, tmp_path / "after"), before)
    notes = " ".join(manifest.read(tmp_path / "after").notes)
    assert "score_head.weight" in notes
    assert "pooler" not in notes  # everybody's, nobody misses it


@pytest.mark.parametrize(
    ("tensor", "came"),
    [
        (np.ones((WIDTH, WIDTH + 1), np.float32), f"F32 ({WIDTH}, {WIDTH + 1})"),
        (np.ones(WIDTH * WIDTH, np.float32), f"F32 ({WIDTH * WIDTH},)"),
        (np.ones((WIDTH, WIDTH), np.int64), f"I64 ({WIDTH}, {WIDTH})"),
        (np.ones((WIDTH, WIDTH), np.int8), f"I8 ({WIDTH}, {WIDTH})"),
    ],
)
def test_a_misshapen_tensor_is_named_with_what_came_and_what_was_expected(
    plain: Path, tensor: np.ndarray[Any, Any], came: str
) -> None:
    change_tensors(plain, lambda tensors: tensors.update({QUERY: tensor}))
    assert f"misshapen: {QUERY} is {came}, the config asks for float ({WIDTH}, {WIDTH})" in refusal(plain)


def test_all_faults_are_named_at_once(plain: Path) -> None:
    def spoil(tensors: dict[str, Any]) -> None:
        tensors["encoder.layer.0.lora.weight"] = np.ones((2, 2), np.float32)
        tensors["embeddings.LayerNorm.bias"] = np.ones(3, np.float32)
        for index in range(3):
            for name in ("weight", "bias"):
                del tensors[f"encoder.layer.{index}.output.dense.{name}"]

    change_tensors(plain, spoil)
    message = refusal(plain)
    assert "missing: encoder.layer.0.output.dense.weight" in message
    assert "and 2 more" in message
    assert "misshapen: embeddings.LayerNorm.bias" in message
    assert "unknown inside the encoder: encoder.layer.0.lora.weight" in message


def test_layer_norms_under_their_first_names_are_read(tmp_path: Path) -> None:
    directory = save_sentence_transformers(tmp_path / "old")

    def rename(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if ".LayerNorm." in name]:
            old = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            tensors[old] = tensors.pop(name)

    change_tensors(directory, rename)
    assert_vectors_agree(directory, tmp_path / "out")


@pytest.mark.parametrize("model_type", ["bert", "gte", "modernbert", "qwen3", "roberta"])
def test_tensors_with_and_without_the_front_of_task_models_are_refused(tmp_path: Path, model_type: str) -> None:
    """transformers takes some of one kind and some of the other, by the order of their names."""
    directory = save_transformers(tmp_path / "both", model_type)
    front = ARCHITECTURES[model_type].prefix

    def double(tensors: dict[str, Any]) -> None:
        tensors.update({front + name: tensor * 0.5 for name, tensor in list(tensors.items())})

    change_tensors(directory, double)
    message = refusal(directory)
    assert f"twice, with {front} in front and without" in message


def test_tensors_of_which_some_have_the_front_of_task_models_are_refused(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "mixed")

    def mix(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if name != QUERY]:
            tensors[f"bert.{name}"] = tensors.pop(name)

    change_tensors(directory, mix)
    message = refusal(directory)
    assert f"missing: bert.{QUERY}; there without bert. in front: {QUERY}; save it again" in message


def test_a_norm_under_its_first_name_and_its_later_one_is_refused(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "both")

    def double(tensors: dict[str, Any]) -> None:
        tensors["embeddings.LayerNorm.gamma"] = tensors["embeddings.LayerNorm.weight"] * 0

    change_tensors(directory, double)
    assert "twice, one under a name from before: embeddings.LayerNorm.weight" in refusal(directory)


def test_words_of_its_own_count_more_for_t5s_encoder_than_shared_ones(tmp_path: Path) -> None:
    directory = save_sentence_transformers(tmp_path / "t5", "t5", max_seq_length=40)

    def own(tensors: dict[str, Any]) -> None:
        tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"][::-1].copy()

    shared = reference_vectors(directory)
    change_tensors(directory, own)
    assert np.abs(reference_vectors(directory) - shared).max() > 0.01
    assert_vectors_agree(directory, tmp_path / "out")


def test_biases_that_nomicberts_class_does_not_have_are_refused(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "nomic", "nomic_bert")
    plain = reference_vectors(directory)

    def biased(tensors: dict[str, Any]) -> None:
        for name in [name for name in tensors if name.endswith(("_proj.weight", "Wqkv.weight", "fc11.weight"))]:
            tensors[name.removesuffix("weight") + "bias"] = np.ones(len(tensors[name]), np.float32)

    change_tensors(directory, biased)
    np.testing.assert_array_equal(reference_vectors(directory), plain)
    assert "unknown inside the encoder: " in refusal(directory)


# --- weight files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 7, 100, -10])
def test_truncated_safetensors_are_refused(plain: Path, keep: int) -> None:
    file = plain / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert "model.safetensors cannot be read as safetensors" in refusal(plain)


@pytest.mark.parametrize("garbage", [b"\xff" * 4096, b"version 1\n"])
def test_garbage_in_place_of_safetensors_is_refused(plain: Path, garbage: bytes) -> None:
    (plain / "model.safetensors").write_bytes(garbage)
    message = refusal(plain)
    assert "model.safetensors cannot be read as safetensors" in message
    assert "download it again" in message


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    random_model("bert").save_pretrained(tmp_path / "sharded", max_shard_size="10KB")
    save_tokenizer(tmp_path / "sharded", "bert")
    return tmp_path / "sharded"


def test_a_missing_shard_is_named(sharded: Path) -> None:
    shard = min(sharded.glob("model-*.safetensors"))
    shard.unlink()
    assert f"shards are missing beside {sharded / 'model.safetensors.index.json'}: {shard.name}" in refusal(sharded)


@pytest.mark.parametrize("escape", ["../outside.safetensors", "/etc/passwd", "folder/../../outside.safetensors"])
def test_a_shard_outside_the_directory_is_not_opened(sharded: Path, tmp_path: Path, escape: str) -> None:
    save_file({QUERY: torch.zeros(WIDTH, WIDTH)}, tmp_path / "outside.safetensors")
    change_json(sharded / "model.safetensors.index.json", weight_map={QUERY: escape})
    message = refusal(sharded)
    assert repr(escape) in message
    assert "beside their index" in message


@pytest.mark.parametrize("index", [[], {}, {"weight_map": []}, {"weight_map": {"a": 5}}, {"weight_map": {"a": None}}])
def test_a_malformed_shard_index_is_refused(sharded: Path, index: object) -> None:
    write_json(sharded / "model.safetensors.index.json", index)
    assert "index" in refusal(sharded)


def test_no_weights_at_all_are_refused_with_what_was_looked_for(plain: Path) -> None:
    (plain / "model.safetensors").unlink()
    message = refusal(plain)
    assert "has no weights" in message
    assert "model.safetensors" in message
    assert "pytorch_model.bin" in message


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_does_not_run(plain: Path, tmp_path: Path, zipped: bool) -> None:
    (plain / "model.safetensors").unlink()
    file, sprung = plain / "pytorch_model.bin", tmp_path / "sprung"
    state = {**random_model("bert").state_dict(), "trap": Trap(sprung)}
    torch.save(state, file, _use_new_zipfile_serialization=zipped)
    message = refusal(plain)
    assert not sprung.exists()
    assert "pytorch_model.bin cannot be read as plain tensors" in message
    torch.load(file, weights_only=False)
    assert sprung.exists()  # the trap works, so its silence above says something


def test_a_bare_pickle_of_code_does_not_run(plain: Path, tmp_path: Path) -> None:
    (plain / "model.safetensors").unlink()
    (plain / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(tmp_path / "sprung")))
    refusal(plain)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("state", [[1, 2], torch.zeros(3)], ids=["list", "tensor"])
def test_a_pickle_of_something_else_than_named_tensors_is_refused(plain: Path, state: object) -> None:
    (plain / "model.safetensors").unlink()
    torch.save(state, plain / "pytorch_model.bin")
    assert "not tensors by name" in refusal(plain)


def test_a_pickle_of_sparse_tensors_is_refused(plain: Path) -> None:
    (plain / "model.safetensors").unlink()
    state = random_model("bert").state_dict()
    torch.save({**state, QUERY: state[QUERY].to_sparse()}, plain / "pytorch_model.bin")
    assert f"{QUERY} is torch.sparse_coo of torch.float32 (24, 24), the config asks for float" in refusal(plain)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_pickles_of_every_age_are_read(tmp_path: Path, zipped: bool) -> None:
    directory = save_sentence_transformers(tmp_path / "pickled")
    wanted = reference_vectors(directory)
    (directory / "model.safetensors").unlink()
    parameters = dict(random_model("bert").named_parameters())  # with gradients, as some people save them
    torch.save(parameters, directory / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    close(exported_vectors(directory, tmp_path / "out"), wanted)


def test_a_pickle_without_torch_says_what_to_install(plain: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (plain / "model.safetensors").unlink()
    torch.save(random_model("bert").state_dict(), plain / "pytorch_model.bin")
    monkeypatch.setitem(sys.modules, "torch", None)
    message = refusal(plain, MissingDependencyError)
    assert "pip install 'fastembed-rt[verify]'" in message
    assert "model.safetensors" in message


def test_safetensors_are_preferred_to_a_pickle(plain: Path) -> None:
    (plain / "pytorch_model.bin").write_bytes(b"not even a pickle")
    assert [file.name for file in built(plain).weight_files] == ["model.safetensors"]


class Limit(Exception):  # noqa: N818  as others call theirs
    """What a caller's signal handler raises."""


@pytest.mark.parametrize("what", ["torch.load", "fastembed_rt_export.tokenizer.tokenizer_json.Tokenizer"])
def test_a_time_limit_is_no_damaged_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """It comes out of the export as what it is, whatever was being read."""
    checkpoint = save_transformers(tmp_path / "c")
    if what == "torch.load":
        weights = checkpoint / "model.safetensors"
        torch.save(load_file(weights), checkpoint / "pytorch_model.bin")
        weights.unlink()

    class Late:
        def __call__(self, *_: Any, **__: Any) -> None:
            raise Limit("limit")

        from_str = __call__

    monkeypatch.setattr(what, Late())
    with pytest.raises(Limit):
        quick(checkpoint, tmp_path / "m")
