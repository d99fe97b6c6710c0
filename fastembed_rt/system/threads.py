"""Threads that nothing from outside interrupts, and results that they hand over.

A signal handler that raises (Ctrl-C, a worker's soft time limit) does so between any two steps of Python code of the
main thread, and other time limits do it in any thread that they know. What a caller began may so be left half done:
a count not taken back, and also the lock inside a Future, Queue or Semaphore of the standard library, which are made of
Python code themselves; a worker that wants that lock then waits for good. Here callers only put tasks into a queue and
wait on locks that workers alone release. Both are written in C, and no step that a caller leaves out keeps a worker
from its work, or another caller from its result.
"""

from __future__ import annotations

import _thread
import atexit
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Hashable
from contextvars import ContextVar
from types import FrameType
from typing import Any, Generic, TypeVar

from ..errors import InvalidInputError

GRACE = 1.0  # seconds in which an interpreter that ends has mostly gone
POLL = 0.05  # seconds after which who waits looks for itself, should nobody have woken it
CLOSED = "the model is closed; load it again"
ENDING = "the program ends, and its threads encode nothing any more"
T = TypeVar("T")
K = TypeVar("K", bound=Hashable)


class Call:
    """What one caller wants done; `given_up` is set once, by whoever no longer wants it."""

    __slots__ = ("given_up",)

    def __init__(self) -> None:
        self.given_up = False


# Of this thread's caller, where that may give it up (aencode).
CURRENT: ContextVar[Call | None] = ContextVar("fastembed_rt_call", default=None)


class GivenUpError(Exception):
    """The caller of a task gave it up before it began; nobody is there to see this."""


class Promise(Generic[T]):
    """A result to come, set once by a worker."""

    __slots__ = ("_error", "_lock", "_result", "finished")

    def __init__(self) -> None:
        self._lock = _thread.allocate_lock()
        self._lock.acquire()
        self._result: T | None = None
        self._error: BaseException | None = None
        self.finished = False

    def keep(self, result: T) -> None:
        """The result; for workers."""
        self._result = result
        self._finish()

    def fail(self, error: BaseException) -> None:
        """The error that `result` raises; for workers."""
        self._error = error
        self._finish()

    def _finish(self) -> None:
        self.finished = True
        self._lock.release()

    def failed(self) -> bool:
        """Whether there will be an error."""
        return self._error is not None

    def lost(self) -> BaseException | None:
        """Why there will be no result, where nobody is left to give one."""
        return None

    def result(self) -> T:
        """Wait for the result, or raise the error."""
        while not self.finished:
            if self._lock.acquire(timeout=POLL):
                self._lock.release()  # for whoever waits too
            elif not self.finished and (error := self.lost()) is not None:
                raise error
        if self._error is not None:
            _linger()
            try:
                raise self._error
            finally:
                del self  # its traceback holds this frame, and the promise the error: else both outlive the call
        return self._result  # type: ignore[return-value]


class Task(Promise[T]):
    """A function that a worker calls, once."""

    __slots__ = ("_arguments", "_call", "_claim", "_function", "_then", "_workers")

    def __init__(
        self,
        function: Callable[..., T],
        *arguments: Any,
        call: Call | None = None,
        then: Callable[[], None] | None = None,
    ) -> None:
        """Of `call`, which is not begun once that is given up; `then` is called when there is a result."""
        super().__init__()
        self._claim = _thread.allocate_lock()
        self._function: Callable[..., T] | None = function
        self._arguments = arguments
        self._call = call
        self._then = then
        self._workers: _State | None = None

    def run(self, refused: BaseException | None = None) -> None:
        """Call the function, unless another thread does or there is a reason not to; for workers."""
        if not self._claim.acquire(blocking=False):
            return
        function, arguments = self._function, self._arguments
        self._function, self._arguments = None, ()  # freed with the work, however long the result is kept
        assert function is not None
        try:
            if refused is None and self._call is not None and self._call.given_up:
                refused = GivenUpError()
            if refused is not None:
                raise refused
            result = function(*arguments)
        except BaseException as error:  # noqa: BLE001  it belongs to whoever wants the result
            del function, arguments  # before anyone hears of it: a thread may pause here, and its caller go on
            self.fail(error)
        else:
            del function, arguments
            self.keep(result)
            del result
        if self._then is not None:
            self._then()
        del self  # the error's traceback holds this frame, and the task the error

    def begun(self) -> bool:
        """Whether a thread has taken it."""
        return self._claim.locked()

    def lost(self) -> BaseException | None:
        """A pool that is closed and has no thread left runs nothing any more."""
        state = self._workers
        gone = state is not None and state.closed and not state.alive and not state.coming
        return InvalidInputError(CLOSED) if gone else None


