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
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import Any, BinaryIO

import numpy as np

from . import batching
from .batching import Ids
from .engine import Engine, Split, Vectors
from .errors import FastembedRtError, InvalidInputError, WorkerError
from .memory import Trimmer
from .session import Session

AHEAD = 2  # batches a worker has: one runs, the next is there already
SECONDS_TO_END = 10.0
BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from fastembed_rt.devices import serve; serve()"
Job = tuple[Sequence[Ids], Ids, "Future[Vectors]"]


class DeviceEngine(Engine):
    """An engine whose sessions are in other processes."""

    def __init__(
        self,
        start: Mapping[str, Any],
        device_ids: Sequence[int],
        *,
        threads: int,
        dim: int,
        max_batch_tokens: int,
        split: Split | None,
    ) -> None:
        """Start the workers and wait until all are ready.

        Args:
            start: the class that each worker opens, by module and name, and its options.
            device_ids: one worker each.
            threads: of this process, which tokenize.
            dim: length of the vectors.
            max_batch_tokens: bound on the tokens of a batch, padding included.
            split: not None where a row's result is an object.

        Raises:
            FastembedRtError: what a worker raised when it loaded the model.
            WorkerError: a worker ended meanwhile.
        """
        self._threads, self._dim, self._max_batch_tokens, self._split = threads, dim, max_batch_tokens, split
        self._lock = threading.Lock()
        self._trimmer = Trimmer()
        self._pool = None
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._failed: BaseException | None = None
        failed = weakref.WeakMethod(self._fail)  # an engine that is dropped must go, and its workers with it
        self._workers = [_Worker(device, start, self._jobs, failed) for device in device_ids]
        self._finalizer = weakref.finalize(self, _end, self._workers, os.getpid())
        try:
            for worker in self._workers:
                worker.wait_ready()
        except BaseException:
            self._finalizer()
            raise
        for worker in self._workers:
            worker.begin()

    @property
    def sessions(self) -> tuple[Session, ...]:
        """None in this process."""
        return ()

    @property
    def processes(self) -> tuple[int, ...]:
        """Ids of the workers' processes, in the order of the devices."""
        return tuple(worker.process.pid for worker in self._workers)

    def close(self) -> None:
        """End the workers; what still waits for them fails."""
        self._fail(InvalidInputError("the model is closed; load it again"))
        super().close()
        self._finalizer()

    def is_small(self, rows: Sequence[Ids]) -> bool:
        """Whether the rows make a single batch."""
        return self._is_one_batch(rows)

    def run_small(self, rows: Sequence[Ids], left_out: Ids) -> Vectors:
        """Vectors (n, dim) of a few rows, by whichever worker is free."""
        return self._send(rows, left_out).result()

    def submit(self, rows: Sequence[Ids], left_out: Ids) -> list[tuple[Ids, Future[Vectors]]]:
        """Start bulk work: row numbers of each batch, and its vectors to come."""
        lengths = np.array([len(row) for row in rows], dtype=np.int64)
        return [
            (batch, self._send([rows[k] for k in batch], left_out[batch]))
            for batch in batching.plan(lengths, self._max_batch_tokens)
        ]

    def _send(self, rows: Sequence[Ids], left_out: Ids) -> Future[Vectors]:
        coming: Future[Vectors] = Future()
        with self._lock:  # never behind a failure that empties the queue
            if self._failed is not None:
                raise self._failed
            self._jobs.put((rows, left_out, coming))
        return coming

    def _fail(self, error: BaseException) -> None:
        """Once: every waiting call gets the error, and so does every later one."""
        with self._lock:
            if self._failed is not None:
                return
            self._failed = error
            waiting = []
            while not self._jobs.empty():
                job = self._jobs.get()
                if job is not None:
                    waiting.append(job[2])
        for coming in waiting:
            if coming.set_running_or_notify_cancel():
                coming.set_exception(error)
        for worker in self._workers:
            worker.fail(error)


class _Worker:
    """One process, and the two threads that write to and read from it."""

    def __init__(
        self,
        device: int,
        start: Mapping[str, Any],
        jobs: queue.SimpleQueue[Job | None],
        failed: weakref.WeakMethod[Any],
    ) -> None:
        self.device = device
        self._jobs, self._failed = jobs, failed
        self._running: deque[Future[Vectors]] = deque()
        self._lock = threading.Lock()
        self._room = threading.Semaphore(AHEAD)
        self._error: BaseException | None = None  # set once: nothing runs here any more
        environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", BOOT, json.dumps(sys.path)],
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
        with self._lock:
            self._error = error
            running, self._running = self._running, deque()
        for coming in running:
            coming.set_exception(error)

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
            rows, left_out, coming = job
            if not coming.set_running_or_notify_cancel():
                self._room.release()
                continue
            with self._lock:
                error = self._error
                if error is None:
                    self._running.append(coming)
            if error is not None:
                coming.set_exception(error)
                return
            try:
                _write(self._to, (rows, left_out))
            except (OSError, ValueError):
                self._report(self._obituary())
                return

    def _receive_all(self) -> None:
        while True:
            try:
                answer = self._read()
            except WorkerError as error:
                self._report(error)
                return
            with self._lock:
                coming = self._running.popleft() if self._running else None
            self._room.release()
            if coming is None:  # given up meanwhile
                continue
            if isinstance(answer, BaseException):
                coming.set_exception(answer)
            else:
                coming.set_result(answer)

    def _report(self, error: WorkerError) -> None:
        """Tell the engine, if this is news and there still is one."""
        failed = self._failed()
        if self._error is None and failed is not None:
            failed(error)
        self.fail(error)

    def _read(self) -> Any:
        try:
            return pickle.load(self._back)
        except (EOFError, OSError, pickle.UnpicklingError, ValueError):
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
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what anything prints must not be read as an answer
    start = pickle.load(source)
    try:
        from importlib import import_module

        kind = getattr(import_module(start["module"]), start["name"])
        model = kind(start["path"], device_ids=[start["device"]], **start["options"])
    except Exception as error:  # noqa: BLE001  whatever it is, it belongs to the caller
        _write(answers, _portable(error))
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
