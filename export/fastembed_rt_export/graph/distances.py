"""Where tokens stand to each other, in standard ONNX operators: bands, rotary angles, rows by distance."""

from __future__ import annotations

import numpy as np

from .graph import Graph, Value
from .layers import Angles, DistanceRows, Relative
from .target import Tokens
from .weight import Array, Weight

# Far below any score, far above the smallest float32: exp() gives exactly 0, and a row without tokens stays finite.
MASKED = -1e30


def positions(graph: Graph, places: Value) -> Value:
    """0, 1, 2, ... for the columns of `places` (B, S): (S,)."""
    length = graph.node("Shape", places, start=1, end=2, name="length")
    length = graph.node("Squeeze", length, name="length")
    return graph.node("Range", graph.constant(0), length, graph.constant(1), name="position")


def between(graph: Graph, position: Value) -> Value:
    """Key minus query for each pair of `position` (S,): (S, S)."""
    query = graph.node("Unsqueeze", position, graph.constant([1]), name="query")
    return graph.node("Sub", position, query, name="distance")


def outside(graph: Graph, distance: Value, *, before: int | None, after: int | None) -> Value:
    """Whether keys at `distance` lie before `before` or behind `after` places; one of them is not None: any."""
    beyond = []
    if before is not None:
        beyond.append(graph.node("Less", distance, graph.constant(-before), name="before"))
    if after is not None:
        beyond.append(graph.node("Greater", distance, graph.constant(after), name="after"))
    return beyond[0] if len(beyond) == 1 else graph.node("Or", *beyond, name="outside")


def band(graph: Graph, tokens: Tokens, *, before: int | None, after: int | None) -> Value:
    """(S, S): 0 for keys from `before` places before the query to `after` places behind it, far below that else."""
    return band_mask(graph, tokens.input_ids, before=before, after=after)


def band_mask(graph: Graph, places: Value, *, before: int | None, after: int | None) -> Value:
    """`band` over the columns of `places` (B, S)."""
    beyond = outside(graph, between(graph, positions(graph, places)), before=before, after=after)
    return graph.node("Where", beyond, graph.constant(MASKED), graph.constant(0.0), name="band")


def bias(graph: Graph, distance: Value, table: Weight) -> Value:
    """Rows of a bias by distance (2P - 1, N) for `distance` (S, S), key minus query: (N, S, S)."""
    zero = (table.shape[0] + 1) // 2 - 1  # row P - 1: distances run from -(P - 1) to P - 1
    row = graph.node("Add", distance, graph.constant(zero), name="row")
    rows = graph.node("Gather", graph.weight(table), row, name="rows")  # (S, S, N)
    return graph.node("Transpose", rows, perm=[2, 0, 1], name="heads")


def reaching(table: Weight, further: int) -> Weight:
    """A bias by distance that goes on with its last rows for distances up to `further` beyond them."""
    rows, heads = table.shape
    ends = ((further, further), (0, 0))
    return table.map(".wide", lambda array: np.pad(array, ends, mode="edge"), (rows + 2 * further, heads))


