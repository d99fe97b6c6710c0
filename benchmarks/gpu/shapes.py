"""Checkpoints of the usual sizes with random weights, and texts of exactly so many tokens; nothing is downloaded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

POSITIONS = 512
VOCABULARY = 30522
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
SPREAD = 0.05  # of the weights: wide enough that attention is not uniform and texts differ


@dataclass(frozen=True)
class Shape:
    """A BERT by its sizes."""

    name: str
    hidden: int
    layers: int
    heads: int
    vocabulary: int = VOCABULARY

    @property
    def intermediate(self) -> int:
        return 4 * self.hidden

    @property
    def weights(self) -> int:
        """Numbers in the matrices of all layers, which every run reads."""
        return self.layers * (4 * self.hidden**2 + 2 * self.hidden * self.intermediate)

    def operations(self, tokens: int) -> int:
        """Multiplications and additions of one text: the layers' products, and both products of attention."""
        return 2 * tokens * self.weights + self.layers * 4 * tokens * tokens * self.hidden


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("tiny", 32, 2, 4, vocabulary=400),  # for --dry-run
        Shape("minilm", 384, 6, 12),
        Shape("base", 768, 12, 12),
        Shape("large", 1024, 24, 16),
    )
}


def make(shape: Shape, directory: Path) -> Path:
    """A sentence-transformers checkpoint: BERT, mean pooling, normalization, words as tokens."""
    import torch
    import transformers
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        intermediate_size=shape.intermediate,
        max_position_embeddings=POSITIONS,
        initializer_range=SPREAD,
    )
    plain = directory / "transformers"
    plain.mkdir(parents=True)
    transformers.BertModel(config).eval().save_pretrained(plain)
    _save_tokenizer(plain, shape.vocabulary)
    transformer = Transformer(str(plain), max_seq_length=POSITIONS)
    modules: list[Any] = [transformer, Pooling(shape.hidden, pooling_mode="mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(directory / "checkpoint"))
    return directory / "checkpoint"


def texts(shape: Shape, lengths: Iterable[int], seed: int = 0) -> list[str]:
    """A text of each length in tokens, the two special ones included."""
    random = np.random.default_rng(seed)
    words = shape.vocabulary - len(SPECIAL)
    return [" ".join(f"w{word}" for word in random.integers(0, words, max(length - 2, 0))) for length in lengths]


def _save_tokenizer(directory: Path, vocabulary: int) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    pieces = {piece: number for number, piece in enumerate(SPECIAL)}
    pieces |= {f"w{number}": len(SPECIAL) + number for number in range(vocabulary - len(SPECIAL))}
    tokenizer = Tokenizer(models.WordLevel(pieces, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    around = [("[CLS]", pieces["[CLS]"]), ("[SEP]", pieces["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(directory / "tokenizer.json"))
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    body = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": POSITIONS, **names}
    (directory / "tokenizer_config.json").write_text(json.dumps(body), encoding="utf-8")
