"""What `make compat` makes of runs of other projects' tests."""

from __future__ import annotations

import importlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

SUITES = Path(__file__).parents[2] / "interop_suites"
BROKEN = {"(the file itself)": {"outcome": "failed", "why": "ImportError: no such name"}}
PASSED = {"test_a": {"outcome": "passed", "why": ""}}


@pytest.fixture
def suite(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(SUITES))
    return importlib.import_module("sentence_transformers_suite")


@pytest.mark.parametrize("name", ["sentence_transformers_suite", "fastembed_suite"])
@pytest.mark.parametrize("written", [None, "{}", '{"test_a": {"outcome": "passed", "why": ""}}'])
def test_a_file_of_which_no_test_ran_has_failed(
    name: str, written: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(SUITES))
    suite = importlib.import_module(name)

    def ran(command: list[str], *, env: dict[str, str], **more: Any) -> Any:
        if written is not None:
            Path(env["FASTEMBED_RT_SUITE_RECORD"]).write_text(written, encoding="utf-8")
        return subprocess.CompletedProcess(command, 2, "ImportError: no such name", "")

    monkeypatch.setattr(suite.subprocess, "run", ran)
    found = suite.run("tests/test_a.py", *(["ours", tmp_path] if "sentence" in name else [tmp_path, tmp_path]))
    if written in (None, "{}"):
        assert found == {"(the file itself)": {"outcome": "failed", "why": "ImportError: no such name"}}
    else:
        assert found == json.loads(str(written))


def test_a_file_that_does_not_begin_is_run_whole_with_the_librarys_own_classes(
    suite: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ran(file: str, kind: str, work: Path, tests: list[str] | None = None) -> Any:
        return BROKEN if kind == "ours" else {} if tests else PASSED

    monkeypatch.setattr(suite, "run", ran)
    assert suite.with_both("tests/test_a.py", "ours", tmp_path) == (BROKEN, PASSED)


def test_what_fails_with_our_classes_alone_has_failed(suite: Any) -> None:
    passed, failed, left = suite.differences.sorted_out("tests/test_a.py", PASSED, BROKEN)
    assert (passed, list(failed.values()), left) == ([], ["ImportError: no such name"], {})
    passed, failed, left = suite.differences.sorted_out("tests/test_a.py", BROKEN, BROKEN)
    assert (passed, failed) == ([], {})
    assert "ImportError: no such name" in left["(the file itself)"]


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
@pytest.mark.parametrize("kind", ["bare", "checkout", "folder"])
def test_tests_are_of_the_installed_version_or_their_version_is_said(suite: Any, kind: str, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    (clone / "tests").mkdir(parents=True)

    def git(*words: str) -> None:
        named = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "tag.gpgSign=false", "-c", "commit.gpgSign=false"]
        subprocess.run(["git", *named, *words], cwd=clone, check=True, capture_output=True)

    git("init")
    for version in ("1.0.0", "2.0.0"):
        (clone / "tests" / "test_a.py").write_text(version, encoding="utf-8")
        (clone / "pyproject.toml").write_text(f'[tool.poetry]\nversion = "{version}"\n', encoding="utf-8")
        git("add", ".")
        git("commit", "-m", version)
        git("tag", f"v{version}")
    if kind == "bare":
        git("clone", "--bare", ".", str(tmp_path / "bare"))
        clone = tmp_path / "bare"
    elif kind == "folder":
        shutil.rmtree(clone / ".git")

    def unpacked(version: str) -> tuple[str, str]:
        target = tmp_path / version
        target.mkdir()
        said = suite.unpack(clone, target, "them", version)
        assert [path.name for path in target.iterdir()] == ["tests"]
        return said, (target / "tests" / "test_a.py").read_text(encoding="utf-8")

    assert unpacked("2.0.0") == ("the tests of them 2.0.0, which is installed", "2.0.0")
    said, content = unpacked("3.0.0")
    assert (said.partition(":")[0], content) == ("the tests of them 2.0.0, with 3.0.0 installed", "2.0.0")
    said, content = unpacked("1.0.0")
    if kind == "folder":  # no tags
        assert (said.partition(":")[0], content) == ("the tests of them 2.0.0, with 1.0.0 installed", "2.0.0")
    else:
        assert (said, content) == ("the tests of them 1.0.0, which is installed", "1.0.0")
