"""Packed weights on large pages: asked for, and given back when their session goes."""

from __future__ import annotations

import ctypes
import gc
import os
import re
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from native_operators import Group, model, open_session

from fastembed_rt import native

SMAPS = Path("/proc/self/smaps")
pytestmark = [
    pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}"),
    pytest.mark.skipif(not SMAPS.exists(), reason="no /proc/self/smaps: not Linux"),
]


def load(seed: int, inputs: int, outputs: int) -> tuple[onnxruntime.InferenceSession, Group]:
    group = Group(np.random.default_rng(seed), inputs, (outputs,))
    x = np.zeros((1, inputs), np.float32)
    return open_session(model("QuantLinear", {"x": x}, group.tensors(), **group.attributes("linear"))), group


def asked_for_large_kb() -> int:
    """Of all mappings that may have large pages; numpy asks for them, too."""
    mappings = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", SMAPS.read_text(encoding="utf-8"))
    asked = [mapping for mapping in mappings if re.search(r"(?m)^VmFlags:.* hg\b", mapping)]
    return sum(int(kb) for mapping in asked for kb in re.findall(r"(?m)^Size: +(\d+) kB", mapping))


def resident_kb() -> int:
    getattr(ctypes.CDLL(None), "malloc_trim", int)(0)  # or glibc keeps what the test itself had
    return sum(int(kb) for kb in re.findall(r"(?m)^Anonymous: +(\d+) kB", SMAPS.read_text(encoding="utf-8")))


def test_weights_larger_than_a_chunk_are_multiplied_whole() -> None:
    session, group = load(0, 4096, 12_288)
    x = np.random.default_rng(1).normal(0, 1, (3, 4096)).astype(np.float32)
    (found,) = session.run(["y"], {"x": x})
    expected = group(x)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())


@pytest.mark.skipif(not Path("/sys/kernel/mm/transparent_hugepage").exists(), reason="the kernel has no large pages")
@pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="a library with that sanitizer maps no pages")
def test_weights_ask_for_large_pages_and_go_with_their_session() -> None:
    session, group = load(0, 4096, 12_288)  # 48 MB, more than a chunk
    del group  # what numpy has asked for
    gc.collect()
    held = asked_for_large_kb()
    del session
    gc.collect()
    assert held - asked_for_large_kb() >= 48 << 10


def test_what_goes_is_given_back_beside_what_stays() -> None:
    x = np.random.default_rng(1).normal(0, 1, (3, 64)).astype(np.float32)
    load(0, 1024, 4096)
    kept = []
    gc.collect()
    least = resident_kb()
    for seed in range(1, 25):  # 4 MB each, 96 MB if nothing went, and small ones that stay in every chunk
        large = load(seed, 1024, 4096)
        kept.append(load(seed, 64, 64))
        del large
    gc.collect()
    assert resident_kb() - least < 48 << 10
    for session, group in kept:
        np.testing.assert_allclose(session.run(["y"], {"x": x})[0], group(x), atol=1e-4)
