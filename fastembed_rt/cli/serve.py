"""`fastembed-rt serve`: models behind HTTP, in the dialects of existing clients."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

from .arguments import add_hub_options, port, positive, precision
from .filled import HelpFormatter

EPILOG = """\
routes: those of text-embeddings-inference (/embed, /rerank, /predict, ...), OpenAI (/v1/embeddings, /v1/models),
Ollama (/api/embed, ...), Cohere, Jina, vLLM and infinity (/v1/rerank, /v2/embed, /score, ...); the page /docs lists all
and tries them

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
        formatter_class=HelpFormatter,
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
            if "type" in settings:
                settings["type"] = _naming(settings["type"], variable, given)
        parser.add_argument(flag, help=f"{what} [{variable}]", **settings)

    option("--host", "HOST", "address to listen on (default: 127.0.0.1)", default="127.0.0.1")
    option("--port", "PORT", "port, 0 for any that is free (default: 8080)", type=port, default=8080)
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
    option(
        "--workers",
        "WORKERS",
        "processes that share the port, each with its share of the threads, on GPUs of the devices (default: 1)",
        type=positive,
        default=1,
    )
    option("--max-batch-tokens", "MAX_BATCH_TOKENS", "tokens of a batch (default: what suits provider)", type=positive)
    for name, kind, default, what in (
        ("max-concurrent-requests", positive, 512, "requests at a time; over it 429"),
        ("max-queue-tokens", positive, 1_000_000, "tokens in all short requests, and in all long ones; over it 429"),
        ("max-client-batch-size", positive, 4096, "inputs of a request; over it 422"),
        ("payload-limit", positive, 16_000_000, "bytes of a request; over it 413"),
        ("request-seconds", _seconds, 120.0, "seconds of a request; over it 504"),
        ("drain-seconds", positive, 30, "seconds for what runs when the server is told to stop"),
        ("keep-alive-seconds", positive, 30, "seconds that a connection is kept without a request"),
        ("head-seconds", _seconds, 10.0, "seconds for a request's header lines"),
        ("body-seconds", _seconds, 30.0, "seconds for a request's body; over it 408"),
        ("worker-timeout", _seconds_or_never, 60.0, "seconds of silence, then one of several workers is killed; 0: no"),
        ("max-connections", positive, 4096, "connections of a process; those beyond it wait"),
        ("cache-mb", _megabytes, 0.0, "megabytes of memory for vectors of texts that came before"),
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
    option("--otlp-endpoint", "OTLP_ENDPOINT", "collector that OpenTelemetry spans are sent to", metavar="URL")
    option("--otlp-service-name", "OTLP_SERVICE_NAME", "their service (default: fastembed-rt)", default="fastembed-rt")
    add_hub_options(parser)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    from .served import serve

    return serve(args)


def _naming(kind: Callable[[str], Any], variable: str, given: str) -> Callable[[str], Any]:
    """A type whose errors name the variable that a wrong value is from: nobody looks for it in the environment."""

    def typed(value: str) -> Any:
        try:
            return kind(value)
        except argparse.ArgumentTypeError as error:
            if value == given:
                raise argparse.ArgumentTypeError(f"{error} (the environment has {variable}={value})") from None
            raise

    return typed


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


def _seconds_or_never(value: str) -> float:
    return _number(value, 0, 86_400, "a number of seconds up to a day")


def _megabytes(value: str) -> float:
    return _number(value, 0, 1e6, "a number of megabytes up to a terabyte")