def by_distance(graph: Graph, states: Value, *, rows: DistanceRows, heads: int) -> Value:
    """Products of (B, S, N * D) with the rows for distances -(S - 1) to S, (B, N, S, 2S), each line moved to its token.

    Line i of the result begins with the distance to token 0, -i, which lies at S - 1 - i: lines that are one shorter
    begin one earlier each time.
    """
    length = graph.node("Shape", states, start=1, end=2, name="length")
    middle = graph.constant([len(rows.index) // 2])
    ends = (graph.node("Sub", middle, length, name="first"), graph.node("Add", middle, length, name="last"))
    chosen = graph.node(
        "Gather",
        graph.weight(rows.table),
        graph.node("Slice", graph.constant(rows.index), *ends, name="rows"),
        name="rows",
    )
    chosen = graph.node("Reshape", chosen, graph.constant([0, heads, -1]), name="rows")
    chosen = graph.node("Transpose", chosen, perm=[1, 2, 0], name="rows")  # (N, D, 2S)
    split = graph.node("Reshape", states, graph.constant([0, 0, heads, -1]), name="heads")
    split = graph.node("Transpose", split, perm=[0, 2, 1, 3], name="heads")
    products = graph.node("MatMul", split, chosen, name="products")
    flat = graph.node("Reshape", products, graph.constant([0, 0, -1]), name="flat")
    one = graph.constant([1])
    shorter = graph.node("Sub", graph.node("Add", length, length, name="twice"), one, name="shorter")
    start = graph.node("Sub", length, one, name="start")
    stop = graph.node("Add", start, graph.node("Mul", length, shorter, name="size"), name="stop")
    flat = graph.node("Slice", flat, start, stop, graph.constant([2]), name="flat")
    lines = graph.node("Concat", graph.constant([0, 0]), length, shorter, axis=0, name="lines")
    moved = graph.node("Reshape", flat, lines, name="moved")
    return graph.node("Slice", moved, graph.constant([0]), length, graph.constant([3]), name="distances")


def by_distance_of_first(graph: Graph, query: Value, key: Value, *, relative: Relative, heads: int) -> Value:
    """Products of a text's first token (B, N * D) with the rows of the distances to all, and of all (B, S, N * D) with
    those of the distances to the first: (B, N, 1, S)."""
    length = graph.node("Shape", key, start=1, end=2, name="length")
    met = []
    if relative.by_query is not None:
        rows = _rows(graph, relative.by_query.index, relative.by_query.table, length, heads)
        rows = graph.node("Transpose", rows, perm=[1, 2, 0], name="rows")  # (N, D, S)
        split = graph.node("Reshape", query, graph.constant([0, heads, 1, -1]), name="heads")
        met.append(graph.node("MatMul", split, rows, name="products"))
    if relative.by_key is not None:
        # Numbered by query - key, which falls from 0 on: read backwards.
        rows = _rows(graph, relative.by_key.index[::-1][1:], relative.by_key.table, length, heads)
        split = graph.node("Reshape", key, graph.constant([0, 0, heads, -1]), name="heads")
        products = graph.node("Mul", split, rows, name="products")
        sums = graph.node("ReduceSum", products, graph.constant([3]), keepdims=1, name="sums")  # (B, S, N, 1)
        met.append(graph.node("Transpose", sums, perm=[0, 2, 3, 1], name="met"))
    return met[0] if len(met) == 1 else graph.node("Add", *met, name="distances")


def _rows(graph: Graph, index: Array, table: Weight, length: Value, heads: int) -> Value:
    """Rows of the distances 0 to S - 1, of which the first lies in the middle of `index`: (S, N, D)."""
    places = graph.constant(index[(len(index) - 1) // 2 :])
    chosen = graph.node("Slice", places, graph.constant([0]), length, name="rows")
    rows = graph.node("Gather", graph.weight(table), chosen, name="rows")
    return graph.node("Reshape", rows, graph.constant([0, heads, -1]), name="rows")


def angles(graph: Graph, tokens: Tokens, *, cosine: Weight, sine: Weight) -> Angles:
    """The first S rows, the same for every text: (S, 1, D / 2) each."""
    length = graph.node("Shape", tokens.input_ids, start=1, end=2, name="length")

    def rows_of(table: Weight) -> Value:
        rows = graph.node("Slice", graph.weight(table), graph.constant([0]), length, name="angle")
        return graph.node("Unsqueeze", rows, graph.constant([1]), name="angle")

    return Angles(cosine=rows_of(cosine), sine=rows_of(sine))


def rotate(graph: Graph, states: Value, *, angles: Angles, heads: int) -> Value:
    """Channel i of each head of (B, S, N * D) with channel i + D / 2, as a point in the plane, turned by its angle."""
    cosine, sine = angles.cosine, angles.sine
    split = graph.node("Reshape", states, graph.constant([0, 0, heads, 2, -1]), name="heads")
    left, right = (
        graph.node("Gather", split, graph.constant(half), axis=3, name=name) for half, name in enumerate("xy")
    )
    x = graph.node(
        "Sub", graph.node("Mul", left, cosine, name="x.cos"), graph.node("Mul", right, sine, name="y.sin"), name="x"
    )
    y = graph.node(
        "Add", graph.node("Mul", right, cosine, name="y.cos"), graph.node("Mul", left, sine, name="x.sin"), name="y"
    )
    turned = graph.node("Concat", x, y, axis=3, name="turned")
    return graph.node("Reshape", turned, graph.constant([0, 0, -1]), name="turned")
