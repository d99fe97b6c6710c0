"""Several GPUs: one process a device behind the interface of one engine; token ids go out, vectors come back in order.

A process each, because one interpreter does not feed several devices. Workers are plain child processes that talk
pickles through their standard streams: nothing of the caller's main module runs in them. A worker that ends is an error
of every call that waits, with its exit code; a caller that ends takes its workers along, as their input ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, BinaryIO, TypeVar

import numpy as np

from ..errors import FastembedRtError, IntegrityError, InvalidInputError, WorkerError
from ..system.interpreter import interpreter
from ..system.threads import CLOSED, Call, GivenUpError, Promise, Task
from .batching import Ids, Limits
from .contract import GraphSession, Make, Results, Running
from .pool import Pool

T = TypeVar("T")
AHEAD = 2  # batches a worker has: one runs, the next is there already
SECONDS_TO_END = 10.0
BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from fastembed_rt.run.devices import serve; serve()"


class _Failure:
    """What ended an engine, if something did; set once, read by whoever waits."""

    def __init__(self) -> None:
        self._first: dict[str, BaseException] = {}

    def set(self, error: BaseException) -> bool:
        """Whether this error is the first."""
        return self._first.setdefault("error", error) is error

    def get(self) -> BaseException | None:
        """The first error."""
        return self._first.get("error")


class _Job(Promise[Results]):
    """Rows on their way to a worker and back."""

    __slots__ = ("_failure", "call", "left_out", "rows")

    def __init__(self, rows: Sequence[Ids], left_out: Ids, failure: _Failure, call: Call | None = None) -> None:
        super().__init__()
        self.rows, self.left_out, self.call = rows, left_out, call
        self._failure = failure

    def lost(self) -> BaseException | None:
        """What ended the engine: nobody may be left to say so to each job."""
        return self._failure.get()


class DeviceEngine:
    """An engine whose sessions are in other processes. Safe to use from several threads."""

    def __init__(
        self,
        start: Mapping[str, Any],
        device_ids: Sequence[int],
        *,
        threads: int,
        dim: int,
        max_batch_tokens: int,
        objects: bool,
        mixed_lengths: bool = True,
    ) -> None:
        """Start the workers and wait until all are ready.

        Args:
            start: the class that each worker opens, by module and name, its options, and its files' identities.
            device_ids: one worker each.
            threads: of this process, which tokenize.
            dim: length of the vectors.
            max_batch_tokens: bound on the tokens of a batch, padding included.
            objects: whether a row's result is an object.
            mixed_lengths: as for Engine.

        Raises:
            FastembedRtError: what a worker raised when it loaded the model.
            WorkerError: a worker ended meanwhile.
        """
        self._limits = Limits(max_batch_tokens, mixed_lengths=mixed_lengths)
        self._pool = Pool(threads, dim, objects=objects)
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._failure = _Failure()
        failed = weakref.WeakMethod(self._fail)  # an engine that is dropped must go, and its workers with it
        self._processes = [_Worker(device, start, self._jobs, failed) for device in device_ids]
        self._finalizer = weakref.finalize(self, _end, self._processes, os.getpid())
        try:
            for worker in self._processes:
                worker.wait_ready()
        except BaseException:
            self._finalizer()
            raise
        for worker in self._processes:
            worker.begin()

    @property
    def sessions(self) -> tuple[GraphSession, ...]:
        """None in this process."""
        return ()

    @property
    def processes(self) -> tuple[int, ...]:
        """Ids of the workers' processes, in the order of the devices."""
        return tuple(worker.process.pid for worker in self._processes)

    def close(self) -> None:
        """End the workers; what still waits for them fails."""
        self._pool.close()
        self._fail(InvalidInputError(CLOSED))
        self._finalizer()

    @property
    def limits(self) -> Limits:
        """What may be one batch."""
        return self._limits

    @property
    def side_by_side(self) -> int:
        """Two batches a process: one is on its way while the other runs."""
        return AHEAD * len(self._processes)

    @property
    def spare(self) -> bool:
        """The processes' devices do the work."""
        return True

    def run_batch(self, rows: Sequence[Ids], left_out: Ids, *, alone: bool) -> Results:
        """Results (n, dim) of one batch, by whichever worker is free."""
        return self._send(rows, left_out).result()

    def is_small(self, rows: Sequence[Ids]) -> bool:
        """Whether the rows, each (tokens,), make a single batch."""
        return self._limits.is_one_batch(rows)

    def run_small(self, rows: Sequence[Ids], left_out: Ids) -> Results:
        """Results (n, dim) of a few rows, by whichever worker is free."""
        return self._send(rows, left_out).result()

    def run_few(self, tokens: int, make: Make) -> Results:
        """Results (n, dim) of a few rows, which `make` gives in this thread, by whichever worker is free."""
        rows, left_out = make(True)
        return (
            self.run_small(rows, left_out) if self.is_small(rows) else self.collect(self.submit(rows, left_out, Call()))
        )

    def submit(self, rows: Sequence[Ids], left_out: Ids, call: Call) -> Running:
        """Start bulk work on n rows, of which `left_out` (n,) is not pooled: numbers (batch,) and results to come."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        return [
            (batch, self._send([rows[k] for k in batch], left_out[batch], call)) for batch in self._limits.plan(lengths)
        ]

    def background(self, call: Call, function: Callable[..., T], *arguments: object) -> Task[T]:
        """Run a function on one of this process's threads, behind what waits for them already."""
        return self._pool.background(call, function, *arguments)

    def collect(self, running: Running) -> Results:
        """Results (n, dim) of what `submit` started, in the order of its rows; raises what a batch raised."""
        return self._pool.collect(running)

    def _send(self, rows: Sequence[Ids], left_out: Ids, call: Call | None = None) -> Promise[Results]:
        error = self._failure.get()
        if error is not None:
            raise error
        job = _Job(rows, left_out, self._failure, call)
        self._jobs.put(job)  # behind a failure it is lost, which `result` finds out
        return job

    def _fail(self, error: BaseException) -> None:
        """Once: every waiting call gets the error, and so does every later one."""
        if not self._failure.set(error):
            return
        for worker in self._processes:
            worker.fail(error)


