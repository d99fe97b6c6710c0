"""Lines that keep to the width of a terminal: of help texts, of tables, of hits."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator, Sequence

INDENT = "    "


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the paragraphs and lists of a text, and breaks what is longer than a line."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = re.split(r"\n\s*\n", text.strip("\n"))
        return "\n\n".join("\n".join(_filled(paragraph, width, indent)) for paragraph in paragraphs)


def _filled(paragraph: str, width: int, indent: str) -> Iterator[str]:
    """Its lines: those that begin at the margin flow into one another, those of a list stay apart."""
    flowing: list[str] = []
    for line in paragraph.splitlines():
        if not line.startswith(" "):
            flowing.append(line)
            continue
        yield from _wrapped(" ".join(flowing), width, indent, indent)
        flowing = []
        entry = re.match(r"( +(?:\S+(?: \S+)*  +)?)", line)  # the name of an entry, with the blanks around it
        hanging = " " * len(entry[1]) if entry else ""
        yield from _wrapped(line, width, indent, indent + hanging)
    yield from _wrapped(" ".join(flowing), width, indent, indent)


def _wrapped(line: str, width: int, first: str, following: str) -> list[str]:
    return textwrap.wrap(
        line,
        width,
        initial_indent=first,
        subsequent_indent=following if len(following) < width // 2 else first + INDENT,
        break_long_words=False,
        break_on_hyphens=False,
    )


def wrapped(line: str, width: int) -> list[str]:
    """A line that is indented, on as many lines as it takes."""
    return _wrapped(line, width, INDENT, INDENT)


def aligned(table: Sequence[Sequence[str]], width: int | None) -> Iterator[str]:
    """The rows of a table, the first of which names the columns; a few lines a row where `width` is less than it needs.

    The first two cells of a row are a mark and a name.
    """
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    if width is None or sum(widths) + 2 * (len(widths) - 1) <= width:
        for row in table:
            yield "  ".join(cell.ljust(size) for cell, size in zip(row, widths, strict=True)).rstrip()
        return
    names, *rows = table
    for mark, name, *cells in rows:
        yield f"{mark.ljust(widths[0])}  {name}"
        about = (f"{what} {cell}".strip() for what, cell in zip(names[2:], cells, strict=True) if cell)
        yield from _wrapped(", ".join(about), width, INDENT + "  ", INDENT + "  ")
