"""Our own operators against the arithmetic that they stand for, written in numpy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from instructions_in_c import alone
from native_operators import ACTIVATIONS, LIBRARY, Group, attention, block, erf_gelu, normed, run

from fastembed_rt import native
from fastembed_rt.native import build

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
Array = npt.NDArray[Any]
OLDEST = list(build.kernels_of())[-1].removeprefix("kernels_")  # kernels that every processor runs


def test_the_library_is_called_what_the_build_calls_it() -> None:
    assert native.LIBRARY == build.LIBRARY


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


def wide_tailed(random: np.random.Generator, rows: int, inputs: int) -> Array:
    """Most within a few tenths, some of them hundreds."""
    return (random.laplace(0, 1, (rows, inputs)) ** 3).astype(np.float32)


def assert_close(found: Array, expected: Array, part: float = 2e-6) -> None:
    """Up to rounding, where sums of large terms are rounded in units of those."""
    np.testing.assert_allclose(found, expected, atol=part * np.abs(expected).max() + 2e-5, rtol=2e-5)


@pytest.mark.parametrize("zero", [0, 3, 128, 255])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"),
    [(1, 16, (1,)), (7, 24, (24, 24, 24)), (9, 33, (17,)), (65, 48, (50, 7)), (300, 100, (30,))],
)
@pytest.mark.parametrize(("outliers", "smooth"), [(0, False), (2, True)])
def test_tails_are_added_back(
    rows: int, inputs: int, outputs: tuple[int, ...], outliers: int, smooth: bool, zero: int
) -> None:
    random = np.random.default_rng(rows)
    group = Group(random, inputs, outputs, outliers=outliers, smooth=smooth, zero=zero, tails=True)
    x = wide_tailed(random, rows, inputs)
    found = run("QuantLinear", {"x": x}, group.tensors(), **group.attributes("linear"))
    assert_close(found, group(x))
    np.testing.assert_array_equal(found, run("QuantLinear", {"x": x}, group.tensors(), 2, **group.attributes("linear")))
    for row in {0, rows // 2, rows - 1}:
        alone = run("QuantLinear", {"x": x[row : row + 1]}, group.tensors(), **group.attributes("linear"))
        np.testing.assert_array_equal(found[row : row + 1], alone)
    # Nothing is added where nothing was taken: the same bits as without.
    inside = np.clip(x, *(np.array([-zero, 255 - zero]) * float(group.scale) / 2.1)).astype(np.float32)
    group.tails = False
    plain = run("QuantLinear", {"x": inside}, group.tensors(), **group.attributes("linear"))
    group.tails = True
    np.testing.assert_array_equal(
        run("QuantLinear", {"x": inside}, group.tensors(), **group.attributes("linear")), plain
    )


@pytest.mark.parametrize("zero", [0, 128, 255])
@pytest.mark.parametrize("tails", [False, True])
@pytest.mark.parametrize(
    ("rows", "inputs", "outputs"), [(1, 4, (1,)), (9, 33, (17,)), (65, 48, (50, 7)), (7, 384, (9,))]
)
@pytest.mark.parametrize(("outliers", "smooth"), [(0, False), (2, True)])
def test_dither_is_subtracted_again(
    rows: int, inputs: int, outputs: tuple[int, ...], outliers: int, smooth: bool, tails: bool, zero: int
) -> None:
    random = np.random.default_rng(rows)
    group = Group(random, inputs, outputs, outliers=outliers, smooth=smooth, zero=zero, tails=tails, dither=True)
    x = wide_tailed(random, rows, inputs)
    found = run("QuantLinear", {"x": x}, group.tensors(), **group.attributes("linear"))
    assert_close(found, group(x))
    np.testing.assert_array_equal(found, run("QuantLinear", {"x": x}, group.tensors(), 2, **group.attributes("linear")))
    last = run("QuantLinear", {"x": x[-1:]}, group.tensors(), **group.attributes("linear"))
    np.testing.assert_array_equal(found[-1:], last)


def test_errors_of_nearly_equal_rows_average_out_with_dither_alone() -> None:
    random = np.random.default_rng(3)
    group = Group(random, 64, (48,), zero=128)
    x = (random.normal(0, 0.3, 64) + random.normal(0, 1e-3, (400, 64))).astype(np.float32)
    (weights,) = (values * scales for values, scales in zip(group.values, group.scales, strict=True))
    exact = (x.astype(np.float64) @ weights + group.biases[0]).mean(axis=0)
    off = {}
    for group.dither in (False, True):
        found = run("QuantLinear", {"x": x}, group.tensors(), **group.attributes("linear"))
        off[group.dither] = np.sqrt(np.square(found.mean(axis=0) - exact).mean())
    assert off[True] < off[False] / 8


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38, -3e38, 1e30, 2e9])
def test_tails_without_end_count_as_a_million_steps(value: float) -> None:
    random = np.random.default_rng(5)
    group = Group(random, 40, (24,), zero=100, tails=True)
    x = wide_tailed(random, 9, 40)
    expected = group(x)
    x[4, 33] = np.float32(value)
    found = run("QuantLinear", {"x": x}, group.tensors(), **group.attributes("linear"))
    assert_close(np.delete(found, 4, axis=0), np.delete(expected, 4, axis=0))
    x[4, 33] = (-1e6 if value < 0 else 1e6) * float(group.scale)
    assert_close(found[4], group(x)[4])


@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_activations(activation: str) -> None:
    random = np.random.default_rng(1)
    group = Group(random, 16, (48,))
    group.biases = [np.linspace(-30, 30, 48, dtype=np.float32)]
    x = random.normal(0, 3, (5, 16)).astype(np.float32)
    found = run("QuantLinear", {"x": x}, group.tensors(), activation=activation, **group.attributes("linear"))
    np.testing.assert_allclose(found, ACTIVATIONS[activation](group(x)), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("activation", "error"), [("gelu", 1.5e-6), ("gelu_tanh", 6e-7)])
def test_gelu_is_as_exact_as_it_says(activation: str, error: float) -> None:
    near_0 = np.geomspace(1e-30, 0.38, 2000)
    values = np.concatenate([np.linspace(-9, 9, 40_001), near_0, -near_0, [0, 1e30, -1e30]]).astype(np.float32)
    group = Group(np.random.default_rng(2), 16, (len(values),))
    group.biases = [values]  # of zeros, a layer makes its biases
    found = run(
        "QuantLinear",
        {"x": np.zeros((1, 16), np.float32)},
        group.tensors(),
        activation=activation,
        **group.attributes("linear"),
    )[0]
    exact = ACTIVATIONS[activation](values.astype(np.float64))
    np.testing.assert_allclose(found, exact, atol=error, rtol=1e-7)
    small = (np.abs(values) < 0.38) & (values != 0)
    np.testing.assert_allclose(found[small], exact[small], atol=0, rtol=1e-5)
    assert not found[values == 0].any()


@pytest.mark.parametrize("rms", [False, True])
@pytest.mark.parametrize("width", [5, 16, 40, 384])
def test_residual_and_normalization(width: int, rms: bool) -> None:
    random = np.random.default_rng(width)
    group = Group(random, 16, (width,), tails=rms)
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


@pytest.mark.parametrize("tails", [False, True])
@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(("rows", "width", "hidden"), [(1, 24, 96), (15, 48, 64), (150, 32, 128), (70, 33, 112)])
def test_feed_forward(rows: int, width: int, hidden: int, gated: bool, tails: bool) -> None:
    random = np.random.default_rng(rows)
    up = Group(random, width, (hidden, hidden) if gated else (hidden,), outliers=1, smooth=True, tails=tails)
    down = Group(random, hidden, (width,), outliers=3, smooth=tails, tails=tails)
    x = random.normal(0, 2, (rows, width)).astype(np.float32)
    if tails:
        x[::3, width // 2] *= 50
        assert np.abs(up(x)).max() > 2 * np.abs(up(np.clip(x, -6, 6))).max()  # far beyond the range of most
    attributes = {"activation": "gelu", "gated": int(gated), **up.attributes("up"), **down.attributes("down")}
    constants = [*up.tensors(), *down.tensors()]
    found = run("QuantFeedForward", {"x": x}, constants, **attributes)
    np.testing.assert_array_equal(found, run("QuantFeedForward", {"x": x}, constants, 2, **attributes))
    last = run("QuantFeedForward", {"x": x[-1:]}, constants, **attributes)
    np.testing.assert_array_equal(found[-1:], last)
    wide = up(x)
    inner = erf_gelu(wide[:, :hidden]) * wide[:, hidden:] if gated else erf_gelu(wide)
    # A value on the edge between two steps may be rounded either way: one step of one channel.
    step = float(down.scale) * float(np.abs(down.values[0] * down.scales[0]).max())
    off = np.abs(found - down(inner))
    assert off.max() < 2.5 * step
    assert np.mean(off > 1e-4) < 0.1


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


@pytest.mark.parametrize("extras", [{}, {"dither": True}])
@pytest.mark.parametrize("options", [{}, {"before": 70, "after": 3}, {"table": True}])
@pytest.mark.parametrize("size", [16, 64])
def test_an_attention_block_a_head_at_a_time(size: int, options: dict[str, Any], extras: dict[str, Any]) -> None:
    """Where all heads at once are more than a cache holds: the same bits as those of fewer texts, all heads at once."""
    random, heads, lengths = np.random.default_rng(size), 12, [5, 210, 40, 2, 64, 0, 3, 180]
    if "table" in options:
        options = {"table": random.normal(0, 1, (heads, 2 * 220 - 1)).astype(np.float32)}
    feeds, constants, attributes, expected = block(random, lengths, heads, size, options, extras)
    found = run("QuantAttention", feeds, constants, **attributes)
    off = np.abs(found - expected())
    assert off.max() < 0.15  # a few steps of the projection's input; 768 channels are far apart in one somewhere
    assert off.mean() < 2e-3
    np.testing.assert_array_equal(found, run("QuantAttention", feeds, constants, 2, **attributes))
    for text in (0, 2, 4):
        start, end = feeds["starts"][text : text + 2]
        rows = feeds["x"][start:end]
        alone = {"x": rows, "starts": np.array([0, end - start])}
        others = [constant if constant is not feeds["x"] else rows for constant in constants]
        np.testing.assert_array_equal(run("QuantAttention", alone, others, **attributes), found[start:end])


@pytest.mark.skipif(OLDEST != "avx2", reason="compiled for x86")
def test_heads_one_at_a_time_and_all_at_once_have_the_same_bits(tmp_path: Path) -> None:
    random, found = np.random.default_rng(5), []
    feeds, constants, attributes, _ = block(random, [90, 1, 0, 33, 200, 64], 3, 32, extras={"dither": True})
    for size in (1, 1 << 40):  # of the cache that is reckoned with
        flags = {"kernels_avx2": (*build.AVX2, "-O1", f"-DCACHED_BYTES={size}L")}
        made = build.build(tmp_path / f"{size}.so", flags, alone("kernels_avx2"))
        found += [run("QuantAttention", feeds, constants, threads, made, **attributes) for threads in (1, 2)]
    for other in found[1:]:
        np.testing.assert_array_equal(other, found[0])


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
from native_operators import block, run, turned_block
from pathlib import Path
found = []
for shape in ((), ([200, 5, 70], 12, 12, 64), ([700, 5], 3, 1, 128)):
    feeds, constants, attributes, _ = turned_block(np.random.default_rng(0), *shape, norm="first")
    found.append(run("QuantAttention", feeds, constants, library=Path({library!r}), **attributes).ravel())
for shape in ((), ([200, 5, 70], 12, 32)):
    feeds, constants, attributes, _ = block(np.random.default_rng(0), *shape)
    found.append(run("QuantAttention", feeds, constants, library=Path({library!r}), **attributes).ravel())
np.save({out!r}, np.concatenate(found))
"""


