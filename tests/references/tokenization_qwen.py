"""A fast tokenizer as checkpoints of gte-Qwen2 bring it in code of their own: it ends texts if it is told to.

Self-contained: copied beside the checkpoints that the tests write.
"""

from __future__ import annotations

from typing import Any

from tokenizers import processors
from transformers import TokenizersBackend
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer as Original


class Qwen2TokenizerFast(Original):
    def __init__(self, *args: Any, add_eos_token: bool = False, **options: Any) -> None:
        super().__init__(*args, **options)
        self.add_eos_token = add_eos_token

    @property
    def add_eos_token(self) -> bool:
        return bool(self._add_eos_token)

    @add_eos_token.setter
    def add_eos_token(self, value: bool) -> None:
        self._add_eos_token = value
        self.update_post_processor()

    def update_post_processor(self) -> None:
        if not self.add_eos_token:
            self._tokenizer.post_processor = processors.TemplateProcessing(single="$A:0", pair="$A:0 $B:1")
            return
        end = str(self.eos_token)
        self._tokenizer.post_processor = processors.TemplateProcessing(
            single=f"$A:0 {end}:0",
            pair=f"$A:0 {end}:0 $B:1 {end}:1",
            special_tokens=[(end, self._tokenizer.token_to_id(end))],
        )


assert issubclass(Original, TokenizersBackend)
