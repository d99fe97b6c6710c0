"""BERT, and RoBERTa with its descendants (XLM-RoBERTa, CamemBERT), which number their positions after the pad id.

Devlin et al. 2018 (arXiv:1810.04805), Liu et al. 2019 (arXiv:1907.11692); tensor names as transformers writes them.
"""

from __future__ import annotations

from ..errors import CheckpointError
from ..graph.graph import Value
from ..graph.ops import Ops
from ..graph.weight import Weight
from ..tensors import Tensors
from .blocks import Config, LayerNames, Shape, flag, layer_norm, post_norm_layers, refuse, refuse_causal, setting
from .renamed import Renames

LAYER = LayerNames(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    feed_forward_norm="output.LayerNorm",
)
# As flash attention's BERT calls the same.
FLASH = Renames(
    names=(
        (r"\bencoder\.layers\.", "encoder.layer."),
        (r"\bemb_ln\.", "embeddings.LayerNorm."),
        (r"\bnorm1\.", f"{LAYER.attention_norm}."),
        (r"\bnorm2\.", f"{LAYER.feed_forward_norm}."),
        (r"\bmixer\.out_proj\.", f"{LAYER.output}."),
        (r"\bmlp\.fc1\.", f"{LAYER.up}."),
        (r"\bmlp\.fc2\.", f"{LAYER.down}."),
    ),
    fused={"mixer.Wqkv": (LAYER.query, LAYER.key, LAYER.value)},
)


def bert(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of BertModel."""
    return _encoder(ops, config, tensors, after_pad=False)


def ernie(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of ErnieModel: BERT whose positions may be told a task; sentence embeddings have the first."""
    if not flag(config, "use_task_id", False):
        return bert(ops, config, tensors)
    count = setting(config, "task_type_vocab_size", int, 3)
    tasks = tensors.get("embeddings.task_type_embeddings.weight", (count, setting(config, "hidden_size", int)))
    return _encoder(ops, config, tensors, after_pad=False, task=tasks)


def roberta(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of RobertaModel, XLMRobertaModel, CamembertModel."""
    return _encoder(ops, config, tensors, after_pad=True)


def bert_positions(config: Config) -> int:
    """Longest text in tokens."""
    return setting(config, "max_position_embeddings", int)


def roberta_positions(config: Config) -> int:
    """Longest text in tokens: the rows up to the pad id are not positions."""
    return setting(config, "max_position_embeddings", int) - setting(config, "pad_token_id", int, 1) - 1


def refuse_other_attention(config: Config) -> None:
    """Raise UnsupportedCheckpointError where attention is not that of an encoder with absolute positions."""
    refuse(config, "position_embedding_type", "absolute")
    refuse(config, "is_decoder", False)
    refuse(config, "add_cross_attention", False)
    refuse_causal(config)


def embedded(
    ops: Ops,
    config: Config,
    tensors: Tensors,
    width: int,
    epsilon: float,
    *,
    after_pad: bool = False,
    task: Weight | None = None,
) -> Value:
    """Words, positions and token types of `width` channels, normalized.

    `after_pad`: positions as RoBERTa has them; `task`: a table whose first row every position gets.
    """
    embeddings = tensors.under("embeddings.")
    with ops.scope("embeddings"):
        words = embeddings.get("word_embeddings.weight", (setting(config, "vocab_size", int), width))
        rows = setting(config, "max_position_embeddings", int)
        positions = embeddings.get("position_embeddings.weight", (rows, width))
        if (count := setting(config, "type_vocab_size", int, 2)) < 1:
            raise CheckpointError(f"config.json has type_vocab_size {count}; expected one type at least")
        types = embeddings.get("token_type_embeddings.weight", (count, width))
        # A text alone is all of type 0: its row joins every position.
        table = ops.fold_token_type(positions, types)
        if task is not None:
            table = table.map("+task", lambda array: array + task.load()[0])
        states = ops.add_token_types(ops.embed(words), types)
        if after_pad:
            states = ops.add_positions_after_pad(states, table, setting(config, "pad_token_id", int, 1))
        else:
            states = ops.add_positions(states, table)
        return ops.norm(states, layer_norm(embeddings, "LayerNorm", width, epsilon))


def words_and_types(ops: Ops, config: Config, embeddings: Tensors, width: int, types: int = 2) -> Value:
    """Words and token types of `width` channels, where positions come later; `types` where config.json is silent."""
    words = embeddings.get("word_embeddings.weight", (setting(config, "vocab_size", int), width))
    if (count := setting(config, "type_vocab_size", int, types)) == 0:
        return ops.embed(words)
    table = embeddings.get("token_type_embeddings.weight", (count, width))
    return ops.add_token_types(ops.embed(ops.fold_token_type(words, table)), table)


def _encoder(ops: Ops, config: Config, tensors: Tensors, *, after_pad: bool, task: Weight | None = None) -> Value:
    refuse_other_attention(config)
    shape = Shape.of(config)
    states = embedded(ops, config, tensors, shape.hidden, shape.epsilon, after_pad=after_pad, task=task)
    return post_norm_layers(
        ops, tensors, states, prefix="encoder.layer.{}.", names=LAYER, shape=shape, bias=ops.attention_bias()
    )
