"""JinaBERT v2 in plain torch, from its papers (arXiv:2310.19923, arXiv:2108.12409) and config.json, for comparison.

`qk_post_norm` gives the later version of its code. Self-contained: transformers copies this file beside the checkpoints
that the tests write.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class JinaBertConfig(PretrainedConfig):
    model_type = "bert"

    def __init__(self, **settings: Any) -> None:
        self.hidden_size = 768
        self.type_vocab_size = 2
        self.layer_norm_eps = 1e-12
        self.position_embedding_type = "alibi"
        self.feed_forward_type = "geglu"
        self.emb_pooler = "mean"
        self.qk_post_norm = False
        super().__init__(**settings)


def slopes(heads: int) -> list[float]:
    """2^(-8/n), 2^(-16/n), ...; for other numbers than powers of two, every second one of the next finer series too."""
    if math.log2(heads).is_integer():
        return [2 ** (-8 * step / heads) for step in range(1, heads + 1)]
    power = 2 ** math.floor(math.log2(heads))
    return slopes(power) + slopes(2 * power)[::2][: heads - power]


class SelfAttention(nn.Module):
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.normed = config.qk_post_norm
        self.heads = config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(3))
        if self.normed:
            self.layer_norm_q = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.layer_norm_k = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        batch, length, width = states.shape
        query, key, value = self.query(states), self.key(states), self.value(states)
        if self.normed:
            query, key = self.layer_norm_q(query), self.layer_norm_k(key)
        query, key, value = (part.view(batch, length, self.heads, -1).transpose(1, 2) for part in (query, key, value))
        place = torch.arange(length)
        away = (place[:, None] - place[None]).abs().float()
        scores = query @ key.transpose(2, 3) / (width // self.heads) ** 0.5
        scores = scores - torch.tensor(slopes(self.heads))[:, None, None] * away
        weights = scores.masked_fill(mask[:, None, None] == 0, -1e30).softmax(-1)
        return (weights @ value).transpose(1, 2).reshape(batch, length, width)


class FeedForward(nn.Module):
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.activation: Any = {"geglu": functional.gelu, "reglu": functional.relu}[config.feed_forward_type]
        self.later = config.qk_post_norm
        wide = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        narrow = nn.Linear(config.intermediate_size, config.hidden_size)
        if self.later:
            self.up_gated_layer, self.down_layer = wide, narrow
        else:
            self.gated_layers, self.wo = wide, narrow
            self.layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        if self.later:
            up, gate = self.up_gated_layer(states).chunk(2, dim=-1)
            return self.down_layer(up * self.activation(gate))
        gate, up = self.gated_layers(states).chunk(2, dim=-1)
        return self.layernorm(states + self.wo(self.activation(gate) * up))


class Layer(nn.Module):
    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__()
        self.later = config.qk_post_norm
        output = {"dense": nn.Linear(config.hidden_size, config.hidden_size)}
        output["LayerNorm"] = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = nn.ModuleDict({"self": SelfAttention(config), "output": nn.ModuleDict(output)})
        self.mlp = FeedForward(config)
        if self.later:
            self.layer_norm_1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
            self.layer_norm_2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        output: Any = self.attention["output"]
        attention: Any = self.attention["self"]
        mixed = output["LayerNorm"](states + output["dense"](attention(states, mask)))
        if not self.later:
            return self.mlp(mixed)
        mixed = self.layer_norm_1(states + mixed)
        return self.layer_norm_2(mixed + self.mlp(mixed))


class JinaBertModel(PreTrainedModel):
    config_class = JinaBertConfig

    def __init__(self, config: JinaBertConfig) -> None:
        super().__init__(config)
        tables = {
            "word_embeddings": nn.Embedding(config.vocab_size, config.hidden_size),
            "token_type_embeddings": nn.Embedding(config.type_vocab_size, config.hidden_size),
            "LayerNorm": nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps),
        }
        self.embeddings = nn.ModuleDict(tables)
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
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        words = self.embeddings["word_embeddings"](input_ids)
        states = self.embeddings["LayerNorm"](words + self.embeddings["token_type_embeddings"](types))
        for layer in self.encoder["layer"]:
            states = layer(states, mask)
        return BaseModelOutput(last_hidden_state=states)
