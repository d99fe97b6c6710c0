"""A graph cut into stages that run one after the other: no more than one stage's weights are in memory.

What leads from one stage to the next are float token states, kept for every batch. What depends on the inputs alone
(masks, positions) is made again in each stage.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from onnx import NodeProto, helper

from ..graph.graph import FLOAT, Graph, Value

LARGE = 1 << 20  # bytes of a weight whose node is not run again in each stage
MOST_KEPT = 5  # values that lead over a cut: a residual, and rotary angles of two kinds of layers
PATIENCE = 2.0  # times its size that a stage may have, to end where the fewest lead over
# Operators whose result is float whatever they read, and those whose result is what they read first: what leads over a
# cut is declared as float.
STATES = frozenset(
    ("Add", "Mul", "LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization", "Gemm", "MatMul")
)
SAME = frozenset(("Gather", "Unsqueeze", "Squeeze", "Reshape", "Transpose", "Identity"))


@dataclass(frozen=True)
class Stage:
    """A part of a graph, with the inputs of the whole."""

    graph: Graph
    takes: tuple[Value, ...]  # given by stages before it
    gives: tuple[Value, ...]  # taken by stages behind it
    watched: tuple[Value, ...]  # of those asked for, what this stage makes

    @property
    def outputs(self) -> list[Value]:
        """Names of what a run gives, the graph's own outputs last."""
        return [entry.name for entry in self.graph.outputs]


def stages(graph: Graph, watched: Collection[Value], most: int) -> list[Stage]:
    """Cut once the weights of a stage reach `most` bytes, where the fewest values lead over or it gets far larger."""
    again = _again(graph, watched)
    made_by = {name: index for index, node in enumerate(graph.nodes) for name in node.output}
    last_use: dict[Value, int] = {}
    for index, node in enumerate(graph.nodes):
        if index not in again:
            last_use |= {name: index for name in node.input if made_by.get(name, -1) >= 0}
    cuts = _cuts(graph, again, made_by, last_use)
    fewest = min(map(len, cuts.values()), default=0)
    found: list[Stage] = []
    begin, size = 0, 0
    seen: set[Value] = set()
    for index, node in enumerate(graph.nodes):
        fresh = {name for name in node.input if name in graph.weights} - seen
        seen |= fresh
        size += sum(graph.weights[name].nbytes for name in fresh)
        if index in cuts and size >= (most if len(cuts[index]) == fewest else PATIENCE * most):
            found.append(_stage(graph, again, range(begin, index + 1), sorted(cuts[index]), watched))
            begin, size = index + 1, 0
    found.append(_stage(graph, again, range(begin, len(graph.nodes)), [], watched))
    return found


def _cuts(
    graph: Graph, again: Collection[int], made_by: Mapping[Value, int], last_use: Mapping[Value, int]
) -> dict[int, frozenset[Value]]:
    """Nodes behind which a stage may end, and the values that lead over: few, and all of them float."""
    found: dict[int, frozenset[Value]] = {}
    kept = frozenset[Value]()
    for index, node in enumerate(graph.nodes):
        if index in again:
            continue
        here = (kept | set(node.output)) & {name for name, use in last_use.items() if use > index}
        kept = frozenset(name for name in here if made_by[name] not in again)
        if 0 < len(kept) <= MOST_KEPT and all(_is_float(graph, made_by, name) for name in kept):
            found[index] = kept
    return found


def _is_float(graph: Graph, made_by: Mapping[Value, int], name: Value) -> bool:
    while name in made_by and graph.nodes[made_by[name]].op_type in SAME:
        name = graph.nodes[made_by[name]].input[0]
    if name in graph.weights:
        return graph.weights[name].dtype.kind == "f"
    return name in made_by and graph.nodes[made_by[name]].op_type in STATES


def _again(graph: Graph, watched: Collection[Value]) -> set[int]:
    """Numbers of the nodes that are run again in each stage that needs them."""
    of_states, again = set(watched), set[int]()
    for index, node in enumerate(graph.nodes):
        large = any(name in graph.weights and graph.weights[name].nbytes >= LARGE for name in node.input)
        if large or of_states & {*node.input, *node.output}:
            of_states |= set(node.output)
        else:
            again.add(index)
    return again


def _stage(graph: Graph, again: set[int], own: range, gives: list[Value], watched: Collection[Value]) -> Stage:
    here = [index for index in own if index not in again or set(graph.nodes[index].output) & set(watched)]
    made = {name for index in here for name in graph.nodes[index].output}
    shown = [value for value in watched if value in made]
    final = [entry for entry in graph.outputs if any(entry.name in graph.nodes[index].output for index in own)]
    names = dict.fromkeys([*gives, *shown])
    wanted = {*names, *(entry.name for entry in final)}
    allowed, nodes = {*here, *again}, list[NodeProto]()
    for index in range(own.stop - 1, -1, -1):
        node = graph.nodes[index]
        if index in allowed and wanted & set(node.output):
            nodes.append(node)
            wanted |= set(node.input)
    nodes.reverse()
    given = {name for node in nodes for name in node.output} | {entry.name for entry in graph.inputs}
    takes = sorted(wanted - given - set(graph.weights) - set(graph.constants) - {""})
    part = Graph(
        graph.opset,
        nodes,
        {name: weight for name, weight in graph.weights.items() if name in wanted},
        {name: constant for name, constant in graph.constants.items() if name in wanted},
        [*graph.inputs, *_floats(takes)],
        [*_floats(names), *final],
    )
    return Stage(part, tuple(takes), tuple(gives), tuple(shown))


def _floats(names: Collection[Value]) -> Iterator[object]:
    return (helper.make_tensor_value_info(name, FLOAT, None) for name in names)
