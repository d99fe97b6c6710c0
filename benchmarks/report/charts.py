"""Four kinds of drawing: points, lines, boxes, columns of bars. They know numbers and looks, no record."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from . import placing, theme
from .theme import GRID, INK, MUTED, PAPER, SIZE, Look

ROW = 0.31  # inches of one row of bars or boxes
DOTS_PER_INCH = 72  # of an SVG: pixels are points


@dataclass(frozen=True, kw_only=True)
class Axis:
    """What an axis shows. ticks: where and what to write, instead of round numbers."""

    label: str
    log: bool = True
    ticks: Mapping[float, str] | None = None


def number(value: float) -> str:
    """Three digits that matter, thousands apart, no exponent."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:g}"


def _frame(drawn: Figure, where: Sequence[float], title: str | None = None) -> Any:
    """Axes at (left, bottom, width, height) inches; a title goes above the drawing, flush left."""
    width, height = drawn.get_size_inches()
    left, bottom, wide, high = where
    if title is not None:
        lines = "\n".join(textwrap.wrap(title, 64))
        drawn.text(0, 1 - 0.3 / height, lines, fontsize=SIZE + 2, fontweight="bold", va="bottom", color=INK)
    return drawn.add_axes((left / width, bottom / height, wide / width, high / height))


def _scale(axes: Any, which: str, axis: Axis) -> None:
    mine = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xlabel if which == "x" else axes.set_ylabel)(axis.label)
    if axis.log:
        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        mine.set_minor_locator(NullLocator())
        if axis.ticks is None:
            low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
            wide = high / low > 300
            mine.set_major_locator(LogLocator(base=10, subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    if axis.ticks is not None:
        mine.set_ticks(list(axis.ticks), list(axis.ticks.values()))
    else:
        mine.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))
    axes.grid(visible=True, axis=which, linewidth=0.8)


def points(
    title: str, looks: Mapping[str, Look], values: Mapping[str, tuple[float, float]], x: Axis, y: Axis
) -> Figure:
    """Contenders at (x, y), each with its name; y falls upwards; the front of those that nobody beats is drawn."""
    with theme.style():
        drawn = theme.figure(5.0)
        axes = _frame(drawn, (0.8, 0.55, theme.WIDTH - 0.9, 4.0), title)
        across, up = zip(*values.values(), strict=True)
        axes.set_xlim(min(across) / 2, max(across) * 2.3)  # room for a name on the right
        axes.set_ylim(max(up) * 3, min(up) / 3)
        _scale(axes, "x", x)
        _scale(axes, "y", y)
        best = front(values)
        stairs = _stairs([values[name] for name in best])
        axes.plot(*zip(*stairs, strict=True), color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=2)
        order = sorted(values, key=lambda name: (not looks[name].ours, name not in best))
        for name in order:
            look = looks[name]
            axes.plot(
                *values[name], look.marker, color=look.color, markersize=11 if look.ours else 8, zorder=4, clip_on=False
            )
        _name_points(drawn, axes, looks, values, order, stairs)
    return drawn


def front(values: Mapping[str, tuple[float, float]]) -> list[str]:
    """Those that nobody beats in one of (more x, less y) without losing in the other."""
    return [
        name
        for name, (x, y) in values.items()
        if not any((a >= x and b <= y) and (a > x or b < y) for a, b in values.values())
    ]


