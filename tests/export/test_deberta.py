"""DeBERTa's distances in the graphs of every target: all tokens, and the last layer for first tokens alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from checkpoints import TEXTS, reference_vectors, save_sentence_transformers
from exports import quick

from fastembed_rt import EmbeddingModel, native

LONG = "a much longer text than the others " * 9
MANY = [*TEXTS, LONG, "b", *(f"{text} {k}" for k in range(5) for text in TEXTS)]
OWN = ["native"] if native.kernels() else []


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("deberta-v2", {}),
        ("deberta-v2", {"pos_att_type": ["p2c"], "share_att_key": False, "num_hidden_layers": 1}),
        ("deberta-v2", {"pos_att_type": ["c2p"], "position_buckets": -1, "max_relative_positions": 20}),
        ("deberta", {}),
    ],
    ids=str,
)
def test_every_target_has_its_vectors(tmp_path: Path, model_type: str, changes: dict[str, Any], pooling: str) -> None:
    source = save_sentence_transformers(tmp_path / "source", model_type, pooling=pooling, max_seq_length=40, **changes)
    quick(source, tmp_path / "made")
    expected = reference_vectors(source, MANY)
    for target in ("portable", "cpu", *OWN):
        with EmbeddingModel(tmp_path / "made", target=target) as model:
            found = model.encode(MANY)
            np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6, err_msg=target)
            if target != "portable":  # which pads
                np.testing.assert_array_equal(np.concatenate([model.encode([text]) for text in MANY]), found)


@pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_layer_is_two_nodes_in_int8(tmp_path: Path, pooling: str) -> None:
    source = save_sentence_transformers(tmp_path / "source", "deberta-v2", pooling=pooling, max_seq_length=40)
    quick(source, tmp_path / "made", precisions=("int8",))
    expected = reference_vectors(source, MANY)
    for target in ("cpu", "native"):
        with EmbeddingModel(tmp_path / "made", target=target) as model:
            assert (model.encode(MANY) * expected).sum(axis=1).min() > 0.995, target
    graph = onnx.load(str(tmp_path / "made" / "model.native.int8.onnx"), load_external_data=False).graph
    kinds = [node.op_type for node in graph.node if node.domain == native.DOMAIN]
    whole = kinds.count("QuantAttention")
    assert (whole, kinds.count("PackedAttention")) == ((3, 0) if pooling == "mean" else (2, 1))
