"""Parts as one HTML page that needs nothing else: no script, no outside font, image or style."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from . import theme
from .sections import Part, Table

STYLE = """
:root { color-scheme: light dark; %(light)s }
@media (prefers-color-scheme: dark) { :root { %(dark)s } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 76rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .75rem; border-top: 1px solid var(--grid); }
p, li { max-width: 52rem; }
p.note, p.missing, nav { color: var(--muted); }
nav a { color: inherit; margin-right: .9rem; white-space: nowrap; display: inline-block; padding: .15rem 0; }
.wide { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .55rem; text-align: right; border-bottom: 1px solid var(--grid); vertical-align: top; }
th:first-child, td:first-child, table.words td, table.words th { text-align: left; }
td { white-space: nowrap; }
td:first-child { min-width: 13rem; white-space: normal; }
thead th { color: var(--muted); font-weight: 600; vertical-align: bottom; min-width: 4.5rem; }
table.words td { overflow-wrap: anywhere; min-width: 8rem; white-space: normal; }
tr.ours td { font-weight: 700; }
figure { margin: 1.25rem 0; overflow-x: auto; }
@media (max-width: 40rem) { td:first-child { min-width: 8.5rem; } }
figure svg { display: block; width: 100%%; height: auto; min-width: 34rem; max-width: 54rem; }
summary { cursor: pointer; color: var(--muted); }
li { overflow-wrap: anywhere; }
"""


def render(title: str, lead: str, parts: Sequence[Part]) -> str:
    """The whole page; drawings are made here."""
    style = STYLE % {"light": theme.css(theme.LIGHT), "dark": theme.css(theme.DARK)}
    links = " ".join(f'<a href="#part-{k}">{escape(part.title)}</a>' for k, part in enumerate(parts))
    sections = "\n".join(_section(part, k) for k, part in enumerate(parts))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{style}</style>
</head>
<body>
<header>
<h1>{escape(title)}</h1>
<p>{escape(lead)}</p>
<nav>{links}</nav>
</header>
<main>
{sections}
</main>
</body>
</html>
"""


def _section(part: Part, number: int) -> str:
    pieces = [f'<section id="part-{number}">', f"<h2>{escape(part.title)}</h2>"]
    if part.missing:
        pieces.append(f'<p class="missing">Left out: {escape(part.missing)}.</p>')
    if part.note:
        pieces.append(f'<p class="note">{escape(part.note)}</p>')
    for k, drawing in enumerate(part.drawings):
        element = theme.svg(drawing.draw(), drawing.title, f"p{number}-{k}")
        pieces.append(f'<figure tabindex="0">{element}</figure>')
    tables = "\n".join(_table(one) for one in part.tables)
    if tables and part.drawings:
        tables = f"<details><summary>The same in figures</summary>\n{tables}\n</details>"
    pieces.append(tables)
    if part.lines:
        lines = "\n".join(f"<li>{escape(line)}</li>" for line in part.lines)
        pieces.append(f"<ul>{lines}</ul>")
    return "\n".join([*(piece for piece in pieces if piece), "</section>"])


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.head)
    rows = []
    for k, row in enumerate(table.body):
        kind = ' class="ours"' if k in table.strong else ""
        rows.append(f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    # Sentences read from the left; figures line up at the right.
    longest = max((len(cell) for row in table.body for cell in row[1:]), default=0)
    kind = ' class="words"' if longest > 40 else ""
    lines = "\n".join(rows)
    return f'<div class="wide"><table{kind}><thead><tr>{head}</tr></thead><tbody>\n{lines}\n</tbody></table></div>'
