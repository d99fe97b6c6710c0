"""Cross-encoders: a transformer with a head over pairs of texts, as sentence-transformers reads it.

The graph gives logits; the activation that makes scores of them is a fact of the manifest. The head stays float: it is
one row a pair. Which heads there are: classification.py, pooled_score.py, logit_score.py for causal language models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from fastembed_rt.manifest import OUTPUTS, RERANKING, TOKENIZER_FILE, ChatTemplate, Reranking
from fastembed_rt.models.reranker import feeds
from fastembed_rt.text.chat import Chat
from fastembed_rt.text.tokenizer import TextTokenizer

from ..architectures.llama import is_causal
from ..checkpoint.read import Checkpoint, assemble, check_class
from ..checkpoint.transformer import Output
from ..errors import CheckpointError, UnsupportedCheckpointError
from ..files import module_entries, read_json
from ..graph.graph import FLOAT, INT64, Graph
from ..graph.ops import Ops
from ..graph.target import Target
from ..quantize import Sample
from ..tensors import Tensors
from ..tokenizer import chat_template, padding_side, token_types, tokenizer_json
from ..variants import Built, Quantizing
from . import next_word, pooled_score
from .classification import CLASSIFIERS, Classifier
from .embedding import ONLY
from .logit_score import LOGITS, MODULE, LogitHead, head_of, is_causal_lm
from .next_word import NextWord
from .pooled_score import PooledHead, is_pooled
from .reranking_parity import fidelity, pairs_of, verify
from .task import Task

ACTIVATIONS = {"Identity": "identity", "Sigmoid": "sigmoid"}  # torch.nn's classes
# By model_type: what the cards of models say that their pairs look like, and no file of theirs.
TEMPLATES = {
    "llama_bidirec": (
        "{{ bos_token }}question:{{ messages[0]['content'] }}{{ ' \\n \\n passage:' }}{{ messages[1]['content'] }}"
    )
}
SCORES = Output("sequence-classification", "logits", "scores", by_role=None, chats=True)


@dataclass(frozen=True)
class PairHead:
    """A head, what its outputs are called, and how they become scores."""

    made_of: Classifier | LogitHead | PooledHead | NextWord
    labels: tuple[str, ...]
    activation: str
    token_types: bool
    chat: ChatTemplate | None = None  # that pairs go through

    @property
    def unscored(self) -> int | None:
        """Id of a token that does not count at the end of a pair."""
        return self.made_of.passes_over if isinstance(self.made_of, Classifier) else None

    @property
    def modules(self) -> tuple[str, ...]:
        """For people to read."""
        if isinstance(self.made_of, PooledHead):
            return (*self.made_of.modules, self.activation)
        count = len(self.labels)
        what = f"{count} label{'' if count == 1 else 's'}"
        made = f"Classification({what})" if isinstance(self.made_of, Classifier) else self.made_of.name
        return (f"{made[:-1]}, {self.activation})",)


def load(root: Path, name: str, revision: str | None, exporter: str) -> Checkpoint:
    """Read a cross-encoder; see checkpoint.load."""
    if exporter == "optimum":
        raise UnsupportedCheckpointError("a reranker is built from its weights, not traced; leave --exporter out")
    notes: list[str] = []
    config = read_json(root / "config.json")
    causal, answers = is_causal_lm(root, config), next_word.answers(config)
    pooled = pooled_score.head_of(root, notes) if is_pooled(root) else None
    if not causal and pooled is None:
        _check_chain(root)
    output = pooled_score.STATES if pooled else LOGITS if causal else next_word.STATES if answers else SCORES
    weighted = () if pooled is None else pooled.folders
    checkpoint = assemble(root, root, name, revision, notes, exporter="builder", output=output, weighted=weighted)
    of_words = head_of if causal else next_word.head_of if answers else None
    made_of = pooled or (_classifier(checkpoint) if of_words is None else of_words(checkpoint, notes))
    chat = None if checkpoint.chat is None else _template(checkpoint)
    if isinstance(made_of, NextWord):
        chat = next_word.TEMPLATE
    if chat is None and checkpoint.model_type in TEMPLATES and not (root / "modules.json").is_file():
        raise UnsupportedCheckpointError(
            f"{root} has no chat template, and its kind scores a query and a document as one text, which nothing in it "
            f"says; for NVIDIA's llama-nemotron-rerank put this line beside its weights as {chat_template.FILE}: "
            f"{TEMPLATES[checkpoint.model_type]}"
        )
    if isinstance(made_of, Classifier):
        if made_of.passes_over is not None and not _sees_before_alone(checkpoint.config):
            _check_last(checkpoint, chat, made_of.passes_over)
            made_of = replace(made_of, passes_over=None)
        if made_of.pooling == "cls" and checkpoint.padding.alone and padding_side.is_left(checkpoint):
            padding_side.refuse(checkpoint, "the score is that of a pair's first token, which would be padding")
        labels = _labels(checkpoint.config)
    else:
        labels = _numbered(made_of.labels if isinstance(made_of, PooledHead) else 1)
    activation = _activation(root, checkpoint.config, len(labels), notes)
    head = PairHead(made_of, labels, activation, token_types.given(checkpoint), chat)
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
    ops = Ops(graph, target, tokens, only=ONLY.get(head.made_of.pooling))
    tensors = checkpoint.tensors()
    states = checkpoint.architecture.encoder(ops, checkpoint.config, tensors)
    if head.token_types and not any("token_type_ids" in node.input for node in graph.nodes):
        raise UnsupportedCheckpointError(
            f"the builder of {checkpoint.model_type} knows no token types, which its tokenizer gives to pairs"
        )
    width = checkpoint.width
    with ops.scope("head"):
        if isinstance(head.made_of, (LogitHead, NextWord)):
            state = head.made_of.logits(ops, states, tensors, checkpoint.config)
        elif isinstance(head.made_of, PooledHead):
            state = head.made_of.logits(ops, states, width)
        else:
            beside = Tensors(tensors.stored, "", tensors.account)
            state = head.made_of.logits(ops, states, beside, width, len(head.labels))
    left = tensors.check(checkpoint.architecture.heads)
    graph.output(state, OUTPUTS[RERANKING], FLOAT, ("batch", len(head.labels)))
    return Built(graph, len(head.labels), left)


def facts(checkpoint: Checkpoint, work: Path) -> Mapping[str, Any]:
    """The manifest's fields."""
    head = _head(checkpoint)
    if head.chat is not None:  # which has to leave room for a pair
        TextTokenizer(work / TOKENIZER_FILE, max_length=checkpoint.max_length, chat=Chat(head.chat))
    words = head.made_of.words if isinstance(head.made_of, LogitHead) else ()
    about = Reranking(
        labels=head.labels,
        activation=head.activation,
        chat=head.chat,
        score_tokens=words,
        unscored=head.unscored,
    )
    return {"task": RERANKING, "reranking": about}


