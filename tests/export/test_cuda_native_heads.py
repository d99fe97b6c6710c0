"""Target cuda-native behind the encoder and in newer families: word weights, vectors of tokens, classification heads,
gates and rotary positions. Beside sentence-transformers and transformers on torch, in numpy and through the operators.
"""

from __future__ import annotations

import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import packed_attention
import pytest
import torch
from checkpoints import CONFIGS, TEXTS, change_json, random_model, save_tokenizer
from cuda_graphs import BOUNDS, expected, loaded, rows_of
from cuda_stand_in.sessions import StandIn, fed, model
from multi_vectors import FIXED, save_multi_vector
from packed_attention import evaluate
from pretended import pretended_gpus
from sparse_encoders import save_splade

from fastembed_rt import LateInteractionModel
from fastembed_rt.models.reranker import feeds as pair_feeds
from fastembed_rt.native.cuda import DOMAIN
from fastembed_rt.run import batching
from fastembed_rt.text.tokenizer import TextTokenizer
from fastembed_rt_export import masked_lm, tasks
from fastembed_rt_export.gate.parity import distances
from fastembed_rt_export.graph import cuda, cuda_native
from fastembed_rt_export.graph.graph import Graph
from fastembed_rt_export.graph.writer import write
from fastembed_rt_export.pipeline import ExportOptions, export

__all__ = ["pretended_gpus"]
Array = npt.NDArray[Any]
FILE = "graph.onnx"
OURS = (
    "Linear",
    "AddNorm",
    "EmbedNorm",
    "Mean",
    "Norm",
    "SumNorm",
    "Gated",
    "Turn",
    "WordWeights",
    "Unit",
    "Attention",
)


def written(directory: Path, checkpoint: Any, target: Any) -> Graph:
    graph = tasks.build(checkpoint, target, cuda.OPSET).graph
    write(graph, directory, FILE, name="test", metadata={})
    return graph


def inputs_of(graph: Graph) -> list[str]:
    return [entry.name for entry in graph.inputs]


def through(here: StandIn, ran: list[str]) -> list[type]:
    """Our operators, each node through the compiled library on stand-ins."""
    from onnx.reference.op_run import OpRun

    def of(kind: str) -> type:
        def _run(self: Any, *inputs: Array, **given: Any) -> tuple[Array, ...]:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in self.onnx_node.attribute}
            feeds = {f"i{k}": array for k, array in enumerate(inputs)}
            ran.append(kind)
            session = here.session(model(kind, feeds, [], **attributes))
            names = ["sum", "y"] if kind.startswith("SumNorm") else ["y"]
            return tuple(fed(session, feeds, name) for name in names)

        return type(kind, (OpRun,), {"op_domain": DOMAIN, "_run": _run})

    plain = [op for op in packed_attention.OPERATORS if getattr(op, "op_domain", "") != DOMAIN]
    return [*plain, of("Dense"), *(of(f"{name}{kind}") for name in OURS for kind in cuda_native.TYPES.values())]


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    if sys.platform != "linux" or not (shutil.which("gcc") and shutil.which("g++")):
        pytest.skip("needs gcc and g++ on Linux")
    return StandIn.built(tmp_path_factory.mktemp("cuda"))


# Newer families


@pytest.mark.parametrize(
    ("model_type", "layer"),
    [
        ("modernbert", {"LinearFloat16": 7, "SumNormFloat16": 2, "TurnFloat16": 2, "GatedFloat16": 1}),
        ("gte", {"LinearFloat16": 7, "AddNormFloat16": 2, "TurnFloat16": 2, "GatedFloat16": 1}),
        ("nomic_bert", {"LinearFloat16": 7, "AddNormFloat16": 2, "TurnFloat16": 2, "GatedFloat16": 1}),
        ("qwen3", {"LinearFloat16": 7, "SumNormFloat16": 2, "TurnFloat16": 2, "GatedFloat16": 1}),
    ],
)
def test_a_layer_of_a_newer_family_is_a_dozen_nodes_of_ours(
    tmp_path: Path, model_type: str, layer: dict[str, int]
) -> None:
    graph = tasks.build(loaded(tmp_path, model_type), cuda_native.target("fp16"), cuda.OPSET).graph
    nodes = [node for node in graph.nodes if node.name.startswith("layer.1/")]
    assert Counter(node.op_type for node in nodes if node.domain == DOMAIN) == layer
    left = {node.op_type for node in nodes if node.domain != DOMAIN}
    # The residual of a layer before the next one's normalization is that one's; keys are written for all their queries.
    assert left <= {"PackedMultiHeadAttention", "Add", "Reshape", "Expand"}


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize("model_type", ["modernbert", "gte", "qwen3"])
def test_newer_families_run_through_the_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: StandIn, model_type: str, precision: str
) -> None:
    graph = written(tmp_path, loaded(tmp_path, model_type), cuda_native.target(precision))
    ran: list[str] = []
    monkeypatch.setattr(packed_attention, "OPERATORS", through(stand_in, ran))
    found = evaluate(tmp_path / FILE, batching.packed_for_cuda(rows_of(), inputs_of(graph)))
    assert len(ran) == sum(node.domain == DOMAIN for node in graph.nodes)
    cosine, _ = distances(found, expected(random_model(model_type), ("mean",), rows_of()))
    assert cosine.min() >= BOUNDS[precision]


