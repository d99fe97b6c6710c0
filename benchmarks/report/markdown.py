"""Parts as Markdown: the same tables, no drawings."""

from __future__ import annotations

from collections.abc import Sequence

from .sections import Part
from .table import table


def render(title: str, parts: Sequence[Part]) -> str:
    """The whole report."""
    blocks = [f"# {title}"]
    for part in parts:
        blocks.append(f"## {part.title}")
        if part.missing:
            blocks.append(f"Left out: {part.missing}.")
        if part.note:
            blocks.append(part.note)
        for one in part.tables:
            body = [
                [f"**{cell}**" if k in one.strong and column == 0 else cell for column, cell in enumerate(row)]
                for k, row in enumerate(one.body)
            ]
            blocks.append(table(one.head, body))
        if part.lines:
            blocks.append("\n".join(f"- {line}" for line in part.lines))
    return "\n\n".join(blocks) + "\n"
