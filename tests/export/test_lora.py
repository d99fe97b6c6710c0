"""LoRA adapters merged into their base, beside a merge written out in torch; what is refused, and what it says."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from adapters import FRONT, SETTINGS, Made, copied, random
from checkpoints import (
    TEXTS,
    change_json,
    exported_vectors,
    reference_vectors,
    save_sentence_transformers,
    save_transformers,
    write_json,
)
from exports import quick
from safetensors.torch import load_file, save_file
from sparse_encoders import save_splade
from tolerances import close

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import FastembedRtError, InvalidInputError, ModelNotFoundError
from fastembed_rt.hub.resolve import Located, resolve_checkpoint
from fastembed_rt_export import tasks
from fastembed_rt_export.adapters.whole import whole
from fastembed_rt_export.checkpoint.read import Checkpoint
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, check_again, export

FILE = "adapter_model.safetensors"
QUERY = "encoder.layer.{}.attention.self.query"


def find(name: str, revision: str | None) -> Located:
    return resolve_checkpoint(name, revision=revision, local_files_only=True)


def tensors_of(adapter: Path, base: str | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """All tensors of the merged checkpoint by name."""
    with whole(find(str(adapter), None), base, find, lambda _: None) as located:
        checkpoint: Checkpoint = tasks.load(located.path, located.name)
        return {name: stored.load() for name, stored in checkpoint.stored.items()}


def refusal(path: Path, kind: type[FastembedRtError] = CheckpointError, **options: Any) -> str:
    """The message, in one line, of an export that does not happen."""
    with pytest.raises(kind) as caught:
        export(str(path), ExportOptions(output=path.parent / "out", verify=False, **options))
    assert type(caught.value) is kind
    assert not (path.parent / "out").exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_merged(made: Made, adapter: Path) -> None:
    """Every tensor is the base's or what torch made of it, and the vectors are those of the model saved merged."""
    found = tensors_of(adapter)
    assert found.keys() == made.wanted.keys()
    for name, wanted in made.wanted.items():
        np.testing.assert_allclose(found[name], wanted.numpy(), rtol=0, atol=2e-6, err_msg=name)
    merged = made.save_wanted(adapter.parent / "merged")
    close(exported_vectors(adapter, adapter.parent / "onnx"), reference_vectors(merged))


# --- what is merged --------------------------------------------------------------------------------------------------


