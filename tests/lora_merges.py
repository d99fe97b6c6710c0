"""Merges of LoRA adapters: their tensors, what an export that is refused says, and the comparison with torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import Made
from checkpoints import exported_vectors, reference_vectors
from tolerances import close

from fastembed_rt.errors import FastembedRtError
from fastembed_rt.hub.resolve import Located, resolve_checkpoint
from fastembed_rt_export import tasks
from fastembed_rt_export.adapters.whole import whole
from fastembed_rt_export.checkpoint.read import Checkpoint
from fastembed_rt_export.errors import CheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export

FILE = "adapter_model.safetensors"
QUERY = "encoder.layer.{}.attention.self.query"


def find(name: str, revision: str | None) -> Located:
    return resolve_checkpoint(name, revision=revision, local_files_only=True)


def tensors_of(adapter: Path, base: str | None = None) -> dict[str, np.ndarray[Any, Any]]:
    """All tensors of the merged checkpoint by name."""
    with whole(find(str(adapter), None), base, find, lambda _: None) as located:
        checkpoint: Checkpoint = tasks.load(located.path, located.name)
        return {name: stored.load() for name, stored in checkpoint.stored.items()}


def refusal(path: Path, kind: type[FastembedRtError] = CheckpointError, **options: Any) -> str:
    """The message, in one line, of an export that does not happen."""
    with pytest.raises(kind) as caught:
        export(str(path), ExportOptions(output=path.parent / "out", verify=False, **options))
    assert type(caught.value) is kind
    assert not (path.parent / "out").exists()
    message = str(caught.value)
    assert "\n" not in message
    return message


def assert_merged(made: Made, adapter: Path) -> None:
    """Every tensor is the base's or what torch made of it, and the vectors are those of the model saved merged."""
    found = tensors_of(adapter)
    assert found.keys() == made.wanted.keys()
    for name, wanted in made.wanted.items():
        np.testing.assert_allclose(found[name], wanted.numpy(), rtol=0, atol=2e-6, err_msg=name)
    merged = made.save_wanted(adapter.parent / "merged")
    close(exported_vectors(adapter, adapter.parent / "onnx"), reference_vectors(merged))
