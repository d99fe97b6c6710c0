"""ModernBERT: pre-norm, rotary positions, GeGLU, and windows of attention in two layers of three.

Warner et al. 2024 (arXiv:2412.13663); tensor names as transformers writes them.
"""

from __future__ import annotations

from ..errors import CheckpointError
from ..graph.graph import Value
from ..graph.layers import Attention, FeedForward, Heads, Projections
from ..graph.ops import Ops
from ..graph.weight import Norm
from ..tensors import Tensors
from .blocks import Config, Shape, flag, fused, layer_norm, linear, refuse_causal, setting
from .gated import Norms, final_norm, layer
from .layer_types import FULL, SLIDING, layer_types
from .rotary import angles

THETA = {FULL: 160_000.0, SLIDING: 10_000.0}  # where config.json names none
THETA_KEYS = {FULL: "global_rope_theta", SLIDING: "local_rope_theta"}  # before transformers 5


def modernbert(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of ModernBertModel."""
    refuse_causal(config)
    shape = Shape(
        hidden=setting(config, "hidden_size", int),
        intermediate=setting(config, "intermediate_size", int),
        layers=setting(config, "num_hidden_layers", int),
        heads=setting(config, "num_attention_heads", int),
        activation=setting(config, "hidden_activation", str, "gelu"),
        epsilon=setting(config, "norm_eps", float, 1e-5),
    )
    width = shape.hidden
    norm_bias, attention_bias, mlp_bias = (
        flag(config, key, False) for key in ("norm_bias", "attention_bias", "mlp_bias")
    )

    def norm(tensors: Tensors, name: str) -> Norm:
        return layer_norm(tensors, name, width, shape.epsilon, bias=norm_bias)

    window = setting(config, "local_attention", int, 128)
    reach = setting(config, "sliding_window", int, window // 2)  # to each side; the latter is a window's half
    if window < 1 or reach < 0:
        raise CheckpointError(f"config.json has local_attention {window}, expected a number of tokens")
    every = setting(config, "global_attn_every_n_layers", int, 3)
    kinds = layer_types(config, shape.layers, lambda index: SLIDING if index % every else FULL)
    with ops.scope("embeddings"):
        words = tensors.get("embeddings.tok_embeddings.weight", (setting(config, "vocab_size", int), width))
        states = ops.norm(ops.embed(words), norm(tensors, "embeddings.norm"))
    turns, biases = {}, {}
    for kind in dict.fromkeys(kinds):
        turns[kind] = angles(ops, config, width // shape.heads, THETA[kind], kind, theta_key=THETA_KEYS[kind])
        near = reach if kind == SLIDING else None
        biases[kind] = ops.attention_bias(before=near, after=near)
    for index, kind in enumerate(kinds):
        own = tensors.under(f"layers.{index}.")
        query, key, value = fused(own, "attn.Wqkv", width, width, 3, bias=attention_bias)
        output = linear(own, "attn.Wo", width, width, bias=attention_bias)
        gate, up = fused(own, "mlp.Wi", width, shape.intermediate, 2, bias=mlp_bias)
        down = linear(own, "mlp.Wo", shape.intermediate, width, bias=mlp_bias)
        with ops.scope(f"layer.{index}"):
            states = layer(
                ops,
                states,
                attention=Attention(
                    projections=Projections(query, key, value, output),
                    heads=Heads.of(shape.heads),
                    angles=turns[kind],
                ),
                around=Norms(before=norm(own, "attn_norm") if index else None),  # the embeddings are normalized already
                bias=biases[kind],
                feed_forward=FeedForward(up, down, shape.activation, gate=gate),
                beside=Norms(before=norm(own, "mlp_norm")),
                last=index == shape.layers - 1,
            )
    return final_norm(ops, states, norm(tensors, "final_norm"))
