"""Graphs of the cuda target: valid, wholly for the device, and the numbers of transformers.

Their packed attention has no CPU kernel, so numpy computes them (packed_attention.py).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from checkpoints import (
    CONFIGS,
    FP32_FILES,
    change_json,
    change_tensors,
    random_model,
    save_sentence_transformers,
    save_transformers,
)
from cuda_graphs import BOUNDS, REFUSED, SUPPORTED, expected, loaded, rows_of
from packed_attention import evaluate
from sentence_transformers.sentence_transformer.modules import Pooling
from tolerances import REORDERED, close

from fastembed_rt import manifest
from fastembed_rt.models.reranker import feeds as pair_feeds
from fastembed_rt.run import batching
from fastembed_rt_export import tasks
from fastembed_rt_export.checkpoint import read as checkpoints
from fastembed_rt_export.checkpoint.read import POOLING_MODES, Checkpoint
from fastembed_rt_export.errors import CheckpointError, InvalidInputError, UnsupportedCheckpointError
from fastembed_rt_export.gate.parity import distances
from fastembed_rt_export.graph import cuda
from fastembed_rt_export.graph.graph import Graph
from fastembed_rt_export.graph.layers import Heads, ScoreBias
from fastembed_rt_export.graph.writer import write
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tasks.embedding import build

GPU_WHEEL = os.environ.get("FASTEMBED_RT_GPU_WHEEL", "")
FILE = "graph.onnx"
Array = npt.NDArray[Any]


def written(directory: Path, checkpoint: Checkpoint, precision: str) -> Graph:
    graph = build(checkpoint, cuda.target(precision), cuda.OPSET).graph
    write(graph, directory, FILE, name="test", metadata={})
    return graph


def vectors(directory: Path, rows: list[Array], **options: int) -> Array:
    names = [entry.name for entry in onnx.load(str(directory / FILE)).graph.input]
    return evaluate(directory / FILE, batching.packed_for_cuda(rows, names, **options))


@pytest.mark.parametrize("model_type", SUPPORTED)
@pytest.mark.parametrize("pooling", ["mean", "cls+lasttoken"])
def test_float32_gives_the_vectors_of_transformers(tmp_path: Path, model_type: str, pooling: str) -> None:
    modes = tuple(pooling.split("+"))
    written(tmp_path, loaded(tmp_path, model_type, modes), "fp32")
    wanted = expected(random_model(model_type), modes, rows_of())
    close(vectors(tmp_path, rows_of()), wanted)


@pytest.mark.parametrize("pooling", POOLING_MODES)
def test_every_pooling_is_that_of_sentence_transformers(tmp_path: Path, pooling: str) -> None:
    written(tmp_path, loaded(tmp_path, "bert", (pooling,)), "fp32")
    wanted = expected(random_model("bert"), (pooling,), rows_of())
    close(vectors(tmp_path, rows_of()), wanted)


@pytest.mark.parametrize("model_type", SUPPORTED)
@pytest.mark.parametrize("precision", list(BOUNDS))
def test_half_precision_keeps_to_its_bound(tmp_path: Path, model_type: str, precision: str) -> None:
    graph = written(tmp_path, loaded(tmp_path, model_type), precision)
    assert {weight.dtype for weight in graph.weights.values()} == {cuda.DTYPES[precision]}
    found = vectors(tmp_path, rows_of())
    assert found.dtype == np.float32
    cosine, _ = distances(found, expected(random_model(model_type), ("mean",), rows_of()))
    # Rounding may turn a router's choice, which is another expert's feed-forward: of most texts it turns none.
    least = np.median(cosine) if model_type == "nomic_bert_moe" else cosine.min()
    assert least >= BOUNDS[precision]


@pytest.mark.parametrize("model_type", REFUSED)
def test_what_the_target_has_no_operator_for_is_refused_by_name(tmp_path: Path, model_type: str) -> None:
    source = save_sentence_transformers(tmp_path / "c", model_type)
    options = ExportOptions(output=tmp_path / "m", targets=("cuda",), verify=False)
    with pytest.raises(UnsupportedCheckpointError, match=r"target cuda has no .* for cpu or tensorrt"):
        export(str(source), options)
    assert not (tmp_path / "m").exists()


def test_grouped_heads_are_written_for_every_head_they_serve() -> None:
    """The operation alone, beside torch, with more than one query head to a key's."""
    random = np.random.default_rng(0)
    query, key, value = (random.standard_normal((9, width)).astype(np.float32) for width in (48, 16, 16))
    graph = Graph(cuda.OPSET)
    tokens = cuda.target("fp32").enter(graph, False)
    for name, width in (("q", 48), ("k", 16), ("v", 16)):
        graph.input(name, 1, ("tokens", width))
    heads = Heads(queries=6, keys=2)
    mixed = cuda.attention(graph, tokens, query="q", key="k", value="v", heads=heads, bias=ScoreBias())
    graph.output(mixed, "mixed", 1, ("tokens", 48))
    model = onnx.helper.make_model(
        onnx.GraphProto(
            name="test",
            node=graph.nodes,
            input=graph.inputs,
            output=graph.outputs,
            initializer=list(graph.constants.values()),
        ),
        opset_imports=[onnx.helper.make_opsetid("", cuda.OPSET), onnx.helper.make_opsetid("com.microsoft", 1)],
    )
    from onnx.reference import ReferenceEvaluator
    from packed_attention import OPERATORS

    made = batching.packed_for_cuda([np.arange(9)], [])
    feeds = {"q": query, "k": key, "v": value, **made}
    evaluator = ReferenceEvaluator(model, new_ops=OPERATORS)
    (found,) = evaluator.run(None, {name: feeds[name] for name in evaluator.input_names})
    q, k, v = (torch.tensor(part).reshape(9, -1, 8).transpose(0, 1) for part in (query, key, value))
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, scale=1.0, enable_gqa=True)
    close(found, wanted.transpose(0, 1).reshape(9, -1).numpy())