# Word weights


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
@pytest.mark.parametrize(("strategy", "activation"), [("max", "relu"), ("sum", "relu"), ("max", "log1p_relu")])
def test_word_weights_are_those_of_the_sparse_encoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: StandIn, precision: str, strategy: str, activation: str
) -> None:
    """In pieces of the vocabulary, whose last is filled up; through the operators."""
    from sentence_transformers import SparseEncoder

    monkeypatch.setattr(masked_lm, "PIECE", 64)
    source = save_splade(tmp_path / "c", strategy=strategy, activation=activation)
    checkpoint = tasks.load(source, "c")
    graph = written(tmp_path, checkpoint, cuda_native.target(precision))
    kinds = Counter(node.op_type.removesuffix("BFloat16").removesuffix("Float16") for node in graph.nodes)
    assert kinds["WordWeights"] >= 2
    assert not kinds["ReduceMax"] + kinds["Gather"] + kinds["LayerNormalization"]
    encoder = SparseEncoder(str(source), device="cpu", local_files_only=True)
    wanted = encoder.encode(TEXTS, convert_to_sparse_tensor=False).numpy()
    rows = TextTokenizer(source / "tokenizer.json", max_length=checkpoint.max_length)(TEXTS).ids
    ran: list[str] = []
    monkeypatch.setattr(packed_attention, "OPERATORS", through(stand_in, ran))
    found = evaluate(tmp_path / FILE, batching.packed_for_cuda(rows, inputs_of(graph)))
    assert found.shape == wanted.shape
    assert any(kind.startswith("WordWeights") for kind in ran)
    cosine, _ = distances(found, wanted)
    assert cosine.min() >= BOUNDS[precision]


# Pairs


@pytest.mark.parametrize("model_type", ["bert", "distilbert", "roberta"])
def test_logits_of_pairs_are_those_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: StandIn, model_type: str
) -> None:
    import transformers

    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(model_type, **CONFIGS[model_type], num_labels=3)
    classifier = transformers.AutoModelForSequenceClassification.from_config(config).eval()
    classifier.save_pretrained(tmp_path / "pairs")
    save_tokenizer(tmp_path / "pairs", model_type)
    if model_type == "bert":
        change_json(tmp_path / "pairs/tokenizer_config.json", tokenizer_class="BertTokenizerFast")
    graph = written(tmp_path, tasks.load(tmp_path / "pairs", "pairs"), cuda_native.target("fp16"))
    head = Counter(node.op_type for node in graph.nodes if node.name.startswith("head/"))
    assert head["Dense"] == 2
    assert not head["MatMul"]
    ran: list[str] = []
    monkeypatch.setattr(packed_attention, "OPERATORS", through(stand_in, ran))
    first = np.array([4, 1, 3, 1, 9])
    found = evaluate(tmp_path / FILE, pair_feeds(rows_of(), inputs_of(graph), 0, first))
    assert ran.count("Dense") == 2
    for row, boundary, logits in zip(rows_of(), first, found, strict=True):
        given = {"input_ids": torch.tensor(row[None])}
        if model_type == "bert":
            given["token_type_ids"] = torch.tensor((np.arange(len(row)) >= boundary).astype(np.int64))[None]
        with torch.no_grad():
            wanted = classifier(**given).logits[0].numpy()
        np.testing.assert_allclose(logits, wanted, atol=2e-3)


# Vectors of tokens


