"""Graphs of target cuda-native: the numbers of transformers, in numpy and through the operators on stand-ins; what they
are made of; and how they stand beside those of target cuda in a model directory."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from checkpoints import CONFIGS, random_model, save_sentence_transformers
from cuda_graphs import BOUNDS, SUPPORTED, expected, loaded, rows_of
from cuda_stand_in.sessions import StandIn, fed, model
from packed_attention import evaluate
from pretended import pretended_gpus

from fastembed_rt import EmbeddingModel, manifest
from fastembed_rt.errors import ProviderUnavailableError
from fastembed_rt.native.cuda import DOMAIN
from fastembed_rt.run import batching, calibration, cuda_operators
from fastembed_rt.run.session import choose_variant
from fastembed_rt_export.gate.parity import distances
from fastembed_rt_export.graph import cuda, cuda_native
from fastembed_rt_export.graph.graph import INT64, Graph
from fastembed_rt_export.graph.ops import Ops
from fastembed_rt_export.graph.weight import Norm, Weight
from fastembed_rt_export.graph.writer import write
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tasks.embedding import build

__all__ = ["pretended_gpus"]
Array = npt.NDArray[Any]
FILE = "graph.onnx"
GPU_WHEEL = os.environ.get("FASTEMBED_RT_GPU_WHEEL", "")


def written(
    directory: Path, model_type: str, precision: str, pooling: tuple[str, ...] = ("mean",), **changes: Any
) -> Graph:
    checkpoint = loaded(directory, model_type, pooling, **changes)
    graph = build(checkpoint, cuda_native.target(precision), cuda.OPSET).graph
    write(graph, directory, FILE, name="test", metadata={})
    return graph


def vectors(directory: Path) -> Array:
    names = [entry.name for entry in onnx.load(str(directory / FILE)).graph.input]
    return evaluate(directory / FILE, batching.packed_for_cuda(rows_of(), names))


@pytest.mark.parametrize("model_type", SUPPORTED)
def test_float16_keeps_to_the_bound_of_the_plain_graph(tmp_path: Path, model_type: str) -> None:
    written(tmp_path, model_type, "fp16")
    cosine, _ = distances(vectors(tmp_path), expected(random_model(model_type), ("mean",), rows_of()))
    # Rounding may turn a router's choice, which is another expert's feed-forward: of most texts it turns none.
    least = np.median(cosine) if model_type == "nomic_bert_moe" else cosine.min()
    assert least >= BOUNDS["fp16"]


@pytest.mark.parametrize("model_type", ["bert", "roberta", "mpnet", "modernbert", "qwen3"])
@pytest.mark.parametrize("pooling", ["cls+lasttoken", "max"])
def test_bfloat16_and_other_poolings_too(tmp_path: Path, model_type: str, pooling: str) -> None:
    modes = tuple(pooling.split("+"))
    written(tmp_path, model_type, "bf16", modes)
    cosine, _ = distances(vectors(tmp_path), expected(random_model(model_type), modes, rows_of()))
    assert cosine.min() >= BOUNDS["bf16"]


def test_a_layer_of_bert_is_nine_nodes(tmp_path: Path) -> None:
    graph = written(tmp_path, "bert", "fp16")
    layer = [node.op_type for node in graph.nodes if node.name.startswith("layer.1/")]
    assert layer == [
        *["LinearFloat16"] * 3,
        "PackedMultiHeadAttention",
        *("LinearFloat16", "AddNormFloat16", "LinearFloat16", "LinearFloat16", "AddNormFloat16"),
    ]
    before = [node.op_type for node in graph.nodes if node.name.startswith("embeddings/")]
    assert before == ["EmbedNormFloat16"]
    (mean,) = (node for node in graph.nodes if node.op_type == "MeanFloat16")
    assert list(mean.input)[1:] == ["cumulative_sequence_length"]
    assert {entry.name for entry in graph.inputs} == {
        *("input_ids", "position_ids", "token_offset", "cumulative_sequence_length")
    }


def test_token_types_of_pairs_join_the_embeddings(tmp_path: Path) -> None:
    graph = Graph(cuda.OPSET).typed(cuda.DTYPES["fp16"])

    def weight(name: str, *shape: int) -> Weight:
        return Weight(name, shape, lambda: np.zeros(shape, np.float32))

    target = cuda_native.target("fp16")
    tokens = target.enter(graph, False)
    tokens = replace(tokens, token_type_ids=graph.input("token_type_ids", INT64, ("tokens",)))
    ops = Ops(graph.typed(np.dtype(np.float32)), target, tokens)
    states = ops.add_token_types(ops.embed(weight("words", 9, 16)), weight("types", 2, 16))
    states = ops.add_positions(states, weight("positions", 5, 16))
    ops.norm(states, Norm(weight("gamma", 16), None, 1e-5))
    (node,) = graph.nodes
    names = ["input_ids", "words", "position_ids", "positions", "token_type_ids", "types", "gamma"]
    assert [name.removesuffix(".float16") for name in node.input] == names


def test_the_activation_is_the_tanh_form(tmp_path: Path) -> None:
    """Which is not the checkpoint's: cuBLASLt has no other."""
    assert CONFIGS["bert"].get("hidden_act", "gelu") == "gelu"
    graph = written(tmp_path, "bert", "fp16")
    activations = [a.s for node in graph.nodes for a in node.attribute if a.name == "activation"]
    assert activations == [b"gelu_tanh"] * CONFIGS["bert"]["num_hidden_layers"]


