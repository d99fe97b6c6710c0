"""Threads that ask at the same time: each has the vectors that it would have alone, and its own errors and warnings."""

from __future__ import annotations

import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import save_sentence_transformers
from exports import quick
from multi_vectors import save_multi_vector
from sparse_encoders import save_splade

from fastembed_rt import EmbeddingModel, LateInteractionModel, SparseModel
from fastembed_rt.errors import InvalidInputError, InvalidTypeError, TextTooLongError
from fastembed_rt.run import turns
from fastembed_rt.text.tokenizer import TruncationWarning

CALLERS, CALLS = 12, 25
KINDS: list[Any] = [
    "the cat sleeps",
    "",
    "a dog",
    ["one", "two words", "and three words"],
    [],
    ["a long text " * 9, "a"],
    "the cat " * 500,  # cut
    ["a cat"] * 70,  # more than a few
    ("a", "tuple"),
]


@pytest.fixture(params=[1, 2])
def own(model_dir: Path, request: pytest.FixtureRequest) -> Iterator[EmbeddingModel]:
    with EmbeddingModel(model_dir, threads=request.param, max_batch_tokens=128) as made:
        yield made


def ask(callers: int, one: Any) -> list[Any]:
    """What `one(caller, call)` gives, of many threads that begin together."""
    start = threading.Barrier(callers)

    def work(caller: int) -> list[Any]:
        start.wait(10)
        return [one(caller, call) for call in range(CALLS)]

    with ThreadPoolExecutor(callers) as pool:
        return list(pool.map(work, range(callers)))


def test_each_caller_has_the_vectors_that_it_would_have_alone(own: EmbeddingModel) -> None:
    wanted = [own.encode(kind) for kind in KINDS]
    before = own.stats
    tokens = [int(np.sum(own.encode(kind, return_tokens=True).tokens)) for kind in KINDS]
    each = own.stats
    assert each.tokens - before.tokens == sum(tokens)

    def one(caller: int, call: int) -> None:
        kind = (caller * 7 + call) % len(KINDS)
        made = own.encode(KINDS[kind])
        np.testing.assert_allclose(made, wanted[kind], rtol=0, atol=1e-6)
        assert made.base is None or made.base.size == made.size  # no part of an array that holds those of others
        assert made.flags.writeable
        made[...] = 0

    ask(CALLERS, one)
    asked = [(caller * 7 + call) % len(KINDS) for caller in range(CALLERS) for call in range(CALLS)]
    assert own.stats.tokens - each.tokens == sum(tokens[kind] for kind in asked)
    assert own.stats.texts - each.texts == sum(1 if isinstance(KINDS[k], str) else len(KINDS[k]) for k in asked)


def test_one_callers_error_is_no_others(model_dir: Path) -> None:
    with EmbeddingModel(model_dir, threads=2, truncation="error") as strict:
        wanted = strict.encode("the cat sleeps")

        def one(caller: int, call: int) -> str:
            if caller % 3 == 0:
                with pytest.raises(TextTooLongError, match=r"text 1 has \d+ tokens"):
                    strict.encode(["a", "the cat " * 200])
            elif caller % 3 == 1 and call % 2:
                with pytest.raises(InvalidTypeError, match="text 1 is int"):
                    strict.encode(["a", 5])  # type: ignore[list-item]
                with pytest.raises(InvalidInputError, match="lone surrogate"):
                    strict.encode("\ud800")
            else:
                np.testing.assert_allclose(strict.encode("the cat sleeps"), wanted, rtol=0, atol=1e-6)
            return "done"

        assert ask(CALLERS, one) == [["done"] * CALLS] * CALLERS


def test_a_caller_is_warned_of_its_own_texts_at_its_own_line(model_dir: Path) -> None:
    with (
        EmbeddingModel(model_dir, threads=2, truncation="warn") as warning,
        warnings.catch_warnings(record=True) as seen,
    ):
        warnings.simplefilter("always")

        def one(caller: int, call: int) -> None:
            warning.encode("the cat " * 200 if caller == 0 else "a cat")

        ask(CALLERS, one)
    assert len(seen) == CALLS
    assert {(entry.category, Path(entry.filename).name) for entry in seen} == {(TruncationWarning, Path(__file__).name)}


