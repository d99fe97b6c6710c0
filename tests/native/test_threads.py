"""How many of a session's threads work on a call, and that it changes nothing."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from native_operators import Group, block, model, open_session, run

from fastembed_rt import native

pytestmark = pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}")
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


def sleeps() -> dict[str, int]:
    """How often each thread of this process went to sleep by itself."""
    found = {}
    for task in Path("/proc/self/task").iterdir():
        lines = (task / "status").read_text(encoding="ascii", errors="replace").splitlines()
        found[task.name] = next(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))
    return found


def settled() -> dict[str, int]:
    """`sleeps` when all threads have gone to sleep again."""
    before = sleeps()
    for _ in range(100):
        time.sleep(0.02)
        now = sleeps()
        # This thread sleeps here, once a round.
        if all(now[task] - before.get(task, 0) <= 1 for task in now) and now.keys() == before.keys():
            return now
        before = now
    return before


def woken(threads: int) -> int:
    """The most threads, with the caller, that one call of a layer with 60 panels took part in."""
    group = Group(np.random.default_rng(0), 64, (960,))
    x = np.random.default_rng(1).normal(0, 1, (64, 64)).astype(np.float32)
    made = model("QuantLinear", {"x": x}, group.tensors(), **group.attributes("linear"))
    # Threads that do not spin sleep between calls: one that slept once more was woken by the call.
    session = open_session(made, threads, spinning=False)
    session.run(["y"], {"x": x})
    most = 0
    for _ in range(5):
        before = settled()
        session.run(["y"], {"x": x})
        after = settled()
        # What was there before is neither this session's pool nor wakes more often than this.
        most = max(most, sum(after[task] > before.get(task, 0) for task in after))
    return most


def main() -> None:
    print(woken(int(sys.argv[1])))


@pytest.mark.parametrize("threads", [2, 8])
def test_a_call_takes_as_many_threads_as_its_session_has(threads: int) -> None:
    # A process of its own: no other test's threads wake in it.
    done = subprocess.run(
        [sys.executable, __file__, str(threads)],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert int(done.stdout) == threads


@pytest.mark.parametrize("threads", [2, 3, 8, 40])
def test_the_number_of_threads_changes_no_bits(threads: int) -> None:
    feeds, constants, attributes, _ = block(np.random.default_rng(0))
    alone: npt.NDArray[Any] = run("QuantAttention", feeds, constants, 1, **attributes)
    np.testing.assert_array_equal(run("QuantAttention", feeds, constants, threads, **attributes), alone)


if __name__ == "__main__":
    main()
