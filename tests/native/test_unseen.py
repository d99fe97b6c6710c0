"""Tokens that see others and are not seen by them: queries of late interaction that are filled up with masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from instructions_in_c import library
from native_operators import LIBRARY, FloatGroup, Group, run, turned_block

from fastembed_rt import native

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
Array = npt.NDArray[Any]
LENGTHS = [5, 0, 32, 210, 1, 700]
SEEN = np.array([3, 0, 7, 150, 1, 650])
STARTS = np.concatenate([[0], np.cumsum(LENGTHS)])
FORMS = pytest.mark.parametrize("in_float", [0, 1])


@pytest.fixture(scope="module")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The best kernels of this processor, and AMX's with instructions in C."""
    return [LIBRARY, library(tmp_path_factory.mktemp("emulated"), "TILES_IN_C")]


def heads(size: int = 32) -> dict[str, Array]:
    random = np.random.default_rng(size)
    names = ("query", "key", "value")
    made = {name: random.normal(0, 1, (int(STARTS[-1]), 2 * size)).astype(np.float32) for name in names}
    made["query"] *= np.float32(1.5 / np.sqrt(size))
    return made


def attend(
    parts: dict[str, Array], starts: Array, seen: Array | None, in_float: int, path: Path | None = None, **more: Any
) -> Array:
    feeds = {**parts, "starts": starts} | ({} if seen is None else {"seen": seen})
    shape = {"heads": 2, "kv_heads": 2, "in_float": in_float, "seen": int(seen is not None)}
    return run("PackedAttention", feeds, [], 2, path, **shape, **more)


def expected(parts: dict[str, Array], before: int = -1) -> Array:
    """In float64: of each text, all queries and the first keys."""
    size = parts["query"].shape[1] // 2
    out = np.zeros(parts["query"].shape)
    for start, stop, seen in zip(STARTS[:-1], STARTS[1:], SEEN, strict=True):
        for head in (slice(0, size), slice(size, 2 * size)):
            key, value = (parts[name][start : start + seen, head].astype(np.float64) for name in ("key", "value"))
            scores = parts["query"][start:stop, head].astype(np.float64) @ key.T
            if before >= 0:
                apart = np.arange(stop - start)[:, None] - np.arange(seen)
                scores[apart > before] = -np.inf
            share = np.exp(scores - scores.max(axis=1, keepdims=True, initial=-np.inf))
            out[start:stop, head] = share / share.sum(axis=1, keepdims=True) @ value if seen else 0
    return out


@FORMS
@pytest.mark.parametrize("size", [16, 24, 64])
@pytest.mark.parametrize("before", [-1, 100])
def test_masks_see_what_is_seen(libraries: list[Path], size: int, in_float: int, before: int) -> None:
    parts = heads(size)
    window: dict[str, Any] = {} if before < 0 else {"before": before}
    found = attend(parts, STARTS, SEEN, in_float, **window)
    assert np.abs(found - expected(parts, before)).max() < (2e-6 if in_float else 2e-3)
    for path in libraries:
        np.testing.assert_array_equal(attend(parts, STARTS, SEEN, in_float, path, **window), found)


@FORMS
def test_what_is_seen_does_not_see_the_masks(in_float: int) -> None:
    """To the bit: it is as if they were not there, and for each of them as if it stood alone."""
    parts = heads()
    found = attend(parts, STARTS, SEEN, in_float)
    for text, (start, seen) in enumerate(zip(STARTS, SEEN, strict=False)):
        own = {name: array[start : start + seen] for name, array in parts.items()}
        alone = attend(own, np.array([0, seen]), None, in_float)
        np.testing.assert_array_equal(found[start : start + seen], alone)
        if seen < LENGTHS[text]:
            last = {**own, "query": parts["query"][STARTS[text + 1] - 1 : STARTS[text + 1]]}
            one = attend(last, np.array([0, seen]), None, in_float, first_only=1)
            np.testing.assert_array_equal(found[STARTS[text + 1] - 1 : STARTS[text + 1]], one)


@pytest.mark.parametrize("kind", ["Quant", "Fp32"])
def test_blocks_and_first_tokens(libraries: list[Path], kind: str) -> None:
    feeds, constants, attributes, _ = turned_block(
        np.random.default_rng(5), LENGTHS, 4, 2, 32, norm="first", group=Group if kind == "Quant" else FloatGroup
    )
    starts, rest = feeds.pop("starts"), {name: feeds[name] for name in feeds if name != "x"}
    order = {"x": feeds["x"], "starts": starts, "seen": SEEN, **rest}

    def made(order: dict[str, Array], path: Path | None = None, **more: Any) -> Array:
        given = [order["x"] if array is feeds["x"] else array for array in constants]
        return run(f"{kind}Attention", order, given, 2, path, **attributes | more)

    found = made(order, seen=1)
    for path in libraries:
        np.testing.assert_array_equal(made(order, path, seen=1), found)
    for text in (0, 2, 3, 5):
        short, whole = slice(starts[text], starts[text] + SEEN[text]), slice(*starts[text : text + 2])
        cases: list[tuple[slice, dict[str, Any]]] = [(short, {}), (whole, {"seen": 1})]
        for tokens, more in cases:
            alone = {name: array[tokens] for name, array in order.items() if name not in ("starts", "seen")}
            cut = {"x": alone.pop("x"), "starts": np.array([0, tokens.stop - tokens.start])}
            if more:
                cut["seen"] = SEEN[text : text + 1]
            np.testing.assert_array_equal(made(cut | alone, **more), found[tokens])


@pytest.mark.parametrize(
    ("seen", "more", "message"),
    [
        ([4, 2], {}, "text 0 has 3 tokens, of which 4 cannot be seen"),
        ([0, 2], {}, "text 0 has 3 tokens, of which 0 cannot be seen"),
        ([-1, 2], {}, "of which -1 cannot be seen"),
        ([3], {}, "seen is int64"),
        ([3, 3, 3], {}, "seen is int64"),
        ([1, 2], {"before": 1}, "text 0 has 3 tokens, and the last of them sees none of the first 1"),
    ],
)
def test_what_cannot_be_is_refused(seen: list[int], more: dict[str, Any], message: str) -> None:
    part = np.ones((6, 64), np.float32)
    parts = {"query": part, "key": part, "value": part}
    with pytest.raises(Exception, match=message):
        attend(parts, np.array([0, 3, 6]), np.array(seen, np.int64), 0, **more)
    with pytest.raises(Exception, match="seen and by_distance exclude each other"):
        feeds = {**parts, "starts": np.array([0, 6]), "seen": np.array([3])}
        run("PackedAttention", feeds, [np.zeros((2, 11), np.float32)], heads=2, kv_heads=2, seen=1, by_distance=1)
