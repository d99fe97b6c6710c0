"""Qwen2 and Qwen3 as embedders: causal, grouped keys and values, rotary positions, SwiGLU; Qwen3 normalizes its heads.

Qwen Team 2024 (arXiv:2407.10671), Zhang et al. 2025 (arXiv:2506.05176); tensor names as transformers writes them.
"""

from __future__ import annotations

from ..errors import CheckpointError
from ..graph.graph import Value
from ..graph.layers import ScoreBias
from ..graph.ops import Ops
from ..tensors import Tensors
from .blocks import Config, flag, setting
from .decoder import Sizes, attention, feed_forward, rms_norm
from .gated import Norms, final_norm, layer
from .layer_types import FULL, SLIDING, layer_types
from .rotary import angles

HEAD = 128  # where config.json names none


def qwen2(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of Qwen2Model."""
    return _decoder(ops, config, tensors, Sizes.of(config), third=False)


def qwen3(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of Qwen3Model."""
    return _decoder(ops, config, tensors, Sizes.of({"head_dim": HEAD, **config}), third=True)


def _decoder(ops: Ops, config: Config, tensors: Tensors, sizes: Sizes, *, third: bool) -> Value:
    epsilon = setting(config, "rms_norm_eps", float, 1e-6)
    activation = setting(config, "hidden_act", str, "silu")
    bias = flag(config, "attention_bias", False) if third else True
    biases = _masks(ops, config, kinds := _kinds(config, sizes.layers))
    with ops.scope("embeddings"):
        states = ops.embed(tensors.get("embed_tokens.weight", (setting(config, "vocab_size", int), sizes.hidden)))
    turn = angles(ops, config, sizes.head, 10_000.0)
    for index, kind in enumerate(kinds):
        own = tensors.under(f"layers.{index}.")
        norms = [rms_norm(own, f"self_attn.{part}_norm", sizes.head, epsilon) if third else None for part in "qk"]
        with ops.scope(f"layer.{index}"):
            states = layer(
                ops,
                states,
                attention=attention(
                    own, sizes, turn, bias=bias, output_bias=bias and third, query_norm=norms[0], key_norm=norms[1]
                ),
                around=Norms(before=rms_norm(own, "input_layernorm", sizes.hidden, epsilon)),
                bias=biases[kind],
                feed_forward=feed_forward(own, sizes, activation),
                beside=Norms(before=rms_norm(own, "post_attention_layernorm", sizes.hidden, epsilon)),
                last=index == sizes.layers - 1,
            )
    return final_norm(ops, states, rms_norm(tensors, "norm", sizes.hidden, epsilon))


def _kinds(config: Config, layers: int) -> list[str]:
    """Type of each layer: all see the whole text unless a window is switched on, and then the first ones still do."""
    windows = flag(config, "use_sliding_window", False)
    whole = setting(config, "max_window_layers", int, 28) if windows else layers
    return layer_types(config, layers, lambda index: SLIDING if index >= whole else FULL)


def _masks(ops: Ops, config: Config, kinds: list[str]) -> dict[str, ScoreBias]:
    """What each type of layer lets a token see: those before it, and itself; or all, where the switch says so."""
    masks = {}
    causal = flag(config, "is_causal", True)  # False: transformers' switch for decoders trained to see all
    if FULL in kinds:
        masks[FULL] = ops.attention_bias(after=0) if causal else ops.attention_bias()
    if SLIDING in kinds:
        window = setting(config, "sliding_window", int)
        if window < 1:
            raise CheckpointError(f"config.json has sliding_window {window}, expected a number of tokens")
        # Itself included before a token; both ends included where windows reach to each side.
        before, after = (window - 1, 0) if causal else (window, window)
        masks[SLIDING] = ops.attention_bias(before=before, after=after)
    return masks
