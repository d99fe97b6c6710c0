"""SPLADE: a masked language model's logits, positive parts on a log scale, pooled over a text's tokens.

Formal et al. 2021 (arXiv:2107.05720 sum, arXiv:2109.10086 max), as sentence-transformers' SparseEncoder reads them. The
graph gives the whole vocabulary, mostly zeros; the runtime keeps indices and values.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fastembed_rt.manifest import OUTPUTS, SPARSE, Manifest, Sparse, Variant
from fastembed_rt.manifest import read as read_manifest
from fastembed_rt.models.sparse import SparseModel
from fastembed_rt.vectors.dense import Vectors

from .. import static
from ..adapters.lora import MERGE
from ..architectures.blocks import setting
from ..checkpoint import limits
from ..checkpoint.read import Checkpoint, assemble, check_class
from ..checkpoint.routes import Chain, describe, read_routes
from ..checkpoint.transformer import TOKENIZER_SETTINGS, Output
from ..errors import CheckpointError, ParityError, UnsupportedCheckpointError
from ..files import read_json
from ..gate.long_texts import Reach
from ..gate.order import ENCODE, ROLES, Known, Prepared, ask_reference, text_cases
from ..gate.parity import Case, Comparison, ask
from ..gate.reference import check_facts, set_max_length, versions
from ..gate.reference import load as load_reference
from ..gate.report import Refuse, raised, report
from ..gate.verify import compare_all, first_here, joined, opened
from ..graph.graph import FLOAT, Graph, Value
from ..graph.ops import Ops
from ..graph.target import Target
from ..graph.weight import Linear
from ..heads import truncate
from ..masked_lm import head_of, vocabulary, widths
from ..settings import SPLADE_POOLING, check
from ..tensors import Tensors
from ..variants import Built, Quantizing
from . import token_weights
from .embedding import of_texts
from .task import Say, Task

POOLINGS = ("max", "sum")
ACTIVATIONS = {"relu": 1, "log1p_relu": 2}  # how many times log(1 + x) behind the ReLU
TRANSFORMERS = ("Transformer", "MLMTransformer")
LOGITS = Output("fill-mask", "logits", "token_embeddings")
SIMILARITIES = ("dot", "cosine", "euclidean", "manhattan")  # SparseEncoder's default first


@dataclass(frozen=True)
class SpladePooling:
    """How logits become one vector a text."""

    strategy: str = "max"
    activation: str = "relu"
    max_active_dims: int | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """For people to read."""
        return (f"MaskedLM + SpladePooling({self.strategy}, {self.activation})",)


def load(root: Path, name: str, revision: str | None, exporter: str) -> Checkpoint:
    """Read a sparse encoder; see checkpoint.load."""
    if exporter == "optimum":
        raise UnsupportedCheckpointError("a sparse encoder is built from its weights, not traced; leave --exporter out")
    if not (root / "modules.json").is_file():
        named = read_json(root / "config.json").get("architectures") or ()
        if not any(str(architecture).endswith("ForMaskedLM") for architecture in named):
            raise CheckpointError(
                f"config.json has architectures {list(named)}, no ...ForMaskedLM: without a masked language model's "
                "head there are no weights of words to export"
            )
        notes = ["no modules.json: max pooling of a masked language model, as sentence-transformers does"]
        return _masked_lm(root, root, name, revision, notes, SpladePooling(), LOGITS)
    check_class(root, "SparseEncoder")
    routes = read_routes(root)

    def encoder(chain: Chain, notes: list[str], where: str) -> Checkpoint:
        if [kind for kind, _ in chain] == [token_weights.MODULE]:
            return _table(root, chain[0][1], name, revision, notes)
        path, pooling, output = _modules(chain, where)
        return _masked_lm(root, path, name, revision, notes, pooling, output)

    where = "modules.json" if routes.name is None else f"route {routes.name!r}"
    made = encoder(routes.default, list(routes.notes), where)
    others = {
        role: replace(encoder(chain, [], f"route {route!r}"), route=route)
        for role, (route, chain) in (routes.others or {}).items()
    }
    return replace(made, route=routes.name, routes=others)


def _table(root: Path, path: Path, name: str, revision: str | None, notes: list[str]) -> Checkpoint:
    """A weight for each token, in place of a transformer."""
    config, stored, files = token_weights.read_weights(path, root)
    found = (config, static.ARCHITECTURE, stored, files)
    checkpoint = assemble(root, path, name, revision, notes, pooling=("max",), similarities=SIMILARITIES, table=found)
    settings = path / TOKENIZER_SETTINGS
    said = read_json(settings) if settings.is_file() else {}
    limit = limits.read({}, {}, {}, said, None, path).all
    head = token_weights.TokenWeights(config["vocab_size"], _most_active(root))
    return replace(checkpoint, task=SPARSE, heads=(), head=head, max_length=limit or static.UNLIMITED)


def _most_active(root: Path) -> int | None:
    """Words that are kept of each vector."""
    beside = root / "config_sentence_transformers.json"
    most = (read_json(beside) if beside.is_file() else {}).get("max_active_dims")
    if most is not None and (type(most) is not int or most < 1):
        raise CheckpointError(f"{beside} has max_active_dims {most!r}, expected a number of words")
    return most


def _masked_lm(
    root: Path, path: Path, name: str, revision: str | None, notes: list[str], pooling: SpladePooling, output: Output
) -> Checkpoint:
    checkpoint = assemble(
        root,
        path,
        name,
        revision,
        notes,
        exporter="builder",
        pooling=(pooling.strategy,),
        similarities=SIMILARITIES,
        output=output,
    )
    _check_adapter(checkpoint)
    # A SparseEncoder cuts nothing: truncate_dim is an embedding model's.
    return replace(checkpoint, task=SPARSE, heads=(), head=replace(pooling, max_active_dims=_most_active(root)))


def _check_adapter(checkpoint: Checkpoint) -> None:
    """Refuse an adapter that would change one of two tied matrices, or a part of the head that the base lacks."""
    head, adapter = head_of(checkpoint.model_type), checkpoint.adapter
    if adapter is None:
        return
    if adapter.unplaced:
        raise CheckpointError(
            f"the base has no weights of {', '.join(adapter.unplaced[:4])}, which the adapter changes"
        )
    tied = adapter.changed.intersection(head.decoder)
    if tied and checkpoint.config.get("tie_word_embeddings", True):
        raise UnsupportedCheckpointError(
            f"the adapter changes {', '.join(tied)}, where one matrix is the word table and the last layer of the "
            f"head: peft changes one of them alone until it merges: {MERGE}"
        )


def build(checkpoint: Checkpoint, target: Target, opset: int) -> Built:
    """Graph for one target: texts -> weights of all words (B, vocabulary).

    Raises:
        CheckpointError: tensors that do not fit the config.
    """
    words = setting(checkpoint.config, "vocab_size", int)
    if is_table(checkpoint):
        table = checkpoint.tensors()
        graph, vectors = token_weights.build(target, opset, words, table)
        graph.output(vectors, OUTPUTS[SPARSE], FLOAT, ("batch", words))
        return Built(graph, words, table.check(()))
    head = _head(checkpoint)
    graph = Graph(opset)
    ops = Ops(graph, target, target.enter(graph, False))
    tensors = checkpoint.tensors()
    states = checkpoint.architecture.encoder(ops, checkpoint.config, tensors)
    whole = Tensors(tensors.stored, "", tensors.account)
    with ops.scope("head"):
        states, layers = vocabulary(ops, head_of(checkpoint.model_type), checkpoint.config, whole, states)
        pieces = _pooled(ops, head, states, layers, widths(words, target.lanes))
        vectors = pieces[0] if len(pieces) == 1 else graph.node("Concat", *pieces, axis=-1, name="concat")
        if words % target.lanes:
            vectors = truncate(graph, vectors, words)
    left = tensors.check(checkpoint.architecture.heads)
    graph.output(vectors, OUTPUTS[SPARSE], FLOAT, ("batch", words))
    return Built(graph, words, left)


def facts(checkpoint: Checkpoint, work: Path) -> Mapping[str, Any]:
    """The manifest's fields."""
    assert isinstance(checkpoint.head, (SpladePooling, token_weights.TokenWeights))
    return {
        "task": SPARSE,
        "sparse": Sparse(max_active_dims=checkpoint.head.max_active_dims, table=is_table(checkpoint)),
    }


