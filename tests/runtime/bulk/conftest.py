"""What several stories of jobs begin with."""

from __future__ import annotations

from pathlib import Path

import pytest
from bulk_jobs import TEXTS, write_jsonl


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in.jsonl", TEXTS)
