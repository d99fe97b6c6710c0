"""The architectures built from a checkpoint's tensors: one file a family, one row a model_type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..errors import UnsupportedCheckpointError
from ..graph.graph import Value
from ..graph.ops import Ops
from ..tensors import Tensors
from . import albert, bert, distilbert, electra, modernbert, mpnet
from .blocks import Config


@dataclass(frozen=True)
class Architecture:
    """How to build one model_type."""

    encoder: Callable[[Ops, Config, Tensors], Value]
    positions: Callable[[Config], int]  # longest text in tokens
    prefix: str  # of the tensors when the encoder was saved inside a task model
    heads: tuple[str, ...] = ()  # tensors beside the encoder that sentence embeddings do not use
    traced: bool = False  # made by a tracer, which took the tensors it needed itself


_MASKED_LM = ("pooler.", "cls.", "lm_head.", "classifier.", "qa_outputs.", "embeddings.position_ids")
ARCHITECTURES = {
    "bert": Architecture(bert.bert, bert.bert_positions, "bert.", _MASKED_LM),
    "roberta": Architecture(bert.roberta, bert.roberta_positions, "roberta.", _MASKED_LM),
    "xlm-roberta": Architecture(bert.roberta, bert.roberta_positions, "roberta.", _MASKED_LM),
    "camembert": Architecture(bert.roberta, bert.roberta_positions, "roberta.", _MASKED_LM),
    "distilbert": Architecture(
        distilbert.distilbert,
        bert.bert_positions,
        "distilbert.",
        (*_MASKED_LM, "vocab_transform.", "vocab_layer_norm.", "vocab_projector.", "pre_classifier."),
    ),
    "mpnet": Architecture(mpnet.mpnet, mpnet.mpnet_positions, "mpnet.", _MASKED_LM),
    "electra": Architecture(
        electra.electra,
        bert.bert_positions,
        "electra.",
        (*_MASKED_LM, "discriminator_predictions.", "generator_predictions.", "generator_lm_head."),
    ),
    "albert": Architecture(
        albert.albert, bert.bert_positions, "albert.", (*_MASKED_LM, "predictions.", "sop_classifier.")
    ),
    "modernbert": Architecture(
        modernbert.modernbert, bert.bert_positions, "model.", (*_MASKED_LM, "head.", "decoder.")
    ),
}


def architecture(model_type: object) -> Architecture:
    """Row of `model_type`.

    Raises:
        UnsupportedCheckpointError: no builder; the message says which exist and what else can be done.
    """
    row = ARCHITECTURES.get(model_type) if isinstance(model_type, str) else None
    if row is None:
        raise UnsupportedCheckpointError(
            f"model_type {model_type!r} has no builder (there are: {', '.join(sorted(ARCHITECTURES))}); "
            "optimum can trace it: pip install 'fastembed-rt[optimum]' in an environment of its own and export again"
        )
    return row
