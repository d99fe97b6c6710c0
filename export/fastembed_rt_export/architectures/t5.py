"""T5's encoder: pre-norm by root mean square, no biases, scores unscaled, one bucketed relative bias for all layers.

Raffel et al. 2019 (arXiv:1910.10683), as an embedder Ni et al. 2021 (arXiv:2108.08877); tensor names as transformers
writes them.
"""

from __future__ import annotations

import numpy as np

from ..errors import CheckpointError, UnsupportedCheckpointError
from ..graph.graph import Value
from ..graph.layers import Attention, FeedForward, Heads, Projections
from ..graph.ops import Ops
from ..graph.weight import Weight
from ..tensors import Tensors
from .blocks import Config, linear, refuse, refuse_causal, setting
from .decoder import Sizes, rms_norm
from .gated import Norms, final_norm, layer
from .mpnet import relative_bucket

NAMES = {
    "d_model": "hidden_size",
    "d_ff": "intermediate_size",
    "d_kv": "head_dim",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "n_positions": "max_position_embeddings",
}
WORDS = "shared.weight"
POSITIONS = 512  # where config.json names none; the last bucket goes on for ever
GATES = {"gated-gelu": "gelu_new", "gated-silu": "silu", "gated-relu": "relu"}


def t5(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of T5EncoderModel."""
    refuse_causal(config)
    sizes, epsilon = Sizes.of(config), setting(config, "layer_norm_epsilon", float, 1e-6)
    wide = sizes.heads * sizes.head
    with ops.scope("embeddings"):
        states = ops.embed(word_table(config, tensors, "encoder.embed_tokens.weight"))
    bias = ops.attention_bias(_by_distance(config, tensors, sizes.heads))
    for index in range(sizes.layers):
        own = tensors.under(f"encoder.block.{index}.")
        attention = own.under("layer.0.SelfAttention.")
        query, key, value = (linear(attention, name, sizes.hidden, wide, bias=False) for name in "qkv")
        output = linear(attention, "o", wide, sizes.hidden, bias=False)
        with ops.scope(f"layer.{index}"):
            states = layer(
                ops,
                states,
                attention=Attention(
                    projections=Projections(query, key, value, output), heads=Heads.of(sizes.heads), scale=1.0
                ),
                around=Norms(before=rms_norm(own, "layer.0.layer_norm", sizes.hidden, epsilon)),
                bias=bias,
                feed_forward=feed_forward(own.under("layer.1.DenseReluDense."), config, sizes),
                beside=Norms(before=rms_norm(own, "layer.1.layer_norm", sizes.hidden, epsilon)),
                last=index == sizes.layers - 1,
            )
    return final_norm(ops, states, rms_norm(tensors, "encoder.final_layer_norm", sizes.hidden, epsilon))


def read_mt5(given: Config) -> Config:
    """The settings of an mT5, which has gates where config.json names no kind (Xue et al. 2021, arXiv:2010.11934)."""
    return {"feed_forward_proj": "gated-gelu", **given}


def word_table(config: Config, tensors: Tensors, own: str) -> Weight:
    """The words (V, H) of encoder and decoder both, unless the checkpoint has a table of its `own` for the one."""
    name = own if tensors.has(own) else WORDS
    return tensors.get(name, (setting(config, "vocab_size", int), setting(config, "hidden_size", int)))


def t5_positions(config: Config) -> int:
    """Longest text in tokens."""
    return setting(config, "max_position_embeddings", int, POSITIONS)


def _by_distance(config: Config, tensors: Tensors, heads: int) -> Weight:
    """What is added to the scores, by distance: (2P - 1, N)."""
    rows = t5_positions(config)
    buckets = setting(config, "relative_attention_num_buckets", int, 32)
    furthest = setting(config, "relative_attention_max_distance", int, 128)
    # A quarter for near distances, a bucket each, and as many for those up to the furthest; the same to the other side.
    if not 1 <= buckets // 4 < furthest:
        raise CheckpointError(
            f"config.json has relative_attention_num_buckets {buckets} and relative_attention_max_distance {furthest}; "
            "expected at least 4 buckets, and a distance beyond a quarter of them"
        )
    table = tensors.get("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight", (buckets, heads))
    bucket = relative_bucket(np.arange(-(rows - 1), rows), buckets, furthest)
    return table.map(".by_distance", lambda array: array[bucket], (2 * rows - 1, heads))


def feed_forward(own: Tensors, config: Config, sizes: Sizes) -> FeedForward:
    """relu in the first version, a gate in later ones; dense_act_fn may name another activation."""
    kind = setting(config, "feed_forward_proj", str, "relu")
    if kind != "relu" and kind not in GATES:
        raise UnsupportedCheckpointError(
            f"config.json has feed_forward_proj {kind!r}; this builder knows relu, {', '.join(GATES)} only"
        )
    refuse(config, "is_gated_act", kind in GATES)
    activation = setting(config, "dense_act_fn", str, GATES.get(kind, kind))
    down = linear(own, "wo", sizes.intermediate, sizes.hidden, bias=False)
    if kind == "relu":
        return FeedForward(linear(own, "wi", sizes.hidden, sizes.intermediate, bias=False), down, activation)
    gate, up = (linear(own, name, sizes.hidden, sizes.intermediate, bias=False) for name in ("wi_0", "wi_1"))
    return FeedForward(up, down, activation, gate=gate)
