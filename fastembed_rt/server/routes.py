"""The table of routes, and how a path leads to one of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

from .errors import ApiError
from .exchange import Exchange, Response
from .models import Models
from .schema import Body, Schema
from .writing import dumped

Handler = Callable[[Exchange], Awaitable[Response]]
WriteError = Callable[[ApiError], bytes]
ROLES = ("query", "document")
INFINITY = "infinity"  # in front of a path: answers as that server has them, where others' differ


def plain_error(error: ApiError) -> bytes:
    """As text-embeddings-inference has it, which most routes do."""
    return dumped({"error": error.message, "error_type": error.kind})


@dataclass(frozen=True, kw_only=True)
class Route:
    """What is done with a method and a path; `{}`, at its end or before a colon, stands for any name."""

    method: str
    path: str
    handler: Handler
    says: str
    group: str
    error: WriteError = plain_error
    body: Body | None = None
    answer: Schema = field(default_factory=dict)
    answer_type: str = "application/json"
    public: bool = False  # without a key
    counted: bool = True  # among the requests that are limited: from when its body is there

    def __post_init__(self) -> None:
        """Raise ValueError for a route that would never be counted, since nobody reads its body."""
        if self.counted and self.method != "POST":
            raise ValueError(f"{self.method} {self.path} has no body to be counted with; say counted=False")


class Table:
    """All routes."""

    def __init__(self, routes: Iterable[Route], models: Models) -> None:
        self.routes = list(routes)
        self._models = models
        self._exact: dict[str, dict[str, Route]] = {}
        opened: dict[tuple[str, str], dict[str, Route]] = {}
        for route in self.routes:
            prefix, variable, suffix = route.path.partition("{}")
            if variable:
                opened.setdefault((prefix, suffix), {})[route.method] = route
            else:
                self._exact.setdefault(route.path, {})[route.method] = route
        # Those with something behind the name come first: a name may end in anything.
        self._open = sorted(opened.items(), key=lambda entry: not entry[0][1])

    def find(self, exchange: Exchange, method: str, path: str) -> Route:
        """The route, with what the path says of model, role and prompt in the exchange.

        A path may begin with a model's name, a role, the name of a prompt or a dialect: /query/v1/embeddings.
        One of these alone stands for / behind it, as of an endpoint of Hugging Face.

        Raises:
            ApiError: no such path, or not with this method.
        """
        methods = self._exact.get(path)
        if methods is None:
            methods = self._behind(exchange, path)
        route = methods.get("GET" if method == "HEAD" else method)
        if route is None:
            raise ApiError("MethodNotAllowed", f"this path takes {', '.join(sorted(methods))}")
        return route

    def _behind(self, exchange: Exchange, path: str) -> dict[str, Route]:
        for (prefix, suffix), methods in self._open:
            if path.startswith(prefix) and path.endswith(suffix) and len(path) > len(prefix) + len(suffix):
                exchange.variable = path[len(prefix) : len(path) - len(suffix)]
                return methods
        first, _, rest = path[1:].partition("/")
        if self._models.known(first) and exchange.model is None:
            exchange.model = first
        elif first in ROLES and exchange.role is None:
            exchange.role = first
        elif first == INFINITY and not exchange.infinity:
            exchange.infinity = True
        elif exchange.prompt_name is None and any(first in served.model.prompts for served in self._models.all):
            exchange.prompt_name = first
        else:
            raise ApiError("NotFound", "no such path; GET /openapi.json lists them")
        return self._exact.get(f"/{rest}") or self._behind(exchange, f"/{rest}")
