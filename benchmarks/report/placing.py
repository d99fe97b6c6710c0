"""Where labels go so that none lies on another or on a point. Geometry only, in pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from matplotlib.transforms import Bbox

DISTANCES = (9, 16, 26, 38, 52, 68)  # pixels from a point, tried in this order
ANGLES = (0, 180, 90, 270, 35, 325, 145, 215)

Corners = npt.NDArray[np.float64]


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Positions near the wanted ones, at least a gap apart, inside [low, high] as far as there is room."""
    if not wanted:
        return []
    order = sorted(range(len(wanted)), key=lambda k: wanted[k])
    placed = [wanted[k] for k in order]
    high = max(high, low + gap * (len(wanted) - 1))
    for k in range(len(placed)):
        placed[k] = max(placed[k], low if k == 0 else placed[k - 1] + gap)
    for k in reversed(range(len(placed))):
        placed[k] = min(placed[k], high if k == len(placed) - 1 else placed[k + 1] - gap)
    found = [0.0] * len(wanted)
    for k, value in zip(order, placed, strict=True):
        found[k] = value
    return found


def along(corners: Sequence[tuple[float, float]], step: float = 6.0) -> list[Bbox]:
    """Small boxes on a line through the corners: labels stay off them."""
    found = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        count = max(1, round(math.dist((x0, y0), (x1, y1)) / step))
        centers = [(x0 + (x1 - x0) * k / count, y0 + (y1 - y0) * k / count) for k in range(count + 1)]
        found += [Bbox.from_extents(x - 2, y - 2, x + 2, y + 2) for x, y in centers]
    return found


def around(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    inside: Bbox,
    radius: float,
    avoid: Sequence[Bbox] = (),
) -> list[Bbox]:
    """A box for the label of each point, the first points choosing first: off all points and boxes, inside the axes.

    Where nothing is free the box with the least overlap is taken; so far away that a leader is drawn, the leader
    stays off other labels too.
    """
    markers = [Bbox.from_extents(x - radius, y - radius, x + radius, y + radius) for x, y in points]
    taken: list[Bbox] = []
    in_the_way = _corners([*markers, *avoid])  # and what is placed below
    for (x, y), (width, height) in zip(points, sizes, strict=True):
        best, least = Bbox.null(), math.inf
        for distance in DISTANCES:
            for turn, angle in enumerate(ANGLES):
                box = _beside(x, y, width, height, distance, angle)
                cost = _common(_corners([box]), in_the_way)
                cost += 10 * (float(box.width * box.height) - _common(_corners([box]), _corners([inside])))
                if taken:
                    leader = along([(x, y), nearest(x, y, box)])
                    cost += 10 * _common(_corners(leader), _corners(taken))
                cost += 0.01 * distance + 0.001 * turn  # near before far
                if cost < least:
                    best, least = box, cost
        taken.append(best)
        in_the_way = np.concatenate([in_the_way, _corners([best, *along([(x, y), nearest(x, y, best)])])])
    return taken


def nearest(x: float, y: float, box: Bbox) -> tuple[float, float]:
    """The point of a box that a leader from (x, y) ends at."""
    return min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)


def _beside(x: float, y: float, width: float, height: float, distance: float, angle: float) -> Bbox:
    dx, dy = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    center_x = x + dx * (distance + width / 2 * (1 if abs(dx) > 0.2 else 0))
    center_y = y + dy * (distance + height / 2)
    return Bbox.from_extents(center_x - width / 2, center_y - height / 2, center_x + width / 2, center_y + height / 2)


def _corners(boxes: Sequence[Bbox]) -> Corners:
    """(boxes, 4): x0, y0, x1, y1."""
    return np.array([(box.x0, box.y0, box.x1, box.y1) for box in boxes]).reshape(-1, 4)


def _common(left: Corners, right: Corners) -> float:
    """What each of some boxes (n, 4) covers of each of others (m, 4), all together."""
    ends = np.minimum(left[:, None, 2:], right[:, 2:])
    starts = np.maximum(left[:, None, :2], right[:, :2])
    return float(np.maximum(ends - starts, 0.0).prod(axis=2).sum())
