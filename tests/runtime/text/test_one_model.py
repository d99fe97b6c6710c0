"""Tokenizers of one file that cut differently have its vocabulary once, and the ids of one that is read again."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tokenizer_texts import DATA, HAS_DATA, nasty_texts, real_texts
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors

from fastembed_rt import EmbeddingModel
from fastembed_rt.text import library
from fastembed_rt.text.library import on_the_same_model
from fastembed_rt.text.tokenizer import TextTokenizer

TEXTS = ["the cat", "<x>the</y> Z <z> [M]cat", "", "cat " * 20, "a<y>b"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    words = {word: k for k, word in enumerate(["[U]", "the", "cat", "<y>", "[C]", "a", "b"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[U]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="[C] $A", special_tokens=[("[C]", 4)])
    tokenizer.add_special_tokens(["[C]", AddedToken("<x>", lstrip=True)])
    tokenizer.add_tokens([AddedToken("<y>", rstrip=True), AddedToken("Z", single_word=True, normalized=True)])
    tokenizer.add_special_tokens([AddedToken("[M]", normalized=True)])
    tokenizer.add_tokens(["<z>"])
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=9)
    path = tmp_path / "tokenizer.json"
    tokenizer.save(str(path))
    return path


def test_another_tokenizer_on_the_same_model_is_one_that_is_read_again(file: Path) -> None:
    first, again = Tokenizer.from_file(str(file)), Tokenizer.from_file(str(file))
    made = on_the_same_model(first)
    again.no_truncation()
    again.no_padding()
    assert json.loads(made.to_str()) == json.loads(again.to_str())
    for mine, wanted in zip(made.encode_batch(TEXTS), again.encode_batch(TEXTS), strict=True):
        assert (mine.ids, mine.offsets, mine.special_tokens_mask) == (
            wanted.ids,
            wanted.offsets,
            wanted.special_tokens_mask,
        )


@pytest.mark.skipif(not HAS_DATA, reason="no tokenizers: FASTEMBED_RT_DATA names the data folder")
def test_real_files_too() -> None:
    texts = [*nasty_texts()[::3], *real_texts()[::400]]
    found = 0
    for path in sorted((DATA / "tokenizers").glob("**/tokenizer.json"), key=lambda path: path.stat().st_size)[:6]:
        first, again = Tokenizer.from_file(str(path)), Tokenizer.from_file(str(path))
        made = on_the_same_model(first)
        for tokenizer in (made, again):
            tokenizer.no_truncation()
            tokenizer.no_padding()
        assert [row.ids for row in made.encode_batch(texts)] == [row.ids for row in again.encode_batch(texts)], path
        found += 1
    assert found


def test_the_file_is_read_once_for_any_limit_side_and_policy(file: Path) -> None:
    reads: list[int] = []

    def read() -> bytes:
        reads.append(1)
        return file.read_bytes()

    tokenizer = TextTokenizer(file, max_length=4, read=read)
    kinds = [
        *(tokenizer, tokenizer.with_max_length(3), tokenizer.with_policy("chunk"), tokenizer.with_policy(side="left")),
        tokenizer.with_policy("error").with_max_length(12).with_policy("truncate", "left"),
    ]
    again = Tokenizer.from_file(str(file))
    again.no_padding()
    again.no_truncation()
    whole = [len(row.ids) for row in again.encode_batch(TEXTS)]
    for kind in kinds:
        assert list(kind.count(TEXTS)) == whole
        assert kind(["the cat the cat the cat"]).ids[0][0] == 4
    assert [list(kind(["the cat a"]).ids[0]) for kind in kinds[1:4]] == [[4, 1, 2], [4, 1, 2, 5], [4, 1, 2, 5]]
    assert list(kinds[1].with_policy(side="left")(["the cat a"]).ids[0]) == [4, 2, 5]
    assert len(reads) == 1
    models_of = [made for kind in kinds for made in (kind._library.limited.model, kind._library.free.model)]
    models_of[0].unk_token = "the"
    assert {model.unk_token for model in models_of} == {"the"}, "one model"
    assert tokenizer.another().model.unk_token == "[U]", "of its own: it may be changed"


def test_a_model_that_cuts_counts_and_encodes_whole_has_one_vocabulary(
    model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[int] = []

    class Watched:
        def __new__(cls, model: Any) -> Any:
            return Tokenizer(model)

        @staticmethod
        def from_buffer(content: bytes) -> Tokenizer:
            read.append(len(content))
            return Tokenizer.from_buffer(content)

    monkeypatch.setattr("tokenizers.Tokenizer", Watched)
    text = "\u732b the cat " * 60  # a letter that is the library's
    with EmbeddingModel(model_dir, truncation="chunk") as model:
        model.encode([text, "a"])
        assert int(model.count_tokens([text])[0]) > model.max_length
        model.max_length = 8
        model.encode(text)
    assert len(read) == 1


def test_threads_that_come_first_at_once_have_one_model(file: Path) -> None:
    both = threading.Barrier(2)

    def read() -> bytes:
        if threading.current_thread() is not threading.main_thread():
            both.wait(10)
        return file.read_bytes()

    tokenizer = TextTokenizer(file, max_length=4, read=read)
    tokenizer._library.content = None  # each reads it again
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda _: tokenizer._library._uncutting(), range(2)))
    found[0].model.unk_token = "the"
    assert [made.model.unk_token for made in [*found, *tokenizer._library._first]] == ["the"] * 3


def test_what_cannot_be_made_alike_is_read_again(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_added", lambda _: object())
    assert on_the_same_model(Tokenizer.from_file(str(file))) is None
    tokenizer = TextTokenizer(file, max_length=4)
    assert list(tokenizer.count(["cat " * 20])) == [21]
    assert len(tokenizer(["cat " * 20]).ids[0]) == 4
    tokenizer._library.limited.model.unk_token = "the"
    assert tokenizer._library.free.model.unk_token == "[U]"
