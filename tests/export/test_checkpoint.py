"""Checkpoints as they lie on disks: every form is read as sentence-transformers reads it, every fault is named."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import (
    BERT_SPECIAL,
    LETTERS,
    SIZES,
    VOCABULARY,
    WORDS,
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
from safetensors.torch import save_file
from sentence_transformers.sentence_transformer.modules import Dense, Dropout, LayerNorm, Normalize
from tokenizers import Tokenizer

from fastembed_rt import manifest
from fastembed_rt_export import tokenizer_file
from fastembed_rt_export.checkpoint import Checkpoint, Overrides, load, override, parse_pooling
from fastembed_rt_export.errors import CheckpointError, MissingDependencyError, UnsupportedCheckpointError
from fastembed_rt_export.graph.portable import PORTABLE
from fastembed_rt_export.pipeline import ExportOptions, build, export

WIDTH = SIZES["hidden_size"]
QUERY = "encoder.layer.1.attention.self.query.weight"
Change = Callable[[dict[str, Any]], object]


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A transformers directory."""
    return save_transformers(tmp_path / "plain")


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A sentence-transformers directory."""
    return save_sentence_transformers(tmp_path / "chain")


def built(directory: Path) -> Checkpoint:
    checkpoint = load(directory, directory.name)
    build(checkpoint, PORTABLE, 17)
    return checkpoint


def refusal(directory: Path, kind: type[Exception] = CheckpointError) -> str:
    """The message with which the checkpoint is refused: one line."""
    with pytest.raises(kind) as caught:
        built(directory)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    return message


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


# --- weight files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0, 7, 100, -10])
def test_truncated_safetensors_are_refused(plain: Path, keep: int) -> None:
    file = plain / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert "model.safetensors cannot be read as safetensors" in refusal(plain)


@pytest.mark.parametrize("garbage", [b"\xff" * 4096, b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"])
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


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_pickles_of_every_age_are_read(tmp_path: Path, zipped: bool) -> None:
    directory = save_sentence_transformers(tmp_path / "pickled")
    wanted = reference_vectors(directory)
    (directory / "model.safetensors").unlink()
    parameters = dict(random_model("bert").named_parameters())  # with gradients, as some people save them
    torch.save(parameters, directory / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    np.testing.assert_allclose(exported_vectors(directory, tmp_path / "out"), wanted, rtol=0, atol=1e-5)


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


# --- config.json -----------------------------------------------------------------------------------------------------


def test_an_unknown_model_type_names_those_known_and_the_way_through_optimum(plain: Path) -> None:
    change_json(plain / "config.json", model_type="new-bert")
    message = refusal(plain, UnsupportedCheckpointError)
    assert "'new-bert'" in message
    assert "albert, bert, camembert" in message
    assert "pip install 'fastembed-rt[optimum]'" in message


@pytest.mark.parametrize("model_type", [5, ["bert"], None])
def test_a_model_type_that_is_not_a_name_is_refused(plain: Path, model_type: object) -> None:
    change_json(plain / "config.json", model_type=model_type)
    assert "model_type" in refusal(plain, UnsupportedCheckpointError)


def test_a_config_without_model_type_is_refused(plain: Path) -> None:
    change_json(plain / "config.json", "model_type")
    assert "has no model_type" in refusal(plain)


def test_an_absent_config_is_refused(plain: Path) -> None:
    (plain / "config.json").unlink()
    assert f"{plain / 'config.json'} is missing" in refusal(plain)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe{}", "cannot be read as JSON"),
        (b"[]", "holds list, expected an object"),
        (b'"bert"', "holds str, expected an object"),
        (b"null", "holds NoneType, expected an object"),
    ],
)
def test_a_config_that_is_not_a_json_object_is_refused(plain: Path, content: bytes, said: str) -> None:
    (plain / "config.json").write_bytes(content)
    assert said in refusal(plain)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("hidden_size", "24", "hidden_size = '24', expected int"),
        ("hidden_size", True, "hidden_size = True, expected int"),
        ("hidden_size", 24.0, "hidden_size = 24.0, expected int"),
        ("num_hidden_layers", [3], "num_hidden_layers = [3], expected int"),
        ("hidden_act", 5, "hidden_act = 5, expected str"),
        ("layer_norm_eps", "1e-12", "layer_norm_eps = '1e-12', expected float"),
        ("vocab_size", None, "lacks 'vocab_size'"),
        ("max_position_embeddings", None, "lacks 'max_position_embeddings'"),
        ("hidden_size", 0, "impossible size"),
        ("hidden_size", -24, "impossible size"),
        ("num_hidden_layers", 0, "impossible size"),
        ("num_attention_heads", 0, "impossible size"),
        ("intermediate_size", -1, "impossible size"),
        ("num_attention_heads", 5, "hidden size 24 is not a multiple of 5 heads"),
        ("vocab_size", 10**30, "misshapen: embeddings.word_embeddings.weight"),
        ("vocab_size", -1, "misshapen: embeddings.word_embeddings.weight"),
        ("max_position_embeddings", 10**12, "misshapen: embeddings.position_embeddings.weight"),
        ("intermediate_size", 10**15, "misshapen: encoder.layer.0.intermediate.dense.weight"),
    ],
)
def test_a_config_with_impossible_values_is_refused(plain: Path, key: str, value: object, said: str) -> None:
    change_json(plain / "config.json", **{key: value})
    assert said in refusal(plain)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("position_embedding_type", "relative_key_query"),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("hidden_act", "mish"),
    ],
)
def test_what_no_builder_computes_is_refused_by_name(plain: Path, key: str, value: object) -> None:
    change_json(plain / "config.json", **{key: value})
    assert repr(value) in refusal(plain, UnsupportedCheckpointError)


# --- modules.json ----------------------------------------------------------------------------------------------------


def modules(*entries: tuple[str, str]) -> list[dict[str, Any]]:
    return [
        {"idx": index, "name": str(index), "path": path, "type": kind} for index, (kind, path) in enumerate(entries)
    ]


TRANSFORMER = ("sentence_transformers.models.Transformer", "")
POOLING = ("sentence_transformers.models.Pooling", "1_Pooling")


@pytest.mark.parametrize("place", [0, 1, 2])
def test_code_of_the_checkpoint_is_refused_and_not_imported(chain: Path, tmp_path: Path, place: int) -> None:
    sprung = tmp_path / "sprung"
    (chain / "custom_module.py").write_text(f"open({str(sprung)!r}, 'w').close()\nclass Custom: pass\n")
    entries = [TRANSFORMER, POOLING]
    entries.insert(place, ("custom_module.Custom", ""))
    write_json(chain / "modules.json", modules(*entries))
    assert "modules.json names custom_module.Custom" in refusal(chain, UnsupportedCheckpointError)
    assert "custom_module" not in sys.modules
    assert not sprung.exists()


def test_code_named_in_auto_map_is_not_imported(chain: Path, tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    (chain / "modeling_custom.py").write_text(f"open({str(sprung)!r}, 'w').close()\nclass Model: pass\n")
    change_json(chain / "config.json", auto_map={"AutoModel": "modeling_custom.Model"})
    made = export(str(chain), ExportOptions(output=tmp_path / "out"))
    assert made.manifest.parity["status"] == "passed"  # the reference was loaded, and it did not run the code either
    assert not sprung.exists()


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("escape", ["../outside", "/etc", "a/../../outside", "..\\outside", "C:\\outside"])
def test_a_module_folder_outside_the_checkpoint_is_refused(chain: Path, place: int, escape: str) -> None:
    entries = [TRANSFORMER, POOLING, ("sentence_transformers.models.Dense", "2_Dense")]
    entries[place] = (entries[place][0], escape)
    write_json(chain / "modules.json", modules(*entries))
    assert f"modules.json names the folder {escape!r}, outside of {chain}" in refusal(chain)


@pytest.mark.parametrize("kind", ["LSTM", "WordWeights", "CNN", "Pooling", "Transformer"])
def test_a_module_that_is_not_built_is_refused(chain: Path, kind: str) -> None:
    write_json(chain / "modules.json", modules(TRANSFORMER, POOLING, (f"sentence_transformers.models.{kind}", "2_X")))
    message = refusal(chain, UnsupportedCheckpointError)
    assert f"has a {kind} module" in message
    assert "Dense, LayerNorm, Dropout and Normalize" in message


@pytest.mark.parametrize(
    "entries",
    [
        [],
        [TRANSFORMER],
        [POOLING, TRANSFORMER],
        [TRANSFORMER, ("sentence_transformers.models.Normalize", "2_Normalize"), POOLING],
        [("sentence_transformers.models.WordEmbeddings", ""), POOLING],
        [POOLING, ("sentence_transformers.models.StaticEmbedding", "")],
    ],
)
def test_a_chain_that_does_not_begin_with_transformer_and_pooling_is_refused(
    chain: Path, entries: list[tuple[str, str]]
) -> None:
    write_json(chain / "modules.json", modules(*entries))
    assert "modules.json begins with" in refusal(chain, UnsupportedCheckpointError)


@pytest.mark.parametrize("body", [{}, {"a": 1}, 5, None, "x", [1], [{}], [{"idx": "x", "type": "y"}]])
def test_a_malformed_modules_json_is_refused(chain: Path, body: object) -> None:
    write_json(chain / "modules.json", body)
    with pytest.raises(CheckpointError, match=r"modules\.json"):
        load(chain, "chain")


def test_modules_are_taken_in_the_order_of_idx_not_of_the_file(chain: Path) -> None:
    entries = modules(TRANSFORMER, POOLING, ("sentence_transformers.models.Normalize", "2_Normalize"))
    write_json(chain / "modules.json", entries[::-1])
    assert built(chain).modules == ("Transformer(bert)", "Pooling(mean)", "Normalize")


def test_a_transformer_in_a_folder_of_its_own_is_found(chain: Path, tmp_path: Path) -> None:
    wanted = reference_vectors(chain)
    folder = chain / "0_Transformer"
    folder.mkdir()
    for file in list(chain.iterdir()):
        if file.is_file() and file.name not in ("modules.json", "config_sentence_transformers.json"):
            shutil.move(file, folder / file.name)
    entries = [(TRANSFORMER[0], "0_Transformer"), POOLING, ("sentence_transformers.models.Normalize", "2_Normalize")]
    write_json(chain / "modules.json", modules(*entries))
    np.testing.assert_allclose(exported_vectors(chain, tmp_path / "out"), wanted, rtol=0, atol=1e-6)


# --- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU"])
def test_dense_activations_are_those_of_torch(tmp_path: Path, activation: str) -> None:
    function = getattr(torch.nn, activation)()
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10, activation_function=function))
    assert_vectors_agree(directory, tmp_path / "out")


@pytest.mark.parametrize("activation", ["torch.nn.modules.activation.Softplus", "builtins.print", "my.own.Tanh", None])
def test_a_dense_activation_that_is_not_built_is_refused(tmp_path: Path, activation: str | None) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10))
    change_json(directory / "2_Dense" / "config.json", activation_function=activation)
    assert f"activation {activation} is not built" in refusal(directory, UnsupportedCheckpointError)


def test_a_dense_that_names_no_activation_has_tanh_as_in_sentence_transformers(tmp_path: Path) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10))
    change_json(directory / "2_Dense" / "config.json", "activation_function")
    assert_vectors_agree(directory, tmp_path / "out")


def test_a_dense_without_bias_gives_the_same_vectors(tmp_path: Path) -> None:
    assert_vectors_agree(save_with_heads(tmp_path / "dense", Dense(WIDTH, 10, bias=False)), tmp_path / "out")


@pytest.mark.parametrize("outputs", [WIDTH, 10])
def test_a_dense_with_a_residual_gives_the_same_vectors(tmp_path: Path, outputs: int) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, outputs, use_residual=True))
    assert_vectors_agree(directory, tmp_path / "out")


def test_many_heads_in_a_row_give_the_same_vectors(tmp_path: Path) -> None:
    norm = LayerNorm(30)
    with torch.no_grad():
        norm.norm.weight.normal_()
        norm.norm.bias.normal_()
    heads = [Dense(3 * WIDTH, 30), norm, Dropout(0.5), Dense(30, 30, use_residual=True), Normalize(), Dense(30, 7)]
    directory = save_with_heads(tmp_path / "heads", *heads, Normalize(), pooling=("cls", "mean", "max"))
    assert_vectors_agree(directory, tmp_path / "out")
    described = manifest.read(tmp_path / "out")
    assert described.dim == 7
    assert described.modules[2:] == (
        "Dense(72 -> 30, tanh)",
        "LayerNorm(30)",
        "Dense(30 -> 30, tanh)",
        "Normalize",
        "Dense(30 -> 7, tanh)",
        "Normalize",
    )


def test_dropout_changes_nothing(tmp_path: Path) -> None:
    directory = save_with_heads(tmp_path / "dropout", Dropout(0.9))
    assert_vectors_agree(directory, tmp_path / "out")
    assert built(directory).heads == ()


@pytest.mark.parametrize("key", ["in_features", "out_features"])
@pytest.mark.parametrize("value", [None, "24", 0, -1, 2.5])
def test_a_dense_with_an_impossible_width_is_refused(tmp_path: Path, key: str, value: object) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10))
    change_json(directory / "2_Dense" / "config.json", **{key: value})
    assert f"has {key} {value!r}" in refusal(directory)


def test_a_dense_that_takes_another_width_than_it_gets_is_refused(tmp_path: Path) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH + 1, 10))
    assert "module 2, Dense(25 -> 10, tanh), takes 25 channels and gets 24" in refusal(directory)


def test_a_dense_whose_weights_do_not_fit_its_config_is_refused(tmp_path: Path) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10))
    change_json(directory / "2_Dense" / "config.json", out_features=11)
    assert "misshapen: linear.weight is F32 (10, 24)" in refusal(directory)


def test_a_dense_with_more_tensors_than_it_computes_with_is_refused(tmp_path: Path) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, WIDTH))
    change_tensors(directory / "2_Dense", lambda tensors: tensors.update({"linear.scale": np.ones(3, np.float32)}))
    assert "unknown inside the encoder: linear.scale" in refusal(directory)


def test_a_dense_without_weights_is_refused(tmp_path: Path) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10))
    (directory / "2_Dense" / "model.safetensors").unlink()
    assert f"{directory / '2_Dense'} has no weights" in refusal(directory)


def test_a_dense_on_token_embeddings_is_refused(tmp_path: Path) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10))
    change_json(directory / "2_Dense" / "config.json", module_input_name="token_embeddings")
    assert "module_input_name 'token_embeddings'" in refusal(directory, UnsupportedCheckpointError)


def test_a_layer_norm_without_a_width_is_refused(tmp_path: Path) -> None:
    directory = save_with_heads(tmp_path / "norm", LayerNorm(WIDTH))
    write_json(directory / "2_LayerNorm" / "config.json", {})
    assert "has dimension None" in refusal(directory)


# --- pooling ---------------------------------------------------------------------------------------------------------

FLAGS = {
    "cls": "pooling_mode_cls_token",
    "max": "pooling_mode_max_tokens",
    "mean": "pooling_mode_mean_tokens",
    "mean_sqrt_len_tokens": "pooling_mode_mean_sqrt_len_tokens",
    "weightedmean": "pooling_mode_weightedmean_tokens",
    "lasttoken": "pooling_mode_lasttoken",
}


@pytest.mark.parametrize("modes", [*((mode,) for mode in FLAGS), ("mean", "cls"), tuple(FLAGS), ()])
def test_old_pooling_flags_mean_what_they_mean_in_sentence_transformers(
    chain: Path, tmp_path: Path, modes: tuple[str, ...]
) -> None:
    flags = {flag: mode in modes for mode, flag in FLAGS.items()}
    write_json(chain / "1_Pooling" / "config.json", {"word_embedding_dimension": WIDTH, **flags})
    assert_vectors_agree(chain, tmp_path / "out")


@pytest.mark.parametrize("modes", ["lasttoken", ["max"], ["lasttoken", "mean", "cls"], ["mean", "mean"]])
def test_new_pooling_modes_are_concatenated_in_their_own_order(
    chain: Path, tmp_path: Path, modes: str | list[str]
) -> None:
    write_json(chain / "1_Pooling" / "config.json", {"embedding_dimension": WIDTH, "pooling_mode": modes})
    assert_vectors_agree(chain, tmp_path / "out")


def test_the_new_pooling_mode_wins_over_old_flags(chain: Path, tmp_path: Path) -> None:
    both = {"embedding_dimension": WIDTH, "pooling_mode": "max", "pooling_mode_cls_token": True}
    write_json(chain / "1_Pooling" / "config.json", both)
    assert built(chain).pooling == ("max",)
    assert_vectors_agree(chain, tmp_path / "out")


@pytest.mark.parametrize("mode", ["median", "", ["mean", "median"], [], [5]])
def test_an_unknown_pooling_mode_is_refused(chain: Path, mode: object) -> None:
    change_json(chain / "1_Pooling" / "config.json", pooling_mode=mode)
    assert "known: cls, max, mean" in refusal(chain, UnsupportedCheckpointError)


@pytest.mark.parametrize("mode", [5, {"mean": True}, False])
def test_a_pooling_mode_that_is_not_a_name_is_refused(chain: Path, mode: object) -> None:
    change_json(chain / "1_Pooling" / "config.json", pooling_mode=mode)
    assert "expected a name or a list" in refusal(chain)


def test_mean_sqrt_len_is_short_for_its_long_name() -> None:
    assert parse_pooling(("mean_sqrt_len", "cls")) == ("mean_sqrt_len_tokens", "cls")


@pytest.mark.parametrize("pooling", list(FLAGS))
@pytest.mark.parametrize("prompt", ["query: ", ""])
def test_prompts_left_out_of_the_pooling_give_the_same_vectors(tmp_path: Path, pooling: str, prompt: str) -> None:
    directory = save_with_heads(tmp_path / "prompted", pooling=pooling, include_prompt=False)
    change_json(directory / "config_sentence_transformers.json", prompts={"query": prompt})
    wanted = reference_vectors(directory, prompt_name="query")
    vectors = exported_vectors(directory, tmp_path / "out", prompt_name="query")
    np.testing.assert_allclose(vectors, wanted, rtol=1e-5, atol=1e-5)
    assert manifest.read(tmp_path / "out").include_prompt is False
    if prompt:
        included = save_with_heads(tmp_path / "included", pooling=pooling)
        assert np.abs(reference_vectors(included, prompt=prompt) - wanted).max() > 1e-3 or pooling == "lasttoken"


def test_without_modules_json_pooling_is_mean_and_that_is_noted(plain: Path, tmp_path: Path) -> None:
    assert_vectors_agree(plain, tmp_path / "out")
    described = manifest.read(tmp_path / "out")
    assert described.pooling == ("mean",)
    assert not described.normalize
    assert any("no modules.json" in note for note in described.notes)


# --- prompts and similarity ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompts", [["query: "], "query: ", {"query": 5}, {"query": ["query: "]}, 5])
def test_prompts_that_are_not_texts_by_name_are_refused(chain: Path, prompts: object) -> None:
    change_json(chain / "config_sentence_transformers.json", prompts=prompts)
    assert "prompts that are not texts by name" in refusal(chain)


def test_a_prompt_of_null_is_empty(chain: Path) -> None:
    change_json(chain / "config_sentence_transformers.json", prompts={"query": None, "passage": "p: "})
    assert built(chain).prompts == {"query": "", "passage": "p: "}


@pytest.mark.parametrize("absent", ["config_sentence_transformers.json", "sentence_bert_config.json"])
def test_files_that_older_checkpoints_lack_may_be_absent(chain: Path, tmp_path: Path, absent: str) -> None:
    (chain / absent).unlink()
    assert_vectors_agree(chain, tmp_path / "out")
    assert manifest.read(tmp_path / "out").similarity == "cosine"


def test_an_unknown_default_prompt_is_refused(chain: Path) -> None:
    change_json(chain / "config_sentence_transformers.json", prompts={"query": "q: "}, default_prompt_name="passage")
    message = refusal(chain)
    assert "'passage'" in message
    assert "['query']" in message


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan", None])
def test_similarities_of_sentence_transformers_are_kept(chain: Path, name: str | None) -> None:
    change_json(chain / "config_sentence_transformers.json", similarity_fn_name=name)
    assert built(chain).similarity == (name or "cosine")


@pytest.mark.parametrize("name", ["jaccard", 5, ["cosine"]])
def test_an_unknown_similarity_is_refused(chain: Path, name: object) -> None:
    change_json(chain / "config_sentence_transformers.json", similarity_fn_name=name)
    message = refusal(chain)
    assert repr(name) in message
    assert "cosine, dot, euclidean, manhattan" in message


# --- lengths ---------------------------------------------------------------------------------------------------------


def limited(directory: Path, max_seq_length: object, model_max_length: object) -> None:
    change_json(directory / "sentence_bert_config.json", max_seq_length=max_seq_length)
    change_json(directory / "tokenizer_config.json", model_max_length=model_max_length)


@pytest.mark.parametrize(
    ("max_seq_length", "model_max_length", "expected"),
    [(10, 10**30, 10), (10, 20, 10), (None, 20, 20), (None, 1e30, 48), (None, 512, 48), (48, 20, 48)],
)
def test_texts_are_cut_where_sentence_transformers_cuts_them(
    chain: Path, tmp_path: Path, max_seq_length: int | None, model_max_length: float, expected: int
) -> None:
    limited(chain, max_seq_length, model_max_length)
    assert_vectors_agree(chain, tmp_path / "out")
    assert manifest.read(tmp_path / "out").max_length == expected


def test_a_max_seq_length_over_the_positions_is_capped_and_noted(chain: Path) -> None:
    limited(chain, 512, 10**30)
    checkpoint = built(chain)
    assert checkpoint.max_length == SIZES["max_position_embeddings"]
    assert any("512" in note and "capped" in note for note in checkpoint.notes)


@pytest.mark.parametrize("value", ["256", -1, 0, True, [256], 2.5])
def test_a_max_seq_length_that_is_no_number_of_tokens_is_refused(chain: Path, value: object) -> None:
    limited(chain, value, 10**30)
    assert f"max_seq_length {value!r}" in refusal(chain)


@pytest.mark.parametrize("value", [0, -5, 49])
def test_an_override_of_max_length_that_the_model_has_no_positions_for_is_refused(chain: Path, value: int) -> None:
    with pytest.raises(CheckpointError, match=f"max_length {value} is not possible; the model has 48 positions"):
        override(load(chain, "chain"), Overrides(max_length=value))


def test_an_override_of_the_pooling_that_a_dense_cannot_take_is_refused(tmp_path: Path) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10))
    with pytest.raises(CheckpointError, match=r"cls\+mean changes the width that Dense\(24 -> 10, tanh\) takes"):
        override(load(directory, "dense"), Overrides(pooling=("cls", "mean")))


# --- the tokenizer ---------------------------------------------------------------------------------------------------


def cased(directory: Path) -> None:
    """Let the tokenizer keep the case, so that lower-casing is the checkpoint's own doing."""
    body = Tokenizer.from_file(str(directory / "tokenizer.json"))
    body.normalizer = type(body.normalizer)(lowercase=False)
    body.save(str(directory / "tokenizer.json"))