class _State:
    """What threads of a pool share with it; they do not hold the pool."""

    def __init__(self, most: int, name: str) -> None:
        self.most, self.name = most, name
        self.jobs: queue.SimpleQueue[Task[Any] | None] = queue.SimpleQueue()
        self.coming: set[threading.Thread] = set()
        self.alive: set[threading.Thread] = set()
        self.idle: set[threading.Thread] = set()
        self.closed = False
        self.process = os.getpid()
        self.lock = threading.Lock()  # of the threads alone: no caller ever holds it


class Workers:
    """A pool of threads that start when there is work for them."""

    def __init__(self, most: int, name: str) -> None:
        self._state = _State(most, name)
        _states.add(self._state)
        weakref.finalize(self, _end, self._state).atexit = False

    def start(self, task: Task[T]) -> Task[T]:
        """Have a task run behind those that wait; after `close` its result is an error.

        Raises:
            InvalidInputError: the pool is closed.
            RuntimeError: the pool has no thread, and the system gives none.
        """
        state = self._state
        if state.closed:
            _linger()
            raise InvalidInputError(CLOSED)
        task._workers = state
        state.jobs.put(task)
        if self._state.closed:  # meanwhile, and perhaps no thread is left to refuse it
            task.run(InvalidInputError(CLOSED))
        elif len(state.alive) < state.most and state.jobs.qsize() >= len(state.idle):
            try:
                _thread.start_new_thread(_grow, (state,))
            except RuntimeError:  # the system gives no thread more: those that there are do the work
                if not state.alive and not state.coming:
                    raise
        return task

    @property
    def closed(self) -> bool:
        """Whether nothing is begun any more."""
        return self._state.closed

    def close(self) -> None:
        """Refuse what still waits, and let the threads go when they are done with what they do."""
        _end(self._state)


def _end(state: _State) -> None:
    state.closed = True
    state.jobs.put(None)


def _grow(state: _State) -> None:
    """Start a thread of the pool. On a thread, as starting one is a handshake, which must not be interrupted either."""
    with state.lock:
        if len(state.alive) + len(state.coming) >= state.most:
            return
        thread = threading.Thread(target=_work, args=(state,), name=f"{state.name}_{len(state.alive)}", daemon=True)
        state.coming.add(thread)
    try:
        thread.start()
    except RuntimeError:  # the system gave its last thread to this one, which then takes the place of the other
        _work(state, thread)


def _work(state: _State, me: threading.Thread | None = None) -> None:
    """A thread: tasks until the pool is closed."""
    me = threading.current_thread() if me is None else me
    with state.lock:
        state.alive.add(me)
        state.coming.discard(me)
    while True:
        state.idle.add(me)
        task = state.jobs.get()
        state.idle.discard(me)
        if task is None:
            break
        task.run(InvalidInputError(CLOSED) if state.closed else None)
        del task  # it must not live until the next one comes
    state.jobs.put(None)  # for the others
    state.alive.discard(me)


_states: weakref.WeakSet[_State] = weakref.WeakSet()
# With the process and the thread: a forked child has copies of what never ends in it.
_alone: set[tuple[int, int, Task[Any]]] = set()


_exits: list[int] = []  # the thread that ends the interpreter, once it does