def _stairs(best: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The edge of what the best ones beat: from each down to the next one's level, then right to it."""
    ordered = sorted(best)
    corners = [ordered[0]]
    for (x, _), after in pairwise(ordered):
        corners += [(x, after[1]), after]
    return corners


def _name_points(
    drawn: Figure,
    axes: Any,
    looks: Mapping[str, Look],
    values: Mapping[str, tuple[float, float]],
    order: Sequence[str],
    stairs: Sequence[tuple[float, float]],
) -> None:
    drawn.set_dpi(DOTS_PER_INCH)
    written = [
        axes.text(0, 0, looks[name].label, fontsize=SIZE - 0.5, color=looks[name].color, fontweight=looks[name].weight)
        for name in order
    ]
    sizes = [(box.width, box.height) for text in written if (box := text.get_window_extent())]
    places = [tuple(axes.transData.transform(values[name])) for name in order]
    line = placing.along([tuple(axes.transData.transform(corner)) for corner in stairs])
    boxes = placing.around(places, sizes, axes.get_window_extent(), radius=6, avoid=line)
    back = axes.transData.inverted()
    for name, text, place, box in zip(order, written, places, boxes, strict=True):
        nearest = placing.nearest(place[0], place[1], box)
        text.set(position=back.transform((box.x0, box.y0)), verticalalignment="bottom", zorder=5)
        if math.dist(place, nearest) > placing.DISTANCES[1]:
            ends = zip(values[name], back.transform(nearest), strict=True)
            axes.plot(*ends, color=looks[name].color, linewidth=0.8, zorder=3)


def lines(
    title: str,
    looks: Mapping[str, Look],
    steps: Sequence[float],
    values: Mapping[str, Sequence[float | None]],
    x: Axis,
    y: Axis,
    ideal: Mapping[str, Sequence[float]] | None = None,
) -> Figure:
    """A line a contender over steps (twice as much is equally far), its name where it ends; `ideal` lines dashed."""
    with theme.style():
        drawn = theme.figure(4.7)
        axes = _frame(drawn, (0.75, 0.55, theme.WIDTH - 2.75, 3.75), title)
        known = [value for row in (*values.values(), *(ideal or {}).values()) for value in row if value is not None]
        margin = 1.15 if y.log else 1.08
        axes.set_ylim(min(known) / margin if y.log else 0, max(known) * margin)
        axes.set_xlim(steps[0] / 1.1, steps[-1] * 1.1)
        _scale(axes, "x", Axis(label=x.label, ticks=x.ticks or {step: _short(step) for step in steps}))
        _scale(axes, "y", y)
        for name, row in values.items():
            look = looks[name]
            seen = [(step, value) for step, value in zip(steps, row, strict=True) if value is not None]
            axes.plot(
                *zip(*seen, strict=True),
                color=look.color,
                marker=look.marker,
                markersize=7 if look.ours else 5,
                linewidth=2.8 if look.ours else 1.2,
                zorder=4 if look.ours else 3,
                clip_on=False,
            )
        for name, wanted in (ideal or {}).items():
            axes.plot(steps, wanted, color=looks[name].color, linewidth=1, linestyle=(0, (2, 3)), zorder=2)
        _name_lines(drawn, axes, looks, steps, values)
    return drawn


def _name_lines(
    drawn: Figure,
    axes: Any,
    looks: Mapping[str, Look],
    steps: Sequence[float],
    values: Mapping[str, Sequence[float | None]],
) -> None:
    drawn.set_dpi(DOTS_PER_INCH)
    inside = axes.get_window_extent()
    ends = {
        name: next((step, v) for step, v in reversed([*zip(steps, row, strict=True)]) if v is not None)
        for name, row in values.items()
    }
    wanted = [float(axes.transData.transform(end)[1]) for end in ends.values()]
    heights = placing.spread(wanted, SIZE * 1.3, inside.y0 + 4, inside.y1 - 4)
    for (name, end), height in zip(ends.items(), heights, strict=True):
        look = looks[name]
        arrow = {
            "arrowstyle": "-",
            "color": look.color,
            "linewidth": 0.8,
            "linestyle": "-" if end[0] == steps[-1] else (0, (1, 4)),  # across the plot: not to be read as values
            "shrinkA": 2,
            "shrinkB": 6,
            "relpos": (0, 0.5),
        }
        axes.annotate(
            look.label,
            xy=end,
            xytext=(1 + 26 / inside.width, (height - inside.y0) / inside.height),
            xycoords="data",
            textcoords="axes fraction",
            va="center",
            fontsize=SIZE - 0.5,
            color=look.color,
            fontweight=look.weight,
            arrowprops=arrow,
            annotation_clip=False,
        )


def boxes(
    title: str, looks: Mapping[str, Look], values: Mapping[str, Sequence[float]], x: Axis, wording: str = "{} / {} / {}"
) -> Figure:
    """A box a contender, least median on top: middle half, whiskers from p1 to p99; p50, p95 and p99 in words."""
    with theme.style():
        order = sorted(values, key=lambda name: -float(np.median(values[name])))
        high = ROW * len(order)
        drawn = theme.figure(high + 1.25)
        axes = _frame(drawn, (2.2, 0.55, theme.WIDTH - 3.9, high), title)
        drawn.set_dpi(DOTS_PER_INCH)
        shares = [np.percentile(values[name], (1, 25, 50, 75, 95, 99)) for name in order]
        axes.set_xlim(min(row[0] for row in shares) / 1.2, max(row[-1] for row in shares) * 1.2)
        axes.set_ylim(-0.6, len(order) - 0.4)
        _scale(axes, "x", x)
        for row, (name, (p1, p25, p50, p75, p95, p99)) in enumerate(zip(order, shares, strict=True)):
            color = looks[name].color
            axes.plot((p1, p99), (row, row), color=color, linewidth=1.4, solid_capstyle="butt", zorder=3)
            for end in (p1, p99):
                axes.plot((end, end), (row - 0.16, row + 0.16), color=color, linewidth=1.4, zorder=3)
            axes.barh(row, p75 - p25, left=p25, height=0.5, color=color, zorder=4)
            axes.plot((p50, p50), (row - 0.25, row + 0.25), color=PAPER, linewidth=1.8, zorder=5)
            told = wording.format(*(number(value) for value in (p50, p95, p99)))
            axes.annotate(told, (1, row), (8, 0), ("axes fraction", "data"), "offset points", va="center", fontsize=9)
        _name_rows(axes, [looks[name] for name in order])
        head = wording.format("p50", "p95", "p99")
        axes.annotate(head, (1, 1), (8, 2), "axes fraction", "offset points", fontsize=9, color=MUTED)
    return drawn


def bars(
    title: str,
    rows: Sequence[Look],
    columns: Sequence[str],
    values: Sequence[Sequence[float | None]],
    words: Sequence[Sequence[str]],
    label: str,
    *,
    around_zero: bool = False,
    shared: bool | float = False,
) -> Figure:
    """A column of bars for each measure, rows in the given order from the top; each bar has its figure in words.

    Columns have scales of their own unless `shared`, which may also give the longest bar's value, where several
    drawings share a scale; `around_zero`: bars to both sides, for differences.
    """
    with theme.style():
        high = ROW * len(rows)
        names = max((len(look.label) for look in rows), default=0) * 0.085 + 0.2
        heads = 0.05 + 0.17 * max(column.count("\n") + 1 for column in columns)
        drawn = theme.figure(high + heads + 0.7)
        wide = (theme.WIDTH - names) / len(columns)
        most = [
            max((abs(v) for row in values if (v := row[k]) is not None), default=0) or 1 for k in range(len(columns))
        ]
        for k, column in enumerate(columns):
            axes = _frame(drawn, (names + k * wide, 0.3, wide - 0.12, high), None if k else title)
            axes.set_ylim(len(rows) - 0.4, -0.6)
            reach = max(most) if shared is True else shared or most[k]
            # Words stand right of the longest bar.
            room = max(len(row[k]) for row in words) * 0.075 / max(0.2, wide - 0.12)
            right = reach / max(0.15, 1 - room)
            axes.set_xlim(-right if around_zero else 0, right)
            for row, look in enumerate(rows):
                value = values[row][k]
                if value is not None:
                    axes.barh(row, value, height=0.62, color=look.color, zorder=3)
                start = 0 if value is None or around_zero else value
                at = max(start, value or 0)
                axes.annotate(words[row][k], (at, row), (3, 0), "data", "offset points", va="center", fontsize=8.5)
            axes.set_title(column, loc="left", fontsize=9, color=MUTED)
            axes.xaxis.set_visible(False)
            axes.spines["bottom"].set_visible(False)
            axes.axvline(0, color=GRID, linewidth=1)
            if k == 0:
                _name_rows(axes, list(rows))
            else:
                axes.yaxis.set_visible(False)
            axes.spines["left"].set_visible(False)
        drawn.text(0, 0, label, color=MUTED, va="bottom", fontsize=9)
    return drawn


def _name_rows(axes: Any, looks: Sequence[Look]) -> None:
    axes.set_yticks(range(len(looks)), [look.label for look in looks])
    axes.tick_params(axis="y", length=0)
    for written, look in zip(axes.get_yticklabels(), looks, strict=True):
        written.set(color=look.color, fontweight=look.weight, fontsize=SIZE - 0.5)