def test_do_lower_case_goes_into_tokenizer_json(chain: Path, tmp_path: Path) -> None:
    cased(chain)
    kept = exported_vectors(chain, tmp_path / "cased")
    change_json(chain / "sentence_bert_config.json", do_lower_case=True)
    assert_vectors_agree(chain, tmp_path / "lower")
    assert np.abs(reference_vectors(chain) - kept).max() > 1e-3
    tokenizer = Tokenizer.from_file(str(tmp_path / "lower" / "tokenizer.json"))
    assert tokenizer.encode("The CAT").ids == tokenizer.encode("the cat").ids


@pytest.mark.parametrize("normalizer", ["lower-casing", "none"])
def test_do_lower_case_leaves_a_tokenizer_that_lower_cases_as_it_is(
    chain: Path, tmp_path: Path, normalizer: str
) -> None:
    if normalizer == "none":
        change_json(chain / "tokenizer.json", normalizer=None)
    before = (chain / "tokenizer.json").read_text()
    change_json(chain / "sentence_bert_config.json", do_lower_case=True)
    assert_vectors_agree(chain, tmp_path / "out")
    assert ((tmp_path / "out" / "tokenizer.json").read_text() == before) is (normalizer != "none")


def test_tokenizer_json_is_copied_byte_by_byte(chain: Path, tmp_path: Path) -> None:
    export(str(chain), ExportOptions(output=tmp_path / "out", verify=False))
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (chain / "tokenizer.json").read_bytes()


