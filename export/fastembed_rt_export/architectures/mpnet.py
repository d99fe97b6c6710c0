"""MPNet: BERT layers, and one bucketed relative position bias for all of them (Song et al. 2020, arXiv:2004.09297)."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ..errors import CheckpointError
from ..graph.graph import Value
from ..graph.ops import Ops
from ..tensors import Tensors
from .blocks import Config, LayerNames, Shape, layer_norm, post_norm_layers, setting

LAYER = LayerNames(
    query="attention.attn.q",
    key="attention.attn.k",
    value="attention.attn.v",
    output="attention.attn.o",
    attention_norm="attention.LayerNorm",
    up="intermediate.dense",
    down="output.dense",
    feed_forward_norm="output.LayerNorm",
)
PAD = 1  # fixed in transformers' MPNetEmbeddings
BUCKETS, MAX_DISTANCE = 32, 128  # transformers calls the bucket function with its defaults


def mpnet(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of MPNetModel."""
    shape = Shape.of(config)
    embeddings = tensors.under("embeddings.")
    rows = setting(config, "max_position_embeddings", int)
    with ops.scope("embeddings"):
        words = embeddings.get("word_embeddings.weight", (setting(config, "vocab_size", int), shape.hidden))
        positions = embeddings.get("position_embeddings.weight", (rows, shape.hidden))
        states = ops.add_positions_after_pad(ops.embed(words), positions, PAD)
        states = ops.norm(states, layer_norm(embeddings, "LayerNorm", shape.hidden, shape.epsilon))
    buckets = setting(config, "relative_attention_num_buckets", int, BUCKETS)
    table = tensors.get("encoder.relative_attention_bias.weight", (buckets, shape.heads))
    bucket = relative_bucket(np.arange(-(rows - 1), rows))
    if buckets <= (most := int(bucket.max())):
        raise CheckpointError(
            f"config.json has relative_attention_num_buckets = {buckets}; texts of {rows} tokens need {most + 1}"
        )
    by_distance = table.map(".by_distance", lambda array: array[bucket], (2 * rows - 1, shape.heads))
    bias = ops.attention_bias(by_distance)
    return post_norm_layers(ops, tensors, states, prefix="encoder.layer.{}.", names=LAYER, shape=shape, bias=bias)


def mpnet_positions(config: Config) -> int:
    """Longest text in tokens: the rows up to the pad id are not positions."""
    return setting(config, "max_position_embeddings", int) - PAD - 1


def relative_bucket(
    distance: npt.NDArray[np.int64], buckets: int = BUCKETS, furthest: int = MAX_DISTANCE
) -> npt.NDArray[np.int64]:
    """Bucket of key position - query position: exact near by, logarithmic up to `furthest` (T5, arXiv:1910.10683)."""
    half = buckets // 2
    exact = half // 2
    far = np.abs(distance)
    # float32 as in transformers, so that a distance on a bucket's edge falls on the same side.
    ratio = np.log(np.maximum(far, 1).astype(np.float32) / np.float32(exact)) / np.float32(math.log(furthest / exact))
    logarithmic = np.minimum(exact + (ratio * np.float32(half - exact)).astype(np.int64), half - 1)
    return np.where(distance > 0, half, 0) + np.where(far < exact, far, logarithmic)
