"""Texts over the model's length: cut, warned of, refused or taken in pieces."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from model_texts import LONG, MAX_LENGTH, SOME, Vectors, assert_same, small_windows, unit

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError, InvalidTypeError, TextTooLongError
from fastembed_rt.text.tokenizer import TruncationWarning


def test_truncate_cuts_and_counts(pair: Any, reference: Any) -> None:
    with EmbeddingModel(pair.directory) as model, warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.truncation == "truncate"
        assert (model.stats.texts, model.stats.tokens, model.stats.truncated) == (0, 0, 0)
        assert_same(model.encode([LONG, "a cat", LONG]), reference.encode([LONG, "a cat", LONG]))
        assert (model.stats.texts, model.stats.tokens, model.stats.truncated) == (3, MAX_LENGTH + 4 + MAX_LENGTH, 2)
        list(model.embed(["dog", LONG]))
        assert (model.stats.texts, model.stats.truncated) == (5, 3)


@pytest.mark.parametrize("call", ["encode", "encode_query", "encode_document", "embed"])
def test_warn_points_at_the_line_that_encoded(pair: Any, call: str) -> None:
    with EmbeddingModel(pair.directory, truncation="warn") as model, pytest.warns(TruncationWarning) as caught:
        for _ in getattr(model, call)(["a", LONG]):
            pass
    (warning,) = caught
    assert warning.filename == __file__
    assert "text 1 has" in str(warning.message)


def test_error_says_how_long_the_text_is(pair: Any, reference: Any) -> None:
    tokens = len(reference.tokenizer("query : " + LONG)["input_ids"])
    with EmbeddingModel(pair.directory, truncation="error") as model:
        with pytest.raises(TextTooLongError, match=f"text 1 has {tokens} tokens, .*max_length {MAX_LENGTH}"):
            model.encode(["a", LONG], prompt_name="query")
        assert model.stats.texts == 0
        assert_same(model.encode("a cat"), reference.encode("a cat"))


def test_errors_number_texts_from_the_beginning(pair: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch, 4)
    texts = ["a"] * 9
    with EmbeddingModel(pair.directory, truncation="error") as model:
        with pytest.raises(TextTooLongError, match="text 9 has"):
            model.encode([*texts, LONG])
        with pytest.raises(TextTooLongError, match="text 9 has"):
            list(model.embed([*texts, LONG]))
        with pytest.raises(InvalidTypeError, match="text 9 is NoneType"):
            list(model.embed([*texts, None]))  # type: ignore[list-item]
        with pytest.raises(InvalidInputError, match="text 9 has a lone surrogate"):
            list(model.embed([*texts, "\ud800"]))


def mean_of_chunks(pair: Any, text: str) -> Vectors:
    """The mean of the vectors of a text's pieces, straight from transformers."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(pair.checkpoint)
    encoder = transformers.AutoModel.from_pretrained(pair.checkpoint).eval()
    pieces = tokenizer(text, truncation=True, max_length=MAX_LENGTH, return_overflowing_tokens=True)["input_ids"]
    with torch.no_grad():
        states = [encoder(torch.tensor([ids])).last_hidden_state[0].numpy() for ids in pieces]
    mean: Vectors = np.mean([unit(rows.mean(axis=0)) for rows in states], axis=0)
    return mean


def test_chunk_takes_the_mean_of_the_pieces(pair: Any) -> None:
    texts = ["a cat", LONG, "", LONG + " dog", "light"]
    wanted = np.stack([mean_of_chunks(pair, text) for text in texts])
    with EmbeddingModel(pair.directory, truncation="chunk") as model:
        assert_same(model.encode(texts), unit(wanted))
        assert_same(model.encode(LONG), unit(wanted[1]))
        assert_same(model.encode(texts, truncate_dim=6), unit(unit(wanted)[:, :6]))
        prompted = mean_of_chunks(pair, "query : " + LONG)
        assert_same(model.encode(LONG, prompt_name="query"), unit(prompted))
        assert model.stats.truncated == 0


def test_chunks_after_the_first_hold_no_prompt_to_leave_out(export_pair: Callable[..., Any]) -> None:
    options = {"prompts": {"query": "query : "}, "max_seq_length": MAX_LENGTH}
    made = export_pair(include_prompt=False, **options)
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.checkpoint)
    encoder = transformers.AutoModel.from_pretrained(made.checkpoint).eval()
    pieces = tokenizer("query : " + LONG, truncation=True, max_length=MAX_LENGTH, return_overflowing_tokens=True)
    with torch.no_grad():
        states = [encoder(torch.tensor([ids])).last_hidden_state[0].numpy() for ids in pieces["input_ids"]]
    wanted = np.mean([unit(rows[3 if k == 0 else 0 :].mean(axis=0)) for k, rows in enumerate(states)], axis=0)
    with EmbeddingModel(made.directory, truncation="chunk") as model:
        assert_same(model.encode(LONG, prompt_name="query"), unit(wanted))


def test_tokens_are_counted_as_transformers_counts(model: EmbeddingModel, reference: Any) -> None:
    tokenizer = reference.tokenizer
    counts = model.count_tokens(SOME)
    assert counts.tolist() == [len(tokenizer(text)["input_ids"]) for text in SOME]
    assert counts.dtype == np.int64
    assert model.count_tokens(LONG, prompt_name="query") == len(tokenizer("query : " + LONG)["input_ids"])
    assert isinstance(model.count_tokens("a"), int)
    assert model.count_tokens([]).shape == (0,)
