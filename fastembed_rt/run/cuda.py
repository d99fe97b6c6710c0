"""Running graphs for CUDA: small batches replay captured CUDA graphs, large ones go through pinned buffers.

A small batch is filled up to one of a few (texts, tokens a text) shapes, each captured when it first comes: its
buffers stay, and a replay is one launch instead of hundreds. A large batch takes one of a few sets of buffers, so that
its copies and, with them, tokenization go on while another batch computes. Either way all inputs go to the device in
one copy (staging.py). Nothing here is loaded for other providers.

A session that may capture has one stream for all its runs, which onnxruntime makes: what replays and other runs write
into the same memory of its arena, they write one after the other.
"""

from __future__ import annotations

import logging
import queue
import time
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import first_line
from ..files import ModelFiles
from ..manifest import Variant
from ..native.cuda import TARGET
from ..system.threads import Task, Workers
from . import batching, calibration, cuda_operators, session
from .batching import Feeds
from .calibration import Plan
from .captures import apart, stand_apart
from .contract import Facts, Output
from .providers import load_onnxruntime
from .session import Session
from .staging import Buffer, PinnedMemory, Staging

# Batches of ever other sizes: the arena grows by what they ask for, not to the next power of two.
SETTINGS = {"enable_cuda_graph": "1", "arena_extend_strategy": "kSameAsRequested"}
# Flash and memory-efficient attention, which compute each text by itself. Where there is no flash attention, on Turing,
# onnxruntime would take kernels made for one length of the longest text each: a vector would depend on its batch.
BY_TEXT = {"sdpa_kernel": "3"}
TEXTS = (1, 4, 16)  # of captured shapes
TOKENS = (16, 32, 64, 128, 256, 512)
TIMES = 3  # a measurement is the least of so many


def shape_for(texts: int, longest: int, most: int = Plan.captured_tokens) -> tuple[int, int] | None:
    """The smallest captured shape (texts, tokens a text) that a batch fits into, if one does.

    `most`: tokens in all, filling included; above it launches are no longer what takes the time.
    """
    fitting = [
        (count, tokens)
        for count in TEXTS
        for tokens in TOKENS
        if texts <= count and longest <= tokens and count * tokens <= most
    ]
    return min(fitting, key=lambda shape: shape[0] * shape[1], default=None)


def filled(feeds: Feeds, inputs: tuple[str, ...], texts: int, tokens: int) -> Feeds:
    """Feeds of a batch as those of `texts` texts with room for `tokens` tokens each, in the same order.

    What fills up are texts of one token and tokens of no text: neither changes another text's vector.
    """
    boundaries = feeds["cumulative_sequence_length"]
    rows = np.split(feeds["input_ids"][: boundaries[-1]], boundaries[1:-1])
    rows += [np.zeros(1, np.int64)] * (texts - len(rows))
    made = batching.packed_for_cuda(rows, inputs, texts * tokens, tokens)
    if "attention_mask" in feeds:  # it may hide tokens of a text from the others
        given = feeds["attention_mask"][:, :tokens]
        made["attention_mask"][: len(given), : given.shape[1]] = given
    if "pooling_mask" in inputs:
        made["pooling_mask"] = np.zeros((texts, tokens), np.int64)
        given = feeds["pooling_mask"][:, :tokens]
        made["pooling_mask"][: len(given), : given.shape[1]] = given
    if "token_type_ids" in inputs:
        made["token_type_ids"] = np.zeros(texts * tokens, np.int64)
        made["token_type_ids"][: boundaries[-1]] = feeds["token_type_ids"][: boundaries[-1]]
    return {name: made[name] for name in inputs}


def load(files: ModelFiles, variant: Variant, *, device: int = 0, longest: int = 512, **options: Any) -> CudaSession:
    """A graph of the cuda or cuda-native target on one GPU, calibrated for texts of up to `longest` tokens.

    Other options and errors as for `session.load`.
    """
    own = variant.target == TARGET
    settings = SETTINGS | (BY_TEXT if own else {})
    with cuda_operators.remembered(device, variant.graph.sha256) if own else nullcontext():
        graph = session.load(files, variant, device=device, settings=settings, **options)
    if not calibration.wanted():
        return CudaSession(graph, device)
    file = calibration.place(variant, device, longest)
    plan = calibration.read(file)
    if plan is not None:
        return CudaSession(graph, device, plan)
    if _width(graph) is None:  # such graphs are not captured, nor are made-up texts like theirs
        return CudaSession(graph, device)
    made = CudaSession(graph, device, calibration.MOST)
    made.settle(calibrated(made, file, longest, device))
    return made


def calibrated(session: CudaSession, file: Path, longest: int, device: int = 0) -> Plan:
    """What is measured of a session that has the most of everything, kept in a file."""
    try:
        plan = calibration.choose(_Timed(session), longest)
    except Exception as error:  # noqa: BLE001  memory may not do for the largest, and smaller batches run all the same
        logging.getLogger("fastembed_rt").warning(
            "GPU %d runs with batches of %d tokens, unmeasured: %s", device, Plan().batch_tokens, first_line(error)
        )
        return Plan()
    calibration.write(file, plan)
    return plan


