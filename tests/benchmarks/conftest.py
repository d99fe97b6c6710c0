"""Makes the benchmarks importable, which are run from the project's root and not installed; and the fixture `run`."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from fake_runs import run

__all__ = ["run"]
