"""A plugin of pytest that writes down what became of each test, and why: into the file FASTEMBED_RT_SUITE_RECORD."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

OUTCOMES: dict[str, dict[str, str]] = {}


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: Any, call: Any) -> Any:
    report = (yield).get_result()
    if report.when == "call" or report.outcome != "passed":
        why = ""
        if report.skipped:
            why = str(report.longrepr[2]) if isinstance(report.longrepr, tuple) else "expected to fail"
        elif report.failed:
            why = str(getattr(report.longrepr, "reprcrash", None) or report.longrepr).splitlines()[0]
        OUTCOMES[item.nodeid.partition("::")[2]] = {"outcome": report.outcome, "why": why}


def pytest_sessionfinish() -> None:
    Path(os.environ["FASTEMBED_RT_SUITE_RECORD"]).write_text(json.dumps(OUTCOMES), encoding="utf-8")
