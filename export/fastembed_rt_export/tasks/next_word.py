"""Rerankers that score by the word an encoder-decoder answers with: monoT5 (Nogueira et al. 2020, arXiv:2003.06713).

A pair becomes one text, and the score is the logit of one word less that of another, behind one step of the decoder:
what it makes of its start token. So pygaggle's MonoT5 reads a T5ForConditionalGeneration; its log softmax over both
words is the logarithm of this score's sigmoid.

The step sees one token, so attention to itself is that token's value. Keys and values of the encoder's tokens are not
made: a query is taken back through the key's weights to the states, and what is mixed is states.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fastembed_rt.manifest import ChatTemplate, TemplatePart

from ..architectures.blocks import Config, flag, linear, setting
from ..architectures.decoder import Sizes, rms_norm
from ..architectures.t5 import feed_forward, word_table
from ..checkpoint.read import Checkpoint
from ..checkpoint.transformer import Output
from ..errors import CheckpointError, UnsupportedCheckpointError
from ..graph.distances import MASKED
from ..graph.graph import FLOAT, Graph, Value
from ..graph.layers import FeedForward, Heads, ScoreBias
from ..graph.ops import Ops
from ..graph.portable import norm
from ..graph.target import Tokens, masked
from ..graph.weight import Array, Linear, Norm, Weight
from ..heads import linear as of_vectors
from ..tensors import Tensors
from ..tokenizer import tokenizer_json

STATES = Output("feature-extraction", "last_hidden_state", "token_embeddings", by_role=None)
CLASSES = ("T5ForConditionalGeneration", "MT5ForConditionalGeneration")
HEAD = "lm_head.weight"
# For and against, as checkpoints were trained; the first of which the vocabulary has both words.
WORDS = (("▁true", "▁false"), ("▁sim", "▁não"), ("▁yes", "▁no"))
# Its vocabulary has all of these, and its rerankers were trained with one pair (unicamp-dl's of mMARCO).
WORDS_OF = {"mt5": (("▁yes", "▁no"),)}
BEFORE, BETWEEN, BEHIND = "Query: ", " Document: ", " Relevant:"
# Cut at its end as any text is, whatever stands there.
TEMPLATE = ChatTemplate(
    plain=(
        TemplatePart(text=BEFORE),
        TemplatePart(slot="query"),
        TemplatePart(text=BETWEEN),
        TemplatePart(slot="document"),
        TemplatePart(text=BEHIND),
    ),
    restore_end=False,
)


@dataclass(frozen=True)
class NextWord:
    """The words whose logits make the score, and what the decoder begins with."""

    true: int
    false: int
    start: int
    pooling: str = ""  # none

    @property
    def name(self) -> str:
        """For people to read."""
        return f"NextWord(token {self.true} - token {self.false})"

    def logits(self, ops: Ops, states: Value, tensors: Tensors, config: Config) -> Value:
        """Token states of the encoder -> (B, 1)."""
        step = _Step(ops.behind_pooling, tensors, config)

        def scored(state: Value) -> Value:
            return of_vectors(ops.behind_pooling, state, Linear(self._row(step)))

        target, begin = ops.target, step.begin(self.start)
        if target.attend_first is not None and target.first is not None and target.last is not None:
            attend, heads = target.attend_first, Heads(step.sizes.heads, 1)
            seen = ScoreBias(tensor=target.last.seen(ops.token_graph, ops.tokens))
            keys = target.spread(ops.token_graph, ops.tokens, states)
            # A row for each text, as their queries are.
            rows = ops.graph.node("Mul", target.first(ops.token_graph, ops.tokens, states), ops.graph.constant(0.0))
            begins = ops.graph.node("Add", rows, ops.graph.weight(begin), name="begin")

            def attended(query: Value) -> Value:
                return attend(ops.token_graph, ops.tokens, query=query, key=keys, value=keys, heads=heads, bias=seen)

            return scored(step.of(ops.graph, begins, attended))

        def on_padded(graph: Graph, tokens: Tokens, padded: Value) -> Value:
            attended = _attention(graph, tokens, padded, step.sizes.heads)
            return scored(step.of(graph, graph.weight(begin), attended))

        return target.on_padded(on_padded)(ops.token_graph, ops.tokens, states)

    def _row(self, step: _Step) -> Weight:
        """(words, H) -> (1, H): the score is a product with this difference of rows."""
        tied = flag(step.config, "tie_word_embeddings", True)
        # One that is stored counts, whatever is said of it (transformers 5 ties what is not there).
        words = step.tensors.get(HEAD, step.words.shape) if step.tensors.has(HEAD) else step.words
        scale = step.sizes.hidden**-0.5 if flag(step.config, "scale_decoder_outputs", tied) else 1.0

        def load() -> Array:
            true, false = words.at((self.true, self.false)).astype(np.float64)
            made: Array = ((true - false) * scale).astype(np.float32)[None, :]
            return made

        return Weight(f"score.{words.name}.{self.true}-{self.false}", (1, step.sizes.hidden), load)


class _Step:
    """One step of the decoder."""

    def __init__(self, ops: Ops, tensors: Tensors, config: Config) -> None:
        layers = setting(config, "num_decoder_layers", int, setting(config, "num_hidden_layers", int))
        self.ops, self.tensors, self.config, self.layers = ops, tensors, config, layers
        self.sizes = Sizes.of(config)
        self.words = word_table(config, tensors, "decoder.embed_tokens.weight")

    def begin(self, start: int) -> Weight:
        """The word of the start token: (1, H)."""
        return Weight(f"{self.words.name}.{start}", (1, self.sizes.hidden), lambda: self.words.at((start,)))

    def of(self, graph: Graph, state: Value, attended: Callable[[Value], Value]) -> Value:
        """The decoder's state of its start token: (1, H) or (B, H) -> (B, H).

        `attended`: what N queries a text, side by side, mix of the encoder's states, which are keys and values to all.
        """
        ops = self.ops
        for index in range(self.layers):
            own = self.tensors.under(f"decoder.block.{index}.layer.")
            with ops.scope(f"decoder.{index}"):
                read = norm(graph, state, self._norm(own, "0.layer_norm"))
                state = self._add(graph, state, self._itself(own, read))
                read = norm(graph, state, self._norm(own, "1.layer_norm"))
                state = self._add(graph, state, self._texts(graph, own, read, attended))
                read = norm(graph, state, self._norm(own, "2.layer_norm"))
                layers = feed_forward(own.under("2.DenseReluDense."), self.config, self.sizes)
                state = self._add(graph, state, self._forward(graph, read, layers))
        return norm(graph, state, self._norm(self.tensors, "decoder.final_layer_norm"))

    def _add(self, graph: Graph, left: Value, right: Value) -> Value:
        return graph.node("Add", left, right, name="add")

    def _norm(self, tensors: Tensors, name: str) -> Norm:
        return rms_norm(tensors, name, self.sizes.hidden, setting(self.config, "layer_norm_epsilon", float, 1e-6))

    def _itself(self, own: Tensors, read: Value) -> Value:
        """Attention to the one token that there is."""
        wide, attention = self.sizes.heads * self.sizes.head, own.under("0.SelfAttention.")
        value = of_vectors(self.ops, read, linear(attention, "v", self.sizes.hidden, wide, bias=False))
        return of_vectors(self.ops, value, linear(attention, "o", wide, self.sizes.hidden, bias=False))

    def _texts(self, graph: Graph, own: Tensors, read: Value, attended: Callable[[Value], Value]) -> Value:
        """Attention to the encoder's tokens, scores unscaled: N heads of D channels over states of H."""
        heads, head, hidden = self.sizes.heads, self.sizes.head, self.sizes.hidden
        wide, attention = heads * head, own.under("1.EncDecAttention.")
        query, key, value = (linear(attention, name, hidden, wide, bias=False) for name in "qkv")
        back = [_head(key, part, head, turned=True) for part in range(heads)]
        mixed = attended(self._each(graph, of_vectors(self.ops, read, query), back))
        mixed = self._each(graph, mixed, [_head(value, part, head, turned=False) for part in range(heads)])
        return of_vectors(self.ops, mixed, linear(attention, "o", wide, hidden, bias=False))

    def _each(self, graph: Graph, vectors: Value, layers: Sequence[Linear]) -> Value:
        """(b, N * inputs) -> (b, N * outputs), each part through its layer, whose rows have their bits alone too."""
        sizes = graph.constant([layer.in_features for layer in layers])
        parts = graph.node_outputs("Split", vectors, sizes, count=len(layers), axis=-1, name="heads")
        made = [of_vectors(self.ops, part, layer) for part, layer in zip(parts, layers, strict=True)]
        return made[0] if len(made) == 1 else graph.node("Concat", *made, axis=-1, name="heads")

    def _forward(self, graph: Graph, read: Value, layers: FeedForward) -> Value:
        opened, *others = [of_vectors(self.ops, read, layer) for layer in layers.first]
        opened = self.ops.activation(opened, layers.activation)
        for other in others:
            opened = graph.node("Mul", opened, other, name="gated")
        return of_vectors(self.ops, opened, layers.down)


