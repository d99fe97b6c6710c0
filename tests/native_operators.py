"""Nodes of our own operators, random groups of layers for them, and the arithmetic that they stand for in numpy."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from math import erf
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from fastembed_rt import native
from fastembed_rt_export.graph.int8 import quantize_weight

Array = npt.NDArray[Any]
# Another build of them to test, such as one with sanitizers (tests/native/sanitize.py).
LIBRARY = Path(os.environ.get("FASTEMBED_RT_TEST_OPERATORS") or native.library())
if native.library() != LIBRARY:  # what the package asks of its library, it asks of this one
    native.library = lambda: LIBRARY


class Group:
    """A group of random layers: what the operator gets, and what it has to compute."""

    def __init__(
        self,
        random: np.random.Generator,
        inputs: int,
        outputs: Sequence[int],
        *,
        outliers: int = 0,
        smooth: bool = False,
        tails: bool = False,
        dither: bool = False,
        zero: int | None = None,
    ) -> None:
        self.scale, self.zero, self.tails = np.float32(0.021), int(random.integers(0, 256)), tails
        self.dither = dither
        self.zero = self.zero if zero is None else zero
        self.smooth = random.uniform(0.5, 2, inputs).astype(np.float32) if smooth else None
        self.channels = sorted(random.choice(inputs, outliers, replace=False).tolist())
        weights = [random.normal(0, 0.1, (inputs, width)).astype(np.float32) for width in outputs]
        self.values, self.scales = zip(*(quantize_weight(weight) for weight in weights), strict=True)
        self.biases = [random.normal(0, 1, width).astype(np.float32) for width in outputs]
        self.rows = [weight[self.channels] for weight in weights]

    def tensors(self) -> list[Array]:
        found: list[Array] = [] if self.smooth is None else [self.smooth]
        for values, scales, bias, rows in zip(self.values, self.scales, self.biases, self.rows, strict=True):
            found += [values, scales, bias, *([rows] if self.channels else [])]
        return found

    def attributes(self, prefix: str) -> dict[str, Any]:
        found: dict[str, Any] = {
            f"{prefix}_scale": float(self.scale),
            f"{prefix}_zero": self.zero,
            f"{prefix}_layers": len(self.values),
            f"{prefix}_smooth": int(self.smooth is not None),
        }
        found |= {f"{prefix}_outliers": self.channels} if self.channels else {}
        found |= {f"{prefix}_tails": 1} if self.tails else {}
        return found | ({f"{prefix}_dither": 1} if self.dither else {})

    def __call__(self, x: Array) -> Array:
        factor = np.full(x.shape[1], np.float32(1) if self.smooth is None else self.smooth, np.float32) / self.scale
        exact = np.clip(x.astype(np.float32) * factor, -1e6, 1e6)
        own = dither(exact) if self.dither else np.zeros((len(x), 1), np.float32)
        exact = exact + own
        steps = np.clip(np.rint(exact) + self.zero, 0, 255) - self.zero
        beyond = (exact - np.clip(exact, -self.zero, 255 - self.zero)).astype(np.float64)
        beyond[:, self.channels] = 0  # outliers have rows of their own
        products = steps.astype(np.float64) + (beyond if self.tails else 0) - own
        smoothed = (x if self.smooth is None else x * self.smooth) + own * self.scale
        low, high = -self.zero * self.scale, (255 - self.zero) * self.scale
        excess = (smoothed - np.clip(smoothed, low, high))[:, self.channels]
        parts = [
            (products @ values.astype(np.float64)) * (scales.astype(np.float64) * self.scale) + bias + excess @ rows
            for values, scales, bias, rows in zip(self.values, self.scales, self.biases, self.rows, strict=True)
        ]
        return np.concatenate(parts, axis=1)


class FloatGroup:
    """A group of random layers with weights of a float type: what the operator gets, and what it has to compute."""

    dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, random: np.random.Generator, inputs: int, outputs: Sequence[int]) -> None:
        self.values = [random.normal(0, 0.1, (inputs, width)).astype(self.dtype) for width in outputs]
        self.biases = [random.normal(0, 1, width).astype(np.float32) for width in outputs]

    def tensors(self) -> list[Array]:
        return [one for both in zip(self.values, self.biases, strict=True) for one in both]

    def attributes(self, prefix: str) -> dict[str, Any]:
        return {f"{prefix}_layers": len(self.values)}

    def __call__(self, x: Array) -> Array:
        return x.astype(np.float64) @ self.weight().astype(np.float64) + np.concatenate(self.biases)

    def weight(self) -> Array:
        return np.concatenate(self.values, axis=1).astype(np.float32)


def add(sums: Array, terms: Array) -> Array:
    """float32 + float64, rounded once to float32.

    By way of the float64 beside the sum that is odd, of the two where it is not exact (Boldo and Melquiond 2008,
    doi:10.1109/TC.2007.70819): rounded twice, half could come of less than half.
    """
    left = sums.astype(np.float64)
    total: Array = left + terms
    part = total - left
    off = (left - (total - part)) + (terms - part)
    even = total.view(np.int64) % 2 == 0
    return np.where((off != 0) & even, np.nextafter(total, np.copysign(np.inf, off)), total).astype(np.float32)


def dither(steps: Array) -> Array:
    """What is added to each row of inputs in steps (rows, K): (rows, 1) in [-1/2, 1/2), a hash of 16 channels."""
    found: Array = np.zeros(len(steps), np.uint32)
    with np.errstate(over="ignore"):
        for column in np.rint(steps[:, :16] * np.float32(16)).astype(np.int32).T:
            found = (found + column.view(np.uint32)) * np.uint32(0x9E3779B1)
        found = (found ^ found >> 15) * np.uint32(0x85EBCA77)
    found ^= found >> 13
    return ((found >> 8).astype(np.float32) * np.float32(2.0**-24) - np.float32(0.5))[:, None]


def model(op: str, feeds: Mapping[str, Array], constants: Sequence[Array], **attributes: Any) -> bytes:
    """A graph of one node: inputs in the order of `feeds`, then `constants`."""
    names = [f"c{k}" for k in range(len(constants))]
    node = helper.make_node(op, [*feeds, *names], ["y"], domain=native.DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [
            helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), [None] * array.ndim)
            for name, array in feeds.items()
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(np.ascontiguousarray(array), name)
            for name, array in zip(names, constants, strict=True)
        ],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(native.DOMAIN, 1)]
    found: bytes = helper.make_model(graph, opset_imports=opsets, ir_version=10).SerializeToString()
    return found


def open_session(
    graph: bytes, threads: int = 1, library: Path | None = None, *, spinning: bool = True
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors come as exceptions
    options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
    options.register_custom_ops_library(str(library or LIBRARY))
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def run(
    op: str,
    feeds: Mapping[str, Array],
    constants: Sequence[Array],
    threads: int = 1,
    library: Path | None = None,
    **attributes: Any,
) -> Array:
    """The operator's output for inputs in the order of `feeds`, then `constants`."""
    (found,) = open_session(model(op, feeds, constants, **attributes), threads, library).run(["y"], dict(feeds))
    result: Array = found
    return result


