"""Masked language model heads: token states -> logits over the vocabulary, as transformers' ...ForMaskedLM has them.

A dense layer, an activation, a normalization, and a product with the word table (or a matrix of its own). The product
is cut into pieces of the vocabulary, so that nobody ever holds tokens x vocabulary numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .architectures.albert import ACTIVATION as ALBERT_ACTIVATION
from .architectures.blocks import Config, flag, layer_norm, linear, setting
from .architectures.distilbert import EPSILON as DISTILBERT_EPSILON
from .errors import UnsupportedCheckpointError
from .graph.graph import Value
from .graph.ops import Ops
from .graph.weight import Array, Linear, Weight
from .tensors import Tensors

PIECE = 8192  # rows of the vocabulary in one product: 256 tokens of it are 8 MB, which stay in the caches


@dataclass(frozen=True, kw_only=True)
class MaskedLM:
    """Where one model_type keeps its head, by names of tensors in the whole checkpoint."""

    dense: str
    norm: str
    decoder: tuple[str, ...]  # the first that is stored; the last is the word table it is tied to
    bias: tuple[str, ...]  # the first that is stored
    activation: Callable[[Config], str] = lambda _: "gelu"
    epsilon: Callable[[Config], float] = lambda config: setting(config, "layer_norm_eps", float, 1e-12)
    dense_bias: Callable[[Config], bool] = lambda _: True
    norm_bias: Callable[[Config], bool] = lambda _: True
    decoder_bias: Callable[[Config], bool] = lambda _: True
    width: str = "hidden_size"  # key of the config: channels behind the dense layer
    hidden: str = "hidden_size"  # key of the config: channels before it


def _hidden_act(config: Config) -> str:
    return setting(config, "hidden_act", str, "gelu")


def _gte(table: str, activation: Callable[[Config], str]) -> MaskedLM:
    """GTE's head under transformers' names, tied to this word table; its activation is the hub's or transformers'."""
    return MaskedLM(
        dense="lm_head.dense",
        norm="lm_head.layer_norm",
        decoder=("lm_head.decoder.weight", table),
        bias=("lm_head.decoder.bias",),
        activation=activation,
    )


def _roberta(table: str) -> MaskedLM:
    """RoBERTa's head under its own names, tied to this word table."""
    return MaskedLM(
        dense="lm_head.dense",
        norm="lm_head.layer_norm",
        decoder=("lm_head.decoder.weight", table),
        bias=("lm_head.decoder.bias", "lm_head.bias"),
    )


