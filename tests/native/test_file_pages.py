"""Weights that were packed count once: pages of their file leave the resident set, and no memory else is touched."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from native_operators import LIBRARY, Group, model
from onnx import external_data_helper, load_from_string, save_model

from fastembed_rt import native

SMAPS = Path("/proc/self/smaps")
PAGEMAP = Path("/proc/self/pagemap")
pytestmark = [
    pytest.mark.skipif(native.kernels() is None, reason=f"operators do not run here: {native.why_not()}"),
    pytest.mark.skipif(not PAGEMAP.exists(), reason="no /proc/self/pagemap here"),
]
X = np.random.default_rng(1).normal(0, 1, (3, 512)).astype(np.float32)


@pytest.fixture
def group() -> Group:
    return Group(np.random.default_rng(0), 512, (1024,))  # 512 KB of values


def graph_of(group: Group) -> bytes:
    return model("QuantLinear", {"x": X}, group.tensors(), **group.attributes("linear"))


def options() -> onnxruntime.SessionOptions:
    made = onnxruntime.SessionOptions()
    made.register_custom_ops_library(str(LIBRARY))
    return made


def resident(file: Path) -> list[tuple[int, int]]:
    """Kilobytes of each mapping of a file in the resident set, and of those that are no longer the file's."""
    found: list[list[int]] = []
    inside = False
    for line in SMAPS.read_text(encoding="utf-8").splitlines():
        name, _, rest = line.partition(":")
        if "-" in name.split()[0]:
            inside = line.endswith(str(file))
            if inside:
                found.append([0, 0])
        elif inside and name in ("Rss", "Anonymous"):
            found[-1][name == "Anonymous"] += int(rest.split()[0])
    return [(rss, anonymous) for rss, anonymous in found]


def assert_right(session: onnxruntime.InferenceSession, group: Group) -> None:
    expected = group(X)
    np.testing.assert_allclose(session.run(["y"], {"x": X})[0], expected, atol=1e-4 * np.abs(expected).max())


def test_a_files_pages_go_where_they_were_packed_and_stay_where_others_map_it(group: Group, tmp_path: Path) -> None:
    whole = load_from_string(graph_of(group))
    external_data_helper.convert_model_to_external_data(whole, location="weights of a model", size_threshold=4096)
    save_model(whole, tmp_path / "model.onnx")
    file = tmp_path / "weights of a model"
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as held:
        assert held[:]
        before = resident(file)
        session = onnxruntime.InferenceSession(tmp_path / "model.onnx", options())
        mapped = resident(file)
        assert len(mapped) > len(before) == 1
        assert before[0] in mapped  # of the test's own mapping
        assert sum(rss for rss, _ in mapped) - before[0][0] < 64
        assert_right(session, group)


@pytest.mark.parametrize("written", [False, True])
def test_a_page_that_was_written_to_stays(group: Group, tmp_path: Path, written: bool) -> None:
    file = tmp_path / "values"
    file.write_bytes(group.values[0].tobytes())
    with file.open("rb") as stream:
        held = mmap.mmap(stream.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    values = np.frombuffer(held, np.int8).reshape(group.values[0].shape)
    if written:
        values[300, 5] ^= 7
        group.values = (values.copy(),)
    graph = load_from_string(graph_of(group))
    external_data_helper.set_external_data(graph.graph.initializer[0], "values")
    graph.graph.initializer[0].ClearField("raw_data")
    save_model(graph, tmp_path / "model.onnx")
    made, value = options(), onnxruntime.OrtValue.ortvalue_from_numpy(values)
    made.add_initializer("c0", value)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", made)
    assert resident(file) == [(4, 4) if written else (0, 0)]
    assert np.array_equal(values, group.values[0])
    assert_right(session, group)
