"""Counts and times as Prometheus reads them, under text-embeddings-inference's names where it has one."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .. import __version__
from .exchange import Exchange
from .meters import Histogram, Meters

if TYPE_CHECKING:
    from .app import App

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"
Labels = tuple[tuple[str, str], ...]
Sample = tuple[str, Labels, float]


class Metrics:
    """Of one application; what is of one model is in its meters."""

    def __init__(self) -> None:
        self._failures: dict[Labels, int] = {}

    def request(self, exchange: Exchange, failure: str | None) -> None:
        """A request that is over; `failure` is the kind of error."""
        served = exchange.served
        if failure is not None:
            labels = (("err", failure.lower()), *(() if served is None else (("model", served.name),)))
            self._failures[labels] = self._failures.get(labels, 0) + 1
        if served is not None:
            texts = exchange.texts
            total = time.monotonic() - exchange.began
            served.meters.request(texts, exchange.tokens, total, exchange.times(), done=failure is None)

    def text(self, app: App) -> str:
        """All of it."""
        kinds: dict[str, str] = {}
        rows: dict[str, list[str]] = {}

        def write(name: str, kind: str, lines: list[str]) -> None:
            kinds.setdefault(name, kind)
            rows.setdefault(name, []).extend(lines)

        for labels, count in self._failures.items():
            write("te_request_failure", "counter", [line("te_request_failure", labels, count)])
        for served in app.models.all:
            for name, labels, value in counters(served.meters):
                write(name, "counter", [line(name, labels, value)])
            for name, histogram in histograms(served.meters):
                write(name, "histogram", [*buckets(name, (("model", served.name),), histogram)])
        for name, labels, value in gauges(app):
            write(name, "counter" if name.endswith("_total") else "gauge", [line(name, labels, value)])
        lines = []
        for name in sorted(rows):
            lines += [f"# TYPE {name} {kinds[name]}", *rows[name]]
        return "\n".join(lines) + "\n"


def counters(meters: Meters) -> Iterator[Sample]:
    """Of a model."""
    model = (("model", meters.name),)
    for method, count, success in (
        ("single", meters.single, meters.single_success),
        ("batch", meters.batch_requests, meters.batch_success),
    ):
        yield "te_request_count", (("method", method), *model), count
        yield "te_request_success", (("method", method), *model), success
    yield f"{meters.family}_count", model, meters.single + meters.batch_requests
    yield f"{meters.family}_success", model, meters.single_success + meters.batch_success
    # Padding's share is 1 - tokens / padded, a batch's fill tokens / capacity.
    yield "fastembed_rt_batch_tokens_total", model, meters.batch_tokens.total
    yield "fastembed_rt_batch_padded_tokens_total", model, meters.padded_tokens
    yield "fastembed_rt_batch_capacity_tokens_total", model, meters.capacity_tokens
    yield "fastembed_rt_batch_seconds_total", model, meters.batch_seconds


def histograms(meters: Meters) -> Iterator[tuple[str, Histogram]]:
    """Of a model; those of requests under the names of all and of the model's kind."""
    for begin in ("te_request", meters.family):
        yield f"{begin}_duration", meters.duration
        yield f"{begin}_tokenization_duration", meters.tokenization
        yield f"{begin}_queue_duration", meters.queue
        yield f"{begin}_inference_duration", meters.inference
    yield "te_request_input_length", meters.length
    yield "te_batch_next_size", meters.batch_size
    yield "te_batch_next_tokens", meters.batch_tokens


def gauges(app: App) -> Iterator[Sample]:
    """What is read when it is asked for."""
    yield "te_queue_size", (), app.admission.requests
    yield "fastembed_rt_queue_tokens", (), app.admission.tokens
    for served in app.models.all:
        model = (("model", served.name),)
        yield "fastembed_rt_truncated_texts_total", model, served.meters.truncated + served.model.stats.truncated
        about = served.about()
        told = {"version": __version__, **{key: str(about[key]) for key in ("task", "target", "provider", "threads")}}
        told |= {"precision": about["model_dtype"], "checkpoint": about["model_id"]}
        yield "fastembed_rt_info", (*model, *told.items()), 1
    if app.cache is not None:
        yield "fastembed_rt_cache_hits_total", (), app.cache.hits
        yield "fastembed_rt_cache_misses_total", (), app.cache.misses
        yield "fastembed_rt_cache_dropped_total", (), app.cache.dropped
        yield "fastembed_rt_cache_bytes", (), app.cache.bytes
        yield "fastembed_rt_cache_vectors", (), len(app.cache)
    dropped = getattr(app.access_log, "dropped", None)
    if dropped is not None:
        yield "fastembed_rt_access_log_dropped_total", (), dropped
    yield "process_cpu_seconds_total", (), time.process_time()
    yield "process_start_time_seconds", (), app.started
    memory = resident()
    if memory is not None:
        yield "process_resident_memory_bytes", (), memory


def buckets(name: str, labels: Labels, histogram: Histogram) -> Iterator[str]:
    """A histogram's lines."""
    counts = list(histogram.counts)  # a thread may add to it meanwhile
    below = 0
    for bound, count in zip([*histogram.bounds, None], counts, strict=True):
        below += count
        limit = "+Inf" if bound is None else f"{bound:.6g}"
        yield line(f"{name}_bucket", (*labels, ("le", limit)), below)
    yield line(f"{name}_sum", labels, histogram.total)
    yield line(f"{name}_count", labels, below)


def line(name: str, labels: Labels, value: float) -> str:
    """One sample."""
    clean = [(key, text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")) for key, text in labels]
    inside = ",".join(f'{key}="{text}"' for key, text in clean)
    return f"{name}{{{inside}}} {value:.15g}" if inside else f"{name} {value:.15g}"


def resident() -> int | None:
    """Bytes of memory; None where the system has no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
