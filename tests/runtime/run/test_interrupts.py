"""An exception from outside, at any step and again while it is dealt with, leaves nothing behind."""

from __future__ import annotations

import gc
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from fastembed_rt.errors import first_line, from_outside
from fastembed_rt.run import engine as engine_module
from fastembed_rt.run import pool as pool_module
from fastembed_rt.run import turns as turns_module
from fastembed_rt.run.contract import Facts
from fastembed_rt.run.engine import Engine
from fastembed_rt.system import threads as threads_module
from fastembed_rt.system.threads import Call, Workers, once

LIMIT = 64
FILES = {module.__file__ for module in (engine_module, turns_module, pool_module, threads_module)}


class Lengths:
    """A session that gives each row its length as vector."""

    handles = ()

    def __init__(self, own: bool) -> None:
        self.facts = Facts(("rows",), padded=not own, light=own)

    def close(self) -> None:
        """Nothing to let go."""

    def run(self, feeds: Any) -> Any:
        return np.array(feeds["lengths"], dtype=np.float32)[:, None]


def make(threads: int, own: bool) -> Engine:
    return Engine(
        lambda _: Lengths(own),
        threads=threads,
        dim=1,
        pad_token_id=0,
        max_batch_tokens=LIMIT,
        feeds=lambda rows, *_: {"lengths": [len(row) for row in rows]},
    )


def rows(*lengths: int) -> list[npt.NDArray[np.int64]]:
    return [np.ones(length, dtype=np.int64) for length in lengths]


def small(engine: Engine) -> list[float]:
    found: list[float] = engine.run_small(rows(9, 5), np.zeros(2, np.int64))[:, 0].tolist()
    return found


def bulk(engine: Engine) -> list[float]:
    lengths = [40, 50, 60, 30]
    call = Call()
    try:
        running = engine.submit(rows(*lengths), np.zeros(len(lengths), np.int64), call)
        found: list[float] = engine.collect(running)[:, 0].tolist()
        return found
    finally:
        call.given_up = True


class Limit(Exception):  # noqa: N818  as others call theirs
    """What a worker's soft time limit raises."""


@contextmanager
def interrupted(steps: set[int]) -> Iterator[list[int]]:
    """Raise Limit before these lines of the engine, counted as they run; gives the count."""
    count = [0]

    def step(frame: FrameType, event: str, _: object) -> Any:
        if frame.f_code.co_filename not in FILES:
            return None
        if event == "line":
            count[0] += 1
            if count[0] in steps:
                raise Limit(count[0])
        return step

    before = sys.gettrace()
    gc.disable()  # what ends an engine that was dropped before would be counted, too
    sys.settrace(step)
    try:
        yield count
    finally:
        sys.settrace(before)
        gc.enable()


@pytest.mark.parametrize("own", [False, True], ids=["stock", "own operators"])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("work", [small, bulk])
def test_an_exception_before_any_line_and_one_more_behind_it_leave_the_engine_as_it_was(
    work: Callable[[Engine], list[float]], threads: int, own: bool
) -> None:
    engine = make(threads, own)
    wanted = work(engine)
    with interrupted(set()) as count:
        assert work(engine) == wanted
    hit = 0
    with ThreadPoolExecutor(1) as other:
        for first in range(1, count[0] + 1):
            for again in (None, 1, 2, 3, 5, 8):
                # The second one strikes in `finally` and `except` blocks, which would put things right.
                try:
                    with interrupted({first} if again is None else {first, first + again}):
                        work(engine)
                except Limit:
                    hit += 1
                assert other.submit(work, engine).result(10) == wanted
                assert work(engine) == wanted
    assert hit > count[0]
    engine.close()


class Held(Lengths):
    """A session whose first run goes on until it may end."""

    def __init__(self, own: bool) -> None:
        super().__init__(own)
        self.going, self.may_end = threading.Event(), threading.Event()

    def run(self, feeds: Any) -> Any:
        if not self.going.is_set():
            self.going.set()
            assert self.may_end.wait(10)
        return super().run(feeds)


@pytest.mark.parametrize("threads", [1, 2])
def test_an_exception_before_any_line_of_a_call_that_waits_leaves_the_engine_as_it_was(threads: int) -> None:
    """Another call has the only place, until the one under test waits for it or is over."""

    def contended(steps: set[int]) -> int:
        engine = make(threads, False)
        engine._small = session = Held(False)
        over = threading.Event()

        def let_go() -> None:
            assert session.going.wait(10)
            while not (engine._turns._queue or over.is_set()):
                time.sleep(0.0005)
            session.may_end.set()

        with ThreadPoolExecutor(2) as pool:
            first, _ = pool.submit(small, engine), pool.submit(let_go)
            assert session.going.wait(10)
            try:
                with interrupted(steps) as count:
                    assert small(engine) == [9, 5]
            except Limit:
                pass
            finally:
                over.set()
            assert first.result(10) == [9, 5]
            assert pool.submit(small, engine).result(10) == [9, 5]
        assert small(engine) == [9, 5]
        assert not engine._turns._queue
        engine.close()
        return count[0]

    lines = contended(set())
    assert lines > 30
    for first in range(1, lines + 1):
        for again in (None, 1, 2, 5):
            contended({first} if again is None else {first, first + again})


