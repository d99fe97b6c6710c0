"""Counts and times for Prometheus, under text-embeddings-inference's names where it has one: its dashboards fit.

Written by hand: an observation costs half a microsecond, in prometheus_client four, and a request makes eight.
"""

from __future__ import annotations

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from .exchange import Exchange

if TYPE_CHECKING:
    from .app import App
    from .gather import Observe
    from .models import Served

DURATIONS = [1e-5 * 1.5**k for k in range(1, 36)]  # seconds
LENGTHS = [2.0**k for k in range(20)]  # tokens of a request
BATCH_TEXTS = [2.0**k for k in range(13)]
BATCH_TOKENS = [2.0**k for k in range(21)]
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
FAMILIES = {"embedding": "te_embed", "sparse": "te_embed", "late_interaction": "te_embed", "reranking": "te_predict"}
Labels = tuple[tuple[str, str], ...]


class Histogram:
    """How many observations are below each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds, self.counts, self.total = bounds, [0] * (len(bounds) + 1), 0.0

    def observe(self, value: float) -> None:
        """One more."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: Labels) -> Iterator[str]:
        """As Prometheus reads it."""
        below = 0
        for bound, count in zip([*self.bounds, None], self.counts, strict=True):
            below += count
            limit = "+Inf" if bound is None else f"{bound:.6g}"
            yield f"{name}_bucket{written((*labels, ('le', limit)))} {below}"
        yield f"{name}_sum{written(labels)} {self.total:.9g}"
        yield f"{name}_count{written(labels)} {below}"


class Metrics:
    """Of one application. Requests are counted in its event loop, batches by the threads that ran them."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, Labels], float] = {}
        self._histograms: dict[tuple[str, Labels], Histogram] = {}
        self._lock = threading.Lock()

    def add(self, name: str, labels: Labels = (), value: float = 1) -> None:
        """To a counter; in the event loop."""
        key = (name, labels)
        self._counts[key] = self._counts.get(key, 0) + value

    def observe(self, name: str, labels: Labels, bounds: Sequence[float], value: float) -> None:
        """For a histogram; in the event loop."""
        found = self._histograms.get((name, labels))
        if found is None:
            found = self._histograms.setdefault((name, labels), Histogram(bounds))
        found.observe(value)

    def request(self, exchange: Exchange, failure: str | None) -> None:
        """A request that is answered; `failure` is the kind of error."""
        served = exchange.served
        if failure is not None:
            self.add("te_request_failure", (("err", failure.lower()), *of_model(served)))
        if served is None:
            return
        model = of_model(served)
        batch = sum(len(job.texts) for job in exchange.jobs) != 1
        method = (("method", "batch" if batch else "single"), *model)
        self.add("te_request_count", method)
        family = FAMILIES[served.task]
        self.add(f"{family}_count", model)
        if failure is not None:
            return
        self.add("te_request_success", method)
        self.add(f"{family}_success", model)
        total = time.monotonic() - exchange.began
        tokenizing, queue, inference = exchange.times()
        for begin in ("te_request", family):
            self.observe(f"{begin}_duration", model, DURATIONS, total)
            self.observe(f"{begin}_tokenization_duration", model, DURATIONS, tokenizing)
            self.observe(f"{begin}_queue_duration", model, DURATIONS, queue)
            self.observe(f"{begin}_inference_duration", model, DURATIONS, inference)
        self.observe("te_request_input_length", model, LENGTHS, exchange.tokens)

    def of_batches(self, served: Served) -> Observe:
        """What counts a model's batches, for the threads that run them."""
        model = of_model(served)
        capacity = served.model.max_batch_tokens

        def observe(texts: int, tokens: int, padded: int, seconds: float) -> None:
            with self._lock:
                self.observe("te_batch_next_size", model, BATCH_TEXTS, texts)
                self.observe("te_batch_next_tokens", model, BATCH_TOKENS, tokens)
                self.add("fastembed_rt_batch_tokens_total", model, tokens)
                self.add("fastembed_rt_batch_padded_tokens_total", model, padded)
                self.add("fastembed_rt_batch_capacity_tokens_total", model, max(capacity, padded))
                self.add("fastembed_rt_batch_seconds_total", model, seconds)

        return observe

    def text(self, app: App) -> str:
        """All of it, as Prometheus reads it."""
        with self._lock:
            counts, histograms = dict(self._counts), dict(self._histograms)
        families: dict[str, tuple[str, list[str]]] = {}
        for (name, labels), value in counts.items():
            families.setdefault(name, ("counter", []))[1].append(f"{name}{written(labels)} {value:.17g}")
        for (name, labels), histogram in histograms.items():
            families.setdefault(name, ("histogram", []))[1].extend(histogram.lines(name, labels))
        for name, labels, value in gauges(app):
            kind = "counter" if name.endswith("_total") else "gauge"
            families.setdefault(name, (kind, []))[1].append(f"{name}{written(labels)} {value:.17g}")
        lines = []
        for name, (kind, rows) in sorted(families.items()):
            lines += [f"# TYPE {name} {kind}", *rows]
        return "\n".join(lines) + "\n"


def gauges(app: App) -> Iterator[tuple[str, Labels, float]]:
    """What is read when it is asked for."""
    yield "te_queue_size", (), app.admission.requests
    yield "fastembed_rt_queue_tokens", (), app.admission.tokens
    for served in app.models.all:
        model = of_model(served)
        yield "fastembed_rt_truncated_texts_total", model, served.model.stats.truncated
        about = served.about()
        told = {"version": __version__, **{key: str(about[key]) for key in ("task", "target", "provider", "threads")}}
        told |= {"precision": about["model_dtype"], "checkpoint": about["model_id"]}
        yield "fastembed_rt_info", (*model, *told.items()), 1
    yield "process_cpu_seconds_total", (), time.process_time()
    yield "process_start_time_seconds", (), app.started
    memory = resident()
    if memory is not None:
        yield "process_resident_memory_bytes", (), memory


def resident() -> int | None:
    """Bytes of memory; None where the system has no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def of_model(served: Served | None) -> Labels:
    """The label that says which model."""
    return () if served is None else (("model", served.name),)


def written(labels: Labels) -> str:
    """As Prometheus has labels."""
    if not labels:
        return ""
    clean = [(key, value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for key, value in labels]
    return "{" + ",".join(f'{key}="{value}"' for key, value in clean) + "}"
