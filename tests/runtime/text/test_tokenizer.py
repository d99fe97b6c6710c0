"""Token ids, counts and pieces are those of transformers' tokenizer; what cannot be tokens is named and refused."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from checkpoints import BERT_SPECIAL, TEXTS
from hypothesis import given
from hypothesis import strategies as st

from fastembed_rt.errors import InvalidInputError, InvalidTypeError, ModelFormatError, TextTooLongError
from fastembed_rt.text.inputs import check_iterable, check_texts, check_unicode
from fastembed_rt.text.tokenizer import TextTokenizer, TruncationWarning

MAX_LENGTH = 16
LONG = "the cat runs under a tree and sleeps : " * 5
ODD_TEXTS = [
    "",
    " \t\n\r ",
    "\0",
    "a\0cat\0",
    "\ufeffthe cat",
    "[CLS] the [MASK] cat [SEP] [PAD] [UNK]",
    "[cls]the[SEP]cat",
    "e\u0301t\u00e9 \u212b \ufb01",
    "\u202ecat\u200b dog\u00ad",
    "x" * 500,
    "東京 🙂‍↔️",
]
every_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=80)


@pytest.fixture(scope="module")
def hf(pair: Any) -> Any:
    """The checkpoint's tokenizer in transformers."""
    return transformers.AutoTokenizer.from_pretrained(pair.checkpoint)


@pytest.fixture(scope="module")
def make(pair: Any) -> Callable[..., TextTokenizer]:
    def make(max_length: int = MAX_LENGTH, truncation: str = "truncate") -> TextTokenizer:
        return TextTokenizer(pair.directory / "tokenizer.json", max_length=max_length, truncation=truncation)

    return make


@pytest.fixture(scope="module")
def tokenizer(make: Callable[..., TextTokenizer]) -> TextTokenizer:
    return make()


def ids_of(tokenizer: TextTokenizer, texts: list[str], prompt: str = "") -> list[list[int]]:
    return [row.tolist() for row in tokenizer(texts, prompt).ids]


@pytest.mark.parametrize("prompt", ["", "query : "])
def test_token_ids_are_those_of_transformers(tokenizer: TextTokenizer, hf: Any, prompt: str) -> None:
    texts = [*TEXTS, *ODD_TEXTS, LONG]
    wanted = hf([prompt + text for text in texts], truncation=True, max_length=MAX_LENGTH)["input_ids"]
    assert ids_of(tokenizer, texts, prompt) == wanted


@given(texts=st.lists(every_text, max_size=4))
def test_token_ids_of_any_text_are_those_of_transformers(tokenizer: TextTokenizer, hf: Any, texts: list[str]) -> None:
    wanted = hf(texts, truncation=True, max_length=MAX_LENGTH)["input_ids"] if texts else []
    assert ids_of(tokenizer, texts) == wanted


@pytest.mark.parametrize("prompt", ["", "query : "])
def test_tokens_are_counted_before_any_cut_as_transformers_counts(
    tokenizer: TextTokenizer, hf: Any, prompt: str
) -> None:
    texts = [*TEXTS, *ODD_TEXTS, LONG]
    counts = tokenizer.count(texts, prompt)
    assert counts.tolist() == [len(hf(prompt + text)["input_ids"]) for text in texts]
    assert counts.dtype == np.int64


def test_counting_does_not_change_where_texts_are_cut(tokenizer: TextTokenizer) -> None:
    before = ids_of(tokenizer, [LONG])
    tokenizer.count([LONG])
    assert ids_of(tokenizer, [LONG]) == before
    assert len(before[0]) == MAX_LENGTH


def test_special_tokens_written_in_a_text_are_special_tokens(tokenizer: TextTokenizer) -> None:
    (ids,) = ids_of(tokenizer, [" ".join(BERT_SPECIAL)])
    assert ids == [2, 0, 1, 2, 3, 4, 3]


def test_a_text_that_just_fits_is_not_counted_as_cut(make: Callable[..., TextTokenizer]) -> None:
    tokenizer = make(5)
    assert tokenizer(["the cat runs", "the cat runs quickly"]).truncated == 1


def test_cut_texts_are_counted_and_logged(tokenizer: TextTokenizer, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "fastembed_rt"):
        assert tokenizer(["a", LONG, "b", LONG]).truncated == 2
    assert "2 of 4 texts cut at 16 tokens" in caplog.text


