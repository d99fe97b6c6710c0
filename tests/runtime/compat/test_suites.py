"""What `make compat` makes of runs of other projects' tests."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

SUITES = Path(__file__).parents[2] / "interop_suites"


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
