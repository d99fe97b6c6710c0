"""LoRA adapters that peft makes and saves, merged here and by peft: each weight, and vectors of peft's own layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from checkpoints import ENCODERS, OWN_CODE, TEXTS, exported_vectors, save_transformers
from cross_encoders import save_classifier
from tolerances import close

from fastembed_rt.errors import UnsupportedCheckpointError
from fastembed_rt.hub.resolve import Located, resolve_checkpoint
from fastembed_rt_export import tasks
from fastembed_rt_export.adapters.whole import whole
from fastembed_rt_export.architectures import ARCHITECTURES
from fastembed_rt_export.checkpoint.read import Checkpoint
from fastembed_rt_export.pipeline import ExportOptions, export

peft = pytest.importorskip("peft", reason="peft is not installed: pip install 'fastembed-rt[test]'")

QUICK = (
    "bert",
    "distilbert",
    "t5",
    "qwen3",
    "nomic_bert",
    "gte",
    "jina_embeddings_v3",
)  # of layers and names that differ most; the others are slow together
FAMILIES = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in ARCHITECTURES
    if name not in OWN_CODE
]


def find(name: str, revision: str | None) -> Located:
    return resolve_checkpoint(name, revision=revision, local_files_only=True)


def loaded(adapter: Path, **options: Any) -> Checkpoint:
    with whole(find(str(adapter), None), None, find, lambda _: None) as located:
        checkpoint = tasks.load(located.path, located.name, **options)
        for stored in checkpoint.stored.values():
            stored.load()  # while the files are there
        return checkpoint


def assert_as_peft_merges(adapter: Path, base: Any) -> int:
    """Every weight of the merged model as peft merges it; how many the adapter has changed."""
    before = {name: value.clone() for name, value in base.state_dict().items()}
    merged = peft.PeftModel.from_pretrained(base, str(adapter)).merge_and_unload().state_dict()
    changed = 0
    with whole(find(str(adapter), None), None, find, lambda _: None) as located:
        checkpoint = tasks.load(located.path, located.name)
        stored, prefix = checkpoint.stored, checkpoint.architecture.prefix
        for name, value in merged.items():
            found = stored.get(name) or stored.get(prefix + name) or stored.get(name.removeprefix(prefix))
            if found is None:  # a tied weight under its second name, a buffer
                assert torch.equal(value, before[name]), name
                continue
            np.testing.assert_allclose(found.load(), value.numpy(), rtol=0, atol=2e-6, err_msg=name)
            changed += not torch.equal(value, before[name])
    return changed


def saved(model: Any, folder: Path, **options: Any) -> Path:
    """An adapter of random numbers for a model."""
    torch.manual_seed(1)
    made = peft.get_peft_model(model, peft.LoraConfig(**{"init_lora_weights": False, **options}))
    with torch.no_grad():  # what peft would leave as it is in the base
        for name, value in made.named_parameters():
            if "modules_to_save.default" in name or (value.requires_grad and name.endswith("bias")):
                value.normal_(0.0, 0.3)
    made.save_pretrained(str(folder))
    return folder


def auto(base: Path, model_type: str = "bert") -> Any:
    return ENCODERS.get(model_type, transformers.AutoModel).from_pretrained(base).float().eval()


@pytest.mark.parametrize("model_type", FAMILIES)
def test_all_linear_layers_of_each_family(model_type: str, tmp_path: Path) -> None:
    base = save_transformers(tmp_path / "base", model_type)
    adapter = saved(auto(base, model_type), tmp_path / "adapter", target_modules="all-linear", r=3, lora_alpha=5)
    # SqueezeBERT has convolutions; its pooler is linear.
    assert assert_as_peft_merges(adapter, auto(base, model_type)) >= (1 if model_type == "squeezebert" else 6)


@pytest.mark.parametrize(
    "options",
    [
        {"target_modules": ["query", "value"], "r": 4, "rank_pattern": {"layer.1.attention.self.query": 2}},
        {"target_modules": ["query"], "alpha_pattern": {r"layer\.[02]\.attention.*": 3}, "use_rslora": True},
        {"target_modules": r".*layer\.1\..*(query|dense)", "lora_alpha": 5},
        {"target_modules": ["word_embeddings", "key"], "r": 5},
        {"target_modules": ["query"], "bias": "lora_only"},
        {"target_modules": ["query", "dense"], "bias": "all", "modules_to_save": ["pooler"]},
        {"target_modules": ["query"], "lora_bias": True},
        {"target_modules": ["query"], "modules_to_save": ["layer.2.output", "embeddings.LayerNorm"]},
        {"target_modules": ["query", "value"], "layers_to_transform": [0, 2]},
        {"target_modules": ["dense"], "layers_to_transform": 1, "layers_pattern": ["layer"]},
        {"target_modules": "all-linear", "exclude_modules": ["key"], "fan_in_fan_out": True},
        {"target_modules": ["query"], "init_lora_weights": "orthogonal"},
        {"target_modules": ["query"], "init_lora_weights": "gaussian", "bias": "all"},
    ],
    ids=lambda options: "-".join(key for key in options if key != "target_modules") or "targets",
)
def test_what_an_adapter_may_say(options: dict[str, Any], tmp_path: Path) -> None:
    base = save_transformers(tmp_path / "base")
    adapter = saved(auto(base), tmp_path / "adapter", **options)
    assert assert_as_peft_merges(adapter, auto(base)) >= 1


def test_vectors_of_peft_in_sentence_transformers(tmp_path: Path) -> None:
    """Not merged: its layers run beside the base's."""
    from sentence_transformers import SentenceTransformer

    base = save_transformers(tmp_path / "base")
    adapter = saved(auto(base), tmp_path / "adapter", target_modules=["query", "value", "word_embeddings"], r=4)
    model = SentenceTransformer(str(base), device="cpu")
    plain = model.encode(TEXTS)
    peft.PeftModel.from_pretrained(model[0].auto_model, str(adapter))
    wanted = model.encode(TEXTS)
    close(exported_vectors(adapter, tmp_path / "onnx"), wanted)
    assert not np.allclose(plain, wanted, atol=0.01)


