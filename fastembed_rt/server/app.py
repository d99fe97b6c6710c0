"""The ASGI application: a request from the protocol to its route, and the answer back. Knows no dialect's bodies."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from .. import __version__
from ..models.base import LoadedModel
from . import administration
from . import openapi as about
from .aside import Aside
from .cache import VectorCache
from .dialects import google, ollama, openai, others, ranking, tei, tokens, weaviate
from .errors import ApiError, answer_to
from .exchange import ClientGoneError, Exchange, Headers, Receive, Response, Scope
from .limits import Admission, Limits
from .metrics import Metrics
from .models import Models, Served, named_models
from .reloading import Generation, Load, Reloader, ReloadError
from .routes import Route, Table, plain_error
from .security import Cors, Keys

logger = logging.getLogger("fastembed_rt.server")
Told = Callable[[dict[str, Any]], None]
Traced = Callable[[Exchange, str | None, int], None]
Send = Callable[[dict[str, Any]], Any]


class App:
    """Models behind HTTP. Run by any ASGI server, or mounted in another application; see docs/server.md."""

    def __init__(
        self,
        models: Models | Mapping[str, LoadedModel] | Sequence[LoadedModel] | LoadedModel,
        *,
        limits: Limits | None = None,
        accept_token_ids: bool = False,
        keys: Iterable[str] = (),
        cors: Iterable[str] = (),
        access_log: Told | None = None,
        cache: VectorCache | None = None,
        tracer: Traced | None = None,
        load: Load | None = None,
    ) -> None:
        """Take models that are loaded; they stay their owner's, who closes them, unless `load` is given.

        Args:
            models: one, several, or by the names under which they answer (else the names of their directories).
            limits: what is taken on at a time.
            accept_token_ids: inputs may be token ids of the model's own tokenizer.
            keys: API keys, one of which a request must have; without any, everybody may ask.
            cors: origins whose pages may ask, such as https://example.org; "*" for all.
            access_log: is told of every request that was answered: no text, no key, no address.
            cache: where vectors of texts are kept that may come again.
            tracer: is told of every request that was answered, for spans; see tracing.
            load: what has loaded the models; called again for a reload, after which the old ones are closed.
        """
        self.models = models if isinstance(models, Models) else named_models(models, token_ids=accept_token_ids)
        self.limits = limits or Limits()
        self.admission = Admission(self.limits)
        self.aside = Aside()
        self.version = __version__
        self.started = int(time.time())
        self.keys, self._cors = Keys(keys), Cors(cors)
        self.metrics = Metrics()
        self.access_log, self._tracer, self.cache = access_log, tracer, cache
        self.all_metrics: Callable[[], Awaitable[str]] | None = None  # of all workers, where there are several
        self.reload_all: Callable[[], Awaitable[dict[str, Any]]] | None = None
        self._reloader = None if load is None else Reloader(self, load)
        self._generation = Generation()
        dialects = (tei, tokens, openai, ranking, others, ollama, google, weaviate, administration, about)
        self.table = Table([route for dialect in dialects for route in dialect.routes()], self.models)
        self._warm = False
        self._draining = False

    @property
    def names(self) -> list[str]:
        """Of the models."""
        return self.models.names

    async def ready(self) -> None:
        """Wait until every model has answered once: those of an application that is mounted, which no server starts.

        Raises:
            ApiError: the server drains, or a model does not answer.
        """
        if not (self._warm or self._draining):
            await self.warm_up()
        if self._draining:
            raise ApiError("Unhealthy", "the server is stopping")

    async def warm_up(self) -> None:
        """Have every model answer once; `/health` says 200 from then on."""
        for served in self.models.all:
            await served.warm_up()
        self._warm = True

    def drain(self) -> None:
        """Stop soon: `/health` says 503, and every answer closes its connection."""
        self._draining = True

    async def reload(self) -> list[dict[str, Any]]:
        """Load the models again, and answer with the new ones from then on; each with its old and new identity.

        Raises:
            ReloadError: that failed, and nothing is changed.
        """
        if self._reloader is None:
            raise ReloadError("the models were not loaded by the server")
        return await self._reloader()

    @property
    def loading(self) -> bool:
        """Whether a reload has a thread, which cannot be ended."""
        return self._reloader is not None and self._reloader.loading

    def identities(self) -> dict[str, str]:
        """What runs under each name."""
        return {served.name: served.identity for served in self.models.all}

    def replace(self, fresh: Models) -> tuple[list[Served], Generation]:
        """Answer with other models from now on; those that were there, and the requests that may still hold them."""
        old, generation = self.models.all, self._generation
        self.models.take(fresh)
        self._generation = Generation()
        return old, generation

    def close(self) -> None:
        """Let the queues' threads go; what waits fails."""
        self._draining = True
        self.aside.close()
        for served in self.models.all:
            served.close()
        for told in (self.access_log, self._tracer):
            getattr(told, "close", lambda: None)()

    def __enter__(self) -> Self:
        """Ready for requests; for tests and programs that call the application themselves."""
        asyncio.run(self.warm_up())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI 3."""
        if scope["type"] == "http":
            await self._http(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            await self.warm_up()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(self, scope, receive, send)
        origin = exchange.headers.get(b"origin")
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in exchange.headers:
            await _send(send, Response(status=204, headers=self._cors.preflight(origin)), exchange)
            return
        route: Route | None = None
        failure: str | None = None
        generation = self._generation
        generation.count += 1
        try:
            try:
                route = self.table.find(exchange, scope["method"], _path(scope))
                if not route.public:
                    self.keys.check(exchange)
                exchange.counted = route.counted
                response = await route.handler(exchange)
            except ClientGoneError:
                raise
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  every request gets an answer
                response, failure = self._failed(exchange, route, error)
        except ClientGoneError:
            failure = "Gone"
            return
        except asyncio.CancelledError:
            failure = "Gone"
            raise
        finally:
            generation.leave()
            exchange.end()
            if exchange.entered:
                self.admission.leave()
            if route is None or route.counted:
                self.metrics.request(exchange, failure)
        if origin is not None:
            response.headers += self._cors.headers(origin)
        if self._draining:
            response.headers.append((b"connection", b"close"))
        await _send(send, response, exchange)
        self._tell(exchange, route, response.status)

    def _tell(self, exchange: Exchange, route: Route | None, status: int) -> None:
        if self.access_log is not None:
            self.access_log(_told(exchange, route, status))
        if self._tracer is not None:
            self._tracer(exchange, None if route is None else route.path, status)

    def _failed(self, exchange: Exchange, route: Route | None, error: BaseException) -> tuple[Response, str]:
        if isinstance(error, asyncio.CancelledError):
            if not self._draining:
                raise error
            error = ApiError("Unhealthy", "the server is stopping")  # the time for what runs is over
        problem = error if isinstance(error, ApiError) else answer_to(error, self.limits.request_seconds)
        if problem is None or problem.kind == "Backend":
            # Its kind and place, not its words: those may hold a text.
            logger.error("request %s: %s", exchange.request_id, _place(error))
        if problem is None:
            problem = ApiError("Internal", "an error of the server; its log has the request id")
        write = plain_error if route is None else route.error
        headers: Headers = []
        if problem.retry_after is not None:
            headers.append((b"retry-after", str(problem.retry_after).encode()))
        if problem.kind == "Unauthorized":
            headers.append((b"www-authenticate", b"Bearer"))
        return Response(write(problem), problem.status, headers=headers), problem.kind


def _path(scope: Scope) -> str:
    """Below where the application is mounted."""
    path: str = scope["path"]
    root: str = scope.get("root_path", "")
    if root and path.startswith(root) and path[len(root) : len(root) + 1] in ("", "/"):
        path = path[len(root) :]
    return path if len(path) == 1 else path.rstrip("/") or "/"


async def _send(send: Send, response: Response, exchange: Exchange) -> None:
    body = b"" if exchange.scope["method"] == "HEAD" else response.body
    await send({"type": "http.response.start", "status": response.status, "headers": _headers(exchange, response)})
    await send({"type": "http.response.body", "body": body})


def _told(exchange: Exchange, route: Route | None, status: int) -> dict[str, Any]:
    """What the access log is told: nothing that a client has sent but its ids."""
    trace = exchange.headers.get(b"traceparent", b"").split(b"-")
    return {
        "time": time.time(),
        "request_id": exchange.request_id,
        "trace_id": trace[1].decode() if len(trace) == 4 and len(trace[1]) == 32 and trace[1].isalnum() else None,
        "method": exchange.scope["method"],
        "route": None if route is None else route.path,
        "status": status,
        "seconds": round(time.monotonic() - exchange.began, 6),
        "model": None if exchange.served is None else exchange.served.name,
        "texts": exchange.texts,
        "tokens": exchange.tokens,
    }


def _headers(exchange: Exchange, response: Response) -> Headers:
    headers = [
        (b"content-type", response.content_type),
        (b"content-length", str(len(response.body)).encode()),
        (b"x-request-id", exchange.request_id.encode()),
        *response.headers,
    ]
    if exchange.jobs:
        headers += exchange.timing()
    return headers


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = "" if trace is None else f" at {trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}"
    return f"{type(error).__name__}{where}"
