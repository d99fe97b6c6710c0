"""The cuda target with our own operators (fastembed_rt/native/src/cuda): products that end in their bias and GELU.

The same weights as the stock cuda graph, whose file they are read from, and the same packed tokens; attention is
onnxruntime's. A product is one kernel with its bias and activation, its algorithm the same for any number of rows;
embeddings with their sum and normalization are one, as are a residual, a bias and a normalization, and the mean. A
row's bits do not depend on its batch.

GELU is the tanh form whatever the checkpoint says: the one that cuBLASLt has. One operator differs by up to 3e-4 from
the exact form, vectors of all-MiniLM-L6-v2 by a cosine of 3e-6 at most.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from onnx import NodeProto

from fastembed_rt.native.cuda import DOMAIN, TARGET
from fastembed_rt.run import batching

from . import cpu, cuda, distances
from .graph import Graph, Value
from .layers import Angles, Heads, ScoreBias
from .target import Target, Tokens
from .weight import Linear, Norm, Weight

HEAD_SIZES = (32, 64, 128)  # of our attention
LANES = 8  # numbers that go at once; widths are multiples of it
WIDEST = 8192  # row of a normalization or mean
TYPES = {"fp16": "Float16", "bf16": "BFloat16"}
# What gates open by, under the names of transformers' ACT2FN.
GATES = {
    **dict.fromkeys(("gelu", "gelu_python"), "gelu"),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_accurate"), "gelu_tanh"),
    **dict.fromkeys(("silu", "swish"), "silu"),
    **{name: name for name in ("relu", "sigmoid", "tanh")},
}
ACTIVATIONS = {**dict.fromkeys(cuda.FUSED, "gelu_tanh"), "relu": "relu"}


def uses_them(graph: Graph) -> bool:
    """Whether a graph has any of the operators: one of odd widths has none, and needs no other than target cuda's."""
    return any(node.domain == DOMAIN for node in graph.nodes)


def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
    """A product with its bias each."""
    return [_linear(graph, states, layer, "") for layer in layers]


def activated(graph: Graph, states: Value, layer: Linear, *, activation: str) -> Value | None:
    """A product, its bias and its activation; None for activations that no product ends in."""
    known = ACTIVATIONS.get(activation)
    return _linear(graph, states, layer, known) if known and _fits(graph, layer) else None


def gated(graph: Graph, gate: Value, up: Value, *, width: int, activation: str) -> Value | None:
    """The gate's activation and the product with what it opens for, in one pass."""
    known = GATES.get(activation)
    if known is None or width % LANES or graph.float_type == np.float32:
        return None
    return _node(graph, "Gated", [gate, up], "gated", width=width, activation=known)


def angles(graph: Graph, tokens: Tokens, *, cosine: Weight, sine: Weight) -> Angles:
    """The tables as they are, in float32: each token takes its row while it is turned."""
    if cosine.shape[1] * 2 % LANES:
        return cuda.angles(graph, tokens, cosine=cosine, sine=sine)
    whole = graph.typed(np.dtype(np.float32))
    return Angles(cosine=whole.weight(cosine), sine=whole.weight(sine))


def rotate(graph: Graph, states: Value, *, angles: Angles, heads: int) -> Value:
    """Each head normalized, where that is what made the states, and turned by its token's place."""
    table = graph.weights.get(angles.cosine)
    if table is None:
        return cpu.rotate(graph, states, angles=angles, heads=heads)
    options: dict[str, Any] = {"heads": heads, "size": 2 * table.shape[1]}
    parameters = []
    *_, split, normed, joined = graph.nodes
    kinds = [node.op_type for node in (split, normed, joined)]
    gamma = graph.weights.get(normed.input[1]) if len(normed.input) > 1 else None
    made = kinds == ["Reshape", "RMSNormalization", "Reshape"] and joined.output[0] == states
    if made and gamma is not None and gamma.shape == (options["size"],):
        del graph.nodes[-3:]
        states, parameters = split.input[0], [normed.input[1]]
        (epsilon,) = (entry.f for entry in normed.attribute if entry.name == "epsilon")
        options |= {"norm": 1, "epsilon": epsilon}
    inputs = [states, cuda.needed(graph, "position_ids"), angles.cosine, angles.sine, *parameters]
    return _node(graph, "Turn", inputs, "turned", **options)


def head_norm(graph: Graph, states: Value, layer: Norm, *, heads: int) -> Value:
    """Of stock operators, which `rotate` takes back."""
    split = graph.node("Reshape", states, graph.constant([0, heads, -1]), name="heads")
    return graph.node("Reshape", cuda.norm(graph, split, layer), graph.constant([0, -1]), name="normed")


