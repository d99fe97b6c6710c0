"""Routes for who runs the server."""

from __future__ import annotations

import logging

from .errors import ApiError
from .exchange import Exchange, Response
from .reloading import ReloadError
from .routes import Route
from .writing import dumped

logger = logging.getLogger("fastembed_rt.server")


async def reload(exchange: Exchange) -> Response:
    """Load the models again, in all workers; those that start again, or load yet, are named."""
    app = exchange.app
    if not app.keys:
        raise ApiError("Unauthorized", "start the server with --api-key to reload over HTTP, or send it SIGHUP")
    await exchange.content()
    try:
        answer = {"models": await app.reload()} if app.reload_all is None else await app.reload_all()
    except ReloadError as error:
        logger.error("reload: %s", error)
        told = str(error) if error.is_open else "the models were not replaced; the server's log says why"
        raise ApiError("Backend", told) from None
    return Response(dumped(answer))


def routes() -> list[Route]:
    """See dialects."""
    return [
        Route(
            method="POST",
            path="/admin/reload",
            handler=reload,
            answer={"type": "object"},
            group="The server",
            counted=False,
            says="Load the models again from the same names and paths",
        )
    ]