def _attention(graph: Graph, tokens: Tokens, padded: Value, heads: int) -> Callable[[Value], Value]:
    """Of queries (b, N * H) to states (B, S, H), b 1 or B, in standard operators: (B, N * H)."""
    columns = graph.node("Transpose", padded, perm=[0, 2, 1], name="columns")
    mask = graph.node("Cast", masked(tokens).attention_mask, to=FLOAT, name="mask")
    absent = graph.node("Sub", graph.constant(1.0), mask, name="absent")
    unseen = graph.node("Mul", absent, graph.constant(MASKED), name="unseen")
    unseen = graph.node("Unsqueeze", unseen, graph.constant([1]), name="unseen")

    def attended(query: Value) -> Value:
        asked = graph.node("Reshape", query, graph.constant([0, heads, -1]), name="heads")
        scores = graph.node("Add", graph.node("MatMul", asked, columns, name="scores"), unseen, name="scores")
        shares = graph.node("Softmax", scores, axis=-1, name="shares")
        mixed = graph.node("MatMul", shares, padded, name="mixed")
        return graph.node("Flatten", mixed, axis=1, name="mixed")

    return attended


def _head(layer: Linear, part: int, head: int, *, turned: bool) -> Linear:
    """Rows of one head as a layer H -> D; or `turned`, D -> H."""
    rows = layer.weight.rows(part * head, (part + 1) * head)
    return Linear(rows.transposed if turned else rows)