def unit(graph: Graph, states: Value, *, width: int) -> Value | None:
    """Vectors of tokens, normalized in float32; None for a width that is not ours."""
    if width % LANES or width > WIDEST:
        return None
    return _node(graph, "Unit", [states], "unit", width=width)


def word_weights(graph: Graph, logits: Value, *, width: int, times: int, added: bool) -> Value:
    """Logits of packed tokens, read once."""
    inputs = [logits, cuda.needed(graph, cuda.BOUNDARIES)]
    return _node(graph, "WordWeights", inputs, "weights", width=width, times=times, added=int(added))


def dense(graph: Graph, vectors: Value, layer: Linear) -> Value:
    """A layer behind the pooling, each row summed in one order whatever the batch."""
    inputs = [vectors, graph.weight(layer.weight.transposed)]
    if layer.bias is not None:
        inputs.append(graph.weight(layer.bias))
    return graph.node(
        *("Dense", *inputs),
        domain=DOMAIN,
        name="linear",
        in_features=layer.in_features,
        out_features=layer.out_features,
        bias=int(layer.bias is not None),
    )


def add_norm(graph: Graph, left: Value, right: Value, layer: Norm, *, bias: Weight | None = None) -> Value:
    """Sum and normalization in one pass."""
    if not _normalized(graph, layer):
        return cuda.add_norm(graph, left, right, layer, bias=bias)
    inputs = [left, right, *_parameters(graph, layer), *([] if bias is None else [graph.weight(bias)])]
    return _node(graph, "AddNorm", inputs, "norm", **_attributes(layer), bias=int(bias is not None))


def norm(graph: Graph, states: Value, layer: Norm) -> Value:
    """A normalization; with the rows of tables, or the two states, whose sum it normalizes, where it does."""
    if not _normalized(graph, layer):
        return cuda.norm(graph, states, layer)
    rows = _taken_rows(graph, states)
    if rows is None:
        return _norm_of_sum(graph, states, layer) or _node(
            graph, "Norm", [states, *_parameters(graph, layer)], "norm", **_attributes(layer)
        )
    (table, ids), *others = sorted(rows, key=lambda row: row[1] != "input_ids")
    kinds = [index == "token_type_ids" for _, index in others]
    inputs = [ids, table, *(value for row in sorted(others, key=_of_types) for value in row[::-1])]
    return _node(
        *(graph, "EmbedNorm", [*inputs, *_parameters(graph, layer)], "norm"),
        **_attributes(layer),
        positions=kinds.count(False),
        types=kinds.count(True),
    )


