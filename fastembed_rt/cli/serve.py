"""`fastembed-rt serve`: models behind HTTP, in the dialects of existing clients."""

from __future__ import annotations

import argparse
import os
from typing import Any

from ..errors import InvalidInputError, MissingDependencyError
from .arguments import add_hub_options, positive, precision

EPILOG = """\
routes: those of text-embeddings-inference (/embed, /rerank, /predict, ...), OpenAI (/v1/embeddings, /v1/models),
Cohere, Jina, vLLM and infinity (/v1/rerank, /v2/embed, /score, ...); the page /docs lists all and tries them

NAME=MODEL serves a model under another name, MODEL alone under its directory's and its checkpoint's; --alias '*' lets
the first one answer to any name

each option can be set by the environment variable that is named with it; what the command line says comes first
"""
DTYPES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}  # text-embeddings-inference's words
TRUE, FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `serve` and its options."""
    parser = subparsers.add_parser(
        "serve",
        help="answer requests over HTTP, in the dialects of existing clients",
        description="Serve models of any task over HTTP until SIGTERM or Ctrl-C.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "models",
        nargs="*",
        metavar="MODEL",
        help="model directory, checkpoint or hub repository [MODEL_ID, joined by commas]",
    )

    def option(flag: str, variable: str, what: str, **settings: Any) -> None:
        given = os.environ.get(variable)
        if given:
            settings["default"] = given  # argparse puts it through `type`
        parser.add_argument(flag, help=f"{what} [{variable}]", **settings)

    option("--host", "HOST", "address to listen on (default: 127.0.0.1)", default="127.0.0.1")
    option("--port", "PORT", "port (default: 8080)", type=positive, default=8080)
    option("--uds", "UDS_PATH", "Unix socket instead of a port", metavar="PATH")
    option("--ssl-certfile", "SSL_CERTFILE", "certificate, for TLS", metavar="FILE")
    option("--ssl-keyfile", "SSL_KEYFILE", "its key", metavar="FILE")
    option("--root-path", "ROOT_PATH", "path that a proxy in front takes away", default="")
    option("--api-key", "API_KEY", "a key that requests must have; several joined by commas", metavar="KEY")
    option("--api-key-file", "API_KEY_FILE", "file of keys, a line each", metavar="FILE")
    option("--cors-allow-origin", "CORS_ALLOW_ORIGIN", "origins whose pages may ask, joined by commas; * for all")
    option("--alias", "SERVED_MODEL_NAME", "other names of the first model, joined by commas", metavar="NAMES")
    option("--accept-token-ids", "ACCEPT_TOKEN_IDS", "inputs may be ids of the model's own tokenizer", **_switch(False))
    option("--auto-truncate", "AUTO_TRUNCATE", "cut texts that are too long; false: an error", **_switch(True))
    option("--default-prompt-name", "DEFAULT_PROMPT_NAME", "the model's prompt where a request names none")
    option("--default-prompt", "DEFAULT_PROMPT", "a text in front where a request names no prompt")
    option("--provider", "PROVIDER", "execution provider; auto takes cuda where it runs (default: cpu)", default="cpu")
    option("--precision", "DTYPE", "of the graphs (default: as the directories say)", type=_precision)
    option("--threads", "THREADS", "threads of each model (default: what the process may use)", type=positive)
    option("--max-batch-tokens", "MAX_BATCH_TOKENS", "tokens of a batch (default: what suits provider)", type=positive)
    for name, kind, default, what in (
        ("max-concurrent-requests", positive, 512, "requests at a time; over it 429"),
        ("max-queue-tokens", positive, 1_000_000, "tokens in all requests at a time; over it 429"),
        ("max-client-batch-size", positive, 4096, "inputs of a request; over it 422"),
        ("payload-limit", positive, 16_000_000, "bytes of a request; over it 413"),
        ("request-seconds", _seconds, 120.0, "seconds of a request; over it 504"),
        ("drain-seconds", positive, 30, "seconds for what runs when the server is told to stop"),
        ("keep-alive-seconds", positive, 30, "seconds that a connection is kept without a request"),
    ):
        variable = name.upper().replace("-", "_")
        option(f"--{name}", variable, f"{what} (default: {default})", type=kind, default=default, metavar="N")
    option(
        "--access-log",
        "ACCESS_LOG",
        "a line of JSON on stdout for this share of the requests, and for all that fail (default: none)",
        type=_share,
        metavar="SHARE",
    )
    add_hub_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    try:
        from ..server import running
        from ..server.app import App
        from ..server.limits import Limits
        from ..server.loading import load
        from ..server.security import read_keys
    except ImportError as error:
        raise MissingDependencyError(f"serve needs {error.name}; install fastembed-rt[server]") from error
    wanted = args.models or _listed(os.environ.get("MODEL_ID"))
    if not wanted:
        raise InvalidInputError("no model to serve; give a model directory or hub repository")
    keys = _listed(args.api_key) + (read_keys(args.api_key_file) if args.api_key_file else [])
    listening = running.Listening(
        host=args.host,
        port=args.port,
        uds=args.uds,
        certificate=args.ssl_certfile,
        certificate_key=args.ssl_keyfile,
        root_path=args.root_path,
        keep_alive_seconds=args.keep_alive_seconds,
        drain_seconds=args.drain_seconds,
    )
    models = load(
        wanted,
        aliases=_listed(args.alias),
        token_ids=args.accept_token_ids,
        default_prompt_name=args.default_prompt_name,
        default_prompt=args.default_prompt,
        provider=args.provider,
        precision=args.precision,
        threads=args.threads,
        max_batch_tokens=args.max_batch_tokens,
        truncation="truncate" if args.auto_truncate else "error",
        revision=args.revision,
        token=args.token,
        cache_dir=args.cache_dir,
        local_files_only=args.local_files_only,
    )
    app = App(
        models,
        limits=Limits(
            max_concurrent_requests=args.max_concurrent_requests,
            max_queue_tokens=args.max_queue_tokens,
            max_client_batch_size=args.max_client_batch_size,
            payload_limit=args.payload_limit,
            request_seconds=args.request_seconds,
        ),
        keys=keys,
        cors=_listed(args.cors_allow_origin),
        access_log=None if args.access_log is None else running.json_lines(args.access_log),
    )
    running.say(running.start_lines(app, listening))
    running.run(app, listening)
    return 0


def _listed(value: str | None) -> list[str]:
    return [part.strip() for part in (value or "").split(",") if part.strip()]


def _switch(default: bool) -> dict[str, Any]:
    return {"type": _truth, "nargs": "?", "const": True, "default": default, "metavar": "true|false"}


def _truth(value: str) -> bool:
    if value.lower() not in TRUE + FALSE:
        raise argparse.ArgumentTypeError(f"{value!r} is neither true nor false")
    return value.lower() in TRUE


def _precision(value: str) -> str:
    return precision(DTYPES.get(value, value))


def _number(value: str, least: float, most: float, what: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"{value!r} is not {what}")
    return number


def _share(value: str) -> float:
    return _number(value, 0, 1, "a share, a number from 0 to 1")


def _seconds(value: str) -> float:
    return _number(value, 0.001, 86_400, "a number of seconds up to a day")
