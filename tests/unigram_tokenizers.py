"""Unigram tokenizers of few pieces, and what odd texts for them are made of."""

from __future__ import annotations

import io
import json
import random
from functools import cache
from typing import Any

import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from fastembed_rt.text.quick import Quick
from fastembed_rt.text.unigram import unigram

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
# What texts are made of: each group has characters that stand together with others, or are replaced, or both.
GROUPS = (
    *(
        " \t\n\r\xa0\u3000ab",
        "ae\u0301\u0323\u0302 ",
        "\xb2\xbd\u212b\u0301\u0327\xe9",
        "\u2581\u2581 a",
        "\x00\x01\x7f\x85a",
    ),
    *("\u0627\u0628\u0622\u064b\u0651\u0653 ", "\u05d0\u05d1\u05b0\u05bc", "\u0915\u095c\u093c\u094d\u0301\u0937"),
    *("\u200d\u200c\xa9\xae\ufe0f\u0301\u2764\U0001f525\U0001f469\U0001f3fd", "\uac00\uac01\u1100\u1161\u11a8\u0301"),
    *(
        "\u30ab\uff9e\u30cf\u309a\u3099",
        "\xad\u200b\u2028\u0600\u0627\u06dd",
        "\ufb01\u337f\ufdfa\u2122\u2460",
        "a!!==--.",
        "abc abc",
    ),
)


@cache
def characters() -> normalizers.Precompiled:
    """What sentencepiece replaces characters by."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["a cat sat"]), model_writer=made, vocab_size=12, hard_vocab_limit=False, minloglevel=2
    )
    model = sentencepiece_model_pb2.ModelProto.FromString(made.getvalue())  # type: ignore[attr-defined]
    return normalizers.Precompiled(model.normalizer_spec.precompiled_charsmap)


@cache
def few_pieces() -> list[tuple[str, float]]:
    """Of few letters and scores, so that words are cut in every way and ways are as good as others."""
    some = random.Random(0)
    letters = "\u2581\u2581abc\xe9\u0301=-!.\u0627\u0928\u732b"
    words = dict.fromkeys(["".join(some.choices(letters, k=some.randint(1, 4))) for _ in range(150)])
    return [(piece, 0.0) for piece in SPECIAL] + [
        (word, some.choice([-1.1, -2.3, -2.2000000000000001776, -3.3])) for word in words
    ]


def made(
    pieces: list[tuple[str, float]],
    normalizer: normalizers.Normalizer | None,
    *,
    apart: bool = True,
    added: tuple[str | AddedToken, ...] = (),
) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    mark = pre_tokenizers.Metaspace()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), mark]) if apart else mark
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens([*SPECIAL[:-1], AddedToken("<mask>", lstrip=True), *added])
    return tokenizer


def quick(tokenizer: Tokenizer, **changes: Any) -> Quick | None:
    described = json.loads(tokenizer.to_str())
    described["model"].update(changes.pop("model", {}))
    return unigram(json.dumps(described | changes).encode())
