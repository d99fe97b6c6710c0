"""Gemma 1 and 2 as embedders: Llama whose words are scaled, whose norms are stored as differences from 1.

Gemma 2 has four norms a layer, windows in every second one, and scores within a cap. Gemma Team 2024 (arXiv:2403.08295,
arXiv:2408.00118); tensor names as transformers writes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from ..errors import CheckpointError
from ..graph.graph import Value
from ..graph.layers import ScoreBias
from ..graph.ops import Ops
from ..tensors import Tensors
from .blocks import Config, flag, refuse, setting
from .decoder import Biases, Sizes, attention, feed_forward, rms_norm
from .gated import Norms, final_norm, layer
from .layer_types import FULL, SLIDING, layer_types
from .llama import THETA, is_causal, window
from .rotary import angles

HEAD = 256  # where config.json names none
KV_HEADS, GEMMA2_KV_HEADS = 16, 4  # likewise
WINDOW, CAP = 4096, 50.0
NORMS = (
    ("input_layernorm", "post_attention_layernorm"),
    ("pre_feedforward_layernorm", "post_feedforward_layernorm"),
)  # of Gemma 2


def gemma(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of GemmaModel."""
    sizes = Sizes.of({"head_dim": HEAD, "num_key_value_heads": KV_HEADS, **config})
    seen = {FULL: ops.attention_bias(after=0 if _causal(config) else None)}
    activation = setting(config, "hidden_act", str, "gelu_pytorch_tanh")
    # The first checkpoints said gelu and were trained with this.
    activation = "gelu_pytorch_tanh" if activation == "gelu" else activation
    return _stack(ops, config, tensors, sizes, seen=seen, kinds=[FULL] * sizes.layers, activation=activation)


def gemma2(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of Gemma2Model."""
    sizes = Sizes.of({"head_dim": HEAD, "num_key_value_heads": GEMMA2_KV_HEADS, **config})
    kinds = layer_types(config, sizes.layers, lambda index: FULL if index % 2 else SLIDING)
    return _stack(
        ops,
        config,
        tensors,
        sizes,
        seen=_capped(ops, config, kinds),
        kinds=kinds,
        activation=setting(config, "hidden_activation", str, "gelu_pytorch_tanh"),
        scale=setting(config, "query_pre_attn_scalar", float, 256.0) ** -0.5,
        norms=NORMS,
    )


def _stack(
    ops: Ops,
    config: Config,
    tensors: Tensors,
    sizes: Sizes,
    *,
    seen: Mapping[str, ScoreBias],
    kinds: Sequence[str],
    activation: str,
    scale: float | None = None,
    norms: Sequence[Sequence[str]] = (("input_layernorm",), ("post_attention_layernorm",)),
) -> Value:
    """The embeddings, the layers and the last norm; `norms`: of what a layer's parts read, and of what they give."""
    bias, epsilon = flag(config, "attention_bias", False), setting(config, "rms_norm_eps", float, 1e-6)

    def norms_of(own: Tensors, names: Sequence[str]) -> Norms:
        return Norms(*(rms_norm(own, name, sizes.hidden, epsilon, centred=True) for name in names))

    with ops.scope("embeddings"):
        words = tensors.get("embed_tokens.weight", (setting(config, "vocab_size", int), sizes.hidden))
        states = ops.embed(words.scaled(math.sqrt(sizes.hidden)))
    turn = angles(ops, config, sizes.head, THETA)
    for index, kind in enumerate(kinds):
        own = tensors.under(f"layers.{index}.")
        with ops.scope(f"layer.{index}"):
            states = layer(
                ops,
                states,
                attention=attention(own, sizes, turn, Biases(inputs=bias, output=bias), scale=scale),
                around=norms_of(own, norms[0]),
                bias=seen[kind],
                feed_forward=feed_forward(own, sizes, activation),
                beside=norms_of(own, norms[1]),
                last=index == sizes.layers - 1,
            )
    return final_norm(ops, states, rms_norm(tensors, "norm", sizes.hidden, epsilon, centred=True))


def _capped(ops: Ops, config: Config, kinds: Sequence[str]) -> dict[str, ScoreBias]:
    """What each type of layer lets a token see, and the cap of its scores, which null switches off."""
    cap = None
    if config.get("attn_logit_softcapping", CAP) is not None:
        cap = setting(config, "attn_logit_softcapping", float, CAP)
        if cap <= 0:
            raise CheckpointError(f"config.json has attn_logit_softcapping {cap}, expected a number above 0")
    seen, causal = {}, _causal(config)
    if FULL in kinds:
        seen[FULL] = ops.attention_bias(after=0 if causal else None, cap=cap)
    if SLIDING in kinds:
        seen[SLIDING] = window(ops, config, causal=causal, default=WINDOW, cap=cap)
    return seen


def _causal(config: Config) -> bool:
    """As `is_causal`; of the other switch transformers makes no mask, so that vectors depend on it by padding alone."""
    refuse(config, "use_bidirectional_attention", False)
    return is_causal(config)
