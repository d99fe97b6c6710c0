"""`fastembed-rt mcp`: a model as tools for LLMs, over the Model Context Protocol."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from ..errors import InvalidInputError
from ..manifest import CLASSES, EMBEDDING, RERANKING, Manifest
from .arguments import add_model_arguments, place, port, positive
from .filled import HelpFormatter
from .opening import open_model, open_second

EPILOG = """\
tools: embed, similarity, rerank, and with --folder search; what they take is bounded, and no tool takes a path

in a client's configuration, which starts the command itself:
  {"mcpServers": {"texts": {"command": "fastembed-rt", "args": ["mcp", "/path/to/my-model", "--folder", "/my/notes"]}}}

needs fastembed-rt[mcp]
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `mcp` and its options."""
    parser = subparsers.add_parser(
        "mcp",
        help="tools for LLMs: embed, similarity, rerank, search in a folder (Model Context Protocol)",
        description="Answer the calls of an MCP client over standard input and output, or over HTTP on this machine.",
        epilog=EPILOG,
        formatter_class=HelpFormatter,
    )
    add_model_arguments(parser)
    parser.add_argument(
        "--reranker",
        metavar="MODEL",
        help="for rerank and search, as its export says; without: by the vectors' similarity",
    )
    parser.add_argument(
        "--folder", type=place, metavar="DIR", help="whose text files search finds; read at the first search"
    )
    parser.add_argument("--transport", choices=("stdio", "http"), default="stdio", help="(default: stdio)")
    parser.add_argument("--host", default="127.0.0.1", help="of http, on this machine (default: 127.0.0.1)")
    parser.add_argument("--port", type=port, default=8090, help="of http, whose path is /mcp (default: 8090)")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all CPUs that this process may use")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until the client leaves or a signal comes; returns 0, or raises."""
    from ..integrations.mcp import server  # only here: other commands start without the SDK
    from ..integrations.mcp.folder import Folder

    listeners = None
    if args.transport == "stdio":  # either before a model is loaded for nothing
        server.check_streams()
    else:
        listeners = server.listen(args.host, args.port)
    model: Any = open_model(args, lambda described: _only(described, EMBEDDING))
    reranker: Any = None
    if args.reranker is not None:
        reranker = open_second(args, args.reranker, _ranks)
    folder = None if args.folder is None else Folder(args.folder, model, reranker)
    made = server.make_server(model, reranker=reranker, folder=folder)
    if listeners is not None:
        host = f"[{args.host}]" if ":" in args.host else args.host
        print(f"http://{host}:{listeners[0].getsockname()[1]}/mcp", file=sys.stderr)
    server.serve(made, transport=args.transport, host=args.host, port=args.port, listeners=listeners)
    return 0


def _ranks(described: Manifest) -> Mapping[str, Any]:
    from .scoring import check_order

    options = _only(described, RERANKING)
    check_order(described, "--reranker", "give one that gives a single score")
    return options


def _only(described: Manifest, task: str) -> Mapping[str, Any]:
    if described.task != task:
        raise InvalidInputError(
            f"this is a model for {described.task}, and it takes one for {task}: fastembed_rt.{CLASSES[task]}"
        )
    return {}