@pytest.fixture
def vocabulary_only(chain: Path) -> Path:
    """A checkpoint with BERT's vocab.txt and no tokenizer.json."""
    pieces = dict.fromkeys([*BERT_SPECIAL, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS)])
    (chain / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (chain / "tokenizer.json").unlink()
    write_json(chain / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    return chain


def test_a_vocabulary_is_converted_by_transformers(vocabulary_only: Path, tmp_path: Path) -> None:
    assert_vectors_agree(vocabulary_only, tmp_path / "out")


def test_a_vocabulary_without_transformers_says_what_to_install(
    vocabulary_only: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = load(vocabulary_only, "vocabulary")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingDependencyError, match=r"has no tokenizer\.json; install transformers"):
        tokenizer_file.load(checkpoint)


def test_a_checkpoint_without_any_tokenizer_is_refused(chain: Path) -> None:
    (chain / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"has no tokenizer\.json and its tokenizer cannot be converted"):
        tokenizer_file.load(load(chain, "chain"))


@pytest.mark.parametrize("content", [b"{}", b"", b"\xff\xfe", b"[]", b'{"model": {"type": "Unheard"}}'])
def test_a_tokenizer_json_that_cannot_be_read_is_refused(chain: Path, content: bytes) -> None:
    (chain / "tokenizer.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        tokenizer_file.load(load(chain, "chain"))


def test_a_tokenizer_larger_than_the_vocabulary_is_refused(chain: Path) -> None:
    tokenizer = Tokenizer.from_file(str(chain / "tokenizer.json"))
    tokenizer.add_tokens([f"word{index}" for index in range(VOCABULARY)])
    tokenizer.save(str(chain / "tokenizer.json"))
    with pytest.raises(CheckpointError, match=r"the tokenizer has ids up to \d+, the model's vocab_size is 300"):
        tokenizer_file.load(load(chain, "chain"))


def test_one_id_beyond_the_vocabulary_is_refused(chain: Path) -> None:
    model = json.loads((chain / "tokenizer.json").read_text(encoding="utf-8"))["model"]
    assert "##z" in model["vocab"]
    change_json(chain / "tokenizer.json", model={**model, "vocab": {**model["vocab"], "##z": VOCABULARY}})
    with pytest.raises(CheckpointError, match="ids up to 300"):
        tokenizer_file.load(load(chain, "chain"))


def test_added_tokens_are_one_token_each(chain: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(chain / "tokenizer.json"))
    tokenizer.add_tokens(["fastembedding", "[NEW]"])
    tokenizer.save(str(chain / "tokenizer.json"))
    texts = ["a fastembedding runs", "[NEW] fastembedding[NEW]", "FastEmbedding"]
    assert_vectors_agree(chain, tmp_path / "out", texts)
    assert len(Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json")).encode("fastembedding").ids) == 3


@pytest.mark.parametrize(("pad_token", "expected"), [("[PAD]", 0), ({"content": "[MASK]"}, 4), ("[NONE]", 7), (5, 7)])
def test_the_pad_id_is_the_tokenizers_else_the_configs(chain: Path, pad_token: object, expected: int) -> None:
    change_json(chain / "tokenizer_config.json", pad_token=pad_token)
    change_json(chain / "config.json", pad_token_id=7)
    assert tokenizer_file.load(load(chain, "chain")).pad_token_id == expected
