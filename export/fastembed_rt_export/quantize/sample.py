"""Tokenized texts, and graphs run over them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from fastembed_rt import native
from fastembed_rt.errors import MissingDependencyError
from fastembed_rt.manifest import EMBEDDING, OUTPUTS
from fastembed_rt.run import batching
from fastembed_rt.run.batching import Ids
from fastembed_rt.run.providers import outdated
from fastembed_rt.run.session import SLOWER_FUSIONS, load_onnxruntime, tune
from fastembed_rt.system.paths import as_utf8

from ..graph.weight import Floats

BATCH_TOKENS = 256  # of a batch, of which each thread runs one
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Sample:
    """Tokenized texts as a graph takes them, and what it gives for them."""

    rows: Sequence[Ids]
    boundaries: Ids  # (rows,) see `batching.feeds`
    feeds: Callable[[Sequence[Ids], Sequence[str], int, Ids], batching.Feeds] = batching.feeds
    output: str = OUTPUTS[EMBEDDING]
    by_token: bool = False  # the output has a row for each token, not for each text
    mixed_lengths: bool = True  # False: padding changes what the graph gives, and it takes batches of one length only

    @classmethod
    def of(cls, rows: Sequence[Ids]) -> Sample:
        """Texts without prompts, each (tokens,)."""
        return cls(rows, np.zeros(len(rows), dtype=np.int64))

    @cached_property
    def lengths(self) -> Ids:
        """(rows,) tokens of each text."""
        return np.array([len(row) for row in self.rows], dtype=np.int64)

    def only(self, chosen: Sequence[int]) -> Sample:
        """Some of the texts."""
        return replace(self, rows=[self.rows[k] for k in chosen], boundaries=self.boundaries[list(chosen)])

    @property
    def of_tokens(self) -> Sample:
        """Those that have a token: of the others, as of the empty one without special tokens, graphs know nothing."""
        chosen = [k for k, row in enumerate(self.rows) if len(row)]
        return self if len(chosen) == len(self.rows) else self.only(chosen)

    def batches(self) -> list[Ids]:
        """Numbers (B,) of the texts that are run together, batch by batch."""
        return batching.plan(self.lengths, BATCH_TOKENS, mixed_lengths=self.mixed_lengths)

    def fed(self, batch: Ids, inputs: Sequence[str]) -> batching.Feeds:
        """What a graph with these inputs is fed for a batch of texts with these numbers (B,)."""
        return self.feeds([self.rows[k] for k in batch], inputs, 0, self.boundaries[batch])

    def split(self, batch: Ids, found: Floats) -> list[Floats]:
        """An output (B, dim), or (tokens, dim) `by_token`, text by text."""
        ends = np.cumsum([len(self.rows[k]) if self.by_token else 1 for k in batch])[:-1]
        return np.split(found, ends)


def vectors(path: Path, sample: Sample, threads: int) -> Floats:
    """Vectors of n tokenized texts from a packed graph: (n, dim), or (tokens, dim) `by_token`."""
    running = session(path)
    needed = [entry.name for entry in running.get_inputs()]
    out: list[Any] = [None] * len(sample.rows)

    def run(batch: Ids) -> tuple[Ids, Floats]:
        (found,) = running.run([sample.output], sample.fed(batch, needed))
        return batch, found

    for batch, found in side_by_side(run, sample.batches(), threads):
        for place, piece in zip(batch, sample.split(batch, found), strict=True):
            out[place] = piece
    return np.concatenate(out)


def side_by_side(work: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """Results in the items' order, of which each thread makes one at a time.

    Threads that share one run of a graph wait for each other at every operator, and spin meanwhile.
    """
    with ThreadPoolExecutor(threads) as pool:
        begun: deque[Future[R]] = deque()
        for item in items:
            begun.append(pool.submit(work, item))
            if len(begun) > threads:  # one more than run: none waits for whoever takes the results
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def session(path: Path) -> Any:
    """An onnxruntime session as the CPU's graphs are run, on the thread that calls."""
    onnxruntime = load_onnxruntime()
    if why := outdated(onnxruntime):
        raise MissingDependencyError(f"calibration runs graphs: {why}")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False  # it would keep what the largest batch took
    tune(options, onnxruntime, integers=True)
    if native.kernels() is not None:
        options.register_custom_ops_library(as_utf8(native.library()))
    return onnxruntime.InferenceSession(as_utf8(path), options, disabled_optimizers=SLOWER_FUSIONS)


def states_by_token(states: Floats, lengths: Ids) -> Floats:
    """A row a token, (T, K), also of padded states, (B, S, K), (S, B, K) or (B * S, K); any other rows as they are."""
    present = np.arange(int(lengths.max())) < lengths[:, None]
    shape = states.shape[:-1]
    if shape == present.shape[::-1] != present.shape:
        states = states.swapaxes(0, 1)
    elif shape == (present.size,):
        states = states.reshape(*present.shape, -1)
    if states.shape[:-1] != present.shape:
        return states.reshape(-1, states.shape[-1])
    tokens: Floats = states[present]
    return tokens


def some_tokens(lengths: Sequence[int], most: int, seed: int) -> list[Ids]:
    """Places (chosen,) of tokens in each text, about `most` in all, as many of each text as it has or the others have.

    The first and the last are among them: every text has them, and no others are like them.
    """
    count = 1
    while sum(min(length, count + 1) for length in lengths) <= most and count < max(lengths, default=1):
        count += 1
    random = np.random.default_rng(seed)
    places = []
    for length in lengths:
        if length <= count:
            places.append(np.arange(length))
            continue
        inner: Any = random.choice(np.arange(1, length - 1), max(count - 2, 0), replace=False) if count > 2 else []
        places.append(np.sort(np.concatenate([[0, length - 1][:count], inner])).astype(np.int64))
    return places
