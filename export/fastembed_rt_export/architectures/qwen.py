"""Qwen2 and Qwen3 as embedders: Llama whose Qwen2 has biases around attention and whose Qwen3 normalizes its heads.

Qwen Team 2024 (arXiv:2407.10671), Zhang et al. 2025 (arXiv:2506.05176); tensor names as transformers writes them.
"""

from __future__ import annotations

from ..errors import UnsupportedCheckpointError
from ..graph.graph import Value
from ..graph.layers import ScoreBias
from ..graph.ops import Ops
from ..tensors import Tensors
from .blocks import Config, flag, linear, refuse, setting
from .decoder import Biases, Sizes
from .layer_types import FULL, SLIDING, layer_types
from .llama import THETA, is_causal, stack, window
from .rotary import angles

HEAD = 128  # where config.json names none
BOTH_WAYS, WIDTH = "Qwen3BidirectionalModel", "num_labels"  # voyage-4-nano's class, and what it calls its vectors' size

PERPLEXITYS, OF_TEXTS = "bidirectional_pplx_qwen3", "PPLXQwen3Model"  # model_type, and the class of pplx-embed-v1


def qwen2(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of Qwen2Model."""
    return _qwen(ops, config, tensors, Sizes.of(config), Biases(inputs=True))


def qwen3(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of Qwen3Model."""
    bias = flag(config, "attention_bias", False)
    sizes = Sizes.of({"head_dim": HEAD, **config})
    return _qwen(ops, config, tensors, sizes, Biases(inputs=bias, output=bias), head_norms=True)


def qwen3_bidirectional(ops: Ops, config: Config, tensors: Tensors) -> Value:
    """last_hidden_state of voyage-4-nano's class: Qwen3Model's, whose tokens see all others, through a linear layer."""
    states = qwen3(ops, config, tensors)
    with ops.scope("projection"):
        whole = Tensors(tensors.stored, "", tensors.account)
        layer = linear(whole, "linear", setting(config, "hidden_size", int), setting(config, WIDTH, int), bias=False)
        return ops.linear_kept(states, layer)


def sees_both_ways(config: Config) -> bool:
    """Whether config.json names the class of `qwen3_bidirectional`, and its switch."""
    listed, named = config.get("auto_map"), config.get("architectures")
    own = listed.get("AutoModel") if isinstance(listed, dict) else None
    first = named[0] if isinstance(named, list) and named else ""
    return BOTH_WAYS in (str(own).rpartition(".")[2], first) and config.get("use_bidirectional_attention") is True


def read_perplexitys(config: Config) -> Config:
    """The settings, of the class whose vectors are of texts.

    Raises:
        UnsupportedCheckpointError: another class; or the switch for what tokens see says something else than the class.
    """
    listed = config.get("auto_map")
    own = str(listed["AutoModel"]) if isinstance(listed, dict) and "AutoModel" in listed else OF_TEXTS
    if own.rpartition(".")[2] != OF_TEXTS:
        raise UnsupportedCheckpointError(
            f"config.json names the class {own}, and built is {OF_TEXTS} (pplx-embed-v1): pplx-embed-context-v1 makes "
            "vectors of chunks among the others of their document, which no call here takes"
        )
    refuse(config, "use_bidirectional_attention", True)
    return config


def read_width(config: Config) -> Config:
    """The settings with the size of the vectors, which a class saved by transformers says by its labels alone."""
    labels = config.get("id2label")
    return {WIDTH: len(labels), **config} if isinstance(labels, dict) and labels else config


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
