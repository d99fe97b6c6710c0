"""The report: every part of a record is in it, it needs nothing else, and its plots can be read."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from xml.etree import ElementTree

import pytest
from benchmark_records import COMMITTED, LENGTHS, full
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("matplotlib", reason="plots need matplotlib: install fastembed-rt[bench]")

from matplotlib.text import Text

from benchmarks.errors import BenchmarkError
from benchmarks.report import __main__ as report
from benchmarks.report import charts, depth, figures, markdown, overview, page, placing, records, speed, theme
from benchmarks.report.sections import Drawing, Part, rate


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    return full()


@pytest.fixture(scope="module")
def html(record: dict[str, Any]) -> str:
    return page.render(*report.heading(record), [make(record) for make in report.PARTS])


class Links(HTMLParser):
    """Ids, and everything that a page would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        for key, value in attrs:
            if key == "id":
                self.ids.append(str(value))
            if key in {"href", "xlink:href", "src", "srcset", "data", "action"}:
                self.links.append(str(value))
            self.links += [f"#{name}" for name in re.findall(r"url\(#?([^)]*)\)", value or "")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def parsed(text: str) -> Links:
    seen = Links()
    seen.feed(text)
    return seen


def texts(figure: Any) -> list[tuple[str, Any]]:
    """What is written in a drawing, and where."""
    figure.set_dpi(72)
    figure.draw_without_rendering()
    found, hidden = [], undrawn(figure)
    for text in figure.findobj(lambda part: hasattr(part, "get_text") and part.get_visible() and part.get_text()):
        box = Text.get_window_extent(text)  # of the words alone: an annotation counts its leader too
        if text not in hidden and box.width > 0 and box.height > 0:
            found.append((text.get_text(), box))
    return found


def undrawn(figure: Any) -> set[Any]:
    """Labels of ticks on hidden axes, or beyond the end of one."""
    found = set()
    for axes in figure.axes:
        for place, (axis, limits) in enumerate(((axes.xaxis, axes.get_xlim()), (axes.yaxis, axes.get_ylim()))):
            for text in axis.get_ticklabels(which="both"):
                inside = min(limits) <= text.get_position()[place] <= max(limits)
                if not (axis.get_visible() and inside):
                    found.add(text)
    return found


def every_drawing(record: dict[str, Any]) -> list[Drawing]:
    return [drawing for make in report.PARTS for drawing in make(record).drawings]


def test_the_page_needs_nothing_else(html: str) -> None:
    seen = parsed(html)
    assert all(link.startswith("#") for link in seen.links)
    assert {link.removeprefix("#") for link in seen.links} <= set(seen.ids)
    assert len(seen.ids) == len(set(seen.ids))
    assert not seen.tags & {"script", "img", "link", "iframe", "object", "embed"}
    assert "@import" not in html
    assert "<metadata" not in html


def test_who_failed_in_one_part_is_named_with_the_reason(record: dict[str, Any]) -> None:
    rows = {**record["contenders"]}
    rows["fastembed"] = {**rows["fastembed"], "failed_parts": {"concurrent": "already borrowed"}}
    part = overview.contenders({**record, "contenders": rows})
    assert "fastembed, same fp32 ONNX, concurrent: already borrowed" in part.lines


def test_tokens_a_second_are_texts_a_second_times_their_tokens(record: dict[str, Any]) -> None:
    def cells(part: Part, head: str) -> dict[str, str]:
        table = next(table for table in part.tables if table.head[0] == head)
        return {row[0]: row[-1] for row in table.body}

    facts = record["workloads"]["long"]
    wanted = median(figures.speeds(record, "rt-int8", "long").values()) * facts["tokens"] / facts["texts"]
    assert cells(overview.contenders(record), "tokens/s")["fastembed-rt INT8"] == f"{wanted:,.0f}"
    of_256 = [row for row in record["batches"] if (row["contender"], row["batch"]) == ("rt-int8", 256)]
    wanted = median(row["tokens"] / row["seconds"] for row in of_256)
    assert cells(speed.batches(record), "tokens/s at texts a call")["fastembed-rt INT8"] == f"{wanted:,.0f}"
    older = {**record, "batches": [{k: v for k, v in row.items() if k != "tokens"} for row in record["batches"]]}
    assert len(speed.batches(older).tables) == 1


def test_every_plot_is_well_formed_and_named(html: str, record: dict[str, Any]) -> None:
    drawn = re.findall(r"<svg .*?</svg>", html, flags=re.DOTALL)
    titles = [ElementTree.fromstring(one).get("aria-label") for one in drawn]
    assert titles == [drawing.title for drawing in every_drawing(record)]
    assert len(drawn) >= 14
    for one in drawn:
        # Colours follow the page: none is left that would not.
        assert not re.search(r"(?:fill|stroke): #(?!ffffff)[0-9a-f]{6}", one)


def test_a_full_record_leaves_nothing_out(html: str, record: dict[str, Any]) -> None:
    assert "Left out" not in html
    words = " ".join(parsed(html).words)
    for row in record["contenders"].values():
        assert row["title"] in words
        assert row["reason"] in words  # holds <&>: escaped on the way in, whole on the way out
    for make in report.PARTS:
        assert make(record).title in words
    assert "nfcorpus: left out: no folder of that name" in words
    assert "onnxruntime==1.32.0" in words


def test_a_record_of_the_first_format_says_what_is_left_out(tmp_path: Path) -> None:
    assert report.main([str(COMMITTED), "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.md").read_text(encoding="utf-8")
    absent = re.findall(r"^## (.*)\n\nLeft out: (.*)\.$", text, flags=re.MULTILINE)
    assert [title for title, _ in absent] == [
        "Throughput by text length",
        "Throughput by batch size",
        "Scaling over threads",
        "Concurrent callers",
        "Distance from the machine's limit",
        "Time by operator",
        "Quality by task",
    ]
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count('class="missing"') == len(absent)


@pytest.mark.slow
def test_the_same_record_gives_the_same_bytes(record: dict[str, Any], html: str, tmp_path: Path) -> None:
    folder = tmp_path / "result"
    folder.mkdir()
    (folder / records.FILE).write_text(json.dumps(record), encoding="utf-8")
    assert report.main([str(folder)]) == 0
    assert {path.name for path in folder.iterdir()} == {"record.json", "report.md", "report.html"}
    assert (folder / "report.html").read_text(encoding="utf-8") == html
    title, lead = report.heading(record)
    parts = [Part(title="Summary", lines=[lead]), *(make(record) for make in report.PARTS)]
    assert (folder / "report.md").read_text(encoding="utf-8") == markdown.render(title, parts)


def test_no_text_of_a_plot_lies_on_another(record: dict[str, Any]) -> None:
    for drawing in every_drawing(record):
        seen = texts(drawing.draw())
        assert drawing.title in [" ".join(text.split()) for text, _ in seen]
        for k, (left, box) in enumerate(seen):
            for right, other in seen[k + 1 :]:
                common = box.shrunk(0.94, 0.8).overlaps(other.shrunk(0.94, 0.8))
                assert not common, f"{drawing.title}: {left!r} on {right!r}"


def test_every_contender_is_named_in_the_plots_and_ours_in_bold(record: dict[str, Any]) -> None:
    wanted = {records.label(record, name): record["contenders"][name]["ours"] for name in records.names(record)}
    for part in (speed.pareto, speed.one_text, speed.lengths, speed.batches, speed.concurrent, speed.cold_start):
        figure: Any = part(record).drawings[0].draw()
        written = figure.findobj(
            lambda thing: hasattr(thing, "get_fontweight") and thing.get_visible() and thing.get_text() in wanted
        )
        weights = {text.get_text(): text.get_fontweight() for text in written}
        assert {name: weight == "bold" for name, weight in weights.items()} == wanted


def test_colours_can_be_read_in_both_themes() -> None:
    """WCAG 2.2, contrast of text: at least 4.5 to 1."""

    def luminance(color: str) -> float:
        parts = [int(color[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert theme.LIGHT.keys() == theme.DARK.keys()
    for colors in (theme.LIGHT, theme.DARK):
        paper = luminance(colors["paper"])
        for role in colors.keys() - {"paper", "grid"}:
            ink = luminance(colors[role])
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, role


def test_throughput_by_length_is_in_tokens(record: dict[str, Any]) -> None:
    table = speed.lengths(record).tables[0]
    assert table.head[1:] == [str(length) for length in LENGTHS]
    row = next(row for row in table.body if row[0] == "fastembed-rt INT8")
    rates = [
        128 * 64 / sample["seconds"]
        for sample in record["samples"]
        if sample["contender"] == "rt-int8" and sample["workload"] == "length-64"
    ]
    assert row[1 + LENGTHS.index(64)] == f"{median(rates):,.0f}"


@pytest.mark.parametrize(("value", "wanted"), [(0.0213, "0.021"), (4.26, "4.3"), (1234.5, "1,234"), (None, "-")])
def test_slow_rates_are_told_apart(value: float | None, wanted: str) -> None:
    assert rate(value) == wanted


def test_a_contender_that_missed_a_step_has_a_gap(record: dict[str, Any]) -> None:
    less = {
        **record,
        "batches": [row for row in record["batches"] if (row["contender"], row["batch"]) != ("fastembed", 256)],
    }
    part = speed.batches(less)
    assert next(row for row in part.tables[0].body if row[0] == "fastembed")[-1] == "-"
    assert "fastembed" in [text for text, _ in texts(part.drawings[0].draw())]


def test_a_part_that_failed_says_why(record: dict[str, Any]) -> None:
    broken = {**record, "limits": {"shares": {}, "operators": {}, "failed": "no such operator"}}
    assert {depth.peak(broken).missing, depth.operators(broken).missing} == {"no such operator"}


def test_one_step_is_a_table_and_no_line(record: dict[str, Any]) -> None:
    part = speed.scaling({**record, "scaling": [row for row in record["scaling"] if row["threads"] == 1]})
    assert part.tables
    assert not part.drawings


@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=12).map(
        lambda points: {str(k): (float(x), float(y)) for k, (x, y) in enumerate(points)}
    )
)
def test_the_front_is_those_that_nobody_beats(values: dict[str, tuple[float, float]]) -> None:
    front = set(charts.front(values))
    for name, (x, y) in values.items():
        beaten = any(a >= x and b <= y and (a, b) != (x, y) for a, b in values.values())
        assert (name in front) != beaten


@given(st.lists(st.floats(0, 300), max_size=15), st.floats(1, 15))
def test_spread_labels_keep_their_distance_and_order(wanted: list[float], gap: float) -> None:
    placed = placing.spread(wanted, gap, 0, 300)
    ordered = sorted(placed)
    assert all(right - left >= gap - 1e-6 for left, right in pairwise(ordered))
    assert all(-1e-6 <= value <= 300 + 1e-6 for value in placed)
    for a, x in zip(wanted, placed, strict=True):
        for b, y in zip(wanted, placed, strict=True):
            assert not (a < b and x > y)


@pytest.mark.parametrize(
    ("value", "says"), [(1234567.0, "1,234,567"), (12.345, "12.3"), (1.2345, "1.23"), (0.0123, "0.0123"), (0, "0")]
)
def test_numbers_keep_three_digits(value: float, says: str) -> None:
    assert charts.number(value) == says


def test_without_matplotlib_the_tables_are_written_and_the_reason_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "matplotlib" or name.startswith(theme.__name__)]:
        monkeypatch.delitem(sys.modules, name)
    for name in (page.__name__, charts.__name__, placing.__name__):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(sys.modules["benchmarks.report"], "page")
    monkeypatch.delattr(sys.modules["benchmarks.report"], "theme")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert report.main([str(COMMITTED), "--out", str(tmp_path)]) == 2
    assert "install fastembed-rt[bench]" in capsys.readouterr().err
    assert (tmp_path / "report.md").is_file()
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot read"),
        ("{", "is not JSON"),
        ("[]", "has format None; this code reads 1 and 2"),
        ('{"format": 3}', "has format 3"),
        ('{"format": 2, "machine": {}}', "it has no settings, started"),
    ],
)
def test_a_bad_record_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, says: str
) -> None:
    if content is not None:
        (tmp_path / records.FILE).write_text(content, encoding="utf-8")
    with pytest.raises(BenchmarkError, match=says):
        records.read(tmp_path)
    assert report.main([str(tmp_path)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1


def test_labels_are_short_and_apart(record: dict[str, Any]) -> None:
    labels = [records.label(record, name) for name in record["contenders"]]
    assert len(set(labels)) == len(labels)
    assert max(map(len, labels)) <= 20
    assert {"ST OpenVINO INT8", "fastembed", "fastembed-rt INT8"} <= set(labels)


def test_precisions_are_read_from_what_contenders_said() -> None:
    rows = records.read(COMMITTED)["contenders"]
    assert {name: row["precision"] for name, row in rows.items()} == {
        "st-torch": "fp32",
        "st-torch-bf16": "bf16",
        "st-onnx-int8": "int8",
        "st-openvino": "bf16",
        "st-openvino-int8": "int8",
        "fastembed": "fp32",
        "ctranslate2-int8": "int8",
        "rt-fp32": "fp32",
        "rt-int8": "int8",
    }


def test_a_part_without_anything_says_so() -> None:
    text = page.render("title", "lead", [Part(title="Speed", missing="not <measured>")])
    assert "Left out: not &lt;measured&gt;." in text
