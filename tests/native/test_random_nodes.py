"""Random nodes in onnxruntime itself: sound ones give what numpy gives, spoiled ones an error or a result, never harm.

The fuzz of `make sanitize` tries many more behind a stand-in (fuzz/); here the stand-in is compared with the original.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from native_operators import Group, attention, model, open_session
from onnxruntime.capi import onnxruntime_pybind11_state as errors

from fastembed_rt import native

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
Array = npt.NDArray[Any]
CASES = 300
WHOLES = (0, 1, -1, 2, 3, 16, 17, 255, 256, 2**31 - 1, 2**31, 2**32 + 5, 2**62, 64 - 2**63, 2**63 - 1, -(2**63))
ATTRIBUTES: tuple[Any, ...] = (
    *WHOLES,
    0.0,
    -1.0,
    1e-45,
    1e38,
    "",
    "gelu",
    "gelu_tanh_of_long_name",
    [],
    [3, 3],
    [2**40],
)
TYPES = (np.float32, np.float64, np.float16, np.int8, np.uint8, np.int32, np.int64, np.bool_)


def sound(random: np.random.Generator) -> tuple[str, dict[str, Array], list[Array], dict[str, Any], Array]:
    """Operator, feeds, constants, attributes, and what comes out."""
    if random.integers(2):
        inputs, outliers = int(random.integers(3, 40)), int(random.integers(0, 3))
        widths = random.integers(1, 40, random.integers(1, 4)).tolist()
        group = Group(random, inputs, widths, outliers=outliers, smooth=bool(random.integers(2)))
        group.tails, group.dither = bool(random.integers(2)), bool(random.integers(2))
        x = random.normal(0, 3, (random.integers(0, 70), inputs)).astype(np.float32)
        return "QuantLinear", {"x": x}, group.tensors(), group.attributes("linear"), group(x)
    size, kv_heads = int(random.integers(1, 20)), int(random.integers(1, 3))
    heads = kv_heads * int(random.integers(1, 3))
    starts = np.concatenate([[0], np.cumsum(random.integers(0, 20, random.integers(0, 5)))]).astype(np.int64)
    tokens, options = int(starts[-1]), {"before": int(random.integers(-1, 9)), "after": int(random.integers(-1, 9))}
    query, key, value = (
        random.normal(0, 1.5 / size**0.25, (tokens, n * size)).astype(np.float32) for n in (heads, kv_heads, kv_heads)
    )
    expected = attention(query, key, value, starts, heads, kv_heads, **options)
    feeds: dict[str, Array] = {"query": query, "key": key, "value": value, "starts": starts}
    return "PackedAttention", feeds, [], {"heads": heads, "kv_heads": kv_heads, **options}, expected


def spoiled(random: np.random.Generator, array: Array) -> Array:
    """Another type, rank, shape or content."""
    kind = random.integers(4)
    if kind == 0:
        return array.astype(TYPES[random.integers(len(TYPES))])
    if kind == 1:
        return array.reshape((1,) * int(random.integers(0, 3)) + array.shape) if array.ndim < 2 else array.reshape(-1)
    if kind == 2:
        return array[: len(array) // 2] if random.integers(2) else np.concatenate([array, array[:1]])
    if array.dtype == np.int64:
        return np.array([0, *(WHOLES[k] for k in random.integers(len(WHOLES), size=max(array.size - 1, 0)))], np.int64)
    return np.full_like(
        array, random.choice([0, 1, 127]) if array.dtype == np.int8 else random.choice([np.nan, np.inf])
    )


def try_case(number: int) -> None:
    random = np.random.default_rng(number)
    op, feeds, constants, attributes, expected = sound(random)
    types = [array.dtype for array in (*feeds.values(), *constants)]
    change = int(random.integers(4))
    if change == 1:
        attributes[random.choice(list(attributes))] = ATTRIBUTES[random.integers(len(ATTRIBUTES))]
    elif change == 2 and constants:
        index = int(random.integers(len(constants)))
        constants[index] = spoiled(random, constants[index])
    elif change:
        name = str(random.choice(list(feeds)))
        feeds[name] = spoiled(random, feeds[name])
    # An attribute without elements has no type in onnx, and is left out.
    attributes = {name: value for name, value in attributes.items() if value != []}
    try:
        found = open_session(model(op, feeds, constants, **attributes)).run(["y"], feeds)[0]
    except (errors.InvalidArgument, errors.RuntimeException, errors.Fail, errors.InvalidGraph) as error:
        assert change, f"a sound node is refused: {error}"
        return
    assert types == [array.dtype for array in (*feeds.values(), *constants)], "elements of another type were read"
    if not change:
        np.testing.assert_allclose(found, expected, atol=6e-3, rtol=1e-4)


def main(first: int, count: int) -> None:
    for number in range(first, first + count):
        print(number, flush=True)  # the last one printed is the one that ended the process
        try_case(number)


def test_random_nodes_are_computed_or_refused() -> None:
    command = [sys.executable, __file__, "0", str(CASES)]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"case {done.stdout.split()[-1:]}: {done.returncode}: {done.stderr[-2000:]}"


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
