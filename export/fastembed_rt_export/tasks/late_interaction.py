"""Late interaction: a vector for every token, as ColBERT has them (Khattab and Zaharia 2020, arXiv:2004.12832).

The graph gives the vectors of all tokens, projected and normalized. Queries are filled up with mask tokens, which have
vectors but are not seen by the other tokens; that is a matter of the mask that the runtime feeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fastembed_rt.manifest import LATE_INTERACTION, OUTPUTS, SIMILARITIES, TOKENIZER_FILE, LateInteraction
from fastembed_rt.models.late_calls import feeds
from fastembed_rt.models.prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS
from fastembed_rt.system.paths import as_utf8
from fastembed_rt.text.tokenizer import TextTokenizer

from ..checkpoint.read import Checkpoint, assemble
from ..checkpoint.transformer import EMBEDDINGS
from ..errors import CheckpointError, UnsupportedCheckpointError
from ..graph.graph import FLOAT, Graph
from ..graph.ops import Ops
from ..graph.target import Target
from ..heads import apply, of_tokens
from ..quantize import Sample
from ..tokenizer import padding_side
from ..tokenizer.tokenizer_json import Vocabulary, special_token
from ..variants import Built, Quantizing
from .late_layouts import PROJECTION, Expansion, Layout, read_layout
from .late_parity import QUERY_WORDS, verify
from .task import Task

MAX_SIMILARITIES = ("MaxSim", "maxsim", "meanmaxsim")  # as config_sentence_transformers.json may name them


@dataclass(frozen=True)
class TokenVectors:
    """What follows the encoder."""

    layout: Layout
    query_length: int  # tokens after which queries are cut

    @property
    def modules(self) -> tuple[str, ...]:
        """For people to read."""
        return (f"{LATE_INTERACTION}({self.layout.similarity})", *map(str, self.layout.heads))


def load(root: Path, name: str, revision: str | None, exporter: str) -> Checkpoint:
    """Read a late-interaction checkpoint; see checkpoint.load."""
    if exporter == "optimum":
        raise UnsupportedCheckpointError("token vectors are built from the weights, not traced; leave --exporter out")
    notes: list[str] = []
    layout = read_layout(root, notes)
    checkpoint = assemble(
        root,
        layout.path,
        name,
        revision,
        notes,
        exporter="builder",
        heads=layout.heads,
        weighted=layout.weighted,
        similarities=(*MAX_SIMILARITIES, *SIMILARITIES),
        output=replace(EMBEDDINGS, by_role=None),
    )
    prompts = dict(checkpoint.prompts)
    for role, marker in layout.markers.items():
        prompts[role] = marker + prompts.get(role, "").removeprefix(marker)
    most = checkpoint.architecture.positions(checkpoint.config)
    wanted = layout.document_length or checkpoint.max_length
    longest = max(wanted, layout.query_length or 0, layout.expansion.length if layout.expansion else 0)
    if layout.expansion is not None and layout.expansion.cut and padding_side.is_left(checkpoint):
        raise UnsupportedCheckpointError(
            f"{checkpoint.path}: queries are filled up on the left, where its tokenizer pads, and built is the right; "
            f"set {padding_side.KEY} to right in {padding_side.SETTINGS}, if vectors were made so"
        )
    filled = 0 if layout.expansion is None or layout.expansion.cut else layout.expansion.length
    if layout.query_length is None and checkpoint.max_length < min(filled, most):
        raise UnsupportedCheckpointError(
            f"{checkpoint.path}: queries are cut at {checkpoint.max_length} tokens and then filled up to {filled}, "
            "which is not built; say a query_length, if vectors were made with one"
        )
    notes = list(checkpoint.notes)
    if longest > most:
        notes.append(f"a length of {longest} is more than the {most} positions of the model; capped")
    return replace(
        checkpoint,
        task=LATE_INTERACTION,
        heads=layout.heads,  # without a cut, which token vectors do not have
        head=TokenVectors(layout, min(_query_length(layout, checkpoint.max_length), most)),
        max_length=min(wanted, most),
        prompts=prompts,
        similarity="cosine",  # of two tokens; the model's own is in its facts
        markers=tuple(layout.markers.values()),
        notes=tuple(notes),
    )


def build(checkpoint: Checkpoint, target: Target, opset: int) -> Built:
    """Graph for one target: texts -> vectors of all tokens, (B, S, dim) or packed (T, dim).

    Raises:
        CheckpointError: tensors that do not fit the config, a head that takes another width than it gets.
    """
    if target.name == "tensorrt":
        raise UnsupportedCheckpointError(
            f"target {target.name} gives one vector a text, and a late interaction model has one for each token; "
            "leave --target out"
        )
    expansion = _head(checkpoint).layout.expansion
    graph = Graph(opset)
    # Tokens that nobody sees have scores of their own, which may be larger than those of the others.
    unseen = 0 if expansion is None or expansion.attend else expansion.length
    ops = Ops(graph, target, replace(target.enter(graph, False), unseen=unseen))
    tensors = checkpoint.tensors()
    states = checkpoint.architecture.encoder(ops, checkpoint.config, tensors)
    left = tensors.check(checkpoint.architecture.heads)
    width = checkpoint.width
    vectors, dim = (of_tokens if target.name.startswith("cuda") else apply)(ops, states, width, checkpoint.heads)
    shape = next(entry for entry in graph.inputs if entry.name == ops.tokens.input_ids).type.tensor_type.shape
    graph.output(vectors, OUTPUTS[LATE_INTERACTION], FLOAT, (*(size.dim_param for size in shape.dim), dim))
    return Built(graph, dim, tuple(name for name in left if name != PROJECTION), reach=ops.reach)


def facts(checkpoint: Checkpoint, work: Path) -> Mapping[str, Any]:
    """The manifest's fields."""
    head, tokenizer = _head(checkpoint), Tokenizer.from_file(as_utf8(work / TOKENIZER_FILE))
    layout = head.layout
    # Words that are not one token would drop every unknown token.
    ids = (tokenizer.token_to_id(word) for word in layout.skiplist)
    skiplist = tuple(sorted({number for number in ids if number is not None}))
    most = checkpoint.architecture.positions(checkpoint.config)
    expansion = layout.expansion
    return {
        "task": LATE_INTERACTION,
        "late_interaction": LateInteraction(
            query_length=head.query_length,
            document_length=checkpoint.max_length,
            expansion_length=min(expansion.length, most) if expansion else 0,
            expansion_token_id=_expansion_token(checkpoint, tokenizer, expansion) if expansion else 0,
            expansion_fixed=bool(expansion and expansion.cut),
            attend_to_expansion=bool(expansion and expansion.attend),
            query_skiplist=skiplist if "query" in layout.skiplist_tasks else (),
            document_skiplist=skiplist if "document" in layout.skiplist_tasks else (),
            similarity=layout.similarity,
        ),
    }