def is_table(checkpoint: Checkpoint) -> bool:
    """Whether a weight for each token stands for a transformer."""
    return isinstance(checkpoint.head, token_weights.TokenWeights)


def quantizing(checkpoint: Checkpoint) -> Quantizing:
    """Single texts; the cosine of their vectors over the whole vocabulary."""
    return replace(of_texts(checkpoint.architecture), outputs="word weights")


def verify(
    directory: Path,
    checkpoint: Checkpoint,
    say: Say = lambda _: None,
    *,
    min_cosine: float,
    refuse: Refuse = raised,
    show_progress: bool = False,
) -> dict[str, Any]:
    """Parity report: all words' weights beside sentence-transformers' SparseEncoder; see verify.verify."""
    start = time.monotonic()
    described = read_manifest(directory)
    encoders: list[tuple[str | None, Manifest, Prepared]] = []
    for role, one in ((None, described), *described.routes.items()):
        calls = [ENCODE, *(call for name, (call, _) in ROLES.items() if name not in described.routes)]
        with SparseModel(directory, route=role, **first_here(directory, described)) as model:
            reach = Reach.of(checkpoint if role is None else checkpoint.routes[role], model.max_length)
            cases = text_cases(model, calls if role is None else [ROLES[role][0]], reach)
            encoders.append((role, one, Prepared.of(model, cases)))
    count = sum(prepared.compared for _, _, prepared in encoders)
    say(f"reference: {count} texts with sentence-transformers' SparseEncoder on torch")
    asked = [(one, prepared) for _, one, prepared in encoders]
    all_known = _reference(directory, checkpoint, asked, show_progress=show_progress)
    gc.collect()
    reports = []
    for (role, one, _), known in zip(encoders, all_known, strict=True):
        if role is not None:
            say(f"{role} texts")
        reports.append(_report(directory, role, one, known, start, say, min_cosine, refuse))
    return joined(reports, start)


