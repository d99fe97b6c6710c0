"""EmbeddingModel beside sentence-transformers: the same vectors for whatever comes in, or errors that name it."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from checkpoints import change_json
from model_texts import DIM, MAX_LENGTH, POOLINGS, POSITIONS, SOME, assert_same, both_targets, unit
from tolerances import REORDERED

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError, InvalidTypeError, ModelNotFoundError

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
    assert_same(vectors[0], model.encode("a cat"), REORDERED)
    assert_same(vectors[1], model.encode("dog"), REORDERED)


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
        ({"a"}, "inputs are set"),
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
    np.testing.assert_array_equal(asyncio.run(model.aencode_query(SOME)), queries)
    np.testing.assert_array_equal(asyncio.run(model.aencode_document(SOME)), documents)
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
        assert_same(model.encode(SOME), model.encode([f"text : {text}" for text in SOME], prompt=""), REORDERED)


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
        "import sys, time; from fastembed_rt import EmbeddingModel; from fastembed_rt.run.memory import peak\n"
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
        ({"precision": "fp64"}, "'fp64' is not a precision; there are fp32, fp16, bf16, fp8 and int8"),
        ({"precision": ""}, "'' is not a precision; there are fp32, fp16, bf16, fp8 and int8"),
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
