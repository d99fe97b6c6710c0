"""Checkpoint: what a checkpoint says of itself, as one record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from fastembed_rt.manifest import EMBEDDING, RERANKING
from fastembed_rt.models.prompts import DOCUMENT_PROMPTS

from .. import static as static_module
from ..architectures import Architecture, own_code
from ..tensors import Stored, Tensors
from .activations import NOT_ZERO_AT_ZERO
from .modules import EOS, Dense, Head, Normalize, Truncate, WholeTanh, WordMean
from .transformer import Chat, Padding


class TaskHead(Protocol):
    """What follows the encoder where vectors of texts are not what is wanted."""

    @property
    def modules(self) -> tuple[str, ...]:
        """The chain behind the transformer for people to read."""


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """A LoRA that is merged into the weights."""

    folder: Path  # of its files
    settings: Path  # the file that says what it is
    older: bool  # it names layers as the checkpoint does, where transformers 5 calls them otherwise
    files: tuple[Path, ...]  # with its tensors
    base: str  # name
    base_revision: str | None
    base_files: tuple[Path, ...]  # with the base's tensors
    changed: frozenset[str]  # names of tensors that it changes or brings
    chosen: str | None  # folder of the checkpoint that it is from, where it was one of several
    unplaced: tuple[str, ...]  # modules beside the encoder that it changes and that the base does not have


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What a checkpoint says of itself."""

    path: Path  # of the transformer: config.json, weights, tokenizer
    root: Path  # of the whole checkpoint
    name: str
    revision: str | None
    config: Mapping[str, Any]
    architecture: Architecture
    stored: Mapping[str, Stored]
    weight_files: tuple[Path, ...]
    pooling: tuple[str, ...]
    include_prompt: bool
    heads: tuple[Head, ...]
    max_length: int  # tokens, special tokens included
    lower_case: bool  # sentence-transformers' own do_lower_case, before the tokenizer's normalizer
    tokenizer_settings: Mapping[str, Any] = field(default_factory=dict)  # said against tokenizer_config.json
    padding: Padding = field(default_factory=Padding)
    lengths: Mapping[str, int] = field(default_factory=dict)  # "query", "document" -> max_length of theirs
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    similarity: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    task: str = EMBEDDING
    own_model: str | None = None  # class of code of its own that config.json names for the model
    trusted: bool = False  # code of its own may be run, to compare with
    markers: tuple[str, ...] = ()  # tokens in front of texts, each to be one token also in the midst of text
    route: str | None = None  # name of this encoder in the checkpoint's Router
    routes: Mapping[str, Checkpoint] = field(default_factory=dict)  # "query", "document" where they have another one
    adapter: Adapter | None = None  # merged into `stored`
    translated: bool = False  # transformers does not find the tensors under the names that they have in their files
    chat: Chat | None = None  # how texts go through the tokenizer's chat template; None: they are read as they are
    head: TaskHead | None = None  # of another task than embedding: what its own module builds and describes

    @property
    def model_type(self) -> str:
        """The architecture's name in transformers."""
        return str(self.config["model_type"])

    @property
    def unlike_own_model(self) -> str | None:
        """What is to be done about `own_model`; None where there is none, or it computes what is built."""
        if self.own_model is None or self.architecture.own_code or self.architecture.taken_over:
            return None
        return own_code.unlike(self.config, self.own_model)

    @property
    def width(self) -> int:
        """Numbers of a token's state."""
        return int(self.config.get(self.architecture.states) or self.config["dim"])

    @property
    def is_static(self) -> bool:
        """Whether there is no transformer, only a vector for each token."""
        return self.architecture is static_module.ARCHITECTURE

    @property
    def has_words(self) -> bool:
        """Whether those are vectors of words, which WordEmbeddings has, and not of a tokenizer's parts of them."""
        return self.model_type == static_module.WORDS

    @property
    def normalize(self) -> bool:
        """Whether vectors leave with unit length."""
        return bool(self.heads) and isinstance(self.heads[-1], Normalize)

    @property
    def unlike_modules(self) -> str | None:
        """Why no modules of sentence-transformers do what the graph does behind the transformer; None where some do."""
        if EOS in self.pooling:
            return "no tool pools the end of its texts"
        if any(isinstance(head, WholeTanh) for head in self.heads):
            return "no tool rounds its vectors"
        return None

    @property
    def cut_unit_vectors(self) -> int | None:
        """Numbers to which vectors of unit length are cut and not normalized again; None where they are not."""
        dim, cut = self.width * len(self.pooling), None
        unit = False
        for head in self.heads:
            if isinstance(head, Normalize):
                unit, cut = True, None
            elif isinstance(head, Truncate):
                cut = head.dim if unit and head.dim < dim else cut
            elif isinstance(head, WholeTanh):
                unit, cut = False, None
            else:
                dim, unit, cut = head.outputs if isinstance(head, Dense) else head.dim, False, None
        return cut

    @property
    def remarks(self) -> tuple[str, ...]:
        """What users of its vectors should know, after the user's word: beside `notes`."""
        found = []
        if (cut := self.cut_unit_vectors) is not None:
            found.append(
                f"the checkpoint's truncate_dim cuts vectors to {cut} numbers behind their normalization, and they are "
                "not normalized again, as in sentence-transformers; --normalize does that"
            )
        if self.task != RERANKING and (name := self.document_prompt) is not None:
            found.append(
                f"encode_document puts the prompt {name!r} in front, as sentence-transformers documents it; its "
                f"version 6 takes an empty 'document' of its own first: pass prompt_name={name!r} there"
            )
        return tuple(found)

    @property
    def of_nothing(self) -> str | None:
        """What sentence-transformers makes of a text without a token, None for zeros, which are the vector here."""
        if "cls" in self.pooling or EOS in self.pooling:
            return "the state of whatever fills its batch up"
        if "max" in self.pooling:
            return "no number"
        changing = (head for head in self.heads if not _keeps_zeros(head))
        head = next(changing, None)
        return None if head is None else f"what {head} makes of zeros"

    @property
    def document_prompt(self) -> str | None:
        """Name of encode_document's prompt where it is "passage" or "corpus", for want of a "document"; else None."""
        found = next((name for name in DOCUMENT_PROMPTS if name in self.prompts), None)
        return found if found != DOCUMENT_PROMPTS[0] and found is not None and self.prompts[found] else None

    @property
    def modules(self) -> tuple[str, ...]:
        """The chain for people to read."""
        if self.head is not None:
            return self.head.modules if self.is_static else (f"Transformer({self.model_type})", *self.head.modules)
        kind = "+".join(self.pooling)
        if self.has_words:
            heads = [str(head) for head in self.heads if not isinstance(head, WordMean)]
            weights = ["WordWeights"] * (len(self.heads) - len(heads))
            return (f"WordEmbeddings({self.config['vocab_size']} words)", *weights, f"Pooling({kind})", *heads)
        if self.is_static:
            return (f"StaticEmbedding({self.config['vocab_size']} tokens)", *map(str, self.heads))
        return (f"Transformer({self.model_type})", f"Pooling({kind})", *map(str, self.heads))

    def tensors(self) -> Tensors:
        """The encoder's tensors as its builder names them, with the task model's prefix taken off when there is one."""
        prefix, renames = self.architecture.prefix, self.architecture.renames
        stored = self.stored if renames is None else renames.of(self.stored)
        inside = any(name.startswith(prefix) for name in stored)
        return Tensors(stored, prefix if inside else "")


def _keeps_zeros(head: Head) -> bool:
    """Whether a head makes zeros of zeros."""
    if isinstance(head, Dense):
        return not head.bias and head.activation not in NOT_ZERO_AT_ZERO
    return isinstance(head, (Normalize, Truncate, WordMean, WholeTanh))
