"""INT8 beside full precision: the table of a directory, and what each part of INT8 brings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from checkpoints import save_sentence_transformers

from benchmarks.precision import by_layer, export_cost, ingredients, int8, random_weights, real_weights
from fastembed_rt_export.pipeline import ExportOptions, export


@pytest.fixture(scope="module")
def data(texts_of_each_file: Path) -> Path:
    return texts_of_each_file


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT."""
    return save_sentence_transformers(tmp_path_factory.mktemp("source") / "bert", max_seq_length=40)


def rows(said: str) -> dict[str, list[float]]:
    """Figures by the words in front of them."""
    found = {}
    for line in said.splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        figures = [float(cell) for cell in cells if cell.replace(".", "", 1).lstrip("-").isdigit()]
        found[" / ".join(cells[: len(cells) - len(figures)])] = figures
    return found


def test_a_directory_is_measured_beside_dynamic_quantization(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ExportOptions(output=tmp_path / "made", precisions=("fp32", "int8"), verify=False, min_cosine=-1.0)
    export(str(checkpoint), options)
    words = [str(tmp_path / "made"), "--data", str(data), "--texts", "20", "--dynamic"]
    assert int8.main(words) == 0
    found = rows(capsys.readouterr().out)
    assert "dynamic" in found
    for name, figures in found.items():
        mean, p1, least, _, least_odd = figures
        assert 0.9 < least <= p1 <= mean < 1.00001, name
        assert least_odd > 0.8, name
    assert int8.main([*words[:-1], "--reference", str(checkpoint)]) == 0
    beside_torch = rows(capsys.readouterr().out)
    for name, figures in beside_torch.items():
        assert figures == pytest.approx(found[name], abs=2e-5), "fp32 and torch are alike"
    assert int8.main([str(tmp_path), "--data", str(data)]) == 2


def test_parts_that_are_left_out_are_missed(
    checkpoint: Path, data: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tails, clipped = "no tails (whole ranges in native too)", "clipped by KL divergence"
    chosen = ("all parts", tails, "nearest integers", "no degenerate texts", clipped)
    some = {name: patch for name, patch in ingredients.without().items() if name in chosen}
    monkeypatch.setattr(ingredients, "without", lambda: some)
    assert ingredients.main([str(checkpoint), "--data", str(data), "--texts", "20"]) == 0
    found = rows(capsys.readouterr().out)
    assert len(found) == 2 * len(chosen)
    for target in ("native", "cpu"):
        whole = found[f"all parts / {target}"]
        # Stock operators have no tails, and where ours have them no range is chosen by a rule.
        unchanged = clipped if target == "native" else tails
        for name in chosen[1:]:
            other = found[f"{name} / {target}"]
            assert (other == whole) == (name == unchanged), "a model of this size need not be worse, but is another one"
            assert other[0] == pytest.approx(whole[0], abs=0.01)


def test_kinds_of_layers_in_float_are_measured_one_by_one(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert by_layer.main([str(checkpoint)]) == 0
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    for graph in ("of stock operators", "of our own operators"):
        found = {
            kind: (int(groups), float(mean), float(worst)) for made, kind, groups, mean, worst in lines if made == graph
        }
        assert found.pop("none")[0] == 0
        assert set(found) == {by_layer.kind(kind) for kind in found}
        assert any("output.dense" in kind for kind in found)
        assert all(groups >= 1 and 0.9 < worst <= mean <= 1.0 for groups, mean, worst in found.values())
    assert by_layer.main([str(checkpoint / "none")]) == 2


def test_checkpoints_are_exported_measured_and_recorded(
    checkpoint: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = [f"the cat {a},a {b} dog,{score}" for score, (a, b) in enumerate([("runs", "red"), ("eats", "old")])]
    (data / "stsb").mkdir(exist_ok=True)
    (data / "stsb" / "stsb-en-dev.csv").write_text("\n".join(pairs), encoding="utf-8")
    record = tmp_path / "record.json"
    record.write_text('{"earlier": {"kept": true}}', encoding="utf-8")
    words = [str(checkpoint), "--data", str(data), "--texts", "20", "--record", str(record)]
    assert real_weights.main(words) == 0
    cosines, scores = capsys.readouterr().out.split("\n\n")
    assert {"bert / int8, native", "bert / int8, cpu", "bert / dynamic"} <= {
        name.split(" / 0")[0] for name in rows(cosines)
    }
    assert "STS-B dev (en), spearman" in scores
    kept = json.loads(record.read_text(encoding="utf-8"))
    assert kept["earlier"] == {"kept": True}
    entry = kept["bert"]
    assert entry["float_groups"] == {"native": [], "cpu": []}
    assert entry["parity"]["native int8"]["mean_cosine"] > 0.99, "beside sentence-transformers"
    assert entry["cosines"]["int8, native"]["min"] > 0.98
    assert set(entry["scores"]) == {"fp32", "int8, native", "int8, cpu", "dynamic"}


@pytest.mark.slow
def test_what_an_export_costs_is_read_from_the_command(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 96, "head_dim": 16, "vocab_size": 400}
    shape = replace(random_weights.QWEN3, config={**random_weights.QWEN3.config, **small})
    made = random_weights.write(tmp_path / "decoder", int8.real_texts(data, 20), shape)
    assert export_cost.main([str(made)]) == 0
    (figures,) = rows(capsys.readouterr().out).values()
    weights, calibration, of_calibration, whole, of_all, peak, ratio = figures
    assert weights < 1
    assert 0 <= calibration <= whole < 120
    assert 0 <= of_calibration <= of_all
    assert of_all > 0
    assert peak > 50
    assert ratio > 1
    assert export_cost.main([str(tmp_path)]) == 2, "no checkpoint"
    assert export_cost.main([]) == 2
