"""Workloads and environments: the same rows give the same texts and the same installation."""

from __future__ import annotations

import json
import os
import subprocess
import venv
from pathlib import Path
from typing import Any

import pytest

from benchmarks.compare import conditions, environments
from benchmarks.compare.contenders import Environment
from benchmarks.data import workloads
from benchmarks.errors import BenchmarkError, ContenderError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    texts = tmp_path / "data" / "texts"
    texts.mkdir(parents=True)
    for name in (*workloads.QUESTIONS, *workloads.SENTENCES, *workloads.PARAGRAPHS):
        lines = [json.dumps(f"{name} {k} " + "x" * (k % 3) * 1000) for k in range(3000)]
        (texts / name).write_text("\n".join([*lines, lines[0]]))
    return tmp_path / "data"


def test_a_workload_is_the_same_texts_each_time(data: Path) -> None:
    short = workloads.WORKLOADS["short"]
    first, second = workloads.texts(short, data), workloads.texts(short, data)
    assert first == second
    assert len(set(first)) == 2000
    assert workloads.fingerprint(first) == workloads.fingerprint(second)
    assert workloads.fingerprint(first) != workloads.fingerprint(first[::-1])


def test_long_texts_are_long_and_mixed_ones_are_mixed(data: Path) -> None:
    assert all(len(text) > 900 for text in workloads.texts(workloads.WORKLOADS["long"], data))
    mixed = workloads.texts(workloads.WORKLOADS["mixed"], data)
    assert len(mixed) == 1300
    assert sum(text.startswith("short_queries") for text in mixed) == 520
    assert len({text.split("_")[0] for text in mixed[:50]}) == 3


def test_calibration_texts_are_never_timed(data: Path) -> None:
    calibration = set(workloads.texts(workloads.WORKLOADS["calibration"], data))
    whole = [name for name in workloads.TIMED if workloads.WORKLOADS[name].length is None]
    for name in (*whole, *workloads.UNTIMED):
        if name == "calibration":
            continue
        assert not calibration & set(workloads.texts(workloads.WORKLOADS[name], data))


def test_bad_data_is_one_line(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(workloads.DATA_VARIABLE, str(data))
    assert workloads.data_folder() == data
    with pytest.raises(BenchmarkError, match="no texts in"):
        workloads.data_folder(str(data / "texts"))
    short = workloads.WORKLOADS["short"]
    file = data / "texts" / workloads.QUESTIONS[0]
    for content, says in (
        ('"one"\n', "needs 2000 texts"),
        ('{"a": 1}\n', "one JSON string"),
        ("no", "one JSON string"),
    ):
        file.write_text(content)
        workloads._lines.cache_clear()
        with pytest.raises(BenchmarkError, match=says):
            workloads.texts(short, data)
    file.unlink()
    workloads._lines.cache_clear()
    with pytest.raises(BenchmarkError, match="is missing"):
        workloads.texts(short, data)


def test_an_environment_is_made_once_and_again_when_its_row_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[list[str]] = []

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        commands.append(command[command.index("--no-input") + 1 :])
        return subprocess.CompletedProcess(command, 0, stdout="torch==1\nnumpy==2\n", stderr="")

    monkeypatch.setattr(venv, "create", lambda folder, **_: folder.mkdir(parents=True))
    monkeypatch.setattr(subprocess, "run", pip)
    row = Environment(name="peer", steps=(("torch==1",), ("--no-deps", "peer==2")))
    assert environments.ensure(row, tmp_path) == ["torch==1", "numpy==2"]
    assert commands == [["install", "--quiet", "torch==1"], ["install", "--quiet", "--no-deps", "peer==2"], ["freeze"]]
    assert environments.ensure(row, tmp_path) == ["torch==1", "numpy==2"]
    assert len(commands) == 3
    environments.ensure(Environment(name="peer", steps=(("peer==3",),)), tmp_path)
    assert commands[3:] == [["install", "--quiet", "peer==3"], ["freeze"]]


def test_an_installation_that_fails_says_why_and_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = "Looking\nERROR: No matching distribution found for peer==9\n[notice] a new pip\n"

    def pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, stdout="", stderr=output)

    monkeypatch.setattr(venv, "create", lambda folder, **_: folder.mkdir(parents=True))
    monkeypatch.setattr(subprocess, "run", pip)
    with pytest.raises(ContenderError, match="installing peer: ERROR: No matching distribution found for peer==9"):
        environments.ensure(Environment(name="peer", steps=(("peer==9",),)), tmp_path)
    assert not (tmp_path / "peer" / environments.STAMP).exists()


def test_last_error_of_nothing_is_still_a_line() -> None:
    assert environments.last_error("") == "no message"
    assert environments.last_error("one\ntwo\n") == "two"


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_a_budget_takes_whole_cores_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    for cpu, siblings in enumerate(("0-1", "0-1", "2-3", "2-3")):
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(siblings + "\n")
    assert conditions.choose_cpus(2, tmp_path) == [0, 2]
    assert conditions.choose_cpus(3, tmp_path) == [0, 1, 2]
    assert conditions.choose_cpus(9, tmp_path) == [0, 1, 2, 3]
    assert conditions.choose_cpus(2, tmp_path / "unknown") == [0, 1]


def test_a_package_that_is_installed_where_it_lies_counts_as_what_its_wheel_holds(tmp_path: Path) -> None:
    packages = tmp_path / "one" / "lib" / "python3" / "site-packages"
    for name, size in {"numpy/core.so": 5000, "numpy/core.pyc": 70, "alone.py": 300, "pip/big.py": 900}.items():
        (packages / name).parent.mkdir(parents=True, exist_ok=True)
        (packages / name).write_bytes(b"x" * size)
    installed = Environment(name="one", steps=(("numpy",),))
    assert environments.size(installed, tmp_path) == 5300
    ours = sum(path.stat().st_size for path in (environments.PROJECT / "fastembed_rt").rglob("*.py"))
    editable = Environment(name="one", steps=(("numpy",), ("--editable", "{project}[cpu]")))
    assert environments.size(editable, tmp_path) >= 5300 + ours
    assert environments.size(Environment(name="none", steps=()), tmp_path) == 0