def away(function: Callable[..., T], *arguments: Any) -> T:
    """What a function of C++ gives, which lets other threads have the interpreter meanwhile.

    A thread that wants it back when it has gone ends the whole process (std::terminate). So the end of the interpreter
    waits for who is here, also for daemon threads of the user's, and nobody else comes in then.

    Raises:
        InvalidInputError: the interpreter ends.
    """
    try:
        return _away(function, *arguments)
    except _EndsError:
        _linger()
        raise


class _EndsError(InvalidInputError):
    """The interpreter ends, and this is not its thread."""


def _away(function: Callable[..., T], *arguments: Any) -> T:
    """As `away`; who is here is seen by its frame, so that nothing is left behind however the call ends."""
    if (error := _refused(_thread.get_ident())) is not None:
        raise error
    return function(*arguments)


def _check_going_on() -> None:
    if (error := _refused(_thread.get_ident())) is not None:
        _linger()
        raise error


def _linger() -> None:
    """Before an error: where the interpreter ends, a thread of the user's mostly goes with it and prints nothing."""
    if not _exits:
        return
    me = _thread.get_ident()
    ours = {thread.ident for state in list(_states) for thread in list(state.alive)}
    ours.update(thread for _, thread, _ in list(_alone))  # the end waits for them
    if _exits[0] != me and me not in ours:
        time.sleep(GRACE)


def ends_interpreter() -> bool:
    """Whether this thread ends the interpreter now, with handlers that may encode."""
    return bool(_exits) and _exits[0] == _thread.get_ident()


def _refused(caller: int) -> _EndsError | None:
    """Why nothing is begun for a thread any more; the one that ends the interpreter goes on."""
    return _EndsError(ENDING) if _exits and _exits[0] != caller else None


def _is_away(frame: FrameType | None) -> bool:
    """Whether a thread with this frame is in a call of `_away`."""
    while frame is not None:
        if frame.f_code is _away.__code__:
            return True
        frame = frame.f_back
    return False


def _at_exit() -> None:
    """Let threads come back from onnxruntime before the interpreter goes; what only waits is refused."""
    process, me = os.getpid(), _thread.get_ident()
    _exits.append(me)
    mine = [state for state in list(_states) if state.process == process]
    for state in mine:
        _end(state)
    while (
        any(state.alive for state in mine)
        or any(owner == process for owner, _, _ in list(_alone))
        or any(_is_away(frame) for thread, frame in sys._current_frames().items() if thread != me)
    ):
        time.sleep(0.001)


atexit.register(_at_exit)


def _start_alone(task: Task[Any]) -> None:
    _check_going_on()
    _thread.start_new_thread(_run_alone, (task, _thread.get_ident()))


def _run_alone(task: Task[Any], caller: int) -> None:
    mark = (os.getpid(), _thread.get_ident(), task)
    _alone.add(mark)
    try:
        task.run(_refused(caller))  # asked again: the end comes between any two steps
    finally:
        _alone.discard(mark)


def aside(function: Callable[..., T], *arguments: Any) -> Task[T]:
    """A task that runs on a thread of its own, at once."""
    task = Task(function, *arguments)
    _start_alone(task)
    return task


def once(tasks: dict[K, Task[T]], key: K, make: Callable[[], T]) -> T:
    """What `make` makes for the first who asks, on a thread of its own; others wait for the same. An error is not kept.

    No lock is held meanwhile, and who is interrupted leaves nothing behind that others could wait for.
    """
    task = tasks.get(key)
    if task is None:
        task = tasks.setdefault(key, Task(make))
    if not task.begun():
        _start_alone(task)  # of several threads, one runs it
    try:
        return task.result()
    finally:
        if task.failed() and tasks.get(key) is task:
            tasks.pop(key, None)


def ended(frame: FrameType) -> bool:
    """Whether the call with this frame is over, however it ended."""
    try:
        frame.clear()  # refused while it runs
    except RuntimeError:
        return False
    return True


def under(frame: FrameType) -> bool:
    """Whether the call with this frame goes on below, in this thread: a signal handler may call what it interrupts."""
    found: FrameType | None = sys._getframe()
    while found is not None:
        if found is frame:
            return True
        found = found.f_back
    return False
