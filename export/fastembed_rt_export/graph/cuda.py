"""The cuda target: what onnxruntime's CUDA provider runs fastest, on packed (T, H) token states without padding.

T tokens of all texts lie one after the other, attention included: com.microsoft.PackedMultiHeadAttention takes the
texts' boundaries instead of a mask, so that flash and memory-efficient kernels do it (a 2-D mask would rule them out).
No operator computes a shape, so no node goes to the CPU and the whole graph can be captured. The runtime feeds, of
these, what the graph uses:

    input_ids (T,)
    position_ids (T,)                   0, 1, 2, ... in each text
    position_ids_after_pad_<P> (T,)     P + 1, P + 2, ... in each text; P for tokens that are the pad id (RoBERTa)
    token_offset (B, S) int32           places of all tokens in (B * S), then those without a token
    cumulative_sequence_length (B + 1,) int32    0, length of the first text, that and the second, ...
    unpack (B, S)                       token at each place; the text's last token where there is none
    places (S,)                         0, 1, 2, ..., S - 1
    attention_mask, pooling_mask (B, S) int64

fp16 and bf16: weights and states are half as wide; LayerNormalization and softmax accumulate in float32, pooling and
what follows is float32. The packed attention has no bfloat16, so bf16 graphs attend in float16.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
from onnx import TensorProto, helper

from fastembed_rt.run.batching import LANES, POSITIONS_AFTER_PAD

from ..errors import UnsupportedCheckpointError
from . import cpu, distances
from .graph import BOOL, FLOAT, FLOAT32, INT32, INT64, Graph, Value
from .layers import Angles, DistanceRows, Heads, ScoreBias
from .portable import EOS, PORTABLE, where_any
from .target import MaskedTokens, OfStates, Target, Tokens
from .weight import Linear, Norm, Weight

MICROSOFT = "com.microsoft"
OPSET = 23  # RotaryEmbedding and RMSNormalization
FLOAT16, BFLOAT16 = int(TensorProto.FLOAT16), int(TensorProto.BFLOAT16)
DTYPES: dict[str, np.dtype[Any]] = {
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "fp32": np.dtype(np.float32),
}
# Added to the scores of keys outside a window; float16 holds no more than 65504.
MASKED = -3e4
PLACES = ("batch", "sequence")
BOUNDARIES = "cumulative_sequence_length"
INPUTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "position_ids": (INT64, ("tokens",)),
    "token_offset": (INT32, PLACES),
    BOUNDARIES: (INT32, ("boundaries",)),
    "unpack": (INT64, PLACES),
    "places": (INT64, ("sequence",)),
    "attention_mask": (INT64, PLACES),
}


@dataclass(frozen=True, kw_only=True)
class CudaTokens(Tokens):
    """The packed inputs; what else the graph uses is declared when it is first asked for."""

    own_pooling_mask: Value | None  # (B, S) int64; None: all tokens count


def needed(graph: Graph, name: str) -> Value:
    """An input of the graph, declared when it is first used."""
    return graph.needed(name, *INPUTS.get(name, (INT64, ("tokens",))))


def with_masks(graph: Graph, tokens: Tokens) -> MaskedTokens:
    """The tokens with the masks that padded states need."""
    mask = needed(graph, "attention_mask")
    pooling = _own_pooling_mask(tokens) or mask
    return MaskedTokens(input_ids=tokens.input_ids, attention_mask=mask, pooling_mask=pooling)


def _own_pooling_mask(tokens: Tokens) -> Value | None:
    assert isinstance(tokens, CudaTokens)
    return tokens.own_pooling_mask


def add_positions(graph: Graph, tokens: Tokens, states: Value, table: Weight) -> Value:
    """Rows by position in the text."""
    rows = graph.node("Gather", graph.weight(table), needed(graph, "position_ids"), name="position")
    return graph.node("Add", states, rows, name="word+position")


def add_positions_after_pad(graph: Graph, tokens: Tokens, states: Value, *, table: Weight, pad: int) -> Value:
    """The runtime counts: a sum along the tokens is slow on the device and nothing on the host."""
    rows = graph.node("Gather", graph.weight(table), needed(graph, f"{POSITIONS_AFTER_PAD}{pad}"), name="position")
    return graph.node("Add", states, rows, name="word+position")


def norm(graph: Graph, states: Value, layer: Norm) -> Value:
    """Statistics in float32, which is what stash_type 1, the default, says."""
    return PORTABLE.norm(graph, states, layer)


def add_norm(graph: Graph, left: Value, right: Value, layer: Norm, *, bias: Weight | None = None) -> Value:
    """Sum and normalization in one pass over the states; the runtime asks for float32 statistics (strict mode).

    The bias costs nothing here. In the product before it, onnxruntime would copy it over the whole output first.
    """
    if layer.rms:
        assert bias is None
        return norm(graph, graph.node("Add", left, right, name="add"), layer)
    parameters = ["" if weight is None else graph.weight(weight) for weight in (layer.weight, layer.bias, bias)]
    while not parameters[-1]:
        parameters.pop()
    return graph.node(
        "SkipLayerNormalization", left, right, *parameters, domain=MICROSOFT, epsilon=layer.epsilon, name="norm"
    )


def activated(graph: Graph, states: Value, layer: Linear, *, activation: str) -> Value | None:
    """A layer and its GELU, bias and all in one pass over the wide states; None for what has no such operator."""
    operator = FUSED.get(activation)
    if layer.bias is None or operator is None:
        return None
    product = graph.node("MatMul", states, graph.weight(layer.weight.transposed), name="linear")
    return graph.node(operator, product, graph.weight(layer.bias), domain=MICROSOFT, name="gelu")


FUSED = {
    **dict.fromkeys(("gelu", "gelu_python"), "BiasGelu"),
    **dict.fromkeys(("gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_accurate"), "FastGelu"),
}


def attention_bias(graph: Graph, tokens: Tokens, by_distance: Weight | None, *, relative: bool) -> Value | None:
    """(1, N, S, S) for a bias by distance, (B, 1, S, S) for tokens that hide; the texts' boundaries are the mask."""
    hidden = _hidden(graph) if tokens.unseen else None
    if by_distance is None:
        return hidden
    # The runtime rounds S up, so places beyond the last position exist; no text reaches them.
    by_head = distances.bias(graph, _distance(graph), distances.reaching(by_distance, LANES))
    bias = _as_attended(graph, graph.node("Unsqueeze", by_head, graph.constant([0]), name="bias"))
    return bias if hidden is None else graph.node("Add", bias, hidden, name="bias")