def answers(config: Config) -> bool:
    """Whether the reranker is one of these."""
    return config.get("architectures") in [[one] for one in CLASSES]


def head_of(checkpoint: Checkpoint, notes: list[str]) -> NextWord:
    """What follows the encoder.

    Raises:
        CheckpointError: a start token that the vocabulary does not have.
        UnsupportedCheckpointError: words that the vocabulary does not have.
    """
    config: Any = checkpoint.config
    tokenizer = Tokenizer.from_str(tokenizer_json.load(checkpoint).text)
    asked = WORDS_OF.get(checkpoint.model_type, WORDS)
    ids = [(tokenizer.token_to_id(true), tokenizer.token_to_id(false)) for true, false in asked]
    known = [(*pair, *words) for pair, words in zip(ids, asked, strict=True) if None not in pair]
    if not known:
        pairs = ", ".join(f"{a} and {b}" for a, b in asked)
        raise UnsupportedCheckpointError(
            f"{checkpoint.path} answers with words ({config['architectures'][0]}), and its vocabulary has none of "
            f"those that rerankers are trained to answer with ({pairs})"
        )
    start = setting(config, "decoder_start_token_id", int, setting(config, "pad_token_id", int, 0))
    if not 0 <= start < (words := setting(config, "vocab_size", int)):
        raise CheckpointError(f"config.json has decoder_start_token_id {start}, and the model has {words} tokens")
    of_true, of_false, true, false = known[0]
    assert of_true is not None
    assert of_false is not None
    text = f"{BEFORE}...{BETWEEN}...{BEHIND}"
    notes.append(
        f"a pair is {text!r}; the score is the logit of {true!r} less that of {false!r}, as in pygaggle's MonoT5"
    )
    return NextWord(of_true, of_false, start)


class Reference:
    """transformers' model, called as rerankers are: with pairs."""

    def __init__(self, checkpoint: Checkpoint, head: NextWord) -> None:
        import torch
        import transformers

        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(str(checkpoint.path))
        kind = getattr(transformers, checkpoint.config["architectures"][0])
        self.model: Any = kind.from_pretrained(str(checkpoint.path)).float().eval()
        self.head, self.max_length, self.num_labels = head, checkpoint.max_length, 1
        self.activation_fn = torch.nn.Sigmoid()

    def preprocess(self, pairs: Any) -> Any:
        """Token ids of pairs."""
        texts = [f"{BEFORE}{query}{BETWEEN}{document}{BEHIND}" for query, document in pairs]
        options = {"padding": True, "truncation": True, "max_length": self.max_length, "return_tensors": "pt"}
        return self.tokenizer(texts, **options)

    def predict(self, pairs: Any, **_: Any) -> Any:
        """Logits (n,)."""
        import torch

        given = self.preprocess(pairs)
        begin = torch.full((len(pairs), 1), self.head.start)
        with torch.inference_mode():
            found = self.model(
                input_ids=given["input_ids"], attention_mask=given["attention_mask"], decoder_input_ids=begin
            ).logits[:, 0]
        return (found[:, self.head.true] - found[:, self.head.false]).numpy()