def test_calls_that_wait_fail_when_the_model_is_closed(own: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    own.encode("a")
    going, go_on = threading.Event(), threading.Event()
    engine: Any = own._running()
    run = engine._run_in_turn

    def slow(*arguments: Any, **options: Any) -> Any:
        going.set()
        assert go_on.wait(10)
        return run(*arguments, **options)

    monkeypatch.setattr(engine, "_run_in_turn", slow)
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(own.encode, "a cat") for _ in range(6)]
        assert going.wait(10)
        while len(engine._turns._queue) < 3:
            threading.Event().wait(0.001)
        waiting = len(engine._turns._queue)
        own.close()
        go_on.set()
        outcomes = [call.exception(10) for call in calls]
    closed = [outcome for outcome in outcomes if outcome is not None]
    assert len(closed) >= waiting
    assert {str(error) for error in closed} == {"the model is closed; load it again"}


def test_an_error_between_the_queue_and_the_turn_reaches_who_waits(
    own: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    expected, real, faults = own.encode("a cat"), turns._Small.over, [MemoryError()] * 3

    def over(call: Any) -> bool:
        if faults:
            raise faults.pop()
        return real(call)

    monkeypatch.setattr(turns._Small, "over", over)

    def one(caller: int, call: int) -> bool:
        try:
            return bool(np.array_equal(own.encode("a cat"), expected))
        except MemoryError:
            return False

    found = [right for calls in ask(CALLERS, one) for right in calls]
    assert not faults, "nobody waited"
    assert 1 <= found.count(False) <= 3 * CALLERS
    assert np.array_equal(own.encode("a cat"), expected)


def test_a_worker_that_has_gone_keeps_no_place() -> None:
    lead = turns._Lead(sys._getframe())
    lead.done = True  # it failed at once,
    lead.worker = True  # before who started it said that it comes
    assert lead.over()
    assert not lead.under()


def keeps_no_other(array: Any) -> bool:
    return array.base is None or array.base.size == array.size


@pytest.mark.parametrize("options", [{}, {"truncate_dim": 8}, {"precision": "float16"}, {"on_null": "zero"}], ids=str)
def test_a_vector_of_a_stream_that_is_kept_keeps_no_other(own: EmbeddingModel, options: dict[str, Any]) -> None:
    for texts in (["a cat"], [f"the cat {k}" for k in range(400)]):
        found = list(own.embed(iter(texts), **options))
        assert all(map(keeps_no_other, found))
        np.testing.assert_array_equal(np.stack(found), own.encode(texts, **options))
        assert all(vector.flags.writeable for vector in found)


def test_nor_do_sparse_vectors_and_those_of_tokens(tmp_path: Path) -> None:
    texts = [f"the cat {'sleeps ' * (k % 5)}{k}" for k in range(200)]
    quick(save_splade(tmp_path / "splade"), tmp_path / "sparse")
    with SparseModel(tmp_path / "sparse", threads=2) as sparse:
        for most in (None, 3):
            for vector in sparse.embed(iter(texts), max_active_dims=most):
                assert keeps_no_other(vector.indices) and keeps_no_other(vector.values)
    quick(save_multi_vector(tmp_path / "colbert"), tmp_path / "late")
    with LateInteractionModel(tmp_path / "late", threads=2) as late:
        assert all(map(keeps_no_other, [*late.embed_documents(iter(texts)), *late.embed_queries(iter(texts))]))
    quick(save_sentence_transformers(tmp_path / "dense"), tmp_path / "tokens", tokens=True)
    with EmbeddingModel(tmp_path / "tokens", threads=2) as dense:
        assert all(keeps_no_other(states.vectors) for states in dense.embed(iter(texts), output="tokens"))
        spans = [[(0, 3), (4, 7)]] * len(texts)
        assert all(map(keeps_no_other, dense.encode_spans(texts, spans)))
