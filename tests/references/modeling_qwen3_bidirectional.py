"""Qwen3 that sees both ways, and a linear layer behind it: transformers' own layers, a mask of the padding alone.

Self-contained: transformers copies this file beside the checkpoints that the tests write.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import Qwen3Config, Qwen3Model, Qwen3PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput


class Qwen3BidirectionalConfig(Qwen3Config):
    model_type = "qwen3"


class Qwen3BidirectionalModel(Qwen3PreTrainedModel):
    config_class = Qwen3BidirectionalConfig

    def __init__(self, config: Qwen3BidirectionalConfig) -> None:
        super().__init__(config)
        self.model = Qwen3Model(config)
        self.linear = nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> BaseModelOutput:
        states = self.model.embed_tokens(input_ids)
        turns = self.model.rotary_emb(states, torch.arange(input_ids.shape[1])[None])
        unseen = torch.zeros(attention_mask.shape, dtype=states.dtype)
        unseen = unseen.masked_fill(attention_mask == 0, torch.finfo(states.dtype).min)[:, None, None]
        for layer in self.model.layers:
            given = layer.input_layernorm(states)
            states = states + layer.self_attn(given, position_embeddings=turns, attention_mask=unseen)[0]
            states = states + layer.mlp(layer.post_attention_layernorm(states))
        return BaseModelOutput(last_hidden_state=self.linear(self.model.norm(states)))
