"""The version is written in fastembed_rt/__init__.py; whatever else names it agrees."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import fastembed_rt
from fastembed_rt.run.providers import OLDEST

ROOT = Path(__file__).parents[2]


def test_the_project_takes_it_from_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["hatch"]["version"]["path"] == "fastembed_rt/__init__.py"


def test_the_oldest_onnxruntime_is_the_one_that_errors_name() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert extras["cpu"] == [f"onnxruntime>={OLDEST}"]


def test_the_citation_names_it() -> None:
    text = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.findall(r"^version: (.*)$", text, re.MULTILINE) == [fastembed_rt.__version__]


def test_the_newest_changes_are_of_it() -> None:
    headings = re.findall(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == fastembed_rt.__version__
