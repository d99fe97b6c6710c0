"""Several processes that answer on the same sockets, and the one that starts them, watches them and ends them.

The one that watches loads no model and takes no connection: it has nothing that could fail. Workers are fresh
processes, not forks, so they may use GPUs. Graphs that are mapped from files are in memory once, and on Linux the
packed weights of our own operators too: see packed.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError
from ..system.interpreter import interpreter
from . import hangups, lasting, packed
from .reloading import outcome
from .sockets import GONE, Board, let_nobody_in
from .totals import Totals
from .worker import MOST_BYTES

BOOT = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from fastembed_rt.cli.served import work; work()"
SOUND_SECONDS = 10.0  # after which a worker that ends has not failed at its start
FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0  # seconds before a worker is started again that failed at its start
FIRST_STARTS = 3  # of a place that nobody has had, while others answer: its files may be changed just then
METRICS_SECONDS = 2.0  # for a worker to tell its metrics: one that is busy is left with what it said last
SILENT = 2  # questions in a row that a worker has not answered: one may be due to a machine that stood still
SPARE_SECONDS = 5.0  # after the time for draining, until workers are killed; and then for those to be gone
RELOAD_SECONDS = 3600.0  # for a worker to load other files beside its own
Say = Callable[[Iterable[str]], None]


@dataclass
class _Worker:
    """A place that is always filled, and who has it now."""

    slot: int
    process: asyncio.subprocess.Process | None = None
    writer: asyncio.StreamWriter | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    began: float = 0.0  # to load, by the monotonic clock
    stale: bool = False  # it began to load before the last reload: its files may be older than those
    identities: dict[str, str] = field(default_factory=dict)
    text: str = ""  # metrics, as told last


class Supervisor:
    """Of all workers."""

    def __init__(
        self,
        settings: dict[str, Any],
        sockets: Sequence[socket.socket],
        count: int,
        *,
        drain_seconds: float,
        worker_timeout: float,
        say: Say,
        weights: Path | None = None,
    ) -> None:
        """`settings` is what each worker is told to do, as JSON; environments of its slots are in `environment`.

        A worker that says nothing for `worker_timeout` seconds is killed; 0: none is. `weights` is the folder of the
        weights that workers share.
        """
        self._weights = weights
        self._python = interpreter("serve with several workers")
        self._settings, self._sockets, self._drain_seconds, self._say = settings, sockets, drain_seconds, say
        self._ask_seconds = worker_timeout / SILENT
        self._board = Board(count)
        self._workers = [_Worker(slot) for slot in range(count)]
        self._totals = Totals()
        self._numbers = itertools.count(1)
        self._waiting: dict[tuple[int, int], asyncio.Future[Any]] = {}  # by slot and number
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reloading = asyncio.Lock()  # one after the other, in all workers
        self._stopping = asyncio.Event()
        self._answering = False  # a worker has been ready
        self._failed: int | None = None  # exit code of a first start

    async def run(self) -> int:
        """Until SIGTERM or SIGINT; an exit code."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self._stopping.set)
        loop.add_signal_handler(signal.SIGINT, self._interrupted)
        hangups.listen(loop, lambda: self._start(self._reload_and_say()))
        if self._ask_seconds:
            for worker in self._workers:
                self._start(self._watch(worker))
        keepers = []
        # One after the other: the first says what is wrong, and reads the files. One that may be stuck keeps none back.
        for worker in self._workers:
            keeper = self._start(self._keep(worker))
            keepers.append(keeper)
            ready = asyncio.create_task(worker.ready.wait())
            stop = asyncio.create_task(self._stopping.wait())
            done = asyncio.FIRST_COMPLETED
            await asyncio.wait([ready, stop, keeper], timeout=lasting.FIRST_SECONDS, return_when=done)
            ready.cancel()
            stop.cancel()
            if self._stopping.is_set():
                break
        else:
            self._say([f"  {len(self._workers)} workers: {', '.join(str(number) for number in self._pids())}"])
        await self._stopping.wait()
        await self._end(keepers)
        return self._failed or 0

    def _interrupted(self) -> None:
        """Ctrl-C: the second drops what is not answered, as it does where one process serves."""
        if self._stopping.is_set():
            for worker in self._workers:
                _signal(worker.process, signal.SIGINT)
        self._stopping.set()

    def _pids(self) -> list[int]:
        return [worker.process.pid for worker in self._workers if worker.process is not None]

    async def _end(self, keepers: Sequence[asyncio.Task[Any]]) -> None:
        for listener in self._sockets:  # the last worker takes what waits
            let_nobody_in(listener)
            listener.close()
        for worker in self._workers:
            _signal(worker.process, signal.SIGTERM)
        _, late = await asyncio.wait(keepers, timeout=self._drain_seconds + SPARE_SECONDS)
        if late:
            for worker in self._workers:
                _signal(worker.process, signal.SIGKILL)
            await asyncio.wait(late, timeout=SPARE_SECONDS)
        for worker in self._workers:
            if worker.process is not None:  # the kernel keeps it, such as for a disk of a network that is away
                self._say([f"worker {worker.slot} cannot be ended now; process {worker.process.pid} is left behind"])

    async def _keep(self, worker: _Worker) -> None:
        """Have the place filled until the end."""
        wait, sound = FIRST_WAIT, False
        starts = 0
        while not self._stopping.is_set():
            try:
                code: int | None = await self._one(worker)
                what = f"ended with code {code} after {time.monotonic() - worker.began:.0f} s"
            except Exception as error:  # noqa: BLE001  no process or descriptor to be had, or a fault here: not the end
                code, what = None, f"could not be run: {type(error).__name__}: {error}"
            sound = sound or worker.ready.is_set()
            worker.ready.clear()
            self._board.set(worker.slot, GONE)
            if self._stopping.is_set():
                return
            starts += 1
            if not sound and (starts == FIRST_STARTS or not self._answering):  # trying again would change nothing
                if code is None or code <= 0:  # else it has said why
                    self._say([f"error: worker {worker.slot} {what}"])
                self._failed = code if code is not None and code > 0 else 1
                self._stopping.set()
                return
            lived = time.monotonic() - worker.began
            wait = FIRST_WAIT if lived > SOUND_SECONDS else min(wait * 2, LONGEST_WAIT)
            self._say([f"worker {worker.slot} {what}; started again in {wait:g} s"])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)

    async def _watch(self, worker: _Worker) -> None:
        """Kill who has the place if its event loop answers no more; it is started again like one that died."""
        silent = 0
        while not self._stopping.is_set():
            process = worker.process
            if process is None or not worker.ready.is_set():
                silent = 0
                await asyncio.sleep(self._ask_seconds)
                continue
            began = time.monotonic()
            answer = await self._ask(worker, "ping", self._ask_seconds)
            silent = silent + 1 if "error" in answer and worker.process is process else 0
            if silent >= SILENT and not self._stopping.is_set():
                self._say([f"worker {worker.slot} has not answered for {SILENT * self._ask_seconds:g} s; killed"])
                _signal(worker.process, signal.SIGKILL)
                silent = 0
            await asyncio.sleep(max(self._ask_seconds - (time.monotonic() - began), 0))

    async def _one(self, worker: _Worker) -> int:
        """A process from its start to its end; its exit code.

        Raises:
            OSError: the system gives no process, or no descriptors for one.
        """
        worker.began, worker.text, worker.stale = time.monotonic(), "", False
        loading: asyncio.Task[Any] | None = None
        self._keep_weights()
        ours, theirs = socket.socketpair()
        try:
            told = await self._spawn(worker, theirs)
            reader, worker.writer = await asyncio.open_connection(sock=ours, limit=MOST_BYTES)
            process = worker.process
            assert process is not None
            assert process.stdin is not None
            loading = self._start(self._tell_of_loading(worker, process.pid))
            if self._stopping.is_set():  # it was being started when all others were told to end
                _signal(process, signal.SIGTERM)
            with contextlib.suppress(ConnectionError):  # it ended at once
                process.stdin.write(json.dumps(told).encode() + b"\n")  # not as arguments: those are for all to see
                await process.stdin.drain()
            process.stdin.close()
            await self._read(worker, reader)
            return await process.wait()
        finally:
            if loading is not None:
                loading.cancel()
            if worker.writer is None:
                ours.close()
            self._gone(worker)

    async def _tell_of_loading(self, worker: _Worker, pid: int) -> None:
        """Say that it takes long, each time that it has taken twice as long: it may export a model, or be stuck."""
        seconds = lasting.FIRST_SECONDS
        while True:
            try:
                await asyncio.wait_for(worker.ready.wait(), worker.began + seconds - time.monotonic())
            except TimeoutError:
                answer = f"{self._alive() or 'none'} of {len(self._workers)} answer meanwhile"
                self._say([f"worker {worker.slot} (process {pid}) has been loading for {seconds:g} s; {answer}"])
                seconds *= 2
            else:
                if seconds > lasting.FIRST_SECONDS:
                    self._say([f"worker {worker.slot} is ready after {time.monotonic() - worker.began:.0f} s"])
                return

    async def _spawn(self, worker: _Worker, channel: socket.socket) -> dict[str, Any]:
        """Start the process, which is to have this end of the channel; gives what it has to be told."""
        descriptors = [channel.fileno(), self._board.descriptor, *(listener.fileno() for listener in self._sockets)]
        told = {**self._settings, "slot": worker.slot, "workers": len(self._workers)}
        told |= {"channel": descriptors[0], "board": descriptors[1], "sockets": descriptors[2:]}
        try:
            worker.process = await asyncio.create_subprocess_exec(
                *(self._python, "-c", BOOT, json.dumps(sys.path)),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=descriptors,
                env={**os.environ, **self._settings["environment"][worker.slot]},
                start_new_session=True,  # Ctrl-C is for this process, which tells the workers
            )
        finally:
            channel.close()
        return told

    def _gone(self, worker: _Worker) -> None:
        """The place is free: what the process had is counted, and who waits for its answer is told."""
        _signal(worker.process, signal.SIGKILL)  # where a fault of ours came before its end
        if worker.writer is not None:
            worker.writer.close()
        worker.process = worker.writer = None
        self._totals.ended(worker.text)
        worker.text = ""
        for key, future in list(self._waiting.items()):
            if key[0] == worker.slot and not future.done():
                future.set_result({"error": f"worker {worker.slot} ended", "open": True})

    async def _read(self, worker: _Worker, reader: asyncio.StreamReader) -> None:
        """What it says, until its end."""
        while True:
            try:
                line = await reader.readline()
            except ConnectionError:
                return
            if not line:
                return
            self._heard(worker, json.loads(line))

    def _heard(self, worker: _Worker, message: dict[str, Any]) -> None:
        if "ready" in message:
            self._is_ready(worker, message)
        elif "ask" in message:
            self._start(self._answer(worker, message))
        elif "metrics" in message:
            worker.text = message["text"]
            self._told(worker, message["metrics"], message)
        elif "pong" in message:
            self._told(worker, message["pong"], message)
        elif "reloaded" in message:
            worker.identities = message.get("identities", worker.identities)
            if not self._told(worker, message["reloaded"], message) and self._differ():  # nobody waited for it any more
                self._start(self._level(worker))

    def _is_ready(self, worker: _Worker, message: dict[str, Any]) -> None:
        worker.identities = message["models"]
        if not self._answering:
            self._say(message["ready"])
        worker.ready.set()
        self._answering = True
        if worker.stale or self._differ():
            self._start(self._level(worker))

    def _differ(self) -> bool:
        """Whether what runs is not everywhere the same, or nobody knows that it is what the last reload was to load."""
        ready = [worker for worker in self._workers if worker.ready.is_set()]
        return any(worker.identities != ready[0].identities for worker in ready) or (
            bool(ready) and all(worker.stale for worker in ready)
        )

    async def _level(self, worker: _Worker) -> None:
        """Have all workers load what one has that became ready, or should have: after a reload that goes on."""
        async with self._reloading:
            if not self._differ():
                for other in self._workers:
                    other.stale = False
                return
            newest = worker if worker.ready.is_set() and not worker.stale else None
            if newest is not None:
                self._say([f"worker {worker.slot} came back with other model files; the others load them too"])
            answer = await self._reload_each(None, newest)
        self._say_reloaded(answer)

    def _told(self, worker: _Worker, number: int, message: dict[str, Any]) -> bool:
        """Whether somebody waits for it."""
        future = self._waiting.pop((worker.slot, number), None)
        if future is None or future.done():
            return False
        future.set_result(message)
        return True

    async def _answer(self, worker: _Worker, message: dict[str, Any]) -> None:
        writer = worker.writer  # of who asks: another process may have the place before there is an answer
        try:
            answer = {"text": await self._metrics()} if message["ask"] == "metrics" else await self._reload(worker)
        except Exception as error:  # noqa: BLE001  who has asked waits for an answer
            answer = {"error": f"{type(error).__name__}: {error}"}
        if writer is not None:
            writer.write(json.dumps({"answer": message["number"], **answer}).encode() + b"\n")

    async def _ask(self, worker: _Worker, what: str, seconds: float) -> dict[str, Any]:
        if worker.writer is None or not worker.ready.is_set():
            return {"error": f"worker {worker.slot} is not there"}
        key = (worker.slot, next(self._numbers))
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._waiting[key] = future
        worker.writer.write(json.dumps({"do": what, "number": key[1]}).encode() + b"\n")
        try:
            return await asyncio.wait_for(future, seconds)
        except TimeoutError:
            return {"error": f"worker {worker.slot} did not answer in {seconds:g} s", "open": True}
        finally:
            self._waiting.pop(key, None)

    async def _metrics(self) -> str:
        await asyncio.gather(*(self._ask(worker, "metrics", METRICS_SECONDS) for worker in self._workers))
        own = f"# TYPE fastembed_rt_workers gauge\nfastembed_rt_workers {self._alive()}\n"
        own += "# TYPE fastembed_rt_loading_seconds gauge\n"  # as one that is stuck does
        own += f"fastembed_rt_loading_seconds {self._loading_seconds():.3f}\n"
        return self._totals.text([own, *(worker.text for worker in self._workers)])

    async def _reload(self, asker: _Worker | None = None) -> dict[str, Any]:
        """All workers, one after the other: memory for one model more, and the others answer meanwhile.

        From the first that has changed on there is no way back: one that cannot follow is told to end, and its place
        is filled from the new files. `asker` is who waits for the answer, and ends last.
        """
        async with self._reloading:
            return await self._reload_each(asker)

    async def _reload_each(self, asker: _Worker | None, newest: _Worker | None = None) -> dict[str, Any]:
        """`newest` has loaded the files just now, and loads them again only where they have changed since."""
        found: list[dict[str, Any]] = []
        changed = newest is not None
        restarted: list[int] = []
        last: asyncio.subprocess.Process | None = None
        began = time.time()
        self._keep_weights()
        for worker in self._workers:  # before the first is asked: they may become ready meanwhile
            worker.stale = worker.process is not None and worker is not newest
        for worker in sorted(self._workers, key=lambda worker: worker is newest):
            if self._stopping.is_set():
                return {"error": "the server is stopping"}
            if not worker.ready.is_set() or (worker is newest and not self._differ()):
                continue  # what it loads is looked at when it is ready
            process = worker.process
            answer = await self._ask(worker, "reload", RELOAD_SECONDS)
            if "error" not in answer:
                worker.stale, changed = False, True
                found = found or answer["models"]
            elif not changed:
                for other in self._workers:
                    other.stale = False  # nothing has changed yet
                if "open" not in answer:
                    return {"error": answer["error"]}
                rest = "if it has another model when it is there again, the others load that too"
                return {"error": f"{answer['error']}; {rest}", "open": True}
            else:
                self._say([f"worker {worker.slot} cannot reload and is started again: {answer['error']}"])
                restarted.append(worker.slot)
                if worker is asker:
                    last = process
                else:
                    _signal(process, signal.SIGTERM)
        _signal(last, signal.SIGTERM)
        if self._weights is not None:
            packed.forget(self._weights, began)
        loading = [worker.slot for worker in self._workers if not worker.ready.is_set()]
        return {"models": found, "restarted": restarted, "loading": [k for k in loading if k not in restarted]}

    async def _reload_and_say(self) -> None:
        self._say_reloaded(await self._reload())

    def _say_reloaded(self, answer: dict[str, Any]) -> None:
        if "error" in answer:
            self._say([f"reload: {answer['error']}"])
        elif answer["restarted"]:
            self._say([f"reloaded; started again: workers {', '.join(map(str, answer['restarted']))}"])
        elif not any(worker.ready.is_set() for worker in self._workers):
            self._say(["reload: workers that are loading follow when they are ready"])
        elif answer["loading"] or any(worker.stale for worker in self._workers):
            self._say([f"reloaded; workers that are loading follow when they are ready: {outcome(answer['models'])}"])
        else:
            self._say([f"reloaded in all workers: {outcome(answer['models'])}"])

    def _alive(self) -> int:
        return sum(worker.ready.is_set() for worker in self._workers)

    def _loading_seconds(self) -> float:
        """For how long the one has been loading that has been for longest; 0: none is."""
        now = time.monotonic()
        loading = [worker for worker in self._workers if worker.process is not None and not worker.ready.is_set()]
        return max((now - worker.began for worker in loading), default=0.0)

    def _keep_weights(self) -> None:
        if self._weights is not None:
            packed.keep(self._weights)

    def _start(self, coroutine: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def environments(count: int, *, gpus: Sequence[str] | None, automatic: bool = False) -> list[dict[str, str]]:
    """What is different in each worker's environment: on GPUs, one device.

    `automatic`: the provider is whichever runs, so that there may be no device, and workers may share one.

    Raises:
        InvalidInputError: more workers than devices.
    """
    if gpus is None or (automatic and not gpus):
        return [{} for _ in range(count)]
    if count > len(gpus) and not automatic:
        raise InvalidInputError(f"{count} workers, and {len(gpus)} GPUs: one process a device")
    return [{"CUDA_VISIBLE_DEVICES": gpus[slot % len(gpus)]} for slot in range(count)]


def _signal(process: asyncio.subprocess.Process | None, number: int) -> None:
    if process is not None and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
