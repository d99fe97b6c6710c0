"""Makes the helpers in this directory importable from every test; skips what needs a GPU where there is none."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from signals import of_a_terminal

# Where transformers copies the code of checkpoints that have their own; read when it is imported.
os.environ.setdefault("HF_MODULES_CACHE", tempfile.mkdtemp(prefix="fastembed-rt-modules-"))

# Where it is ignored, as some supervisors leave it, children have no exit code: subprocess says 0 for all of them.
if hasattr(signal, "SIGCHLD"):
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@pytest.fixture
def terminal_signals() -> Iterator[None]:
    """For tests that interrupt themselves or a child: signals do what they do in a program started at a terminal."""
    with of_a_terminal():
        yield


def no_gpu() -> str:
    """Why tests with the marker `gpu` do not run here, "" if they do."""
    import onnxruntime

    from fastembed_rt import missing

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this onnxruntime has no CUDAExecutionProvider"
    missing.preload(onnxruntime)
    found = missing.find("cuda", onnxruntime)
    return str(found) if found else ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    why = no_gpu() if marked else ""
    for item in marked if why else ():
        item.add_marker(pytest.mark.skip(reason=f"needs an NVIDIA GPU: {why}"))
