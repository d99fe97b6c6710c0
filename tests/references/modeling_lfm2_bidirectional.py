"""LFM2 that sees both ways: transformers' own layers, convolutions around each token, a mask of the padding alone.

Self-contained: transformers copies this file beside the checkpoints that the tests write.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import Lfm2Config, Lfm2Model
from transformers.modeling_outputs import BaseModelOutput


class Lfm2BidirectionalConfig(Lfm2Config):
    model_type = "lfm2"


class Around(nn.Module):
    """The gated convolution over as many tokens before as behind."""

    def __init__(self, config: Lfm2Config) -> None:
        super().__init__()
        width, taps = config.hidden_size, config.conv_L_cache
        self.conv = nn.Conv1d(width, width, taps, groups=width, bias=config.conv_bias, padding=taps // 2)
        self.in_proj = nn.Linear(width, 3 * width, bias=config.conv_bias)
        self.out_proj = nn.Linear(width, width, bias=config.conv_bias)

    def forward(self, states: torch.Tensor, there: torch.Tensor) -> torch.Tensor:
        b, c, x = self.in_proj(states * there).chunk(3, dim=-1)
        return self.out_proj(c * self.conv((b * x * there).transpose(1, 2)).transpose(1, 2))


class Lfm2BidirectionalModel(Lfm2Model):
    config_class = Lfm2BidirectionalConfig

    def __init__(self, config: Lfm2BidirectionalConfig) -> None:
        super().__init__(config)
        for layer in self.layers:
            if not layer.is_attention_layer:
                layer.conv = Around(config)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> BaseModelOutput:
        states = self.embed_tokens(input_ids)
        place = torch.arange(input_ids.shape[1])[None]
        turns, there = self.rotary_emb(states, place), attention_mask[..., None].to(states.dtype)
        unseen = torch.zeros(attention_mask.shape, dtype=states.dtype)
        unseen = unseen.masked_fill(attention_mask == 0, torch.finfo(states.dtype).min)[:, None, None]
        for layer in self.layers:
            normed = layer.operator_norm(states)
            if layer.is_attention_layer:
                states = states + layer.self_attn(normed, turns, unseen)[0]
            else:
                states = states + layer.conv(normed, there)
            states = states + layer.feed_forward(layer.ffn_norm(states))
        return BaseModelOutput(last_hidden_state=self.embedding_norm(states))
