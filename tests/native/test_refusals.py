"""What the operators refuse, in a sentence: each of these read or wrote beyond its memory, or ended the process, once.

A refusal is an exception with our own words. What is not refused as it should be may end the process, so each case
runs in one of its own, and its exit code counts.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest
from native_operators import Group, block, model, open_session
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from fastembed_rt import native

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
Array = npt.NDArray[Any]


class Node(NamedTuple):
    op: str
    feeds: dict[str, Array]
    constants: list[Array]
    attributes: dict[str, Any]


def linear(*, residual: bool = False, norm: bool = False, outliers: int = 0) -> Node:
    random = np.random.default_rng(0)
    group = Group(random, 16, (16,), outliers=outliers)
    feeds: dict[str, Array] = {"x": np.ones((4, 16), np.float32)}
    constants = group.tensors()
    attributes: dict[str, Any] = group.attributes("linear")
    if residual:
        constants.append(np.ones((4, 16), np.float32))
        attributes["residual"] = 1
    if norm:
        constants += [np.ones(16, np.float32), np.ones(16, np.float32)]
        attributes |= {"norm": 1, "norm_bias": 1, "epsilon": 1e-6}
    return Node("QuantLinear", feeds, constants, attributes)


def feed_forward(**changed: Any) -> Node:
    random = np.random.default_rng(0)
    up, down = Group(random, 16, (32,)), Group(random, 32, (16,))
    attributes = {**up.attributes("up"), **down.attributes("down"), "activation": "gelu", **changed}
    x = np.ones((4, 16), np.float32)
    return Node("QuantFeedForward", {"x": x}, [*up.tensors(), *down.tensors()], attributes)


def attention(starts: list[int] | None = None, rows: int = 4, **changed: Any) -> Node:
    part = np.ones((rows, 64), np.float32)
    feeds = {"query": part, "key": part, "value": part, "starts": np.array([0, rows] if starts is None else starts)}
    return Node("PackedAttention", feeds, [], {"heads": 2, "kv_heads": 2, **changed})


def whole_block(**changed: Any) -> Node:
    feeds, constants, attributes, _ = block(np.random.default_rng(0))
    return Node("QuantAttention", feeds, constants, attributes | changed)


def wrapped_block() -> Node:
    """Of two heads whose sizes add up to 128 in 64 bits."""
    first, second = (Group(np.random.default_rng(0), *sizes) for sizes in ((16, (128,) * 3), (128, (16,))))
    shape = {"heads": 2, "kv_heads": 2, "size": 64 - 2**63}
    attributes = {**first.attributes("input"), **second.attributes("output"), **shape}
    feeds: dict[str, Array] = {"x": np.ones((4, 16), F32), "starts": np.array([0, 4])}
    return Node("QuantAttention", feeds, [*first.tensors(), *second.tensors()], attributes)


def mean(x: Array, starts: Array) -> Node:
    return Node("PackedMean", {"x": x, "starts": starts}, [], {})


def embedding(ids: Array, values: Array, scales: Array) -> Node:
    return Node("QuantEmbedding", {"ids": ids, "values": values, "scales": scales}, [], {})


def replaced(node: Node, index: int, constant: Array) -> Node:
    node.constants[index] = constant
    return node


F32, I8, I64 = np.float32, np.int8, np.int64
NOTHING = np.zeros((0, 16), F32)
SOUND = {
    "linear": lambda: linear(residual=True, norm=True, outliers=2),
    "feed forward": feed_forward,
    "attention": attention,
    "block": whole_block,
    "mean": lambda: mean(np.ones((4, 8), F32), np.array([0, 4])),
    "embedding": lambda: embedding(np.array([1, 2]), np.ones((3, 8), I8), np.ones((3, 1), F32)),
}
REFUSED: dict[str, tuple[Callable[[], Node], str]] = {
    # Feeds of another type: the first returned heap memory, the second ended the process.
    "mean of bytes": (lambda: mean(np.ones((4, 8), np.uint8), np.array([0, 4])), "x is uint8"),
    "residual of bytes": (
        lambda: replaced(linear(residual=True), 3, np.ones((4, 16), np.uint8)),
        "residual is uint8",
    ),
    "x of doubles": (lambda: linear()._replace(feeds={"x": np.ones((4, 16))}), "x is float64"),
    "starts of 32 bits": (lambda: mean(np.ones((4, 8), F32), np.array([0, 4], np.int32)), "starts is int32"),
    "ids of 32 bits": (
        lambda: embedding(np.array([1], np.int32), np.ones((3, 8), I8), np.ones((3, 1), F32)),
        "ids is int32",
    ),
    "table of halves": (
        lambda: embedding(np.array([1]), np.ones((3, 8), np.float16), np.ones((3, 1), F32)),
        "values is float16",
    ),
    "scales of bytes": (
        lambda: embedding(np.array([1]), np.ones((3, 8), I8), np.ones((3, 1), np.uint8)),
        "scales is uint8",
    ),
    "a batch dimension": (lambda: linear()._replace(feeds={"x": np.ones((1, 4, 16), F32)}), "with 3 dimensions"),
    # Constants that are as wide as they should be, and empty.
    "scales without a row": (lambda: replaced(linear(), 1, NOTHING), r"linear_scales is float32 \(0, 16\)"),
    "biases without a row": (lambda: replaced(linear(), 2, NOTHING), r"linear_biases is float32 \(0, 16\)"),
    "norm without a row": (lambda: replaced(linear(norm=True), 3, NOTHING), "norm's weight is float32"),
    "norm's bias without a row": (lambda: replaced(linear(norm=True), 4, NOTHING), "norm's bias is float32"),
    "weights without a row": (lambda: replaced(linear(), 0, np.zeros((0, 16), I8)), "linear_values is empty"),
    "no distances": (
        lambda: Node(*attention(by_distance=1)[:2], [np.zeros((2, 0), F32)], {"heads": 2, "by_distance": 1}),
        "bias by distance is empty",
    ),
    "infinite scales": (lambda: replaced(linear(), 1, np.full(16, np.inf, F32)), "not finite"),
    # Sizes that overflow on their way to a check.
    "heads of a size that wraps": (wrapped_block, "attribute size is"),
    "heads that wrap": (lambda: whole_block(heads=2**61, kv_heads=2**61, size=8), "attribute heads is"),
    "heads below zero": (lambda: attention(heads=-2, kv_heads=-2), "attribute heads is -2"),
    "a window that wraps": (lambda: attention(after=2**63 - 1), "attribute after is"),
    "a zero point that wraps": (
        lambda: linear()._replace(attributes=linear().attributes | {"linear_zero": 2**32 + 5}),
        "linear_zero is 4294967301",
    ),
    "starts that wrap": (lambda: attention([0, 2**62, -(2**62) - 10, 4]), "starts fall"),
    "mean's starts that wrap": (
        lambda: mean(np.ones((4, 8), F32), np.array([0, 2**62, -(2**62) - 10, 4])),
        "starts fall",
    ),
    "more inputs than sums hold": (
        lambda: replaced(linear(), 0, np.ones((65537, 16), I8)),
        "linear_values are 65537 by 16 and may be 65536",
    ),
    # Attributes that were taken for missing ones.
    "a long activation": (lambda: feed_forward(activation="gelu_tanh_of_long_name"), "22 letters, which is not known"),
    "an activation of numbers": (lambda: feed_forward(activation=1), "activation is of another type"),
    "activations": (lambda: feed_forward(activation=["gelu", "relu"]), "activation is of another type"),
    "an activation with more behind its end": (lambda: feed_forward(activation="gelu\0x"), "which is not known"),
    "a flag that is a fraction": (lambda: feed_forward(gated=1.0), "gated is of another type"),
    "a flag that is neither": (lambda: feed_forward(gated=2), "gated is 2"),
    "dither of a row that is not known yet": (lambda: feed_forward(down_dither=1), "attribute down_dither is 1"),
    "tails that are a fraction": (lambda: feed_forward(down_tails=1.0), "down_tails is of another type"),
    "tails that are neither": (lambda: feed_forward(down_tails=2), "down_tails is 2"),
    "too many outliers": (
        lambda: linear()._replace(attributes=linear().attributes | {"linear_outliers": [*range(16), 3]}),
        "has 17 numbers and may have 16",
    ),
    "an outlier twice": (
        lambda: linear(outliers=2)._replace(attributes=linear(outliers=2).attributes | {"linear_outliers": [3, 3]}),
        "or is there twice",
    ),
    "an input too many": (
        lambda: linear()._replace(constants=[*linear().constants, np.ones(16, F32)]),
        "has 5 inputs and describes 4",
    ),
    "an input too few": (
        lambda: feed_forward()._replace(constants=feed_forward().constants[:-1]),
        "down_biases is not",
    ),
    "a subnormal scale": (
        lambda: linear()._replace(attributes=linear().attributes | {"linear_scale": 1e-45}),
        "linear_scale is 1.4",
    ),
}


def attempt(make: Callable[[], Node]) -> str:
    """What the operator says."""
    node = make()
    try:
        open_session(model(node.op, node.feeds, node.constants, **node.attributes)).run(["y"], node.feeds)
    except (errors.InvalidArgument, errors.RuntimeException, errors.Fail) as error:
        return str(error)
    return "it ran"


def main(names: list[str]) -> None:
    for name in names:
        print(attempt({**SOUND, **{key: row[0] for key, row in REFUSED.items()}}[name]).replace("\n", " "), flush=True)


def say(*names: str) -> list[str]:
    """What a process of its own says to each."""
    command = [sys.executable, __file__, *names]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)
    said = done.stdout.splitlines()
    assert done.returncode == 0, f"{names[len(said)]}: exit code {done.returncode}: {done.stderr[-2000:]}"
    return said


def test_what_is_sound_runs() -> None:
    assert say(*SOUND) == ["it ran"] * len(SOUND)


def test_what_is_not_is_refused_in_a_sentence() -> None:
    said = dict(zip(REFUSED, say(*REFUSED), strict=True))
    wrong = {name: said[name] for name, (_, wanted) in REFUSED.items() if not re.search(wanted, said[name])}
    assert not wrong


MEMORY = """
import resource, sys
sys.path[:0] = {path!r}
import numpy as np
from native_operators import model, open_session
tokens = 31_250
part = np.ones((tokens, 256), np.float32)
feeds = dict(query=part, key=part, value=part, starts=np.array([0, tokens]))
# A window of one key: much memory, little to compute.
session = open_session(model("PackedAttention", feeds, [], heads=1, before=0, after=0))
first = session.run(["y"], feeds)[0]
del first
size = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_AS, (size + 2**20, resource.RLIM_INFINITY))
try:
    session.run(["y"], feeds)
    print("it ran")
except Exception as error:
    print(error)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
np.testing.assert_allclose(session.run(["y"], feeds)[0], part, atol=1e-4)
"""


@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="the sanitizer's own memory has no such limit")
def test_a_call_without_memory_is_an_error_and_the_next_one_runs() -> None:
    code = MEMORY.format(path=[str(Path(__file__).parents[1])])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "std::bad_alloc" in done.stdout or "no memory" in done.stdout  # onnxruntime's own, or ours


if __name__ == "__main__":
    main(sys.argv[1:])
