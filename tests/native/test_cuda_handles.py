"""The operators for CUDA on two pretended devices, beside a session that captures a graph, and in a forked child."""

from __future__ import annotations

import shutil
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from cuda_stand_in.sessions import StandIn, fed, model
from forked import status_of_child

from fastembed_rt.native import cuda

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not (shutil.which("gcc") and shutil.which("g++")), reason="needs gcc and g++ on Linux"
)
Array = npt.NDArray[Any]
X, SKIP = (np.random.default_rng(seed).standard_normal((5, 64)).astype(np.float16) for seed in range(2))
WEIGHT, GAMMA = np.full((64, 32), 0.125, np.float16), np.ones(64, np.float16)
NODES: dict[str, tuple[dict[str, Array], bytes]] = {
    "product": ({"x": X}, model("LinearFloat16", {"x": X}, [WEIGHT], in_features=64, out_features=32)),
    "kernel": (
        {"x": X, "skip": SKIP},
        model("AddNormFloat16", {"x": X, "skip": SKIP}, [GAMMA], width=64, epsilon=1e-5),
    ),
}


@pytest.fixture(scope="module")
def stand_in(tmp_path_factory: pytest.TempPathFactory) -> StandIn:
    return StandIn.built(tmp_path_factory.mktemp("cuda"))


def on(stand_in: StandIn, device: int, work: Callable[[], Any]) -> Any:
    """What a thread of its own makes of work, its current device set first."""
    made: list[Any] = []

    def run() -> None:
        stand_in.host.stand_in_set_device(device)
        try:
            made.append(work())
        except Exception as error:  # noqa: BLE001  of another thread
            made.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return made[0]


def test_each_device_has_handles_modules_and_choices_of_its_own(stand_in: StandIn) -> None:
    """The stand-in takes no handle and no function of the other device, as CUDA does not."""
    before = [len(cuda.choices(stand_in.file, device)) for device in (0, 1)]
    for feeds, graph in NODES.values():
        sessions = [on(stand_in, device, partial(stand_in.session, graph)) for device in (0, 1)]
        vectors = [on(stand_in, device, partial(fed, session, feeds)) for device, session in enumerate(sessions)]
        np.testing.assert_array_equal(vectors[0], vectors[1])
    assert before == [0, 0]
    chosen = [cuda.choices(stand_in.file, device) for device in (0, 1)]
    assert chosen[0] == chosen[1]
    assert len(chosen[0]) == 96


@pytest.mark.parametrize("name", list(NODES))
def test_a_call_on_another_device_than_its_session_is_refused(stand_in: StandIn, name: str) -> None:
    feeds, graph = NODES[name]
    session = on(stand_in, 1, lambda: stand_in.session(graph))
    said = on(stand_in, 0, lambda: fed(session, feeds))
    assert "the session is on device 1 and the call on 0" in str(said)
    assert isinstance(on(stand_in, 1, lambda: fed(session, feeds)), np.ndarray)


def test_cards_of_one_process_may_differ(stand_in: StandIn) -> None:
    stand_in.host.stand_in_set_capability(1, 75)
    assert [cuda.capability(stand_in.file, device) for device in (0, 1, 2)] == [90, 75, -1]


# Of a shape, and a file of kernels, that no other test has: handles, modules and choices are made once a process.
FRESH: dict[str, tuple[dict[str, Array], bytes]] = {
    "product": ({"x": X}, model("LinearFloat16", {"x": X}, [WEIGHT[:, :8]], in_features=64, out_features=8)),
    "kernel": ({"x": X}, model("UnitFloat16", {"x": X}, [], width=64)),
}


@pytest.mark.parametrize("name", list(FRESH))
def test_a_session_is_made_while_another_captures(stand_in: StandIn, name: str) -> None:
    """Memory, modules, handles and waits are forbidden then, unless the thread says that they are no matter of it."""
    feeds, graph = FRESH[name]
    before = stand_in.host.stand_in_products(2)
    stand_in.host.stand_in_set_cost(2, 0.5)  # which only a clock shows
    stand_in.host.stand_in_set_captured_elsewhere(1)
    try:
        session = stand_in.session(graph)
        assert stand_in.host.stand_in_forbidden(), "this thread is as it was"
        assert isinstance(fed(session, feeds), np.ndarray)
    finally:
        stand_in.host.stand_in_set_captured_elsewhere(0)
    after = fed(session, feeds), stand_in.host.stand_in_products(2) - before
    assert (after[1] > 1) == (name == "product")


def test_a_forked_child_registers_what_a_thread_of_its_parent_was_registering(
    stand_in: StandIn, tmp_path: Path
) -> None:
    assert status_of_child(tmp_path, stand_in.file, stand_in.standing_in, stand_in.standing_in) == 0