def _report(
    directory: Path,
    role: str | None,
    described: Manifest,
    known: Known,
    start: float,
    say: Say,
    min_cosine: float,
    refuse: Refuse,
) -> dict[str, Any]:
    expected = np.stack([vector.numpy() for vector in known.expected]).astype(np.float32)
    if expected.shape[1] != described.dim:
        raise ParityError(f"{directory} has vectors of {described.dim} words, {versions()} gives {expected.shape[1]}")

    def compared(variant: Variant, provider: str) -> list[Comparison]:
        with SparseModel(directory, route=role, **opened(variant, provider)) as model:
            return compare_all(known, lambda cases: _exported(model, cases), expected)

    return report(described, compared, known, start, say, min_cosine, refuse)


def _exported(model: SparseModel, wanted: Sequence[Case]) -> Vectors:
    out = np.zeros((len(wanted), model.dim), np.float32)
    # All that are not zero: which of two nearly equal words is the last one kept tells nothing of the weights.
    for k, vector in enumerate(ask(model, wanted, max_active_dims=model.dim)):
        out[k, vector.indices] = vector.values
    return out


def _reference(
    directory: Path, checkpoint: Checkpoint, encoders: Sequence[tuple[Manifest, Prepared]], *, show_progress: bool
) -> list[Known]:
    """Vectors of SparseEncoder on torch in float32, (vocabulary,) each, by each encoder."""
    model = load_reference("SparseEncoder", checkpoint)
    set_max_length(model, checkpoint)
    check_facts(encoders[0][0], model)
    options = {"show_progress_bar": False, "convert_to_sparse_tensor": False, "max_active_dims": encoders[0][0].dim}
    return [
        ask_reference(model, directory, described, prepared, options, show_progress=show_progress)
        for described, prepared in encoders
    ]


def _modules(chain: Chain, where: str) -> tuple[Path, SpladePooling, Output]:
    """Directory of the transformer, the pooling behind it, and what it takes of the transformer.

    Raises:
        UnsupportedCheckpointError: other modules; a transformer without the head of a masked language model.
    """
    kinds = [kind for kind, _ in chain]
    if len(kinds) != 2 or kinds[0] not in TRANSFORMERS or kinds[1] != "SpladePooling":
        raise UnsupportedCheckpointError(
            f"{where} has {describe(chain)}; built are sparse encoders of a Transformer with the head of a masked "
            f"language model and SpladePooling, and of a {token_weights.MODULE}"
        )
    path, folder = (folder for _, folder in chain)
    # The older class is a masked language model where nothing is said.
    output = LOGITS if kinds[0] == "Transformer" else replace(LOGITS, absent=LOGITS.task)
    config = read_json(folder / "config.json")
    check(SPLADE_POOLING, config, folder / "config.json", [])
    strategy, activation = config.get("pooling_strategy", "max"), config.get("activation_function", "relu")
    for key, value, known in (
        ("pooling_strategy", strategy, POOLINGS),
        ("activation_function", activation, tuple(ACTIVATIONS)),
    ):
        if value not in known:
            raise UnsupportedCheckpointError(f"SpladePooling has {key} {value!r}; built are {', '.join(known)}")
    return path, SpladePooling(strategy, activation), output


def _pooled(
    ops: Ops, head: SpladePooling, states: Value, layers: Sequence[Linear], widths: Sequence[int]
) -> list[Value]:
    """Token states -> weights of each layer's words: (B, width)."""
    target, times = ops.target, ACTIVATIONS[head.activation]
    # Both logarithms rise with their argument: where the largest is wanted, they can wait for it.
    if head.strategy == "max" and target.largest is not None:
        found = target.largest(ops.token_graph, ops.tokens, states, layers)
        return [_weights(ops.graph, piece, head.activation) for piece in found]
    logits = ops.linears(states, layers)
    if target.word_weights is not None:
        added = head.strategy == "sum"
        return [
            target.word_weights(ops.token_graph, piece, width=width, times=times, added=added)
            for piece, width in zip(logits, widths, strict=True)
        ]
    if head.strategy == "max":
        return [_weights(ops.graph, ops.pool(piece, "max"), head.activation) for piece in logits]
    return [ops.pool(_weights(ops.token_graph, piece, head.activation), "sum") for piece in logits]


def _weights(graph: Graph, states: Value, activation: str) -> Value:
    """log(1 + max(x, 0)), or that of it once more."""
    states = graph.node("Relu", states, name="positive")
    for _ in range(ACTIVATIONS[activation]):
        states = graph.node("Log", graph.node("Add", states, graph.constant(1.0), name="1+x"), name="log1p")
    return states


def _head(checkpoint: Checkpoint) -> SpladePooling:
    assert isinstance(checkpoint.head, SpladePooling)
    return checkpoint.head


TASK = Task(
    load=load,
    build=build,
    facts=facts,
    quantizing=quantizing,
    verify=verify,
    overrides=("max_length", "prompts", "default_prompt_name"),
)
