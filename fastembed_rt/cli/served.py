"""What `serve` does with its options: one process, or several and the one that watches them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import math
import os
import socket
import sys
from typing import TYPE_CHECKING

from .. import machine
from ..errors import FastembedRtError, InvalidInputError, MissingDependencyError
from ..run import nvidia, shared_weights
from ..run.providers import AUTO, NVIDIA
from ..server import hangups

if TYPE_CHECKING:
    from ..server.app import App
    from ..server.listening import Listening

PASSED_ON = ("run",)  # of the parsed options what is no option


def serve(args: argparse.Namespace) -> int:
    """Until a signal ends it."""
    args.models = args.models or listed(os.environ.get("MODEL_ID"))
    if not args.models:
        raise InvalidInputError("no model to serve; give a model directory or hub repository")
    try:
        from ..server import lasting, running
        from ..server.naming import entries
        from ..server.sockets import let_nobody_in
    except ModuleNotFoundError as error:
        raise MissingDependencyError(f"serve needs {error.name}; install fastembed-rt[server]") from error
    # Before anything is loaded: names that would hide a model, a file that is not there.
    entries(args.models, listed(args.alias))
    keys(args)
    listening = _listening(args)
    if args.workers > 1:
        return _supervise(args, listening)
    sockets, listening = listening.open()
    try:
        with lasting.told("the models have been loading", lambda line: running.say([line])):
            app = _app(args)
    except BaseException:
        for listener in sockets:
            let_nobody_in(listener)  # the name of a Unix socket goes
        raise
    running.run(app, listening, sockets)
    return 0


def _supervise(args: argparse.Namespace, listening: Listening) -> int:
    if sys.platform == "win32":
        raise InvalidInputError("--workers needs processes that inherit sockets, which Windows has not; start several")
    from ..server import packed
    from ..server.lines import StandardError
    from ..server.workers import Supervisor, environments

    automatic = args.provider == AUTO
    gpus = _gpus() if automatic or args.provider in NVIDIA else None
    shared = environments(args.workers, gpus=gpus, automatic=automatic)
    if args.threads is None and (automatic or gpus is None):
        args.threads = max(machine.available_threads() // args.workers, 1)
    sockets, listening = listening.open()
    args.port = listening.port
    options = {name: value for name, value in vars(args).items() if name not in PASSED_ON}
    stderr = StandardError()
    with packed.folder() as weights, contextlib.closing(stderr.lines):
        if weights is not None:
            shared = [{**environment, shared_weights.VARIABLE: str(weights)} for environment in shared]
        supervisor = Supervisor(
            {"options": options, "environment": shared},
            sockets,
            args.workers,
            drain_seconds=args.drain_seconds,
            worker_timeout=args.worker_timeout,
            say=stderr.say,
            weights=weights,
        )
        return asyncio.run(supervisor.run())


def work() -> None:
    """A worker: told what to do by a line on stdin."""
    hangups.ignore()  # the process that started this one tells of it
    told = json.loads(sys.stdin.readline())
    args = argparse.Namespace(**told["options"])
    from ..server import running
    from ..server.serving import Server, serve
    from ..server.sockets import Board
    from ..server.worker import Channel

    listening = _listening(args)
    try:
        app = _app(args, share=told["workers"])
    except FastembedRtError as error:
        running.say([f"error: {error}"])
        raise SystemExit(2) from None
    sockets = [socket.socket(fileno=number) for number in told["sockets"]]
    for listener in sockets:
        listener.setblocking(False)
    serve(
        Server(
            app,
            listening,
            sockets,
            board=Board(told["workers"], told["board"]),
            slot=told["slot"],
            channel=Channel(socket.socket(fileno=told["channel"]), running.start_lines(app, listening)),
        )
    )


def keys(args: argparse.Namespace) -> list[str]:
    """API keys of both options.

    Raises:
        InvalidInputError: an option is there and holds none: such as "$KEY" where KEY is not set.
    """
    from ..server.security import read_keys

    given = listed(args.api_key)
    for option, empty in (
        ("--api-key", args.api_key is not None and not given),
        ("--api-key-file", args.api_key_file == ""),
    ):
        if empty:
            raise InvalidInputError(f"{option} is empty, so that everybody could ask; give a key, or leave it out")
    return given + (read_keys(args.api_key_file) if args.api_key_file else [])


def _listening(args: argparse.Namespace) -> Listening:
    from ..server.listening import Listening

    return Listening(
        host=args.host,
        port=args.port,
        uds=args.uds,
        certificate=args.ssl_certfile,
        certificate_key=args.ssl_keyfile,
        root_path=args.root_path,
        keep_alive_seconds=args.keep_alive_seconds,
        head_seconds=args.head_seconds,
        max_connections=args.max_connections,
        drain_seconds=args.drain_seconds,
        workers=args.workers,
    )


def _app(args: argparse.Namespace, share: int = 1) -> App:
    """The application with its models; of several workers each has its share of what is allowed and kept."""
    from ..server.access_log import AccessLog
    from ..server.app import App
    from ..server.cache import VectorCache
    from ..server.limits import Limits
    from ..server.loading import load
    from ..server.models import Models

    def loaded() -> Models:
        return load(
            args.models,
            aliases=listed(args.alias),
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

    tracer = None
    if args.otlp_endpoint:
        from ..server.tracing import exporting

        tracer = exporting(args.otlp_endpoint, args.otlp_service_name)
    return App(
        loaded(),
        limits=Limits(
            max_concurrent_requests=math.ceil(args.max_concurrent_requests / share),
            max_queue_tokens=math.ceil(args.max_queue_tokens / share),
            max_client_batch_size=args.max_client_batch_size,
            payload_limit=args.payload_limit,
            request_seconds=args.request_seconds,
            body_seconds=args.body_seconds,
        ),
        keys=keys(args),
        cors=listed(args.cors_allow_origin),
        access_log=None if args.access_log is None else AccessLog(args.access_log),
        cache=VectorCache(int(args.cache_mb * 1e6) // share) if args.cache_mb else None,
        tracer=tracer,
        load=loaded,
    )


def _gpus() -> list[str]:
    """Devices, by the names that CUDA_VISIBLE_DEVICES takes."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return listed(given)
    count, _ = nvidia.devices()
    return [str(number) for number in range(count)]


def listed(value: str | None) -> list[str]:
    """Parts between commas."""
    return [part.strip() for part in (value or "").split(",") if part.strip()]
