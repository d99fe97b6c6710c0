"""The second NomicBERT in plain torch, from its paper (arXiv:2502.07972) and config.json, for comparison: experts one
token at a time.

Self-contained: transformers copies this file beside the checkpoints that the tests write.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class NomicMoeConfig(PretrainedConfig):
    model_type = "nomic_bert"

    def __init__(self, **settings: Any) -> None:
        self.n_embd, self.n_head, self.n_layer, self.n_inner = 768, 12, 12, 3072
        self.layer_norm_epsilon = 1e-5
        self.rotary_emb_base = 10000
        self.rotary_emb_fraction = 1.0
        self.activation_function = "gelu"
        self.num_experts, self.moe_top_k, self.moe_every_n_layers = 8, 2, 2
        super().__init__(**settings)

    @property
    def hidden_size(self) -> int:
        return self.n_embd

    @property
    def max_position_embeddings(self) -> int:
        return self.n_positions


class Attention(nn.Module):
    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.heads, self.base = config.n_head, config.rotary_emb_base
        self.Wqkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.out_proj = nn.Linear(config.n_embd, config.n_embd)

    def turned(self, states: torch.Tensor) -> torch.Tensor:
        size = states.shape[-1]
        turn = 1.0 / self.base ** (torch.arange(0, size, 2, dtype=torch.float32) / size)
        angle = torch.arange(states.shape[-2], dtype=torch.float32)[:, None] * turn
        left, right = states.chunk(2, dim=-1)
        cosine, sine = angle.cos(), angle.sin()
        return torch.cat([left * cosine - right * sine, right * cosine + left * sine], dim=-1)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, width = states.shape
        query, key, value = (
            part.view(batch, length, self.heads, -1).transpose(1, 2) for part in self.Wqkv(states).chunk(3, dim=-1)
        )
        scores = self.turned(query) @ self.turned(key).transpose(2, 3) / (width // self.heads) ** 0.5
        scores = scores.masked_fill(mask[:, None, None] == 0, -torch.inf)
        return self.out_proj((scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, length, width))


class Plain(nn.Module):
    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.n_embd, config.n_inner)
        self.fc2 = nn.Linear(config.n_inner, config.n_embd)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return self.fc2(functional.gelu(self.fc1(states)))


class Router(nn.Module):
    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.layer = nn.Linear(config.n_embd, config.num_experts, bias=False)


class ExpertWeights(nn.Module):
    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.w1, self.w2 = (nn.Parameter(torch.zeros(config.num_experts * config.n_inner, config.n_embd)) for _ in "12")


class ExpertTensors(nn.Module):
    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.mlp = ExpertWeights(config)
        self.bias = nn.Parameter(torch.zeros(config.n_embd))


class Mixture(nn.Module):
    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.router, self.experts = Router(config), ExpertTensors(config)
        self.chosen, self.wide = config.moe_top_k, config.n_inner

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        rows = [self.of_token(token) for token in states.reshape(-1, states.shape[-1])]
        return torch.stack(rows).reshape(states.shape)

    def of_token(self, token: torch.Tensor) -> torch.Tensor:
        shares, experts = self.router.layer(token).softmax(-1).topk(self.chosen)
        total = self.experts.bias
        for share, expert in zip(shares, experts.tolist(), strict=True):
            rows = slice(expert * self.wide, (expert + 1) * self.wide)
            wide = functional.gelu(self.experts.mlp.w1[rows] @ token)
            total = total + share * (wide @ self.experts.mlp.w2[rows])
        return total


class Layer(nn.Module):
    def __init__(self, config: NomicMoeConfig, index: int) -> None:
        super().__init__()
        experts = config.num_experts > 0 and index % config.moe_every_n_layers == 1
        self.attn = Attention(config)
        self.mlp = Mixture(config) if experts else Plain(config)
        self.norm1, self.norm2 = (nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon) for _ in range(2))

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        states = self.norm1(states + self.attn(states, mask))
        return self.norm2(states + self.mlp(states))


class NomicMoeModel(PreTrainedModel):
    config_class = NomicMoeConfig

    def __init__(self, config: NomicMoeConfig, **_: Any) -> None:
        super().__init__(config)
        self.embeddings = nn.ModuleDict(
            {
                "word_embeddings": nn.Embedding(config.vocab_size, config.n_embd),
                "token_type_embeddings": nn.Embedding(config.type_vocab_size, config.n_embd),
            }
        )
        self.emb_ln = nn.LayerNorm(config.n_embd, eps=config.layer_norm_epsilon)
        self.encoder = nn.ModuleDict({"layers": nn.ModuleList(Layer(config, k) for k in range(config.n_layer))})
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> BaseModelOutput:
        states = self.embeddings["word_embeddings"](input_ids) + self.embeddings["token_type_embeddings"].weight[0]
        states = self.emb_ln(states)
        for layer in self.encoder["layers"]:
            states = layer(states, attention_mask)
        return BaseModelOutput(last_hidden_state=states)
