"""CLIP's text model: pre-norm, learned positions, a token sees those before it, and the end of text is pooled.

Radford et al. 2021 (arXiv:2103.00020); tensor names as transformers writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import CheckpointError
from ..graph.graph import FLOAT, Graph, Value
from ..graph.layers import Attention, FeedForward, Heads, Projections
from ..graph.ops import Ops
from ..tensors import Tensors
from .blocks import Config, Shape, layer_norm, linear, refuse, setting
from .gated import Norms, final_norm, layer

WHOLE, MODEL_TYPE = "clip", "clip_text_model"
PROJECTED = "CLIPTextModelWithProjection"  # transformers' class of a text model with
PROJECTION = "text_projection.weight"  # beside the text model, behind the pooling
BESIDE = ("text_projection.", "vision_model.", "visual_projection.", "logit_scale", "embeddings.position_ids")
# What transformers takes where config.json is silent.
DEFAULTS: Mapping[str, Any] = {
    "vocab_size": 49_408,
    "hidden_size": 512,
    "intermediate_size": 2048,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "max_position_embeddings": 77,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "pad_token_id": 1,
    "eos_token_id": 49_407,
}
NO_END = 2  # eos_token_id of the first checkpoints, whose end of text is another: the token with the highest id


def has_features(given: Config) -> bool:
    """Whether it is of a whole CLIP, or of a text model that was saved with the layer behind its pooling."""
    return given.get("model_type") == WHOLE or given.get("architectures") == [PROJECTED]


def read_config(given: Config) -> Config:
    """The text model's settings; the width of vectors is that which the whole model says.

    Raises:
        CheckpointError: text_config that is no object.
    """
    whole = given.get("model_type") != MODEL_TYPE
    inner: Any = (given.get("text_config") or {}) if whole else given
    again: Any = given.get("text_config_dict") if whole else None
    if not isinstance(inner, Mapping) or not isinstance(again, Mapping | None):
        raise CheckpointError(f"config.json has text_config {inner!r} and text_config_dict {again!r}, expected objects")
    # An older name, all of whose settings count more, those that it does not say included.
    found = {**DEFAULTS, **inner} if again is None else {**inner, **DEFAULTS, **again}
    if whole:
        found["projection_dim"] = given.get("projection_dim", DEFAULTS["projection_dim"])
    return {**found, "model_type": MODEL_TYPE}


def clip_text(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of CLIPTextModel."""
    refuse(config, "is_causal", True)
    shape = Shape.of({**DEFAULTS, **config})
    width = shape.hidden
    embeddings = tensors.under("embeddings.")
    with ops.scope("embeddings"):
        words = embeddings.get("token_embedding.weight", (setting(config, "vocab_size", int), width))
        rows = setting(config, "max_position_embeddings", int)
        states = ops.add_positions(ops.embed(words), embeddings.get("position_embedding.weight", (rows, width)))
    bias = ops.attention_bias(after=0)
    for index in range(shape.layers):
        own = tensors.under(f"encoder.layers.{index}.")
        query, key, value, output = (
            linear(own, f"self_attn.{name}_proj", width, width) for name in ("q", "k", "v", "out")
        )
        up = linear(own, "mlp.fc1", width, shape.intermediate)
        down = linear(own, "mlp.fc2", shape.intermediate, width)
        with ops.scope(f"layer.{index}"):
            states = layer(
                ops,
                states,
                attention=Attention(projections=Projections(query, key, value, output), heads=Heads.of(shape.heads)),
                around=Norms(before=layer_norm(own, "layer_norm1", width, shape.epsilon)),
                bias=bias,
                feed_forward=FeedForward(up, down, shape.activation),
                beside=Norms(before=layer_norm(own, "layer_norm2", width, shape.epsilon)),
                last=index == shape.layers - 1,
            )
    return final_norm(ops, states, layer_norm(tensors, "final_layer_norm", width, shape.epsilon))


def ends(graph: Graph, config: Config, input_ids: Value) -> Value:
    """Highest, of a text's tokens, at the one whose state is its vector, and behind that: float32, as `input_ids`.

    The end of text. Where config.json has NO_END for it, the token with the highest id, as transformers has it.
    """
    end = setting(config, "eos_token_id", int)
    if end != NO_END:
        input_ids = graph.node("Equal", input_ids, graph.constant(end), name="is_end")
    return graph.node("Cast", input_ids, to=FLOAT, name="end")