def test_warn_cuts_and_says_how_long_the_first_such_text_is(make: Callable[..., TextTokenizer], hf: Any) -> None:
    with pytest.warns(TruncationWarning) as caught:
        tokenized = make(truncation="warn")(["a", LONG, LONG])
        tokenized.report()
    assert tokenized.truncated == 2
    assert [len(row) for row in tokenized.ids] == [3, MAX_LENGTH, MAX_LENGTH]
    tokens = len(hf(LONG)["input_ids"])
    (warning,) = caught
    assert f"text 1 has {tokens} tokens, 2 of 3 texts are over max_length 16" in str(warning.message)
    assert warning.filename == __file__


def test_warn_is_silent_about_texts_that_fit(make: Callable[..., TextTokenizer]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert make(truncation="warn")(["the cat"]).truncated == 0


def test_error_names_the_text_its_tokens_and_the_limit(make: Callable[..., TextTokenizer], hf: Any) -> None:
    tokenizer = make(truncation="error")
    tokens = len(hf("query : " + LONG)["input_ids"])
    with pytest.raises(
        TextTooLongError, match=rf"text 1 has {tokens} tokens.*max_length 16; .*for dense vectors also 'chunk'"
    ):
        tokenizer(["a", LONG], "query : ")
    with pytest.raises(TextTooLongError, match="text 101 has"):
        tokenizer(["a", LONG], first=100)
    assert tokenizer(["a"]).truncated == 0


def test_chunks_are_the_overflow_of_transformers(make: Callable[..., TextTokenizer], hf: Any) -> None:
    texts = ["a cat", LONG, "", LONG + LONG, "dog"]
    tokenized = make(truncation="chunk")(texts, "query : ")
    wanted = hf(
        ["query : " + text for text in texts], truncation=True, max_length=MAX_LENGTH, return_overflowing_tokens=True
    )
    assert [row.tolist() for row in tokenized.ids] == wanted["input_ids"]
    assert tokenized.owner.tolist() == wanted["overflow_to_sample_mapping"]
    assert (tokenized.texts, tokenized.truncated) == (len(texts), 0)
    assert len(tokenized.ids) > len(texts)


@pytest.mark.parametrize("prompt", ["query : ", "the [SEP]", "", "query", "x" * 300, "the cat " * 40])
def test_prompt_tokens_are_those_that_sentence_transformers_leaves_out(
    tokenizer: TextTokenizer, pair: Any, prompt: str
) -> None:
    # Its pooling leaves out the prompt's own tokens, less the special token at their end.
    ids = pair.reference.tokenizer(prompt, truncation=True, max_length=MAX_LENGTH)["input_ids"]
    assert tokenizer.prompt_tokens(prompt) == len(ids) - (ids[-1] in pair.reference.tokenizer.all_special_ids)


def test_padding_and_truncation_saved_in_the_file_are_ignored(tokenizer: TextTokenizer, tmp_path: Path) -> None:
    body = json.loads(tokenizer._path.read_text(encoding="utf-8"))
    body["padding"] = {
        "strategy": {"Fixed": 40},
        "direction": "Left",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    body["truncation"] = {"direction": "Left", "max_length": 4, "strategy": "LongestFirst", "stride": 1}
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(body), encoding="utf-8")
    altered = TextTokenizer(path, max_length=MAX_LENGTH)
    assert ids_of(altered, ["the cat", LONG]) == ids_of(tokenizer, ["the cat", LONG])
    assert altered.count(["the cat", LONG]).tolist() == tokenizer.count(["the cat", LONG]).tolist()


def test_threads_share_one_tokenizer(tokenizer: TextTokenizer) -> None:
    texts = [["the cat " * n, LONG] for n in range(64)]
    alone = [(ids_of(tokenizer, pair), tokenizer.count(pair).tolist()) for pair in texts]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda pair: (ids_of(tokenizer, pair), tokenizer.count(pair).tolist()), texts))
    assert together == alone


@pytest.mark.parametrize(("said", "calls"), [("true", 3), ("1", 3), ("false", 1), ("OFF", 1), ("0", 1)])
def test_one_core_takes_texts_one_by_one_unless_the_library_has_no_threads(
    make: Callable[..., TextTokenizer], monkeypatch: pytest.MonkeyPatch, said: str, calls: int
) -> None:
    tokenizer = make()
    library, seen = tokenizer._library.limited, []

    class Watched:
        def encode_batch_fast(self, texts: list[str]) -> Any:
            seen.append(list(texts))
            return library.encode_batch_fast(texts)

    monkeypatch.setattr(tokenizer._library, "_made_limited", Watched())
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", said)
    texts = ["the \u0e01", "\u0e02 runs", "a \u0e04"]
    found = tokenizer(texts, parallel=False)
    assert len(seen) == calls
    assert [row.tolist() for row in found.ids] == ids_of(make(), texts)


