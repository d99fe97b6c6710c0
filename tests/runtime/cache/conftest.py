"""A cache of its own for each test, and a count of exports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastembed_rt.cache import exporting


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the exports, not there yet."""
    monkeypatch.setenv("FASTEMBED_RT_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept" / "exports"


@pytest.fixture
def exports(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the checkpoints that were exported in this process, in order."""
    done: list[str] = []
    real = exporting.export

    def counting(located: Any, *arguments: Any, **options: Any) -> Any:
        done.append(located.name)
        return real(located, *arguments, **options)

    monkeypatch.setattr(exporting, "export", counting)
    return done