@pytest.mark.usefixtures("pretended_gpus")
@pytest.mark.parametrize("target", ["cuda-native", "cuda"])
@pytest.mark.parametrize(
    ("model_type", "expansion"),
    [("bert", FIXED), ("mpnet", FIXED), ("bert", {**FIXED, "attend": True}), ("bert", None)],
)
def test_token_vectors_are_those_of_the_multi_vector_encoder(
    tmp_path: Path, target: str, model_type: str, expansion: dict[str, Any] | None
) -> None:
    """Captured and in slots; queries filled up with tokens that the others see, or do not."""
    from sentence_transformers import MultiVectorEncoder

    options = {} if expansion is None else {"query_expansion": expansion}
    source = save_multi_vector(tmp_path / "c", model_type, **options)  # type: ignore[arg-type]
    made = tmp_path / "m"
    export(str(source), ExportOptions(output=made, targets=("cuda",), precisions=("fp16",), verify=False))
    theirs = MultiVectorEncoder(str(source), device="cpu", local_files_only=True)
    with LateInteractionModel(made, provider="cuda", precision="fp16", target=target) as ours:
        assert ours.variant.target == target
        for texts in (TEXTS, TEXTS * 6):
            for found, wanted in (
                (ours.encode_query(texts), theirs.encode_query(texts)),
                (ours.encode_document(texts), theirs.encode_document(texts)),
            ):
                assert [one.shape for one in found] == [tuple(one.shape) for one in wanted]
                rows, others = np.concatenate(found), np.concatenate([one.numpy() for one in wanted])
                assert np.sum(rows * others, axis=1).min() >= BOUNDS["fp16"]


def test_token_vectors_run_through_the_operators(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: StandIn
) -> None:
    source = save_multi_vector(tmp_path / "c", query_expansion=FIXED)
    checkpoint = tasks.load(source, "c")
    graph = written(tmp_path, checkpoint, cuda_native.target("fp16"))
    assert [node.op_type for node in graph.nodes if node.name.startswith("head.")][-4:] == [
        *("LinearFloat16", "LinearFloat16", "Add", "UnitFloat16")
    ]
    feeds = batching.packed_for_cuda(rows_of(), inputs_of(graph))
    feeds["attention_mask"][0, 9:] = 0
    wanted = evaluate(tmp_path / FILE, feeds)
    ran: list[str] = []
    monkeypatch.setattr(packed_attention, "OPERATORS", through(stand_in, ran))
    found = evaluate(tmp_path / FILE, feeds)
    assert ran[-1] == "UnitFloat16"
    np.testing.assert_allclose(found, wanted, atol=4e-3)


# Our own attention


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("bert", {"hidden_size": 64, "num_attention_heads": 2}),
        ("mpnet", {"hidden_size": 64, "num_attention_heads": 2}),
        ("modernbert", {"hidden_size": 64, "num_attention_heads": 2, "local_attention": 8}),
        ("qwen3", {"head_dim": 32}),
    ],
)
def test_graphs_with_our_own_attention_give_the_vectors_of_transformers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stand_in: StandIn, model_type: str, changes: dict[str, Any]
) -> None:
    checkpoint = loaded(tmp_path, model_type, **changes)
    graph = tasks.build(checkpoint, cuda_native.target("bf16", own_attention=True), cuda.OPSET).graph
    graph = graph.ending_in([entry.name for entry in graph.outputs])
    write(graph, tmp_path, FILE, name="test", metadata={})
    assert any(node.op_type == "AttentionBFloat16" for node in graph.nodes)
    assert not any(node.op_type in ("PackedMultiHeadAttention", "Cast") for node in graph.nodes)
    ran: list[str] = []
    monkeypatch.setattr(packed_attention, "OPERATORS", through(stand_in, ran))
    found = evaluate(tmp_path / FILE, batching.packed_for_cuda(rows_of(), inputs_of(graph)))
    assert "AttentionBFloat16" in ran
    cosine, _ = distances(found, expected(random_model(model_type, **changes), ("mean",), rows_of()))
    assert cosine.min() >= BOUNDS["bf16"]


def test_other_sizes_of_heads_stay_with_onnxruntime(tmp_path: Path) -> None:
    graph = tasks.build(loaded(tmp_path, "bert"), cuda_native.target("fp16", own_attention=True), cuda.OPSET).graph
    assert any(node.op_type == "PackedMultiHeadAttention" for node in graph.nodes)
