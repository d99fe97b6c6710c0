"""Packed weights that sessions share: of equal layers only, whoever loads, releases or forks meanwhile."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import pytest
from forked import needs_gcc, status_of_child
from native_operators import LIBRARY, Group, model, open_session

from fastembed_rt import native

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
Array = npt.NDArray[Any]
X = np.random.default_rng(1).normal(0, 1, (5, 8)).astype(np.float32)


def layer(**options: Any) -> Group:
    group = Group(np.random.default_rng(0), 8, (16,), **options)
    group.zero = 128
    return group


def load(group: Group) -> onnxruntime.InferenceSession:
    return open_session(model("QuantLinear", {"x": X}, group.tensors(), **group.attributes("linear")))


def computed(session: onnxruntime.InferenceSession) -> Array:
    (found,) = session.run(["y"], {"x": X})
    result: Array = found
    return result


# The first 24 bytes of weights that a hash of products, once the only key, cannot tell apart: found in a second.
FIRST = (0x79690975FBDE15B0, 0x8D2E9F0EBB6BEECA, 0xB209C47490014885)
SECOND = (0x2A337357AE2CC59B, 0x4003EE5162BC95AC, 0x4554308048648510)


def test_layers_made_to_have_the_same_hash_keep_their_own_weights() -> None:
    groups = []
    for words in (FIRST, SECOND):
        group = layer()
        values = np.array(group.values[0])
        values.reshape(-1)[:24] = np.array(words, np.uint64).view(np.int8)
        group.values = (values,)
        groups.append(group)
    sessions = [load(group) for group in groups]  # both at once
    for group, session in zip(groups, sessions, strict=True):
        np.testing.assert_allclose(computed(session), group(X), atol=2e-5, rtol=2e-5)


def last(array: Array) -> None:
    array.reshape(-1)[-1] = -array.reshape(-1)[-1] if array.dtype != np.int8 else array.reshape(-1)[-1] ^ 0x55


CHANGES: dict[str, Callable[[Group], Any]] = {
    "weights": lambda group: last(group.values[0]),
    "scales": lambda group: last(group.scales[0]),
    "bias": lambda group: last(group.biases[0]),
    "smoothing": lambda group: last(group.smooth) if group.smooth is not None else None,
    "outlier rows": lambda group: last(group.rows[0]),
    "input scale": lambda group: setattr(group, "scale", np.float32(0.0211)),
    "zero point": lambda group: setattr(group, "zero", 127),
    "tails": lambda group: setattr(group, "tails", True),
    "dither": lambda group: setattr(group, "dither", True),
    "outlier channels": lambda group: setattr(group, "channels", [0, 7] if group.channels != [0, 7] else [1, 7]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_layers_that_differ_in_one_thing_keep_their_own(change: str) -> None:
    first, second = layer(outliers=2, smooth=True), layer(outliers=2, smooth=True)
    CHANGES[change](second)
    x = X * 5  # beyond the clip, for the outliers
    sessions = [load(first), load(second)]
    for group, session in zip((first, second), sessions, strict=True):
        (found,) = session.run(["y"], {"x": x})
        np.testing.assert_allclose(found, group(x), atol=5e-5, rtol=5e-5)


def test_sessions_load_and_release_at_once_and_a_forked_child_goes_on() -> None:
    groups = [layer(outliers=k, smooth=True) for k in range(3)]
    expected = [computed(load(group)) for group in groups]
    graphs = [model("QuantLinear", {"x": X}, group.tensors(), **group.attributes("linear")) for group in groups]
    stop = threading.Event()
    wrong: list[int] = []

    def keep_loading(seed: int) -> None:
        random = np.random.default_rng(seed)
        while not stop.is_set():
            index = int(random.integers(len(graphs)))
            if not np.array_equal(computed(open_session(graphs[index])), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=keep_loading, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            child = os.fork()
            if child == 0:  # nothing of pytest's may run here
                signal.alarm(30)  # a lock that another thread held at the fork would be waited for
                os._exit(0 if np.array_equal(computed(open_session(graphs[0])), expected[0]) else 1)
            _, status = os.waitpid(child, 0)
            assert status == 0
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert not wrong


@needs_gcc
def test_a_forked_child_registers_what_a_thread_of_its_parent_was_registering(tmp_path: Path) -> None:
    assert status_of_child(tmp_path, LIBRARY) == 0
