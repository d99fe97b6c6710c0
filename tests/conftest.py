"""Makes the helpers in this directory importable from every test; skips what needs a GPU where there is none."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# Where transformers copies the code of checkpoints that have their own; read when it is imported.
os.environ.setdefault("HF_MODULES_CACHE", tempfile.mkdtemp(prefix="fastembed-rt-modules-"))


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
