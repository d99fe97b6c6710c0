"""Pairs of texts have the Rust library's rows, types and cuts, whether it makes them or not."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizer_texts import DATA, HAS_DATA, nasty_texts, real_texts
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fastembed_rt import native
from fastembed_rt.text import caps
from fastembed_rt.text.library import Library
from fastembed_rt.text.pairs import PairTemplate, template_of, without_end
from fastembed_rt.text.tokenizer import TextTokenizer, TruncationWarning

TOKENS = [("[CLS]", 2), ("[SEP]", 3), ("[X]", 4)]
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[X]", *"abc.", "ab", "##a", "##b", "##c", "##ca"]
PROCESSORS: dict[str, Any] = {
    "bert": processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", TOKENS),
    "mpnet": processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] [SEP] $B:1 [SEP]:1", TOKENS),
    "one type": processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B [SEP]", TOKENS),
    "none before": processors.TemplateProcessing("$A [SEP]", "$A [X]:1 $B:1", TOKENS),
    "of BERT": processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)),
    "of RoBERTa": processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)),
}
OTHERS: dict[str, Any] = {  # of which the library makes all rows
    "turned": processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $B [SEP] $A:1 [SEP]:1", TOKENS),
    "twice": processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 $A:1", TOKENS),
}
Rows = tuple[list[list[int]], list[int], int]
needs_native = pytest.mark.skipif(native.wordpiece() is None, reason="the operators are not compiled")


def library(processor: Any) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({word: k for k, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processor
    tokenizer.add_special_tokens(WORDS[:5])
    return tokenizer


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[Tokenizer], Path]:
    def save(tokenizer: Tokenizer) -> Path:
        path = tmp_path / "tokenizer.json"
        tokenizer.save(str(path))
        return path

    return save


def by_library(tokenizer: Tokenizer, pairs: Sequence[tuple[str, str]], limit: int, side: str) -> Rows:
    tokenizer.enable_truncation(limit, strategy="longest_first", direction=side)
    found = tokenizer.encode_batch(list(pairs))
    zeros = [encoding.type_ids.count(0) for encoding in found]
    return [encoding.ids for encoding in found], zeros, sum(bool(encoding.overflowing) for encoding in found)


def by_ours(tokenizer: TextTokenizer, pairs: Sequence[tuple[str, str]]) -> Rows:
    made = tokenizer.pairs(pairs)
    assert made.first_segments is not None
    return [row.tolist() for row in made.ids], made.first_segments.tolist(), made.truncated


@pytest.mark.parametrize("name", PROCESSORS)
@given(
    st.lists(st.tuples(*[st.text("ab.\u732b ", max_size=40)] * 2), min_size=1, max_size=12),
    st.integers(5, 24),
    st.sampled_from(["right", "left"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pairs_have_the_librarys_rows(
    saved: Callable[[Tokenizer], Path], name: str, pairs: list[tuple[str, str]], limit: int, side: str
) -> None:
    reference = library(PROCESSORS[name])
    mine = TextTokenizer(saved(reference), max_length=limit, truncation_side=side, of_pairs=True)
    assert by_ours(mine, pairs) == by_library(reference, pairs, limit, side)
    assert mine.count(pairs).tolist() == by_counts(reference, pairs)


def by_counts(tokenizer: Tokenizer, texts: Sequence[Any]) -> list[int]:
    tokenizer.no_truncation()
    return [len(encoding.ids) for encoding in tokenizer.encode_batch(list(texts))]


@needs_native
@pytest.mark.parametrize("name", PROCESSORS)
def test_plain_pairs_need_no_library(saved: Callable[[Tokenizer], Path], name: str) -> None:
    reference = library(PROCESSORS[name])
    pairs = [("a b", "c"), ("", ""), ("ab " * 9, "c a"), ("c", "b " * 30), ("a " * 9, "b " * 10)]
    mine = TextTokenizer(saved(reference), max_length=12, of_pairs=True)
    both = by_ours(mine, pairs), mine.count(pairs).tolist()
    assert mine._library._made_limited is None
    assert both == (by_library(reference, pairs, 12, "right"), by_counts(reference, pairs))


@pytest.mark.parametrize("name", OTHERS)
def test_other_templates_are_the_librarys(saved: Callable[[Tokenizer], Path], name: str) -> None:
    reference = library(OTHERS[name])
    assert template_of(json.loads(reference.to_str())["post_processor"]) is None
    if name == "turned":
        mine = TextTokenizer(saved(reference), max_length=12, of_pairs=True)
        pairs = [("a b", "c"), ("", "b")]
        assert by_ours(mine, pairs)[0] == by_library(reference, pairs, 12, "right")[0]


def test_a_template_tells_special_tokens_and_types() -> None:
    described = json.loads(library(PROCESSORS["mpnet"]).to_str())["post_processor"]
    made = template_of(described)
    assert isinstance(made, PairTemplate)
    sides = [side.tolist() for side in (made.front, made.between, made.behind)]
    assert (sides, made.special_zeros, made.second_is_zero, made.special) == ([[2], [3, 3], [3]], 3, False, 4)


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_do_not_depend_on_other_pairs(saved: Callable[[Tokenizer], Path], side: str) -> None:
    """A text that is in several pairs is looked at once; whole, where one of them asks for it."""
    some = random.Random(1)
    texts = ["a " * some.randint(0, 30) + some.choice(("b", "", "\u732b")) for _ in range(12)]
    pairs = [(left, right) for left in texts for right in texts]
    for limit in (9, 10):
        mine = TextTokenizer(saved(library(PROCESSORS["bert"])), max_length=limit, truncation_side=side, of_pairs=True)
        alone = [by_ours(mine, [pair])[0][0] for pair in pairs]
        assert by_ours(mine, pairs)[0] == alone


def test_warnings_and_errors_name_the_pair(saved: Callable[[Tokenizer], Path]) -> None:
    path = saved(library(PROCESSORS["bert"]))
    mine = TextTokenizer(path, max_length=8, truncation="warn", of_pairs=True)
    made = mine.pairs([("a", "b"), ("a " * 9, "b"), ("a " * 9, "\u732b")], first=10)
    assert made.warning is not None
    assert "text 11 has 13 tokens, 2 of 3 texts are over" in made.warning
    with pytest.warns(TruncationWarning):
        made.report()


def test_prompts_stand_before_the_first_text(saved: Callable[[Tokenizer], Path]) -> None:
    reference = library(PROCESSORS["bert"])
    mine = TextTokenizer(saved(reference), max_length=9, of_pairs=True)
    made = mine.pairs([("a", "b")], "c: ")
    assert made.ids[0].tolist() == reference.encode("c: a", "b").ids


FILLING = " b c" * 60 + (" " + "c" * 120) * 60  # unknown words: the library keeps what is cut, so there are few
LONG = [
    ("a b", "a" + FILLING),
    ("a" + FILLING, "a b"),
    ("a" + FILLING, "b" + FILLING[4:]),
    ("a " * 15, "b" + FILLING),
    ("a " * 11, "b" + FILLING),
    ("", "b" * 9000),
    ("a b", " " * 9000 + "a"),
    ("a b", "a b " + " " * 9000 + "c " * 50),
]


@pytest.mark.parametrize("limit", [12, 13, 25])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("by_the_library", [True, False])
def test_of_very_long_texts_the_beginnings_are_enough(
    saved: Callable[[Tokenizer], Path],
    monkeypatch: pytest.MonkeyPatch,
    limit: int,
    side: str,
    by_the_library: bool,
) -> None:
    """The library sees the beginnings alone."""
    seen: list[int] = []
    encode = Library.encode

    def watched(self: Library, texts: Any, *args: Any, **options: Any) -> Any:
        seen.extend(sum(map(len, pair)) for pair in texts)
        return encode(self, texts, *args, **options)

    monkeypatch.setattr(Library, "encode", watched)
    reference = library(PROCESSORS["bert"])
    made = TextTokenizer(
        saved(reference),
        max_length=limit,
        truncation_side=side,
        of_pairs=True,
    )
    if by_the_library:
        made._fast = None
    assert by_ours(made, LONG) == by_library(reference, LONG, limit, side)
    if by_the_library and side == "right":
        assert seen[0] < caps.long_from(limit) + 10, "the beginning was enough"
        assert max(seen) == max(sum(map(len, pair)) for pair in LONG), "one that was not"


@pytest.mark.skipif(not HAS_DATA, reason=f"no data in {DATA}")
@pytest.mark.parametrize("limit", [16, 33, 128])
def test_real_pairs_have_the_librarys_rows(limit: int) -> None:
    files = sorted((DATA / "tokenizers").glob("*/tokenizer.json"))
    assert files
    some = random.Random(limit)
    texts = [*some.sample(real_texts(), 250), *some.sample(nasty_texts(), 150)]
    pairs = [(some.choice(texts), some.choice(texts)) for _ in range(200)]
    for file in files:
        reference = Tokenizer.from_file(str(file))
        reference.no_padding()
        if reference.num_special_tokens_to_add(True) >= limit:
            continue
        mine = TextTokenizer(file, max_length=limit, of_pairs=True)
        assert by_ours(mine, pairs) == by_library(reference, pairs, limit, "right"), file
        assert mine.count(texts).tolist() == by_counts(reference, texts), file


@pytest.mark.parametrize(
    ("row", "wanted"),
    [([], []), ([7], [7]), ([5, 7], [5]), ([7, 5, 7, 7], [7, 5]), ([7, 7, 7], [7]), ([7, 5], [7, 5])],
)
def test_a_token_is_left_out_at_the_end_of_a_row(row: list[int], wanted: list[int]) -> None:
    assert without_end(np.array(row, np.int64), 7).tolist() == wanted