def normed(x: Array, weight: Array, bias: Array | None, epsilon: float, *, rms: bool) -> Array:
    centered = x if rms else x - x.mean(axis=1, keepdims=True)
    y: Array = centered / np.sqrt((centered**2).mean(axis=1, keepdims=True) + epsilon) * weight
    return y if bias is None else y + bias


def normed_by(norm: Sequence[Array], x: Array, *, rms: bool) -> Array:
    """By a weight and perhaps a bias, with an epsilon of 1e-5."""
    return normed(x, norm[0], norm[1] if len(norm) > 1 else None, 1e-5, rms=rms)


def erf_gelu(x: Array) -> Array:
    y: Array = x * (1 + np.vectorize(erf)(x / np.sqrt(2))) / 2
    return y


ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "": lambda x: x,
    "gelu": erf_gelu,
    "gelu_tanh": lambda x: x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) / 2,
    "silu": lambda x: x / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
}


def relative(options: Mapping[str, Any], query: Array, key: Array, distance: Array, channels: slice) -> Array:
    """What scores of a head get of tables by distance, query - key: products with rows of c2p, with columns of p2c."""
    row = options["rows"][distance + len(options["rows"]) // 2]
    bias = np.zeros(distance.shape)
    if "c2p" in options:
        met = query.astype(np.float64) @ options["c2p"][:, channels].T.astype(np.float64)
        bias = bias + np.take_along_axis(met, row, axis=1)
    if "p2c" in options:
        met = key.astype(np.float64) @ options["p2c"][channels].astype(np.float64)
        bias = bias + np.take_along_axis(met, row.T, axis=1).T
    return bias


def attention(
    query: Array, key: Array, value: Array, starts: Array, heads: int, kv_heads: int, **options: Any
) -> Array:
    """Softmax attention in float64, text by text."""
    size = query.shape[1] // heads
    out = np.zeros(query.shape, np.float64)
    for text, (start, stop) in enumerate(itertools.pairwise(starts)):
        if stop == start:
            continue
        place = np.arange(stop - start)
        distance = place - place[:, None]
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            shared = slice(head // (heads // kv_heads) * size, (head // (heads // kv_heads) + 1) * size)
            rows = slice(text, text + 1) if options.get("first_only") else slice(start, stop)
            scores = query[rows, own].astype(np.float64) @ key[start:stop, shared].T
            if "cap" in options:
                scores = options["cap"] * np.tanh(scores / options["cap"])
            bias = np.zeros((stop - start, stop - start))
            if "table" in options:
                bias = options["table"][head][distance + (len(options["table"][head]) - 1) // 2]
            for limit, beyond in (("before", -distance), ("after", distance)):
                if options.get(limit, -1) >= 0:
                    bias = np.where(beyond > options[limit], -np.inf, bias)
            if "rows" in options:
                bias = bias + relative(options, query[start:stop, own], key[start:stop, shared], -distance, own)
            scores = scores + bias[: len(scores)]
            share = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[rows, own] = share / share.sum(axis=1, keepdims=True) @ value[start:stop, shared]
    return out


def block(
    random: np.random.Generator,
    lengths: Sequence[int] = (5, 1, 40, 90, 2),
    heads: int = 3,
    size: int = 8,
    options: Mapping[str, Any] | None = None,
    extras: Mapping[str, Any] | None = None,
    group: type[Group] | type[FloatGroup] = Group,
) -> tuple[dict[str, Array], list[Array], dict[str, Any], Callable[[], Array]]:
    """QuantAttention, or that of another kind of `group`: inputs, constants, attributes, and what comes out. `options`
    are those of `attention`, `extras` those of the first group."""
    options = dict(options or {})
    tables = {"by_distance": "table", "rows": "rows", "c2p": "c2p", "p2c": "p2c"}
    table = [options[name] for name in tables.values() if name in options]
    width = heads * size
    starts = np.concatenate([[0], np.cumsum(lengths)])
    x = random.normal(0, 2, (int(starts[-1]), width)).astype(np.float32)
    kinds: list[dict[str, Any]] = [{}, {}]
    if group is Group:
        kinds = [{"smooth": True, **(extras or {})}, {"outliers": 1, "tails": True}]
    first, second = (
        group(random, width, outputs, **kind) for outputs, kind in zip(((width,) * 3, (width,)), kinds, strict=True)
    )
    weight, bias = (random.normal(1, 0.2, width).astype(np.float32) for _ in range(2))

    def expected() -> Array:
        projected = first(x)
        query, key, value = np.split(projected, 3, axis=1)
        mixed = attention(query, key, value, starts, heads, heads, **options)
        return normed(second(mixed) + x, weight, bias, 1e-6, rms=False)

    attributes = {
        **first.attributes("input"),
        **second.attributes("output"),
        **{"heads": heads, "kv_heads": heads, "size": size, "residual": 1, "norm": 1, "norm_bias": 1, "epsilon": 1e-6},
        **{name: value for name, value in options.items() if name not in tables.values()},
        **{name: int(given in options) for name, given in tables.items() if name != "rows"},
    }
    constants = [*table, *first.tensors(), *second.tensors(), x, weight, bias]
    return {"x": x, "starts": starts}, constants, attributes, expected


def rotated(x: Array, cosine: Array, sine: Array, size: int) -> Array:
    """Heads of `size` side by side, channel d of each turned against d + size / 2."""
    heads = x.reshape(len(x), -1, 2, size // 2)
    left, right = heads[:, :, 0], heads[:, :, 1]
    c, s = cosine[:, None], sine[:, None]
    return np.stack([left * c - right * s, right * c + left * s], axis=2).reshape(x.shape)


def turned_block(
    random: np.random.Generator,
    lengths: Sequence[int] = (5, 1, 40, 90, 2),
    heads: int = 4,
    kv_heads: int = 2,
    size: int = 32,
    *,
    rotary: bool = True,
    head_norms: bool = True,
    value_norm: bool = False,
    rms: bool = True,
    norm: str = "none",
    options: Mapping[str, Any] | None = None,
    group: type[Group] | type[FloatGroup] = Group,
) -> tuple[dict[str, Array], list[Array], dict[str, Any], Callable[[], Array]]:
    """As `block`, of the newer architectures: x normalized before it is read, queries and keys normalized by heads and
    turned, values normalized by heads. `norm`: none, last or first, of the sum with the residual or of what is added to
    it; `rms`: all norms."""
    width, kv_width, hidden = heads * size, kv_heads * size, 80
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = int(starts[-1])
    x = random.normal(0.3, 2, (tokens, hidden)).astype(np.float32)
    angle = random.uniform(0, 6, (tokens, size // 2))
    angles = [np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)] if rotary else []
    kinds: list[dict[str, Any]] = [{}, {}]
    if group is Group:
        kinds = [{"smooth": True, "tails": True}, {"outliers": 1, "tails": True}]
    first = group(random, hidden, (width, kv_width, kv_width), **kinds[0])
    second = group(random, width, (hidden,), **kinds[1])
    norms: dict[str, list[Array]] = {"before_": [], "": []}
    if value_norm:
        norms = {"value_": [], **norms}
    if head_norms:
        norms = {"query_": [], "key_": [], **norms}
    attributes: dict[str, Any] = {**first.attributes("input"), **second.attributes("output"), "residual": 1}
    attributes |= {"heads": heads, "kv_heads": kv_heads, "size": size, "rotary": int(rotary), **(options or {})}
    for prefix, found in norms.items():
        wide = size if prefix in ("query_", "key_", "value_") else hidden
        found += [random.normal(1, 0.2, wide).astype(np.float32) for _ in range(1 if rms else 2)]
        if prefix or norm != "none":
            attributes |= {f"{prefix}norm": 1, f"{prefix}epsilon": 1e-5, f"{prefix}rms": int(rms)}
            attributes[f"{prefix}norm_bias"] = int(not rms)
    if norm == "first":
        attributes["norm_first"] = 1

    def of(prefix: str, states: Array) -> Array:
        if prefix not in norms:
            return states
        parts = states.astype(np.float64).reshape(-1, len(norms[prefix][0]))
        return normed_by(norms[prefix], parts, rms=rms).reshape(states.shape)

    def expected() -> Array:
        projected = first(of("before_", x).astype(np.float32))
        query, key, value = np.split(projected, [width, width + kv_width], axis=1)
        query, key, value = of("query_", query), of("key_", key), of("value_", value)
        if rotary:
            query, key = (rotated(part, angles[0], angles[1], size) for part in (query, key))
        y = second(attention(query, key, value, starts, heads, kv_heads, **(options or {})))
        if norm == "none":
            return y + x
        return of("", y + x) if norm == "last" else of("", y) + x

    constants = [*first.tensors(), *second.tensors()]
    for prefix in ("query_", "key_", "value_", "before_"):
        constants += norms.get(prefix, [])
    constants += [x, *(norms[""] if norm != "none" else [])]
    feeds = {"x": x, "starts": starts, **dict(zip(("cosine", "sine"), angles, strict=False))}
    return feeds, constants, attributes, expected
