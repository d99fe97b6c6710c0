"""Llama and those built like it: decoders (Llama, Mistral, Ministral 3), encoders that see all (EuroBERT, UltraBERT).

Touvron et al. 2023 (arXiv:2307.09288), Jiang et al. 2023 (arXiv:2310.06825), Boizard et al. 2025 (arXiv:2503.05500);
tensor names as transformers writes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import CheckpointError, UnsupportedCheckpointError
from ..graph.graph import Value
from ..graph.layers import Angles, ScoreBias
from ..graph.ops import Ops
from ..tensors import Tensors
from .blocks import Config, flag, refuse_causal, setting
from .decoder import Biases, Sizes, attention, feed_forward, rms_norm
from .gated import Norms, final_norm, layer
from .layer_types import FULL, SLIDING, layer_types
from .renamed import Renames
from .rotary import angles, settings

THETA = 10_000.0  # where config.json names none
WINDOW, KV_HEADS = 4096, 8  # Mistral's, likewise
ULTRA_NAMES = Renames(names=((r"^model\.", "ultrabert."),), fused={})  # as transformers' own classes call it
ULTRA_THETA = {FULL: 2_560_000.0, SLIDING: 10_000.0}  # where config.json has no rotary settings at all
# Ministral 3's, where config.json has none.
MINISTRAL = {
    "rope_type": "yarn",
    "rope_theta": 1_000_000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "mscale_all_dim": 1.0,
    "mscale": 1.0,
    "llama_4_scaling_beta": 0.1,
}
MINISTRAL_POSITIONS = 262_144


def llama(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of LlamaModel."""
    seen = FULL, ops.attention_bias(after=0) if is_causal(config) else ops.attention_bias()
    return _llama(ops, config, tensors, seen, 1e-6)


