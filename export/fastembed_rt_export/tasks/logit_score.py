"""Rerankers that score by a causal language model's next token: the logit of one word, or of one less another's.

As sentence-transformers' LogitScore: of the state behind the last token of a pair, which went through the tokenizer's
chat template. Of the head over the vocabulary only the rows of these words go into the graph, as one product.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from .. import settings
from ..architectures.blocks import Config, flag, setting
from ..checkpoint.read import Checkpoint
from ..checkpoint.transformer import Output
from ..errors import CheckpointError, UnsupportedCheckpointError
from ..files import inside, module_entries, read_json
from ..graph.graph import Value
from ..graph.ops import Ops
from ..graph.portable import capped
from ..graph.weight import Array, Linear, Weight
from ..heads import linear
from ..tensors import Tensors
from ..tokenizer import tokenizer_json
from ..tokenizer.chat_template import ADVICE

MODULE = "LogitScore"
LOGITS = Output("text-generation", "logits", "causal_logits", by_role=None, chats=True)
WORDS = ("yes", "no")  # that sentence-transformers takes where nothing is said
# By model_type: whether the head is the word table where config.json does not say.
MODELS = {
    "llama": False,
    "mistral": False,
    "ministral3": False,
    "qwen2": False,
    "qwen3": False,
    "gemma": True,
    "gemma2": True,
    "gemma3_text": True,
}
# By model_type, of those that have one: the cap of logits where config.json does not say.
CAPS = {"gemma2": 30.0, "gemma3_text": None}
HEAD = "lm_head.weight"


@dataclass(frozen=True)
class LogitHead:
    """The words whose logits make the score."""

    true: int
    false: int | None
    tied: bool  # whether the head is the word table where the checkpoint stores none
    cap: float | None = None  # of each logit
    pooling: str = "lasttoken"

    @property
    def name(self) -> str:
        """For people to read."""
        return f"{MODULE}(token {self.true}{'' if self.false is None else f' - token {self.false}'})"

    @property
    def words(self) -> tuple[int, ...]:
        """Their ids."""
        return (self.true,) if self.false is None else (self.true, self.false)

    def logits(self, ops: Ops, states: Value, tensors: Tensors, config: Config) -> Value:
        """Token states (..., H) -> (B, 1); `tensors` are the encoder's."""
        words, width = setting(config, "vocab_size", int), setting(config, "hidden_size", int)
        whole = Tensors(tensors.stored, "", tensors.account)
        source = (tensors, "embed_tokens.weight") if self.tied and not whole.has(HEAD) else (whole, HEAD)
        matrix = source[0].get(source[1], (words, width))
        state = ops.pool(states, self.pooling)
        if self.cap is None:
            return linear(ops.behind_pooling, state, Linear(self._row(matrix)))
        own = Weight(f"score.{matrix.name}", (len(self.words), matrix.shape[1]), lambda: matrix.at(self.words))
        found = capped(ops.graph, linear(ops.behind_pooling, state, Linear(own)), self.cap)
        signs = ops.graph.constant(np.array([[1.0], [-1.0]], np.float32)[: len(self.words)])
        return ops.graph.node("MatMul", found, signs, name="score")

    def _row(self, matrix: Weight) -> Weight:
        """(words, H) -> (1, H): the score is a product with this difference of rows."""

        def load() -> Array:
            true, *false = matrix.at(self.words).astype(np.float64)
            made: Array = (true - sum(false)).astype(np.float32)[None, :]
            return made

        return Weight(f"score.{matrix.name}.{self.true}-{self.false}", (1, matrix.shape[1]), load)


def is_causal_lm(root: Path, config: Mapping[str, Any]) -> bool:
    """Whether the reranker in `root` is one of these: by its modules, or without any by config.json's first class."""
    if (root / "modules.json").is_file():
        return any(kind == MODULE for kind, _ in module_entries(root))
    named = config.get("architectures")
    return isinstance(named, list) and bool(named) and str(named[0]).endswith("ForCausalLM")


