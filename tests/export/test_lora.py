"""LoRA adapters merged into their base, beside a merge written out in torch."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from adapters import FRONT, SETTINGS, Made, random
from checkpoints import TEXTS, change_json, exported_vectors, reference_vectors, save_transformers, write_json
from exports import quick
from lora_merges import FILE, QUERY, assert_merged, refusal, tensors_of
from safetensors.torch import load_file, save_file
from sparse_encoders import save_splade
from tolerances import close

from fastembed_rt_export.errors import UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export


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
