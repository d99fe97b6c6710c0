"""modules.json and what stands behind the transformer: heads and pooling as in sentence-transformers, or refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import routed
import torch
from checkpoint_faults import built, refusal
from checkpoints import (
    SIZES,
    TEXTS,
    assert_vectors_agree,
    change_json,
    change_tensors,
    exported_vectors,
    reference_vectors,
    save_sentence_transformers,
    save_with_heads,
    write_json,
)
from routed import router, save, transformer
from sentence_transformers.sentence_transformer.modules import Dense, Dropout, LayerNorm, Normalize
from tokenizers import Tokenizer, processors
from tolerances import close

from fastembed_rt import EmbeddingModel, manifest
from fastembed_rt.cli.export import POOLINGS
from fastembed_rt_export.checkpoint.read import load, parse_pooling
from fastembed_rt_export.errors import CheckpointError, ParityError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export

WIDTH = SIZES["hidden_size"]


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


def test_code_named_in_auto_map_is_refused_and_not_imported(chain: Path, tmp_path: Path) -> None:
    """transformers knows the type too, and what it makes of it says nothing of that code."""
    sprung = tmp_path / "sprung"
    (chain / "modeling_custom.py").write_text(f"open({str(sprung)!r}, 'w').close()\nclass Model: pass\n")
    change_json(chain / "config.json", auto_map={"AutoModel": "modeling_custom.Model"})
    asked = r"\(modeling_custom\.Model\), and nothing is known.*take auto_map out.*--trust-remote-code"
    with pytest.raises(UnsupportedCheckpointError, match=asked):
        export(str(chain), ExportOptions(output=tmp_path / "out"))
    assert not sprung.exists()
    change_json(chain / "config.json", "auto_map")
    made = export(str(chain), ExportOptions(output=tmp_path / "out")).manifest
    assert made.parity["status"] == "passed"


@pytest.mark.usefixtures("short_gate")
@pytest.mark.parametrize("model_type", ["eurobert", "nomic_bert", "ultrabert"])
def test_code_that_transformers_has_taken_over_is_held_against_its_class(tmp_path: Path, model_type: str) -> None:
    chain = save_sentence_transformers(tmp_path / "chain", model_type)
    change_json(chain / "config.json", auto_map={"AutoModel": "of/another--modeling.OwnModel"})
    made = export(str(chain), ExportOptions(output=tmp_path / "out")).manifest
    assert made.parity["status"] == "passed"
    (note,) = [note for note in made.notes if "OwnModel" in note]
    assert note.endswith(f"which is not run: built is transformers' {model_type}")


@pytest.mark.usefixtures("short_gate")
def test_code_of_another_task_than_the_models_is_no_matter(chain: Path, tmp_path: Path) -> None:
    change_json(chain / "config.json", auto_map={"AutoModelForMaskedLM": "modeling_custom.Model"})
    made = export(str(chain), ExportOptions(output=tmp_path / "out")).manifest
    assert made.parity["status"] == "passed"
    assert not [note for note in made.notes if "modeling_custom" in note]


@pytest.mark.usefixtures("short_gate")
@pytest.mark.parametrize("sign", ["", "-"])
def test_code_named_in_auto_map_is_the_reference_where_it_is_trusted(chain: Path, tmp_path: Path, sign: str) -> None:
    (chain / f"modeling_of_{tmp_path.name}.py").write_text(
        "from transformers import BertModel\n\n\nclass Model(BertModel):\n"
        "    def forward(self, *args, **options):\n"
        "        found = super().forward(*args, **options)\n"
        f"        found.last_hidden_state = {sign}found.last_hidden_state\n"
        "        return found\n"
    )
    change_json(chain / "config.json", auto_map={"AutoModel": f"modeling_of_{tmp_path.name}.Model"})
    options = ExportOptions(output=tmp_path / "out", trust_remote_code=True)
    if not sign:
        assert export(str(chain), options).manifest.parity["status"] == "passed"
        return
    with pytest.raises(ParityError, match="out of bounds"):
        export(str(chain), options)


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
        [TRANSFORMER, ("sentence_transformers.models.WeightedLayerPooling", "3_Layers"), POOLING],
        [("sentence_transformers.models.BoW", ""), POOLING],
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


def test_modules_are_taken_in_the_order_of_the_file_as_in_sentence_transformers(tmp_path: Path) -> None:
    directory = save_with_heads(tmp_path / "heads", Normalize(), Dense(WIDTH, 10))
    entries = json.loads((directory / "modules.json").read_text(encoding="utf-8"))
    write_json(directory / "modules.json", [{**entry, "idx": 9 - entry["idx"]} for entry in entries])
    assert built(directory).modules == ("Transformer(bert)", "Pooling(mean)", "Normalize", "Dense(24 -> 10, tanh)")
    assert_vectors_agree(directory, tmp_path / "out")


def test_two_modules_by_one_name_are_refused(chain: Path) -> None:
    entries = modules(TRANSFORMER, POOLING, ("sentence_transformers.models.Normalize", "2_Normalize"))
    write_json(chain / "modules.json", [{**entry, "name": str(min(entry["idx"], 1))} for entry in entries])
    assert "has two modules by the name '1'" in refusal(chain)


def test_a_transformer_in_a_folder_of_its_own_is_found(chain: Path, tmp_path: Path) -> None:
    wanted = reference_vectors(chain)
    folder = chain / "0_Transformer"
    folder.mkdir()
    for file in list(chain.iterdir()):
        if file.is_file() and file.name not in ("modules.json", "config_sentence_transformers.json"):
            shutil.move(file, folder / file.name)
    entries = [(TRANSFORMER[0], "0_Transformer"), POOLING, ("sentence_transformers.models.Normalize", "2_Normalize")]
    write_json(chain / "modules.json", modules(*entries))
    close(exported_vectors(chain, tmp_path / "out"), wanted)


# --- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["Identity", "Tanh", "ReLU", "GELU", "Sigmoid", "SiLU"])
def test_dense_activations_are_those_of_torch(tmp_path: Path, activation: str) -> None:
    function = getattr(torch.nn, activation)()
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10, activation_function=function))
    assert_vectors_agree(directory, tmp_path / "out")


@pytest.mark.parametrize("activation", ["torch.nn.modules.activation.PReLU", "builtins.print", "my.own.Tanh", None])
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
    assert parse_pooling(("mean_sqrt_len_tokens",)) == ("mean_sqrt_len_tokens",)


def test_a_pooling_that_is_not_known_is_refused_with_the_names_that_help_lists() -> None:
    with pytest.raises(UnsupportedCheckpointError, match=f"pooling 'foo' is not known; known: {POOLINGS}$"):
        parse_pooling(("foo",))


@pytest.mark.parametrize("whole", [True, False], ids=["its folder", "its config.json"])
def test_a_module_that_is_missing_is_said_to_be_the_directorys(chain: Path, whole: bool) -> None:
    (chain / "1_Pooling" / "config.json").unlink()
    if whole:
        (chain / "1_Pooling").rmdir()
    message = refusal(chain)
    assert message.startswith(f"{chain / '1_Pooling' / 'config.json'} is missing, a file of the module '1_Pooling'")
    assert f"modules.json of the sentence-transformers directory {chain} names" in message
    assert "transformers checkpoint?" not in message


def test_a_routes_module_that_is_missing_is_said_to_be_the_directorys(tmp_path: Path) -> None:
    route = router([routed.dense(seed=1)], [routed.dense(seed=2)])
    directory = save(tmp_path / "checkpoint", *transformer(tmp_path / "bert"), route)
    missing = next(directory.rglob("query_0*")) / "config.json"
    missing.unlink()
    message = refusal(directory)
    assert message.startswith(f"{missing} is missing, a file of the module {missing.parent.name!r} that router_config")


def test_a_directory_that_is_no_checkpoint_is_asked_about(plain: Path) -> None:
    (plain / "config.json").unlink()
    assert refusal(plain) == f"{plain / 'config.json'} is missing; is {plain} a transformers checkpoint?"


@pytest.mark.parametrize("pooling", list(FLAGS))
@pytest.mark.parametrize("prompt", ["query: ", ""])
def test_prompts_left_out_of_the_pooling_give_the_same_vectors(tmp_path: Path, pooling: str, prompt: str) -> None:
    directory = save_with_heads(tmp_path / "prompted", pooling=pooling, include_prompt=False)
    change_json(directory / "config_sentence_transformers.json", prompts={"query": prompt})
    wanted = reference_vectors(directory, prompt_name="query")
    vectors = exported_vectors(directory, tmp_path / "out", prompt_name="query")
    close(vectors, wanted)
    assert manifest.read(tmp_path / "out").include_prompt is False
    if prompt:
        included = save_with_heads(tmp_path / "included", pooling=pooling)
        assert np.abs(reference_vectors(included, prompt=prompt) - wanted).max() > 1e-3 or pooling == "lasttoken"


@pytest.mark.parametrize("prompt", ["query: [SEP]", "a red 東", "the [MASK]", "a new dog"])
@pytest.mark.parametrize("ends", ["[CLS] $A", "[CLS] $A [SEP]"])
@pytest.mark.parametrize("named", [True, False], ids=["with names", "without"])
def test_a_special_token_at_the_end_of_a_prompt_that_is_left_out_counts_as_there(
    tmp_path: Path, named: bool, ends: str, prompt: str
) -> None:
    """A text's own token as one that is put there; and only one that has a name."""
    directory = save_with_heads(tmp_path / "prompted", include_prompt=False)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    special = [(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single=ends, special_tokens=special)
    tokenizer.save(str(directory / "tokenizer.json"))
    if not named:
        change_json(directory / "tokenizer_config.json", "sep_token", "mask_token", "extra_special_tokens")
    change_json(directory / "config_sentence_transformers.json", prompts={"query": prompt})
    texts = TEXTS[1:]
    wanted = reference_vectors(directory, texts, prompt_name="query")
    close(exported_vectors(directory, tmp_path / "out", texts, prompt_name="query"), wanted)


@pytest.mark.parametrize("pooling", [mode for mode in FLAGS if mode != "max"])  # of nothing: -inf there
def test_a_prompt_that_is_left_out_and_fills_a_text_leaves_nothing_to_pool(tmp_path: Path, pooling: str) -> None:
    directory = save_with_heads(tmp_path / "prompted", pooling=pooling, include_prompt=False)
    tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
    # No special token at the end, which would count.
    special = [("[CLS]", tokenizer.token_to_id("[CLS]"))]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=special)
    tokenizer.save(str(directory / "tokenizer.json"))
    change_json(directory / "config_sentence_transformers.json", prompts={"query": "the new red house on a river : "})
    change_json(directory / "sentence_bert_config.json", max_seq_length=6)
    wanted = reference_vectors(directory, prompt_name="query")
    assert wanted.any() == (pooling == "cls"), "the first token's state, or zeros"
    close(exported_vectors(directory, tmp_path / "out", prompt_name="query"), wanted)
    with EmbeddingModel(tmp_path / "out", target="portable") as model:
        close(model.encode(TEXTS, prompt_name="query"), wanted)


def test_without_modules_json_pooling_is_mean_and_that_is_noted(plain: Path, tmp_path: Path) -> None:
    assert_vectors_agree(plain, tmp_path / "out")
    described = manifest.read(tmp_path / "out")
    assert described.pooling == ("mean",)
    assert not described.normalize
    assert any("no modules.json" in note for note in described.notes)


def test_a_static_embedding_is_cut_where_its_tokenizer_json_says(tmp_path: Path) -> None:
    """The reference reads no other file of its tokenizer."""
    directory = save(tmp_path / "checkpoint", routed.static(tmp_path / "plain"))
    folder = next(directory.rglob("tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(folder))
    tokenizer.enable_truncation(6)
    tokenizer.save(str(folder))
    write_json(folder.with_name("tokenizer_config.json"), {"truncation_side": "left"})
    assert_vectors_agree(directory, tmp_path / "out", TEXTS[1:])