def head_of(checkpoint: Checkpoint, notes: list[str]) -> LogitHead:
    """What follows the transformer.

    Raises:
        CheckpointError: words that the vocabulary does not have.
        UnsupportedCheckpointError: a model_type whose head is not built, nothing that says what a pair looks like.
    """
    config, chained = checkpoint.config, (checkpoint.root / "modules.json").is_file()
    if checkpoint.model_type not in MODELS:
        raise UnsupportedCheckpointError(
            f"model_type {checkpoint.model_type!r} has no head over the vocabulary here; there are: {', '.join(MODELS)}"
        )
    if not chained and checkpoint.chat is None:
        raise UnsupportedCheckpointError(
            f"{checkpoint.path} is a causal language model without modules.json and without a chat template, so "
            f"nothing says what its pairs look like: {ADVICE}; or save it with sentence-transformers, "
            "CrossEncoder(modules=[Transformer(..., transformer_task='text-generation'), LogitScore(true_token_id, "
            "false_token_id)]).save_pretrained()"
        )
    true, false = _saved_words(checkpoint.root) if chained else _default_words(checkpoint, notes)
    words = setting(config, "vocab_size", int)
    for token in (true, false):
        if token is not None and not 0 <= token < words:
            raise CheckpointError(f"{MODULE} names token {token}, and the model has {words}")
    tied = flag(config, "tie_word_embeddings", MODELS[checkpoint.model_type])
    head = LogitHead(true, false, tied, _cap(checkpoint))
    _check_adapter(checkpoint, head)
    return head


def _saved_words(root: Path) -> tuple[int, int | None]:
    """Ids of LogitScore's tokens."""
    chain = module_entries(root)
    if [kind for kind, _ in chain] != ["Transformer", MODULE]:
        raise UnsupportedCheckpointError(
            f"modules.json has {', '.join(kind for kind, _ in chain)}; with {MODULE} built is a Transformer before it "
            "and nothing else"
        )
    path = inside(root, chain[1][1]) / "config.json"
    said = read_json(path)
    settings.check(settings.LOGIT_SCORE, said, path, [])
    if (source := said.get("module_input_name", LOGITS.name)) != LOGITS.name:
        raise UnsupportedCheckpointError(f"{path} has module_input_name {source!r}; built is {LOGITS.name!r}")
    true, false = said.get("true_token_id"), said.get("false_token_id")
    if type(true) is not int or (false is not None and type(false) is not int):
        raise CheckpointError(f"{path} has true_token_id {true!r} and false_token_id {false!r}, expected ids of tokens")
    return true, false


def _default_words(checkpoint: Checkpoint, notes: list[str]) -> tuple[int, int]:
    tokenizer = Tokenizer.from_str(tokenizer_json.load(checkpoint).text)
    true, false = (tokenizer.token_to_id(word) for word in WORDS)
    absent = [word for word, token in zip(WORDS, (true, false), strict=True) if token is None]
    if true is None or false is None:
        raise UnsupportedCheckpointError(
            f"{checkpoint.path} has no modules.json, so that its score is the logit of {WORDS[0]!r} less that of "
            f"{WORDS[1]!r}, as in sentence-transformers, and its vocabulary has no {absent[0]!r}; save it with "
            "sentence-transformers and a LogitScore of its own words"
        )
    notes.append(
        f"no modules.json: the score is the logit of {WORDS[0]!r} less that of {WORDS[1]!r}, the reference's default"
    )
    return true, false


def _cap(checkpoint: Checkpoint) -> float | None:
    """Of each logit."""
    key, config = "final_logit_softcapping", checkpoint.config
    if checkpoint.model_type not in CAPS or config.get(key, CAPS[checkpoint.model_type]) is None:
        return None
    cap = setting(config, key, float, CAPS[checkpoint.model_type])
    if cap <= 0:
        raise CheckpointError(f"config.json has {key} {cap}, expected a number above 0")
    return cap


def _check_adapter(checkpoint: Checkpoint, head: LogitHead) -> None:
    """Refuse an adapter that changes one of two matrices that the base stores as one."""
    merged = checkpoint.adapter
    if merged is None or not head.tied or HEAD in checkpoint.stored:
        return
    beside = [name for name in merged.unplaced if name.startswith("lm_head")]
    table = [name for name in merged.changed if name.endswith("embed_tokens.weight")]
    if beside or table:
        raise UnsupportedCheckpointError(
            f"the adapter changes {(beside or table)[0]}, and the base has one matrix for the word table and the head: "
            "merge it with peft first (merge_and_unload()) and save the whole model"
        )