def test_queries_and_values(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values(rank=4, scale=6 / 4)
    adapter = made.save(r=4, lora_alpha=6)
    assert_merged(made, adapter)
    assert not np.allclose(reference_vectors(made.base), reference_vectors(tmp_path / "merged"), atol=0.01)


def test_numbers_by_hand(tmp_path: Path) -> None:
    made = Made(tmp_path)
    base = made.wanted[f"{QUERY.format(0)}.weight"].clone()
    made.linear(QUERY.format(0), 2, 1.5)
    front = FRONT + QUERY.format(0)
    made.tensors = {
        f"{front}.lora_A.weight": torch.tensor([[1.0] + [0.0] * 23, [0.0, 2.0] + [0.0] * 22]),
        f"{front}.lora_B.weight": torch.tensor([[3.0, 0.0], [0.0, 5.0]] + [[0.0, 0.0]] * 22),
    }
    found = tensors_of(made.save(r=2, lora_alpha=3, target_modules=QUERY.format(0).replace(".", r"\.")))
    change = found[f"{QUERY.format(0)}.weight"] - base.numpy()
    wanted = np.zeros((24, 24))
    wanted[0, 0], wanted[1, 1] = 4.5, 15.0  # 3 / 2 of 3 * 1 and 5 * 2
    np.testing.assert_allclose(change, wanted, atol=1e-6)


def test_ranks_and_scales_by_pattern(tmp_path: Path) -> None:
    made = Made(tmp_path)
    # The first pattern that fits counts; a pattern is the end of a name, or all of it behind ^.
    ranks = {"layer.1.attention.self.query": 2, "query": 3, r"^encoder\.layer\.0\.attention\.self\.value": 5}
    alphas = {r"layer\.[01]\.attention\.self\.query": 7, "value": 1.5}
    for layer, (query, value, alpha) in enumerate(((3, 5, 7.0), (2, 8, 7.0), (3, 8, 4.0))):
        made.linear(QUERY.format(layer), query, alpha / query)
        made.linear(f"encoder.layer.{layer}.attention.self.value", value, 1.5 / value)
    assert_merged(made, made.save(lora_alpha=4, rank_pattern=ranks, alpha_pattern=alphas))


def test_rank_stabilized_scale(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values(rank=3, scale=8 / math.sqrt(3))
    assert_merged(made, made.save(r=3, use_rslora=True))


def test_tables_of_vectors(tmp_path: Path) -> None:
    made = Made(tmp_path).table("embeddings.word_embeddings", 4, 2.0).table("embeddings.position_embeddings", 4, 2.0)
    names = ["word_embeddings", "position_embeddings"]
    # peft saves a table that is aimed at as it was, too.
    made.tensors[f"{FRONT}embeddings.word_embeddings.base_layer.weight"] = made.model.embeddings.word_embeddings.weight
    assert_merged(made, made.save(r=4, target_modules=names))


@pytest.mark.parametrize("wrapped", [".base_layer", ""], ids=["as now", "before peft 0.6"])
def test_biases(tmp_path: Path, wrapped: str) -> None:
    made = Made(tmp_path).queries_and_values()
    made.whole(f"{QUERY.format(1)}.bias", f"{QUERY.format(1)}{wrapped}.bias")
    made.whole("encoder.layer.2.output.LayerNorm.bias")
    assert_merged(made, made.save(bias="all"))


def test_bias_of_b(tmp_path: Path) -> None:
    made = Made(tmp_path).linear(QUERY.format(0), 8, 2.0)
    shift = random(24, seed=5)
    made.tensors[f"{FRONT}{QUERY.format(0)}.lora_B.bias"] = shift
    made.wanted[f"{QUERY.format(0)}.bias"] += 2.0 * shift
    made.save(lora_alpha=16, lora_bias=True, target_modules=["query"], layers_to_transform=0)
    assert_merged(made, made.adapter)


def test_modules_saved_whole(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    for part in ("weight", "bias"):
        made.whole(f"encoder.layer.2.output.dense.{part}")
    # What peft leaves there with bias="all": the same again, and what was before.
    name = f"{FRONT}encoder.layer.2.output.dense"
    made.tensors[f"{name}.modules_to_save.default.bias"] = made.tensors[f"{name}.bias"].clone()
    made.tensors[f"{name}.original_module.bias"] = torch.zeros(24)
    assert_merged(made, made.save(modules_to_save=["layer.2.output.dense"]))


def test_some_layers(tmp_path: Path) -> None:
    made = Made(tmp_path).linear(QUERY.format(0), 8, 1.0).linear(QUERY.format(2), 8, 1.0)
    made.save(target_modules=["query"], layers_to_transform=[0, 2], layers_pattern="layer")
    assert_merged(made, made.adapter)


@pytest.mark.parametrize(
    "targets", [r".*\.(query|value)", "all-linear", ["self.query", "encoder.layer.1.attention.self.value", "value"]]
)
def test_modules_by_pattern_by_end_and_all(tmp_path: Path, targets: object) -> None:
    made = Made(tmp_path).queries_and_values()
    assert_merged(made, made.save(target_modules=targets))


def test_excluded_modules_are_not_missed(tmp_path: Path) -> None:
    made = Made(tmp_path).linear(QUERY.format(0), 8, 1.0)
    made.save(target_modules=["query"], exclude_modules=r".*layer\.[12]\..*")
    assert_merged(made, made.adapter)


def test_fan_in_fan_out_does_not_turn_a_plain_layer(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    assert_merged(made, made.save(fan_in_fan_out=True))


def test_a_torch_pickle(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    adapter = made.save()
    torch.save(load_file(made.file), adapter / "adapter_model.bin")
    made.file.unlink()
    assert_merged(made, adapter)


def test_numbers_of_an_adapter_that_are_not_finite_are_named_by_its_file(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    name = next(name for name in made.tensors if name.endswith("lora_B.weight"))
    made.tensors[name][0, 0] = torch.nan
    adapter = made.save()
    message = refusal(adapter)
    assert message.startswith(f"weight {name} in ")
    assert f"{made.file.name} is NaN or infinite in 1 of its " in message


def test_halves_are_merged_in_float32(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    # Rounded first, so that what torch adds in float32 is what is stored.
    rounded = {name: value.bfloat16() for name, value in made.tensors.items()}
    made = Made(tmp_path, base=made.base)
    for name, value in rounded.items():
        if name.endswith("lora_A.weight"):
            module = name.removeprefix(FRONT).removesuffix(".lora_A.weight")
            made.wanted[f"{module}.weight"] += rounded[name.replace("lora_A", "lora_B")].float() @ value.float()
    made.tensors = rounded
    assert_merged(made, made.save())


def test_an_adapter_of_a_model_with_a_task(tmp_path: Path) -> None:
    """Saved with the names of BertFor..., for a base that was saved without them."""
    made = Made(tmp_path).queries_and_values()
    made.tensors = {name.replace(FRONT, f"{FRONT}bert."): value for name, value in made.tensors.items()}
    # A layer of the task's head, which embeddings do not use.
    made.tensors[f"{FRONT}cls.predictions.transform.dense.lora_A.weight"] = torch.ones(8, 24)
    made.tensors[f"{FRONT}cls.predictions.transform.dense.lora_B.weight"] = torch.ones(24, 8)
    adapter = made.save(target_modules=["query", "value", "transform.dense"])
    assert_merged(made, adapter)
    notes = quick(adapter, tmp_path / "noted").notes
    assert any("left out: cls.predictions.transform.dense" in note for note in notes)


def test_a_sparse_encoder(tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    from fastembed_rt import SparseModel

    base = save_splade(tmp_path / "splade")
    made = Made(tmp_path, base=base).queries_and_values()
    quick(made.save(), tmp_path / "onnx")
    model = SparseEncoder(str(base), device="cpu")
    plain = model.encode(TEXTS, convert_to_sparse_tensor=False).numpy()
    inner = model[0].auto_model.bert
    inner.load_state_dict({name: value for name, value in made.wanted.items() if not name.startswith("pooler")})
    wanted = model.encode(TEXTS, convert_to_sparse_tensor=False).numpy()
    with SparseModel(tmp_path / "onnx") as sparse:
        found = np.zeros_like(wanted)
        for row, vector in zip(found, sparse.encode(TEXTS), strict=True):
            row[vector.indices] = vector.values
    close(found, wanted)
    assert not np.allclose(plain, wanted, atol=0.01)


def test_one_of_two_tied_matrices_is_refused(tmp_path: Path) -> None:
    made = Made(tmp_path, base=save_splade(tmp_path / "splade")).table("embeddings.word_embeddings", 8, 1.0)
    message = refusal(made.save(target_modules=["word_embeddings"]), UnsupportedCheckpointError)
    assert "bert.embeddings.word_embeddings.weight" in message
    assert "the word table and the last layer" in message


def test_a_table_under_two_names_is_refused(tmp_path: Path) -> None:
    made = Made(tmp_path, "t5").table("shared", 8, 1.0)
    message = refusal(made.save(target_modules=["shared"]), UnsupportedCheckpointError)
    assert "shared.weight, a table that the model holds under two names" in message


# --- where the base is -----------------------------------------------------------------------------------------------


def test_modules_of_the_base_count_where_the_adapter_has_none(tmp_path: Path) -> None:
    base = save_sentence_transformers(tmp_path / "st", pooling="cls", prompts={"query": "the new "})
    made = Made(tmp_path, base=base).queries_and_values()
    manifest = quick(made.save(), tmp_path / "onnx")
    assert (manifest.pooling, manifest.normalize, manifest.prompts["query"]) == (("cls",), True, "the new ")


def test_modules_of_the_adapter_count_where_it_has_some(tmp_path: Path) -> None:
    base = save_sentence_transformers(tmp_path / "st", pooling="cls")
    other = save_sentence_transformers(tmp_path / "other", pooling="max", max_seq_length=12)
    made = Made(tmp_path, base=base).queries_and_values()
    adapter = made.save()
    # As sentence-transformers saves a model with an adapter: all but config.json and the base's weights.
    for name in ("config.json", "model.safetensors"):
        (other / name).unlink()
    copied(other, tmp_path / "saved")
    for file in adapter.iterdir():
        file.rename(tmp_path / "saved" / file.name)
    manifest = quick(tmp_path / "saved", tmp_path / "onnx")
    assert (manifest.pooling, manifest.max_length, manifest.source.checkpoint) == (("max",), 12, "saved")
    close(tensors_of(tmp_path / "saved")[f"{QUERY.format(0)}.weight"], made.wanted[f"{QUERY.format(0)}.weight"].numpy())


def test_an_adapter_beside_a_model_is_merged_into_that(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    adapter = made.save(base_model_name_or_path="org/somewhere-else")
    for file in adapter.iterdir():
        copy = made.base / file.name
        copy.write_bytes(file.read_bytes())
    assert_merged(made, made.base)


def test_the_base_by_option(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    adapter = made.save(base_model_name_or_path="/home/somebody/models/base")
    message = refusal(adapter, ModelNotFoundError)
    assert "'/home/somebody/models/base'" in message
    assert "name it with --base" in message
    manifest = quick(adapter, tmp_path / "onnx", base=str(made.base))
    assert manifest.source.adapter is not None
    assert manifest.source.adapter.base == "base"


def test_the_manifest_says_adapter_and_base_and_their_hashes(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    first = quick(made.save(), tmp_path / "first").source
    assert first.adapter is not None
    assert (first.checkpoint, first.adapter.base, first.adapter.method) == ("adapter", "base", "lora")
    again = quick(made.save(lora_alpha=9), tmp_path / "again").source.adapter
    assert again is not None
    assert again.settings_sha256 != first.adapter.settings_sha256
    assert (again.sha256, again.base_sha256) == (first.adapter.sha256, first.adapter.base_sha256)
    tensors = load_file(made.base / "model.safetensors")
    tensors["embeddings.LayerNorm.bias"] += 1
    save_file(tensors, made.base / "model.safetensors", metadata={"format": "pt"})
    changed = quick(made.adapter, tmp_path / "changed").source
    assert changed.adapter is not None
    assert changed.adapter.base_sha256 != again.base_sha256
    assert changed.sha256 != first.sha256


@pytest.mark.usefixtures("short_gate")
def test_verified_without_peft_and_told_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "peft" else spec(name, *rest))
    made = Made(tmp_path).queries_and_values()
    done = export(str(made.save()), ExportOptions(output=tmp_path / "onnx"))
    assert "as merged at export, since peft is not installed" in done.manifest.parity["reference"]
    options = ExportOptions(base=str(made.base))
    assert check_again(tmp_path / "onnx", str(made.adapter), options, lambda _: None).parity["status"] == "passed"


# --- what is refused -------------------------------------------------------------------------------------------------


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


@pytest.mark.usefixtures("short_gate")
def test_several_adapters(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    both = tmp_path / "both"
    for name in ("legal", "medical"):
        copied(made.save(), both / name)
    assert "the adapters legal, medical" in refusal(both, UnsupportedCheckpointError)
    options = ExportOptions(output=tmp_path / "one", verify=False, adapter="medical")
    source = export(str(both), options).manifest.source
    assert source.adapter is not None
    assert (source.adapter.base, source.adapter.folder) == ("base", "medical")
    checked = check_again(tmp_path / "one", str(both), ExportOptions(), lambda _: None)
    assert checked.parity["status"] == "passed"


@pytest.mark.usefixtures("short_gate")
def test_an_adapter_of_several_beside_their_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Made(tmp_path).queries_and_values()
    made.save(base_model_name_or_path="somebody/who-is-not-asked")
    copied(made.adapter, made.base / "medical")
    made.linear(QUERY.format(0), 8, 1.0)
    said: list[str] = []
    export(str(made.base), ExportOptions(output=tmp_path / "plain", verify=False), said.append)
    assert "note: base holds the adapters medical; none is merged, --adapter names one" in said
    monkeypatch.chdir(tmp_path)
    done = export(str(made.base), ExportOptions(adapter="medical"))
    assert done.directory == Path("base-medical-onnx")
    adapter = done.manifest.source.adapter
    assert adapter is not None
    assert (adapter.base, adapter.folder, done.manifest.parity["status"]) == ("base", "medical", "passed")
    checked = check_again(done.directory, str(made.base), ExportOptions(), said.append)
    assert checked.parity["status"] == "passed"
    with EmbeddingModel(done.directory) as model, EmbeddingModel(tmp_path / "plain") as plain:
        apart = np.abs(model.encode(TEXTS) - plain.encode(TEXTS)).max()
    assert apart > 0.01
    with pytest.raises(InvalidInputError, match=r"no adapter in 'legal'.*there are medical"):
        export(str(made.base), ExportOptions(output=tmp_path / "no", adapter="legal"))
    with pytest.raises(InvalidInputError, match="there is no other base; leave --base out"):
        export(str(made.base), ExportOptions(output=tmp_path / "no", adapter="medical", base=str(made.base)))


@pytest.mark.usefixtures("short_gate")
def test_an_adapter_of_several_is_merged_into_the_transformer_that_modules_json_names(tmp_path: Path) -> None:
    """A config.json in the root is none of transformers': early versions of sentence-transformers wrote one there."""
    source = save_sentence_transformers(tmp_path / "source")
    if (source / "config.json").is_file():  # today's layout has the transformer in the root
        folder = source / "0_Transformer"
        folder.mkdir()
        for file in [file for file in source.iterdir() if file.is_file() and file.name != "modules.json"]:
            shutil.move(file, folder / file.name)
        modules = json.loads((source / "modules.json").read_text())
        modules[0]["path"] = "0_Transformer"
        write_json(source / "modules.json", modules)
    write_json(source / "config.json", {"__version__": {"sentence_transformers": "2.0.0"}})
    made = Made(tmp_path).queries_and_values()
    copied(made.save(), source / "medical")
    export(str(source), ExportOptions(output=tmp_path / "plain", verify=False))
    done = export(str(source), ExportOptions(output=tmp_path / "one", adapter="medical"))
    assert done.manifest.source.adapter is not None
    assert done.manifest.parity["status"] == "passed"
    with EmbeddingModel(tmp_path / "one") as model, EmbeddingModel(tmp_path / "plain") as plain:
        assert np.abs(model.encode(TEXTS) - plain.encode(TEXTS)).max() > 0.01


@pytest.mark.usefixtures("short_gate")
def test_an_adapter_for_queries_and_another_for_documents(tmp_path: Path) -> None:
    """Both on the weights beside their folders, which lie in the export once where no adapter changes them."""
    prompts = {"query": "query: ", "document": "the new "}
    source = save_sentence_transformers(tmp_path / "source", prompts=prompts)
    names = {"query": "asks", "document": "answers"}
    wanted = {}
    for k, (role, name) in enumerate(names.items()):
        made = Made(tmp_path / name, base=source).linear(QUERY.format(k), 4, 2.0)
        made.save(r=4, target_modules=QUERY.format(k).replace(".", r"\."))
        copied(made.adapter, source / name)
        merged = shutil.copytree(source, tmp_path / f"merged-{name}")
        made.model.load_state_dict(made.wanted)
        made.model.save_pretrained(merged)
        wanted[role] = reference_vectors(merged, prompt_name=role)
    chosen = ",".join(f"{role}={name}" for role, name in names.items())
    done = export(str(source), ExportOptions(output=tmp_path / "onnx", adapter=chosen))
    assert done.manifest.parity["status"] == "passed"
    with EmbeddingModel(tmp_path / "onnx") as model:
        close(model.encode_query(TEXTS), wanted["query"])
        close(model.encode_document(TEXTS), wanted["document"])
    assert np.abs(wanted["query"] - wanted["document"]).max() > 0.01
    checked = check_again(tmp_path / "onnx", str(source), ExportOptions(), lambda _: None)
    assert checked.parity["status"] == "passed"
    with pytest.raises(InvalidInputError, match=r"no adapter in 'legal'.*there are answers, asks"):
        export(str(source), ExportOptions(output=tmp_path / "no", adapter="query=legal,document=asks"))
    with pytest.raises(InvalidInputError, match="named for both"):
        export(str(source), ExportOptions(output=tmp_path / "no", adapter="document=asks,document=answers"))
    plain = save_transformers(tmp_path / "plain")
    copied(source / "asks", plain / "asks")
    message = refusal(plain, UnsupportedCheckpointError, adapter="query=asks,document=asks")
    assert "adapters for each role" in message


@pytest.mark.usefixtures("short_gate")
@pytest.mark.parametrize("head", [False, True])
def test_an_adapter_of_layers_stored_as_one(tmp_path: Path, head: bool) -> None:
    """As code on the hub names them, which adapters from before transformers 5 were made for."""
    base = save_transformers(tmp_path / "base", "nomic_bert")
    stored = load_file(base / "model.safetensors")
    name = "encoder.layers.1.attn.Wqkv"
    a, b = random(2, 24, seed=1), random(72, 2, seed=2)
    write_json(
        tmp_path / "adapter" / "adapter_config.json",
        {**SETTINGS, "base_model_name_or_path": str(base), "target_modules": r".*layers\.1\.attn\.Wqkv", "r": 2},
    )
    front = FRONT + name
    pieces = {f"{front}.lora_A.weight": a, f"{front}.lora_B.weight": b}
    if head:  # which the base does not have, as peft saves it for a task
        change_json(tmp_path / "adapter" / "adapter_config.json", modules_to_save=["classifier"])
        pieces[f"{FRONT}classifier.weight"] = random(2, 24, seed=3)
    save_file(pieces, tmp_path / "adapter" / FILE)
    found = tensors_of(tmp_path / "adapter")[f"{name}.weight"]
    np.testing.assert_allclose(found, (stored[f"{name}.weight"] + 4 * b @ a).numpy(), rtol=0, atol=2e-6)
    stored[f"{name}.weight"] += 4 * b @ a
    shutil.copytree(base, tmp_path / "merged")
    save_file(stored, tmp_path / "merged" / "model.safetensors", metadata={"format": "pt"})
    close(exported_vectors(tmp_path / "adapter", tmp_path / "out"), reference_vectors(tmp_path / "merged"))
    report = export(str(tmp_path / "adapter"), ExportOptions(output=tmp_path / "verified")).manifest.parity
    assert report["status"] == "passed"
    assert "merged at export, since it names layers that transformers 5 calls otherwise" in report["reference"]


def test_no_base_and_no_weights(tmp_path: Path) -> None:
    made = Made(tmp_path).queries_and_values()
    assert "names no base model; name it with --base" in refusal(made.save(base_model_name_or_path=None))
    made.file.unlink()
    assert "adapter_model.safetensors and adapter_model.bin" in refusal(made.adapter, base=str(made.base))


def test_a_base_for_what_is_no_adapter(tmp_path: Path) -> None:
    made = Made(tmp_path)
    assert "leave --base out" in refusal(made.base, InvalidInputError, base=str(made.base))
