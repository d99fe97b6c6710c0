"""A contender's process seen from the runner: questions and answers with a time limit, stopped while others work.

Between questions the process is stopped by a signal: a library whose idle threads spin costs the others nothing.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ContenderError
from .environments import last_error

CAN_STOP = hasattr(signal, "SIGSTOP")
LIVING: set[Process] = set()


class Process:
    """One process that speaks JSON lines. Use `ask`; `kill` at the end whatever happened."""

    def __init__(self, command: Sequence[str], *, log: Path, cwd: Path, environment: Mapping[str, str]) -> None:
        self.log = log
        self.stopped = False
        self._pending = b""
        with log.open("ab") as errors:
            self.started = time.monotonic()
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=cwd,
                env=dict(environment),
                start_new_session=True,  # Ctrl-C is for the runner
            )
        LIVING.add(self)

    @property
    def pid(self) -> int:
        """Number of the process."""
        return self._child.pid

    @property
    def alive(self) -> bool:
        """Whether it can be asked; it may be stopped."""
        return self in LIVING and self._child.poll() is None

    def ask(self, what: str, *, timeout: float, **arguments: Any) -> dict[str, Any]:
        """Send a command and wait for its answer.

        Raises:
            ContenderError: it answered with an error, did not answer in time (and was killed), or died.
        """
        self.resume()
        line = json.dumps({"do": what, **arguments}) + "\n"
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(line.encode())
            self._child.stdin.flush()
        except OSError:
            raise ContenderError(f"{what}: {self._death()}") from None
        return self.answer(what, timeout=timeout)

    def answer(self, what: str, *, timeout: float) -> dict[str, Any]:
        """Wait for one line.

        Raises:
            ContenderError: as for `ask`.
        """
        deadline = time.monotonic() + timeout
        assert self._child.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._child.stdout, selectors.EVENT_READ)
            while b"\n" not in self._pending:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    self.kill()
                    raise ContenderError(f"{what}: no answer within {timeout:.0f} s, killed")
                piece = os.read(self._child.stdout.fileno(), 1 << 16)
                if not piece:
                    raise ContenderError(f"{what}: {self._death()}")
                self._pending += piece
        line, _, self._pending = self._pending.partition(b"\n")
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            self.kill()
            raise ContenderError(f"{what}: answered {line[:80]!r}, which is not JSON") from None
        if "error" in answer:
            raise ContenderError(f"{what}: {answer['error']}")
        return answer

    def stop(self) -> None:
        """Take all its threads off the CPU until `resume`."""
        if CAN_STOP and not self.stopped and self._child.poll() is None:
            self._child.send_signal(signal.SIGSTOP)
            self.stopped = True

    def resume(self) -> None:
        """Let it run again."""
        if self.stopped:
            self._child.send_signal(signal.SIGCONT)
            self.stopped = False

    def cpu_seconds(self) -> float:
        """CPU time that its threads have used; 0 where the kernel does not say."""
        try:
            fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self) -> None:
        """End it and what it started, now."""
        LIVING.discard(self)
        if self._child.poll() is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)  # reaches a stopped process too
            except OSError:
                self._child.kill()
            self._child.wait()
        for stream in (self._child.stdin, self._child.stdout):
            if stream is not None:
                try:
                    stream.close()
                except OSError:  # what was never sent need not be
                    continue

    def _death(self) -> str:
        try:
            code = self._child.wait(5)
        except subprocess.TimeoutExpired:
            code = 0
        self.kill()
        said = last_error(self.log.read_text(encoding="utf-8", errors="replace")[-4000:])
        if code < 0:
            hint = " (out of memory?)" if -code == signal.SIGKILL else ""
            return f"killed by {signal.Signals(-code).name}{hint}"
        return f"ended with exit code {code}: {said}"


def kill_all() -> None:
    """End every process that is still there."""
    for process in list(LIVING):
        process.kill()
