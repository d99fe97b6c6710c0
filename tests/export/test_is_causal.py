"""is_causal in config.json: what transformers makes of it only where no text of a batch is padded is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from checkpoint_faults import refusal
from checkpoints import TEXTS, change_json, reference_vectors, save_transformers

from fastembed_rt_export.errors import UnsupportedCheckpointError

ENCODERS = [
    *("albert", "bert", "data2vec-text", "distilbert", "electra", "embedding_gemma2_text", "ernie", "eurobert", "gte"),
    *("jina_embeddings_v3", "modernbert", "mt5", "nomic_bert", "roberta", "t5", "ultrabert", "xlm-roberta"),
]


def depends_on_others(checkpoint: Path) -> bool:
    """Whether the reference gives a text another vector beside a longer one."""
    text, longer = TEXTS[2], TEXTS[3]
    return bool(
        np.abs(reference_vectors(checkpoint, [text])[0] - reference_vectors(checkpoint, [text, longer])[0]).max() > 1e-3
    )


@pytest.mark.parametrize("model_type", ENCODERS)
def test_an_encoder_that_is_to_see_only_what_is_before_is_refused(model_type: str, tmp_path: Path) -> None:
    checkpoint = save_transformers(tmp_path / "checkpoint", model_type)
    change_json(checkpoint / "config.json", is_causal=True)
    assert depends_on_others(checkpoint)
    assert "is_causal = True; this builder knows False only" in refusal(checkpoint, UnsupportedCheckpointError)


@pytest.mark.parametrize("model_type", ["gemma3_text", "llama", "mistral", "qwen2", "qwen3"])
def test_a_decoder_that_does_not_say_what_it_sees_is_refused(model_type: str, tmp_path: Path) -> None:
    checkpoint = save_transformers(tmp_path / "checkpoint", model_type)
    causal = reference_vectors(checkpoint, TEXTS[1:4])
    change_json(checkpoint / "config.json", is_causal=None)
    assert depends_on_others(checkpoint) or np.abs(reference_vectors(checkpoint, TEXTS[1:4]) - causal).max() > 1e-3
    assert "is_causal = None" in refusal(checkpoint, UnsupportedCheckpointError)