class CudaSession:
    """A loaded graph for CUDA, run by replays and through slots: a GraphSession around another."""

    def __init__(self, graph: Session, device: int, plan: Plan = Plan()) -> None:  # noqa: B008  it is frozen
        """`device` is the GPU's number."""
        self._device, self._plan = device, plan
        self._by_token = _gives_tokens(graph)
        self._held = _Held(graph)
        weakref.finalize(self, _let_go, self._held).atexit = False
        # onnxruntime keeps captured graphs by thread: one thread has them all. Slots are taken by threads of this
        # session alone, so that no caller that is interrupted keeps one.
        self._capturer = Workers(1, "fastembed_rt_cuda")
        self._copiers = Workers(plan.flights, "fastembed_rt_cuda_slot")
        self._host = PinnedMemory(device)
        for _ in range(plan.flights):
            self._held.slots.put(_Slot(graph, self._host, device))

    @property
    def handles(self) -> tuple[object, ...]:
        """Those of the graph."""
        return self._held.graph.handles

    @property
    def pinned(self) -> bool:
        """Whether its host buffers are page-locked."""
        return self._host.works

    def run(self, feeds: Feeds) -> Output:
        """The output for one batch: (B, dim), or (T, dim) for vectors of tokens."""
        boundaries = feeds["cumulative_sequence_length"]
        texts = len(boundaries) - 1
        count = self.rows_of(texts, int(boundaries[-1]))
        shape = shape_for(texts, int(np.diff(boundaries).max()), self._plan.captured_tokens)
        if shape is None:
            return self.run_plain(feeds, count)
        return self.run_captured(shape, filled(feeds, self.facts.inputs, *shape))[:count]

    def rows_of(self, texts: int, tokens: int) -> int:
        """Rows of the output for so many texts, which have so many tokens together."""
        return tokens if self._by_token else texts

    def run_plain(self, feeds: Feeds, count: int) -> Output:
        """The output for one batch, `count` rows of it, through a slot."""
        return self._copiers.start(Task(self._copy, {name: feeds[name] for name in self.facts.inputs}, count)).result()

    def run_captured(self, shape: tuple[int, int], feeds: Feeds) -> Output:
        """The output for one batch that was filled up to a shape (texts, tokens a text): captured, then replayed."""
        return self._capturer.start(Task(self._replay, shape, feeds)).result()

    @property
    def facts(self) -> Facts:
        """Those of the graph, with the tokens that a batch should have."""
        return replace(self._held.graph.facts, batch_tokens=self._plan.batch_tokens)

    def settle(self, plan: Plan) -> None:
        """Take a plan of no more than there is; before anybody else runs the session."""
        for _ in range(plan.flights, self._plan.flights):
            self._held.slots.get()
        self._plan = plan

    def _copy(self, feeds: Feeds, count: int) -> Output:
        stand_apart()
        slots = self._held.slots
        slot = slots.get()
        try:
            return slot.run(feeds, count)
        finally:
            slots.put(slot)

    def _replay(self, shape: tuple[int, int], feeds: Feeds) -> Output:
        stand_apart()
        held = self._held
        captured = held.captured.get(shape)
        if captured is not None:
            return captured.run(feeds)
        # What another thread launches while the stream is captured would be captured too: the slots wait.
        slots = [held.slots.get() for _ in range(self._plan.flights)]
        try:
            number = len(held.captured) + 1  # 0 is the number of runs that name none
            rows = self.rows_of(shape[0], shape[0] * shape[1])
            captured = _Captured(held.graph, self._host, self._device, feeds, rows, number)
            vectors = captured.run(feeds)
        finally:
            for slot in slots:
                held.slots.put(slot)
        held.captured[shape] = captured
        return vectors

    def close(self) -> None:
        """Let the threads go; batches on their way are done, those that wait fail."""
        self._capturer.close()
        self._copiers.close()

    @property
    def plan(self) -> Plan:
        """What was measured of this graph on this card, or what is taken where nothing was."""
        return self._plan

    def captured_shapes(self) -> list[tuple[int, int]]:
        """(texts, tokens a text) of the shapes captured so far."""
        return sorted(self._held.captured)


@dataclass(eq=False)
class _Held:
    """All that a session has of onnxruntime's: nothing else refers to it, so that it goes where `_let_go` says."""

    graph: Session
    captured: dict[tuple[int, int], _Captured] = field(default_factory=dict)
    slots: queue.SimpleQueue[_Slot] = field(default_factory=queue.SimpleQueue)


def _let_go(held: _Held) -> None:
    """Destroy captured graphs and their session, in whichever thread the last reference goes.

    Where another session captures meanwhile, onnxruntime would end the process: CUDA forbids it, and a destructor that
    throws is the end.
    """
    with apart():
        vars(held).clear()


