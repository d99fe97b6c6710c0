"""Our own operators against the arithmetic that they stand for, written in numpy."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from fastembed_rt import native
from fastembed_rt.native import build
from fastembed_rt_export.graph.int8 import quantize_weight

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
Array = npt.NDArray[Any]


def test_the_library_is_called_what_the_build_calls_it() -> None:
    assert native.LIBRARY == build.LIBRARY


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
    ) -> None:
        self.scale, self.zero = np.float32(0.021), int(random.integers(0, 256))
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
        return found | ({f"{prefix}_outliers": self.channels} if self.channels else {})

    def __call__(self, x: Array) -> Array:
        factor = np.full(x.shape[1], np.float32(1) if self.smooth is None else self.smooth, np.float32) / self.scale
        steps = np.clip(np.rint(x.astype(np.float32) * factor) + self.zero, 0, 255).astype(np.int64) - self.zero
        smoothed = x if self.smooth is None else x * self.smooth
        low, high = -self.zero * self.scale, (255 - self.zero) * self.scale
        excess = (smoothed - np.clip(smoothed, low, high))[:, self.channels]
        parts = [
            (steps @ values.astype(np.int64)) * (scales.astype(np.float64) * self.scale) + bias + excess @ rows
            for values, scales, bias, rows in zip(self.values, self.scales, self.biases, self.rows, strict=True)
        ]
        return np.concatenate(parts, axis=1)


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
    options.register_custom_ops_library(str(library or native.library()))
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


def erf_gelu(x: Array) -> Array:
    from math import erf

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


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(1, 4, (1,)), (7, 24, (24, 24, 24)), (15, 384, (96,)), (9, 33, (17,)), (65, 48, (50, 7)), (200, 40, (160,))],
)
@pytest.mark.parametrize(("outliers", "smooth"), [(0, False), (2, True)])
def test_linear_layers(
    rows: int, inputs: int, outputs: tuple[int, ...], outliers: int, smooth: bool, threads: int
) -> None:
    random = np.random.default_rng(rows)
    group = Group(random, inputs, outputs, outliers=outliers, smooth=smooth)
    x = random.normal(0, 3, (rows, inputs)).astype(np.float32)
    found = run("QuantLinear", {"x": x}, group.tensors(), threads, **group.attributes("linear"))
    np.testing.assert_allclose(found, group(x), atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_activations(activation: str) -> None:
    random = np.random.default_rng(1)
    group = Group(random, 16, (48,))
    group.biases = [np.linspace(-30, 30, 48, dtype=np.float32)]
    x = random.normal(0, 3, (5, 16)).astype(np.float32)
    found = run("QuantLinear", {"x": x}, group.tensors(), activation=activation, **group.attributes("linear"))
    np.testing.assert_allclose(found, ACTIVATIONS[activation](group(x)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("width", [5, 16, 40, 384])
def test_residual_and_normalization(width: int, rms: bool) -> None:
    random = np.random.default_rng(width)
    group = Group(random, 16, (width,))
    x, residual = (random.normal(0, 1, (33, n)).astype(np.float32) for n in (16, width))
    weight, bias = (random.normal(1, 0.2, width).astype(np.float32) for _ in range(2))
    # The residual is a graph input here; its place is behind the group's tensors.
    names = {"x": x}
    node_inputs = [*group.tensors(), residual, weight, *([] if rms else [bias])]
    found = run(
        "QuantLinear",
        names,
        node_inputs,
        residual=1,
        norm=1,
        norm_bias=int(not rms),
        rms=int(rms),
        epsilon=1e-6,
        **group.attributes("linear"),
    )
    expected = normed(group(x) + residual, weight, None if rms else bias, 1e-6, rms=rms)
    np.testing.assert_allclose(found, expected, atol=5e-5, rtol=5e-5)


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("rows", "width", "hidden"), [(1, 24, 96), (15, 48, 64), (150, 32, 128)])
def test_feed_forward(rows: int, width: int, hidden: int, gated: bool) -> None:
    random = np.random.default_rng(rows)
    up = Group(random, width, (hidden, hidden) if gated else (hidden,), smooth=True)
    down = Group(random, hidden, (width,), outliers=3)
    x = random.normal(0, 2, (rows, width)).astype(np.float32)
    found = run(
        "QuantFeedForward",
        {"x": x},
        [*up.tensors(), *down.tensors()],
        activation="gelu",
        gated=int(gated),
        **up.attributes("up"),
        **down.attributes("down"),
    )
    wide = up(x)
    inner = erf_gelu(wide[:, :hidden]) * wide[:, hidden:] if gated else erf_gelu(wide)
    # A value on the edge between two steps may be rounded either way: one step of one channel.
    step = float(down.scale) * float(np.abs(down.values[0] * down.scales[0]).max())
    off = np.abs(found - down(inner))
    assert off.max() < 2.5 * step
    assert np.mean(off > 1e-4) < 0.1


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
            bias = np.zeros((stop - start, stop - start))
            if "table" in options:
                bias = options["table"][head][distance + (len(options["table"][head]) - 1) // 2]
            for limit, beyond in (("before", -distance), ("after", distance)):
                if options.get(limit, -1) >= 0:
                    bias = np.where(beyond > options[limit], -np.inf, bias)
            scores = scores + bias[: len(scores)]
            share = np.exp(scores - scores.max(axis=1, keepdims=True))
            out[rows, own] = share / share.sum(axis=1, keepdims=True) @ value[start:stop, shared]
    return out


@pytest.mark.parametrize(
    "options",
    [{}, {"first_only": 1}, {"after": 0}, {"before": 3, "after": 3}, {"before": 20, "after": 0}, {"table": True}],
    ids=["plain", "first", "causal", "window", "window before", "by distance"],
)
@pytest.mark.parametrize(("heads", "kv_heads", "size"), [(2, 2, 32), (3, 3, 8), (4, 2, 5), (2, 1, 64), (1, 1, 130)])
def test_attention(heads: int, kv_heads: int, size: int, options: dict[str, Any]) -> None:
    random = np.random.default_rng(size)
    lengths = [1, 15, 16, 17, 3, 0, 70, 150]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = int(starts[-1])
    query_rows = len(lengths) if options.get("first_only") else tokens
    query = random.normal(0, 1.5 / size**0.25, (query_rows, heads * size)).astype(np.float32)
    key, value = (random.normal(0, 1.5 / size**0.25, (tokens, kv_heads * size)).astype(np.float32) for _ in range(2))
    attributes, constants, expected_options = dict(options), [], dict(options)
    if attributes.pop("table", None):
        table = random.normal(0, 1, (heads, 2 * 160 - 1)).astype(np.float32)
        constants, attributes["by_distance"], expected_options = [table], 1, {"table": table}
    expected = attention(query, key, value, starts, heads, kv_heads, **expected_options)
    for threads in (1, 2):
        feeds = {"q": query, "k": key, "v": value, "starts": starts}
        found = run("PackedAttention", feeds, constants, threads, heads=heads, kv_heads=kv_heads, **attributes)
        np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(value).max())


def block(random: np.random.Generator) -> tuple[dict[str, Array], list[Array], dict[str, Any], Callable[[], Array]]:
    heads, size, width = 3, 8, 24
    lengths = [5, 1, 40, 90, 2]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    x = random.normal(0, 2, (int(starts[-1]), width)).astype(np.float32)
    first, second = Group(random, width, (24, 24, 24), smooth=True), Group(random, width, (width,), outliers=1)
    weight, bias = (random.normal(1, 0.2, width).astype(np.float32) for _ in range(2))

    def expected() -> Array:
        projected = first(x)
        query, key, value = np.split(projected, 3, axis=1)
        mixed = attention(query, key, value, starts, heads, heads)
        return normed(second(mixed) + x, weight, bias, 1e-6, rms=False)

    attributes = {
        **first.attributes("input"),
        **second.attributes("output"),
        **{"heads": heads, "kv_heads": heads, "size": size, "residual": 1, "norm": 1, "norm_bias": 1, "epsilon": 1e-6},
    }
    constants = [*first.tensors(), *second.tensors(), x, weight, bias]
    return {"x": x, "starts": starts}, constants, attributes, expected


def test_a_whole_attention_block() -> None:
    feeds, constants, attributes, expected = block(np.random.default_rng(0))
    found = run("QuantAttention", feeds, constants, **attributes)
    off = np.abs(found - expected())
    assert off.max() < 0.05  # of values around 1: a few steps of the projection's input
    assert off.mean() < 2e-3
    np.testing.assert_array_equal(found, run("QuantAttention", feeds, constants, 2, **attributes))


SAME_BITS = """
import sys, numpy as np
sys.path[:0] = {path!r}
from test_operators import block, run
from pathlib import Path
feeds, constants, attributes, _ = block(np.random.default_rng(0))
np.save({out!r}, run("QuantAttention", feeds, constants, library=Path({library!r}), **attributes))
"""


def bits(kernels: str, library: Path, out: Path) -> Array:
    code = SAME_BITS.format(path=[str(Path(__file__).parent)], out=str(out), library=str(library))
    environment = {**os.environ, native.SWITCH: kernels}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: Array = np.load(out)
    return found


def test_every_instruction_set_gives_the_same_bits(tmp_path: Path) -> None:
    best = bits("", native.library(), tmp_path / "best.npy")
    np.testing.assert_array_equal(bits("avx2", native.library(), tmp_path / "avx2.npy"), best)


@pytest.mark.skipif(native.kernels() != "avx512vnni", reason="this processor has no instructions to stand in for them")
def test_the_kernels_for_avx_vnni_give_the_same_bits(tmp_path: Path) -> None:
    """Compiled to the same instructions under the names of AVX-512VL, in the place of the AVX-512 kernels."""
    standing_in = (*build.KERNELS["kernels_avx512vnni"], "-DAVXVNNI_AS_AVX512VL")
    library = build.build(tmp_path / "library.so", {**build.KERNELS, "kernels_avx512vnni": standing_in})
    best = bits("", native.library(), tmp_path / "best.npy")
    np.testing.assert_array_equal(bits("", library, tmp_path / "avxvnni.npy"), best)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"linear_scale": -1.0}, "linear_scale is -1 and has to be from"),
        ({"linear_zero": 256}, "linear_zero is 256 and has to be from 0 to 255"),
        ({"linear_layers": 4}, "linear_layers is 4 and has to be from 1 to 3"),
        ({"linear_outliers": [99]}, "99, which is not one of the 16 inputs"),
        ({"activation": "swoosh"}, "activation is 'swoosh' of 6 letters, which is not known"),
        ({"norm": 1}, "epsilon is missing"),
    ],
)
def test_a_node_that_makes_no_sense_is_refused(change: dict[str, Any], message: str) -> None:
    group = Group(np.random.default_rng(0), 16, (16,), outliers=1)
    attributes = group.attributes("linear") | change
    with pytest.raises(Exception, match=message):
        run("QuantLinear", {"x": np.zeros((2, 16), np.float32)}, group.tensors(), **attributes)


def test_inputs_that_do_not_fit_are_refused() -> None:
    group = Group(np.random.default_rng(0), 16, (16,))
    with pytest.raises(Exception, match=r"x is float32 \(2, 15\) and has to be float32 \(any, 16\)"):
        run("QuantLinear", {"x": np.zeros((2, 15), np.float32)}, group.tensors(), **group.attributes("linear"))
    rows = np.zeros((4, 8), np.float32)
    for starts in ([0, 3], [1, 4], [0, 5, 4], []):
        feeds: dict[str, Array] = {"q": rows, "k": rows, "v": rows, "starts": np.array(starts, np.int64)}
        with pytest.raises(Exception, match="starts (go|fall|is)"):
            run("PackedAttention", feeds, [], heads=2, kv_heads=2)
