"""What follows the encoder, fused into its graph: pooling, dense layers, layer norms, cuts, L2 normalization."""

from __future__ import annotations

from .checkpoint.activations import activate
from .checkpoint.modules import Dense, Head, LayerNorm, Normalize, Truncate, WholeTanh, WordMean
from .errors import CheckpointError, UnsupportedCheckpointError
from .graph.graph import FLOAT, Graph, Value
from .graph.ops import Ops
from .graph.portable import norm
from .graph.weight import Linear, Norm, Weight

EPSILON = 1e-12  # torch.nn.functional.normalize
LEAST = 1e-30  # of a mean of weights


def sentence_embedding(
    ops: Ops, states: Value, width: int, pooling: tuple[str, ...], heads: tuple[Head, ...]
) -> tuple[Value, int]:
    """Token states of `width` -> vectors (B, dim) and dim.

    Raises:
        CheckpointError: a head that takes another width than it gets, or lacks its tensors.
    """
    with ops.scope("pooling"):
        pooled = [ops.pool(states, mode) for mode in pooling]
        vectors = pooled[0] if len(pooled) == 1 else ops.graph.node("Concat", *pooled, axis=-1, name="concat")
    return apply(ops.behind_pooling, vectors, width * len(pooling), heads)


def apply(ops: Ops, vectors: Value, dim: int, heads: tuple[Head, ...]) -> tuple[Value, int]:
    """What the heads make of vectors (..., dim), and its width.

    Raises:
        CheckpointError: see `sentence_embedding`.
    """
    for index, head in enumerate(heads):
        with ops.scope(f"head.{index}"):
            vectors, dim = _apply(ops, vectors, dim, head, index)
    return vectors, dim


def _apply(ops: Ops, vectors: Value, dim: int, head: Head, index: int) -> tuple[Value, int]:
    if isinstance(head, Normalize):
        return normalize(ops.graph, vectors), dim
    if isinstance(head, Truncate):
        return truncate(ops.graph, vectors, head.dim), min(dim, head.dim)
    if isinstance(head, WholeTanh):
        return whole_tanh(ops.graph, vectors), dim
    if isinstance(head, WordMean):
        return word_mean(ops.graph, vectors, head.dim), head.dim
    takes = head.inputs if isinstance(head, Dense) else head.dim
    if takes != dim:
        raise CheckpointError(f"module {index + 2}, {head}, takes {takes} channels and gets {dim}")
    if isinstance(head, LayerNorm):
        scale, shift = head.tensors.get("norm.weight", (dim,)), head.tensors.get("norm.bias", (dim,))
        head.tensors.check(())
        layer = Norm(_own(scale, index), _own(shift, index), 1e-5)  # torch.nn.LayerNorm's default
        return norm(ops.graph, vectors, layer), dim
    out = (head.outputs,)
    weight = head.tensors.get("linear.weight", (head.outputs, head.inputs))
    bias = head.tensors.get("linear.bias", out) if head.bias else None
    residual = vectors
    if head.residual and head.inputs != head.outputs:
        projection = head.tensors.get("residual.weight", (head.outputs, head.inputs))
        residual = linear(ops, vectors, Linear(_own(projection, index)))
    head.tensors.check(())
    dense = linear(ops, vectors, Linear(_own(weight, index), _own(bias, index) if bias else None))
    dense = activate(ops, dense, head.activation)
    return ops.graph.node("Add", dense, residual, name="residual") if head.residual else dense, head.outputs


def _own(weight: Weight, index: int) -> Weight:
    """Modules have files of their own, so their tensors share names."""
    return Weight(f"head.{index}.{weight.name}", weight.shape, weight.load)