def test_odd_widths_stay_with_onnxruntime(tmp_path: Path) -> None:
    """Vectors of 8 do not cut a width of 20; nothing else is left that would be ours."""
    changes: dict[str, Any] = {"hidden_size": 20, "num_attention_heads": 2, "intermediate_size": 44}
    graph = written(tmp_path, "bert", "fp16", **changes)
    assert not cuda_native.uses_them(graph)


# Through the operators themselves


@pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("gcc") and shutil.which("g++")), reason="needs gcc and g++ on Linux"
)
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_the_operators_take_what_the_graph_gives_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    """A whole graph, each of its nodes of ours run by onnxruntime through the compiled library on stand-ins."""
    import packed_attention
    from onnx.reference.op_run import OpRun

    here = StandIn.built(tmp_path)
    ran: list[str] = []

    def through(kind: str) -> type:
        def _run(self: Any, *inputs: Array, **given: Any) -> tuple[Array]:
            node = self.onnx_node
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            feeds = {f"i{k}": array for k, array in enumerate(inputs)}
            ran.append(kind)
            return (fed(here.session(model(kind, feeds, [], **attributes)), feeds),)

        return type(kind, (OpRun,), {"op_domain": DOMAIN, "_run": _run})

    plain = [op for op in packed_attention.OPERATORS if getattr(op, "op_domain", "") != DOMAIN]
    ours = [through(f"{name}{cuda_native.TYPES[precision]}") for name in ("Linear", "AddNorm", "EmbedNorm", "Mean")]
    written(tmp_path, "bert", precision)
    wanted = vectors(tmp_path)
    monkeypatch.setattr(packed_attention, "OPERATORS", [*plain, *ours])
    found = vectors(tmp_path)
    assert len(ran) == 2 + 8 * CONFIGS["bert"]["num_hidden_layers"]
    cosine, _ = distances(found, expected(random_model("bert"), ("mean",), rows_of()))
    assert cosine.min() >= BOUNDS[precision]
    cosine, _ = distances(found, wanted)
    assert cosine.min() >= BOUNDS[precision]


# In a model directory


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("own")
    source = save_sentence_transformers(root / "c")
    options = ExportOptions(output=root / "m", targets=("cuda",), precisions=("fp16", "bf16", "fp32"), verify=False)
    export(str(source), options)
    return root / "m"


def test_it_lies_beside_the_plain_graph_on_the_same_weights(directory: Path) -> None:
    described = manifest.read(directory)
    assert [(variant.target, variant.precision) for variant in described.variants] == [
        ("cuda-native", "fp16"),
        ("cuda", "fp16"),
        ("cuda-native", "bf16"),
        ("cuda", "bf16"),
        ("cuda", "fp32"),
    ]
    own, plain = described.variants[:2]
    assert [record.file for record in own.files] == ["model.cuda-native.fp16.onnx", "model.cuda.fp16.onnx"]
    sizes = [(directory / variant.graph.file).stat().st_size for variant in (own, plain)]
    assert sizes[0] < sizes[1] / 4