class _Timed:
    """A session as a calibration's Card."""

    def __init__(self, session: CudaSession) -> None:
        self._session = session

    def plain(self, texts: int, tokens: int) -> float:
        feeds = made_up(self._session.facts.inputs, texts, tokens)
        rows = self._session.rows_of(texts, texts * tokens)
        return _least(lambda: self._session.run_plain(feeds, rows))

    def replayed(self, texts: int, tokens: int) -> float:
        feeds = made_up(self._session.facts.inputs, texts, tokens)
        return _least(lambda: self._session.run_captured((texts, tokens), feeds))

    def side_by_side(self, flights: int, texts: int, tokens: int) -> float:
        feeds = made_up(self._session.facts.inputs, texts, tokens)
        rows = self._session.rows_of(texts, texts * tokens)
        callers, each = Workers(flights, "fastembed_rt_calibration"), 2

        def runs() -> None:
            for _ in range(each):
                self._session.run_plain(feeds, rows)

        def together() -> None:
            for task in [callers.start(Task(runs)) for _ in range(flights)]:
                task.result()

        try:
            return _least(together) / (flights * each)
        finally:
            callers.close()


def _least(work: Callable[[], object]) -> float:
    """Seconds of one call, the least of TIMES after one that is not counted."""
    work()
    seconds = []
    for _ in range(TIMES):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def made_up(inputs: tuple[str, ...], texts: int, tokens: int) -> Feeds:
    """Feeds of so many texts with so many tokens each, all of one id."""
    made = batching.packed_for_cuda([np.ones(tokens, np.int64)] * texts, inputs, texts * tokens, tokens)
    made["pooling_mask"] = made["attention_mask"]
    made["token_type_ids"] = np.zeros(texts * tokens, np.int64)
    return {name: made[name] for name in inputs}


def _width(graph: Session) -> int | None:
    """Numbers in a row of the output; None where they vary."""
    (found,) = [entry.shape for entry in graph.inference.get_outputs() if entry.name == graph.output]
    return found[1] if len(found) == 2 and isinstance(found[1], int) else None


def _gives_tokens(graph: Session) -> bool:
    """Whether the output has a row for each token, instead of one for each text."""
    (found,) = [entry.shape for entry in graph.inference.get_outputs() if entry.name == graph.output]
    return bool(found[0] == "tokens")


class _Captured:
    """A CUDA graph of one shape with its buffers; used by one thread."""

    def __init__(self, graph: Session, host: PinnedMemory, device: int, feeds: Feeds, rows: int, number: int) -> None:
        self._inference, self._host = graph.inference, host
        self._binding = self._inference.io_binding()
        self._staging = Staging(host, device)
        self._layout = self._staging.bind(self._binding, feeds)
        width = _width(graph)
        assert width is not None, "outputs of cuda graphs have rows of one width"
        values = load_onnxruntime().OrtValue
        self._vectors = values.ortvalue_from_shape_and_type((rows, width), np.float32, "cuda", device)
        self._binding.bind_ortvalue_output(graph.output, self._vectors)
        self._back = host.allocate(4 * rows * width)
        self._options = _run_options(number)

    def run(self, feeds: Feeds) -> Output:
        """The first run captures, the others replay."""
        self._staging.send(self._layout, feeds)
        self._inference.run_with_iobinding(self._binding, self._options)
        return self._host.fetch(self._vectors, self._back)


class _Slot:
    """The buffers of one batch in flight, which grow with what comes."""

    def __init__(self, graph: Session, host: PinnedMemory, device: int) -> None:
        self._inference, self._output, self._host = graph.inference, graph.output, host
        self._width = _width(graph)
        self._staging = Staging(host, device)
        self._back: Buffer | None = None
        self._options = _run_options(-1)  # neither captured nor replayed

    def run(self, feeds: Feeds, count: int) -> Output:
        """`count` rows of the output."""
        binding = self._inference.io_binding()
        self._staging.send(self._staging.bind(binding, feeds), feeds)
        if self._width is None:
            binding.bind_output(self._output, "cpu")
            self._inference.run_with_iobinding(binding, self._options)
            (found,) = binding.copy_outputs_to_cpu()
            return np.asarray(found)
        shape, size = (count, self._width), 4 * count * self._width
        if self._back is None or len(self._back.array) < size:
            self._back = self._host.allocate(max(size, 2 * len(self._back.array) if self._back else 0))
        vectors = self._back.array[:size]
        binding.bind_output(self._output, "cpu", 0, np.float32, shape, vectors.ctypes.data)
        self._inference.run_with_iobinding(binding, self._options)
        made: Output = vectors.view(np.float32).reshape(shape).copy()
        return made


def _run_options(graph: int) -> Any:
    """Options of a run by the number of its captured graph; -1: none."""
    options = load_onnxruntime().RunOptions()
    options.add_run_config_entry("gpu_graph_id", str(graph))
    return options