@pytest.mark.parametrize("model_type", ["bert", "roberta", "mpnet", "modernbert"])
def test_tokens_that_fill_up_a_captured_shape_belong_to_no_text(tmp_path: Path, model_type: str) -> None:
    written(tmp_path, loaded(tmp_path, model_type), "fp32")
    filled = vectors(tmp_path, rows_of(), tokens=80, longest=32)
    close(filled, vectors(tmp_path, rows_of()), REORDERED)


@pytest.mark.parametrize("model_type", ["bert", "mpnet"])
def test_a_text_alone_has_the_vector_it_has_among_others(tmp_path: Path, model_type: str) -> None:
    written(tmp_path, loaded(tmp_path, model_type), "fp32")
    together = vectors(tmp_path, rows_of())
    for row, vector in zip(rows_of(), together, strict=True):
        close(vectors(tmp_path, [row])[0], vector, REORDERED)


def test_a_pad_token_written_in_a_text_has_the_position_that_roberta_gives_it(tmp_path: Path) -> None:
    written(tmp_path, loaded(tmp_path, "roberta"), "fp32")
    rows = [np.array([0, 7, 1, 9, 2]), np.array([0, 1, 1, 2]), np.array([0, 8, 2])]
    close(vectors(tmp_path, rows), expected(random_model("roberta"), ("mean",), rows))


@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken"])
def test_prompts_are_left_out_of_the_pooling(tmp_path: Path, pooling: str) -> None:
    source = save_sentence_transformers(tmp_path / "c", pooling=pooling, include_prompt=False, normalize=False)
    checkpoint = checkpoints.load(source, "c")
    graph = build(checkpoint, cuda.target("fp32"), cuda.OPSET).graph
    write(graph, tmp_path, FILE, name="test", metadata={})
    left_out = np.array([3, 0, 7, 1, 5])  # all of the third text
    names = [entry.name for entry in graph.inputs]
    found = evaluate(tmp_path / FILE, batching.feeds(rows_of(), names, 0, left_out))
    model = random_model("bert")
    pool = Pooling(24, pooling_mode=pooling, include_prompt=False)
    for row, prompt, vector in zip(rows_of(), left_out, found, strict=True):
        mask = torch.ones(1, len(row), dtype=torch.long)
        with torch.no_grad():
            states = model(input_ids=torch.tensor(row[None]), attention_mask=mask).last_hidden_state
        features = {"token_embeddings": states, "attention_mask": mask, "prompt_length": int(prompt)}
        close(vector, pool(features)["sentence_embedding"][0].numpy())


def test_pairs_are_told_apart_by_token_types(tmp_path: Path) -> None:
    import transformers
    from checkpoints import save_tokenizer

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model("bert", **CONFIGS["bert"], num_labels=1)
    model = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    model.save_pretrained(tmp_path / "pairs")
    save_tokenizer(tmp_path / "pairs", "bert")
    change_json(tmp_path / "pairs/tokenizer_config.json", tokenizer_class="BertTokenizerFast")
    checkpoint = tasks.load(tmp_path / "pairs", "pairs")
    graph = tasks.build(checkpoint, cuda.target("fp32"), cuda.OPSET).graph
    write(graph, tmp_path, FILE, name="test", metadata={})
    names = [entry.name for entry in graph.inputs]
    assert "token_type_ids" in names
    first = np.array([4, 1, 3, 1, 9])
    found = evaluate(tmp_path / FILE, pair_feeds(rows_of(), names, 0, first))
    for row, boundary, logits in zip(rows_of(), first, found, strict=True):
        types = torch.tensor((np.arange(len(row)) >= boundary).astype(np.int64))[None]
        with torch.no_grad():
            wanted = model(input_ids=torch.tensor(row[None]), token_type_ids=types).logits[0].numpy()
        close(logits, wanted)


