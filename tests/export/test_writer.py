"""The protobuf written by hand beside the one that onnx writes: the same message, tensor by tensor."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper

from fastembed_rt_export.graph import writer
from fastembed_rt_export.graph.graph import FLOAT, Graph
from fastembed_rt_export.graph.weight import Weight
from fastembed_rt_export.graph.writer import write

Arrays = dict[str, npt.NDArray[Any]]
VARINT_EDGES = (0, 1, 127, 128, 16383, 16384, 2**21 - 1, 2**21, 2**31 - 1, 2**31, 2**63)


def held(name: str, array: npt.NDArray[Any]) -> Weight:
    return Weight(name, array.shape, lambda: array, array.dtype)


def graph_of(arrays: Arrays) -> Graph:
    """A graph with these weights; one node, which uses none of them."""
    graph = Graph(17)
    for name, array in arrays.items():
        graph.weight(held(name, array))
    x = graph.input("x", FLOAT, ("batch", 2))
    graph.output(graph.node("Add", x, graph.constant(1.0), name="plus one"), "y", FLOAT, ("batch", 2))
    return graph


def by_onnx(directory: Path, arrays: Arrays) -> onnx.ModelProto:
    """The same graph, with the tensors put in by onnx itself."""
    write(graph_of({}), directory, "empty.onnx", name="named", metadata={"key": "value"})
    model = onnx.load(str(directory / "empty.onnx"))
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def assert_written_as_onnx_writes(directory: Path, arrays: Arrays, *, external: bool = False) -> None:
    graph = graph_of(arrays)
    written = write(graph, directory, "file.onnx", name="named", metadata={"key": "value"}, external=external)
    assert written.weights == (("file.onnx.data",) if external else ())
    model = onnx.load(str(directory / "file.onnx"))
    onnx.checker.check_model(str(directory / "file.onnx"), full_check=True)
    read = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert read[name].shape == array.shape
        assert read[name].tobytes() == np.ascontiguousarray(array).tobytes()
        file, offset, length = written.offsets[name]
        assert (directory / file).read_bytes()[offset : offset + length] == np.ascontiguousarray(array).tobytes()
    if not external:
        wanted = by_onnx(directory, arrays)
        assert model == wanted
        assert (directory / "file.onnx").stat().st_size == wanted.ByteSize()
    session = onnxruntime.InferenceSession(str(directory / "file.onnx"))
    (y,) = session.run(["y"], {"x": np.zeros((1, 2), np.float32)})
    np.testing.assert_array_equal(y, np.ones((1, 2), np.float32))


def normal(*shape: int) -> npt.NDArray[np.float32]:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize(
    "array",
    [
        normal(3, 4),
        normal(4, 3).T,  # not contiguous
        normal(3, 4).astype(np.float16),
        normal(3, 4).astype(np.float64),
        normal(3, 4).astype(ml_dtypes.bfloat16),
        np.arange(-128, 128, dtype=np.int8).reshape(16, 16),
        np.arange(256, dtype=np.uint8),
        np.array([-(2**63), 2**63 - 1]),
        np.array([True, False]),
        np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], np.float32),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_every_type_of_weight_is_written_bit_by_bit(tmp_path: Path, array: npt.NDArray[Any], external: bool) -> None:
    assert_written_as_onnx_writes(tmp_path, {"weight": array}, external=external)


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0)])
def test_an_empty_weight_is_written(tmp_path: Path, shape: tuple[int, ...], external: bool) -> None:
    arrays: Arrays = {"before": normal(2), "empty": np.zeros(shape, np.float32), "after": normal(2)}
    assert_written_as_onnx_writes(tmp_path, arrays, external=external)


@pytest.mark.parametrize("length", [1, 126, 127, 128, 129, 16382, 16383, 16384, 16385])
def test_lengths_around_the_edges_of_a_varint_are_written(tmp_path: Path, length: int) -> None:
    arrays: Arrays = {"first": np.arange(length).astype(np.int8), "second": np.ones(length, np.int8)}
    assert_written_as_onnx_writes(tmp_path, arrays)


@pytest.mark.parametrize("total", range(100, 140))
def test_tensors_whose_whole_message_is_around_an_edge_are_written(tmp_path: Path, total: int) -> None:
    assert_written_as_onnx_writes(tmp_path, {"w": np.ones(total, np.int8)})


@pytest.mark.parametrize("name", ["вес.ω", "重み/0", "🙂", "a b\tc", "x" * 127, "x" * 128, "é" * 8192])
def test_names_of_any_letters_and_lengths_are_written(tmp_path: Path, name: str) -> None:
    assert_written_as_onnx_writes(tmp_path, {name: normal(2, 2), "other": normal(1)})


def test_a_graph_without_weights_is_written(tmp_path: Path) -> None:
    assert_written_as_onnx_writes(tmp_path, {})


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), max_size=6, unique=True),
    lengths=st.lists(st.integers(0, 300), min_size=6, max_size=6),
)
def test_any_names_and_lengths_are_written(
    tmp_path_factory: pytest.TempPathFactory, names: list[str], lengths: list[int]
) -> None:
    arrays: Arrays = {f"w {name}": np.full(lengths[k], k, np.int8) for k, name in enumerate(names)}
    graph = graph_of(arrays)
    directory = tmp_path_factory.mktemp("any")
    write(graph, directory, "file.onnx", name="named", metadata={"key": "value"})
    assert onnx.load(str(directory / "file.onnx")) == by_onnx(directory, arrays)


@pytest.mark.parametrize("value", VARINT_EDGES)
def test_a_varint_reads_back(value: int) -> None:
    encoded = writer._varint(value)
    assert sum((byte & 0x7F) << 7 * place for place, byte in enumerate(encoded)) == value
    assert [byte >> 7 for byte in encoded] == [1] * (len(encoded) - 1) + [0]
    assert len(encoded) == max(1, -(-value.bit_length() // 7))


def test_external_weights_begin_on_pages(tmp_path: Path) -> None:
    arrays: Arrays = {"a": normal(3), "b": normal(1024), "c": normal(1025), "d": normal(2)}
    written = write(graph_of(arrays), tmp_path, "file.onnx", name="n", metadata={}, external=True)
    assert [offset for _, offset, _ in written.offsets.values()] == [0, 4096, 8192, 16384]
    (tensor, *_) = onnx.load(str(tmp_path / "file.onnx"), load_external_data=False).graph.initializer[1:]
    assert {entry.key: entry.value for entry in tensor.external_data}["location"] == "file.onnx.data"


def test_a_graph_over_the_limit_goes_to_external_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PROTOBUF_LIMIT", 100)
    assert write(graph_of({"w": normal(25)}), tmp_path, "a.onnx", name="n", metadata={}).weights == ()
    assert write(graph_of({"w": normal(26)}), tmp_path, "b.onnx", name="n", metadata={}).weights == ("b.onnx.data",)


def test_weights_are_read_one_at_a_time(tmp_path: Path) -> None:
    alive: list[int] = []
    most = 0

    class Counted(np.ndarray[Any, Any]):
        def __del__(self) -> None:
            if self.base is None:
                alive.pop()

    def load() -> npt.NDArray[Any]:
        nonlocal most
        alive.append(1)
        most = max(most, len(alive))
        array: Counted = np.ndarray.__new__(Counted, (4,), np.float32)
        array[:] = 1
        return array

    graph = graph_of({})
    for index in range(8):
        graph.weight(Weight(f"w{index}", (4,), load))
    write(graph, tmp_path, "file.onnx", name="n", metadata={})
    assert most <= 2  # the last one is forgotten when the next one is there


@pytest.mark.parametrize("external", [False, True])
def test_weights_of_another_file_are_referred_to_and_not_written_again(tmp_path: Path, external: bool) -> None:
    arrays: Arrays = {"a": normal(3, 5), "b": normal(2000)}
    first = write(graph_of(arrays), tmp_path, "first.onnx", name="n", metadata={}, external=external)
    more: Arrays = {"new": normal(7), **arrays}
    second = write(graph_of(more), tmp_path, "second.onnx", name="n", metadata={}, shared=first.offsets)
    assert second.weights == (("first.onnx.data",) if external else ("first.onnx",))
    read = {t.name: numpy_helper.to_array(t) for t in onnx.load(str(tmp_path / "second.onnx")).graph.initializer}
    for name, array in more.items():
        np.testing.assert_array_equal(read[name], array)
    assert (tmp_path / "second.onnx").stat().st_size < 1000
    onnxruntime.InferenceSession(str(tmp_path / "second.onnx"))


def test_a_weight_that_comes_in_another_shape_than_announced_is_an_error(tmp_path: Path) -> None:
    graph = graph_of({})
    graph.weight(Weight("w", (2, 3), lambda: np.zeros((3, 2), np.float32)))
    with pytest.raises(ValueError, match=r"w came as \(3, 2\), \(2, 3\) was announced"):
        write(graph, tmp_path, "file.onnx", name="n", metadata={})


def broken_node(graph: Graph) -> None:
    graph.node("NoSuchOperator", "x")


def broken_types(graph: Graph) -> None:
    graph.node("And", "x", "x")


def broken_wire(graph: Graph) -> None:
    graph.node("Add", "x", "nothing")


@pytest.mark.parametrize("spoil", [broken_node, broken_types, broken_wire])
def test_a_graph_that_is_not_onnx_is_an_error_before_anything_is_written(
    tmp_path: Path, spoil: Callable[[Graph], None]
) -> None:
    graph = graph_of({"w": normal(3)})
    spoil(graph)
    with pytest.raises(Exception, match=r"(?i)operator|schema|type|input"):
        write(graph, tmp_path, "file.onnx", name="n", metadata={})
    assert list(tmp_path.iterdir()) == []
