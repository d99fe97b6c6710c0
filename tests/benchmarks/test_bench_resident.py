"""What a model keeps resident, as the command prints it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from checkpoints import save_sentence_transformers

from benchmarks.inside import resident
from fastembed_rt_export.pipeline import ExportOptions, export

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def test_memory_is_held_against_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = tmp_path / "model"
    export(str(save_sentence_transformers(tmp_path / "checkpoint")), ExportOptions(output=model, verify=False))
    words = [str(model), "--precision", "fp32", "--texts", "8", "--processes", "2"]
    assert resident.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = [[cell.strip() for cell in line.split("|")[1:5]] for line in lines[2:8]]
    rows = {name: [int(size.replace(",", "")) for size in sizes] for name, *sizes in cells}
    assert list(rows) == [*resident.STEPS, "many texts, process 1 of 2", "many texts, process 2 of 2"]
    assert rows["bare"][0] < rows["loaded"][0] <= rows["many texts"][0] + 1
    assert all(own <= part <= whole for whole, own, part in rows.values())
    size = sum(path.stat().st_size for path in model.glob("model.onnx*")) / 1e6
    assert f"weights {size:,.0f} MB" in lines[-1]
    assert resident.main([str(model), "--precision", "int8"]) == 2
    assert "has no int8" in capsys.readouterr().err
