"""Reranker: scores and orders as sentence-transformers' CrossEncoder gives them, at any number of pairs at a time."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import WORDS
from cross_encoders import PAIRS, PROMPTS, Pair, cross_encoder, save_cross_encoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastembed_rt import Reranker
from fastembed_rt.errors import InvalidInputError, InvalidTypeError, TextTooLongError
from fastembed_rt.models import reranker
from fastembed_rt.text import tokenizer
from fastembed_rt.text.tokenizer import TextTokenizer, TruncationWarning

QUERY = "which dog runs under the tree ?"
DOCUMENTS = [
    "the cat sleeps.",
    "a dog runs quickly under the old tree!",
    "",
    "new city light: 1 2 3",
    "the cat sleeps.",
]


def made(root: Path, **options: Any) -> tuple[Path, Path]:
    from fastembed_rt_export.pipeline import ExportOptions, export

    source = save_cross_encoder(root / "source", **options)
    export(str(source), ExportOptions(output=root / "model", verify=False))
    return source, root / "model"


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A checkpoint with prompts, cut at 40 tokens, and its model directory."""
    return made(tmp_path_factory.mktemp("reranker"), prompts=PROMPTS)


@pytest.fixture(scope="module")
def reference(directories: tuple[Path, Path]) -> Any:
    return cross_encoder(directories[0])


@pytest.fixture(scope="module")
def model(directories: tuple[Path, Path]) -> Iterator[Reranker]:
    with Reranker(directories[1], threads=2) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def several(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Reranker, Any]]:
    """A model with three labels, and its reference."""
    source, directory = made(tmp_path_factory.mktemp("labels"), labels=3)
    with Reranker(directory) as loaded:
        yield loaded, cross_encoder(source)


def assert_same(found: Any, wanted: Any) -> None:
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


# --- scores ----------------------------------------------------------------------------------------------------------


def test_pairs_give_scores_in_input_order(model: Reranker, reference: Any) -> None:
    for pairs in (PAIRS, PAIRS[::-1], PAIRS * 30):
        scores = model.predict(pairs)
        assert isinstance(scores, np.ndarray)
        assert scores.dtype == np.float32
        assert scores.shape == (len(pairs),)
        assert_same(scores, reference.predict([list(pair) for pair in pairs]))


@pytest.mark.parametrize("pair", [("a dog", "the house"), ["a dog", "the house"]])
def test_one_pair_gives_one_score(model: Reranker, reference: Any, pair: Any) -> None:
    score = model.predict(pair)
    assert np.ndim(score) == 0
    assert_same(score, reference.predict(pair))


def test_no_pairs_give_no_scores(model: Reranker, several: tuple[Reranker, Any]) -> None:
    assert np.shape(model.predict([])) == (0,)
    assert np.shape(several[0].predict([])) == (0, 3)
    assert model.rank(QUERY, []) == []


def test_any_iterable_of_pairs_is_taken(model: Reranker) -> None:
    wanted = model.predict(PAIRS)
    np.testing.assert_array_equal(model.predict(list(map(list, PAIRS))), wanted)  # type: ignore[arg-type]
    np.testing.assert_array_equal(model.predict(pair for pair in PAIRS), wanted)  # type: ignore[arg-type]
    np.testing.assert_array_equal(model.predict(tuple(PAIRS)), wanted)


def test_several_labels_give_a_row_each(several: tuple[Reranker, Any]) -> None:
    model, reference = several
    pairs = [list(pair) for pair in PAIRS]
    assert model.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert_same(model.predict(PAIRS), reference.predict(pairs))
    assert_same(model.predict(PAIRS[3]), reference.predict(pairs[3]))
    shares = model.predict(PAIRS, apply_softmax=True)
    assert_same(shares, reference.predict(pairs, apply_softmax=True))
    assert_same(np.sum(shares, axis=1), np.ones(len(PAIRS)))


def test_the_activation_can_be_chosen(model: Reranker, reference: Any) -> None:
    import torch

    assert model.activation == "sigmoid"
    logits = model.predict(PAIRS, activation="identity")
    assert_same(logits, reference.predict([list(pair) for pair in PAIRS], activation_fn=torch.nn.Identity()))
    assert_same(model.predict(PAIRS, activation="sigmoid"), 1 / (1 + np.exp(-np.asarray(logits))))
    with pytest.raises(InvalidInputError, match="activation 'tanh' is not known; known: identity, sigmoid"):
        model.predict(PAIRS, activation="tanh")