@pytest.mark.usefixtures("short_gate")
def test_the_gate_compares_with_peft(tmp_path: Path) -> None:
    base = save_transformers(tmp_path / "base")
    adapter = saved(auto(base), tmp_path / "adapter", target_modules="all-linear")
    report = export(str(adapter), ExportOptions(output=tmp_path / "onnx")).manifest.parity
    assert report["status"] == "passed"
    assert f"applied by peft {peft.__version__}" in report["reference"]


@pytest.mark.usefixtures("short_gate")
def test_a_reranker_with_its_head_saved_whole(tmp_path: Path) -> None:
    base = save_classifier(tmp_path / "base")
    model = transformers.AutoModelForSequenceClassification.from_pretrained(base)
    adapter = saved(model, tmp_path / "adapter", target_modules=["query", "value"], task_type="SEQ_CLS")
    fresh = transformers.AutoModelForSequenceClassification.from_pretrained(base)
    assert assert_as_peft_merges(adapter, fresh) >= 8
    done = export(str(adapter), ExportOptions(output=tmp_path / "onnx"))
    assert (done.manifest.task, done.manifest.parity["status"]) == ("reranking", "passed")


@pytest.mark.parametrize("option", [{"use_dora": True}, {"init_lora_weights": "pissa"}, {"init_lora_weights": "olora"}])
def test_other_ways_are_refused(option: dict[str, Any], tmp_path: Path) -> None:
    base = save_transformers(tmp_path / "base")
    adapter = saved(auto(base), tmp_path / "adapter", target_modules=["query"], **option)
    with pytest.raises(UnsupportedCheckpointError, match=next(iter(option))):
        loaded(adapter)