def test_calls_that_fail_together_run_apart_and_each_sees_its_own() -> None:
    class Faulty(Held):
        def run(self, feeds: Any) -> Any:
            if len(feeds["lengths"]) > 1 or feeds["lengths"] == [5]:
                raise MemoryError("for two, and for five")
            return super().run(feeds)

    engine = make(1, False)
    engine._small = session = Faulty(False)
    with ThreadPoolExecutor(5) as pool:
        calls = [pool.submit(engine.run_small, rows(3), np.zeros(1, np.int64))]
        assert session.going.wait(10)
        calls += [pool.submit(engine.run_small, rows(k), np.zeros(1, np.int64)) for k in (4, 5, 6)]

        def without(alone: bool) -> Any:
            raise LookupError(f"no rows, {alone}")

        calls.append(pool.submit(engine.run_few, 7, without))
        while len(engine._turns._queue) < 4:
            time.sleep(0.001)
        session.may_end.set()
        outcomes = [call.exception(10) or float(call.result()[0, 0]) for call in calls]
    assert [outcomes[k] for k in (0, 1, 3)] == [3, 4, 6]
    assert isinstance(outcomes[2], MemoryError)
    assert isinstance(outcomes[4], LookupError) and str(outcomes[4]) == "no rows, False"


def test_a_signal_handler_may_encode_over_the_call_that_it_interrupts() -> None:
    engine = make(2, False)
    found: list[Any] = []

    class Handler(Lengths):
        def run(self, feeds: Any) -> Any:
            if not found:
                found.append(0.0)  # once
                found[0] = engine.run_small(rows(7), np.zeros(1, np.int64))[0, 0]
            return super().run(feeds)

    engine._small = Handler(False)
    assert small(engine) == [9, 5]
    assert found == [7]


def test_calls_that_wait_run_where_the_system_gives_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = make(1, False)
    engine._small = session = Held(False)

    def none_left(task: Any) -> Any:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(engine._turns._workers, "start", none_left)
    with ThreadPoolExecutor(3) as pool:
        calls = [pool.submit(small, engine)]
        assert session.going.wait(10)
        calls += [pool.submit(small, engine) for _ in range(2)]
        while len(engine._turns._queue) < 2:
            time.sleep(0.001)
        session.may_end.set()
        assert [call.result(10) for call in calls] == [[9, 5]] * 3
    assert small(engine) == [9, 5]


@pytest.mark.parametrize("taken", [False, True], ids=["in the queue", "by a worker that runs it"])
def test_a_call_that_ends_while_it_waits_leaves_its_place_to_others(taken: bool) -> None:
    running, go_on = threading.Event(), threading.Event()

    class Slow(Held):
        def run(self, feeds: Any) -> Any:
            if feeds["lengths"] == [4]:
                running.set()
                assert go_on.wait(10)
            return super().run(feeds)

    engine = make(1, False)
    engine._small = session = Slow(False)

    def limited() -> None:
        def step(frame: FrameType, event: str, _: object) -> Any:
            if frame.f_code.co_name == "sleep" and (running.is_set() or not taken):
                raise Limit("while it waits")
            return step

        sys.settrace(step)
        try:
            with pytest.raises(Limit):
                engine.run_small(rows(4), np.zeros(1, np.int64))
        finally:
            sys.settrace(None)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(small, engine)
        assert session.going.wait(10)
        second = pool.submit(limited)
        if taken:
            while not engine._turns._queue:
                time.sleep(0.001)
            session.may_end.set()
            assert running.wait(10)
        second.result(10)
        assert not engine._turns._queue
        session.may_end.set()
        go_on.set()
        assert first.result(10) == [9, 5]
        assert pool.submit(small, engine).result(10) == [9, 5]
    for _ in range(200):  # a worker stays for a moment
        if not engine._turns._leading:
            break
        time.sleep(0.01)
    assert not engine._turns._leading


def test_an_error_of_a_call_that_a_worker_ran_keeps_nothing_of_its_caller() -> None:
    class Faulty(Held):
        def run(self, feeds: Any) -> Any:
            super().run(feeds)
            raise MemoryError("no room")

    engine = make(1, False)
    engine._small = session = Faulty(False)

    def fail() -> weakref.ref[Any]:
        held = Lengths(False)
        with pytest.raises(MemoryError):
            small(engine)
        return weakref.ref(held)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(small, engine)
        assert session.going.wait(10)
        gc.collect()
        gc.disable()
        try:
            second = pool.submit(fail)
            while not engine._turns._queue:
                time.sleep(0.001)
            session.may_end.set()
            held = second.result(10)
            for _ in range(200):  # the worker lets go of it when it looks for what waits next
                if held() is None:
                    break
                time.sleep(0.01)
            assert held() is None
        finally:
            gc.enable()
        assert isinstance(first.exception(10), MemoryError)