def test_parts_of_what_is_tokenized_together_are_what_each_gives_by_itself(tokenizer: TextTokenizer) -> None:
    together, alone = tokenizer(["the cat", "a dog runs", "a tree"]), tokenizer(["a dog runs", "a tree"])
    part = together.part(1, 3)
    assert [row.tolist() for row in part.ids] == [row.tolist() for row in alone.ids]
    assert part.owner.tolist() == alone.owner.tolist()
    assert (part.texts, part.tokens, part.truncated, part.warning) == (2, alone.tokens, 0, None)
    pairs = [("the cat", "runs"), ("a dog runs", "a tree"), ("a", "b c d e")]
    both, last = tokenizer.pairs(pairs).part(2, 3), tokenizer.pairs(pairs[2:])
    assert both.first_segments is not None
    assert last.first_segments is not None
    assert both.first_segments.tolist() == last.first_segments.tolist()


@pytest.mark.parametrize("truncation", ["cut", "", None, ["truncate"]])
def test_an_unknown_policy_names_the_known_ones(make: Callable[..., TextTokenizer], truncation: Any) -> None:
    with pytest.raises(InvalidInputError, match="known: truncate, warn, error, chunk"):
        make(truncation=truncation)


@pytest.mark.parametrize("max_length", [1, 2])
def test_special_tokens_alone_are_not_enough_room(make: Callable[..., TextTokenizer], max_length: int) -> None:
    with pytest.raises(InvalidInputError, match=f"max_length {max_length} leaves no room beside 2 special tokens"):
        make(max_length)


@pytest.mark.parametrize("content", ["", "{}", "not json", '{"version": "1.0", "model": {"type": "New"}}'])
def test_a_file_that_is_no_tokenizer_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        TextTokenizer(path, max_length=8)


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"tokenizer\.json cannot be read"):
        TextTokenizer(tmp_path / "tokenizer.json", max_length=8)


def generated() -> Iterator[str]:
    yield from ("a", "b")


@pytest.mark.parametrize(
    "inputs",
    [
        ["a", "b"],
        ("a", "b"),
        np.array(["a", "b"]),
        np.array(["a", "b"], dtype=object),
        generated(),
        {"a": 1, "b": 2}.keys(),
    ],
    ids=["list", "tuple", "array", "object array", "generator", "keys"],
)
def test_any_ordered_collection_of_texts_is_taken(inputs: Any) -> None:
    assert check_texts(inputs) == ["a", "b"]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "inputs are NoneType"),
        (5, "inputs are int"),
        (2.5, "inputs are float"),
        (b"ab", r"inputs are bytes; decode them .*\.decode"),
        (bytearray(b"ab"), "inputs are bytes"),
        ({"a": 1}, "inputs are dict"),
        ({"a"}, "inputs are set"),
        (frozenset("a"), "inputs are frozenset"),
        (np.array("ab"), "inputs are ndarray"),
        (["a", None], "text 1 is NoneType, expected str"),
        (["a", "b", 5], "text 2 is int, expected str"),
        (["a", b"b"], "text 1 is bytes, expected str; decode it first"),
        ([["a", "b"]], "text 0 is list, expected str"),
        ([("a", "b")], "text 0 is tuple, expected str"),
        (np.array([["a", "b"]]), "text 0 is ndarray, expected str"),
        (np.array([b"a"]), "text 0 is bytes, expected str; decode"),
        ([float("nan")], "text 0 is float, expected str"),
    ],
    ids=str,
)
def test_what_is_not_text_is_refused_by_kind_and_number(inputs: Any, message: str) -> None:
    with pytest.raises(InvalidTypeError, match=message) as caught:
        check_texts(inputs)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, ValueError)


def test_numbers_of_texts_start_where_they_are_told() -> None:
    with pytest.raises(InvalidTypeError, match="text 41 is NoneType"):
        check_texts(["a", None], 40)


@given(every_text, st.characters(categories=["Cs"]), every_text)
def test_a_lone_surrogate_is_named_with_its_place(before: str, surrogate: str, after: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        check_texts(["é", before + surrogate + after])
    assert f"text 1 has a lone surrogate U+{ord(surrogate):04X} at character {len(before)}" in str(caught.value)


@given(every_text)
def test_every_valid_text_passes(text: str) -> None:
    check_unicode(text, "text")
    assert check_texts([text]) == [text]


def test_an_endless_iterator_is_not_consumed_by_the_check() -> None:
    def endless() -> Iterator[str]:
        while True:
            yield "a"

    assert next(check_iterable(endless())) == "a"