def test_sigmoid_and_softmax_keep_to_numbers_at_their_ends() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ends = np.array([-1e4, -100, 0, 100, 1e4], dtype=np.float32)
        wanted = np.array([0, 3.7835e-44, 0.5, 1, 1], dtype=np.float32)
        np.testing.assert_allclose(reranker.sigmoid(ends), wanted, rtol=1e-3)
        np.testing.assert_array_equal(reranker.softmax(ends[None])[0], [0, 0, 0, 0, 1])


@pytest.mark.parametrize("options", [{"prompt_name": "query"}, {"prompt": "old "}, {"prompt": ""}, {}])
def test_prompts_are_those_of_the_reference(model: Reranker, reference: Any, options: dict[str, Any]) -> None:
    assert_same(model.predict(PAIRS, **options), reference.predict([list(pair) for pair in PAIRS], **options))


def test_other_prompts_can_be_given_at_load(directories: tuple[Path, Path], reference: Any) -> None:
    with Reranker(directories[1], prompts={"mine": "red "}, default_prompt_name="mine") as model:
        assert_same(model.predict(PAIRS), reference.predict([list(pair) for pair in PAIRS], prompt="red "))
        with pytest.raises(InvalidInputError, match="no prompt 'query'; it has mine"):
            model.predict(PAIRS, prompt_name="query")


# --- order -----------------------------------------------------------------------------------------------------------


def test_documents_come_in_the_reference_order(model: Reranker, reference: Any) -> None:
    wanted = reference.rank(QUERY, DOCUMENTS, return_documents=True)
    found = model.rank(QUERY, DOCUMENTS)
    assert [entry.index for entry in found] == [entry["corpus_id"] for entry in wanted]
    assert [entry.text for entry in found] == [entry["text"] for entry in wanted]
    assert_same([entry.score for entry in found], [entry["score"] for entry in wanted])
    assert all(type(entry.score) is float and type(entry.index) is int for entry in found)


def test_equal_scores_keep_the_documents_order(model: Reranker) -> None:
    assert [entry.index for entry in model.rank(QUERY, ["the same"] * 5)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("top_k", [1, 3, 5])
def test_top_k_are_the_best(model: Reranker, top_k: int) -> None:
    whole = model.rank(QUERY, DOCUMENTS)
    found = model.rank(QUERY, DOCUMENTS, top_k=top_k)
    assert [entry.index for entry in found] == [entry.index for entry in whole][:top_k]


def test_more_than_there_are_gives_all(model: Reranker) -> None:
    assert len(model.rank(QUERY, DOCUMENTS, top_k=100)) == len(DOCUMENTS)


@pytest.mark.parametrize("top_k", [0, -1])
def test_an_impossible_top_k_is_refused(model: Reranker, top_k: int) -> None:
    with pytest.raises(InvalidInputError, match=f"top_k {top_k} is not possible"):
        model.rank(QUERY, DOCUMENTS, top_k=top_k)


def test_options_of_predict_are_options_of_rank(model: Reranker) -> None:
    found = model.rank(QUERY, DOCUMENTS, prompt_name="long", activation="identity")
    wanted = np.asarray(model.predict([(QUERY, text) for text in DOCUMENTS], prompt_name="long", activation="identity"))
    assert {entry.index: np.float32(entry.score) for entry in found} == dict(enumerate(wanted))


def test_several_labels_have_no_order(several: tuple[Reranker, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"3 scores a pair .* no order of relevance; use predict"):
        several[0].rank(QUERY, DOCUMENTS)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        ("a text", "pair 0 is str, expected two texts"),
        (["a", "b", "c"], "pair 0 is 3 things, expected two texts"),
        ([("a", "b"), ("c",)], "pair 1 is 1 things"),
        ([("a", "b"), "cd"], "pair 1 is str, expected two texts"),
        ([("a", "b"), ("c", None)], "pair 1 holds NoneType, expected str"),
        ([("a", b"b")], "pair 0 holds bytes, expected str"),
        ({"a": "b"}, "inputs are dict"),
        (b"a", "inputs are bytes"),
        (7, "inputs are int"),
    ],
)
def test_what_is_no_pair_is_named(model: Reranker, pairs: Any, words: str) -> None:
    with pytest.raises(InvalidTypeError, match=words):
        model.predict(pairs)