def bits(kernels: str, library: Path, out: Path) -> Array:
    code = SAME_BITS.format(path=[str(Path(__file__).parents[1])], out=str(out), library=str(library))
    environment = {**os.environ, native.SWITCH: kernels}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: Array = np.load(out)
    return found


def test_every_instruction_set_gives_the_same_bits(tmp_path: Path) -> None:
    best = bits("", LIBRARY, tmp_path / "best.npy")
    np.testing.assert_array_equal(bits(OLDEST, LIBRARY, tmp_path / "oldest.npy"), best)


@pytest.mark.skipif(native.kernels() != "avx512vnni", reason="this processor has no instructions to stand in for them")
def test_the_kernels_for_avx_vnni_give_the_same_bits(tmp_path: Path) -> None:
    """Compiled to the same instructions under the names of AVX-512VL, in the place of the AVX-512 kernels."""
    standing_in = (*build.KERNELS["kernels_avx512vnni"], "-DAVXVNNI_AS_AVX512VL")
    library = build.build(tmp_path / "library.so", {**build.KERNELS, "kernels_avx512vnni": standing_in})
    best = bits("", LIBRARY, tmp_path / "best.npy")
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
        with pytest.raises(Exception, match=r"starts (go|fall|is)"):
            run("PackedAttention", feeds, [], heads=2, kv_heads=2)
