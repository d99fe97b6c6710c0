"""The targets that no other test runs, as far as their lines tell."""

from __future__ import annotations

import re
from pathlib import Path

MAKEFILE = (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8")


def test_environments_are_named_from_the_root_since_commands_run_elsewhere() -> None:
    named = re.findall(r"^\t.*?\b(FASTEMBED_RT_[A-Z]+)=(\S*\$\((?!CURDIR)\w+\)\S*)", MAKEFILE, re.MULTILINE)
    assert len(named) > 5
    assert [(name, place) for name, place in named if not place.startswith(("$(CURDIR)/", "'$(CURDIR)/"))] == []
