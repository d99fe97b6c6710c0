"""The "new" encoder of gte-*-v1.5 in plain torch, from its paper (arXiv:2407.19669) and config.json, for comparison.

Self-contained: transformers copies this file beside the checkpoints that the tests write.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class NewConfig(PretrainedConfig):
    model_type = "new"

    def __init__(self, **settings: Any) -> None:
        self.hidden_size = 768
        self.type_vocab_size = 1
        self.layer_norm_eps = 1e-12
        self.hidden_act = "gelu"
        self.position_embedding_type = "rope"
        super().__init__(**settings)


def inverse_frequencies(config: NewConfig) -> torch.Tensor:
    """Turns a position of each pair; NTK scaling as in formulas (6), (12) and (13) of kexue.fm/archives/9706."""
    head = config.hidden_size // config.num_attention_heads
    exponents = torch.arange(0, head, 2).float() / head
    # transformers 5 gathers rope_theta and rope_scaling of config.json in rope_parameters.
    scaling: dict[str, Any] = config.rope_parameters or {}
    theta = float(scaling.get("rope_theta", 0.0) or getattr(config, "rope_theta", 10_000.0))
    if "factor" not in scaling:
        return 1.0 / theta**exponents
    factor, mixed = float(scaling["factor"]), scaling.get("mixed_b")
    if mixed is None:
        return 1.0 / (theta * factor) ** exponents / factor ** (2 / head)
    a = torch.tensor(factor).log() / (head / 2) ** mixed
    return 1.0 / theta**exponents / torch.exp(a * torch.arange(1, head // 2 + 1).float() ** mixed)


def turned(states: torch.Tensor, cosine: torch.Tensor, sine: torch.Tensor) -> torch.Tensor:
    """(B, N, S, D): the first half of the channels with the second as points in the plane."""
    left, right = states.chunk(2, dim=-1)
    return torch.cat([left * cosine - right * sine, right * cosine + left * sine], dim=-1)


class Attention(nn.Module):
    def __init__(self, config: NewConfig) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.qkv_proj = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.o_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, states: torch.Tensor, mask: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
        batch, length, width = states.shape
        angle = torch.arange(length).float()[:, None] * frequencies
        split = [
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.qkv_proj(states).chunk(3, -1)
        ]
        query, key = (turned(part, angle.cos(), angle.sin()) for part in split[:2])
        scores = query @ key.transpose(2, 3) / (width // self.heads) ** 0.5
        weights = scores.masked_fill(mask[:, None, None] == 0, -1e30).softmax(-1)
        return self.o_proj((weights @ split[2]).transpose(1, 2).reshape(batch, length, width))


class GatedFeedForward(nn.Module):
    def __init__(self, config: NewConfig) -> None:
        super().__init__()
        self.up_gate_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        up, gate = self.up_gate_proj(states).chunk(2, dim=-1)
        return self.down_proj(up * functional.gelu(gate))


class Layer(nn.Module):
    def __init__(self, config: NewConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.mlp = GatedFeedForward(config)
        self.attn_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: torch.Tensor, mask: torch.Tensor, frequencies: torch.Tensor) -> torch.Tensor:
        states = self.attn_ln(states + self.attention(states, mask, frequencies))
        return self.mlp_ln(states + self.mlp(states))


class NewModel(PreTrainedModel):
    config_class = NewConfig

    def __init__(self, config: NewConfig) -> None:
        super().__init__(config)
        words = nn.Embedding(config.vocab_size, config.hidden_size)
        norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.embeddings = nn.ModuleDict({"word_embeddings": words, "LayerNorm": norm})
        if config.type_vocab_size:
            self.embeddings["token_type_embeddings"] = nn.Embedding(config.type_vocab_size, config.hidden_size)
        self.encoder = nn.ModuleDict({"layer": nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))})
        self.post_init()

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
        **_: Any,
    ) -> BaseModelOutput:
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        states = self.embeddings["word_embeddings"](input_ids)
        if self.config.type_vocab_size:
            types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
            states = states + self.embeddings["token_type_embeddings"](types)
        states = self.embeddings["LayerNorm"](states)
        frequencies = inverse_frequencies(self.config)
        for layer in self.encoder["layer"]:
            states = layer(states, mask, frequencies)
        return BaseModelOutput(last_hidden_state=states)