def _hidden(graph: Graph) -> Value:
    """(B, 1, S, S): MASKED for keys that the mask leaves out, from wherever they are asked; they ask themselves."""
    kind = FLOAT32 if graph.float_type == FLOAT32 else DTYPES["fp16"]
    seen = graph.node("Cast", needed(graph, "attention_mask"), to=BOOL, name="seen")
    row = graph.node("Where", seen, graph.constant(0.0, kind), graph.constant(MASKED, kind), name="hidden")
    row = graph.node("Unsqueeze", row, graph.constant([1, 2]), name="hidden")
    # One for each query, whose number no operator may ask for: a shape would be computed on the CPU.
    none = graph.node("Mul", needed(graph, "places"), graph.constant(0), name="none")
    column = graph.node("Cast", none, to=helper.np_dtype_to_tensor_dtype(kind), name="none")
    return graph.node("Add", row, graph.node("Unsqueeze", column, graph.constant([1]), name="none"), name="hidden")


def band(graph: Graph, tokens: Tokens, *, before: int | None, after: int | None) -> Value:
    """(1, 1, S, S): 0 for keys from `before` places before the query to `after` places behind it, MASKED else."""
    outside = distances.outside(graph, _distance(graph), before=before, after=after)
    kind = FLOAT32 if graph.float_type == FLOAT32 else DTYPES["fp16"]
    row = graph.node("Where", outside, graph.constant(MASKED, kind), graph.constant(0.0, kind), name="band")
    return graph.node("Unsqueeze", row, graph.constant([0, 1]), name="band")


def _distance(graph: Graph) -> Value:
    """Key minus query: (S, S)."""
    return distances.between(graph, needed(graph, "places"))


def attention(
    graph: Graph, tokens: Tokens, *, query: Value, key: Value, value: Value, heads: Heads, bias: ScoreBias
) -> Value:
    """From (T, N * D) to (T, K * D) each; the scale is in the query weights."""
    if bias.cap is not None:
        raise UnsupportedCheckpointError(
            "target cuda has no attention whose scores are kept within a cap, as Gemma 2's are; export it for cpu or "
            "tensorrt"
        )
    if heads.grouped:
        key, value = (_repeated(graph, states, heads) for states in (key, value))
    parts = [_as_attended(graph, part) for part in (query, key, value)]
    inputs = [*parts, "", needed(graph, "token_offset"), needed(graph, BOUNDARIES)]
    mixed = graph.node(
        "PackedMultiHeadAttention",
        *inputs,
        *([] if bias.tensor is None else [bias.tensor]),
        num_heads=heads.queries,
        scale=1.0,
        domain=MICROSOFT,
        name="attention",
    )
    return graph.node("Cast", mixed, to=BFLOAT16, name="mixed") if graph.float_type == DTYPES["bf16"] else mixed


def _as_attended(graph: Graph, value: Value) -> Value:
    """bfloat16 as float16, which the operator takes; others as they are."""
    return graph.node("Cast", value, to=FLOAT16, name="half") if graph.float_type == DTYPES["bf16"] else value


def _repeated(graph: Graph, states: Value, heads: Heads) -> Value:
    """Each head of (T, K * D) written once for every query head it serves: the operator has as many of both."""
    split = graph.node("Reshape", states, graph.constant([0, heads.keys, 1, -1]), name="heads")
    wide = graph.node("Expand", split, graph.constant([1, 1, heads.served, 1]), name="repeated")
    return graph.node("Reshape", wide, graph.constant([0, -1]), name="repeated")


