"""A small exported model beside the sentence-transformers model it comes from, made once for all tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
from hub_repositories import hub
from hypothesis import settings
from signals import of_a_terminal

__all__ = ["hub"]

# Machines that run tests do other things too: time limits are for whole tests, not for single examples.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

PROMPTS = {"query": "query : ", "document": "passage : "}
RunScript = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Tests see what is written, not what a loss of power leaves; the disk takes milliseconds for each of thousands.

    Processes that tests start do wait.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)  # which takes open descriptors alone, too
        yield


@dataclass(frozen=True)
class Pair:
    """A checkpoint and the model directory exported from it."""

    checkpoint: Path
    directory: Path

    @cached_property
    def reference(self) -> Any:
        """The checkpoint in sentence-transformers."""
        from sentence_transformers import SentenceTransformer

        return SentenceTransformer(str(self.checkpoint), device="cpu", local_files_only=True)


@pytest.fixture(scope="session")
def export_pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    """Makes a pair from what `save_sentence_transformers` takes; the same pair for the same arguments."""
    made: dict[str, Pair] = {}

    def make(**changes: Any) -> Pair:
        from checkpoints import save_sentence_transformers

        from fastembed_rt_export.pipeline import ExportOptions, export

        if repr(changes) not in made:
            root = tmp_path_factory.mktemp("pair")
            checkpoint = save_sentence_transformers(root / "checkpoint", **changes)
            export(str(checkpoint), ExportOptions(output=root / "model", verify=False))
            made[repr(changes)] = Pair(checkpoint, root / "model")
        return made[repr(changes)]

    return make


@pytest.fixture(scope="session")
def pair(export_pair: Callable[..., Pair]) -> Pair:
    """BERT with 48 positions, cut at 16 tokens, with a query and a document prompt; mean pooling, normalized."""
    return export_pair(prompts=PROMPTS, max_seq_length=16)


@pytest.fixture(scope="session")
def reference(pair: Pair) -> Any:
    """The pair's checkpoint in sentence-transformers."""
    return pair.reference


@pytest.fixture(scope="session")
def model_dir(pair: Pair) -> Path:
    """The pair's model directory; tests that alter files take a copy."""
    return pair.directory


@pytest.fixture(scope="session")
def model(model_dir: Path) -> Iterator[Any]:
    """The pair's model, loaded with its own settings."""
    from fastembed_rt import EmbeddingModel

    with EmbeddingModel(model_dir, threads=2) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A model whose tokenizer has tokens that it does not know: word250 is one of them."""
    from checkpoints import enlarge_tokenizer, save_sentence_transformers
    from exports import quick

    from fastembed_rt import EmbeddingModel

    root = tmp_path_factory.mktemp("larger")
    checkpoint = save_sentence_transformers(root / "checkpoint")
    enlarge_tokenizer(checkpoint)
    quick(checkpoint, root / "model")
    with EmbeddingModel(root / "model", threads=2) as loaded:
        yield loaded


@pytest.fixture(scope="session")
def run_script() -> RunScript:
    """Runs Python code in a fresh interpreter, which fails the test instead of hanging; its children end with it."""

    def run(code: str, *args: object, timeout: float = 60, **env: str) -> subprocess.CompletedProcess[str]:
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("TOKENIZERS_", "ORT_"))}
        with of_a_terminal():
            process = subprocess.Popen(
                [sys.executable, "-c", code, *map(str, args)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**clean, **env},
                start_new_session=True,
            )
        with process:
            try:
                out, err = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired:
                pytest.fail(f"still running after {timeout} s, a deadlock")
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return run
