"""bf16 on CPUs: how near it stays to fp32 on stock operators, that neighbours change no bit, half the weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from checkpoints import QUICK_TYPES, TEXTS, save_sentence_transformers
from exports import quick

from fastembed_rt import EmbeddingModel, native
from fastembed_rt.errors import ProviderUnavailableError
from fastembed_rt_export.architectures import ARCHITECTURES
from fastembed_rt_export.errors import UnsupportedCheckpointError
from fastembed_rt_export.gate.parity import Fidelity, parity_texts
from fastembed_rt_export.pipeline import ExportOptions, export

BF16 = "model.native.bf16.onnx"
runs = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
# Scores of random weights are so large here that softmax is a choice, which rounding may turn.
WORST = {"new": 0.998, "t5": 0.996, "mt5": 0.996, "nomic_bert_moe": 0.95, "bidirectional_pplx_qwen3": 0.999}
WORST["lfm2_bidirectional"] = 0.999  # products of three states, whose roundings multiply
WORST["qwen3_bidirectional"] = 0.999  # a layer of random weights behind the last norm
MEAN = {"nomic_bert_moe": 0.998}  # an expert is a choice too


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT in bf16 and fp32."""
    source = save_sentence_transformers(tmp_path_factory.mktemp("source") / "bert", max_seq_length=40)
    output = tmp_path_factory.mktemp("bf16") / "model"
    quick(source, output, precisions=("bf16", "fp32"))
    return output


@runs
@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize(
    "model_type",
    [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK_TYPES)) for name in sorted(ARCHITECTURES)],
)
def test_every_architecture_has_bf16_near_its_fp32(tmp_path: Path, model_type: str, pooling: str) -> None:
    source = save_sentence_transformers(tmp_path / "source", model_type, pooling=pooling, max_seq_length=40)
    described = quick(source, tmp_path / "made", precisions=("bf16", "fp32"))
    assert not described.refused
    texts = [case.text for case in parity_texts()][::3]
    with EmbeddingModel(tmp_path / "made", precision="fp32", target="portable") as exact:
        expected = exact.encode(texts)
    with EmbeddingModel(tmp_path / "made") as model:
        assert (model.variant.precision, model.variant.target) == ("bf16", "native")
        fidelity = Fidelity.of(model.encode(texts), expected)
    assert fidelity.min_cosine > WORST.get(model_type, 0.9995), fidelity
    assert fidelity.mean_cosine > MEAN.get(model_type, 0.9995), fidelity
    assert fidelity.mean_cosine < 1 - 1e-8, "that was not bf16"


@runs
def test_neighbours_change_no_bit(both: Path) -> None:
    texts = [*TEXTS, "a much longer text than the others " * 9, "b"]
    with EmbeddingModel(both, max_batch_tokens=64, threads=2) as model:
        found = model.encode(texts)
        np.testing.assert_array_equal(found, np.stack([model.encode(text) for text in texts]))
        np.testing.assert_array_equal(found[::-1], model.encode(texts[::-1]))


def test_tables_and_matrices_take_half_the_room_and_all_else_is_float32(both: Path) -> None:
    graph = onnx.load(str(both / BF16), load_external_data=False).graph
    kinds = {entry.name: entry.data_type for entry in graph.initializer}
    halves = [entry for entry in graph.initializer if kinds[entry.name] == onnx.TensorProto.BFLOAT16]
    assert all(len(entry.dims) == 2 for entry in halves)
    assert {node.op_type for node in graph.node} >= {"Bf16Attention", "Bf16FeedForward", "Bf16Embedding"}
    used = [name for node in graph.node if node.op_type.startswith("Bf16") for name in node.input]
    assert {entry.name for entry in halves} <= set(used)
    whole = sum(np.prod(entry.dims) for entry in halves)
    assert (both / f"{BF16}.data").stat().st_size < 2 * whole + (both / "model.onnx").stat().st_size - 4 * whole + 2**20


# Logarithmic buckets that begin with steps of two rows.
JUMPS: dict[str, Any] = {"position_buckets": 8, "max_relative_positions": 8}


def test_where_the_operators_lack_something_the_others_are_made(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "source", "deberta-v2", max_seq_length=40, **JUMPS)
    described = quick(source, tmp_path / "made", precisions=("bf16", "fp32"))
    (refused,) = described.refused
    assert "bf16 on CPUs is computed by our own operators, which lack what this encoder needs" in refused.why
    assert {variant.target for variant in described.variants} == {"cpu", "portable"}


def test_alone_where_the_operators_lack_something_it_is_an_error(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "source", "deberta-v2", max_seq_length=40, **JUMPS)
    with pytest.raises(UnsupportedCheckpointError, match=r"rows do not follow one another.*; take fp32"):
        export(str(source), ExportOptions(output=tmp_path / "made", precisions=("bf16",), verify=False))


def test_where_the_operators_do_not_run_it_says_why(both: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda: Path("none.so"))
    native._examined.cache_clear()
    said = "precision 'bf16' is computed by our own operators, which do not run here: .*; take another precision"
    with pytest.raises(ProviderUnavailableError, match=rf"{said} \(bf16 and fp32 are there\)"):
        EmbeddingModel(both)
    with EmbeddingModel(both, precision="fp32") as model:
        assert model.variant.target == "cpu"


@runs
@pytest.mark.usefixtures("short_gate")
def test_the_gate_compares_it_with_the_reference(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "source", max_seq_length=40)
    output = tmp_path / "made"
    export(str(source), ExportOptions(output=output, precisions=("bf16",), tokens=True))
    described = json.loads((output / "manifest.json").read_text(encoding="utf-8"))
    entry = described["parity"]["variants"][BF16]
    assert 0.9995 <= entry["min_cosine"] < 1 - 1e-8
    (variant,) = described["variants"]
    assert variant["tokens"]["graph"]["file"] == "model.native.bf16.tokens.onnx"
    with EmbeddingModel(output) as model:
        (states,) = model.encode(["a dog"], output="tokens")
    assert states.vectors.shape[1] == described["dim"]
