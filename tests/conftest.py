"""Makes the helpers in this directory importable from every test; skips what needs a GPU where there is none."""

from __future__ import annotations

import functools
import gc
import importlib.metadata
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import compiled_once
from signals import of_a_terminal

# No test writes into the home directory, which need not be there. transformers copies the code of checkpoints that have
# their own into the first, and reads the variable when it is imported; TensorRT's engines are kept in the second.
CACHES = Path(tempfile.mkdtemp(prefix="fastembed-rt-caches-"))
os.environ.setdefault("HF_MODULES_CACHE", str(CACHES / "modules"))
os.environ.setdefault("FASTEMBED_RT_CACHE", str(CACHES / "engines"))

# The first process's, for all that it starts.
if compiled_once.KEPT not in os.environ:
    os.environ[compiled_once.KEPT] = str(CACHES / "compiled")
    if compiled_once.INSTALLED.is_dir():
        shutil.copytree(compiled_once.INSTALLED, CACHES / "compiled")
if "CC" not in os.environ and (program := compiled_once.write_compiler(CACHES)):
    os.environ["CC"] = str(program)

# Matrices of tests are small: BLAS's threads would mostly wait for each other, and to wait they spin. Before numpy is
# imported; also in what tests start.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# transformers asks for versions with each model that it reads or writes, and a package's long description is parsed.
importlib.metadata.version = functools.cache(importlib.metadata.version)

# Files of ten CPU seconds and more, or so. They are run first: whoever begins one of them last lets all others wait.
# The first of all compiles what others would compile again.
FIRST = "test_wheel.py"
LONGEST = {
    FIRST,
    "test_architectures.py",
    "test_bench_gpu.py",
    "test_bench_parts.py",
    "test_bench_report.py",
    "test_bf16_operators.py",
    "test_causal_rerankers.py",
    "test_chat_templates.py",
    "test_compile_again.py",
    "test_cuda_choices.py",
    "test_cuda_native_heads.py",
    "test_cuda_operators.py",
    "test_families.py",
    "test_gate.py",
    "test_int8.py",
    "test_kills.py",
    "test_late_interaction.py",
    "test_minilm.py",
    "test_native_fp32.py",
    "test_operators.py",
    "test_readme.py",
    "test_refused_precisions.py",
    "test_reloads.py",
    "test_replaced.py",
    "test_reranking.py",
    "test_routes.py",
    "test_selfcheck.py",
    "test_texts_without_tokens.py",
    "test_tokenizer_classes.py",
    "test_tokenizers.py",
    "test_travel.py",
    "test_turned_blocks.py",
    "test_verify.py",
    "test_workers.py",
}

# Images of containers set it to stay small. But tests start hundreds of interpreters, which would each compile the same
# modules again, and the next run would rewrite all assertions again.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# Where it is ignored, as some supervisors leave it, children have no exit code: subprocess says 0 for all of them.
if hasattr(signal, "SIGCHLD"):
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def sleeping_threads() -> Iterator[None]:
    """Threads of sessions sleep where they wait: models of tests are small, and spinning takes another test's core.

    Processes that tests start have them spin, as users' do.
    """
    from fastembed_rt.run import session

    options = session._options

    def sleeping(onnxruntime: Any, threads: int, *, cpu: bool) -> Any:
        found = options(onnxruntime, threads, cpu=cpu)
        found.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(session, "_options", sleeping)
        yield


@pytest.fixture
def terminal_signals() -> Iterator[None]:
    """For tests that interrupt themselves or a child: signals do what they do in a program started at a terminal."""
    with of_a_terminal():
        yield


def no_gpu() -> str:
    """Why tests with the marker `gpu` do not run here, "" if they do."""
    import onnxruntime

    from fastembed_rt.run import nvidia

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        return "this onnxruntime has no CUDAExecutionProvider"
    nvidia.preload(onnxruntime)
    found = nvidia.find("cuda", onnxruntime)
    return str(found) if found else ""


def pytest_configure(config: pytest.Config) -> None:
    config.option.loadscopereorder = False  # of pytest-xdist: files in our order, not by how many tests they have


def pytest_unconfigure() -> None:
    shutil.rmtree(CACHES, ignore_errors=True)
    if "checkpoints" in sys.modules:  # not left to the end of the process: a worker of pytest-xdist may be ended
        sys.modules["checkpoints"].TEMPLATES.cleanup()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: (item.path.name != FIRST, item.path.name not in LONGEST))
    marked = [item for item in items if item.get_closest_marker("gpu")]
    why = no_gpu() if marked else ""
    for item in marked if why else ():
        item.add_marker(pytest.mark.skip(reason=f"needs an NVIDIA GPU: {why}"))


def pytest_collection_finish() -> None:
    """What is imported by now stays: a collection need not look at half a million objects of it, 0.2 s each time."""
    gc.collect()
    gc.freeze()
