"""The OpenAPI file, written from the table of routes and their bodies; and the page that reads it."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from .. import __version__
from .errors import KINDS
from .exchange import Exchange, Response
from .routes import Route
from .writing import dumped

if TYPE_CHECKING:
    from .routes import Table

TITLE = "fastembed-rt"
GROUP = "About"
# What the page may load: its own parts, and answers of this server.
POLICY = b"default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'"
REFUSALS = ("Malformed", "Unauthorized", "NotFound", "TooLarge", "Validation", "Backend", "Overloaded", "Timeout")


def describe(table: Table, *, keys: bool, root: str = "") -> dict[str, Any]:
    """OpenAPI 3.1; `keys`: routes that are not public want one; `root`: the path that all of them lie below."""
    schemas: dict[str, Any] = {}
    paths: dict[str, Any] = {}
    for route in table.routes:
        path = route.path.replace("{}", "{name}")
        paths.setdefault(path, {})[route.method.lower()] = _operation(route, schemas, keys=keys)
    components: dict[str, Any] = {"schemas": schemas}
    if keys:
        components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": __version__},
        "servers": [{"url": root or "/"}],
        "paths": paths,
        "components": components,
    }


def _operation(route: Route, schemas: dict[str, Any], *, keys: bool) -> dict[str, Any]:
    made: dict[str, Any] = {
        "summary": route.says,
        "tags": [route.group],
        "operationId": f"{route.method.lower()} {route.path}",
        "responses": {"200": {"description": "Done", "content": {route.answer_type: {"schema": route.answer}}}},
    }
    kinds = REFUSALS if route.method == "POST" else ("Unauthorized", "NotFound", "Unhealthy")
    for kind in kinds:
        if kind != "Unauthorized" or (keys and not route.public):
            about = {"description": kind, "content": {"application/json": {"schema": {"type": "object"}}}}
            made["responses"].setdefault(str(KINDS[kind][0]), about)
    if "{}" in route.path:
        made["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}]
    if route.method == "POST":
        schema: dict[str, Any] = {"type": "object"}
        if route.body is not None:
            schemas[route.body.name] = route.body.schema()
            schema = {"$ref": f"#/components/schemas/{route.body.name}"}
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if keys and not route.public:
        made["security"] = [{"key": []}]
    return made


@cache
def _page() -> bytes:
    return files(__package__).joinpath("page.html").read_bytes()


async def openapi(exchange: Exchange) -> Response:
    """The file."""
    root = str(exchange.scope.get("root_path", "")).rstrip("/")
    return Response(dumped(describe(exchange.app.table, keys=bool(exchange.app.keys), root=root)))


async def page(exchange: Exchange) -> Response:
    """The page to try the routes on."""
    headers = [(b"content-security-policy", POLICY), (b"x-content-type-options", b"nosniff")]
    return Response(_page(), content_type=b"text/html; charset=utf-8", headers=headers)


async def metrics(exchange: Exchange) -> Response:
    """What Prometheus reads."""
    from .metrics import CONTENT_TYPE

    app = exchange.app
    text = app.metrics.text(app) if app.all_metrics is None else await app.all_metrics()
    return Response(text.encode(), content_type=CONTENT_TYPE)


def routes() -> list[Route]:
    """About the server itself."""
    return [
        Route(
            method="GET",
            path=path,
            handler=handler,
            answer={"type": "object"} if kind == "application/json" else {"type": "string"},
            answer_type=kind,
            public=True,
            counted=False,
            group=GROUP,
            says=says,
        )
        for path, handler, kind, says in (
            ("/openapi.json", openapi, "application/json", "This description"),
            ("/docs", page, "text/html", "A page to try the routes"),
            ("/metrics", metrics, "text/plain", "Counts and times for Prometheus"),
        )
    ]
