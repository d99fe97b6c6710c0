"""How plots look: sizes, fonts, and colours that follow the page from light to dark. Knows no record."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle, islice

import matplotlib as mpl
from matplotlib.figure import Figure

WIDTH = 7.2  # inches of a plot; the page scales it down, never up
SIZE = 10  # points of text in a plot

# matplotlib writes colours as numbers. These stand for roles and become CSS variables in the page, so that one
# drawing serves both themes; the numbers themselves are the light theme, for a plot taken out of its page.
LIGHT = {
    "ink": "#1b1f24",
    "muted": "#59626d",
    "grid": "#e2e5e9",
    "paper": "#fefefe",
    "int8": "#c0245b",
    "fp32": "#1f4fd0",
    "peer-1": "#0f766f",
    "peer-2": "#6d4fb4",
    "peer-3": "#8a5a1d",
    "peer-4": "#475568",
    "peer-5": "#5b6b20",
}
DARK = {
    "ink": "#e8eaed",
    "muted": "#a3acb8",
    "grid": "#363b43",
    "paper": "#16181c",
    "int8": "#ff7fa6",
    "fp32": "#82b1ff",
    "peer-1": "#6fcfc4",
    "peer-2": "#b9a5ee",
    "peer-3": "#dcab69",
    "peer-4": "#aab5c5",
    "peer-5": "#b9c76c",
}
INK, MUTED, GRID, PAPER = (LIGHT[role] for role in ("ink", "muted", "grid", "paper"))
PEERS = [color for role, color in LIGHT.items() if role.startswith("peer")]
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h", "p", "d")

RC = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same drawing on every machine
    "font.size": SIZE,
    "axes.titlesize": SIZE,
    "axes.labelsize": SIZE,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.facecolor": "none",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "none",
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": SIZE - 1,
    "ytick.labelsize": SIZE - 1,
    "svg.fonttype": "path",  # glyphs travel with the page
    "svg.hashsalt": "benchmark",  # the same record, the same bytes
}


@dataclass(frozen=True, kw_only=True)
class Look:
    """How one contender is drawn in every plot."""

    label: str
    color: str
    marker: str
    ours: bool

    @property
    def weight(self) -> str:
        """Ours are set in bold."""
        return "bold" if self.ours else "normal"


def looks(rows: Mapping[str, tuple[str, str, bool]]) -> dict[str, Look]:
    """Colours and markers for contenders given as (label, precision, ours): ours apart from all others."""
    peers = dict(zip([name for name, row in rows.items() if not row[2]], islice(cycle(PEERS), len(rows)), strict=False))
    return {
        name: Look(
            label=label,
            color=LIGHT.get(precision, LIGHT["int8"]) if ours else peers[name],
            marker=marker,
            ours=ours,
        )
        for (name, (label, precision, ours)), marker in zip(rows.items(), cycle(MARKERS), strict=False)
    }


def figure(height: float, width: float = WIDTH) -> Figure:
    """An empty drawing of so many inches, outside pyplot's global state."""
    return Figure(figsize=(width, height))


def style() -> AbstractContextManager[None]:
    """To draw in: `with style(): ...`."""
    found: AbstractContextManager[None] = mpl.rc_context(RC)
    return found


def svg(drawn: Figure, title: str, name: str) -> str:
    """An <svg> element to put into a page: no outside reference, ids of its own, colours by role."""
    buffer = io.StringIO()
    with style():
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        drawn.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.06, metadata=none)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.DOTALL)
    text = re.sub(r' d="[^"]*"', _rounded, text)
    text = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', text)
    text = re.sub(r'"#([^"]+)"', rf'"#{name}-\1"', text)
    text = re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)
    for role, color in LIGHT.items():
        text = text.replace(color, f"var(--{role}, {color})")
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(title)}" ', 1).strip()


def _rounded(path: re.Match[str]) -> str:
    """A path's numbers to a hundredth of a point: half the page."""
    return re.sub(r"(\.\d\d)\d+", r"\1", path.group())


def css(colors: Mapping[str, str]) -> str:
    """The colours as CSS variables."""
    return " ".join(f"--{role}: {color};" for role, color in colors.items())
