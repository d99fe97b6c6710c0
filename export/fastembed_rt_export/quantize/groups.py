"""Groups of layers that read the same values: what is quantized together, found by building the graph once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ..graph.cpu import CPU, with_linears
from ..graph.graph import FLOAT32, Graph, Value
from ..graph.int8 import group_key
from ..graph.layers import Attention, FeedForward, Residual, ScoreBias
from ..graph.target import Target, Tokens
from ..graph.weight import Floats, Linear, Norm, in_rows
from .ranges import Outputs
from .texts import SEED

PROJECTED = 96  # outputs of the random projection
CHUNK = 4096  # columns of a weight that are worked on at a time
MOST_COLUMNS = 8192  # of a group, on which candidates are compared


@dataclass
class Groups:
    """Groups of layers of a graph, by key."""

    reads: dict[str, list[Value]] = field(default_factory=dict)
    layers: dict[str, Sequence[Linear]] = field(default_factory=dict)
    free: set[str] = field(default_factory=set)  # groups whose smoothing folds into an earlier layer
    folds_into: dict[str, str] = field(default_factory=dict)  # that layer's weight -> the group
    activated: set[str] = field(default_factory=set)  # groups whose outputs stay inside an operator
    behind_activation: set[str] = field(default_factory=set)  # groups that read what an activation gives, ungated
    blocks: bool = False  # there are operators for whole blocks, and for layers that stand alone

    def heavy(self, key: str) -> bool:
        """Whether operators that add back what lies beyond a narrow range count most in what a group is chosen by."""
        return self.blocks and key not in self.activated

    def shared(self, key: str) -> bool:
        """Whether another group reads what this one does."""
        return any(set(self.reads[key]) & set(read) for other, read in self.reads.items() if other != key)

    @property
    def values(self) -> list[Value]:
        """What any of them reads. Layers that are run several times (ALBERT's) read several."""
        return list(dict.fromkeys(value for read in self.reads.values() for value in read))


def probe(groups: Groups, base: Target = CPU) -> Target:
    """The target, noting each group of layers, the values it reads, and whose smoothing folds into which layer."""

    def linears(graph: Graph, states: Value, layers: Sequence[Linear]) -> list[Value]:
        key = group_key(layers)
        groups.reads.setdefault(key, []).append(states)
        groups.layers.setdefault(key, list(layers))
        return base.linears(graph, states, layers)

    def balance(value: Linear, output: Linear) -> tuple[Linear, Linear]:
        groups.free.add(group_key([output]))
        groups.folds_into[value.weight.name] = group_key([output])
        return value, output

    def attention_block(
        graph: Graph,
        tokens: Tokens,
        states: Value,
        *,
        attention: Attention,
        bias: ScoreBias,
        before: Norm | None,
        then: Residual | None,
    ) -> None:
        given = attention.projections
        if not attention.turned:
            groups.activated.add(group_key([given.query, given.key, given.value]))

    def feed_forward_block(
        graph: Graph, states: Value, *, layers: FeedForward, before: Norm | None, then: Residual | None
    ) -> None:
        groups.activated.add(group_key(layers.first))
        if layers.gate is None:
            groups.behind_activation.add(group_key([layers.down]))

    # Of a mixture all experts see all tokens here: what is watched has a row for each token, whoever was chosen.
    if base is not CPU:
        return replace(base, linears=linears, dispatches=False)
    groups.blocks = True
    return replace(
        with_linears(CPU, linears),
        dispatches=False,
        balance=balance,
        attention_block=attention_block,
        feed_forward_block=feed_forward_block,
    )


class Weights:
    """The weights of a group, (K, N) of all its layers side by side, with earlier groups' smoothing folded in."""

    def __init__(self, groups: Groups, key: str, folds: Mapping[str, Floats]) -> None:
        self._layers = groups.layers[key]
        self._folds = [folds.get(groups.folds_into.get(layer.weight.name, "")) for layer in self._layers]
        self.count = len(self._layers)
        self._width = sum(layer.out_features for layer in self._layers)
        self._sizes = [len(range(0, layer.out_features, CHUNK)) for layer in self._layers]

    def chunks(self, layer: int) -> Iterator[tuple[int, Floats]]:
        """(K, n) columns of a layer at a time, with the number of the chunk in the group."""
        weight, fold = self._layers[layer].weight.load().T, self._folds[layer]
        for index, begin in enumerate(range(0, weight.shape[1], CHUNK)):
            columns = in_rows(weight[:, begin : begin + CHUNK], FLOAT32)
            if fold is not None:
                columns = columns / fold[begin : begin + CHUNK]
            yield sum(self._sizes[:layer]) + index, columns

    def projection(self, number: int, columns: int) -> Floats:
        """(n, R) the rows of the random projection that belong to a chunk."""
        random = np.random.default_rng([SEED, number])
        return random.standard_normal((columns, PROJECTED), dtype=np.float32) / np.float32(np.sqrt(PROJECTED))

    def outputs(self, some: bool = True) -> Outputs:
        """What ranges are chosen by, from one reading; `some`: with the weights that candidates meet.

        Of a vocabulary's worth of columns a share tells as much: every so many, larger for those left out.
        """
        step = -(-self._width // MOST_COLUMNS)
        inputs = self._layers[0].in_features
        sketch, largest = np.zeros((inputs, PROJECTED), np.float32), np.zeros(inputs, np.float32)
        kept = [np.empty((inputs, 0), np.float32)]
        for layer in range(self.count):
            for number, columns in self.chunks(layer):
                sketch += columns @ self.projection(number, columns.shape[1])
                np.maximum(largest, np.abs(columns).max(axis=1), out=largest)
                if some:
                    kept.append(columns[:, ::step] * np.float32(np.sqrt(step)))
        return Outputs(sketch, largest, np.concatenate(kept, axis=1))