_ROBERTA = _roberta("roberta.embeddings.word_embeddings.weight")
HEADS = {
    "bert": MaskedLM(
        dense="cls.predictions.transform.dense",
        norm="cls.predictions.transform.LayerNorm",
        decoder=("cls.predictions.decoder.weight", "bert.embeddings.word_embeddings.weight"),
        bias=("cls.predictions.decoder.bias", "cls.predictions.bias"),
        activation=_hidden_act,
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "camembert": _ROBERTA,
    "mpnet": _roberta("mpnet.embeddings.word_embeddings.weight"),
    "distilbert": MaskedLM(
        dense="vocab_transform",
        norm="vocab_layer_norm",
        decoder=("vocab_projector.weight", "distilbert.embeddings.word_embeddings.weight"),
        bias=("vocab_projector.bias",),
        activation=lambda config: setting(config, "activation", str, "gelu"),
        epsilon=lambda _: DISTILBERT_EPSILON,
        width="dim",
        hidden="dim",
    ),
    "electra": MaskedLM(
        dense="generator_predictions.dense",
        norm="generator_predictions.LayerNorm",
        decoder=("generator_lm_head.weight", "electra.embeddings.word_embeddings.weight"),
        bias=("generator_lm_head.bias",),
        width="embedding_size",
    ),
    "albert": MaskedLM(
        dense="predictions.dense",
        norm="predictions.LayerNorm",
        decoder=("predictions.decoder.weight", "albert.embeddings.word_embeddings.weight"),
        bias=("predictions.decoder.bias", "predictions.bias"),
        activation=lambda config: setting(config, "hidden_act", str, ALBERT_ACTIVATION),
        width="embedding_size",
    ),
    "gte": _gte("gte.embeddings.word_embeddings.weight", lambda _: "gelu"),
    "new": _gte("new.embeddings.word_embeddings.weight", _hidden_act),
    "modernbert": MaskedLM(
        dense="head.dense",
        norm="head.norm",
        decoder=("decoder.weight", "model.embeddings.tok_embeddings.weight"),
        bias=("decoder.bias",),
        activation=lambda config: setting(config, "classifier_activation", str, "gelu"),
        epsilon=lambda config: setting(config, "norm_eps", float, 1e-5),
        dense_bias=lambda config: flag(config, "classifier_bias", False),
        norm_bias=lambda config: flag(config, "norm_bias", False),
        decoder_bias=lambda config: flag(config, "decoder_bias", True),
    ),
}


def head_of(model_type: str) -> MaskedLM:
    """Row of `model_type`.

    Raises:
        UnsupportedCheckpointError: no such head here.
    """
    row = HEADS.get(model_type)
    if row is None:
        raise UnsupportedCheckpointError(
            f"model_type {model_type!r} has no masked language model head here; there are: {', '.join(HEADS)}"
        )
    return row


def vocabulary(ops: Ops, row: MaskedLM, config: Config, tensors: Tensors, states: Value) -> tuple[Value, list[Linear]]:
    """Token states -> what layers make logits of, each for PIECE words after another.

    `tensors` are the whole checkpoint's.
    """
    hidden, width = setting(config, row.hidden, int), setting(config, row.width, int, 128)
    dense = linear(tensors, row.dense, hidden, width, bias=row.dense_bias(config))
    states = ops.activated(states, dense, row.activation(config))
    states = ops.norm(states, layer_norm(tensors, row.norm, width, row.epsilon(config), bias=row.norm_bias(config)))
    words = setting(config, "vocab_size", int)
    # A decoder stored beside a word table that it is tied to is the same matrix, or was trained on its own. One that is
    # not tied has no other, nor another bias: transformers 5 takes zeros where version 4 took that of the other name.
    names = slice(None if flag(config, "tie_word_embeddings", True) else 1)
    matrix = tensors.get(_stored(tensors, row.decoder[names]), (words, width))
    bias = tensors.get(_stored(tensors, row.bias[names]), (words,)) if row.decoder_bias(config) else None
    pieces = [_piece(matrix, bias, start, words) for start in range(0, words, PIECE)]
    return states, [_filled(piece, ops.target.lanes) for piece in pieces]


def widths(words: int, lanes: int) -> list[int]:
    """Of the pieces, whose last is filled up to a multiple of `lanes`."""
    return [-(-min(PIECE, words - start) // lanes) * lanes for start in range(0, words, PIECE)]


def _piece(matrix: Weight, bias: Weight | None, start: int, words: int) -> Linear:
    if words <= PIECE:
        return Linear(matrix, bias)
    stop = min(start + PIECE, words)
    return Linear(matrix.rows(start, stop), bias.rows(start, stop) if bias else None)


def _filled(piece: Linear, lanes: int) -> Linear:
    """The layer with outputs of zero behind its own, up to a multiple of `lanes`."""
    more = -piece.out_features % lanes
    if not more:
        return piece

    def filled(weight: Weight) -> Weight:
        def load() -> Array:
            made = weight.load()
            return np.concatenate([made, np.zeros((more, *made.shape[1:]), made.dtype)])

        return Weight(f"{weight.name}.filled", (weight.shape[0] + more, *weight.shape[1:]), load)

    return Linear(filled(piece.weight), filled(piece.bias) if piece.bias else None)


def _stored(tensors: Tensors, names: tuple[str, ...]) -> str:
    """The first of the names that the checkpoint has; its last, which is reported missing, where it has none."""
    return next((name for name in names if name in tensors.stored), names[-1])