def test_the_plain_graph_runs_where_the_operators_do_not(
    directory: Path, monkeypatch: pytest.MonkeyPatch, pretended_gpus: None
) -> None:
    described = manifest.read(directory)
    assert choose_variant(described, provider="cuda", precision="fp16").target == "cuda-native"
    assert choose_variant(described, provider="cuda", precision="fp32").target == "cuda"
    assert choose_variant(described, provider="cuda", precision="fp16", target="cuda").target == "cuda"
    monkeypatch.setattr(cuda_operators, "why_not", lambda *_: "libcublasLt.so.13 does not load")
    assert choose_variant(described, provider="cuda", precision="fp16").target == "cuda"
    with pytest.raises(
        ProviderUnavailableError, match=r"'cuda-native' do not run here: libcublasLt.so.13 does not load"
    ):
        choose_variant(described, provider="cuda", precision="fp16", target="cuda-native")


@pytest.mark.usefixtures("pretended_gpus")
def test_models_run_it_and_its_vectors_are_those_of_the_plain_graph(directory: Path) -> None:
    texts = ["the cat sleeps", "a dog", "the cat"] * 9
    found = {}
    for target in ("cuda-native", "cuda"):
        with EmbeddingModel(directory, provider="cuda", precision="fp16", target=target) as model:
            assert model.variant.target == target
            found[target] = model.encode(texts)
    cosine, _ = distances(found["cuda-native"], found["cuda"])
    assert cosine.min() >= BOUNDS["fp16"]


def test_choices_are_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    file, nothing = tmp_path / "x.algorithms", cuda_operators.Known()
    assert cuda_operators.read(file) == nothing
    for choices in (b"", b"\n\n\0", bytes(range(256))):
        known = cuda_operators.Known(choices, frozenset({"ab", "cd"}))
        cuda_operators.write(file, known)
        assert cuda_operators.read(file) == known
    content = file.read_bytes()
    for spoilt in (content[:-1], content[1:], b"", b"\n" * 3, content.replace(b"algorithms 3", b"algorithms 2")):
        file.write_bytes(spoilt)
        assert cuda_operators.read(file) == nothing
    assert [entry.name for entry in file.parent.iterdir()] == ["x.algorithms"]


