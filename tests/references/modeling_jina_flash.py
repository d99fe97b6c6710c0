"""Jina's XLM-RoBERTa in plain torch, from papers (arXiv:2409.10173, arXiv:2104.09864) and config.json, to compare with.

Its tensors have the names of the published checkpoints; the adapters of all tasks are parametrizations of torch's.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import parametrize


class TaskAdapter(nn.Module):
    """A LoRA for each task: the weight as it is, or with that of the task that was set."""

    def __init__(self, weight: torch.Tensor, tasks: int, rank: int, alpha: float, *, table: bool) -> None:
        super().__init__()
        rows, columns = weight.shape
        shapes = ((rows, rank), (rank, columns)) if table else ((rank, columns), (rows, rank))
        self.lora_A, self.lora_B = (nn.Parameter(torch.randn(tasks, *shape) * 0.3) for shape in shapes)
        self.table, self.scale = table, alpha / rank
        self.task: int | None = None

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        if self.task is None:
            return weight
        a, b = self.lora_A[self.task], self.lora_B[self.task]
        return weight + self.scale * (a @ b if self.table else b @ a)


class Mixer(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.Wqkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states: torch.Tensor, mask: torch.Tensor, base: float | None) -> torch.Tensor:
        batch, length, width = states.shape
        parts = self.Wqkv(states).view(batch, length, 3, self.heads, width // self.heads)
        query, key, value = (part.transpose(1, 2) for part in parts.unbind(2))
        if base is not None:
            query, key = turned(query, base), turned(key, base)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask[:, None, None].bool())
        return self.out_proj(mixed.transpose(1, 2).reshape(batch, length, width))


def turned(states: torch.Tensor, base: float) -> torch.Tensor:
    """(B, N, S, D): channel k and channel k + D/2 as points in the plane, turned by position / base^(2k/D)."""
    length, channels = states.shape[-2:]
    angles = torch.outer(torch.arange(length).float(), base ** (-torch.arange(0, channels, 2).float() / channels))
    left, right = states.chunk(2, -1)
    cosine, sine = angles.cos(), angles.sin()
    return torch.cat([left * cosine - right * sine, left * sine + right * cosine], -1)


class Mlp(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.approximate = "none" if config.hidden_act == "gelu" else "tanh"
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.gelu(self.fc1(states), approximate=self.approximate))


class Block(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.mixer, self.mlp = Mixer(config), Mlp(config)
        self.norm1, self.norm2 = (nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps) for _ in range(2))

    def forward(self, states: torch.Tensor, mask: torch.Tensor, base: float | None) -> torch.Tensor:
        states = self.norm1(states + self.mixer(states, mask, base))
        return self.norm2(states + self.mlp(states))


class Roberta(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        width = config.hidden_size
        tables = {"word_embeddings": nn.Embedding(config.vocab_size, width)}
        self.base = None if config.position_embedding_type == "absolute" else config.rotary_emb_base
        if self.base is None:
            tables["position_embeddings"] = nn.Embedding(config.max_position_embeddings, width)
        tables["token_type_embeddings"] = nn.Embedding(config.type_vocab_size, width)
        self.embeddings = nn.ModuleDict(tables)
        self.emb_ln = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))})
        self.pooler = nn.ModuleDict({"dense": nn.Linear(width, width)})

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, S) ids and mask -> (B, S, H)."""
        states = self.embeddings["word_embeddings"](ids)
        if self.base is None:
            pad = self.config.pad_token_id
            real = (ids != pad).long()
            states = states + self.embeddings["position_embeddings"](real.cumsum(1) * real + pad)
        states = self.emb_ln(states + self.embeddings["token_type_embeddings"](torch.zeros_like(ids)))
        for layer in self.encoder["layers"]:
            states = layer(states, mask, self.base)
        return states


class JinaXLMRoberta(nn.Module):
    """The encoder under `roberta.`; with adapters where config.json names tasks, with a head where it names labels."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__()
        config = SimpleNamespace(**settings)
        self.roberta = Roberta(config)
        if (labels := settings.get("num_labels")) is not None:
            width = config.hidden_size
            self.classifier = nn.ModuleDict({"dense": nn.Linear(width, width), "out_proj": nn.Linear(width, labels)})
        self.tasks = list(settings.get("lora_adaptations") or ())
        self.adapters: list[TaskAdapter] = []
        if self.tasks:
            for module in [one for one in self.modules() if isinstance(one, (nn.Linear, nn.Embedding))]:
                sizes = (len(self.tasks), config.lora_rank, config.lora_alpha)
                adapter = TaskAdapter(module.weight, *sizes, table=isinstance(module, nn.Embedding))
                parametrize.register_parametrization(module, "weight", adapter, unsafe=True)
                self.adapters.append(adapter)

    def set_task(self, task: str | None) -> None:
        """Adapt all weights to a task; None: as they are without one. A table of positions is never adapted."""
        for adapter in self.adapters:
            adapter.task = None if task is None else self.tasks.index(task)
        positions = getattr(self.roberta.embeddings, "position_embeddings", None) if self.roberta.base is None else None
        if positions is not None and self.adapters:
            positions.parametrizations.weight[0].task = None

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.roberta(ids, mask)

    def vectors(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Mean of the token states, normalized: (B, H)."""
        weights = mask[..., None].float()
        return functional.normalize((self(ids, mask) * weights).sum(1) / weights.sum(1), dim=-1)

    def logits(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """(B, labels)."""
        first = self.classifier["dense"](self(ids, mask)[:, 0]).tanh()
        return self.classifier["out_proj"](first)
