"""What `doctor` says to run where the operators were not compiled: from the archive of an index, as pip has it."""

from __future__ import annotations

import functools
import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from wheel_contents import built

from fastembed_rt import native

pytestmark = [
    pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}"),
    pytest.mark.skipif(not Path(sys.executable).with_name("pip").is_file(), reason="this environment has no pip"),
]


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Files of a folder."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a package index that has our source archive alone."""
    folder = tmp_path_factory.mktemp("index")
    (folder / "fastembed-rt").mkdir()
    built("sdist", folder / "fastembed-rt")
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


@pytest.fixture
def installed(index: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where pip installs to; it keeps wheels that it made in a cache of its own, as it does for users."""
    settings = {
        "CONFIG_FILE": os.devnull,
        "INDEX_URL": index,
        "CACHE_DIR": str(tmp_path / "cache"),
        "TARGET": str(tmp_path / "installed"),
        "UPGRADE": "1",  # what is there already is replaced
        "NO_DEPS": "1",
        "NO_BUILD_ISOLATION": "0",  # pip reads this one the other way round: no isolation
        "NO_COMPILE": "1",
    }
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in settings.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    return tmp_path / "installed" / "fastembed_rt" / "native"


def said_by(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, shell=True, capture_output=True, text=True, check=False, timeout=300)


def test_it_compiles_what_was_installed_without_a_compiler(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as without:
        without.setenv("CC", "/nonexistent/gcc")
        first = said_by("pip install fastembed-rt")
        assert first.returncode == 0, first.stderr
        assert (installed / "build.py").is_file()
        assert not (installed / native.LIBRARY).exists()
        again = said_by(native.AGAIN)  # still without one
        assert again.returncode != 0
        assert "/nonexistent/gcc does not run" in again.stdout + again.stderr
    again = said_by(native.AGAIN)
    assert again.returncode == 0, again.stderr
    assert (installed / native.LIBRARY).is_file()
