"""Llama whose tokens see all of their text: transformers' own layers under a mask of the padding alone, for comparison.

Self-contained: transformers copies this file beside the checkpoints that the tests write.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, SequenceClassifierOutput


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


class LlamaBidirectionalForSequenceClassification(LlamaPreTrainedModel):
    """One layer over the mean of the tokens, or over one of them, divided by a temperature."""

    config_class = LlamaBidirectionalConfig

    def __init__(self, config: LlamaBidirectionalConfig) -> None:
        super().__init__(config)
        self.model = LlamaBidirectionalModel(config)
        self.score = torch.nn.Linear(config.hidden_size, config.num_labels, bias=False)
        self.post_init()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> SequenceClassifierOutput:
        states = self.model(input_ids, attention_mask).last_hidden_state
        counted, rows = attention_mask[..., None].to(states.dtype), torch.arange(len(states))
        places = torch.arange(input_ids.shape[1]) * attention_mask
        pooled = {
            "avg": (states * counted).sum(1) / counted.sum(1),
            "cls": states[rows, attention_mask.argmax(1)],
            "last": states[rows, places.argmax(1)],
        }[getattr(self.config, "pooling", "avg")]
        return SequenceClassifierOutput(logits=self.score(pooled) / getattr(self.config, "temperature", 1.0))
