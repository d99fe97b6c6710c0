"""What graphs of one directory have in common: weights by what is in them, whatever they are called.

Encoders of queries and of documents may be one transformer behind different heads. The second one's graphs refer to the
weights that the first one's have written, and a graph that is there already is not written again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .graph import Graph
from .weight import Weight

if TYPE_CHECKING:
    from .writer import Written

LEAST_BYTES = 1024  # of a weight that is worth a reference
Place = tuple[str, int, int]  # file, offset, length in bytes


class Common:
    """Graphs and weights that were written into one directory, of one precision: what is refused is refused whole."""

    def __init__(self) -> None:
        self._places: dict[str, Place] = {}
        self._graphs: dict[str, Written] = {}

    def places(self, weights: Mapping[str, Weight], digests: Mapping[str, str]) -> dict[str, Place]:
        """Where those of the weights are that are there already, by name."""
        large = (name for name, weight in weights.items() if weight.nbytes >= LEAST_BYTES)
        return {name: self._places[digests[name]] for name in large if digests[name] in self._places}

    def graph(self, digest: str) -> Written | None:
        """The graph of this digest, if it is there already."""
        return self._graphs.get(digest)

    def add(self, digest: str, written: Written, digests: Mapping[str, str]) -> None:
        """Remember what a graph has become."""
        self._graphs[digest] = written
        for name, place in written.offsets.items():
            self._places.setdefault(digests[name], place)


def digests_of(weights: Mapping[str, Weight]) -> dict[str, str]:
    """SHA-256 of what each weight holds, type and shape included; one is read at a time."""
    return {name: _hashed(f"{weight.dtype} {weight.shape}\n", weight.contents()) for name, weight in weights.items()}


def digest_of(graph: Graph, skeleton: bytes, digests: Mapping[str, str]) -> str:
    """SHA-256 of a whole graph: `skeleton` is the model without weights, in deterministic bytes."""
    named = "\n".join(f"{name} {digests[name]}" for name in graph.weights)
    return _hashed(named, skeleton)


def _hashed(head: str, contents: bytes | memoryview) -> str:
    digest = hashlib.sha256(head.encode())
    digest.update(contents)
    return digest.hexdigest()
