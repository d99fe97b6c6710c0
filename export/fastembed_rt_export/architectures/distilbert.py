"""DistilBERT: BERT without token types, under names of its own (Sanh et al. 2019, arXiv:1910.01108)."""

from __future__ import annotations

from ..graph.graph import Value
from ..graph.ops import Ops
from ..tensors import Tensors
from .blocks import Config, LayerNames, Shape, layer_norm, post_norm_layers, refuse_causal, setting

LAYER = LayerNames(
    query="attention.q_lin",
    key="attention.k_lin",
    value="attention.v_lin",
    output="attention.out_lin",
    attention_norm="sa_layer_norm",
    up="ffn.lin1",
    down="ffn.lin2",
    feed_forward_norm="output_layer_norm",
)
NAMES = {"dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads"}
EPSILON = 1e-12  # fixed in transformers' modeling_distilbert, not in the config


def distilbert(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of DistilBertModel."""
    refuse_causal(config)
    shape = Shape(
        hidden=setting(config, "hidden_size", int),
        intermediate=setting(config, "hidden_dim", int),
        layers=setting(config, "num_hidden_layers", int),
        heads=setting(config, "num_attention_heads", int),
        activation=setting(config, "activation", str, "gelu"),
        epsilon=EPSILON,
    )
    embeddings = tensors.under("embeddings.")
    with ops.scope("embeddings"):
        words = embeddings.get("word_embeddings.weight", (setting(config, "vocab_size", int), shape.hidden))
        rows = setting(config, "max_position_embeddings", int)
        # Sinusoidal tables (sinusoidal_pos_embds) are stored like learned ones.
        states = ops.add_positions(ops.embed(words), embeddings.get("position_embeddings.weight", (rows, shape.hidden)))
        states = ops.norm(states, layer_norm(embeddings, "LayerNorm", shape.hidden, shape.epsilon))
    return post_norm_layers(
        ops, tensors, states, prefix="transformer.layer.{}.", names=LAYER, shape=shape, bias=ops.attention_bias()
    )