def test_what_a_full_disk_does_not_take_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither half a file nor a name for one, at every load."""

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        cuda_operators.write(tmp_path / "x.algorithms", cuda_operators.Known(b"1"))
    calibration.write(tmp_path / "x.plan.json", calibration.Plan())
    assert list(tmp_path.iterdir()) == []


# The real wheel


@pytest.mark.slow
@pytest.mark.skipif(not GPU_WHEEL, reason="FASTEMBED_RT_GPU_WHEEL names no Python with onnxruntime-gpu")
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs gcc on Linux")
def test_onnxruntime_runs_them_on_its_cuda_provider(directory: Path, tmp_path: Path) -> None:
    """With CUDA pretended: sessions without any node on the CPU load, capture and replay; nothing is computed."""
    import fake_cuda

    code = (
        "import sys, fastembed_rt\n"
        "for precision in ('fp16', 'bf16'):\n"
        "    model = fastembed_rt.EmbeddingModel(sys.argv[1], provider='cuda', precision=precision)\n"
        "    print(model.variant.target, model.encode(['a cat', 'a dog ' * 9]).shape, end=' ')\n"
        "    print(model.encode(['the cat sleeps ' * n for n in range(1, 60)] * 60).shape, flush=True)\n"
    )
    said, complained = fake_cuda.run(GPU_WHEEL, code, [directory], tmp_path)
    assert said.splitlines() == ["cuda-native (2, 24) (3540, 24)"] * 2, complained[-2000:]
    kept = sorted(file.name.partition(".")[2] for file in (tmp_path / "cache" / "cuda").iterdir())
    assert kept == ["algorithms", "lock", "plan.json", "plan.json"]


@pytest.mark.slow
@pytest.mark.skipif(not GPU_WHEEL, reason="FASTEMBED_RT_GPU_WHEEL names no Python with onnxruntime-gpu")
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs gcc on Linux")
def test_every_family_runs_on_the_cuda_provider(tmp_path: Path) -> None:
    """With CUDA pretended, with onnxruntime's attention and ours: no node is left to the CPU, every call is taken."""
    import fake_cuda

    made = 0
    for model_type in SUPPORTED:
        for modes in (("mean",), ("cls", "max", "lasttoken", "weightedmean")):
            checkpoint = loaded(tmp_path / f"{model_type}.{len(modes)}", model_type, modes)
            for precision, own in itertools.product(cuda_native.TYPES, (False, True)):
                graph = build(checkpoint, cuda_native.target(precision, own_attention=own), cuda.OPSET).graph
                write(graph, tmp_path, f"{model_type}.{len(modes)}.{precision}.{own}.onnx", name="test", metadata={})
                made += 1
    code = (
        "import pathlib, sys, numpy, onnxruntime\n"
        "from fastembed_rt.run import batching, cuda, cuda_operators\n"
        "from fastembed_rt.run.providers import PROVIDERS\n"
        "options = onnxruntime.SessionOptions()\n"
        "options.register_custom_ops_library(str(cuda_operators.opened()))\n"
        "options.add_session_config_entry('session.disable_cpu_ep_fallback', '1')\n"
        "settings = {**PROVIDERS['cuda'].options, **cuda.SETTINGS, **cuda.BY_TEXT}\n"
        "plain = onnxruntime.RunOptions()\n"
        "plain.add_run_config_entry('gpu_graph_id', '-1')\n"
        "ran = 0\n"
        "for file in sorted(pathlib.Path(sys.argv[1]).glob('*.onnx')):\n"
        "    try:\n"
        "        session = onnxruntime.InferenceSession(\n"
        "            str(file), options, providers=[('CUDAExecutionProvider', settings)], enable_fallback=False)\n"
        "        names = [entry.name for entry in session.get_inputs()]\n"
        "        feeds = batching.packed_for_cuda([numpy.arange(5, 12), numpy.arange(5, 8)], names)\n"
        "        session.run(None, {name: feeds[name] for name in names}, plain)\n"
        "        ran += 1\n"
        "    except Exception as error: print(file.name, error)\n"
        "print(ran, flush=True)\n"
    )
    said, _ = fake_cuda.run(GPU_WHEEL, code, [tmp_path], tmp_path)
    assert said.splitlines() == [str(made)]


# On a GPU


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_text_has_the_same_bits_alone_and_in_any_batch_on_a_card(directory: Path, precision: str) -> None:
    """Captured and replayed, or in a large batch as it comes."""
    texts = ["the cat sleeps " * words for words in range(1, 9)] * 40
    with EmbeddingModel(directory, provider="cuda", precision=precision, target="cuda-native") as model:
        together = model.encode(texts)
        for number in (0, 3, 7, 100, 319):
            few = model.encode([texts[number], "a dog"])[0]
            alone = [model.encode(texts[number]) for _ in range(2)]
            for found in (few, *alone):
                assert found.tobytes() == together[number].tobytes()


@pytest.mark.gpu
@pytest.mark.parametrize("model_type", ["mpnet", "modernbert", "gte", "nomic_bert", "qwen3", "gemma3_text"])
def test_vectors_of_newer_families_are_those_of_torch_on_a_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model_type: str
) -> None:
    """With onnxruntime's attention and with ours, which has bias, windows and fewer heads of keys."""
    from checkpoints import TEXTS, reference_vectors

    source = save_sentence_transformers(tmp_path / "c", model_type)
    wanted = reference_vectors(source, TEXTS * 20)
    for own in ("", "1"):
        monkeypatch.setenv("FASTEMBED_RT_CUDA_ATTENTION", own)
        output = tmp_path / f"m{own}"
        export(str(source), ExportOptions(output=output, targets=("cuda",), precisions=("fp16",), verify=False))
        with EmbeddingModel(output, provider="cuda", precision="fp16", target="cuda-native") as model:
            cosine, _ = distances(model.encode(TEXTS * 20), wanted)
        assert cosine.min() >= BOUNDS["fp16"]