def by_distance(graph: Graph, states: Value, *, rows: DistanceRows, heads: int) -> Value:
    """Scores of each text's own would be a bias (B, N, S, S) of padded states, which is what packing avoids."""
    raise UnsupportedCheckpointError(
        "target cuda has no attention whose scores distances meet with queries or keys, as DeBERTa's do; "
        "export it for cpu or tensorrt"
    )


def shift(graph: Graph, tokens: Tokens, states: Value, *, by: int) -> Value:
    """Where the next text begins is not known to the states, and no operator may compute it."""
    raise UnsupportedCheckpointError(
        "target cuda has no convolutions over tokens, as LFM2's are; export it for cpu or tensorrt"
    )


def angles(graph: Graph, tokens: Tokens, *, cosine: Weight, sine: Weight) -> Angles:
    """The row of each token: (1, T, D / 2) each."""
    return cpu.rows_of_angles(graph, needed(graph, "position_ids"), cosine=cosine, sine=sine)


def head_norm(graph: Graph, states: Value, layer: Norm, *, heads: int) -> Value:
    """(T, N * D), each D by itself."""
    split = graph.node("Reshape", states, graph.constant([0, heads, -1]), name="heads")
    return graph.node("Reshape", norm(graph, split, layer), graph.constant([0, -1]), name="normed")


def _unpacked(graph: Graph, states: Value) -> Value:
    """(T, H) -> (B, S, H) float32."""
    return _wide(graph, graph.node("Gather", states, needed(graph, "unpack"), name="unpack"))


def _wide(graph: Graph, states: Value) -> Value:
    """As float32."""
    return states if graph.float_type == FLOAT32 else graph.node("Cast", states, to=FLOAT, name="float")


def _padded(pool: OfStates) -> OfStates:
    """A pooling of padded states, on unpacked ones: once a batch, a small part of it."""

    def pooled(graph: Graph, tokens: Tokens, states: Value) -> Value:
        padded = with_masks(graph, tokens)
        return pool(graph.typed(FLOAT32), padded, _unpacked(graph, states))

    return pooled


def pool_cls(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """State of the first token that counts: of the text, where no prompt is left out."""
    counts = _own_pooling_mask(tokens)
    if counts is None:
        row = graph.node("Gather", needed(graph, "unpack"), graph.constant(0), axis=1, name="first")
        return _wide(graph, graph.node("Gather", states, row, name="first"))
    padded = _unpacked(graph, states)
    mask = graph.node("Cast", counts, to=FLOAT, name="mask")  # ArgMax has no integer kernel
    first = graph.node("ArgMax", mask, axis=1, keepdims=1, name="first")
    return graph.node("GatherND", padded, first, batch_dims=1, name="take")


def pool_last(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """State of the last token, which every place behind it points to; zeros where a prompt that is left out is all."""
    row = graph.node("Gather", needed(graph, "unpack"), graph.constant(-1), axis=1, name="last")
    last, counts = _wide(graph, graph.node("Gather", states, row, name="last")), _own_pooling_mask(tokens)
    return last if counts is None else where_any(graph, last, counts)


def pool_end(graph: Graph, tokens: Tokens, states: Value) -> Value:
    """State of the token at the end of the text, which may have others behind it."""
    rows = cpu.end_places(graph, tokens, needed(graph, "unpack"))
    return _wide(graph, graph.node("Gather", states, rows, name="end"))


def enter(graph: Graph, own_pooling_mask: bool) -> CudaTokens:
    """Declare the inputs that every graph has."""
    ids = graph.input("input_ids", INT64, ("tokens",))
    pooling = graph.input("pooling_mask", INT64, PLACES) if own_pooling_mask else None
    return CudaTokens(input_ids=ids, own_pooling_mask=pooling)


def target(precision: str) -> Target:
    """The target in fp16, bf16 or fp32."""
    return replace(
        PORTABLE,
        name="cuda",
        lanes=8,
        opset=OPSET,
        state_type=DTYPES[precision],
        enter=enter,
        add_positions=add_positions,
        add_positions_after_pad=add_positions_after_pad,
        linears=cpu.linears,
        norm=norm,
        add_norm=add_norm,
        activated=activated,
        attention_bias=attention_bias,
        project=lambda graph, _, states, layers: cpu.linears(graph, states, layers),
        attention=attention,
        band=band,
        angles=angles,
        rotate=cpu.rotate,
        by_distance=by_distance,
        head_norm=head_norm,
        shift=shift,
        collect=lambda graph, _, mixed, layer: cpu.linears(graph, mixed, [layer])[0],
        pools={
            **{mode: _padded(pool) for mode, pool in PORTABLE.pools.items()},
            "cls": pool_cls,
            "lasttoken": pool_last,
            EOS: pool_end,
        },
        on_padded=_padded,
    )