def quantizing(checkpoint: Checkpoint) -> Quantizing:
    """Texts as documents, their beginnings as queries; the cosine of a text's token vectors, one after another."""
    head = _head(checkpoint)
    layout = head.layout

    def sample(tokenizer: TextTokenizer, texts: Sequence[str]) -> Sample:
        query, document = (
            next((checkpoint.prompts[name] for name in names if name in checkpoint.prompts), "")
            for names in (QUERY_PROMPTS, DOCUMENT_PROMPTS)
        )
        rows = list(tokenizer(texts, document).ids)
        asked = tokenizer([" ".join(text.split()[:QUERY_WORDS]) for text in texts], query).ids
        seen = [len(row) for row in rows]
        for row in asked:
            if len(row) > head.query_length:  # cut, it would lack its last special token
                continue
            length, attends = len(row), layout.expansion is not None and layout.expansion.attend
            full = row
            if layout.expansion is not None and length < layout.expansion.length:
                token = _expansion_token(checkpoint, tokenizer, layout.expansion)
                full = np.concatenate([row, np.full(layout.expansion.length - length, token, np.int64)])
            rows.append(full)
            seen.append(len(full) if attends else length)
        return Sample(rows, np.array(seen, dtype=np.int64), feeds, OUTPUTS[LATE_INTERACTION], by_token=True)

    return Quantizing(sample=sample, inputs="queries and documents", outputs="token vectors")


def _expansion_token(checkpoint: Checkpoint, tokenizer: Vocabulary, expansion: Expansion) -> int:
    """Id of the token that fills queries up: named, else the mask token, else the end of a text."""
    if expansion.token is not None:
        found = tokenizer.token_to_id(expansion.token)
    else:
        found = special_token(checkpoint, tokenizer, "mask_token")
        found = special_token(checkpoint, tokenizer, "eos_token") if found is None else found
    if found is None:
        raise CheckpointError(
            f"queries are filled up with {expansion.token or 'the mask token'!r}, which the tokenizer does not have"
        )
    return int(found)


def _query_length(layout: Layout, own: int) -> int:
    """Tokens after which queries are cut; `own` is the transformer's limit."""
    expansion, said = layout.expansion, layout.query_length or own
    if expansion is None:
        return said
    return expansion.length if expansion.cut else max(said, expansion.length)


def _head(checkpoint: Checkpoint) -> TokenVectors:
    assert isinstance(checkpoint.head, TokenVectors)
    return checkpoint.head


TASK = Task(
    load=load,
    build=build,
    facts=facts,
    quantizing=quantizing,
    verify=verify,
    overrides=("max_length", "prompts"),
)
