"""NomicBERT: BERT with rotary positions, SwiGLU and few biases (Nussbaum et al. 2024, arXiv:2402.01613); its second
version has feed-forwards without gates, and in every second layer a mixture of experts (arXiv:2502.07972).

Tensors under the names of transformers 5 (`rotary_bert.NOMIC`); config.json with GPT-2's keys or BERT's.
"""

from __future__ import annotations

from ..errors import CheckpointError, UnsupportedCheckpointError
from ..graph.graph import Value
from ..graph.layers import Experts, FeedForward
from ..graph.ops import Ops
from ..graph.weight import Linear
from ..tensors import Tensors
from .blocks import Config, Shape, linear, refuse, setting
from .rotary_bert import encoder, gated_feed_forward

NAMES = {
    "n_embd": "hidden_size",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_positions": "max_position_embeddings",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
}
THETA = 1000.0  # of transformers' class, where config.json names none
ROTARY = ("rope_theta", "rope_parameters", "rope_scaling", "partial_rotary_factor")  # transformers' own
GATES = {"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid"}
# What other checkpoints of the same code switch on, and nomic-embed-text does not.
SWITCHES = ("prenorm", "parallel_block", "use_rms_norm", "causal", "rotary_emb_interleaved")


def nomic_bert(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of NomicBertModel, as transformers has it."""
    refuse(config, "num_experts", 0)
    shape = _shape(config, _activation(config))

    def feed_forward(own: Tensors, _: int) -> FeedForward:
        return gated_feed_forward(own, shape, bias=False, down_bias=False)

    return encoder(ops, config, tensors, shape, feed_forward, theta=THETA, types=2, biases=False)


def nomic_moe(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of NomicBertModel, as the hub has it: no gates, and experts in some layers."""
    for switch in ("moe_normalize_expert_weights", "expert_choice_router"):
        refuse(config, switch, False)
    refuse(config, "ffn_div", 1)
    refuse(config, "activation_function", "gelu")
    shape = _shape(config, "gelu")
    width, wide, activation = shape.hidden, shape.intermediate, shape.activation
    count, theta = setting(config, "num_experts", int, 0), setting(config, "rotary_emb_base", float)
    chosen, every = (setting(config, key, int, None if count else 0) for key in ("moe_top_k", "moe_every_n_layers"))
    if count and not (every >= 2 and 1 <= chosen <= count):
        raise CheckpointError(
            f"config.json has {count} experts of which {chosen} are chosen, in one of {every} layers; expected at "
            "least one chosen, and every second layer or fewer"
        )

    def feed_forward(own: Tensors, index: int) -> FeedForward | Experts:
        if not count or index % every != 1:
            up = linear(own, "mlp.up_proj", width, wide, bias=own.has("mlp.up_proj.bias"))
            down = linear(own, "mlp.down_proj", wide, width, bias=own.has("mlp.down_proj.bias"))
            return FeedForward(up, down, activation)
        first, second = (own.get(f"mlp.experts.mlp.{name}", (count * wide, width)) for name in ("w1", "w2"))
        places = [(k * wide, (k + 1) * wide) for k in range(count)]
        experts = [
            FeedForward(Linear(first.rows(*rows)), Linear(second.rows(*rows).transposed), activation) for rows in places
        ]
        router = linear(own, "mlp.router.layer", width, count, bias=False)
        return Experts(router, tuple(experts), chosen, own.get("mlp.experts.bias", (width,)))

    # Its code knows no other rotary settings.
    config = {key: value for key, value in config.items() if key not in ROTARY}
    return encoder(ops, config, tensors, shape, feed_forward, theta=theta, types=2, biases=None)


def _shape(config: Config, activation: str) -> Shape:
    """Sizes of every layer, once nothing is switched on that is not built."""
    for switch in SWITCHES:
        refuse(config, switch, False)
    refuse(config, "rotary_emb_scale_base", 0)
    refuse(config, "rotary_emb_fraction", 1.0)
    if "n_embd" in config and "rotary_emb_fraction" not in config:
        raise UnsupportedCheckpointError("config.json has no rotary_emb_fraction: absolute positions are not built")
    return Shape.of({**config, "hidden_act": activation})


def nomic_positions(config: Config) -> int:
    """Longest text in tokens; beyond those trained on, a dynamic scaling would depend on a batch's longest text."""
    positions = setting(config, "max_position_embeddings", int, 2048)
    if config.get("rotary_scaling_factor") is None:
        return positions
    return min(positions, setting(config, "max_trained_positions", int, 2048))


def without_gates(config: Config) -> bool:
    """Whether config.json is of the second version, which transformers' class is not."""
    unit = config.get("activation_function")
    return bool(config.get("num_experts")) or (isinstance(unit, str) and unit not in GATES)


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
