"""What is assigned to a loaded model works or is refused with a sentence; cancelled and closed calls stop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import UserDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TEXTS, WORDS
from model_texts import LONG, MAX_LENGTH, POSITIONS, small_windows

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import FixedError, InvalidInputError, InvalidTypeError
from fastembed_rt.run.contract import Runner
from fastembed_rt.text.inputs import check_iterable


@pytest.fixture
def own(model_dir: Path) -> Iterator[EmbeddingModel]:
    """A model that a test may change."""
    with EmbeddingModel(model_dir, threads=2, max_batch_tokens=64) as made:
        yield made


@pytest.mark.parametrize("name", ["max_length", "max_seq_length"])
def test_a_limit_that_is_assigned_is_that_of_the_reference(own: EmbeddingModel, pair: Any, name: str) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(pair.checkpoint), device="cpu", local_files_only=True)
    assert own.encode(LONG).shape  # tokenizers and sessions are there already
    for limit in (8, POSITIONS, MAX_LENGTH):
        setattr(own, name, limit)
        reference.max_seq_length = limit
        np.testing.assert_allclose(own.encode([LONG, *TEXTS]), reference.encode([LONG, *TEXTS]), rtol=0, atol=1e-5)
        assert f"max_length={limit}," in repr(own)
        assert f"-len{limit}-" in own.fingerprint()
    for wrong in (0, POSITIONS + 1):
        with pytest.raises(InvalidInputError, match=f"expected 1 to {POSITIONS}"):
            setattr(own, name, wrong)
    with pytest.raises(InvalidTypeError, match="expected int"):
        setattr(own, name, "8")
    with pytest.raises(InvalidInputError, match="leaves no room"):
        setattr(own, name, 2)
    assert own.max_length == MAX_LENGTH  # what was refused changed nothing


def test_a_length_that_is_assigned_cuts_and_names_the_vectors(own: EmbeddingModel) -> None:
    whole = own.encode(TEXTS)
    own.truncate_dim = 8
    cut = own.encode(TEXTS)
    assert cut.shape == (len(TEXTS), 8) and own.dim == 8
    unit = whole[:, :8] / np.linalg.norm(whole[:, :8].astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(cut, unit, rtol=0, atol=1e-6)
    assert "-dim8-" in own.fingerprint() and "dim=8," in repr(own)
    with pytest.raises(InvalidInputError, match="truncate_dim 25 is not possible"):
        own.truncate_dim = 25
    own.truncate_dim = None
    np.testing.assert_array_equal(own.encode(TEXTS), whole)


def test_prompts_that_are_assigned_stand_in_front(own: EmbeddingModel) -> None:
    wanted = own.encode("about a cat")
    own.prompts = {"topic": "about "}
    np.testing.assert_array_equal(own.encode("a cat", prompt_name="topic"), wanted)
    own.default_prompt_name = "topic"
    np.testing.assert_array_equal(own.encode("a cat"), wanted)
    with pytest.raises(InvalidInputError, match="has no prompt 'other'; it has topic"):
        own.default_prompt_name = "other"
    own.default_prompt_name = None
    np.testing.assert_array_equal(own.encode("about a cat"), wanted)


@pytest.mark.parametrize(
    ("name", "value", "how"),
    [
        ("threads", 1, "load the model again with threads="),
        ("provider", "cuda", "load the model again with provider="),
        ("max_batch_tokens", 64, "load the model again with max_batch_tokens="),
        ("device_ids", (0, 1), "load the model again with device_ids="),
        ("variant", None, "load the model again with precision= or target="),
        ("precision", "int8", "load the model again with precision="),
        ("target", "cpu", "load the model again with target="),
        ("truncation", "error", "load the model again with truncation="),
        ("manifest", None, "load another model"),
        ("path", "elsewhere", "load another model"),
    ],
)
def test_what_was_chosen_when_a_model_was_loaded_is_fixed(own: EmbeddingModel, name: str, value: Any, how: str) -> None:
    before = getattr(own, name)
    with pytest.raises(FixedError, match=f"{name} is fixed once a model is loaded; {how}"):
        setattr(own, name, value)
    assert getattr(own, name) == before


class Frame:
    """What a table looks like: its columns' names come when one goes through it."""

    columns = ("title", "body")

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)


def test_tables_and_mappings_are_refused(own: EmbeddingModel) -> None:
    import pyarrow

    for given, kind in (
        (Frame(), "test_model_settings.Frame"),
        (pyarrow.table({"title": ["a"], "body": ["b"]}), "pyarrow.Table"),
        ({"title": "a"}, "dict"),
        (UserDict(title="a"), "collections.UserDict"),
    ):
        for use in (own.encode, own.embed, own.count_tokens, check_iterable):
            with pytest.raises(InvalidTypeError, match=rf"inputs are {kind}, .* pass one column"):
                use(given)  # type: ignore[arg-type]


