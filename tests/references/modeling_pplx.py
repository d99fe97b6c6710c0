"""Perplexity's Qwen3, whose tokens see all others: transformers' own layers, a mask of the padding alone.

Self-contained: transformers copies this file beside the checkpoints that the tests write.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen3Config, Qwen3Model
from transformers.modeling_outputs import BaseModelOutput


class PPLXQwen3Config(Qwen3Config):
    model_type = "bidirectional_pplx_qwen3"


class PPLXQwen3Model(Qwen3Model):
    config_class = PPLXQwen3Config

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> BaseModelOutput:
        states = self.embed_tokens(input_ids)
        turns = self.rotary_emb(states, torch.arange(input_ids.shape[1])[None])
        unseen = torch.zeros(attention_mask.shape, dtype=states.dtype)
        unseen = unseen.masked_fill(attention_mask == 0, torch.finfo(states.dtype).min)[:, None, None]
        for layer in self.layers:
            given = layer.input_layernorm(states)
            states = states + layer.self_attn(given, position_embeddings=turns, attention_mask=unseen)[0]
            states = states + layer.mlp(layer.post_attention_layernorm(states))
        return BaseModelOutput(last_hidden_state=self.norm(states))