def quantizing(checkpoint: Checkpoint) -> Quantizing:
    """Pairs; the correlation of their logits."""
    head = _head(checkpoint)
    chat = None if head.chat is None else Chat(head.chat)

    def sample(tokenizer: TextTokenizer, texts: Sequence[str]) -> Sample:
        made = tokenizer.with_chat(chat).pairs(pairs_of(texts)).without_end(head.unscored)
        assert made.first_segments is not None
        return Sample(made.ids, made.first_segments, feeds, OUTPUTS[RERANKING])

    return Quantizing(sample=sample, fidelity=fidelity, inputs="pairs", outputs="logits")


def _head(checkpoint: Checkpoint) -> PairHead:
    assert isinstance(checkpoint.head, PairHead)
    return checkpoint.head


def _classifier(checkpoint: Checkpoint) -> Classifier:
    """The classification head that config.json describes."""
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
    return classifier(config)


def _check_chain(root: Path) -> None:
    """Refuse what stands behind the transformer in modules.json."""
    if not (root / "modules.json").is_file():
        return
    chain = module_entries(root)
    if [kind for kind, _ in chain] != ["Transformer"] or chain[0][1]:
        raise UnsupportedCheckpointError(
            f"modules.json has {', '.join(kind for kind, _ in chain) or 'nothing'}; built are cross-encoders of a "
            f"Transformer alone, with its classification head, with a {MODULE} behind a causal language model, and "
            "with a Pooling and layers of their own"
        )
    check_class(root, "CrossEncoder")


def _template(checkpoint: Checkpoint) -> ChatTemplate:
    """The chat template that pairs go through."""
    made = chat_template.read(checkpoint)
    if made.prompted is None and any(checkpoint.prompts.values()):
        raise UnsupportedCheckpointError(
            f"{checkpoint.path} has prompts, and its chat template takes no system message, in which they would stand; "
            f"{chat_template.ADVICE}"
        )
    return made


def _sees_before_alone(config: Mapping[str, Any]) -> bool:
    """Whether the state of a token is the same without those behind it."""
    return is_causal(config) and not config.get("use_bidirectional_attention")


def _check_last(checkpoint: Checkpoint, chat: ChatTemplate | None, pad: int) -> None:
    """Refuse a tokenizer that ends every pair with the pad token, before which transformers looks for the last one."""
    tokenizer = Tokenizer.from_str(tokenizer_json.load(checkpoint).text)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = (tokenizer.encode("a", "a") if chat is None else tokenizer.encode(Chat(chat).render(("a", "a")))).ids
    if ids and ids[-1] == pad:
        raise UnsupportedCheckpointError(
            f"{checkpoint.path}: the tokenizer ends pairs with token {pad}, which config.json has as pad_token_id, and "
            "the model sees both ways: transformers takes the score of the last token that is another, and built is "
            "that of the last one; name another pad token"
        )


def _labels(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the labels, in order; two where config.json says nothing, as in transformers.

    Where their number is said as well, and is another, it counts, and the names do not.
    """
    named = config.get("id2label")
    try:
        names = () if named is None else tuple(str(named[key]) for key in sorted(named, key=int))
    except (TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"config.json has id2label {named!r}, expected names by number") from error
    count = config.get("num_labels", 2 if named is None else len(names))
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        said = f"num_labels {count!r}" if "num_labels" in config else f"id2label {named!r}"
        raise CheckpointError(f"config.json has {said}, expected a number of labels")
    return names if len(names) == count else _numbered(count)


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"LABEL_{k}" for k in range(count))


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


TASK = Task(
    load=load,
    build=build,
    facts=facts,
    quantizing=quantizing,
    verify=verify,
    overrides=("max_length", "prompts", "default_prompt_name"),
)