def test_an_error_of_bulk_work_keeps_nothing_of_its_caller() -> None:
    class Faulty(Lengths):
        def run(self, feeds: Any) -> Any:
            raise MemoryError("no room")

    engine = make(2, False)
    engine._bulk = Faulty(False)

    def fail() -> weakref.ref[Any]:
        held = Lengths(False)
        with pytest.raises(MemoryError):
            bulk(engine)
        return weakref.ref(held)

    gc.collect()
    gc.disable()
    try:
        assert fail()() is None
    finally:
        gc.enable()


def test_an_exception_from_outside_is_told_from_one_of_the_work() -> None:
    def handler() -> None:
        raise ValueError("a time limit, whatever its kind")

    try:
        handler()
    except ValueError as error:
        assert from_outside(error)
    try:
        Workers(1, "closed").close()
        once({}, "key", lambda: make(1, False)).run_small(None, None)  # type: ignore[arg-type]
    except TypeError as error:
        assert error.__traceback__ is not None
        assert not from_outside(error.with_traceback(error.__traceback__.tb_next))  # as seen from run_small
    assert from_outside(KeyboardInterrupt())
    assert from_outside(Limit("that another thread raises here: no code on its way"))
    assert from_outside(TimeoutError())
    assert not from_outside(MemoryError())


def test_an_error_without_a_message_has_the_name_of_its_kind() -> None:
    assert first_line(ValueError("one\ntwo")) == "one"
    assert first_line(ValueError("\n one")) == "one"
    assert first_line(MemoryError()) == "MemoryError"


SCRIPT = """
import random, signal, sys, threading, time
import numpy as np
from fastembed_rt import EmbeddingModel, Reranker
directory, reranker, precision, threads, interrupts = *sys.argv[1:4], int(sys.argv[4]), int(sys.argv[5])
model = EmbeddingModel(directory, precision=precision, threads=threads, max_batch_tokens=64)
rank = Reranker(reranker, threads=threads)
texts = [f"the cat {k} " + "sleeps " * (k % 11) for k in range(60)]
kinds = [
    lambda: model.encode("the cat"),
    lambda: model.encode(texts[:3]),
    lambda: model.encode(texts),
    lambda: np.stack(list(model.embed(iter(texts)))),
    lambda: rank.predict([("a cat", text) for text in texts[:9]]),
]
wanted = [kind() for kind in kinds]
class Limit(Exception): ...
def raise_it(*_): raise Limit("limit")
signal.signal(signal.SIGALRM, raise_it)
random.seed(int(sys.argv[6]))
going = True
def others():
    while going:
        model.encode("a dog"); rank.predict(("a", "b"))
thread = threading.Thread(target=others)
thread.start()
hits = 0
while hits < interrupts:
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-4, 1.5e-3))
        random.choice(kinds)()
        time.sleep(0.01)
    except Limit:
        hits += 1
signal.setitimer(signal.ITIMER_REAL, 0)
going = False
thread.join(20)
assert not thread.is_alive(), "another thread hangs"
print(hits, all(np.array_equal(kind(), vectors) for kind, vectors in zip(kinds, wanted, strict=True)), flush=True)
"""
needs_alarm = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs interval timers")


@pytest.fixture(scope="module")
def directories(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model with both precisions, and a reranker."""
    from checkpoints import save_sentence_transformers
    from cross_encoders import save_cross_encoder
    from exports import quick

    root = tmp_path_factory.mktemp("interrupts")
    quick(save_sentence_transformers(root / "e"), root / "embedding", precisions=("fp32", "int8"), min_cosine=0.5)
    quick(save_cross_encoder(root / "r"), root / "reranker")
    return root / "embedding", root / "reranker"


@needs_alarm
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_hundreds_of_interrupted_calls_leave_the_same_vectors(
    run_script: Any, directories: tuple[Path, Path], precision: str, threads: int
) -> None:
    done = run_script(SCRIPT, *directories, precision, threads, 200, 1, timeout=120)
    assert done.stdout == "200 True\n", done.stderr


@needs_alarm
@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_twenty_thousand_interrupted_calls_leave_the_same_vectors(
    run_script: Any, directories: tuple[Path, Path], precision: str, threads: int
) -> None:
    done = run_script(SCRIPT, *directories, precision, threads, 20_000, 2, timeout=900)
    assert done.stdout == "20000 True\n", done.stderr
