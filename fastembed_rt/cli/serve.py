"""`fastembed-rt serve`: models behind HTTP, in the dialects of existing clients."""

from __future__ import annotations

import argparse
from typing import Any

from ..errors import MissingDependencyError
from .arguments import add_hub_options, positive, precision


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("serve", help="answer requests over HTTP", description="Serve models over HTTP.")
    parser.add_argument(
        "models", nargs="+", metavar="MODEL", help="model directory or hub repository; NAME=MODEL names it"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8080, help="port (default: 8080)")
    parser.add_argument("--provider", default="cpu")
    parser.add_argument("--precision", type=precision)
    parser.add_argument("--threads", type=positive)
    add_hub_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    try:
        import uvicorn

        from ..server.app import App
    except ImportError as error:
        raise MissingDependencyError(f"serve needs {error.name}; install fastembed-rt[server]") from error
    from ..server.loading import load

    models = load(args.models, provider=args.provider, precision=args.precision, threads=args.threads)
    app = App(models)
    uvicorn.run(app, host=args.host, port=args.port, access_log=False, log_level="warning", lifespan="on")
    return 0
