"""Requests a second and their seconds: this project's server beside others, and beside the engine without one.

python -m benchmarks.load MODEL_DIR --checkpoint DIR [--hub-dir DIR] [--servers a,b] [--rounds 5] [--seconds 5]

Loopback only. Servers run on CPUs of their own (--threads), the driver on another where there is one. Each round asks
every server the same, another one first each time; who is not asked is stopped by a signal. Ratios are taken within a
round, and the median of the rounds is what the table shows.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..compare import conditions, environments
from ..compare.adapters import affinity
from ..compare.environments import PROJECT
from ..data import workloads
from ..errors import BenchmarkError, ContenderError
from . import load_tables
from .servers import ENVIRONMENTS, SERVERS, Place, Server, named

START_SECONDS = 180.0
LONG_TEXTS = 500  # of the long job's request
SCENARIOS = {  # connections, and whether a long job runs beside them
    "one": (1, False),
    # The next two are for this project's servers only: others take minutes for the job.
    "eight": (8, False),
    "eight-long": (8, True),
    "32": (32, False),
    "256": (256, False),
}


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("model_dir", type=Path, metavar="MODEL_DIR", help="of fastembed-rt, with fp32 and int8")
    parser.add_argument("--checkpoint", type=Path, required=True, help="the sentence-transformers directory it is of")
    parser.add_argument("--hub-dir", type=Path, help="exported with --layout hub, for infinity's optimum engine")
    parser.add_argument("--servers", default=",".join(SERVERS), help=f"of {', '.join(SERVERS)}")
    parser.add_argument("--scenarios", default=",".join(SCENARIOS), help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--data", help=f"folder with texts/ (default: ${workloads.DATA_VARIABLE})")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement, after a fifth to warm up")
    parser.add_argument("--threads", type=int, help="CPUs of each server (default: all but the driver's one)")
    parser.add_argument("--out", type=Path, default=Path("build/load.json"), help="record (default: build/load.json)")
    parser.add_argument("--environments", type=Path, default=environments.ROOT, help="where they are, or are made")
    parser.add_argument(
        "--python",
        action="append",
        default=[],
        metavar="ENVIRONMENT=PYTHON",
        help="use this one instead; no installing",
    )
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Measure, write the record, print the table."""
    args = arguments(words)
    signal.signal(signal.SIGTERM, _interrupt)  # servers that are stopped would stay
    try:
        record = measure(args)
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(load_tables.render(record))
    return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All rounds.

    Raises:
        BenchmarkError: a wrong argument.
    """
    servers = named(args.servers.split(","))
    scenarios = args.scenarios.split(",")
    if unknown := sorted(set(scenarios) - SCENARIOS.keys()):
        raise BenchmarkError(f"unknown scenario {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    mine, theirs = cpus(args.threads)
    threads = len(theirs)
    record: dict[str, Any] = {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": conditions.commit(PROJECT),
        "machine": conditions.describe(),
        "settings": {
            "rounds": args.rounds,
            "seconds": args.seconds,
            "threads": threads,
            "cpus": theirs,
            "driver_cpus": mine,
        },
        "servers": {
            server.name: {"title": server.title, "ours": server.ours, "floor": server.floor} for server in servers
        },
        "samples": [],
        "encode": [],
        "loads": [],
    }
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="load-")))
        files = {base64: _bodies(args.data, scratch, base64=base64) for base64 in (False, True)}
        running: dict[str, tuple[Server, int, subprocess.Popen[bytes]]] = {}
        for server in servers:
            try:
                running[server.name] = stack.enter_context(_serving(server, args, threads, theirs, scratch))
                print(f"{server.name} serves", file=sys.stderr, flush=True)
            except ContenderError as error:
                record["servers"][server.name]["failed"] = str(error)
                print(f"{server.name}: {error}", file=sys.stderr, flush=True)
        encoders = {}
        for precision in sorted({name.split("-")[1] for name in running if name.startswith("rt-")}):
            encoders[precision] = stack.enter_context(_encoding(precision, args, threads, theirs, files[True]))
        for number in range(args.rounds):
            record["loads"].append(conditions.load())
            for precision, process in encoders.items():
                with _awake(process):
                    record["encode"].append({"round": number, "precision": precision, **_ask(process, args.seconds)})
            for scenario in scenarios:
                names = list(running)
                for name in names[number % len(names) :] + names[: number % len(names)]:
                    server, port, process = running[name]
                    if scenario.startswith("eight") and not server.ours:
                        continue
                    with _awake(process):
                        seen = _drive(server, port, scenario, args.seconds, mine, files[server.base64])
                    record["samples"].append({"round": number, "scenario": scenario, "server": name, **seen})
                    print(f"{name}, {scenario}: {seen['answered']} answered", file=sys.stderr, flush=True)
            _write(args.out, record)
            print(f"round {number + 1} of {args.rounds} done", file=sys.stderr, flush=True)
    return record


def cpus(threads: int | None) -> tuple[list[int], list[int]]:
    """The driver's CPUs and the servers': apart where there are enough, else the same."""
    there = sorted(os.sched_getaffinity(0))
    wanted = threads or max(len(there) - 1, 1)
    if wanted < len(there):
        return there[wanted:], there[:wanted]
    return there, there[:wanted]


def _bodies(data: str | None, scratch: Path, *, base64: bool) -> Path:
    """Bodies of requests in a file: of one question each, and the long job's."""
    texts = workloads.texts(workloads.WORKLOADS["short"], workloads.data_folder(data))
    paragraphs = workloads.texts(workloads.WORKLOADS["long"], workloads.data_folder(data))
    many = (paragraphs * (LONG_TEXTS // len(paragraphs) + 1))[:LONG_TEXTS]
    more = {"encoding_format": "base64"} if base64 else {}
    bodies = {
        "texts": texts,
        "short": [json.dumps({"model": "model", "input": [text], **more}) for text in texts],
        "long": [json.dumps({"model": "model", "input": many, **more})],
    }
    file = scratch / f"bodies-{base64}.json"
    file.write_text(json.dumps(bodies), encoding="utf-8")
    return file


def _python(name: str, args: argparse.Namespace) -> str:
    given = dict(entry.split("=", 1) for entry in args.python)
    if name in given:
        return str(given[name])
    environments.ensure(ENVIRONMENTS[name], args.environments)
    return str(environments.python(ENVIRONMENTS[name], args.environments))


@contextmanager
def _serving(
    server: Server, args: argparse.Namespace, threads: int, theirs: list[int], scratch: Path
) -> Iterator[tuple[Server, int, subprocess.Popen[bytes]]]:
    if server.name == "infinity-optimum" and args.hub_dir is None:
        raise ContenderError("needs --hub-dir")
    if lacking := server.missing():
        raise ContenderError(lacking)
    if threads < server.least_threads:
        raise ContenderError(f"needs {server.least_threads} CPUs")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    place = Place(
        model_dir=str(args.model_dir.resolve()),
        checkpoint=str(args.checkpoint.resolve()),
        hub_dir=str(args.hub_dir.resolve()) if args.hub_dir else "",
        threads=threads,
        port=port,
        scratch=str(scratch),
    )
    log = scratch / f"{server.name}.log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            ["taskset", "-c", ",".join(map(str, theirs)), _python(server.environment, args), *server.command(place)],
            cwd=PROJECT,
            env={**os.environ, **server.variables(place)},
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    try:
        until = time.monotonic() + START_SECONDS
        while not _ready(port):
            if process.poll() is not None or time.monotonic() > until:
                lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
                raise ContenderError(f"it does not start: {(lines or ['no message'])[-1][:300]}")
            time.sleep(0.2)
        try:
            affinity.check(theirs, [process.pid, *_below(process.pid)])
        except affinity.StrayThreadsError as error:
            raise ContenderError(str(error)) from None
        _signal(process, signal.SIGSTOP)
        yield server, port, process
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@contextmanager
def _encoding(
    precision: str, args: argparse.Namespace, threads: int, theirs: list[int], file: Path
) -> Iterator[subprocess.Popen[bytes]]:
    told = {"model": str(args.model_dir.resolve()), "precision": precision, "threads": threads, "file": str(file)}
    command = ["taskset", "-c", ",".join(map(str, theirs)), _python("serve", args), "-m", "benchmarks.load.encoder"]
    process = subprocess.Popen(
        [*command, json.dumps(told)], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        yield process
    finally:
        _signal(process, signal.SIGKILL)
        process.wait()


def _ask(process: subprocess.Popen[bytes], seconds: float) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({"seconds": seconds}).encode() + b"\n")
    process.stdin.flush()
    found: dict[str, Any] = json.loads(process.stdout.readline())
    return found


@contextmanager
def _awake(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Let a process with its children run for a while."""
    _signal(process, signal.SIGCONT)
    try:
        yield
    finally:
        _signal(process, signal.SIGSTOP)


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """To a server and all that it has started: workers have sessions of their own."""
    for pid in [process.pid, *_below(process.pid)]:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _below(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    except OSError:
        return []
    return [number for child in map(int, text.split()) for number in (child, *_below(child))]


def _drive(server: Server, port: int, scenario: str, seconds: float, mine: list[int], file: Path) -> dict[str, Any]:
    connections, with_long = SCENARIOS[scenario]
    told = {"port": port, "path": server.path, "connections": connections, "with_long": with_long, "file": str(file)}
    told |= {"warm": seconds / 5, "seconds": seconds}
    command = ["taskset", "-c", ",".join(map(str, mine)), sys.executable, "benchmarks/load/driver.py", json.dumps(told)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=seconds * 2 + 120, check=False)
    if done.returncode:
        return {"failed": {"driver": 1}, "answered": 0, "wall": seconds, "seconds": [], "driver_busy": 0.0}
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _write(path: Path, record: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(record) + "\n", encoding="utf-8")
    part.replace(path)


if __name__ == "__main__":
    sys.exit(main())
