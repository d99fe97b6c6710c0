"""Markdown tables that read as text too."""

from __future__ import annotations

from collections.abc import Sequence


def table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table, columns aligned so that it reads as text too."""
    rows = [list(head), *([cell.replace("|", "\\|") for cell in row] for row in body)]
    widths = [max(3, *(len(row[k]) for row in rows)) for k in range(len(head))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])
