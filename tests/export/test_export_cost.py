"""What an export holds at a time and writes: no second copy of a word table, weights of trials once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from checkpoints import save_sentence_transformers
from safetensors.numpy import save_file

from fastembed_rt.manifest import EMBEDDING, OUTPUTS
from fastembed_rt.run import memory
from fastembed_rt_export import tensors
from fastembed_rt_export.graph.graph import FLOAT, Graph
from fastembed_rt_export.graph.int8 import ROWS, table_weights
from fastembed_rt_export.graph.weight import Weight, in_rows
from fastembed_rt_export.quantize import fit
from fastembed_rt_export.quantize.watching import _keep, _Rows

WORDS, WIDTH = 120_000, 192  # of the table: 92 MB
PEAK = """
import sys
import onnx, onnxruntime, tokenizers
from pathlib import Path
from fastembed_rt.run import memory
from fastembed_rt_export.pipeline import ExportOptions, export
before = memory.peak()
options = ExportOptions(output=Path(sys.argv[2]), precisions=("fp32", "int8"), verify=False, min_cosine=-1.0)
export(sys.argv[1], options)
print(memory.peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(memory.peak() is None, reason="this system does not tell")
def test_memory_is_bounded_by_the_table_and_a_part_of_it(tmp_path: Path) -> None:
    source = save_sentence_transformers(
        tmp_path / "bert",
        max_seq_length=40,
        vocab_size=WORDS,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=1,
    )
    command = [sys.executable, "-c", PEAK, str(source), str(tmp_path / "made")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    table = 4 * WORDS * WIDTH
    # The table in its file, with the row of token types added, and in integers; 80 MB for all else.
    assert int(done.stdout) <= 2.25 * table + 80e6, f"{int(done.stdout) / table:.2f} times the table"


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", ["x", "another name"])  # which move the values to other places of the file
def test_tensors_have_their_values_wherever_they_lie(tmp_path: Path, dtype: Any, name: str) -> None:
    random = np.random.default_rng(0)
    given = {"odd": random.integers(0, 9, 3).astype(np.uint8), "none": np.zeros((0, 4), dtype)}
    given |= {f"{name}{k}": random.standard_normal((k + 1, 3)).astype(dtype) for k in range(3)}
    save_file(given, tmp_path / "model.safetensors")
    stored = tensors.read_file(tmp_path / "model.safetensors")
    for key, values in given.items():
        found = stored[key].load()
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, values.astype(np.float32))


def test_a_float32_tensor_is_mapped_and_not_copied(tmp_path: Path) -> None:
    save_file({"table": np.ones((64, 8), np.float32)}, tmp_path / "model.safetensors")
    found = tensors.read_file(tmp_path / "model.safetensors")["table"].load()
    assert isinstance(found.base, np.memmap)


@pytest.mark.parametrize("rows", [3, ROWS, 2 * ROWS + 5])
def test_a_table_has_the_same_integers_whatever_is_made_at_a_time(rows: int) -> None:
    table = np.random.default_rng(1).standard_normal((rows, 8)).astype(np.float32)
    values, scales = (weight.load() for weight in table_weights(Weight("table", table.shape, lambda: table)))
    expected = np.abs(table).max(axis=1, keepdims=True) / np.float32(127)
    np.testing.assert_allclose(scales, expected, rtol=1e-6)
    np.testing.assert_array_equal(values, np.rint(table / scales))


@pytest.mark.parametrize("shape", [(1, 1), (70, 3), (3, 70), (200, 129)])
def test_a_transposed_matrix_is_copied_as_it_is(shape: tuple[int, int]) -> None:
    given = np.random.default_rng(2).standard_normal(shape).T
    found = in_rows(given, np.dtype(np.float32))
    assert found.flags.c_contiguous
    np.testing.assert_array_equal(found, given.astype(np.float32))


def test_rows_come_in_one_array_however_many_there_are() -> None:
    kept, random = _Rows(5), np.random.default_rng(3)
    pieces = [random.standard_normal((count, 2)).astype(np.float32) for count in (2, 3, 4, 20)]
    for number, piece in enumerate(pieces):
        kept.add(piece, np.full(len(piece), number))
    rows, texts = kept.all
    np.testing.assert_array_equal(rows, np.concatenate(pieces))
    np.testing.assert_array_equal(texts, np.repeat(np.arange(4), (2, 3, 4, 20)))


def test_states_between_stages_take_the_memory_of_those_before() -> None:
    made: dict[str, Any] = {}
    _keep(made, {"a": np.ones((2, 3), np.float32), "b": np.zeros(4, np.float32)})
    before = made["a"]
    _keep(made, {"c": np.full((2, 3), 7, np.float32), "d": np.full((5,), 8, np.float32)})
    assert made["c"] is before
    assert {name: states.tolist() for name, states in made.items()} == {"c": [[7.0] * 3] * 2, "d": [8.0] * 5}


def test_arrays_outside_the_heap_are_zeros_that_can_be_written() -> None:
    for shape in ((), (0, 3), (2, 3)):
        found = memory.outside(shape, np.int16)
        assert found.shape == shape
        assert found.dtype == np.dtype(np.int16)
        assert not found.any()
        found[...] = 3
        assert (found == 3).all()


def test_trials_write_only_weights_that_the_first_has_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[Mapping[str, int]] = []

    def vectors(path: Path, *_: Any) -> Any:
        sizes.append({file.name: file.stat().st_size for file in path.parent.iterdir()})
        return np.zeros((1, 1), np.float32)

    def make(recipe: Any) -> Graph:
        graph = Graph(17)
        value = graph.input("x", FLOAT, ("rows", 64))
        for name in recipe:
            weight = Weight(name, (64, 64), lambda: np.zeros((64, 64), np.float32))
            value = graph.node("MatMul", value, graph.weight(weight))
        graph.output(value, OUTPUTS[EMBEDDING], FLOAT, ("rows", 64))
        return graph

    monkeypatch.setattr(fit, "vectors", vectors)
    tried = fit._Tried(make, tmp_path)
    for recipe in (("a", "b", "c"), ("a", "other", "c"), ("a", "b")):
        tried(recipe, None)  # type: ignore[arg-type]
    one = 4 * 64 * 64
    assert [found["first.onnx.data"] for found in sizes] == [3 * one] * 3
    assert [found.get("tried.onnx.data", 0) for found in sizes] == [0, one, 0]