# What the graphs are made of


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "mpnet"])
def test_normalizations_add_the_biases_of_the_products_before_them(tmp_path: Path, model_type: str) -> None:
    """onnxruntime's Gemm copies its bias over the whole output first, a fifth of a batch's time."""
    graph = written(tmp_path, loaded(tmp_path, model_type), "fp16")
    made_by = {output: node for node in graph.nodes for output in node.output}
    norms = [node for node in graph.nodes if node.op_type == "SkipLayerNormalization"]
    assert len(norms) == 2 * CONFIGS[model_type].get("num_hidden_layers", CONFIGS[model_type].get("n_layers", 0))
    for node in norms:
        product = made_by[node.input[1]]
        assert product.op_type == "Gemm"
        assert len(product.input) == 2
        assert len(node.input) == 5
        assert graph.weights[node.input[4]].shape == (24,)


@pytest.mark.parametrize("given", [("gamma", "beta", "bias"), ("gamma", "", "bias"), ("gamma", "beta"), ("gamma",)])
def test_the_reference_of_the_normalization_is_what_onnxruntime_computes(given: tuple[str, ...]) -> None:
    from onnx.reference import ReferenceEvaluator
    from packed_attention import OPERATORS

    random = np.random.default_rng(0)
    feeds = {name: random.normal(0, 2, (5, 24)).astype(np.float32) for name in ("left", "right")}
    feeds |= {name: random.normal(1, 1, 24).astype(np.float32) for name in given if name}
    node = onnx.helper.make_node(
        "SkipLayerNormalization", ["left", "right", *given], ["y"], domain="com.microsoft", epsilon=1e-5
    )
    entries = [onnx.helper.make_tensor_value_info(name, 1, array.shape) for name, array in feeds.items()]
    body = onnx.helper.make_graph([node], "g", entries, [onnx.helper.make_tensor_value_info("y", 1, None)])
    opsets = [onnx.helper.make_opsetid("", cuda.OPSET), onnx.helper.make_opsetid("com.microsoft", 1)]
    model = onnx.helper.make_model(body, opset_imports=opsets, ir_version=11)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (wanted,) = session.run(["y"], feeds)
    (found,) = ReferenceEvaluator(model, new_ops=OPERATORS).run(None, feeds)
    close(found, wanted, REORDERED)


@pytest.mark.parametrize("model_type", ["bert", "mpnet", "modernbert"])
@pytest.mark.parametrize("precision", list(cuda.DTYPES))
def test_onnxruntime_reads_the_graph_and_lacks_nothing_but_kernels_on_the_cpu(
    tmp_path: Path, model_type: str, precision: str
) -> None:
    written(tmp_path, loaded(tmp_path, model_type, ("mean", "cls", "max")), precision)
    with pytest.raises(Exception, match=r"find (kernel|an implementation) for") as caught:  # types and shapes passed
        onnxruntime.InferenceSession(str(tmp_path / FILE), providers=["CPUExecutionProvider"])
    assert type(caught.value).__name__ == "NotImplemented"


def test_half_precision_halves_the_file(tmp_path: Path) -> None:
    sizes = {}
    for precision in cuda.DTYPES:
        written(tmp_path, loaded(tmp_path / precision, "bert", vocab_size=3000), precision)
        sizes[precision] = (tmp_path / FILE).stat().st_size
    assert sizes["fp16"] < 0.6 * sizes["fp32"]
    assert sizes["bf16"] < 0.6 * sizes["fp32"]


def test_weights_that_float16_does_not_hold_are_refused_with_the_tensors_name(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "bert")
    name = "encoder.layer.1.output.dense.weight"

    def spoil(tensors: dict[str, Array]) -> None:
        tensors[name] = tensors[name].copy()
        tensors[name][0, 0] = 1e5

    change_tensors(directory, spoil)
    checkpoint = checkpoints.load(directory, "bert")
    with pytest.raises(CheckpointError, match=r"encoder.layer.1.output.dense.weight.* has values to 1e\+05.* use bf16"):
        written(tmp_path, checkpoint, "fp16")
    written(tmp_path, checkpoint, "bf16")


# In a model directory


