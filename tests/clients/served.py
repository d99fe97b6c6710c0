"""`fastembed-rt serve` as a process on a port of loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def serving(models: Mapping[str, Path], log: Path, *options: str) -> Iterator[str]:
    """The address of a server that is ready; it is told to stop, and must end with 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "fastembed_rt", "serve", *(f"{name}={path}" for name, path in models.items())]
    with log.open("wb") as file:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--threads", "2", *options],
            stdout=file,
            stderr=file,
            cwd=ROOT,
            env=os.environ,
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}"
            assert process.poll() is None, log.read_text(errors="replace")[-2000:]
            process.terminate()
            assert process.wait(60) == 0, log.read_text(errors="replace")[-2000:]
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _wait(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise AssertionError(f"the server is not ready: {log.read_text(errors='replace')[-2000:]}")
