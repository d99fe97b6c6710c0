"""What a directory's graphs are made for, and how one is written: its files, its record, its graph of token states."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastembed_rt.manifest import FileRecord, TokenGraph, Variant, record_file
from fastembed_rt.precisions import PRECISIONS
from fastembed_rt.system.sizes import readable
from fastembed_rt.text.tokenizer import TextTokenizer
from fastembed_rt.vectors.dense import Vectors

from .. import quantize
from ..gate.long_texts import REPEATED, Reach, between, filled
from ..gate.parity import Fidelity, parity_texts
from ..gate.refusals import Key
from ..graph.common import Common, Place
from ..graph.graph import Graph
from ..graph.target import Target
from ..graph.writer import Written, write

PLAINEST, BF16, INT8 = ("cpu", "fp32"), ("cpu", "bf16"), ("cpu", "int8")
# Of the texts that int8 is measured on, tokens of those that all are, and one in how many of the longer ones is.
SHORT, LONGER = 64, 3


@dataclass(frozen=True)
class Built:
    """A graph, the length of its vectors, and the checkpoint's tensors that it leaves out."""

    graph: Graph
    dim: int
    beside: tuple[str, ...]
    states: str | None = None  # of the graph's values the token states, where they may be an output too
    width: int = 0  # of a token state
    reach: int | None = None  # see Ops.reach


@dataclass(frozen=True, kw_only=True)
class Quantizing:
    """What int8 asks of a task."""

    sample: Callable[[TextTokenizer, Sequence[str]], quantize.Sample]  # texts as the task's graphs take them
    fidelity: Callable[[Vectors, Vectors], Fidelity] = Fidelity.of  # outputs for them beside those expected
    inputs: str = "texts"  # what messages call that which is measured
    outputs: str = "vectors"  # and what comes of it
    means: bool = False  # of states of tokens, in which errors that are not alike average out


Build = Callable[[Target, int], Built]
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class TokenStates:
    """How graphs of an encoder alone are made."""

    build: Build
    no_int8: str  # why there is none in int8; "": there is
    no_spans: str  # of TokenGraph


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the variants depend on."""

    targets: tuple[str, ...]  # of PRECISIONS
    precisions: tuple[str, ...]
    opset: int
    external_data: bool
    cpu: bool  # False: traced graphs have no target of their own
    name: str
    metadata: Mapping[str, str]
    max_length: int
    calibration: Path | None
    min_cosine: float
    task: Quantizing
    reach: Reach  # how long the texts are that the gate compares
    finish: Callable[[Built], Built] = lambda built: built  # what the layout adds to model.onnx
    tokens: TokenStates | None = None  # None: no graphs of token states
    tokenizer: Path  # tokenizer.json
    prefix: str = ""  # of the files' names, where a directory has graphs of several encoders
    common: Mapping[Key, Common] | None = None  # what graphs of several encoders share; None: there is one
    show_progress: bool = False
    _records: dict[tuple[Path, str], FileRecord] = field(default_factory=dict, init=False, repr=False, compare=False)

    def record(self, work: Path, file: str) -> FileRecord:
        """Of a file that is written for good: hashed once, however many graphs refer to it."""
        key = work, file
        if key not in self._records:
            self._records[key] = record_file(work, file)
        return self._records[key]

    def texts(self, tokenizer: TextTokenizer) -> list[str]:
        """Texts like those that the gate compares: what repeats, what is short, and a share of all others."""

        def count(text: str) -> int:
            return int(tokenizer.count([text])[0])

        share = quantize.share_of(self.reach.per_token)
        reach = replace(self.reach, repeated=int(share * self.reach.repeated))
        cases = [*parity_texts(), *between(reach, count)]
        counts = tokenizer.count([case.text for case in cases])
        all_of = [case for case, tokens in zip(cases, counts, strict=True) if case.kind == REPEATED or tokens <= SHORT]
        longer = [case for case in cases if case not in all_of]
        return [
            *(case.text for case in [*all_of, *longer[:: round(LONGER / share)]]),
            filled(self.reach.longest, count),
        ]

    def write(
        self,
        key: Key,
        graph: Graph,
        work: Path,
        file: str,
        shared: Mapping[str, Place] | None = None,
        *,
        external: bool = False,
    ) -> Written:
        """A graph into `work`, under the encoder's prefix, with what it has in common with those of other encoders.

        Args:
            key: what it is for; graphs of other keys may be refused and removed, so that nothing is shared with them.
            graph: what to write.
            work: where to.
            file: its name without the prefix.
            shared: weights that lie there already. A graph that refers to some has none beside it.
            external: its weights lie beside it, also where nobody asked for that.
        """
        return write(
            graph,
            work,
            f"{self.prefix}{file}",
            name=self.name,
            metadata=self.metadata,
            external=(external or self.external_data) and shared is None,
            shared=shared,
            common=None if self.common is None else self.common[key],
        )

    @property
    def keys(self) -> list[Key]:
        """What is to be made, in the table's order: int8 and the calibration behind it last."""
        return [
            (target, precision)
            for target, possible in PRECISIONS.items()
            for precision in possible
            if target in self.targets and precision in self.precisions
        ]


def token_graph(
    key: Key, target: Target, opset: int, work: Path, beside: str, written: Written, wanted: Wanted
) -> TokenGraph | None:
    """The encoder alone, on the weights of the graph `beside`; None where nobody asked for it."""
    if wanted.tokens is None:
        return None
    return tokens_written(key, wanted.tokens.build(target, opset), work, beside, written.offsets, wanted)


def tokens_written(
    key: Key, built: Built, work: Path, beside: str, offsets: Mapping[str, Place], wanted: Wanted
) -> TokenGraph:
    """Write an encoder alone, on weights that lie there already."""
    assert wanted.tokens is not None
    file = f"{beside.removesuffix('.onnx')}.tokens.onnx"
    written = wanted.write(key, built.graph, work, file, offsets)
    return TokenGraph(
        graph=wanted.record(work, written.graph),
        weights=tuple(wanted.record(work, name) for name in written.weights),
        opset=built.graph.opset,
        inputs=tuple(value.name for value in built.graph.inputs),
        dim=built.dim,
        no_spans=wanted.tokens.no_spans,
    )


def written_as(
    key: Key, graph: Graph, work: Path, file: str, wanted: Wanted, say: Say, *, external: bool = False
) -> Written:
    """Write a graph with its own weights, and say so."""
    say(f"writing {file}: {len(graph.nodes)} nodes, {readable(graph.weight_bytes)}")
    return wanted.write(key, graph, work, file, external=external)


def variant_of(
    wanted: Wanted,
    work: Path,
    graph: Graph,
    written: Written,
    target: Target,
    precision: str,
    notes: Mapping[str, Any] | None = None,
    tokens: TokenGraph | None = None,
) -> Variant:
    """The record of a written graph; `notes`: what the manifest says of it beside."""
    return Variant(
        graph=wanted.record(work, written.graph),
        weights=tuple(wanted.record(work, file) for file in written.weights),
        target=target.name,
        precision=precision,
        opset=graph.opset,
        inputs=tuple(value.name for value in graph.inputs),
        notes=notes or {},
        tokens=tokens,
    )
