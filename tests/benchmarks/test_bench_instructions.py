"""Counts of instructions: differences cancel the start, growth fails, and the stand-ins stand in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.errors import BenchmarkError
from benchmarks.inside import instructions, python_path

ROOT = Path(__file__).parents[2]


def test_the_start_of_a_process_cancels() -> None:
    seen: list[int] = []

    def run(directory: Path, case: str, calls: int) -> int:
        assert (directory / "manifest.json").is_file()
        model = "fastembed_rt/models/embedding.py"
        assert (directory / model).read_bytes() == (ROOT / model).read_bytes()
        seen.append(calls)
        return 640_000_000 + 1234 * calls

    assert instructions.count("one text", run) == 1234
    assert seen[1:] == [instructions.CALLS, 2 * instructions.CALLS]


@pytest.mark.parametrize(
    ("now", "sound", "words"),
    [
        (1000, True, "+0.0%"),
        (1029, True, "+2.9%"),
        (1031, False, "GREW"),
        (900, True, "--update makes it the baseline"),
    ],
)
def test_growth_beyond_the_tolerance_fails(now: int, sound: bool, words: str) -> None:
    lines, found = instructions.judge({"one text": now}, {"one text": 1000})
    assert found is sound
    assert words in lines[0]


def test_without_a_baseline_nothing_fails() -> None:
    lines, sound = instructions.judge({"one text": 5}, None)
    assert sound
    assert "no baseline" in lines[0]


def test_callgrinds_total_is_read(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("# callgrind format\nevents: Ir\nfn=(1) totals: x\n1 5\ntotals: 12345\n")
    assert instructions.total(out) == 12345
    out.write_text("nothing\n")
    with pytest.raises(BenchmarkError, match="has no total"):
        instructions.total(out)


def test_without_valgrind_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(shutil, "which", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["instructions"])
    assert instructions.main() == 0
    assert capsys.readouterr().out.startswith("skipped: valgrind is not installed")


def test_update_writes_what_the_next_run_compares_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {"one text": 1000}
    monkeypatch.setattr(instructions, "BASELINE", tmp_path / "instructions.json")
    monkeypatch.setattr(instructions, "count", lambda case: counts[case])
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/valgrind")
    command = ["instructions", "--case", "one text"]
    monkeypatch.setattr(sys, "argv", [*command, "--update"])
    assert instructions.main() == 0
    assert json.loads((tmp_path / "instructions.json").read_text()) == {instructions.environment(): counts}
    counts["one text"] = 1100
    monkeypatch.setattr(sys, "argv", command)
    assert instructions.main() == 1
    assert "+10.0%: GREW" in capsys.readouterr().out


def test_a_process_that_fails_is_quoted(tmp_path: Path) -> None:
    if shutil.which("valgrind") is None:
        pytest.skip("valgrind is not installed")
    # Fails at once: under valgrind the imports alone take many seconds.
    (tmp_path / "numpy.py").write_text("raise SystemExit('no numbers today')")
    with pytest.raises(BenchmarkError, match=r"one text: exit code 1: .*(no numbers today|No module)"):
        instructions.collected(tmp_path, "one text", 1)


@pytest.mark.parametrize("case", python_path.CASES)
def test_the_stand_ins_take_a_call_all_the_way(case: str, tmp_path: Path) -> None:
    """In a process of its own: the stand-ins take the places of the real modules."""
    script = (
        "import sys, numpy; from pathlib import Path; from benchmarks.inside import python_path as p\n"
        "target, call = p.CASES[sys.argv[2]]\n"
        "model = p.load(target, p.write_model(Path(sys.argv[1])))\n"
        "found = call(model)\n"
        "print(found.shape, (found == 1).all(), model.stats.texts, model.stats.tokens, sys.modules['onnxruntime'])"
    )
    command = [sys.executable, "-c", script, str(tmp_path), case]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, timeout=60)
    texts = python_path.SEVERAL if case == "32 texts" else 1
    shape = (python_path.DIM,) if texts == 1 else (texts, python_path.DIM)
    assert done.stdout == f"{shape} {np.True_} {texts} {texts * python_path.TOKENS} <module 'onnxruntime'>\n"
