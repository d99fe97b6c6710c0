"""Qwen2 and Qwen3 as embedders: Llama whose Qwen2 has biases around attention and whose Qwen3 normalizes its heads.

Qwen Team 2024 (arXiv:2407.10671), Zhang et al. 2025 (arXiv:2506.05176); tensor names as transformers writes them.
"""

from __future__ import annotations

from ..graph.graph import Value
from ..graph.layers import ScoreBias
from ..graph.ops import Ops
from ..tensors import Tensors
from .blocks import Config, flag, setting
from .decoder import Biases, Sizes
from .layer_types import FULL, SLIDING, layer_types
from .llama import THETA, is_causal, stack, window
from .rotary import angles

HEAD = 128  # where config.json names none


def qwen2(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of Qwen2Model."""
    return _qwen(ops, config, tensors, Sizes.of(config), Biases(inputs=True))


def qwen3(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of Qwen3Model."""
    bias = flag(config, "attention_bias", False)
    sizes = Sizes.of({"head_dim": HEAD, **config})
    return _qwen(ops, config, tensors, sizes, Biases(inputs=bias, output=bias), head_norms=True)


def _qwen(
    ops: Ops, config: Config, tensors: Tensors, sizes: Sizes, biases: Biases, *, head_norms: bool = False
) -> Value:
    kinds = _kinds(config, sizes.layers)
    seen, turn = _seen(ops, config, kinds), angles(ops, config, sizes.head, THETA)
    turns = dict.fromkeys(kinds, turn)
    return stack(ops, config, tensors, sizes, biases, kinds=kinds, turns=turns, seen=seen, head_norms=head_norms)


def _kinds(config: Config, layers: int) -> list[str]:
    """Type of each layer: all see the whole text unless a window is switched on, and then the first ones still do."""
    windows = flag(config, "use_sliding_window", False)
    whole = setting(config, "max_window_layers", int, 28) if windows else layers
    return layer_types(config, layers, lambda index: SLIDING if index >= whole else FULL)


def _seen(ops: Ops, config: Config, kinds: list[str]) -> dict[str, ScoreBias]:
    """What each type of layer lets a token see: those before it, and itself; or all, where the switch says so."""
    seen, causal = {}, is_causal(config)
    if FULL in kinds:
        seen[FULL] = ops.attention_bias(after=0) if causal else ops.attention_bias()
    if SLIDING in kinds:
        seen[SLIDING] = window(ops, config, causal=causal)
    return seen
