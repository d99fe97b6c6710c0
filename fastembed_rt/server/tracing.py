"""Spans for OpenTelemetry: one for each request, and one for each of its three times. Without any text."""

from __future__ import annotations

import threading
import time
from typing import Any

from ..errors import MissingDependencyError
from .exchange import Exchange

CLOSE_SECONDS = 3.0


class Tracer:
    """Tells of requests when they are answered, so that nothing is in their way."""

    def __init__(self, provider: Any) -> None:
        """`provider` is a TracerProvider of opentelemetry."""
        from opentelemetry import trace
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider, self._trace = provider, trace
        self._tracer = provider.get_tracer("fastembed_rt")
        self._propagator = TraceContextTextMapPropagator()

    def __call__(self, exchange: Exchange, route: str | None, status: int) -> None:
        """A request that is answered; `route` as in the table, never the client's path."""
        trace = self._trace
        carried = {
            name: exchange.headers[name.encode()].decode("latin-1")
            for name in ("traceparent", "tracestate")
            if name.encode() in exchange.headers
        }
        offset = time.time_ns() - time.monotonic_ns()  # spans want the time of day
        method = exchange.scope["method"]
        attributes: dict[str, Any] = {
            "http.request.method": method,
            "http.response.status_code": status,
            "fastembed_rt.request_id": exchange.request_id,
        }
        if route is not None:
            attributes["http.route"] = route
        if exchange.served is not None:
            attributes["fastembed_rt.model"] = exchange.served.name
            attributes["fastembed_rt.texts"] = exchange.texts
            attributes["fastembed_rt.tokens"] = exchange.tokens
        span = self._tracer.start_span(
            method if route is None else f"{method} {route}",
            context=self._propagator.extract(carried),
            kind=trace.SpanKind.SERVER,
            attributes=attributes,
            start_time=_nanoseconds(exchange.began, offset),
        )
        if status >= 500:
            span.set_status(trace.StatusCode.ERROR)
        inside = trace.set_span_in_context(span)
        for job in exchange.jobs:
            tokenized = job.queued + job.tokenizing
            started = job.started or job.ended
            for name, begin, end in (
                ("tokenize", job.queued, tokenized),
                ("queue", tokenized, started),
                ("inference", started, job.ended),
            ):
                if 0 < begin <= end:
                    part = self._tracer.start_span(name, context=inside, start_time=_nanoseconds(begin, offset))
                    part.end(_nanoseconds(end, offset))
        span.end()

    def close(self) -> None:
        """Send what waits, for a moment: a collector that does not answer is no reason to stay."""
        sender = threading.Thread(target=self._provider.shutdown, daemon=True)
        sender.start()
        sender.join(CLOSE_SECONDS)


def exporting(endpoint: str, service: str) -> Tracer:
    """Spans sent to a collector, by OTLP over HTTP.

    Args:
        endpoint: such as http://127.0.0.1:4318; the path /v1/traces is added where none is given.
        service: the name under which they appear.

    Raises:
        MissingDependencyError: opentelemetry is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingDependencyError(f"spans need {error.name}; install fastembed-rt[otel]") from error
    path = endpoint.partition("://")[2].partition("/")[2]
    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    exporter = OTLPSpanExporter(endpoint=endpoint if path else endpoint.rstrip("/") + "/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return Tracer(provider)


def _nanoseconds(monotonic: float, offset: int) -> int:
    return int(monotonic * 1e9) + offset
