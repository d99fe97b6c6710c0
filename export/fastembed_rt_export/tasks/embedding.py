"""Embedding models: an encoder, pooling and what follows it; one vector a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from fastembed_rt.manifest import LATE_INTERACTION, OUTPUTS
from fastembed_rt.text.tokenizer import TextTokenizer

from .. import heads
from ..architectures import Architecture, clip
from ..checkpoint.modules import EOS, Normalize, Truncate
from ..checkpoint.read import Checkpoint, Overrides
from ..checkpoint.read import load as load_checkpoint
from ..errors import InvalidInputError
from ..gate.parity import INT8_MIN_COSINE
from ..gate.report import Refuse, raised
from ..graph.graph import FLOAT, Graph
from ..graph.ops import FIRST, LAST, Ops
from ..graph.target import Target
from ..quantize import Sample
from ..variants import Built, Quantizing, TokenStates
from .task import Say, Task

ONLY = {"cls": FIRST, "lasttoken": LAST}  # poolings that take the state of one token


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
    tokens = target.enter(graph, not checkpoint.include_prompt)
    if EOS in checkpoint.pooling:
        tokens = replace(tokens, ends=clip.ends(graph, checkpoint.config, tokens.input_ids))
    ops = Ops(graph, target, tokens, only=only(checkpoint))
    tensors = checkpoint.tensors()
    states = checkpoint.architecture.encoder(ops, checkpoint.config, tensors)
    beside = () if checkpoint.architecture.traced else tensors.check(checkpoint.architecture.heads)
    width = checkpoint.width
    vectors, dim = heads.sentence_embedding(ops, states, width, checkpoint.pooling, checkpoint.heads)
    wanted = checkpoint.overrides.get("truncate_dim", dim)
    if wanted > dim:
        raise InvalidInputError(f"truncate_dim {wanted} is not possible; the vectors have {dim} numbers")
    graph.output(vectors, "sentence_embedding", FLOAT, ("batch", dim))
    return Built(graph, dim, beside, states, width)


def only(checkpoint: Checkpoint) -> str | None:
    """The one token of each text whose state is pooled, which the last layer need not compute for others."""
    return ONLY.get(checkpoint.pooling[0]) if len(checkpoint.pooling) == 1 and checkpoint.include_prompt else None


def token_states(checkpoint: Checkpoint) -> TokenStates:
    """Graphs of the encoder alone: the states of all tokens, as the pooling gets them."""

    def build_states(target: Target, opset: int) -> Built:
        graph = Graph(opset)
        ops = Ops(graph, target, target.enter(graph, False))
        states = checkpoint.architecture.encoder(ops, checkpoint.config, checkpoint.tensors())
        width = checkpoint.width
        shape = next(entry for entry in graph.inputs if entry.name == ops.tokens.input_ids).type.tensor_type.shape
        graph.output(states, OUTPUTS[LATE_INTERACTION], FLOAT, (*(size.dim_param for size in shape.dim), width))
        return Built(graph, width, ())

    one = only(checkpoint)
    int8 = f"its last layer is calibrated on {one} tokens alone" if one else ""
    return TokenStates(build=build_states, no_int8=int8, no_spans=_no_spans(checkpoint))


def _no_spans(checkpoint: Checkpoint) -> str:
    """Why the vector of a span is not the mean of its tokens' states, cut and normalized; "" where it is."""
    if checkpoint.pooling != ("mean",):
        return f"the model's vectors are no means of token states (pooling {'+'.join(checkpoint.pooling)})"
    kinds = [type(head) for head in checkpoint.heads]
    if not set(kinds) <= {Normalize, Truncate}:
        return f"{next(kind for kind in kinds if kind not in (Normalize, Truncate)).__name__} follows the pooling"
    return "" if Normalize not in kinds[:-1] else "vectors are cut behind their normalization"


def facts(checkpoint: Checkpoint, work: Path) -> Mapping[str, Any]:
    """None: the manifest's own fields say all of it."""
    return {}


def quantizing(checkpoint: Checkpoint) -> Quantizing:
    """Single texts; the cosine of their vectors."""
    return replace(of_texts(checkpoint.architecture), means=checkpoint.pooling == ("mean",))


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
    show_progress: bool = False,
) -> dict[str, Any]:
    """Parity report; see gate.verify.verify."""
    from ..gate.verify import verify as compare  # only here: it needs the reference's libraries

    return compare(directory, checkpoint, say, min_cosine=min_cosine, refuse=refuse, show_progress=show_progress)


TASK = Task(
    load=load,
    build=build,
    facts=facts,
    quantizing=quantizing,
    verify=verify,
    tokens=token_states,
    overrides=tuple(field.name for field in fields(Overrides)),
)
