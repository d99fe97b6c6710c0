"""Tokenizers that give the tokens of a text types by a template of special tokens."""

from __future__ import annotations

from pathlib import Path

from checkpoints import change_json, save_tokenizer
from tokenizers import Tokenizer, processors


def tokenizer_with(directory: Path, template: str) -> Path:
    """A tokenizer that makes token types by this template of a single text."""
    save_tokenizer(directory, "bert")
    file = directory / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(file))
    special = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=template, pair=f"{template} $B:0", special_tokens=special
    )
    tokenizer.save(str(file))
    change_json(
        directory / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask", "token_type_ids"]
    )
    return directory
