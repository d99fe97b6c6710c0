"""modules.json of a class that config_sentence_transformers.json does not name: the reference makes another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints import change_json
from cross_encoders import save_cross_encoder
from exports import quick
from multi_vectors import save_multi_vector
from sparse_encoders import save_splade

from fastembed_rt_export.errors import UnsupportedCheckpointError

SAVED: dict[str, tuple[Any, str]] = {
    "SparseEncoder": (save_splade, "sparse"),
    "MultiVectorEncoder": (save_multi_vector, "late_interaction"),
    "CrossEncoder": (save_cross_encoder, "reranking"),
}


@pytest.mark.parametrize("name", SAVED)
@pytest.mark.parametrize("said", ["another", "none", "no file"])
def test_modules_that_the_reference_would_replace_are_refused(said: str, name: str, tmp_path: Path) -> None:
    save, task = SAVED[name]
    checkpoint = save(tmp_path / "checkpoint")
    quick(checkpoint, tmp_path / "model", task=task)
    file = checkpoint / "config_sentence_transformers.json"
    if said == "no file":
        file.unlink()
    else:
        change_json(
            file,
            *(["model_type"] if said == "none" else []),
            **({"model_type": "SentenceTransformer"} if said == "another" else {}),
        )
    with pytest.raises(UnsupportedCheckpointError, match=f"write '{name}' there, if vectors were made so"):
        quick(checkpoint, tmp_path / "refused", task=task)
