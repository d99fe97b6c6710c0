"""Checkpoints on disk that tests of reading change, and one with its export that no test changes."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import PROMPTS, save_sentence_transformers, save_transformers
from exports import shorten_the_gate

from fastembed_rt_export.pipeline import ExportOptions, export


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    """A transformers directory."""
    return save_transformers(tmp_path / "plain")


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A sentence-transformers directory."""
    return save_sentence_transformers(tmp_path / "chain")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that no test changes."""
    directory = tmp_path_factory.mktemp("checkpoint") / "mini"
    return save_sentence_transformers(directory, prompts=PROMPTS, default_prompt_name="query", card=True)


@pytest.fixture(scope="session")
def model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export, verified, that no test changes."""
    output = tmp_path_factory.mktemp("model") / "mini-onnx"
    export(str(checkpoint), ExportOptions(output=output))
    return output


@pytest.fixture
def short_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of something else than the gate."""
    shorten_the_gate(monkeypatch)
