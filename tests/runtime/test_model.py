"""EmbeddingModel: its vectors are those of sentence-transformers, whatever the batch, the thread or the process."""

from __future__ import annotations

import asyncio
import copy
import itertools
import os
import pickle
import random
import threading
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import transformers
from checkpoints import TEXTS, WORDS, change_json
from hypothesis import given, settings
from hypothesis import strategies as st

import fastembed_rt.model as model_module
import fastembed_rt.windows as windows_module
from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError, InvalidTypeError, ModelNotFoundError, TextTooLongError
from fastembed_rt.tokenizer import TruncationWarning

Vectors = npt.NDArray[np.float32]
DIM, MAX_LENGTH, POSITIONS = 24, 16, 48
LONG = "the cat runs under a tree and sleeps : " * 5
ODD_TEXTS = [
    "",
    " \t\n ",
    "\0",
    "a\0b",
    "[CLS] the [MASK] cat [SEP] [PAD] [UNK]",
    "[SEP]",
    "\ufeffthe cat",
    "x" * 500,
    "e\u0301t\u00e9 東京 🙂",
]
SOME = ["a cat", "the dog runs quickly", *ODD_TEXTS, *TEXTS, LONG]
POOLINGS = ["mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("cls", "mean")]
both_targets = pytest.mark.parametrize("target", ["portable", "cpu"])


def assert_same(ours: Any, wanted: Any, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=tolerance)


def unit(rows: Vectors) -> Vectors:
    """Rows of length one, in float64."""
    wide = rows.astype(np.float64)
    result: Vectors = wide / np.linalg.norm(wide, axis=-1, keepdims=True)
    return result


def small_windows(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Tokenize so many texts at a time, so that a few texts make several windows."""
    monkeypatch.setattr(model_module, "TEXTS", size)
    monkeypatch.setattr(model_module, "STREAM_TEXTS", (size,))


@pytest.fixture(scope="module")
def reference(pair: Any) -> Any:
    return pair.reference


# What goes in, what comes out


def test_one_text_gives_one_vector(model: EmbeddingModel) -> None:
    vector = model.encode("a cat")
    assert vector.shape == (DIM,)
    assert vector.dtype == np.float32
    assert vector.flags.c_contiguous
    assert_same(np.linalg.norm(vector), 1)


@pytest.mark.parametrize(
    "inputs",
    [
        ["a cat", "dog"],
        ("a cat", "dog"),
        np.array(["a cat", "dog"]),
        np.array(["a cat", "dog"], dtype=object),
        iter(["a cat", "dog"]),
        [np.str_("a cat"), np.str_("dog")],
    ],
    ids=["list", "tuple", "array", "object array", "iterator", "numpy texts"],
)
def test_several_texts_give_a_matrix_in_their_order(model: EmbeddingModel, inputs: Any) -> None:
    vectors = model.encode(inputs)
    assert vectors.shape == (2, DIM)
    assert vectors.dtype == np.float32
    assert vectors.flags.c_contiguous
    assert_same(vectors[0], model.encode("a cat"), 1e-6)
    assert_same(vectors[1], model.encode("dog"), 1e-6)


@pytest.mark.parametrize("options", [{}, {"truncate_dim": 5}])
def test_no_texts_give_an_empty_matrix(model: EmbeddingModel, options: dict[str, Any]) -> None:
    vectors = model.encode([], **options)
    assert vectors.shape == (0, options.get("truncate_dim", DIM))
    assert vectors.dtype == np.float32
    assert list(model.embed([])) == []


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (None, "inputs are NoneType"),
        (b"a", "inputs are bytes"),
        (5, "inputs are int"),
        ({"text": "a"}, "inputs are dict"),
        ({"a", "b"}, "inputs are set"),
        (np.array("a"), "inputs are ndarray"),
        (["a", None], "text 1 is NoneType, expected str"),
        (["a", "b", b"c"], "text 2 is bytes, expected str; decode it first"),
        ([1.5], "text 0 is float, expected str"),
    ],
    ids=str,
)
def test_what_is_not_text_is_refused_by_encode_and_embed(model: EmbeddingModel, inputs: Any, message: str) -> None:
    with pytest.raises(InvalidTypeError, match=message):
        model.encode(inputs)
    with pytest.raises(InvalidTypeError, match=message):
        list(model.embed(inputs))


def test_a_lone_surrogate_is_named_with_text_and_place(model: EmbeddingModel) -> None:
    with pytest.raises(InvalidInputError, match=r"text 1 has a lone surrogate U\+D83D at character 2"):
        model.encode(["ok", "a \ud83d cat"])
    with pytest.raises(InvalidInputError, match=r"prompt has a lone surrogate U\+DC00 at character 0"):
        model.encode("a", prompt="\udc00")


def test_a_single_text_given_to_embed_is_refused(model: EmbeddingModel) -> None:
    with pytest.raises(InvalidTypeError, match="use encode for a single text"):
        model.embed("the cat")


# Vectors beside sentence-transformers


@both_targets
def test_vectors_are_those_of_sentence_transformers(pair: Any, reference: Any, target: str) -> None:
    with EmbeddingModel(pair.directory, target=target) as model:
        assert_same(model.encode(SOME), reference.encode(SOME))
        for text in SOME:
            assert_same(model.encode(text), reference.encode(text))


@pytest.mark.parametrize(
    "options",
    [
        {"prompt_name": "query"}, {"prompt_name": "document"}, {"prompt": "new : "}, {"prompt": ""},
        {"prompt": "the [SEP] "}, {"prompt": "the cat " * 30},
    ],
    ids=str,
)  # fmt: skip
def test_prompts_are_those_of_sentence_transformers(
    model: EmbeddingModel, reference: Any, options: dict[str, Any]
) -> None:
    assert_same(model.encode(SOME, **options), reference.encode(SOME, **options))


def test_queries_and_documents_have_their_prompts(model: EmbeddingModel, reference: Any) -> None:
    queries, documents = model.encode_query(SOME), model.encode_document(SOME)
    assert_same(queries, reference.encode_query(SOME))
    assert_same(documents, reference.encode_document(SOME))
    assert np.abs(queries - documents).max() > 0.01


@pytest.mark.parametrize(
    "prompts",
    [
        {"classify": "text : "},
        {"classify": "text : ", "query": "query : "},
        {"classify": "text : ", "passage": "passage : "},
        {"classify": "text : ", "corpus": "new : ", "passage": "passage : "},
    ],
    ids="+".join,
)
def test_a_default_prompt_stands_where_sentence_transformers_puts_it(
    pair: Any, prompts: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = copy.copy(pair.reference)
    monkeypatch.setattr(reference, "prompts", {"query": "", "document": "", **prompts})
    if "passage" in prompts:  # sentence-transformers looks for it only when there is no "document"
        del reference.prompts["document"]
    monkeypatch.setattr(reference, "default_prompt_name", "classify")
    with EmbeddingModel(pair.directory, prompts=prompts, default_prompt_name="classify") as model:
        assert_same(model.encode(SOME), reference.encode(SOME))
        assert_same(model.encode_query(SOME), reference.encode_query(SOME))
        assert_same(model.encode_document(SOME), reference.encode_document(SOME))
        assert_same(model.encode(SOME, prompt=""), reference.encode(SOME, prompt=""))


def test_the_checkpoints_default_prompt_is_used(export_pair: Callable[..., Any]) -> None:
    made = export_pair(prompts={"query": "query : ", "plain": "text : "}, default_prompt_name="plain")
    with EmbeddingModel(made.directory) as model:
        assert_same(model.encode(SOME), made.reference.encode(SOME))
        assert_same(model.encode(SOME), model.encode([f"text : {text}" for text in SOME], prompt=""), 1e-6)


@pytest.mark.parametrize("max_length", [3, 7, 16, 40, POSITIONS])
def test_max_length_can_be_lowered_and_raised(
    pair: Any, reference: Any, max_length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reference, "max_seq_length", max_length)
    with EmbeddingModel(pair.directory, max_length=max_length) as model:
        assert model.max_length == max_length
        assert_same(model.encode(SOME), reference.encode(SOME))


@pytest.mark.parametrize("dim", [1, 2, 11, DIM])
def test_cut_vectors_are_of_unit_length_again(pair: Any, reference: Any, dim: int) -> None:
    wanted = unit(reference.encode(SOME)[:, :dim])
    with EmbeddingModel(pair.directory, truncate_dim=dim) as model:
        assert model.dim == dim
        assert_same(model.encode(SOME), wanted)
        assert_same(model.encode(SOME, truncate_dim=3), unit(reference.encode(SOME)[:, :3]))
    with EmbeddingModel(pair.directory) as model:
        assert_same(model.encode(SOME, truncate_dim=dim), wanted)
        assert_same(list(model.embed(SOME, truncate_dim=dim)), wanted)


def test_a_model_that_does_not_normalize_does_so_on_request(export_pair: Callable[..., Any]) -> None:
    made = export_pair(normalize=False)
    plain = made.reference.encode(SOME)
    with EmbeddingModel(made.directory) as model:
        assert_same(model.encode(SOME), plain)
        assert_same(model.encode(SOME, normalize=False), plain)
        assert_same(model.encode(SOME, normalize=True), made.reference.encode(SOME, normalize_embeddings=True))
        assert_same(model.encode(SOME, truncate_dim=7), plain[:, :7])
        assert_same(model.encode(SOME, truncate_dim=7, normalize=True), unit(plain[:, :7]))
    assert np.abs(np.linalg.norm(plain, axis=1) - 1).max() > 0.1


def test_a_model_that_normalizes_cannot_be_told_not_to(model: EmbeddingModel) -> None:
    with pytest.raises(InvalidInputError, match="export the checkpoint with --no-normalize"):
        model.encode("a", normalize=False)


@both_targets
@pytest.mark.parametrize("pooling", ["mean", "weightedmean", "lasttoken"])
def test_a_prompt_left_out_of_the_pooling_is_left_out(
    export_pair: Callable[..., Any], pooling: str, target: str
) -> None:
    made = export_pair(include_prompt=False, pooling=pooling, prompts={"query": "query : "}, max_seq_length=MAX_LENGTH)
    texts = [text for text in SOME if text.strip("\0 \t\n")]
    with EmbeddingModel(made.directory, target=target) as model:
        assert_same(model.encode(texts), made.reference.encode(texts))
        assert_same(model.encode(texts, prompt_name="query"), made.reference.encode(texts, prompt_name="query"))
        assert_same(model.encode_query(texts[0]), made.reference.encode_query(texts[0]))
        left_in = model.encode([f"query : {text}" for text in texts])
        assert (np.abs(left_in - model.encode_query(texts)).max() > 0.01) == (pooling != "lasttoken")


def test_a_prompt_that_leaves_nothing_to_pool_gives_zeros_and_no_nan(export_pair: Callable[..., Any]) -> None:
    made = export_pair(include_prompt=False, prompts={"query": "query : "}, max_seq_length=MAX_LENGTH)
    prompt = "the cat " * 40
    with EmbeddingModel(made.directory) as model:
        assert_same(model.encode(["a", "dog"], prompt=prompt), made.reference.encode(["a", "dog"], prompt=prompt))
        assert np.isfinite(model.encode("a", prompt=prompt)).all()


@both_targets
@pytest.mark.parametrize("pooling", POOLINGS, ids=str)
def test_every_pooling_is_that_of_sentence_transformers(
    export_pair: Callable[..., Any], pooling: Any, target: str
) -> None:
    made = export_pair(pooling=pooling)
    with EmbeddingModel(made.directory, target=target) as model:
        assert_same(model.encode(SOME), made.reference.encode(SOME))


def test_a_dense_head_is_that_of_sentence_transformers(export_pair: Callable[..., Any]) -> None:
    made = export_pair(dense=10)
    with EmbeddingModel(made.directory) as model:
        assert model.dim == 10
        assert_same(model.encode(SOME), made.reference.encode(SOME))


def test_five_megabytes_of_text_are_cut_in_bounded_time_and_memory(run_script: Any, pair: Any, reference: Any) -> None:
    # A word is one token; the transcript of what the tokenizer dropped takes most of the time and memory.
    code = (
        "import sys, time; from fastembed_rt import EmbeddingModel; from fastembed_rt.memory import peak\n"
        "model = EmbeddingModel(sys.argv[1]); text = sys.argv[2] * 170_000; start = time.monotonic()\n"
        "print(len(text), *map(float, model.encode(text)))\n"
        "print(time.monotonic() - start, peak() / 1e6)\n"
    )
    words = "the cat sleeps under old tree "
    done = run_script(code, pair.directory, words)
    assert done.returncode == 0, done.stderr
    (length, *vector), (seconds, megabytes) = (
        [float(word) for word in line.split()] for line in done.stdout.splitlines()
    )
    assert length > 5_000_000
    assert_same(vector, reference.encode(words * 100))
    assert seconds < 30
    assert megabytes < 1500


def test_a_text_without_any_token_has_the_zero_vector(pair: Any, tmp_path: Path) -> None:
    checkpoint, directory = tmp_path / "checkpoint", tmp_path / "model"
    transformers.AutoModel.from_pretrained(pair.checkpoint).save_pretrained(checkpoint)
    transformers.AutoTokenizer.from_pretrained(pair.checkpoint).save_pretrained(checkpoint)
    change_json(checkpoint / "tokenizer.json", post_processor=None)
    from fastembed_rt_export.pipeline import ExportOptions, export

    export(str(checkpoint), ExportOptions(output=directory, verify=False))
    encoder = transformers.AutoModel.from_pretrained(pair.checkpoint).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(pair.checkpoint)
    with torch.no_grad():
        ids = torch.tensor([tokenizer("the cat", add_special_tokens=False)["input_ids"]])
        wanted = encoder(ids).last_hidden_state.mean(dim=1)[0].numpy()
    with EmbeddingModel(directory) as model:
        vectors = model.encode(["", "the cat", " "], normalize=None)
        assert not vectors[[0, 2]].any()
        assert_same(unit(vectors[1]), unit(wanted))
        assert not model.encode("").any()


# Texts that are too long


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


# Options that cannot be


def test_prompt_and_prompt_name_exclude_each_other(model: EmbeddingModel) -> None:
    for call in (model.encode, model.encode_query, model.count_tokens, model.embed):
        with pytest.raises(InvalidInputError, match="both given"):
            call(["a"], prompt_name="query", prompt="new : ")


@pytest.mark.parametrize("name", [5, ["query"], b"query"])
def test_a_prompt_name_is_a_text(model: EmbeddingModel, name: Any) -> None:
    for call in (model.encode, model.encode_query, model.embed, model.count_tokens):
        with pytest.raises(InvalidInputError, match="prompt"):
            call(["a"], prompt_name=name)


@pytest.mark.parametrize("name", ["", "Query", "passage"])
def test_an_unknown_prompt_names_the_known_ones(model: EmbeddingModel, name: Any) -> None:
    with pytest.raises(InvalidInputError, match=r"no prompt .*document, query"):
        model.encode("a", prompt_name=name)
    with pytest.raises(InvalidInputError, match=r"no prompt .*document, query"):
        model.embed(["a"], prompt_name=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"truncate_dim": 0}, "truncate_dim 0 is not possible; expected 1 to 24"),
        ({"truncate_dim": 25}, "truncate_dim 25 is not possible; expected 1 to 24"),
        ({"truncate_dim": -1}, "truncate_dim -1"),
        ({"truncate_dim": 2.0}, "truncate_dim is float, expected int"),
        ({"truncate_dim": True}, "truncate_dim is bool, expected int"),
        ({"threads": 0}, "threads 0 is not possible"),
        ({"threads": -1}, "threads -1 is not possible"),
        ({"threads": "2"}, "threads is str, expected int"),
        ({"max_length": 0}, "max_length 0 is not possible; expected 1 to 48"),
        ({"max_length": 2}, "max_length 2 leaves no room beside 2 special tokens"),
        ({"max_length": 49}, "max_length 49 is not possible; expected 1 to 48"),
        ({"max_length": 10**30}, "expected 1 to 48"),
        ({"max_length": None, "max_batch_tokens": 0}, "max_batch_tokens 0 is not possible"),
        ({"max_wait": -1}, "max_wait -1 is not possible"),
        ({"max_wait": "1"}, "max_wait '1' is not possible"),
        ({"max_wait": float("nan")}, "max_wait nan is not possible"),
        ({"max_batch_tokens": 1.5}, "max_batch_tokens is float, expected int"),
        ({"precision": "fp64"}, "precision 'fp64' is not in this model directory"),
        ({"precision": ""}, "precision '' is not in this model directory"),
        ({"truncation": "cut"}, "truncation 'cut' is not known; known: truncate, warn, error, chunk"),
        ({"default_prompt_name": "other"}, "no prompt 'other'.*document, query"),
        ({"prompts": {"a": "b"}, "default_prompt_name": "query"}, "no prompt 'query'; it has a;"),
        ({"prompts": {"a": 5}}, "prompt 'a' is int, expected str"),
        ({"prompts": {"a": "\ud800"}}, "prompt 'a' has a lone surrogate"),
        ({"prompts": ["a"]}, "prompts are list"),
        ({"revision": "main"}, "revision 'main' was given, but .* is a directory"),
    ],
    ids=str,
)
def test_an_option_that_the_model_cannot_have_is_refused(pair: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        EmbeddingModel(pair.directory, **options)


@pytest.mark.parametrize("dim", [0, 25, 1.5, "3", False])
def test_a_dim_that_the_model_does_not_have_is_refused_by_every_call(model: EmbeddingModel, dim: Any) -> None:
    for call in (model.encode, model.encode_query, model.embed):
        with pytest.raises(InvalidInputError, match="truncate_dim"):
            call(["a"], truncate_dim=dim)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        EmbeddingModel(tmp_path / "nowhere")


# Neighbours


@pytest.fixture(scope="module")
def by_budget(pair: Any) -> Any:
    """One model for each target and batch budget, all positions in use."""
    return {
        (target, budget): EmbeddingModel(
            pair.directory, target=target, max_batch_tokens=budget, max_length=POSITIONS, threads=1
        )
        for target in ("portable", "cpu")
        for budget in (1, 7, 50, 200, 1024, 10**6)
    }


sentences = st.lists(st.sampled_from([*WORDS, "zebra", "🙂"]), max_size=60).map(" ".join)
any_texts = st.lists(
    sentences | st.text(st.characters(exclude_categories=["Cs"]), max_size=30), min_size=1, max_size=24
)


@both_targets
@settings(max_examples=40)
@given(texts=any_texts, budget=st.sampled_from([1, 7, 50, 200, 1024, 10**6]), seed=st.integers(0, 99))
def test_neighbours_do_not_change_a_vector(
    by_budget: Any, target: str, texts: list[str], budget: int, seed: int
) -> None:
    alone = np.stack([by_budget[target, 1].encode(text) for text in texts])
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    order += order[:3]  # duplicates
    together = by_budget[target, budget].encode([texts[k] for k in order])
    assert_same(together, alone[order], 1e-6)


@both_targets
def test_long_neighbours_do_not_change_a_vector(by_budget: Any, target: str) -> None:
    texts = ["a", "the cat", LONG, "dog " * 45, "", *[f"light {n}" for n in range(30)]]
    wanted = np.stack([by_budget[target, 1].encode(text) for text in texts])
    for budget in (7, 50, 200, 1024, 10**6):
        assert_same(by_budget[target, budget].encode(texts), wanted, 1e-6)


def test_the_same_texts_give_the_same_bits(model: EmbeddingModel) -> None:
    assert model.encode(SOME).tobytes() == model.encode(SOME).tobytes()


# Streams


def test_embed_gives_the_vectors_of_encode_in_order(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch, 5)
    streamed = list(model.embed(iter(SOME), prompt_name="query"))
    assert all(vector.shape == (DIM,) and vector.dtype == np.float32 for vector in streamed)
    assert_same(streamed, model.encode(SOME, prompt_name="query"), 1e-6)


def test_embed_reads_an_endless_stream_as_it_goes(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch, 8)
    read = 0

    def endless() -> Iterator[str]:
        nonlocal read
        while True:
            read += 1
            yield f"cat {read}"

    stream = model.embed(endless())
    assert read == 0
    for given_back, vector in enumerate(itertools.islice(stream, 50), 1):
        assert read - given_back < 2 * 8  # the window that runs and the one that is tokenized meanwhile
        assert_same(vector, model.encode(f"cat {given_back}"), 1e-6)


def test_embed_reads_few_large_texts_ahead(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_module, "CHARACTERS", 1000)
    texts = iter(["a " * 300] * 50)
    next(model.embed(texts))
    assert sum(1 for _ in texts) >= 46


def test_embed_refuses_bad_options_at_once(model: EmbeddingModel) -> None:
    with pytest.raises(InvalidInputError):
        model.embed(["a"], prompt_name="other")


def test_memory_of_a_stream_does_not_grow_with_it(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch, 100)

    def peak(texts: int) -> int:
        tracemalloc.start()
        try:
            for _ in model.embed(f"the cat sleeps {k}" for k in range(texts)):
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    peak(600)
    assert peak(6000) < 1.5 * peak(600)


# Threads, processes, ends


def test_threads_share_a_model(pair: Any) -> None:
    lists = [[f"{word} {k}" for k, word in enumerate(WORDS[n:])] + [LONG] * (n % 3) for n in range(24)]
    with EmbeddingModel(pair.directory, threads=2) as model:
        alone = [model.encode(texts) for texts in lists]
        counted = model.stats
        start = threading.Barrier(8)

        def work(texts: list[str]) -> tuple[Vectors, list[Vectors]]:
            start.wait(30)  # 24 lists are three rounds of eight at once
            return model.encode(texts), list(model.embed(texts[:5]))

        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(work, lists))
        for wanted, (encoded, embedded) in zip(alone, together, strict=True):
            assert_same(encoded, wanted, 1e-6)
            assert_same(embedded, wanted[:5], 1e-6)
        assert model.stats.texts == 2 * counted.texts + 5 * len(lists)


def test_small_calls_that_run_together_do_not_change_a_vector(pair: Any) -> None:
    texts = [f"{word} {word}" for word in WORDS]
    with EmbeddingModel(pair.directory, max_wait=0.01) as model:
        alone = [model.encode(text) for text in texts]
        with ThreadPoolExecutor(8) as pool:
            assert_same(list(pool.map(model.encode, texts)), alone, 1e-6)

        async def together() -> list[Vectors]:
            return await asyncio.gather(*map(model.aencode, texts))

        assert_same(asyncio.run(together()), alone, 1e-6)


def test_a_text_that_is_refused_disturbs_no_other_thread(pair: Any) -> None:
    with EmbeddingModel(pair.directory, truncation="error", max_wait=0.005) as model:
        wanted = model.encode("a cat")

        def work(k: int) -> Vectors | None:
            try:
                return model.encode(LONG if k % 3 == 0 else "a cat")
            except TextTooLongError:
                return None

        with ThreadPoolExecutor(8) as pool:
            for k, vector in enumerate(pool.map(work, range(60))):
                assert (vector is None) == (k % 3 == 0)
                if vector is not None:
                    assert_same(vector, wanted, 1e-6)


@pytest.mark.parametrize("leads", [False, True], ids=["waits", "leads"])
def test_an_interrupted_call_does_not_block_the_next(run_script: Any, model_dir: Path, leads: bool) -> None:
    script = """
import signal, sys, threading, time
from fastembed_rt import EmbeddingModel
def interrupt(*_):
    raise KeyboardInterrupt
signal.signal(signal.SIGALRM, interrupt)
model = EmbeddingModel(sys.argv[1], max_wait=1.0)
if sys.argv[2] == "False":
    other = threading.Thread(target=model.encode, args=["dog"])
    other.start()
    time.sleep(0.3)
signal.setitimer(signal.ITIMER_REAL, 0.4)
try:
    # Too many tokens for the other's batch: this call stays in the queue.
    model.encode(["the cat"] * (1 if sys.argv[2] == "True" else model.max_batch_tokens // 4))
except KeyboardInterrupt:
    print("interrupted")
print(model.encode("a").shape)
"""
    done = run_script(script, model_dir, leads, timeout=20)
    assert done.stdout == f"interrupted\n({DIM},)\n", done.stderr


FORK = """
import os, sys, numpy as np
from fastembed_rt import EmbeddingModel
texts = [f"the cat {k}" for k in range(300)]
model = EmbeddingModel(sys.argv[1], threads=2)
wanted = model.encode(texts)
"""
CHILD = """
child = os.fork()
if child == 0:
    same = np.array_equal(model.encode(texts), wanted) and model.count_tokens(texts).min() > 3
    print("same" if same else "different", flush=True)
    {end}
_, status = os.waitpid(child, 0)
print(os.waitstatus_to_exitcode(status), np.array_equal(model.encode(texts), wanted))
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@needs_fork
@pytest.mark.parametrize("end", ["os._exit(3)", "sys.exit(3)", "del model; sys.exit(3)", "model.close(); sys.exit(3)"])
def test_a_model_works_in_a_forked_child_which_ends_in_peace(run_script: Any, model_dir: Path, end: str) -> None:
    done = run_script(FORK + CHILD.format(end=end), model_dir, timeout=30)
    assert (done.stdout, done.stderr) == ("same\n3 True\n", "")


@needs_fork
@pytest.mark.parametrize("parallelism", ["true", "false"])
def test_a_forked_child_does_not_wait_for_the_tokenizers_threads(
    run_script: Any, model_dir: Path, parallelism: str
) -> None:
    script = FORK + CHILD.format(end="os._exit(3)")
    done = run_script(script, model_dir, timeout=30, TOKENIZERS_PARALLELISM=parallelism)
    assert (done.stdout, done.stderr) == ("same\n3 True\n", "")


@needs_fork
def test_a_pool_of_forked_workers_shares_the_loaded_model(run_script: Any, model_dir: Path) -> None:
    script = """
import multiprocessing
def work(k):
    return model.encode(texts[k : k + 100])
with multiprocessing.get_context("fork").Pool(3) as pool:
    parts = pool.map(work, [0, 100, 200], chunksize=1)
print(np.abs(np.concatenate(parts) - wanted).max() < 1e-6)
"""
    done = run_script(FORK + script, model_dir, timeout=30)
    assert (done.stdout, done.stderr) == ("True\n", "")


@needs_fork
def test_a_fork_in_the_middle_of_other_threads_work_does_no_harm(run_script: Any, model_dir: Path) -> None:
    script = """
import threading
going = threading.Event()
def work():
    while not going.is_set():
        model.encode(texts[:50])
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(5):
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(model.encode(texts), wanted) else 1)
    print(os.waitpid(child, 0)[1])
going.set()
for thread in threads:
    thread.join()
"""
    done = run_script(FORK + script, model_dir, timeout=30)
    assert done.stdout == "0\n" * 5, done.stderr


@needs_fork
def test_a_closed_model_stays_closed_in_a_child(run_script: Any, model_dir: Path) -> None:
    script = """
model.close()
child = os.fork()
if child == 0:
    try:
        model.encode("a")
    except Exception as error:
        print(type(error).__name__, error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""
    done = run_script(FORK + script, model_dir, timeout=30)
    assert done.stdout == "InvalidInputError the model is closed; load it again\n"


def test_a_closed_model_says_so(pair: Any) -> None:
    with EmbeddingModel(pair.directory) as model:
        stream, begun = model.embed(itertools.repeat("a")), model.embed(itertools.repeat("a"))
        assert next(begun).shape == model.encode("a").shape
    for inputs, use in (("a", model.encode), ([], model.encode), (["a"], model.embed)):
        with pytest.raises(InvalidInputError, match="the model is closed; load it again"):
            use(inputs)
    with pytest.raises(InvalidInputError, match="the model is closed"):
        next(stream)
    with pytest.raises(InvalidInputError, match="the model is closed"):
        for _ in itertools.islice(begun, 10_000):
            pass
    model.close()  # twice does no harm


def test_an_error_inside_with_closes_the_model(pair: Any) -> None:
    with pytest.raises(ZeroDivisionError), EmbeddingModel(pair.directory) as model:
        raise ZeroDivisionError
    with pytest.raises(InvalidInputError, match="closed"):
        model.encode("a")


@pytest.mark.parametrize("copying", [pickle.dumps, copy.copy, copy.deepcopy], ids=lambda function: function.__name__)
def test_a_model_cannot_be_copied_or_pickled_and_says_what_to_do(
    model: EmbeddingModel, copying: Callable[[object], object]
) -> None:
    with pytest.raises(TypeError, match="load it in each process") as caught:
        copying(model)
    assert str(model.path) in str(caught.value)


def test_a_model_describes_itself(model: EmbeddingModel) -> None:
    assert f"dim={DIM}, max_length={MAX_LENGTH}" in repr(model)
    assert "provider='cpu', threads=2" in repr(model)


def test_similarity_is_the_models_own(export_pair: Callable[..., Any]) -> None:
    made = export_pair(normalize=False)
    vectors = made.reference.encode(TEXTS)
    with EmbeddingModel(made.directory) as model:
        assert_same(model.similarity(vectors, vectors[:2]), made.reference.similarity(vectors, vectors[:2]).numpy())
        assert model.similarity(vectors[0], vectors[1]).shape == (1, 1)
