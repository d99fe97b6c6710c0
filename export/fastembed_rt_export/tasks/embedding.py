"""Embedding models: an encoder, pooling and what follows it; one vector a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fastembed_rt.text.tokenizer import TextTokenizer

from .. import heads
from ..architectures import Architecture
from ..checkpoint.read import Checkpoint, Overrides
from ..checkpoint.read import load as load_checkpoint
from ..errors import InvalidInputError
from ..gate.parity import INT8_MIN_COSINE
from ..gate.report import Refuse, raised
from ..graph.graph import FLOAT, Graph
from ..graph.ops import Ops
from ..graph.target import Target
from ..quantize import Sample
from ..variants import Built, Quantizing
from .task import Say, Task


def load(root: Path, name: str, revision: str | None, exporter: str) -> Checkpoint:
    """The checkpoint; see checkpoint.read.load."""
    return load_checkpoint(root, name, revision, exporter=exporter)


def build(checkpoint: Checkpoint, target: Target, opset: int) -> Built:
    """Graph of encoder and heads for one target.

    Raises:
        CheckpointError: tensors that do not fit the config.
        InvalidInputError: more dimensions asked for than there are.
    """
    graph = Graph(opset)
    first_only = checkpoint.pooling == ("cls",) and checkpoint.include_prompt
    ops = Ops(graph, target, target.enter(graph, not checkpoint.include_prompt), first_only=first_only)
    tensors = checkpoint.tensors()
    states = checkpoint.architecture.encoder(ops, checkpoint.config, tensors)
    beside = () if checkpoint.architecture.traced else tensors.check(checkpoint.architecture.heads)
    width = int(checkpoint.config.get("hidden_size") or checkpoint.config["dim"])
    vectors, dim = heads.sentence_embedding(ops, states, width, checkpoint.pooling, checkpoint.heads)
    wanted = checkpoint.overrides.get("truncate_dim", dim)
    if wanted > dim:
        raise InvalidInputError(f"truncate_dim {wanted} is not possible; the vectors have {dim} numbers")
    graph.output(vectors, "sentence_embedding", FLOAT, ("batch", dim))
    return Built(graph, dim, beside, states, width)


def facts(checkpoint: Checkpoint, work: Path) -> Mapping[str, Any]:
    """None: the manifest's own fields say all of it."""
    return {}


def quantizing(checkpoint: Checkpoint) -> Quantizing:
    """Single texts; the cosine of their vectors."""
    return of_texts(checkpoint.architecture)


def of_texts(row: Architecture) -> Quantizing:
    """For every task whose graphs take single texts."""

    def sample(tokenizer: TextTokenizer, texts: Sequence[str]) -> Sample:
        return replace(Sample.of(tokenizer(texts).ids), mixed_lengths=row.padding_changes() is None)

    return Quantizing(sample=sample)


def verify(
    directory: Path,
    checkpoint: Checkpoint,
    say: Say = lambda _: None,
    *,
    min_cosine: float = INT8_MIN_COSINE,
    refuse: Refuse = raised,
) -> dict[str, Any]:
    """Parity report; see gate.verify.verify."""
    from ..gate.verify import verify as compare  # only here: it needs the reference's libraries

    return compare(directory, checkpoint, say, min_cosine=min_cosine, refuse=refuse)


TASK = Task(
    load=load,
    build=build,
    facts=facts,
    quantizing=quantizing,
    verify=verify,
    overrides=tuple(field.name for field in fields(Overrides)),
)