class _Worker:
    """One process, and the two threads that write to and read from it."""

    def __init__(
        self,
        device: int,
        start: Mapping[str, Any],
        jobs: queue.SimpleQueue[_Job | None],
        failed: weakref.WeakMethod[Any],
    ) -> None:
        self.device = device
        self._jobs, self._failed = jobs, failed
        self._running: deque[_Job] = deque()
        self._room = threading.Semaphore(AHEAD)
        self._error: BaseException | None = None  # set once: nothing runs here any more
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [interpreter("device_ids with several GPUs"), "-c", BOOT, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._to: BinaryIO = self.process.stdin  # type: ignore[assignment]
        self._back: BinaryIO = self.process.stdout  # type: ignore[assignment]
        with contextlib.suppress(OSError):  # it has ended; wait_ready says how
            _write(self._to, {**start, "device": device})

    def wait_ready(self) -> None:
        """Return when the model is loaded there, or raise what kept it from that."""
        answer = self._read()
        if isinstance(answer, BaseException):
            raise answer

    def begin(self) -> None:
        """Start the threads."""
        for work in (self._send_all, self._receive_all):
            threading.Thread(target=work, name=f"fastembed_rt_device_{self.device}", daemon=True).start()

    def fail(self, error: BaseException) -> None:
        """Give up what runs."""
        self._error = error
        while self._running:
            with contextlib.suppress(IndexError):  # an answer has come
                self._running.popleft().fail(error)

    def end(self) -> None:
        """Wait until the process, which was told to end, is gone; kill it if it does not go."""
        try:
            self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for stream in (self._to, self._back):  # not before: a thread may be in the middle of a message
            with contextlib.suppress(OSError):
                stream.close()

    def _send_all(self) -> None:
        while True:
            self._room.acquire()
            job = self._jobs.get()
            if job is None:
                self._jobs.put(None)  # for the other workers' threads
                return
            if job.call is not None and job.call.given_up:
                job.fail(GivenUpError())
                self._room.release()
                continue
            self._running.append(job)
            if self._error is not None:
                self.fail(self._error)
                return
            try:
                _write(self._to, (job.rows, job.left_out))
            except Exception:  # noqa: BLE001  whatever it is (no memory for the message), nobody else would send
                self._report(self._obituary())
                return

    def _receive_all(self) -> None:
        while True:
            try:
                answer = self._read()
            except WorkerError as error:
                self._report(error)
                return
            self._room.release()
            try:
                job = self._running.popleft()
            except IndexError:  # given up meanwhile
                continue
            if self._error is not None:  # the answer may be that of one given up, and this job one that came behind it
                job.fail(self._error)
            elif isinstance(answer, BaseException):
                job.fail(answer)
            else:
                job.keep(answer)

    def _report(self, error: WorkerError) -> None:
        """Tell the engine, if this is news and there still is one."""
        failed = self._failed()
        if self._error is None and failed is not None:
            failed(error)
        self.fail(error)

    def _read(self) -> Any:
        try:
            return pickle.load(self._back)
        except Exception:  # noqa: BLE001  nobody else would read
            raise self._obituary() from None

    def _obituary(self) -> WorkerError:
        try:
            code = self.process.wait(SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        how = f"exit code {code}"
        if code < 0:
            how += f" ({signal.Signals(-code).name})" if -code in set(signal.Signals) else ""
        return WorkerError(
            f"the worker of device {self.device} ended with {how}; its last words are on stderr. "
            "Load the model again, with fewer max_batch_tokens if memory ran out"
        )


def _end(workers: Sequence[_Worker], owner: int) -> None:
    """End the processes; in a fork's child, which has them not, do nothing."""
    if os.getpid() != owner:
        return
    for worker in workers:
        worker._jobs.put(None)
        worker.process.terminate()
    for worker in workers:
        worker.end()


def _write(stream: BinaryIO, message: object) -> None:
    pickle.dump(message, stream, protocol=pickle.HIGHEST_PROTOCOL)
    stream.flush()


def serve() -> None:
    """The worker: a model loaded once, then vectors for rows of token ids until the input ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the caller decides
    source, answers = sys.stdin.buffer, os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What anything prints must not be read as an answer; without a stderr (pythonw, 2>&-) nobody reads it.
    os.dup2(os.open(os.devnull, os.O_WRONLY) if sys.stderr is None else sys.stderr.fileno(), sys.stdout.fileno())
    start = pickle.load(source)
    try:
        from importlib import import_module

        kind = getattr(import_module(start["module"]), start["name"])
        model = kind(start["path"], device_ids=[start["device"]], **start["options"])
    except Exception as error:  # noqa: BLE001  whatever it is, it belongs to the caller
        _write(answers, _portable(error))
        return
    if model._identities() != start["identities"]:
        changed = f"{start['path']} was replaced since the model was loaded; load the model again"
        _write(answers, IntegrityError(changed))
        return
    engine = model._running()
    _write(answers, "ready")
    while True:
        try:
            rows, left_out = pickle.load(source)
        except EOFError:
            return
        try:
            _write(answers, engine.run_small(rows, left_out))
        except BrokenPipeError:
            return
        except Exception as error:  # noqa: BLE001  of this batch alone
            _write(answers, _portable(error))


def _portable(error: Exception) -> Exception:
    """The error itself where it can be pickled as what it is, else its words."""
    return error if isinstance(error, FastembedRtError) else RuntimeError(f"{type(error).__name__}: {error}")
