"""NomicBERT: BERT with rotary positions, SwiGLU and few biases (Nussbaum et al. 2024, arXiv:2402.01613).

Tensors under the names of transformers 5 (`rotary_bert.NOMIC`); config.json with GPT-2's keys or BERT's.
"""

from __future__ import annotations

from ..errors import UnsupportedCheckpointError
from ..graph.graph import Value
from ..graph.ops import Ops
from ..tensors import Tensors
from .bert import words_and_types
from .blocks import Config, Shape, layer_norm, refuse, setting
from .rotary import angles
from .rotary_bert import attention_layer, gated_feed_forward

NAMES = {
    "n_embd": "hidden_size",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
}
THETA = 1000.0  # where config.json names none
GATES = {"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid"}
# What other checkpoints of the same code switch on, and nomic-embed-text does not.
SWITCHES = ("prenorm", "parallel_block", "use_rms_norm", "causal", "rotary_emb_interleaved")


def nomic_bert(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of NomicBertModel."""
    for switch in SWITCHES:
        refuse(config, switch, False)
    refuse(config, "rotary_emb_scale_base", 0)
    refuse(config, "num_experts", 0)
    refuse(config, "rotary_emb_fraction", 1.0)
    if "n_embd" in config and "rotary_emb_fraction" not in config:
        raise UnsupportedCheckpointError("config.json has no rotary_emb_fraction: absolute positions are not built")
    shape = Shape.of({**config, "hidden_act": _activation(config)})
    width = shape.hidden
    with ops.scope("embeddings"):
        states = words_and_types(ops, config, tensors.under("embeddings."), width)
        states = ops.norm(states, layer_norm(tensors, "embeddings.LayerNorm", width, shape.epsilon))
    turn, bias = angles(ops, config, width // shape.heads, THETA), ops.attention_bias()
    for index in range(shape.layers):
        own = tensors.under(f"layers.{index}.")
        around, inner, outer = (own.has(f"{name}_proj.bias") for name in ("self_attn.q", "mlp.up", "mlp.down"))
        with ops.scope(f"layer.{index}"):
            states = attention_layer(
                ops,
                own,
                states,
                shape=shape,
                turn=turn,
                bias=bias,
                feed_forward=gated_feed_forward(own, shape, bias=inner, down_bias=outer),
                biases=around,
                last=index == shape.layers - 1,
            )
    return states


def nomic_positions(config: Config) -> int:
    """Longest text in tokens; beyond those trained on, a dynamic scaling would depend on a batch's longest text."""
    positions = setting(config, "max_position_embeddings", int, 2048)
    if config.get("rotary_scaling_factor") is None:
        return positions
    return min(positions, setting(config, "max_trained_positions", int, 2048))


def _activation(config: Config) -> str:
    """The gate's function: under hidden_act in transformers, as the name of the whole unit before."""
    unit = config.get("activation_function")
    if unit is None:
        return setting(config, "hidden_act", str, "silu")
    if unit not in GATES:
        raise UnsupportedCheckpointError(
            f"config.json has activation_function {unit!r}; this builder knows {', '.join(GATES)} only"
        )
    return GATES[unit]