def mistral(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of MistralModel: Llama without biases, with a window in all layers or in none.

    Where config.json has types of layers it is that of MinistralModel, which transformers makes then.
    """
    causal = is_causal(config)
    config = {"num_key_value_heads": KV_HEADS, "sliding_window": WINDOW, **config}
    sizes = Sizes.of(config)
    kinds = layer_types(config, sizes.layers, lambda _: FULL if config["sliding_window"] is None else SLIDING)
    seen = {}
    if FULL in kinds:
        seen[FULL] = ops.attention_bias(after=0) if causal else ops.attention_bias()
    if SLIDING in kinds:
        seen[SLIDING] = window(ops, config, causal=causal)
    turns = dict.fromkeys(kinds, angles(ops, config, sizes.head, THETA))
    return stack(ops, config, tensors, sizes, Biases(), kinds=kinds, turns=turns, seen=seen)


def read_ministral3(config: Config) -> Config:
    """config.json with what transformers takes where it is silent, and the positions whose queries are not scaled.

    Those behind original_max_position_embeddings are multiplied by a number that grows with the position: texts are cut
    before them.
    """
    found = {"head_dim": 128, "sliding_window": None, "rms_norm_eps": 1e-5, **config}
    if not found.get("rope_parameters") and not found.get("rope_scaling"):
        found["rope_parameters"] = MINISTRAL
    found.setdefault("max_position_embeddings", MINISTRAL_POSITIONS)
    most, turns = setting(found, "max_position_embeddings", int), settings(found, THETA)
    if setting(turns, "llama_4_scaling_beta", float, 0.0) != 0.0:
        trained = setting(turns, "original_max_position_embeddings", int, most)
        found["max_position_embeddings"] = min(most, trained)
    return found


def eurobert(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of EuroBertModel."""
    refuse_causal(config)
    return _llama(ops, config, tensors, (FULL, ops.attention_bias()), 1e-5)


def ultrabert(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of UltrabertModel: EuroBERT with windows in two layers of three."""
    refuse_causal(config)
    sizes = Sizes.of(config)
    config, kinds = _ultra_settings(config, sizes.layers)
    if (reach := setting(config, "sliding_window", int, 128)) < 0:
        raise CheckpointError(f"config.json has sliding_window {reach}, expected a number of tokens")
    seen = {FULL: ops.attention_bias(), SLIDING: ops.attention_bias(before=reach, after=reach)}
    turns = {kind: angles(ops, config, sizes.head, THETA, kind) for kind in dict.fromkeys(kinds)}
    return stack(ops, config, tensors, sizes, _biases(config), kinds=kinds, turns=turns, seen=seen)


def stack(
    ops: Ops,
    config: Config,
    tensors: Tensors,
    sizes: Sizes,
    biases: Biases,
    *,
    kinds: Sequence[str],
    turns: Mapping[str, Angles],
    seen: Mapping[str, ScoreBias],
    head_norms: bool = False,
    epsilon: float = 1e-6,
) -> Value:
    """The embeddings, the layers and the last norm.

    Args:
        ops: operations of the graph.
        config: config.json.
        tensors: the checkpoint's.
        sizes: of every layer.
        biases: which linear layers have them.
        kinds: type of each layer.
        turns: rotary positions by type.
        seen: what a token sees, by type.
        head_norms: heads of queries and keys are normalized.
        epsilon: of the norms, where config.json names none.
    """
    epsilon = setting(config, "rms_norm_eps", float, epsilon)
    activation = setting(config, "hidden_act", str, "silu")
    with ops.scope("embeddings"):
        states = ops.embed(tensors.get("embed_tokens.weight", (setting(config, "vocab_size", int), sizes.hidden)))
    for index, kind in enumerate(kinds):
        own = tensors.under(f"layers.{index}.")
        norms = [rms_norm(own, f"self_attn.{part}_norm", sizes.head, epsilon) if head_norms else None for part in "qk"]
        with ops.scope(f"layer.{index}"):
            states = layer(
                ops,
                states,
                attention=attention(own, sizes, turns[kind], biases, query_norm=norms[0], key_norm=norms[1]),
                around=Norms(before=rms_norm(own, "input_layernorm", sizes.hidden, epsilon)),
                bias=seen[kind],
                feed_forward=feed_forward(own, sizes, activation, bias=biases.feed_forward),
                beside=Norms(before=rms_norm(own, "post_attention_layernorm", sizes.hidden, epsilon)),
                last=index == sizes.layers - 1,
            )
    return final_norm(ops, states, rms_norm(tensors, "norm", sizes.hidden, epsilon))


def is_causal(config: Config) -> bool:
    """Whether a token sees none behind it; false is transformers' switch for decoders trained to see all.

    Raises:
        UnsupportedCheckpointError: null, of which transformers makes the one where texts are padded, else the other.
    """
    if config.get("is_causal", True) is None:
        raise UnsupportedCheckpointError("config.json has is_causal = None; this builder knows true or false only")
    return flag(config, "is_causal", True)


def window(
    ops: Ops, config: Config, *, causal: bool, default: int | None = None, cap: float | None = None
) -> ScoreBias:
    """What config.json's window lets a token see, itself included: those before it or, not causal, to each side."""
    tokens = setting(config, "sliding_window", int, default)
    if tokens < 1:
        raise CheckpointError(f"config.json has sliding_window {tokens}, expected a number of tokens")
    # Itself counts before a token; both ends are beside it where windows reach to each side.
    before, after = (tokens - 1, 0) if causal else (tokens, tokens)
    return ops.attention_bias(before=before, after=after, cap=cap)


def _llama(ops: Ops, config: Config, tensors: Tensors, seen: tuple[str, ScoreBias], epsilon: float) -> Value:
    """All layers of one kind."""
    sizes, (kind, mask) = Sizes.of(config), seen
    return stack(
        ops,
        config,
        tensors,
        sizes,
        _biases(config),
        kinds=[kind] * sizes.layers,
        turns={kind: angles(ops, config, sizes.head, THETA)},
        seen={kind: mask},
        epsilon=epsilon,
    )


def _biases(config: Config) -> Biases:
    around = flag(config, "attention_bias", False)
    return Biases(inputs=around, output=around, feed_forward=flag(config, "mlp_bias", False))


def _ultra_settings(config: Config, layers: int) -> tuple[Config, list[str]]:
    """config.json as transformers reads it, and each layer's type: older ones have windows and bases by layer."""
    found: dict[str, Any] = dict(config)
    windows, bases = found.pop("attention_windows", None), found.pop("rope_theta", None)
    if isinstance(windows, list):
        found["sliding_window"] = next((size for size in windows if size), found.get("sliding_window"))
        if found.get("layer_types") is None:
            found["layer_types"] = [SLIDING if size else FULL for size in windows]
    kinds = layer_types(found, layers, lambda index: SLIDING if (index + 1) % 3 else FULL)
    if scaling := found.pop("rope_scaling", None):
        found["rope_parameters"] = scaling  # in place of all entries
    if found.get("rope_parameters") is None:
        thetas = dict(zip(kinds, bases, strict=False)) if isinstance(bases, list) else ULTRA_THETA
        found["rope_parameters"] = {kind: {"rope_type": "default", "rope_theta": base} for kind, base in thetas.items()}
    return found, kinds