def test_a_lone_surrogate_is_named_with_its_pair(model: Reranker) -> None:
    with pytest.raises(InvalidInputError, match=r"pair 4100 has a lone surrogate U\+D800 at character 1"):
        model.predict([("a", "b")] * 4100 + [("a", "b\ud800")])


def test_a_query_and_documents_are_texts(model: Reranker) -> None:
    with pytest.raises(InvalidTypeError, match="query is list, expected str"):
        model.rank(["a"], DOCUMENTS)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="documents are one text; pass a list of str"):
        model.rank(QUERY, "one")
    with pytest.raises(InvalidTypeError, match="text 1 is int, expected str"):
        model.rank(QUERY, ["a", 1])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"truncation": "chunk"}, "truncation 'chunk' is not for pairs; known: truncate, warn, error"),
        ({"max_length": 3}, "max_length 3 leaves no room beside 3 special tokens"),
        ({"max_length": 49}, "max_length 49 is not possible; expected 1 to 48"),
        ({"default_prompt_name": "none such"}, "no prompt 'none such'"),
        ({"precision": "int8"}, "int8"),
        ({"threads": 0}, "threads 0 is not possible"),
    ],
)
def test_options_that_cannot_be_are_refused(
    directories: tuple[Path, Path], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        Reranker(directories[1], **options)


# --- long pairs ------------------------------------------------------------------------------------------------------

LONG: Pair = ("the red house " * 20, "a dog runs " * 30)


def test_long_pairs_are_cut_and_counted(directories: tuple[Path, Path], reference: Any) -> None:
    with Reranker(directories[1]) as model:
        assert_same(model.predict([LONG, PAIRS[3]]), reference.predict([list(LONG), list(PAIRS[3])]))
        assert (model.stats.texts, model.stats.truncated) == (2, 1)
        assert model.stats.tokens == model.max_length + model.count_tokens(PAIRS[3])


def test_warn_says_which_pair_was_cut(directories: tuple[Path, Path]) -> None:
    with (
        Reranker(directories[1], truncation="warn") as model,
        pytest.warns(TruncationWarning, match=r"text 1 has 153 tokens, 1 of 2 texts are over max_length 40 and were"),
    ):
        model.predict([PAIRS[3], LONG])


def test_error_refuses_a_long_pair(directories: tuple[Path, Path]) -> None:
    with Reranker(directories[1], truncation="error") as model:
        model.predict(PAIRS[:6])
        with pytest.raises(TextTooLongError, match="text 1 has 153 tokens"):
            model.predict([PAIRS[3], LONG])


def test_a_pair_of_exactly_max_length_is_not_cut(directories: tuple[Path, Path]) -> None:
    with Reranker(directories[1], truncation="error") as model:
        pair = ("the " * 10, "cat " * 27)
        assert model.count_tokens(pair) == model.max_length == 40
        model.predict(pair)
        with pytest.raises(TextTooLongError):
            model.predict((pair[0], pair[1] + "cat"))


def test_max_length_can_be_changed_at_load(directories: tuple[Path, Path], reference: Any) -> None:
    before = reference.max_seq_length
    for limit in (4, 5, 48):
        reference.max_seq_length = limit
        with Reranker(directories[1], max_length=limit) as model:
            assert_same(model.predict([*PAIRS, LONG]), reference.predict([list(pair) for pair in [*PAIRS, LONG]]))
    reference.max_seq_length = before


def test_tokens_are_counted_before_any_cut(model: Reranker, reference: Any) -> None:
    lists = [list(texts) for texts in zip(*PAIRS, LONG, strict=True)]
    wanted = [len(row) for row in reference.tokenizer(*lists)["input_ids"]]
    np.testing.assert_array_equal(model.count_tokens([*PAIRS, LONG]), wanted)
    assert model.count_tokens(LONG) == wanted[-1]


texts = st.lists(st.sampled_from(WORDS), max_size=30).map(" ".join)


@pytest.fixture(scope="module")
def rust(directories: tuple[Path, Path]) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(directories[1] / "tokenizer.json"))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(texts, texts), min_size=1, max_size=5), st.integers(4, 70), st.sampled_from(["right", "left"])
)
def test_pairs_are_cut_as_the_rust_library_cuts_them(
    directories: tuple[Path, Path], rust: Any, pairs: list[Pair], max_length: int, side: str
) -> None:
    rust.enable_truncation(max_length, strategy="longest_first", direction=side)
    wanted = rust.encode_batch(pairs)
    path = directories[1] / "tokenizer.json"
    for of_pairs in (True, False):
        cutter = TextTokenizer(path, max_length=max_length, truncation_side=side, of_pairs=of_pairs)
        found = cutter.pairs(pairs)
        assert [row.tolist() for row in found.ids] == [encoding.ids for encoding in wanted]
        assert found.first_segments is not None
        assert found.first_segments.tolist() == [encoding.type_ids.count(0) for encoding in wanted]
        assert found.truncated == sum(bool(encoding.overflowing) for encoding in wanted)