def of_tokens(ops: Ops, states: Value, dim: int, heads: tuple[Head, ...]) -> tuple[Value, int]:
    """`apply` for token states of a narrower type than float32, such as those on a GPU: their vectors, and the width.

    Raises:
        CheckpointError: see `sentence_embedding`.
        UnsupportedCheckpointError: heads that are no plain layers.
    """
    for index, head in enumerate(heads):
        with ops.scope(f"head.{index}"):
            if isinstance(head, Normalize):
                return _units(ops, states, dim, heads[index + 1 :]), dim
            if not isinstance(head, Dense) or head.activation != "Identity":
                raise UnsupportedCheckpointError(f"target {ops.target.name} has no {head} of tokens; export it for cpu")
            if head.inputs != dim:
                raise CheckpointError(f"module {index + 2}, {head}, takes {head.inputs} channels and gets {dim}")
            weight = _own(head.tensors.get("linear.weight", (head.outputs, head.inputs)), index)
            bias = _own(head.tensors.get("linear.bias", (head.outputs,)), index) if head.bias else None
            made = ops.linear(states, Linear(weight, bias))
            if head.residual:
                if head.inputs != head.outputs:
                    projection = head.tensors.get("residual.weight", (head.outputs, head.inputs))
                    states = ops.linear(states, Linear(_own(projection, index)))
                made = ops.add(made, states)
            head.tensors.check(())
            states, dim = made, head.outputs
    return ops.graph.node("Cast", states, to=FLOAT, name="float"), dim


def _units(ops: Ops, states: Value, dim: int, rest: tuple[Head, ...]) -> Value:
    if rest:
        raise UnsupportedCheckpointError(f"target {ops.target.name} has nothing behind a normalization of tokens")
    made = None if ops.target.unit is None else ops.target.unit(ops.token_graph, states, width=dim)
    if made is not None:
        return made
    return normalize(ops.graph, ops.graph.node("Cast", states, to=FLOAT, name="float"))


def linear(ops: Ops, vectors: Value, layer: Linear) -> Value:
    """A layer behind the pooling, in float32."""
    graph = ops.graph
    if ops.target.dense is not None:
        return ops.target.dense(graph, vectors, layer)
    product = graph.node("MatMul", vectors, graph.weight(layer.weight.transposed), name="linear")
    return graph.node("Add", product, graph.weight(layer.bias), name="bias") if layer.bias else product


def truncate(graph: Graph, vectors: Value, dim: int) -> Value:
    """First `dim` numbers of each row: (B, H) -> (B, min(H, dim))."""
    ends = (graph.constant([0]), graph.constant([dim]), graph.constant([1]))  # start, end, axis
    return graph.node("Slice", vectors, *ends, name="truncated")


def word_mean(graph: Graph, vectors: Value, dim: int) -> Value:
    """(B, dim + 1) -> (B, dim): all numbers but the last, by the last, a mean of weights; zeros where that is zero."""
    ends = (graph.constant([dim]), graph.constant([dim + 1]), graph.constant([1]))  # start, end, axis
    weight = graph.node("Max", graph.node("Slice", vectors, *ends, name="weight"), graph.constant(LEAST), name="weight")
    return graph.node("Div", truncate(graph, vectors, dim), weight, name="by_weight")


def whole_tanh(graph: Graph, vectors: Value) -> Value:
    """round(127 tanh(x)), halves to the even number; as large as eight bits hold."""
    scaled = graph.node("Mul", graph.node("Tanh", vectors, name="tanh"), graph.constant(127.0), name="scaled")
    return graph.node("Round", scaled, name="whole")


def normalize(graph: Graph, vectors: Value) -> Value:
    """Divide each row by its L2 norm; a zero row stays zero."""
    if graph.opset >= 18:
        length = graph.node("ReduceL2", vectors, graph.constant([-1]), keepdims=1, name="length")
    else:
        length = graph.node("ReduceL2", vectors, axes=[-1], keepdims=1, name="length")
    length = graph.node("Max", length, graph.constant(EPSILON), name="length")
    return graph.node("Div", vectors, length, name="normalized")