def slowly(monkeypatch: pytest.MonkeyPatch, engine: Runner, seconds: float) -> list[int]:
    """Make every batch take a while; counts them."""
    batches: list[int] = []
    for session in engine.sessions:

        def run(feeds: Any, run: Any = session.run) -> Any:
            batches.append(1)
            time.sleep(seconds)
            return run(feeds)

        monkeypatch.setattr(session, "run", run)
    return batches


def test_a_cancelled_call_stops_at_the_next_batch(own: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [f"{WORDS[k % len(WORDS)]} {k}" for k in range(4000)]
    own.encode(["a cat"] * 200)  # the session for bulk is there
    batches = slowly(monkeypatch, own._running(), 0.05)

    async def cancel() -> None:
        call = asyncio.create_task(own.aencode(texts))
        await asyncio.sleep(0.2)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call

    start = time.monotonic()
    asyncio.run(cancel())
    taken = len(batches)
    time.sleep(0.3)
    assert len(batches) <= taken + 2  # those that ran, one a thread
    assert time.monotonic() - start < 5
    assert np.isfinite(own.encode("a cat")).all()


def test_a_call_whose_model_is_closed_while_it_tokenizes_stops(
    own: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    own.encode(["a cat"] * 200)
    batches = slowly(monkeypatch, own._running(), 0.0)
    encode, begun, closed = own._tokenizer._without_library, threading.Event(), threading.Event()

    def tokenize(*arguments: Any, **options: Any) -> Any:
        begun.set()
        assert closed.wait(10)
        return encode(*arguments, **options)

    monkeypatch.setattr(own._tokenizer, "_without_library", tokenize)
    found: list[BaseException] = []

    def call() -> None:
        try:
            own.encode(["a cat"] * 500)
        except InvalidInputError as error:
            found.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    assert begun.wait(10)
    own.close()
    closed.set()
    thread.join(10)
    assert [str(error) for error in found] == ["the model is closed; load it again"]
    assert batches == []


def test_asynchronous_calls_of_a_closed_model_say_so(own: EmbeddingModel) -> None:
    async def late() -> None:
        await own.aencode("a")
        own.close()
        await own.aencode("a")

    with pytest.raises(InvalidInputError, match="the model is closed; load it again"):
        asyncio.run(late())


def test_many_asynchronous_calls_in_several_loops(own: EmbeddingModel) -> None:
    wanted = own.encode(TEXTS)

    async def gathered() -> Any:
        return await asyncio.gather(*(own.aencode(TEXTS[k % len(TEXTS)]) for k in range(200)))

    for _ in range(3):
        for k, vector in enumerate(asyncio.run(gathered())):
            np.testing.assert_allclose(vector, wanted[k % len(TEXTS)], rtol=0, atol=1e-6)


def test_exit_does_not_wait_for_a_call_that_was_cancelled(run_script: Any, model_dir: Path) -> None:
    script = """
import asyncio, sys, time
from fastembed_rt import EmbeddingModel
model = EmbeddingModel(sys.argv[1], threads=2, max_batch_tokens=64)
model.encode(["a"] * 300)
for session in model._engine.sessions:
    session.run = lambda feeds, run=session.run: (time.sleep(0.1), run(feeds))[1]
async def main():
    call = asyncio.create_task(model.aencode(["the cat sleeps"] * 20_000))
    await asyncio.sleep(0.5)
    call.cancel()
asyncio.run(main())
print("end", flush=True)
"""
    start = time.monotonic()
    done = run_script(script, model_dir, timeout=60)
    assert (done.stdout, done.returncode) == ("end\n", 0), done.stderr
    assert time.monotonic() - start < 30  # all of it would take over a hundred seconds


def test_streams_that_are_dropped_give_up_what_waits(own: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> None:
    small_windows(monkeypatch, 200)
    own.encode(["a cat"] * 200)
    batches = slowly(monkeypatch, own._running(), 0.01)
    stream = own.embed(f"the cat {k}" for k in range(10_000))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    taken = len(batches)
    time.sleep(0.3)
    assert len(batches) <= taken + 2


def test_prompts_that_are_assigned_stand_in_front_for_every_role(tmp_path: Path) -> None:
    from exports import quick
    from routed import router, save, transformer

    old, new = {"query": "", "document": "passage : "}, {"query": "", "document": "a dog sleeps "}
    modules = router(transformer(tmp_path / "query"), transformer(tmp_path / "document"))
    quick(save(tmp_path / "checkpoint", modules, prompts=old), tmp_path / "model")
    with EmbeddingModel(tmp_path / "model", prompts=new) as loaded_so:
        wanted = loaded_so.encode_document("the cat")
    for first in (True, False):
        with EmbeddingModel(tmp_path / "model") as model:
            if first:
                model.encode_document("the cat")  # loads the encoder of documents
            model.prompts = new
            np.testing.assert_array_equal(model.encode_document("the cat"), wanted)
