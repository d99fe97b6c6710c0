"""README's figures are those of the record that it names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from benchmark_records import COMMITTED, full

from benchmarks.report import readme_table, records
from benchmarks.report.figures import speed

ROOT = Path(__file__).parents[2]
EMPTY = (
    "# A project\n\nbefore\n\n<!-- benchmark table: begin (none) -->\nof yore\n<!-- benchmark table: end -->\n\nafter\n"
)


@pytest.fixture
def readme(tmp_path: Path) -> Path:
    path = tmp_path / "README.md"
    path.write_text(EMPTY, encoding="utf-8")
    return path


def result(folder: Path, record: dict[str, Any]) -> Path:
    path = folder / "results" / "2026-01-01-a-machine"
    path.mkdir(parents=True, exist_ok=True)
    (path / records.FILE).write_text(json.dumps(record), encoding="utf-8")
    return path


def test_the_readme_says_what_its_record_says() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    record = ROOT / readme_table.named(readme)
    assert record.is_file()
    wanted = readme_table.rewritten(readme, record, ROOT)
    assert readme == wanted, "run python -m benchmarks.report.readme_table RESULT_DIR README.md"
    for link in re.findall(r"\(benchmarks/results/[^)]*\)", readme):
        assert (ROOT / link.strip("()")).exists(), link


def test_pages_that_speak_of_the_benchmark_have_the_figures_of_the_same_record() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = {
        cells[1].strip(" *"): [*map(str.strip, cells)]
        for cells in (x.split("|") for x in readme.splitlines())
        if cells[2:]
    }
    bare = {name: [cell.strip("*") for cell in cells] for name, cells in rows.items()}
    int8, bf16, fp32 = (bare[f"fastembed-rt {name}"] for name in ("INT8", "bf16", "fp32"))
    report = (ROOT / readme_table.named(readme)).with_name("report.md").read_text(encoding="utf-8")
    (callers,) = re.findall(
        r"\| texts/s at callers .*?\n\| \*\*fastembed-rt INT8\*\* ([^\n]*)", report, flags=re.DOTALL
    )
    one, two, *_, sixteen = (cell.strip() for cell in callers.strip("| ").split("|"))
    deployment, page = ((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("deployment.md", "int8.md"))
    said = " ".join(deployment.split())
    assert f"one caller has {one} texts a second, two have {two} and sixteen {sixteen} (" in said
    assert f"first vector: {int8[6]} in INT8 and {fp32[6]} in fp32 in the [benchmark]" in said
    assert (
        f"{int8[7]} at most in INT8, {bf16[7].removesuffix(' MB')} in bf16 and {fp32[7].removesuffix(' MB')} in fp32"
        in said
    )
    assert f"a cosine of {float(int8[8]):.4f} to fp32 in the mean" in page


def ratios(folder: str, one: str, other: str, *workloads: str, digits: int) -> list[str]:
    """Of texts a second, medians over the rounds of a committed record."""
    samples = json.loads((ROOT / "benchmarks" / "results" / folder / "record.json").read_text(encoding="utf-8"))[
        "samples"
    ]
    found = []
    for workload in workloads:
        rates: dict[str, dict[int, float]] = {one: {}, other: {}}
        for sample in samples:
            if sample["contender"] in rates and sample["workload"] == workload:
                rates[sample["contender"]][sample["round"]] = sample["texts"] / sample["seconds"]
        assert rates[one].keys() == rates[other].keys() != set()
        found.append(f"{median(rates[one][k] / rates[other][k] for k in rates[one]):.{digits}f}")
    return found


def test_ratios_in_pages_are_those_of_the_records_beside_them() -> None:
    names = {"bf16": "docs/bf16.md", "benchmarks": "docs/benchmarks.md", "readme": "benchmarks/README.md"}
    said = {key: " ".join((ROOT / file).read_text(encoding="utf-8").split()) for key, file in names.items()}
    lengths = ("short", "mixed", "long")
    newest = "2026-12-01-epyc-zen4-2-cores"
    fp32, theirs = (ratios(newest, "rt-bf16", other, *lengths, digits=2) for other in ("rt-fp32", "st-openvino"))
    assert f"{_listed(fp32)} times our fp32's texts a second, and {_listed(theirs)} times those of" in said["bf16"]
    for folder, words in {
        "2026-11-29-epyc-zen4-2-cores-qwen3-shape": {
            ("rt-int8", "llama-cpp-q8"): "INT8 embeds {} times as many texts a second as llama.cpp's q8_0",
            ("rt-bf16", "st-openvino"): "bf16 {} times as many as OpenVINO",
        },
        "2026-11-29-epyc-zen4-2-cores-embeddinggemma-shape": {
            ("rt-int8", "llama-cpp-q8"): "INT8 embeds {} times as many as q8_0"
        },
        "2026-11-30-epyc-zen4-2-cores-deberta-shape": {
            ("rt-int8", "st-openvino"): "INT8 embeds {} times as many mixed texts a second as",
            ("rt-bf16", "st-openvino"): "bf16 {} times and",
            ("rt-fp32", "st-openvino"): "fp32 {} times; a single text",
        },
    }.items():
        assert f"results/{folder}/report.md" in said["benchmarks"]
        for (one, other), sentence in words.items():
            assert sentence.format(*ratios(folder, one, other, "mixed-96", digits=1)) in said["benchmarks"]
    shape = "2026-11-29-epyc-zen4-2-cores-modernbert-shape"
    asked = ("length-2048", "length-8192")
    int8, bf16 = (ratios(shape, one, "st-torch-bf16", *asked, digits=1) for one in ("rt-int8", "rt-bf16"))
    assert f"INT8 embeds {int8[0]} times as many texts a second as torch in bfloat16" in said["benchmarks"]
    assert f"our bf16 {bf16[0]} times; of 8,192 tokens, {int8[1]} and {bf16[1]} times" in said["benchmarks"]
    by_hand = "2026-11-29-epyc-zen4-2-cores-openvino-by-hand"
    int8 = ratios(by_hand, "rt-int8", "openvino-by-hand-int8", *lengths, digits=2)
    bf16 = ratios(by_hand, "rt-bf16", "openvino-by-hand", *lengths, digits=2)
    assert f"our INT8 has {_listed(int8)} times the texts/s of theirs" in said["readme"]
    assert f"our bf16 {_listed(bf16)} times those of their default" in said["readme"]


def _listed(figures: list[str]) -> str:
    return f"{figures[0]}, {figures[1]} and {figures[2]}"


def test_the_figures_are_medians_of_the_raw_samples() -> None:
    """Counted here once more, from the JSON alone."""
    record = json.loads(COMMITTED.read_text(encoding="utf-8"))
    text = readme_table.render(records.read(COMMITTED), "x/record.json")
    row = next(line for line in text.splitlines() if line.startswith("| **fastembed-rt INT8**"))
    cells = [cell.strip(" *") for cell in row.strip("|").split("|")]
    rates = [
        sample["texts"] / sample["seconds"]
        for sample in record["samples"]
        if (sample["contender"], sample["workload"]) == ("rt-int8", "mixed")
    ]
    starts = [sample["seconds"] for sample in record["cold"] if sample["contender"] == "rt-int8"]
    assert cells[2] == f"{median(rates):,.0f}"
    assert cells[5] == f"{median(starts):.2f} s"
    assert cells[6] == f"{record['contenders']['rt-int8']['after_rounds']['peak_rss'] / 1e6:,.0f} MB"
    assert "[report](x/report.md)" in text


def behind(text: str) -> list[str]:
    """What is said of each class: where others are ahead."""
    return [part.partition("\n\nTask scores")[0] for part in text.split("\n\nIn ")[1:]]


def test_it_says_class_by_class_where_others_are_ahead_and_by_how_much() -> None:
    """Every figure is counted here once more: the best of the others in a class beside ours."""
    record = records.read(COMMITTED)
    text = readme_table.render(record, "x.json")
    full_precision, eight_bits = behind(text)
    long = {name: speed(record, name, "long") or 0.0 for name in records.names(record)}
    others = [name for name in long if "int8" not in name and not name.startswith("rt-")]
    best = max(others, key=lambda name: long[name])
    assert long[best] > long["rt-fp32"]  # in this record
    assert full_precision.startswith("full precision, others are ahead of fastembed-rt fp32 at:\n\n- ")
    share = f"{100 * (long[best] / long['rt-fp32'] - 1):.0f} % more"
    said = (
        f"long texts: {long[best]:,.0f} against {long['rt-fp32']:,.0f} texts/s, {share} ({records.title(record, best)}"
    )
    assert said in full_precision
    assert "long texts: 79 against 71 texts/s" in eight_bits
    assert "(sentence-transformers, OpenVINO INT8" in eight_bits
    assert "Task scores" not in text


def test_our_int8_is_not_set_against_the_floats_of_others() -> None:
    """A class without others says nothing, one in which nobody is ahead says so."""
    record = records.read(COMMITTED)
    for name in records.names(record, ours=False):
        if "int8" in name or name == "st-torch":
            record["contenders"][name].update(status="failed", reason="gone")
    assert "INT8," not in [line[3:8] for line in readme_table.render(record, "x.json").splitlines()]
    slow = {**record["contenders"]["rt-fp32"], "title": "slow", "ours": False, "status": "ok"}
    record["contenders"] = {"slow": slow, **{n: record["contenders"][n] for n in ("fastembed", "rt-fp32", "rt-int8")}}
    record["contenders"]["fastembed"].update(status="failed", reason="gone")
    text = readme_table.render(record, "x.json")
    assert "In full precision, no contender is ahead of fastembed-rt fp32 in any of these." in text
    assert "Not compared: fastembed, same fp32 ONNX (failed)" in text


@pytest.mark.parametrize(("cosine", "ahead"), [(0.98, False), (0.99999, True)])
def test_the_cosine_is_a_column_like_the_others(cosine: float, ahead: bool) -> None:
    record = records.read(COMMITTED)
    other = next(name for name in records.names(record, ours=False) if "int8" in name)
    for row in record["contenders"][other]["fidelity"].values():
        row.update(cosine_mean=cosine, cosine_min=cosine)
    _, eight_bits = behind(readme_table.render(record, "x.json"))
    assert (f"cosine, worst: {cosine:.5f} against " in eight_bits) == ahead


def test_task_scores_come_from_the_record_too() -> None:
    record = full()
    text = readme_table.render(record, "x.json")
    lines = [line for line in text.splitlines() if line.startswith("| xquad-en, ndcg@10 ")]
    scores = next(task for task in record["quality"]["tasks"] if task["metric"] == "ndcg@10")["contenders"]
    assert [cell.strip() for cell in lines[0].strip("|").split("|")][1:] == [
        f"{value:.2f}" for value in scores.values()
    ]


def test_only_what_is_between_the_comments_changes(readme: Path, tmp_path: Path) -> None:
    folder = result(tmp_path, full())
    assert readme_table.main([str(folder), str(readme), "--check"]) == 1
    assert readme.read_text(encoding="utf-8") == EMPTY
    assert readme_table.main([str(folder), str(readme)]) == 0
    text = readme.read_text(encoding="utf-8")
    assert text.startswith(
        "# A project\n\nbefore\n\n<!-- benchmark table: begin (results/2026-01-01-a-machine/record.json)"
    )
    assert text.endswith("<!-- benchmark table: end -->\n\nafter\n")
    assert "of yore" not in text
    assert readme_table.main([str(folder), str(readme), "--check"]) == 0


def test_a_figure_typed_by_hand_is_found(readme: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = result(tmp_path, full())
    readme_table.main([str(folder), str(readme)])
    text = readme.read_text(encoding="utf-8")
    readme.write_text(text.replace("1,555", "1,655"), encoding="utf-8")
    assert readme_table.main([str(folder), str(readme), "--check"]) == 1
    assert re.search(r"^-\|.*1,655", capsys.readouterr().out, flags=re.MULTILINE)


@pytest.mark.parametrize(("text", "says"), [("no section", "has 0 benchmark sections"), (EMPTY * 2, "has 2")])
def test_a_readme_without_one_section_is_refused(
    readme: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    readme.write_text(text, encoding="utf-8")
    assert readme_table.main([str(result(tmp_path, full())), str(readme)]) == 2
    assert says in capsys.readouterr().err


def test_a_record_elsewhere_cannot_be_linked(readme: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert readme_table.main([str(COMMITTED), str(readme)]) == 2
    assert "is not below" in capsys.readouterr().err
