"""docs/models.md says what the table of architectures and the measured figures say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import models_page
import pytest

from fastembed_rt_export.architectures import ARCHITECTURES
from fastembed_rt_export.gate.parity import FP32

FIGURES = json.loads(models_page.FIGURES.read_text(encoding="utf-8"))
AGAIN = "run python docs/models_page.py"


def test_the_page_is_what_the_script_writes() -> None:
    assert models_page.PAGE.read_text(encoding="utf-8") == models_page.page(FIGURES), AGAIN


def test_the_tables_of_real_weights_are_those_of_the_record() -> None:
    text = models_page.INT8_PAGE.read_text(encoding="utf-8")
    assert text == models_page.int8_page(text), AGAIN


def test_every_architecture_was_measured_in_every_variant() -> None:
    found = FIGURES["architectures"]
    assert set(found) == set(ARCHITECTURES), f"{AGAIN} --measure"
    own = {"native fp32", "native bf16", "native int8"}  # of all whose attention the operators know
    assert {frozenset(row) - own for row in found.values()} == {frozenset({"cpu fp32", "cpu int8", "portable fp32"})}
    assert not {name: own - set(row) for name, row in found.items() if own - set(row)}


def test_fp32_keeps_to_its_bound_everywhere() -> None:
    for name, row in FIGURES["architectures"].items():
        for column, figures in row.items():
            if column.endswith("fp32"):
                assert figures["max_abs_diff"] <= (FP32.max_abs_diff or 0), (name, column)


def test_a_row_that_is_new_or_gone_makes_the_page_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = {name: row for name, row in ARCHITECTURES.items() if name != "mpnet"}
    monkeypatch.setattr(models_page, "ARCHITECTURES", fewer)
    assert models_page.page(FIGURES) != models_page.PAGE.read_text(encoding="utf-8")


def test_every_row_has_a_title_and_an_example() -> None:
    assert all(row.title and row.examples for row in ARCHITECTURES.values())


def test_one_architecture_is_measured_without_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whoever adds one waits for one, and moves no figure of another."""
    for name in ("PAGE", "FIGURES", "INT8_PAGE"):
        copy = tmp_path / getattr(models_page, name).name
        copy.write_text(getattr(models_page, name).read_text(encoding="utf-8"), encoding="utf-8")
        monkeypatch.setattr(models_page, name, copy)
    fresh = {"native fp32": {"max_abs_diff": 0.0, "mean_cosine": 1.0, "min_cosine": 1.0, "float_groups": 0}}
    asked: list[Sequence[str]] = []
    reference = FIGURES["reference"]

    def measured(names: Sequence[str]) -> dict[str, Any]:
        asked.append(names)
        return {**FIGURES, "architectures": dict.fromkeys(names, fresh), "reference": reference}

    monkeypatch.setattr(models_page, "measured", measured)
    assert models_page.main(["--measure", "mpnet"]) == 0
    assert asked == [["mpnet"]]
    written = json.loads((tmp_path / "models.json").read_text(encoding="utf-8"))["architectures"]
    assert written == {**FIGURES["architectures"], "mpnet": fresh}
    reference = "another library"
    with pytest.raises(SystemExit):
        models_page.main(["--measure", "mpnet"])
    assert "install that, or measure all" in capsys.readouterr().err
    assert models_page.main(["--measure"]) == 0
    assert asked[-1] == list(ARCHITECTURES)
    with pytest.raises(SystemExit):
        models_page.main(["--measure", "mpnet2"])
    assert "not built: mpnet2; built are bert, " in capsys.readouterr().err
