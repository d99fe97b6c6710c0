"""LoRA adapters as peft writes them, made without it, and what their merge is, computed with torch alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
import transformers
from checkpoints import save_tokenizer, save_transformers, write_json
from safetensors.torch import save_file

# What peft 0.21 writes where nothing is chosen.
SETTINGS: dict[str, Any] = {
    "alora_invocation_tokens": None,
    "alpha_pattern": {},
    "arrow_config": None,
    "auto_mapping": {"base_model_class": "BertModel", "parent_library": "transformers.models.bert.modeling_bert"},
    "bias": "none",
    "corda_config": None,
    "ensure_weight_tying": False,
    "eva_config": None,
    "exclude_modules": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "init_lora_weights": True,
    "kasa_config": None,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_alpha": 8,
    "lora_bias": False,
    "lora_dropout": 0.0,
    "lora_ga_config": None,
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "modules_to_save": None,
    "monteclora_config": None,
    "peft_type": "LORA",
    "peft_version": "0.21.2",
    "qalora_group_size": 16,
    "r": 8,
    "rank_pattern": {},
    "revision": None,
    "target_modules": ["query", "value"],
    "target_parameters": None,
    "task_type": "FEATURE_EXTRACTION",
    "trainable_token_indices": None,
    "use_bdlora": None,
    "use_dora": False,
    "use_qalora": False,
    "use_rslora": False,
    "velora_config": None,
}
FRONT = "base_model.model."
Tensors = dict[str, torch.Tensor]


def random(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 0.3


class Made:
    """A base, an adapter for it, and the base's parameters with that adapter, which grows call by call."""

    def __init__(self, folder: Path, model_type: str = "bert", base: Path | None = None) -> None:
        self.base = base or save_transformers(folder / "base", model_type)
        self.model_type = model_type
        self.adapter = folder / "adapter"
        self.model = transformers.AutoModel.from_pretrained(self.base).float()
        self.wanted: Tensors = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.tensors: Tensors = {}

    def linear(self, module: str, rank: int, scale: float) -> Made:
        """Add a pair to a linear layer: W + scale * B @ A."""
        weight = self.wanted[f"{module}.weight"]
        seed = len(self.tensors)
        a, b = random(rank, weight.shape[1], seed=seed), random(weight.shape[0], rank, seed=seed + 1)
        self.tensors |= {f"{FRONT}{module}.lora_A.weight": a, f"{FRONT}{module}.lora_B.weight": b}
        for row in range(len(weight)):  # as the formula is written, entry by entry of B
            for k in range(rank):
                weight[row] += scale * b[row, k] * a[k]
        return self

    def table(self, module: str, rank: int, scale: float) -> Made:
        """Add a pair to a table of vectors: W + scale * (B @ A) transposed."""
        weight = self.wanted[f"{module}.weight"]
        seed = len(self.tensors)
        a, b = random(rank, weight.shape[0], seed=seed), random(weight.shape[1], rank, seed=seed + 1)
        self.tensors |= {f"{FRONT}{module}.lora_embedding_A": a, f"{FRONT}{module}.lora_embedding_B": b}
        for k in range(rank):
            weight += scale * torch.outer(a[k], b[:, k])
        return self

    def queries_and_values(self, rank: int = 8, scale: float = 1.0) -> Made:
        """The usual adapter of a BERT."""
        for layer in range(3):
            for part in ("query", "value"):
                self.linear(f"encoder.layer.{layer}.attention.self.{part}", rank, scale)
        return self

    def whole(self, name: str, stored: str = "") -> Made:
        """Replace a tensor; `stored` is what the adapter calls it."""
        self.wanted[name] = random(*self.wanted[name].shape, seed=len(self.tensors))
        self.tensors[FRONT + (stored or name)] = self.wanted[name].clone()
        return self

    def save(self, **said: Any) -> Path:
        """Write the adapter's directory."""
        write_json(
            self.adapter / "adapter_config.json", {**SETTINGS, "base_model_name_or_path": str(self.base), **said}
        )
        save_file({name: value.contiguous() for name, value in self.tensors.items()}, self.file)
        return self.adapter

    @property
    def file(self) -> Path:
        return self.adapter / "adapter_model.safetensors"

    def save_wanted(self, folder: Path) -> Path:
        """The merged model as an ordinary checkpoint."""
        self.model.load_state_dict(self.wanted)
        self.model.save_pretrained(folder)
        save_tokenizer(folder, self.model_type)
        return folder


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))
