"""Llama whose tokens see all of their text: transformers' own layers under a mask of the padding alone, for comparison.

Self-contained: transformers copies this file beside the checkpoints that the tests write.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaModel
from transformers.modeling_outputs import BaseModelOutput


class LlamaBidirectionalConfig(LlamaConfig):
    model_type = "llama_bidirec"


class LlamaBidirectionalModel(LlamaModel):
    config_class = LlamaBidirectionalConfig

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> BaseModelOutput:
        states = self.embed_tokens(input_ids)
        place = torch.arange(input_ids.shape[1])[None]
        turns = self.rotary_emb(states, place)
        unseen = torch.zeros(attention_mask.shape, dtype=states.dtype)
        unseen = unseen.masked_fill(attention_mask == 0, torch.finfo(states.dtype).min)[:, None, None]
        for layer in self.layers:
            states = layer(states, attention_mask=unseen, position_ids=place, position_embeddings=turns)
        return BaseModelOutput(last_hidden_state=self.norm(states))
