"""Makes the benchmarks importable, which are run from the project's root and not installed; and the fixture `run`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from fake_runs import run

from benchmarks.precision import int8

__all__ = ["run"]


@pytest.fixture(scope="module")
def texts_of_each_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a few texts of each file."""
    folder = tmp_path_factory.mktemp("data")
    (folder / "texts").mkdir()
    for name in int8.SHARES:
        lines = [json.dumps(f"the cat {word} over the old river in {name}") for word in ("runs", "sleeps", "jumps")]
        (folder / "texts" / f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder
