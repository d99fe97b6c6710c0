"""CONTRIBUTING shows how an architecture is added with the code as it is."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIFF = re.search(r"```diff\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.DOTALL)


def added() -> dict[str, str]:
    """Lines that the diff adds, by file."""
    assert DIFF is not None
    parts = re.split(r"^\+\+\+ b/(.*)\n", DIFF[1], flags=re.MULTILINE)
    return {
        file: "".join(line[1:] + "\n" for line in body.splitlines() if line.startswith("+"))
        for file, body in zip(parts[1::2], parts[2::2], strict=True)
    }


def test_the_diff_that_adds_an_architecture_is_the_code_and_short() -> None:
    assert DIFF is not None
    assert DIFF[1].count("\n") < 150
    files = added()
    assert len(files) == 3
    for file, lines in files.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        assert (text == lines) if "modernbert.py" in file else (lines in text), f"CONTRIBUTING shows another {file}"
