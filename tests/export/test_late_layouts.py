"""Which of its settings a late-interaction checkpoint of PyLate's, or of those after it, is read by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from checkpoints import change_json, write_json
from multi_vectors import FIXED, assert_agrees, reference, save_multi_vector, save_pylate

from fastembed_rt_export import tasks
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError

SAID = "config_sentence_transformers.json"


def refusal(checkpoint: Path, kind: type[CheckpointError] | type[UnsupportedCheckpointError]) -> str:
    with pytest.raises(kind) as caught:
        tasks.load(checkpoint, "refused", task="late_interaction")
    return str(caught.value)


@pytest.mark.parametrize("expansion", [None, {"strategy": "min", "length": 9}, {**FIXED, "attend": True}])
def test_an_expansion_beside_the_prompts(tmp_path: Path, expansion: dict[str, Any] | None) -> None:
    """The Transformer's own settings count more."""
    checkpoint = save_pylate(tmp_path / "checkpoint", query_expansion=expansion)
    assert_agrees(checkpoint, tmp_path / "out")
    change_json(checkpoint / "sentence_bert_config.json", query_expansion={**FIXED, "length": 10})
    assert_agrees(checkpoint, tmp_path / "own")


def test_an_expansion_beside_the_prompts_of_a_later_checkpoint(tmp_path: Path) -> None:
    checkpoint = save_multi_vector(tmp_path / "checkpoint")
    change_json(checkpoint / SAID, query_expansion=FIXED)
    assert_agrees(checkpoint, tmp_path / "out")


@pytest.mark.parametrize("markers", [True, False])
@pytest.mark.parametrize("model_type", ["ColBERT", "SentenceTransformer", None])
def test_punctuation_is_skipped_where_nothing_is_said_and_the_checkpoint_is_pylates(
    tmp_path: Path, model_type: str | None, markers: bool
) -> None:
    checkpoint = save_pylate(tmp_path / "checkpoint")
    left_out = ["skiplist_words", *([] if markers else ["query_prefix", "document_prefix"])]
    left_out += [] if model_type else ["model_type"]
    change_json(checkpoint / SAID, *left_out, **({"model_type": model_type} if model_type else {}))
    assert_agrees(checkpoint, tmp_path / "out")


def test_masks_that_sentence_transformers_leaves_out_or_adds_are_refused(tmp_path: Path) -> None:
    pylate = save_pylate(tmp_path / "pylate", model_type="MultiVectorEncoder")
    assert [type(module).__name__ for module in reference(pylate)] == ["Transformer", "Dense"]
    assert "model_type 'MultiVectorEncoder', and modules.json no MultiVectorMask" in refusal(
        pylate, UnsupportedCheckpointError
    )
    later = save_multi_vector(tmp_path / "later")
    change_json(later / SAID, model_type="ColBERT")
    assert [type(module).__name__ for module in reference(later)].count("MultiVectorMask") == 2
    assert "model_type 'ColBERT'" in refusal(later, UnsupportedCheckpointError)


def test_a_projection_that_sentence_transformers_would_make_up_is_refused(tmp_path: Path) -> None:
    checkpoint = save_pylate(tmp_path / "checkpoint")
    alone = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}
    write_json(checkpoint / "modules.json", [alone])
    assert_agrees(checkpoint, tmp_path / "out")
    change_json(checkpoint / SAID, "model_type")
    assert "modules.json has no Dense" in refusal(checkpoint, UnsupportedCheckpointError)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"query_expansion": {**FIXED, "times": 2}}, "query_expansion with 'times'"),
        ({"query_expansion": {**FIXED, "attend": 1}}, "attend 1, expected true or false"),
        ({"query_expansion": FIXED, "query_length": 8}, "query_length 8, less than the 12 tokens"),
    ],
)
def test_expansions_that_the_reference_refuses_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    checkpoint = save_multi_vector(tmp_path / "checkpoint")
    change_json(checkpoint / "sentence_bert_config.json", **changes)
    with pytest.raises(ValueError, match="query_expansion"):
        reference(checkpoint)
    assert said in refusal(checkpoint, CheckpointError)
