"""Cross-encoders: a transformer with a classification head over pairs of texts, as sentence-transformers reads it.

The graph gives logits; the activation that makes scores of them is a fact of the manifest. The head stays float: it is
one row a pair. Which heads there are: classification.py.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastembed_rt.manifest import OUTPUTS, RERANKING, Reranking
from fastembed_rt.manifest import read as read_manifest
from fastembed_rt.reranker import Reranker, feeds
from fastembed_rt.tokenizer import Pair, TextTokenizer

from ..checkpoint import Checkpoint, assemble
from ..errors import CheckpointError, ParityError, UnsupportedCheckpointError
from ..files import module_entries, read_json
from ..graph.graph import FLOAT, INT64, Graph
from ..graph.ops import Ops
from ..graph.target import Target
from ..parity import Bounds, Fidelity, bounds, parity_texts
from ..quantize import Sample
from ..tensors import Tensors
from ..transformer import Output
from ..variants import Built, Quantizing
from ..verify import first_here, opened, runs_here
from .classification import CLASSIFIERS, Classifier
from .reference import require_reference, versions
from .task import Say, Task

QUERY_WORDS = 8
LONGEST_TEXT = 8  # characters for each token that fits
ALONE_PAIRS = 16  # these are also scored one by one: neighbours must not matter
ACTIVATIONS = {"Identity": "identity", "Sigmoid": "sigmoid"}  # torch.nn's classes
# Tokenizer classes that tell the texts of a pair apart by token types, by the beginning of their names.
TYPED_TOKENIZERS = ("Bert", "Electra", "Deberta", "ConvBert", "MobileBert")
TYPED_MODELS = ("bert", "electra", "deberta", "convbert", "mobilebert")
SCORES = Output("sequence-classification", "logits", "scores", by_role=None)
Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ClassificationHead:
    """A head, what its outputs are called, and how they become scores."""

    made_of: Classifier
    labels: tuple[str, ...]
    activation: str
    token_types: bool

    @property
    def modules(self) -> tuple[str, ...]:
        """For people to read."""
        count = len(self.labels)
        return (f"Classification({count} label{'' if count == 1 else 's'}, {self.activation})",)


def load(root: Path, name: str, revision: str | None, exporter: str) -> Checkpoint:
    """Read a cross-encoder; see checkpoint.load."""
    if exporter == "optimum":
        raise UnsupportedCheckpointError("a reranker is built from its weights, not traced; leave --exporter out")
    _check_chain(root)
    notes: list[str] = []
    checkpoint = assemble(root, root, name, revision, notes, exporter="builder", output=SCORES)
    config = checkpoint.config
    classifier = CLASSIFIERS.get(checkpoint.model_type)
    if classifier is None:
        raise UnsupportedCheckpointError(
            f"model_type {checkpoint.model_type!r} has no classification head here; there are: {', '.join(CLASSIFIERS)}"
        )
    named = config.get("architectures") or ()
    if not any(str(architecture).endswith("ForSequenceClassification") for architecture in named):
        raise CheckpointError(
            f"config.json has architectures {list(named)}, no ...ForSequenceClassification: the checkpoint holds no "
            "classification head, so there are no scores to export"
        )
    labels = _labels(config)
    activation = _activation(root, config, len(labels), notes)
    head = ClassificationHead(classifier(config), labels, activation, _token_types(checkpoint))
    notes = [*checkpoint.notes, *(note for note in notes if note not in checkpoint.notes)]
    return replace(checkpoint, task=RERANKING, head=head, notes=tuple(notes))


def build(checkpoint: Checkpoint, target: Target, opset: int) -> Built:
    """Graph of encoder and head for one target: pairs of texts -> logits (B, labels).

    Raises:
        CheckpointError: tensors that do not fit the config.
        UnsupportedCheckpointError: an architecture whose builder knows no token types, where the tokenizer gives some.
    """
    head = _head(checkpoint)
    graph = Graph(opset)
    tokens = target.enter(graph, False)
    if head.token_types:
        shape = next(entry for entry in graph.inputs if entry.name == tokens.input_ids).type.tensor_type.shape
        types = graph.input("token_type_ids", INT64, [dim.dim_param for dim in shape.dim])
        tokens = replace(tokens, token_type_ids=types)
    ops = Ops(graph, target, tokens, first_only=head.made_of.pooling == "cls")
    tensors = checkpoint.tensors()
    states = checkpoint.architecture.encoder(ops, checkpoint.config, tensors)
    if head.token_types and not any("token_type_ids" in node.input for node in graph.nodes):
        raise UnsupportedCheckpointError(
            f"the builder of {checkpoint.model_type} knows no token types, which its tokenizer gives to pairs"
        )
    with ops.scope("head"):
        width = int(checkpoint.config.get("hidden_size") or checkpoint.config["dim"])
        beside = Tensors(tensors.stored, "", tensors.account)
        state = head.made_of.logits(ops, states, beside, width, len(head.labels))
    left = tensors.check(checkpoint.architecture.heads)
    graph.output(state, OUTPUTS[RERANKING], FLOAT, ("batch", len(head.labels)))
    return Built(graph, len(head.labels), left)


def facts(checkpoint: Checkpoint, work: Path) -> Mapping[str, Any]:
    """The manifest's fields."""
    head = _head(checkpoint)
    return {"task": RERANKING, "reranking": Reranking(labels=head.labels, activation=head.activation)}


