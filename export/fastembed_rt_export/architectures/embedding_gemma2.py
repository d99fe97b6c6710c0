"""EmbeddingGemma 2's text model: sees both ways, windows in five layers of six, a signal of the words in each layer.

As transformers 5.24 has it, under its tensor names. Against Gemma 3: heads of another width where a layer sees the
whole text, values normalized, a third part of each layer gated by a projection of the embeddings, a last linear layer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import CheckpointError
from ..graph.graph import Value
from ..graph.layers import Angles
from ..graph.ops import Ops
from ..graph.weight import Array, Linear, Norm, Weight
from ..tensors import Tensors
from .blocks import Config, flag, linear, refuse_causal, setting
from .decoder import Biases, Sizes, attention, feed_forward, rms_norm
from .gated import Norms, final_norm, layer
from .layer_types import FULL, SLIDING, layer_types
from .rotary import angles

MODEL_TYPE = "embedding_gemma2_text"
THETA = {FULL: 1_000_000.0, SLIDING: 10_000.0}  # where config.json names none
DEFAULTS = {"head_dim": 256, "num_key_value_heads": 2}  # likewise
POSITIONS = 8192  # rows of the rotary tables, of 3 kB; config.json allows 262,144, which would be 800 MB
INNER = "hidden_size_of_layers"
# Tokens for an image, a film and a sound, where a config.json of the whole model names none.
PLACEHOLDERS = {"image_token_id": 258_880, "video_token_id": 258_884, "audio_token_id": 258_881}
BESIDE = ("vision_tower.", "audio_tower.", "embed_vision.", "embed_audio.")


def read_config(given: Config) -> Config:
    """The text model's settings; hidden_size is that of the states which leave it.

    Raises:
        CheckpointError: text_config that is no object.
    """
    inner: Any = given.get("text_config", given)
    if not isinstance(inner, Mapping):
        raise CheckpointError(f"config.json has text_config {inner!r}, expected an object")
    beside = {key: given.get(key, default) for key, default in PLACEHOLDERS.items()} if inner is not given else {}
    hidden, width = setting(inner, "hidden_size", int, 512), setting(inner, "embedding_dim", int, 768)
    if min(hidden, width) < 1:
        raise CheckpointError(f"config.json has hidden_size {hidden} and embedding_dim {width}, expected channels")
    sizes = {INNER: hidden, "hidden_size": width, "max_position_embeddings": positions(inner)}
    # transformers reads bases and shares of channels inside rope_parameters alone, and takes rope_scaling for those.
    found = {key: value for key, value in inner.items() if key not in ("rope_theta", "partial_rotary_factor")}
    if (turns := found.pop("rope_scaling", None)) is not None:
        found["rope_parameters"] = turns
    return {**found, **beside, **sizes, "model_type": MODEL_TYPE}


def positions(config: Config) -> int:
    """Longest text in tokens."""
    return min(setting(config, "max_position_embeddings", int, POSITIONS), POSITIONS)


def embedding_gemma2(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of EmbeddingGemma2TextModel."""
    refuse_causal(config)
    width = config["hidden_size"]
    config = {**DEFAULTS, **config, "hidden_size": config[INNER]}
    sizes = Sizes.of(config)
    hidden, epsilon = sizes.hidden, setting(config, "rms_norm_eps", float, 1e-6)
    activation = setting(config, "hidden_activation", str, "gelu_pytorch_tanh")
    signal = setting(config, "hidden_size_per_layer_input", int, 512)
    bias = flag(config, "attention_bias", False)
    every = setting(config, "sliding_window_pattern", int, 6)
    kinds = layer_types(config, sizes.layers, lambda index: SLIDING if (index + 1) % every else FULL)
    kinds = [*kinds[:-1], FULL]  # whatever config.json says of the last one
    if (reach := setting(config, "sliding_window", int, 512)) < 0:
        raise CheckpointError(f"config.json has sliding_window {reach}, expected a number of tokens")
    seen = {FULL: ops.attention_bias(), SLIDING: ops.attention_bias(before=reach, after=reach)}
    turns: dict[tuple[str, int], Angles] = {}

    def norm(tensors: Tensors, name: str, width: int = hidden) -> Norm:
        return rms_norm(tensors, name, width, epsilon)

    with ops.scope("embeddings"):
        words = _words(config, tensors.get("embed_tokens.weight", (setting(config, "vocab_size", int), hidden)))
        states = embedded = ops.embed(words.scaled(math.sqrt(hidden)))
    one = None
    signals = linear(tensors, "ple.per_layer_model_projection", hidden, sizes.layers * signal, bias=False)
    for index, kind in enumerate(kinds):
        own, last = tensors.under(f"layers.{index}."), index == sizes.layers - 1
        mine = Sizes.of({**config, **_of_layer(config, index, kind)})
        if (kind, mine.head) not in turns:
            turns[kind, mine.head] = angles(ops, config, mine.head, THETA[kind], kind)
        heads = attention(
            own,
            mine,
            turns[kind, mine.head],
            Biases(inputs=bias, output=bias),
            scale=1.0,
            query_norm=norm(own, "self_attn.q_norm", mine.head),
            key_norm=norm(own, "self_attn.k_norm", mine.head),
            value_norm=Norm(_ones(mine.head), None, epsilon, rms=True),
        )
        with ops.scope(f"layer.{index}"):
            states = layer(
                ops,
                states,
                attention=heads,
                around=Norms(before=norm(own, "input_layernorm"), inside=norm(own, "post_attention_layernorm")),
                bias=seen[kind],
                feed_forward=feed_forward(own, mine, activation),
                beside=Norms(
                    before=norm(own, "pre_feedforward_layernorm"), inside=norm(own, "post_feedforward_layernorm")
                ),
                last=last,
            )
            if last:
                one = ops.only_one(embedded, heads, seen[kind])
            with ops.scope("per_layer"):
                projection = Linear(signals.weight.rows(index * signal, (index + 1) * signal))
                made = ops.linear(embedded if one is None else one, projection.scaled(hidden**-0.5))
                made = ops.norm(made, norm(tensors, "ple.per_layer_projection_norm", signal))
                gate = linear(own, "ple_block.per_layer_input_gate", hidden, signal, bias=False)
                made = ops.multiply(ops.activated(states, gate, activation), made)
                made = ops.linear(made, linear(own, "ple_block.per_layer_projection", signal, hidden, bias=False))
                made = ops.norm(made, norm(own, "ple_block.post_per_layer_input_norm"))
                states = ops.scaled(ops.add(states, made), own.get("layer_scalar", (1,)))
    states = final_norm(ops, states if one is None else ops.mark_one(states), norm(tensors, "norm"))
    with ops.scope("projection"):
        states = ops.linear(states, linear(tensors, "embedding_projection", hidden, width, bias=False))
    return states if one is None else ops.mark_one(states)


def _of_layer(config: Config, index: int, kind: str) -> Mapping[str, Any]:
    """What config.json says of one layer against the others."""
    said = config.get("per_layer_config")
    if said is None:
        if kind != FULL:
            return {}
        return {
            "head_dim": setting(config, "global_head_dim", int, 512),
            "num_key_value_heads": setting(config, "num_global_key_value_heads", int, 1),
        }
    own = said.get(str(index), {}) if isinstance(said, Mapping) else None
    if not isinstance(own, Mapping):
        raise CheckpointError(f"config.json has per_layer_config {said!r}, expected settings by a layer's number")
    return own


def _words(config: Config, table: Weight) -> Weight:
    """The table of words, in which what stands for an image, a film or a sound is the pad token."""
    pad, rows = setting(config, "pad_token_id", int, 0), table.shape[0]
    named = [setting(config, key, int) for key in PLACEHOLDERS if config.get(key) is not None]
    held = [row for row in named if 0 <= row < rows]
    if not held:
        return table

    def padded(array: Array) -> Array:
        array = array.copy()
        array[held] = array[pad]
        return array

    return table.map("+placeholders", padded)


def _ones(width: int) -> Weight:
    return Weight(f"ones.{width}", (width,), lambda: np.ones(width, np.float32))
