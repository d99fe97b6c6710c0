"""Chunks: places in the text, within the model's limit, and nothing of the text is lost between them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastembed_rt.errors import InvalidInputError
from fastembed_rt.search import chunks
from fastembed_rt.search.chunks import Chunker, sentences
from fastembed_rt.text.tokenizer import TextTokenizer

LIMIT = 16
PROMPT = "passage : "
PIECES = [
    "the cat sleeps",
    "a dog runs quickly",
    "über Bäume",
    "猫",
    "🐈‍⬛",
    ".",
    " ",
    "\n",
    "\n\n",
    "! ",
    "x" * 30,
    "\f",
    "。",
    "é",
]


@pytest.fixture(scope="module")
def tokenizer(model: Any) -> Any:
    return model.prepare(role="document").tokenizer


@pytest.fixture(scope="module")
def chunker(tokenizer: TextTokenizer) -> Chunker:
    return Chunker(tokenizer, PROMPT, LIMIT)


def check(text: str, chunker: Chunker, tokenizer: TextTokenizer) -> list[str]:
    """The chunks; all that is not white space is in one of them, in order, and none is longer than the limit."""
    places = chunker(text)
    found = [text[start:stop] for start, stop in places]
    assert all(0 <= start < stop <= len(text) for start, stop in places)
    assert all(before[1] <= after[0] for before, after in pairwise(places))
    assert all(chunk == chunk.strip() for chunk in found)
    assert "".join("".join(found).split()) == "".join(text.split())
    if found:
        counts = tokenizer.count(found, PROMPT)
        assert all(count <= LIMIT or len(chunk) == 1 for count, chunk in zip(counts.tolist(), found, strict=True))
    return found


@given(parts=st.lists(st.sampled_from(PIECES), max_size=120), letters=st.text(max_size=40))
def test_every_chunk_fits_and_nothing_is_lost(
    parts: list[str], letters: str, chunker: Chunker, tokenizer: TextTokenizer
) -> None:
    letters = letters.encode("utf-8", "ignore").decode()
    check("".join(parts) + letters, chunker, tokenizer)


def test_a_chunk_ends_at_the_best_break_of_its_second_half(chunker: Chunker, tokenizer: TextTokenizer) -> None:
    paragraphs = "the cat sleeps . the dog runs\n\nthe light . a new city light . the old tree"
    assert check(paragraphs, chunker, tokenizer)[0] == "the cat sleeps . the dog runs"
    flowing = "the cat sleeps . a dog runs under the old tree . the river"
    assert check(flowing, chunker, tokenizer)[0].endswith(".")
    lines = "the cat sleeps. a dog runs the old\ntree the. river the light the cat sleeps"
    code = [lines[start:stop] for start, stop in chunker(lines, code=True)]
    assert code[0] == "the cat sleeps. a dog runs the old"
    assert check(lines, chunker, tokenizer)[0].endswith("the.")


def test_a_text_without_a_token_has_no_chunk(chunker: Chunker) -> None:
    assert chunker("") == chunker(" \n\n\t ") == []


def test_long_texts_are_read_in_sections(
    chunker: Chunker, tokenizer: TextTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chunks, "SECTION", 500)
    check("a dog runs . " * 200, chunker, tokenizer)
    check("x" * 1200, chunker, tokenizer)
    check(" " * 500 + "a dog" + " " * 500, chunker, tokenizer)


def test_no_chunk_is_on_two_pages(chunker: Chunker, tokenizer: TextTokenizer) -> None:
    assert check("a dog\fa cat\f\f the house\n", chunker, tokenizer) == ["a dog", "a cat", "the house"]


def test_a_limit_without_room_is_refused(tokenizer: TextTokenizer) -> None:
    around = int(tokenizer.count([""], PROMPT)[0])
    with pytest.raises(InvalidInputError, match=f"chunks of {around} tokens have no room"):
        Chunker(tokenizer, PROMPT, around)
    assert Chunker(tokenizer, PROMPT, around + 1)("a dog") == [(0, 1), (2, 5)]


def test_sentences_end_at_marks_lines_and_paragraphs_but_not_where_an_editor_wrapped_a_line() -> None:
    text = (
        'He said "no." Then he went. 猫がいる。犬もいる。\n'
        "A long line that somebody's editor has wrapped after some sixty letters\nand that goes on here. End\n"
        "- one\n- two\n\n| a | b |"
    )
    assert [text[start:stop] for start, stop in sentences(text)] == [
        'He said "no."',
        "Then he went.",
        "猫がいる。",
        "犬もいる。",
        "A long line that somebody's editor has wrapped after some sixty letters\nand that goes on here.",
        "End",
        "- one",
        "- two",
        "| a | b |",
    ]