def test_the_command_makes_graphs_for_both_and_says_what_was_not_compared(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "c")
    options = ExportOptions(output=tmp_path / "m", targets=("cpu", "cuda", "tensorrt"), precisions=("fp32", "fp16"))
    made = export(str(source), options).manifest
    assert [variant.graph.file for variant in made.variants] == [
        *FP32_FILES,
        "model.cuda.fp32.onnx",
        "model.tensorrt.fp32.onnx",
        "model.cuda-native.fp16.onnx",
        "model.cuda.fp16.onnx",
        "model.tensorrt.fp16.onnx",
    ]
    assert made.parity["status"] == "passed"
    assert set(made.parity["variants"]) == set(FP32_FILES)
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        assert set(made.parity["not_compared"]) == {v.graph.file for v in made.variants[len(FP32_FILES) :]}
        assert "not compared (provider 'cuda': not in this" in (tmp_path / "m/README.md").read_text()
    assert manifest.read(tmp_path / "m") == made


def test_a_directory_for_gpus_alone_is_fp16_and_not_verified_where_there_is_none(tmp_path: Path) -> None:
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has GPUs")
    source = save_sentence_transformers(tmp_path / "c")
    made = export(str(source), ExportOptions(output=tmp_path / "m", targets=("cuda",))).manifest
    assert [variant.graph.file for variant in made.variants] == [
        "model.cuda-native.fp16.onnx",
        "model.cuda.fp16.onnx",
    ]
    assert made.parity["status"] == "not verified"
    assert made.parity["reason"].startswith("provider 'cuda': not in this onnxruntime")
    assert 'EmbeddingModel("path/to/this/directory", provider="cuda")' in (tmp_path / "m/README.md").read_text()


@pytest.mark.parametrize(
    ("targets", "precisions", "said"),
    [
        (("gpu",), None, "target 'gpu' is not possible; choose from cpu, cuda, tensorrt"),
        (("cuda", "cuda"), None, "each once"),
        (("cuda",), ("int8",), "precision 'int8' is not possible for target cuda; choose from fp16, bf16, fp32, fp8"),
        (("cpu",), ("fp16",), "choose from fp32, bf16, int8"),
        (("cpu", "tensorrt"), ("int8",), "target 'tensorrt' has fp16, fp32, not int8"),
    ],
)
def test_a_target_or_precision_that_is_not_made_names_those_that_are(
    tmp_path: Path, targets: tuple[str, ...], precisions: tuple[str, ...] | None, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=said):
        export("nothing", ExportOptions(output=tmp_path / "m", targets=targets, precisions=precisions))


# The real wheel


@pytest.mark.slow
@pytest.mark.skipif(not GPU_WHEEL, reason="FASTEMBED_RT_GPU_WHEEL names no Python with onnxruntime-gpu")
@pytest.mark.skipif(sys.platform != "linux" or shutil.which("gcc") is None, reason="needs gcc on Linux")
def test_every_node_has_a_cuda_kernel_which_not_every_portable_graph_can_say(tmp_path: Path) -> None:
    """With CUDA pretended: sessions that may not fall back to the CPU are created for every graph."""
    import fake_cuda

    from fastembed_rt_export.graph.portable import PORTABLE

    libraries = tmp_path / "lib"
    libraries.mkdir()
    fake_cuda.build(GPU_WHEEL, libraries)
    for model_type in SUPPORTED:
        for precision in cuda.DTYPES:
            for modes in (("mean",), ("cls", "max", "lasttoken", "weightedmean")):
                checkpoint = loaded(tmp_path / f"{precision}.{len(modes)}", model_type, modes)
                graph = build(checkpoint, cuda.target(precision), cuda.OPSET).graph
                write(graph, tmp_path, f"{model_type}.{precision}.{len(modes)}.onnx", name="test", metadata={})
    graph = build(loaded(tmp_path, "bert", ("cls",)), PORTABLE, 17).graph
    write(graph, tmp_path, "portable.onnx", name="test", metadata={})
    code = (
        "import pathlib, sys, onnxruntime\n"
        "from fastembed_rt.run.providers import PROVIDERS\n"
        "for file in sorted(pathlib.Path(sys.argv[1]).glob('*.onnx')):\n"
        "    options = onnxruntime.SessionOptions()\n"
        "    options.add_session_config_entry('session.disable_cpu_ep_fallback', '1')\n"
        "    providers = [('CUDAExecutionProvider', dict(PROVIDERS['cuda'].options))]\n"
        "    try: onnxruntime.InferenceSession(str(file), options, providers=providers, enable_fallback=False)\n"
        "    except Exception as error: print(file.name, error)\n"
        "print('done', flush=True)"
    )
    env = {**os.environ, "LD_LIBRARY_PATH": str(libraries), "PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(
        [GPU_WHEEL, "-c", code, str(tmp_path)], env=env, capture_output=True, text=True, timeout=300, check=False
    )
    *failed, last = done.stdout.splitlines()
    assert last == "done", done.stderr[-2000:]
    assert [line.split()[0] for line in failed] == ["portable.onnx"]
