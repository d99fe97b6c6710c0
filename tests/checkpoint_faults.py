"""Checkpoints that are read, or refused in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastembed_rt_export.checkpoint.read import Checkpoint, load
from fastembed_rt_export.errors import CheckpointError
from fastembed_rt_export.graph.portable import PORTABLE
from fastembed_rt_export.tasks.embedding import build


def built(directory: Path) -> Checkpoint:
    checkpoint = load(directory, directory.name)
    build(checkpoint, PORTABLE, 17)
    return checkpoint


def refusal(directory: Path, kind: type[Exception] = CheckpointError) -> str:
    """The message with which the checkpoint is refused: one line."""
    with pytest.raises(kind) as caught:
        built(directory)
    assert type(caught.value) is kind
    message = str(caught.value)
    assert "\n" not in message
    return message
