"""FP8 graphs of target cuda-native: what they are made of, and their vectors, in numpy and through the operators on
stand-ins, beside transformers in float32; what is refused, and where."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
import packed_attention
import packed_fp8
import pytest
from checkpoints import random_model, save_sentence_transformers
from cuda_graphs import expected, rows_of
from cuda_stand_in.fp8 import run
from cuda_stand_in.sessions import StandIn, fed, model
from onnx import TensorProto
from onnx.reference.op_run import OpRun
from packed_attention import evaluate
from pretended import pretended_gpus

from fastembed_rt import manifest
from fastembed_rt.errors import ModelFormatError, ProviderUnavailableError
from fastembed_rt.native import cuda as native_cuda
from fastembed_rt.native.cuda import DOMAIN
from fastembed_rt.run import batching, cuda_operators
from fastembed_rt.run.session import choose_variant
from fastembed_rt_export import quantize
from fastembed_rt_export.errors import ParityError
from fastembed_rt_export.gate.parity import distances
from fastembed_rt_export.pipeline import ExportOptions, export

__all__ = ["pretended_gpus"]
Array = npt.NDArray[Any]
FILE = "model.cuda-native.fp8.onnx"
SIZES: dict[str, Any] = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 128, "num_hidden_layers": 2}
MEAN, WORST = 0.998, 0.99
GPU_WHEEL = os.environ.get("FASTEMBED_RT_GPU_WHEEL", "")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with fp8 and fp16."""
    root = tmp_path_factory.mktemp("fp8")
    source = save_sentence_transformers(root / "c", normalize=False, **SIZES)
    options = ExportOptions(output=root / "m", targets=("cuda",), precisions=("fp8", "fp16"), verify=False)
    export(str(source), options)
    return root / "m"


def vectors(directory: Path) -> Array:
    names = [entry.name for entry in onnx.load(str(directory / FILE)).graph.input]
    return evaluate(directory / FILE, batching.packed_for_cuda(rows_of(), names))


def near(found: Array) -> None:
    cosine, _ = distances(found, expected(random_model("bert", **SIZES), ("mean",), rows_of()))
    assert cosine.mean() >= MEAN
    assert cosine.min() >= WORST


def test_a_layer_has_its_products_in_fp8(directory: Path) -> None:
    graph = onnx.load(str(directory / FILE)).graph
    layer = [node.op_type for node in graph.node if node.name.startswith("layer.1/")]
    assert layer == [
        *["Fp8Linear"] * 3,
        "PackedMultiHeadAttention",
        *("LinearFloat16", "Fp8AddNorm", "Fp8LinearFp8", "Fp8Linear", "AddNormFloat16"),
    ]
    assert [node.op_type for node in graph.node if node.name.startswith("embeddings/")] == ["Fp8EmbedNorm"]
    numbers = [entry for entry in graph.initializer if entry.data_type == TensorProto.FLOAT8E4M3FN]
    shapes = [tuple(entry.dims) for entry in numbers]
    assert sorted(shapes) == sorted(2 * [(64, 64)] * 3 + 2 * [(128, 64), (64, 128)])


def test_its_vectors_in_numpy_are_near_those_of_transformers(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_attention, "OPERATORS", [*packed_attention.OPERATORS, *packed_fp8.OPERATORS])
    near(vectors(directory))


@pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("gcc") and shutil.which("g++")), reason="needs gcc and g++ on Linux"
)
def test_and_through_the_operators_themselves(directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = StandIn.built(tmp_path)
    ran: list[str] = []

    def through(kind: str) -> type:
        def _run(self: Any, *inputs: Array, **given: Any) -> tuple[Array, ...]:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in self.onnx_node.attribute}
            feeds = {f"i{k}": array for k, array in enumerate(inputs)}
            ran.append(kind)
            if not kind.startswith("Fp8"):
                return (fed(here.session(model(kind, feeds, [], **attributes)), feeds),)
            narrow = TensorProto.FLOAT8E4M3FN
            kinds = {"Fp8Linear": [TensorProto.FLOAT16], "Fp8LinearFp8": [narrow]}
            wanted = kinds.get(kind, [TensorProto.FLOAT16, narrow])
            found = run(here, kind, feeds, wanted, **attributes)
            return tuple(
                array.astype(packed_fp8.E4M3) if kind == narrow else array
                for array, kind in zip(found, wanted, strict=True)
            )

        return type(kind, (OpRun,), {"op_domain": DOMAIN, "_run": _run})

    plain = [op for op in packed_attention.OPERATORS if getattr(op, "op_domain", "") != DOMAIN]
    names = (
        "LinearFloat16",
        "AddNormFloat16",
        "MeanFloat16",
        "Fp8Linear",
        "Fp8LinearFp8",
        "Fp8AddNorm",
        "Fp8EmbedNorm",
    )
    monkeypatch.setattr(packed_attention, "OPERATORS", [*plain, *map(through, names)])
    near(vectors(directory))
    assert len(ran) == 2 + 2 * 8


def test_the_manifest_says_how_near_it_is(directory: Path) -> None:
    fp8, *others = manifest.read(directory).variants
    assert (fp8.target, fp8.precision) == ("cuda-native", "fp8")
    assert [variant.precision for variant in others] == ["fp16", "fp16"]
    assert fp8.notes["fidelity"]["mean_cosine"] >= MEAN
    assert fp8.notes["fidelity"]["min_cosine"] >= WORST
    assert (fp8.notes["fp8_groups"], fp8.notes["float_groups"]) == (6, [])


@pytest.mark.usefixtures("pretended_gpus")
def test_cards_without_fp8_refuse_it_by_their_capability(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = manifest.read(directory)
    assert choose_variant(described, provider="cuda", precision="fp8").precision == "fp8"
    monkeypatch.setattr(cuda_operators, "why_not", lambda precision, _: native_cuda.why_not_on(86, precision))
    assert choose_variant(described, provider="cuda", precision="fp16").target == "cuda-native"
    with pytest.raises(ProviderUnavailableError, match=r"fp8 wants compute capability 8.9, this card has 8.6; take"):
        choose_variant(described, provider="cuda", precision="fp8")


def test_no_other_provider_has_it(directory: Path) -> None:
    with pytest.raises(ModelFormatError, match=r"'fp8' does not run with provider 'cpu'.* fp8 is for provider cuda"):
        choose_variant(manifest.read(directory), provider="cpu", precision="fp8")


def test_what_is_too_far_is_refused_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize.fp8, "MEAN", 0.999999)
    source = save_sentence_transformers(tmp_path / "c", **SIZES)
    options = ExportOptions(output=tmp_path / "m", targets=("cuda",), precisions=("fp8",), verify=False)
    with pytest.raises(ParityError, match="fp8 vectors as simulated on the CPU are too far from fp32"):
        export(str(source), options)
    export(str(source), replace(options, precisions=("fp8", "fp16")))
    described = manifest.read(tmp_path / "m")
    assert [variant.precision for variant in described.variants] == ["fp16", "fp16"]
    assert [(one.target, one.precision) for one in described.refused] == [("cuda", "fp8")]


@pytest.mark.slow
@pytest.mark.skipif(not GPU_WHEEL, reason="FASTEMBED_RT_GPU_WHEEL names no Python with onnxruntime-gpu")
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs gcc on Linux")
def test_onnxruntime_takes_numbers_of_8_bits_on_its_cuda_provider(directory: Path, tmp_path: Path) -> None:
    """With CUDA pretended: sessions load, capture and replay; nothing is computed."""
    import fake_cuda

    code = (
        "import sys, fastembed_rt\n"
        "model = fastembed_rt.EmbeddingModel(sys.argv[1], provider='cuda', precision='fp8')\n"
        "print(model.variant.precision, model.encode(['the cat sleeps ' * n for n in range(1, 60)] * 60).shape)\n"
    )
    said, complained = fake_cuda.run(GPU_WHEEL, code, [directory], tmp_path)
    assert said.splitlines() == ["fp8 (3540, 64)"], complained[-2000:]
