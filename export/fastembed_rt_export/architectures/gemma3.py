"""EmbeddingGemma: Gemma 3 that sees both ways, windows in five layers of six, four norms a layer.

Vera et al. 2025 (arXiv:2509.20354), Gemma Team 2025 (arXiv:2503.19786); tensor names as transformers writes them.
"""

from __future__ import annotations

import math

from ..errors import CheckpointError
from ..graph.graph import Value
from ..graph.layers import ScoreBias
from ..graph.ops import Ops
from ..graph.weight import Norm
from ..tensors import Tensors
from .blocks import Config, flag, refuse, setting
from .decoder import Biases, Sizes, attention, feed_forward, rms_norm
from .gated import Norms, final_norm, layer
from .layer_types import FULL, SLIDING, layer_types
from .llama import is_causal
from .rotary import angles

THETA = {FULL: 1_000_000.0, SLIDING: 10_000.0}  # where config.json names none
THETA_KEYS = {FULL: "rope_theta", SLIDING: "rope_local_base_freq"}  # before transformers 5
DEFAULTS = {"head_dim": 256, "num_key_value_heads": 4}


def gemma3(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of Gemma3TextModel."""
    refuse(config, "attn_logit_softcapping", None)
    sizes = Sizes.of({**DEFAULTS, **config})
    epsilon = setting(config, "rms_norm_eps", float, 1e-6)
    activation = setting(config, "hidden_activation", str, "gelu_pytorch_tanh")
    bias = flag(config, "attention_bias", False)
    scale = setting(config, "query_pre_attn_scalar", float, 256.0) ** -0.5
    every = setting(config, "_sliding_window_pattern", int, setting(config, "sliding_window_pattern", int, 6))
    kinds = layer_types(config, sizes.layers, lambda index: SLIDING if (index + 1) % every else FULL)

    def norm(tensors: Tensors, name: str, width: int = sizes.hidden) -> Norm:
        return rms_norm(tensors, name, width, epsilon, centred=True)

    with ops.scope("embeddings"):
        words = tensors.get("embed_tokens.weight", (setting(config, "vocab_size", int), sizes.hidden))
        states = ops.embed(words.scaled(math.sqrt(sizes.hidden)))
    turns, masks = {}, {}
    for kind in dict.fromkeys(kinds):
        # rope_scaling is not for windows.
        turns[kind] = angles(
            ops, config, sizes.head, THETA[kind], kind, theta_key=THETA_KEYS[kind], scaled=kind == FULL
        )
        masks[kind] = _mask(ops, config, kind)
    for index, kind in enumerate(kinds):
        own = tensors.under(f"layers.{index}.")
        heads = [norm(own, f"self_attn.{part}_norm", sizes.head) for part in "qk"]
        with ops.scope(f"layer.{index}"):
            states = layer(
                ops,
                states,
                attention=attention(
                    own,
                    sizes,
                    turns[kind],
                    Biases(inputs=bias, output=bias),
                    scale=scale,
                    query_norm=heads[0],
                    key_norm=heads[1],
                ),
                around=Norms(before=norm(own, "input_layernorm"), inside=norm(own, "post_attention_layernorm")),
                bias=masks[kind],
                feed_forward=feed_forward(own, sizes, activation),
                beside=Norms(
                    before=norm(own, "pre_feedforward_layernorm"), inside=norm(own, "post_feedforward_layernorm")
                ),
                last=index == sizes.layers - 1,
            )
    return final_norm(ops, states, norm(tensors, "norm"))


def _mask(ops: Ops, config: Config, kind: str) -> ScoreBias:
    """What a layer lets a token see: half a window to each side, or a whole one before it where it sees no further."""
    both, causal = flag(config, "use_bidirectional_attention", False), is_causal(config)
    if kind == FULL:
        return ops.attention_bias() if both or not causal else ops.attention_bias(after=0)
    window = setting(config, "sliding_window", int, 4096)
    if window < 1:
        raise CheckpointError(f"config.json has sliding_window {window}, expected a number of tokens")
    if not causal:
        # A whole window to each side, both ends included, of which use_bidirectional_attention leaves one over a half.
        reach = window // 2 + 1 if both else window
        return ops.attention_bias(before=reach, after=reach)
    if both:
        return ops.attention_bias(before=window // 2, after=window // 2)
    return ops.attention_bias(before=window - 1, after=0)  # itself included
