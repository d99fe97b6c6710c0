"""Peak memory is this process's own; freed memory goes back after bulk work, and not more often than is worth it."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from malloc_heaps import fresh

from fastembed_rt.run import memory

HOLES = """
    import numpy as np
    from fastembed_rt.run.memory import Trimmer

    def resident():
        return int(open("/proc/self/statm").read().split()[1]) * 4096

    # Pieces below the size that gets a mapping of its own, every second one freed: the heap cannot shrink from its top.
    kept = [np.ones(12_000) for _ in range(4_000)]
    held = kept[::2]
    del kept
    before = resident()
    Trimmer().after_bulk()
    print(before - resident())
"""


needs_glibc = pytest.mark.skipif(memory._malloc_trim() is None, reason="no malloc_trim here")


def test_memory_between_what_lives_goes_back() -> None:
    if memory._malloc_trim() is None:
        pytest.skip("no malloc_trim here")
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(HOLES)], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 100e6  # of the 192 MB that were freed


def test_trims_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[int] = []

    def trim(pad: int) -> int:
        trims.append(pad)
        return 1

    clock = [100.0]
    monkeypatch.setattr(memory, "_malloc_trim", lambda: trim)
    monkeypatch.setattr(memory.Trimmer, "keeping", False)  # whatever ran in this process before
    monkeypatch.setattr("fastembed_rt.run.memory.time.monotonic", lambda: clock[0])
    trimmer = memory.Trimmer()
    trimmer.after_bulk()
    trimmer.after_bulk()
    clock[0] += memory.SECONDS
    trimmer.after_bulk()
    assert trims == [0, 0]


def test_other_c_libraries_have_nothing_to_trim(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_malloc_trim", lambda: None)
    memory.Trimmer().after_bulk()


@pytest.mark.parametrize("platform", ["darwin", "win32"])
def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch, platform: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    assert memory._malloc_trim.__wrapped__() is None


needs_proc = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")


@needs_proc
def test_the_peak_sees_an_allocation() -> None:
    before = memory.peak()
    assert before is not None
    block = np.ones(before // 8 + (64 << 20) // 8)  # more than ever was resident
    after = memory.peak()
    assert after is not None
    assert after - before >= (60 << 20)
    del block


@needs_proc
def test_the_peak_of_a_child_is_not_its_parents() -> None:
    block = np.ones((512 << 20) // 8)
    code = "from fastembed_rt.run.memory import peak; print(peak())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 1e6 < int(done.stdout) < 300e6 < block.nbytes


@needs_glibc
def test_a_long_job_keeps_what_is_free_until_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    trims: list[int] = []
    clock, now = [100.0], [300 << 20]
    monkeypatch.setattr(memory, "_malloc_trim", lambda: trims.append)
    monkeypatch.setattr(memory, "resident", lambda: now[0])
    monkeypatch.setattr("fastembed_rt.run.memory.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(memory.Trimmer, "keeping", True)
    trimmer = memory.Trimmer()
    for megabytes in (300, 350, 492, 493, 600):  # 192 more than at the last trim are kept
        now[0] = megabytes << 20
        trimmer.after_bulk()
        clock[0] += memory.SECONDS
    assert len(trims) == 2
    now[0] = 2000 << 20
    trimmer.after_bulk()
    clock[0] += memory.SECONDS
    now[0] = 2500 << 20  # a quarter of what it has
    trimmer.after_bulk()
    assert len(trims) == 3


@needs_glibc
def test_large_arrays_of_a_long_job_are_mapped() -> None:
    code = """
        from pathlib import Path
        import numpy as np
        from fastembed_rt.run import memory
        memory.keep_free(4 << 20)
        np.ones(30 << 17)  # 30 MB freed: glibc would keep what is smaller than that in its heaps from now on
        array = np.ones(5 << 17)
        places = [line.split() for line in Path("/proc/self/maps").read_text().splitlines()]
        def inside(place):
            first, last = (int(end, 16) for end in place[0].split("-"))
            return first <= array.ctypes.data < last
        print(["[heap]" in place for place in places if inside(place)], memory.resident() > 20 << 20)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    assert done.stdout == "[False] True\n"


HEAPS = """
    import threading
    import numpy as np
    from malloc_heaps import heaps
    from fastembed_rt.run import memory

    {call}
    together = threading.Barrier(41)

    def work():
        array = np.ones(5_000)  # 40 KB
        together.wait()
        together.wait()

    threads = [threading.Thread(target=work) for _ in range(40)]
    for thread in threads:
        thread.start()
    together.wait()
    print(heaps())
    together.wait()
"""


@needs_glibc
@pytest.mark.parametrize("shared", [True, False])
def test_threads_of_a_long_job_share_heaps(shared: bool) -> None:
    found = int(fresh(HEAPS.format(call="memory.share_heaps()" if shared else "")))
    few = max((os.cpu_count() or 1) // 4, 1)
    assert found <= few if shared else found >= min(4 * few, 40)


@needs_glibc
def test_the_end_of_the_heap_stays_with_a_long_job() -> None:
    code = """
        import numpy as np
        from fastembed_rt.run import memory
        memory.keep_free(4 << 20)
        arrays = [np.ones(3 << 17) for _ in range(30)]  # 3 MB each, below what is mapped
        most = memory.resident()
        del arrays
        print(most - memory.resident() < 10 << 20)
    """
    assert fresh(code) == "True\n"
