"""LFM2: gated convolutions over three tokens, with attention in a few layers; causal, or seeing both ways (LFM2.5).

Liquid AI 2025 (arXiv:2511.23404); tensor names as transformers writes them.
"""

from __future__ import annotations

from ..errors import CheckpointError, UnsupportedCheckpointError
from ..graph.graph import Value
from ..graph.layers import Angles, Attention, FeedForward, Heads, Projections
from ..graph.ops import Ops
from ..graph.weight import Norm, Weight
from ..tensors import Tensors
from .blocks import Config, flag, fused, linear, setting
from .decoder import Sizes, rms_norm
from .gated import Norms, final_norm, layer
from .layer_types import FULL
from .llama import is_causal
from .rotary import angles

THETA, EPSILON, KV_HEADS, TAPS = 1_000_000.0, 1e-5, 8, 3  # where config.json names none
CONVOLUTION = "conv"
BOTH_WAYS = "Lfm2Bidirectional"  # how classes of the second kind begin


def lfm2(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of Lfm2Model, whose convolutions see only what is before a token, whatever is_causal says."""
    return _encoder(ops, config, tensors, attention_causal=is_causal(config), convolution_causal=True)


def lfm2_bidirectional(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of Lfm2BidirectionalModel."""
    return _encoder(ops, config, tensors, attention_causal=False, convolution_causal=False)


def _encoder(ops: Ops, config: Config, tensors: Tensors, *, attention_causal: bool, convolution_causal: bool) -> Value:
    if ops.tokens.unseen:
        raise UnsupportedCheckpointError(
            "queries are filled up with tokens that no other sees, and transformers 5 has another convolution over "
            "those than version 4 and the checkpoints' own code: say attend_to_expansion_tokens true or "
            "do_query_expansion false in config_sentence_transformers.json, if the model was trained so"
        )
    sizes = Sizes.of({"num_key_value_heads": KV_HEADS, **config, "intermediate_size": _intermediate(config)})
    epsilon = setting(config, "norm_eps", float, EPSILON)
    kinds = _kinds(config, sizes.layers)
    with ops.scope("embeddings"):
        states = ops.embed(tensors.get("embed_tokens.weight", (setting(config, "vocab_size", int), sizes.hidden)))
    if FULL in kinds:
        turn, seen = angles(ops, config, sizes.head, THETA), ops.attention_bias(after=0 if attention_causal else None)
    for index, kind in enumerate(kinds):
        own = tensors.under(f"layers.{index}.")
        around, beside = (rms_norm(own, name, sizes.hidden, epsilon) for name in ("operator_norm", "ffn_norm"))
        feed_forward = _feed_forward(own, sizes)
        with ops.scope(f"layer.{index}"):
            if kind == FULL:
                states = layer(
                    ops,
                    states,
                    attention=_attention(own, sizes, epsilon, turn),
                    around=Norms(before=around),
                    bias=seen,
                    feed_forward=feed_forward,
                    beside=Norms(before=beside),
                    last=index == sizes.layers - 1,
                )
            else:
                with ops.scope("convolution"):
                    made = _convolution(ops, states, around, config, own, causal=convolution_causal)
                    states = ops.add(states, made)
                with ops.scope("feed_forward"):
                    states = ops.add(states, ops.feed_forward(states, feed_forward, before=beside))
    return final_norm(ops, states, rms_norm(tensors, "embedding_norm", sizes.hidden, epsilon))


def _convolution(ops: Ops, states: Value, norm: Norm, config: Config, own: Tensors, *, causal: bool) -> Value:
    """out(c * convolved(b * x)), of b, c and x of the normalized states; each channel by itself."""
    hidden, bias = norm.weight.shape[0], flag(config, "conv_bias", False)
    taps = setting(config, "conv_L_cache", int, TAPS)
    if taps < 1 or (taps % 2 == 0 and not causal):
        raise CheckpointError(
            f"config.json has conv_L_cache {taps}, expected a number of tokens, odd if they lie around"
        )
    b, c, x = ops.linears(ops.norm(states, norm), fused(own, "conv.in_proj", hidden, hidden, 3, bias=bias))
    given = ops.multiply(b, x)
    weight = own.get("conv.conv.weight", (hidden, 1, taps))
    ahead = 0 if causal else taps // 2
    total = None
    for tap in range(taps):
        before = taps - 1 - ahead - tap  # the token that this one is multiplied with
        part = ops.scaled(ops.shifted(given, before), _tap(weight, tap))
        total = part if total is None else ops.add(total, part)
    assert total is not None
    if bias:
        total = ops.offset(total, own.get("conv.conv.bias", (hidden,)))
    return ops.linear(ops.multiply(c, total), linear(own, "conv.out_proj", hidden, hidden, bias=bias))


def _tap(weight: Weight, tap: int) -> Weight:
    """(H, 1, taps) -> (H,): what one of them is multiplied with."""
    return weight.map(f".{tap}", lambda array: array[:, 0, tap], weight.shape[:1])


def _attention(own: Tensors, sizes: Sizes, epsilon: float, turn: Angles) -> Attention:
    wide, narrow = sizes.heads * sizes.head, sizes.kv_heads * sizes.head
    query, key = (rms_norm(own, f"self_attn.{part}_layernorm", sizes.head, epsilon) for part in "qk")
    return Attention(
        projections=Projections(
            query=linear(own, "self_attn.q_proj", sizes.hidden, wide, bias=False),
            key=linear(own, "self_attn.k_proj", sizes.hidden, narrow, bias=False),
            value=linear(own, "self_attn.v_proj", sizes.hidden, narrow, bias=False),
            output=linear(own, "self_attn.out_proj", wide, sizes.hidden, bias=False),
        ),
        heads=Heads(queries=sizes.heads, keys=sizes.kv_heads),
        angles=turn,
        query_norm=query,
        key_norm=key,
    )


def _feed_forward(own: Tensors, sizes: Sizes) -> FeedForward:
    return FeedForward(
        gate=linear(own, "feed_forward.w1", sizes.hidden, sizes.intermediate, bias=False),
        up=linear(own, "feed_forward.w3", sizes.hidden, sizes.intermediate, bias=False),
        down=linear(own, "feed_forward.w2", sizes.intermediate, sizes.hidden, bias=False),
        activation="silu",
    )


def _intermediate(config: Config) -> int:
    """Width of the feed-forward: two thirds of what config.json says, up to a multiple, unless it is told not to."""
    said = setting(config, "intermediate_size", int, 12288)
    width = setting(config, "block_ff_dim", int, said)
    if not flag(config, "block_auto_adjust_ff_dim", True):
        return width
    multiple = setting(config, "block_multiple_of", int, 256)
    if multiple < 1:
        raise CheckpointError(f"config.json has block_multiple_of {multiple}, expected a number of channels")
    width = int(setting(config, "block_ffn_dim_multiplier", float, 1.0) * int(2 * width / 3))
    return -(-width // multiple) * multiple


def _kinds(config: Config, layers: int) -> list[str]:
    """Type of each layer: config.json lists all of them, or the numbers of those with attention."""
    kinds = config.get("layer_types")
    if kinds is None:
        attending = config.get("full_attn_idxs")
        kinds = [FULL if attending is None or index in attending else CONVOLUTION for index in range(layers)]
    if not isinstance(kinds, list) or len(kinds) != layers or not all(kind in (FULL, CONVOLUTION) for kind in kinds):
        raise CheckpointError(
            f"config.json has layer_types {kinds!r}; expected {FULL!r} or {CONVOLUTION!r} for each of {layers} layers"
        )
    return kinds


def sees_both_ways(config: Config) -> bool:
    """Whether a config.json of model_type lfm2 names the class that does: it is code of the checkpoint's own there."""
    named = config.get("architectures")
    return isinstance(named, list) and any(str(name).startswith(BOTH_WAYS) for name in named)
