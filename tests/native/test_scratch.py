"""What calls of the operators need while they run: kept for the next call, given back; without memory an error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from malloc_heaps import fresh

from fastembed_rt import native

pytestmark = [
    pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}"),
    pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc"),
    pytest.mark.skipif("asan" in os.environ.get("LD_PRELOAD", ""), reason="that sanitizer keeps nothing"),
]

SESSION = """
    import resource
    import threading
    import numpy as np
    import onnxruntime
    from native_operators import model, open_session
    from fastembed_rt import native

    def resident():
        found = next(line for line in open("/proc/self/status") if line.startswith("RssAnon"))
        return int(found.split()[1]) * 1024

    ones = np.ones((12_000, 256), np.float32)

    def feeds(tokens):
        part = ones[:tokens]
        return dict(query=part, key=part, value=part, starts=np.array([0, tokens]))

    # A window of one key: much memory, little to compute.
    session = open_session(model("PackedAttention", feeds(4), [], heads=1, before=0, after=0))
    run = lambda tokens: session.run(["y"], feeds(tokens))
    run(4)
"""


def test_a_call_leaves_little_and_a_trim_takes_it() -> None:
    printed = fresh(
        SESSION
        + """
    before = resident()
    for tokens in (1_000, 4_000, 6_000, 2_500, 12_000):
        run(tokens)
    left = resident() - before
    native.trim()
    print(left, resident() - before)
    """
    )
    left, trimmed = map(int, printed.split())
    assert left < 18 << 20
    assert trimmed < left / 2


def test_threads_do_not_each_keep_the_most_that_they_had() -> None:
    """With heaps of the C library, as many keep some megabytes as there are threads."""
    printed = fresh(
        SESSION
        + """
    def work(seed):
        for tokens in np.random.default_rng(seed).integers(500, 3_000, 30):
            run(int(tokens))

    before = resident()
    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(12)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    print(resident() - before)
    """
    )
    assert int(printed) < 30 << 20


def test_a_node_of_onnxruntimes_without_memory_is_an_error() -> None:
    """Such a node writes to NULL where it is given that: its allocator has to throw."""
    printed = fresh(
        SESSION
        + """
    from onnx import TensorProto, helper

    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n"])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n"])
    graph = helper.make_graph([helper.make_node("Mul", ["x", "x"], ["y"])], "g", [x], [y])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    options = onnxruntime.SessionOptions()
    options.enable_cpu_mem_arena = False
    options.log_severity_level = 4
    options.register_custom_ops_library(str(native.library()))
    session = onnxruntime.InferenceSession(made.SerializeToString(), options, providers=["CPUExecutionProvider"])
    numbers = np.ones(32 << 20, np.float32)
    session.run(None, {"x": numbers[:10]})
    size = int(next(line for line in open("/proc/self/status") if line.startswith("VmSize")).split()[1]) * 1024
    resource.setrlimit(resource.RLIMIT_AS, (size + 2**20, resource.RLIM_INFINITY))
    try:
        session.run(None, {"x": numbers})
    except Exception as error:
        print(error)
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert (session.run(None, {"x": numbers})[0] == 1).all()
    """
    )
    assert "std::bad_alloc" in printed


@pytest.mark.parametrize("first", ["theirs", "ours"])
def test_another_allocator_of_the_process_stays_as_welcome_as_before(first: str) -> None:
    """A program may have its sessions share an arena of onnxruntime's; whoever comes first, both run."""
    printed = fresh(
        """
    import sys
    import numpy as np
    import onnxruntime
    from native_operators import model, open_session

    def theirs():
        kind, place = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR, onnxruntime.OrtMemType.DEFAULT
        onnxruntime.create_and_register_allocator(onnxruntime.OrtMemoryInfo("Cpu", kind, 0, place), None)

    def ours():
        part = np.ones((600, 256), np.float32)
        feeds = dict(query=part, key=part, value=part, starts=np.array([0, 600]))
        session = open_session(model("PackedAttention", feeds, [], heads=1, before=0, after=0))
        assert np.abs(session.run(["y"], feeds)[0] - 1).max() < 1e-4

    for step in (theirs, ours) if sys.argv[1] == "theirs" else (ours, theirs, ours):
        step()
    print("both")
    """,
        first,
    )
    assert printed.strip() == "both"
