"""FP8 as a card computes it beside full precision: the table of a checkpoint, and what parts of the recipe bring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from checkpoints import save_sentence_transformers

from benchmarks.precision import fp8


@pytest.fixture(scope="module")
def data(texts_of_each_file: Path) -> Path:
    """With pairs."""
    folder = texts_of_each_file
    pairs = [f"the cat {a},a {b} dog,{score}" for score, (a, b) in enumerate([("runs", "red"), ("eats", "old")])]
    (folder / "stsb").mkdir()
    (folder / "stsb" / "stsb-en-dev.csv").write_text("\n".join(pairs), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT whose layers FP8 takes."""
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "num_attention_heads": 2,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
    }
    return save_sentence_transformers(tmp_path_factory.mktemp("source") / "bert", max_seq_length=40, **sizes)


def test_a_checkpoint_is_scored_as_the_export_measured_it(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record.json"
    words = [str(checkpoint), "--data", str(data), "--texts", "20", "--record", str(record)]
    assert fp8.main(words) == 0
    assert "STS-B dev (en), spearman, fp32 -> FP8" in capsys.readouterr().out
    entry = json.loads(record.read_text(encoding="utf-8"))["bert"]
    assert not entry["left_out"]
    assert 0 < entry["groups_in_fp8"] <= entry["groups"]
    assert 0.99 < entry["min"] <= entry["p1"] <= entry["mean"] < 0.999999, "another model than fp32, and near it"
    assert set(entry["scores"]["STS-B dev (en), spearman"]) == {"fp32", "fp8"}
    assert fp8.main([*words[:-2], "--parts"]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split("|")[1].strip() for line in lines] == [f"bert {name}" for name in fp8.parts()]
    assert len({tuple(line.split("|")[5:8]) for line in lines}) == 3, "each part changes what comes out"


def test_texts_that_the_export_knows_are_left_out() -> None:
    from fastembed_rt_export.quantize import calibration_texts

    known = calibration_texts()[0]
    assert fp8.unseen([known, "a text of nobody's"]) == ["a text of nobody's"]