def test_two_long_texts_cost_the_sum_of_their_lengths(model: Reranker, run_script: Any) -> None:
    # The library keeps each piece of the one beside each of the other: 10,000 times 10,000 of them here.
    code = (
        "import sys; from fastembed_rt import Reranker; from fastembed_rt.run.memory import peak\n"
        "model = Reranker(sys.argv[1]); text = 'the cat sleeps under old tree ' * 30_000\n"
        "print(model.predict((text, text)), model.predict((text[:3000], text[:3000]))); print(peak() / 1e6)\n"
    )
    done = run_script(code, model.path)
    assert done.returncode == 0, done.stderr
    (long, short), (megabytes,) = ([float(word) for word in line.split()] for line in done.stdout.splitlines())
    assert long == short
    assert megabytes < 500


# --- many at a time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"threads": 1}, {"max_batch_tokens": 60}, {"target": "portable"}])
def test_neighbours_and_threads_change_no_bit(directories: tuple[Path, Path], options: dict[str, Any]) -> None:
    with Reranker(directories[1], **options) as model:
        together = model.predict(PAIRS * 5)
        alone = [model.predict(pair) for pair in PAIRS]
    if options.get("target") == "portable":  # its shapes are those of the batch
        assert_same(together, alone * 5)
    else:
        np.testing.assert_array_equal(together, np.array(alone * 5))


def test_pairs_go_through_in_pieces_bounded_in_number_and_length(
    model: Reranker, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = model.predict(PAIRS)
    sizes: list[int] = []
    whole = tokenizer.TextTokenizer.pairs

    def pairs(self: TextTokenizer, some: Any, *rest: Any, **options: Any) -> Any:
        sizes.append(len(some))
        return whole(self, some, *rest, **options)

    monkeypatch.setattr(tokenizer.TextTokenizer, "pairs", pairs)
    monkeypatch.setattr(reranker, "TEXTS", 4)
    monkeypatch.setattr(reranker, "CHARACTERS", 60)
    np.testing.assert_array_equal(model.predict(PAIRS), wanted)
    assert sum(sizes) == len(PAIRS)
    assert max(sizes) <= 4
    assert sizes[-1] == 1  # the last pair is longer than a piece may be


def test_many_threads_get_their_own_scores(model: Reranker) -> None:
    wanted = np.asarray(model.predict(PAIRS))
    barrier = threading.Barrier(8)

    def call(turn: int) -> bool:
        barrier.wait()
        first = turn % len(PAIRS)
        found = model.predict(PAIRS[first:] + PAIRS[:first]) if turn % 2 else model.predict(PAIRS[first])
        return bool(np.array_equal(found, np.roll(wanted, -first) if turn % 2 else wanted[first]))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(call, range(64)))


def test_asyncio_gets_the_same_scores(model: Reranker) -> None:
    async def ask() -> list[Any]:
        return list(await asyncio.gather(*(model.apredict(pair) for pair in PAIRS), model.apredict(PAIRS)))

    *alone, together = asyncio.run(ask())
    np.testing.assert_array_equal(together, model.predict(PAIRS))
    np.testing.assert_array_equal(alone, together)
    texts = [right for _, right in PAIRS]
    assert asyncio.run(model.arank(PAIRS[0][0], texts, top_k=2)) == model.rank(PAIRS[0][0], texts, top_k=2)


# --- the object ------------------------------------------------------------------------------------------------------


def test_a_closed_model_says_so(directories: tuple[Path, Path]) -> None:
    with Reranker(directories[1]) as model:
        assert repr(model).startswith(f"Reranker('source', labels=1, max_length=40, variant={model.target}/fp32")
    with pytest.raises(InvalidInputError, match="the model is closed"):
        model.predict(PAIRS)


def test_it_is_imported_without_onnxruntime(run_script: Any) -> None:
    done = run_script("import sys; from fastembed_rt import Reranker; print('onnxruntime' in sys.modules)")
    assert done.stdout.split() == ["False"], done.stderr