def pairs_of(texts: Sequence[str]) -> list[Pair]:
    """Pairs to score: the beginning of each text with the text itself, or in turn with the following one."""
    queries = [" ".join(text.split()[:QUERY_WORDS]) for text in texts]
    return [(query, texts[(k + k % 2) % len(texts)]) for k, query in enumerate(queries)]


def quantizing(checkpoint: Checkpoint) -> Quantizing:
    """Pairs; the correlation of their logits."""

    def sample(tokenizer: TextTokenizer, texts: Sequence[str]) -> Sample:
        made = tokenizer.pairs(pairs_of(texts))
        assert made.first_segments is not None
        return Sample(made.ids, made.first_segments, feeds, OUTPUTS[RERANKING])

    return Quantizing(sample=sample, fidelity=fidelity)


def fidelity(outputs: Vectors, expected: Vectors) -> Fidelity:
    """Correlation of logits with those expected, of the worst label: one number, whatever their scale and offset.

    A cosine says nothing of single numbers, and an order of documents does not change with scale and offset.
    """
    found = [_correlation(outputs[:, k], expected[:, k]) for k in range(expected.shape[1])]
    return Fidelity(float(np.mean(found)), min(found), min(found))


def verify(directory: Path, checkpoint: Checkpoint, say: Say = lambda _: None, *, min_cosine: float) -> dict[str, Any]:
    """Parity report: logits and scores of pairs beside sentence-transformers' CrossEncoder; see verify.verify.

    fp32 keeps to its bound on differences, on the scale of the logits where they are over 1; int8 to `min_cosine` as
    a bound on the correlation.
    """
    start = time.monotonic()
    described = read_manifest(directory)
    runs, others = runs_here(described)
    with Reranker(directory, **first_here(directory, described)) as model:
        pairs = _cases(model)
        prompts = [None, *(name for name, text in model.prompts.items() if text)]
    say(f"reference: {len(pairs)} pairs with sentence-transformers' CrossEncoder on torch")
    expected, scores = _reference(checkpoint, pairs, prompts)
    reports = {}
    for variant, provider in runs:
        say(f"comparing {variant.graph.file}")
        bound = bounds(variant.precision, min_cosine)
        with Reranker(directory, **opened(variant, provider)) as model:
            found = [_score(model, pairs, name, "identity") for name in prompts]
            alone = range(0, len(pairs), max(len(pairs) // ALONE_PAIRS, 1))
            single = np.concatenate([_score(model, [pairs[k]], prompts[0], "identity") for k in alone])
            activated = [_score(model, pairs, name, None) for name in prompts]
        ours = np.concatenate([*found, single])
        theirs = np.concatenate([*expected, expected[0][list(alone)]])
        reports[variant.graph.file] = _compare(variant.precision, ours, theirs, bound, variant.graph.file)
        off = float(np.abs(np.concatenate(activated) - np.concatenate(scores)).max())
        if variant.precision == "fp32" and off > 1e-3 * max(1.0, float(np.abs(np.concatenate(scores)).max())):
            raise ParityError(
                f"{variant.graph.file}: scores differ by {off:.2g} where logits do not: not the activation"
            )
    return {
        "status": "passed",
        "reference": versions(),
        "texts": len(pairs),
        "prompts": sorted(described.prompts),
        "variants": reports,
        **({"not_compared": others} if others else {}),
        "seconds": round(time.monotonic() - start, 1),
    }


def _compare(precision: str, ours: Vectors, theirs: Vectors, bound: Bounds, file: str) -> dict[str, Any]:
    correlation = fidelity(ours, theirs).min_cosine
    difference = np.abs(ours.astype(np.float64) - theirs)
    scaled = difference / np.maximum(np.abs(theirs), 1.0)
    if not correlation >= bound.min_cosine or not (bound.max_abs_diff is None or scaled.max() <= bound.max_abs_diff):
        near = "" if bound.max_abs_diff is None else f", difference <= {bound.max_abs_diff:g}"
        raise ParityError(
            f"{file}: logits of {len(theirs)} pairs against {versions()} are out of bounds: correlation "
            f"{correlation:.6f}, largest difference {scaled.max():.2e} (correlation >= {bound.min_cosine}{near})"
        )
    return {
        "precision": precision,
        "comparisons": len(theirs),
        "correlation": round(correlation, 9),
        "max_abs_diff": float(f"{scaled.max():.3g}"),
        "bounds": asdict(bound),
    }


def _cases(model: Reranker) -> list[Pair]:
    """Pairs of the parity texts, and some of which one or both texts are too long."""
    # Far beyond the limit all is cut, and a long pair costs the reference the product of its lengths.
    texts = [case.text[: LONGEST_TEXT * model.max_length] for case in parity_texts()]
    longest = max(texts, key=len)
    times = model.max_length // max(model.count_tokens((longest, "")), 1) + 2
    long = " ".join([longest] * times)
    return [*pairs_of(texts), ("", ""), (long, texts[0]), (texts[0], long), (long, long)]


def _score(model: Reranker, pairs: Sequence[Pair], prompt_name: str | None, activation: str | None) -> Vectors:
    prompt = model.prompts[prompt_name] if prompt_name is not None else ""
    scores = np.asarray(model.predict(pairs, prompt=prompt, activation=activation), dtype=np.float32)
    return scores.reshape(len(pairs), -1)


def _reference(
    checkpoint: Checkpoint, pairs: Sequence[Pair], prompts: Sequence[str | None]
) -> tuple[list[Vectors], list[Vectors]]:
    """Logits and scores of CrossEncoder for the pairs under each prompt: (n, labels) each."""
    require_reference()
    import torch
    from sentence_transformers import CrossEncoder

    model = CrossEncoder(
        str(checkpoint.root), device="cpu", trust_remote_code=checkpoint.trusted, local_files_only=True
    )
    model = model.float().eval()
    model.max_seq_length = checkpoint.max_length
    if (count := model.num_labels) != len(_head(checkpoint).labels):
        raise ParityError(f"the export has {len(_head(checkpoint).labels)} labels, CrossEncoder {count}")
    out: tuple[list[Vectors], list[Vectors]] = ([], [])
    for name in prompts:
        prompt = checkpoint.prompts[name] if name is not None else ""
        for found, activation in zip(out, (torch.nn.Identity(), None), strict=True):
            scores = model.predict(
                [list(pair) for pair in pairs],
                prompt=prompt,
                batch_size=8,
                activation_fn=activation,
                show_progress_bar=False,
            )
            found.append(np.asarray(scores, dtype=np.float32).reshape(len(pairs), -1))
    return out


def _correlation(a: Vectors, b: Vectors) -> float:
    """Pearson's; 1 where both are constant and the same."""
    x, y = a.astype(np.float64) - a.mean(dtype=np.float64), b.astype(np.float64) - b.mean(dtype=np.float64)
    if np.array_equal(x, y):
        return 1.0
    power = float(np.sqrt(np.vdot(x, x) * np.vdot(y, y)))
    return float(np.vdot(x, y)) / power if power else 0.0


def _head(checkpoint: Checkpoint) -> ClassificationHead:
    assert isinstance(checkpoint.head, ClassificationHead)
    return checkpoint.head


def _check_chain(root: Path) -> None:
    """Refuse what stands behind the transformer in modules.json: a head of causal models, or code of its own."""
    if not (root / "modules.json").is_file():
        return
    chain = module_entries(root)
    if [kind for kind, _ in chain] != ["Transformer"] or chain[0][1]:
        raise UnsupportedCheckpointError(
            f"modules.json has {', '.join(kind for kind, _ in chain) or 'nothing'}; built are cross-encoders of a "
            "Transformer alone, with its classification head"
        )


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the labels, in order; two where config.json says nothing, as in transformers."""
    named = config.get("id2label")
    if named is None:
        count = config.get("num_labels", 2)
        if not isinstance(count, int) or isinstance(count, bool) or count < 1:
            raise CheckpointError(f"config.json has num_labels {count!r}, expected a number of labels")
        return tuple(f"LABEL_{k}" for k in range(count))
    try:
        return tuple(str(named[key]) for key in sorted(named, key=int)) or ("LABEL_0",)
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"config.json has id2label {named!r}, expected names by number") from error


def _activation(root: Path, config: Mapping[str, Any], labels: int, notes: list[str]) -> str:
    """The activation that sentence-transformers would take, newest place first; its default by number of labels."""
    path, chain = root / "config_sentence_transformers.json", root / "modules.json"
    inner = config.get("sentence_transformers")
    beside = inner if isinstance(inner, dict) and "activation_fn" in inner else {}
    places = (
        (read_json(path) if path.is_file() and chain.is_file() else {}).get("activation_fn"),
        # Until version 4 it stood in config.json under another name.
        beside["activation_fn"] if beside else config.get("sbert_ce_default_activation_function"),
    )
    default = "sigmoid" if labels == 1 else "identity"
    for named in places:
        if named is None:
            continue
        if not isinstance(named, str) or not named.startswith("torch."):
            notes.append(
                f"activation {named!r} is code of the checkpoint's own, passed over as sentence-transformers does"
            )
            continue
        found = ACTIVATIONS.get(named.rpartition(".")[2])
        if found is None:
            raise UnsupportedCheckpointError(
                f"activation {named} is not built; built are torch.nn's {', '.join(ACTIVATIONS)}"
            )
        return found
    return default


def _token_types(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint's tokenizer gives token types to the model, and the model has more than one."""
    if int(checkpoint.config.get("type_vocab_size") or (2 if checkpoint.model_type in TYPED_MODELS else 1)) < 2:
        return False
    path = checkpoint.path / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    inputs = config.get("model_input_names")
    if isinstance(inputs, list):
        return "token_type_ids" in inputs
    kind = config.get("tokenizer_class")
    # Without a class, transformers takes the model's own.
    return str(kind).startswith(TYPED_TOKENIZERS) if kind else checkpoint.model_type.startswith(TYPED_MODELS)


TASK = Task(
    load=load,
    build=build,
    facts=facts,
    quantizing=quantizing,
    verify=verify,
    overrides=("max_length", "prompts", "default_prompt_name"),
)
