"""The operators that cuda graphs are made of, in numpy, for the ONNX reference evaluator.

Those of com.microsoft are written from the operators' documentation (onnxruntime, ContribOperators.md), our own from
the head of cuda_operators.c, neither from the graphs: inputs of 16 bits are computed in float32 and rounded once, as
the kernels accumulate.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from scipy.special import erf, expit

Array = npt.NDArray[Any]


class PackedMultiHeadAttention(OpRun):  # type: ignore[misc]
    op_domain = "com.microsoft"

    def _run(
        self,
        query: Array,
        key: Array,
        value: Array,
        bias: Array | None,
        token_offset: Array,
        boundaries: Array,
        attention_bias: Array | None = None,
        num_heads: int | None = None,
        scale: float | None = None,
        mask_filter_value: float | None = None,
    ) -> tuple[Array]:
        assert bias is None
        assert num_heads
        assert query.dtype in (np.float16, np.float32), "the operator takes no other types"
        assert token_offset.dtype == boundaries.dtype == np.int32, "and no other integers"
        batch, width = token_offset.shape
        check_offsets(token_offset, boundaries)
        out = np.full(value.shape, np.nan, np.float32)  # tokens of no text stay undefined
        head = query.shape[1] // num_heads
        factor = scale if scale else 1.0 / np.sqrt(head)
        for text in range(batch):
            rows = slice(boundaries[text], boundaries[text + 1])
            q, k, v = (
                part[rows].astype(np.float32).reshape(-1, num_heads, part.shape[1] // num_heads).transpose(1, 0, 2)
                for part in (query, key, value)
            )
            scores = factor * (q @ k.transpose(0, 2, 1))
            if attention_bias is not None:
                assert attention_bias.dtype == query.dtype
                assert attention_bias.shape[2:] == (width, width)
                length = scores.shape[-1]
                own = attention_bias[text if len(attention_bias) > 1 else 0]
                scores = scores + own[:, :length, :length].astype(np.float32)
            scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
            mixed = (scores / scores.sum(axis=-1, keepdims=True)) @ v
            out[rows] = mixed.transpose(1, 0, 2).reshape(mixed.shape[1], -1)
        return (out.astype(query.dtype),)


def check_offsets(token_offset: Array, boundaries: Array) -> None:
    """Offsets of the tokens in the padded batch come first, in order, then those of the padding."""
    batch, width = token_offset.shape
    lengths = np.diff(boundaries)
    assert boundaries[0] == 0
    assert (lengths > 0).all()
    assert (lengths <= width).all()
    places = np.arange(batch * width).reshape(batch, width)
    present = np.arange(width) < lengths[:, None]
    np.testing.assert_array_equal(token_offset.ravel(), np.concatenate([places[present], places[~present]]))


class SkipLayerNormalization(OpRun):  # type: ignore[misc]
    op_domain = "com.microsoft"

    def _run(
        self,
        left: Array,
        right: Array,
        gamma: Array,
        beta: Array | None = None,
        bias: Array | None = None,
        epsilon: float | None = None,
    ) -> tuple[Array]:
        total = left.astype(np.float32) + right.astype(np.float32)
        if bias is not None:
            total = total + bias.astype(np.float32)
        centred = total - total.mean(axis=-1, keepdims=True)
        unit = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
        normed = unit * gamma.astype(np.float32) + (0 if beta is None else beta.astype(np.float32))
        return (normed.astype(left.dtype),)


class BiasGelu(OpRun):  # type: ignore[misc]
    op_domain = "com.microsoft"

    def _run(self, states: Array, bias: Array) -> tuple[Array]:
        wide = states.astype(np.float32) + bias.astype(np.float32)
        return ((0.5 * wide * (1.0 + erf(wide / np.sqrt(2.0)))).astype(states.dtype),)


class FastGelu(OpRun):  # type: ignore[misc]
    op_domain = "com.microsoft"

    def _run(self, states: Array, bias: Array) -> tuple[Array]:
        wide = states.astype(np.float32) + bias.astype(np.float32)
        inner = np.sqrt(2.0 / np.pi) * (wide + 0.044715 * wide**3)
        return ((0.5 * wide * (1.0 + np.tanh(inner))).astype(states.dtype),)


class MatMul(OpRun):  # type: ignore[misc]
    """The standard operator with sums in float32, as cuBLAS has them, and a BLAS that numpy has for no other float."""

    op_domain = ""

    def _run(self, left: Array, right: Array) -> tuple[Array]:
        return ((left.astype(np.float32) @ right.astype(np.float32)).astype(left.dtype),)


class Gemm(OpRun):  # type: ignore[misc]
    """The standard operator likewise; the bias is added before the sum is rounded."""

    op_domain = ""

    def _run(
        self,
        left: Array,
        right: Array,
        bias: Array | None = None,
        alpha: float | None = None,
        beta: float | None = None,
        transA: int | None = None,  # noqa: N803
        transB: int | None = None,  # noqa: N803
    ) -> tuple[Array]:
        assert not transA
        assert not transB
        product = left.astype(np.float32) @ right.astype(np.float32)
        return ((product if bias is None else product + bias.astype(np.float32)).astype(left.dtype),)


def tanh_gelu(wide: Array) -> Array:
    made: Array = 0.5 * wide * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (wide + 0.044715 * wide**3)))
    return made


def linear(x: Array, weight: Array, bias: Array | None, activation: str | None) -> Array:
    """y = act(x w + bias), with a sum that is rounded once."""
    y = x.astype(np.float32) @ weight.astype(np.float32)
    y = y if bias is None else y + bias.astype(np.float32)
    if activation == "gelu_tanh":
        y = tanh_gelu(y)
    elif activation == "relu":
        y = np.maximum(y, 0)
    else:
        assert not activation
    return y.astype(x.dtype)


def norm_of(total: Array, gamma: Array, beta: Array | None, epsilon: float, rms: int | None) -> Array:
    centred = total if rms else total - total.mean(axis=-1, keepdims=True)
    unit = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + epsilon)
    made: Array = unit * gamma.astype(np.float32) + (0 if beta is None else beta.astype(np.float32))
    return made


def add_norm(x: Array, skip: Array, parameters: list[Array], **options: Any) -> Array:
    """parameters: gamma, and beta and bias where options["beta"] and options["bias"] say so."""
    gamma, *others = parameters
    beta = others.pop(0) if options.get("beta") else None
    total = x.astype(np.float32) + skip.astype(np.float32)
    if options.get("bias"):
        total = total + others.pop(0).astype(np.float32)
    assert not others
    return norm_of(total, gamma, beta, options["epsilon"], options.get("rms")).astype(x.dtype)


def embed_norm(ids: Array, words: Array, others: list[Array], **options: Any) -> Array:
    """others: indices and a table each where options["positions"], options["types"] say so; gamma; beta likewise."""
    others = list(others)
    total = words[ids].astype(np.float32)
    for _ in range((options.get("positions") or 0) + (options.get("types") or 0)):
        index, table = others.pop(0), others.pop(0)
        total = total + table[index].astype(np.float32)
    gamma, *rest = others
    beta = rest.pop(0) if options.get("beta") else None
    assert not rest
    return norm_of(total, gamma, beta, options["epsilon"], options.get("rms")).astype(words.dtype)


def packed_mean(x: Array, starts: Array) -> Array:
    """Of the rows of each text, in float32; 0 for a text without any."""
    made = [x[a:b].astype(np.float32).mean(axis=0) if b > a else np.zeros(x.shape[1]) for a, b in pairwise(starts)]
    return np.stack(made).astype(np.float32)


def _own(name: str, run: Any) -> list[type]:
    """The operator for both types."""
    made = []
    for suffix in ("Float16", "BFloat16"):
        body = {"op_domain": "fastembed_rt.cuda", "_run": run, "__module__": __name__}
        made.append(type(f"{name}{suffix}", (OpRun,), body))
    return made


def _linear(
    self: Any,
    x: Array,
    weight: Array,
    given: Array | None = None,
    in_features: int | None = None,
    out_features: int | None = None,
    bias: int | None = None,
    activation: str | None = None,
) -> tuple[Array]:
    assert (x.shape[1], *weight.shape) == (in_features, in_features, out_features)
    assert bool(bias) == (given is not None)
    return (linear(x, weight, given, activation),)


def _add_norm(
    self: Any,
    x: Array,
    skip: Array,
    *parameters: Array,
    width: int | None = None,
    epsilon: float | None = None,
    rms: int | None = None,
    beta: int | None = None,
    bias: int | None = None,
) -> tuple[Array]:
    assert x.shape == skip.shape == (len(x), width)
    return (add_norm(x, skip, [*parameters], epsilon=epsilon, rms=rms, beta=beta, bias=bias),)


def _embed_norm(
    self: Any,
    ids: Array,
    words: Array,
    *others: Array,
    width: int | None = None,
    epsilon: float | None = None,
    rms: int | None = None,
    beta: int | None = None,
    positions: int | None = None,
    types: int | None = None,
) -> tuple[Array]:
    assert words.shape[1] == width
    return (embed_norm(ids, words, [*others], epsilon=epsilon, rms=rms, beta=beta, positions=positions, types=types),)


def _mean(self: Any, x: Array, starts: Array, width: int | None = None) -> tuple[Array]:
    assert x.shape[1] == width
    return (packed_mean(x, starts),)


def gate_of(wide: Array, activation: str | None) -> Array:
    functions = {
        "gelu": lambda x: 0.5 * x * (1 + erf(x / np.sqrt(2.0))),
        "gelu_tanh": tanh_gelu,
        "silu": lambda x: x * expit(x),
        "relu": lambda x: np.maximum(x, 0),
        "sigmoid": expit,
        "tanh": np.tanh,
    }
    made: Array = functions[activation](wide) if activation else wide
    return made


def _norm(
    self: Any,
    x: Array,
    *parameters: Array,
    width: int | None = None,
    epsilon: float | None = None,
    rms: int | None = None,
    beta: int | None = None,
) -> tuple[Array]:
    assert x.shape[1] == width
    return (add_norm(x, np.zeros_like(x), [*parameters], epsilon=epsilon, rms=rms, beta=beta),)


def _sum_norm(
    self: Any,
    x: Array,
    skip: Array,
    *parameters: Array,
    width: int | None = None,
    epsilon: float | None = None,
    rms: int | None = None,
    beta: int | None = None,
) -> tuple[Array, Array]:
    assert x.shape == skip.shape == (len(x), width)
    total = (x.astype(np.float32) + skip.astype(np.float32)).astype(x.dtype)
    return total, add_norm(x, skip, [*parameters], epsilon=epsilon, rms=rms, beta=beta)


def _gated(self: Any, gate: Array, up: Array, width: int | None = None, activation: str | None = None) -> tuple[Array]:
    assert gate.shape == up.shape == (len(gate), width)
    return ((gate_of(gate.astype(np.float32), activation) * up.astype(np.float32)).astype(gate.dtype),)


def _turn(
    self: Any,
    x: Array,
    places: Array,
    cosine: Array,
    sine: Array,
    gamma: Array | None = None,
    heads: int | None = None,
    size: int | None = None,
    at: int | None = None,
    norm: int | None = None,
    epsilon: float | None = None,
) -> tuple[Array]:
    assert heads
    assert size
    assert cosine.dtype == sine.dtype == np.float32
    assert bool(norm) == (gamma is not None)
    start = at or 0
    states = x[:, start : start + heads * size].astype(np.float32).reshape(len(x), heads, size)
    if gamma is not None:
        assert epsilon is not None
        states = norm_of(states, gamma, None, epsilon, 1)
    c, s = (table[places][:, None] for table in (cosine, sine))
    first, second = states[..., : size // 2], states[..., size // 2 :]
    turned = np.concatenate([first * c - second * s, second * c + first * s], axis=-1)
    return (turned.reshape(len(x), -1).astype(x.dtype),)


def _word_weights(
    self: Any, x: Array, starts: Array, width: int | None = None, times: int | None = None, added: int | None = None
) -> tuple[Array]:
    assert x.shape[1] == width
    assert times
    weights = np.maximum(x.astype(np.float32), 0)
    for _ in range(times):
        weights = np.log1p(weights)
    pooled = [weights[a:b].sum(axis=0) if added else weights[a:b].max(axis=0, initial=0) for a, b in pairwise(starts)]
    return (np.stack(pooled).astype(np.float32),)


def _unit(self: Any, x: Array, width: int | None = None) -> tuple[Array]:
    wide = x.astype(np.float32)
    return (wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-12),)


def _attention(
    self: Any,
    query: Array,
    key: Array,
    value: Array,
    starts: Array,
    places: Array,
    table: Array | None = None,
    heads: int | None = None,
    key_heads: int | None = None,
    size: int | None = None,
    before: int | None = None,
    after: int | None = None,
    bias: int | None = None,
) -> tuple[Array]:
    assert heads
    assert size
    assert bool(bias) == (table is not None)
    served = heads // (key_heads or heads)
    out = np.zeros((len(query), heads * size), np.float32)
    for a, b in pairwise(starts):
        q, k, v = (
            part[a:b].astype(np.float32).reshape(b - a, -1, size).transpose(1, 0, 2) for part in (query, key, value)
        )
        k, v = (np.repeat(part, served, axis=0) for part in (k, v))
        scores = q @ k.transpose(0, 2, 1)
        away = np.arange(b - a)[None] - np.arange(b - a)[:, None]
        assert b - a <= len(places)
        if table is not None:
            scores = scores + table.astype(np.float32)[away + len(table) // 2].transpose(2, 0, 1)
        hidden = (away < -(before if before is not None else b)) | (away > (after if after is not None else b))
        scores = np.where(hidden, -np.inf, scores)
        shares = np.exp(scores - scores.max(axis=-1, keepdims=True))
        mixed = (shares / shares.sum(axis=-1, keepdims=True)) @ v
        out[a:b] = mixed.transpose(1, 0, 2).reshape(b - a, -1)
    return (out.astype(query.dtype),)


class Dense(OpRun):  # type: ignore[misc]
    op_domain = "fastembed_rt.cuda"

    def _run(
        self,
        x: Array,
        weight: Array,
        given: Array | None = None,
        in_features: int | None = None,
        out_features: int | None = None,
        bias: int | None = None,
        activation: str | None = None,
    ) -> tuple[Array]:
        assert x.dtype == weight.dtype == np.float32
        assert (x.shape[1], *weight.shape) == (in_features, in_features, out_features)
        assert bool(bias) == (given is not None)
        return (gate_of(x @ weight if given is None else x @ weight + given, activation),)


OPERATORS = [
    Dense,
    *(*_own("Norm", _norm), *_own("SumNorm", _sum_norm), *_own("Gated", _gated), *_own("Turn", _turn)),
    *(*_own("WordWeights", _word_weights), *_own("Unit", _unit), *_own("Attention", _attention)),
    *(PackedMultiHeadAttention, SkipLayerNormalization, BiasGelu, FastGelu, MatMul, Gemm),
    *(*_own("Linear", _linear), *_own("AddNorm", _add_norm), *_own("EmbedNorm", _embed_norm), *_own("Mean", _mean)),
]


def evaluate(file: Path, feeds: dict[str, Array]) -> Array:
    """The first output of a cuda graph for a batch, inputs by name; more than it takes may be given."""
    evaluator = ReferenceEvaluator(onnx.load(str(file)), new_ops=OPERATORS)
    (found,) = evaluator.run(None, {name: feeds[name] for name in evaluator.input_names})
    return np.asarray(found)