def attention(
    graph: Graph, tokens: Tokens, *, query: Value, key: Value, value: Value, heads: Heads, bias: ScoreBias
) -> Value:
    """Our own on packed tokens, for heads of HEAD_SIZES numbers; onnxruntime's for others, and where tokens hide."""
    made_by = {output: node for node in graph.nodes for output in node.output}
    sizes = {entry.name: entry.i for entry in made_by[query].attribute} if query in made_by else {}
    size = sizes.get("size", sizes.get("out_features", 0) // heads.queries)
    if tokens.unseen or size not in HEAD_SIZES or bias.cap is not None:
        return cuda.attention(graph, tokens, query=query, key=key, value=value, heads=heads, bias=bias)
    inputs = [query, key, value, cuda.needed(graph, cuda.BOUNDARIES), cuda.needed(graph, "places")]
    options: dict[str, Any] = {"heads": heads.queries, "key_heads": heads.keys, "size": size}
    if bias.by_distance is not None:
        # The runtime rounds the places up; no text reaches the last of them.
        inputs.append(graph.weight(distances.reaching(bias.by_distance, batching.LANES)))
        options["bias"] = 1
    reach = {"before": bias.before, "after": bias.after}
    options |= {name: tokens_seen for name, tokens_seen in reach.items() if tokens_seen is not None}
    return _node(graph, "Attention", inputs, "attention", **options)


def target(precision: str, *, own_attention: bool = False) -> Target:
    """The target in fp16 or bf16; `own_attention`: ours instead of onnxruntime's."""
    base = cuda.target(precision)
    if own_attention:
        base = replace(base, attention=attention)

    def pool_mean(graph: Graph, tokens: Tokens, states: Value) -> Value:
        assert isinstance(tokens, cuda.CudaTokens)
        width = _width(graph, states)
        if tokens.own_pooling_mask is not None or width is None:
            return base.pools["mean"](graph, tokens, states)
        return _node(graph, "Mean", [states, cuda.needed(graph, cuda.BOUNDARIES)], "mean", width=width)

    return replace(
        base,
        name=TARGET,
        linears=linears,
        norm=norm,
        add_norm=add_norm,
        activated=activated,
        gated=gated,
        angles=angles,
        rotate=rotate,
        head_norm=head_norm,
        unit=unit,
        word_weights=word_weights,
        dense=dense,
        project=lambda graph, _, states, layers: linears(graph, states, layers),
        collect=lambda graph, _, mixed, layer: linears(graph, mixed, [layer])[0],
        pools={**base.pools, "mean": pool_mean},
    )


def _node(graph: Graph, op: str, inputs: list[Value], name: str, *, count: int = 1, **attributes: Any) -> Value:
    """The last output of a node of ours."""
    (suffix,) = (TYPES[key] for key, dtype in cuda.DTYPES.items() if dtype == graph.float_type)
    return graph.node_outputs(f"{op}{suffix}", *inputs, count=count, domain=DOMAIN, name=name, **attributes)[-1]


def _fits(graph: Graph, layer: Linear) -> bool:
    """Behind a pooling everything is float32, which is not ours."""
    return graph.float_type != np.float32 and layer.in_features % LANES == 0 and layer.out_features % LANES == 0


def _normalized(graph: Graph, layer: Norm) -> bool:
    width = layer.weight.shape[0]
    return graph.float_type != np.float32 and width % LANES == 0 and width <= WIDEST


def _linear(graph: Graph, states: Value, layer: Linear, activation: str) -> Value:
    if not _fits(graph, layer):
        return cpu.linears(graph, states, [layer])[0]
    inputs = [states, graph.weight(layer.weight.transposed)]
    if layer.bias is not None:
        inputs.append(graph.weight(layer.bias))
    attributes: dict[str, Any] = {"in_features": layer.in_features, "out_features": layer.out_features}
    attributes["bias"] = int(layer.bias is not None)
    if activation:
        attributes["activation"] = activation
    return _node(graph, "Linear", inputs, "linear", **attributes)


def _parameters(graph: Graph, layer: Norm) -> list[Value]:
    return [graph.weight(weight) for weight in (layer.weight, layer.bias) if weight is not None]


def _attributes(layer: Norm) -> dict[str, Any]:
    width = layer.weight.shape[0]
    return {"width": width, "epsilon": layer.epsilon, "rms": int(layer.rms), "beta": int(layer.bias is not None)}


def _of_types(row: tuple[Value, Value]) -> bool:
    return row[1] == "token_type_ids"


def _norm_of_sum(graph: Graph, states: Value, layer: Norm) -> Value | None:
    """The normalization together with the sum of two states that the last node made; None: it made something else.

    The sum goes on under its name.
    """
    last = graph.nodes[-1]
    if last.op_type != "Add" or list(last.output) != [states] or set(last.input) & {*graph.constants, *graph.weights}:
        return None
    graph.nodes.pop()
    inputs = [*last.input, *_parameters(graph, layer)]
    made = _node(graph, "SumNorm", inputs, "norm", count=2, **_attributes(layer))
    graph.nodes[-1].output[0] = states
    return made


def _taken_rows(graph: Graph, states: Value) -> list[tuple[Value, Value]] | None:
    """Tables and the inputs that say which of their rows `states` is the sum of; None: it is something else.

    The nodes that took and added them are taken out of the graph, whose last they were, until somebody else asks.
    """
    made_by: dict[Value, NodeProto] = {output: node for node in graph.nodes for output in node.output}
    inputs = {entry.name for entry in graph.inputs}
    rows: list[tuple[Value, Value]] = []
    nodes: list[NodeProto] = []
    waiting = [states]
    while waiting:
        node = made_by.get(waiting.pop())
        if node is None or node.op_type not in ("Add", "Gather") or len(node.attribute) > 0:
            return None
        nodes.append(node)
        if node.op_type == "Add":
            waiting += node.input
        elif node.input[0] in graph.weights and node.input[1] in inputs:
            rows.append((node.input[0], node.input[1]))
        else:
            return None
    words = [row for row in rows if row[1] == "input_ids"]
    types = [row for row in rows if _of_types(row)]
    last = {id(node) for node in graph.nodes[-len(nodes) :]}
    if len(words) != 1 or len(types) > 1 or len(rows) - len(types) > 2 or {id(node) for node in nodes} != last:
        return None
    graph.spare(states, len(nodes))
    return rows


def _width(graph: Graph, states: Value) -> int | None:
    """Numbers in a row of what a normalization of ours made; None: something else made it."""
    for node in reversed(graph.nodes):
        if states in node.output:
            found = [entry.i for entry in node.attribute if entry.name == "width"]
            return found[0] if found else None
    return None
