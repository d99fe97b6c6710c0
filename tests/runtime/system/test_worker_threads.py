"""Threads of our own: work that is made once, refused, given up, or done where the system gives no thread more."""

from __future__ import annotations

import queue
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fastembed_rt.errors import InvalidInputError
from fastembed_rt.system import threads as threads_module
from fastembed_rt.system.threads import Call, Task, Workers, once


def test_what_is_made_once_is_made_once_and_an_error_is_not_kept() -> None:
    tasks: dict[str, Task[int]] = {}
    made: list[int] = []
    start = threading.Barrier(8)

    def work() -> int:
        made.append(1)
        return len(made)

    def ask(_: int) -> int:
        start.wait(10)
        return once(tasks, "number", work)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(8))) == {1}

    def fail() -> int:
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        once(tasks, "other", fail)
    assert once(tasks, "other", lambda: 5) == 5


def test_a_pool_that_is_closed_refuses_what_waits_and_what_comes() -> None:
    pool, going, go_on = Workers(1, "test"), threading.Event(), threading.Event()

    def block() -> str:
        going.set()
        assert go_on.wait(10)
        return "done"

    running = pool.start(Task(block))
    waiting = pool.start(Task(str))
    assert going.wait(10)
    pool.close()
    go_on.set()
    assert running.result() == "done"
    with pytest.raises(InvalidInputError, match="closed"):
        waiting.result()
    with pytest.raises(InvalidInputError, match="closed"):
        pool.start(Task(str))


def test_a_pool_that_closes_while_a_task_comes_refuses_it() -> None:
    pool, told = Workers(1, "test"), threading.Event()

    class Late(queue.SimpleQueue[Any]):
        def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
            if item is not None:
                pool.close()  # as another thread does, between a look at `closed` and this
            super().put(item)

    pool._state.jobs = Late()
    task = pool.start(Task(str, then=told.set))
    assert told.wait(5)
    with pytest.raises(InvalidInputError, match="closed"):
        task.result()


def test_a_pool_works_where_the_system_gives_no_thread_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        pool = Workers(1, "test")
        first = pool.start(Task(lambda: 5))
        time.sleep(0.2)  # for the thread that starts threads
    with ThreadPoolExecutor(1) as other:
        assert other.submit(first.result).result(10) == 5
        assert other.submit(pool.start(Task(lambda: 6)).result).result(10) == 6
    pool.close()


def test_work_of_a_call_that_is_given_up_is_not_begun() -> None:
    pool, go_on, call = Workers(1, "test"), threading.Event(), Call()
    pool.start(Task(go_on.wait, 10))
    done: list[int] = []
    waiting = [pool.start(Task(done.append, k, call=call)) for k in range(5)]
    call.given_up = True
    go_on.set()
    for task in waiting:
        with pytest.raises(threads_module.GivenUpError):
            task.result()
    assert done == []
    pool.close()


@pytest.mark.parametrize("fails", [False, True])
def test_a_task_has_let_go_of_its_work_before_anyone_hears_of_the_end(fails: bool) -> None:
    class Work:
        def __call__(self, given: Any) -> None:
            del given
            if fails:
                raise ValueError

    class Observed(Task[None]):
        left: Any = "not finished"

        def _finish(self) -> None:
            if self._error is not None:
                self._error.__traceback__ = None  # whose frames are the work's own
            self.left = [one() for one in alive]
            super()._finish()

    work, given = Work(), Work()
    alive = [weakref.ref(work), weakref.ref(given)]
    task = Observed(work, given)
    del work, given
    task.run()
    assert task.failed() == fails
    assert task.left == [None, None]
