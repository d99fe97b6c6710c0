"""fp32 on our own operators: the vectors of torch, the weights of model.onnx, and bits that no neighbour changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from checkpoints import (
    FP32_FILES,
    QUICK_TYPES,
    TEXTS,
    reference_vectors,
    save_sentence_transformers,
)
from cross_encoders import save_cross_encoder
from exports import quick
from sparse_encoders import save_splade

from fastembed_rt import EmbeddingModel, Reranker, SparseModel, native
from fastembed_rt.manifest import read
from fastembed_rt_export.architectures import ARCHITECTURES

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")

FILE = "model.native.fp32.onnx"
# As wide as MiniLM.
WIDE: dict[str, Any] = {"hidden_size": 384, "num_attention_heads": 12}
PRECISIONS = ("fp32", "bf16", "int8")
LONG = "a much longer text than the others " * 9
MANY = [*TEXTS, LONG, "b", *(f"{text} {k}" for k in range(9) for text in TEXTS)]


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize(
    "model_type",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK_TYPES)) for name in sorted(ARCHITECTURES)],
)
def test_every_architecture_has_the_vectors_of_stock_operators(tmp_path: Path, model_type: str, pooling: str) -> None:
    source = save_sentence_transformers(tmp_path / "source", model_type, pooling=pooling, max_seq_length=40)
    described = quick(source, tmp_path / "made")
    assert described.variants[0].target == "native"
    with EmbeddingModel(tmp_path / "made", target="portable") as exact:
        expected = exact.encode(MANY)
    with EmbeddingModel(tmp_path / "made", max_batch_tokens=64) as model:
        np.testing.assert_allclose(model.encode(MANY), expected, rtol=0, atol=3e-6)


def test_it_is_small_reads_the_weights_of_the_others_and_is_the_default(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "source")
    quick(source, tmp_path / "made")
    described = read(tmp_path / "made")
    assert [variant.graph.file for variant in described.variants] == FP32_FILES
    assert described.default_variant == FILE
    assert [record.file for record in described.variants[0].weights] == ["model.onnx"]
    graph = onnx.load(str(tmp_path / "made" / FILE), load_external_data=False).graph
    assert {node.op_type for node in graph.node if node.domain == native.DOMAIN} == {
        *("Fp32Attention", "Fp32FeedForward", "PackedMean")
    }
    assert (tmp_path / "made" / FILE).stat().st_size < 2**16
    with EmbeddingModel(tmp_path / "made") as model:
        np.testing.assert_allclose(model.encode(TEXTS), reference_vectors(source, TEXTS), rtol=0, atol=3e-6)


def test_where_the_operators_do_not_run_stock_ones_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick(save_sentence_transformers(tmp_path / "source"), tmp_path / "made")
    with EmbeddingModel(tmp_path / "made") as model:
        expected = model.encode(MANY)
    monkeypatch.setattr(native, "library", lambda: Path("none.so"))
    native._examined.cache_clear()
    with EmbeddingModel(tmp_path / "made") as model:
        assert model.target == "cpu"
        np.testing.assert_allclose(model.encode(MANY), expected, rtol=0, atol=3e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("changes", [{}, {"dense": 96}, {"pooling": "cls", "dense": 8}], ids=str)
def test_neighbours_change_no_bit_of_a_vector(tmp_path: Path, precision: str, changes: dict[str, Any]) -> None:
    source = save_sentence_transformers(tmp_path / "source", max_seq_length=40, **WIDE, **changes)
    quick(source, tmp_path / "made", precisions=(precision,), min_cosine=0.5)
    with EmbeddingModel(tmp_path / "made", max_batch_tokens=64, threads=2) as model:
        assert model.target == "native"
        found = model.encode(MANY)
        np.testing.assert_array_equal(found, np.stack([model.encode(text) for text in MANY]))
        np.testing.assert_array_equal(found[::-1], model.encode(MANY[::-1]))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_neighbours_change_no_bit_of_a_score(tmp_path: Path, precision: str) -> None:
    quick(save_cross_encoder(tmp_path / "source", **WIDE), tmp_path / "made", precisions=(precision,), min_cosine=0.5)
    pairs = [("where is the dog?", text) for text in MANY]
    with Reranker(tmp_path / "made", max_batch_tokens=64, threads=2) as model:
        assert model.target == "native"
        found = model.predict(pairs)
        np.testing.assert_array_equal(found, np.concatenate([model.predict([pair]) for pair in pairs]))


def test_neighbours_change_no_bit_of_a_word_s_weight(tmp_path: Path) -> None:
    quick(save_splade(tmp_path / "source"), tmp_path / "made")
    with SparseModel(tmp_path / "made", max_batch_tokens=64, threads=2) as model:
        assert model.target == "native"
        for one, text in zip(model.encode(MANY), MANY, strict=True):
            alone = model.encode(text)
            np.testing.assert_array_equal(one.indices, alone.indices)
            np.testing.assert_array_equal(one.values, alone.values)
