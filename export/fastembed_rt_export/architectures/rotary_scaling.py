"""How far rotary positions turn a pair of channels from one token to the next, under each scaling for longer texts.

Computed in float32, step by step as transformers' `modeling_rope_utils` does it: a turn is off by its rounding times
the position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import CheckpointError, UnsupportedCheckpointError
from ..graph.weight import Floats
from .blocks import flag, setting

Settings = Mapping[str, Any]
TAU = 2 * math.pi


def frequencies(given: Settings, head: int, positions: int) -> tuple[Floats, float]:
    """Turn of each pair of channels from one position to the next in radians (D / 2,), and what scales the tables.

    Args:
        given: rope_type, rope_theta and what belongs to the type.
        head: D, channels of a head.
        positions: max_position_embeddings, from which some scalings reckon where their settings do not say it.

    Raises:
        UnsupportedCheckpointError: a scaling that is not known.
        CheckpointError: a setting that it needs is not there, or of another type; settings that give no numbers.
    """
    scaling = given["rope_type"]
    refused = ["partial_rotary_factor"] if scaling == "yarn" else ["partial_rotary_factor", "attention_factor"]
    for key in refused:
        if given.get(key, 1.0) != 1.0:
            raise UnsupportedCheckpointError(f"config.json has rotary {key} = {given[key]!r}; built is 1.0 only")
    make = SCALINGS.get(scaling) if isinstance(scaling, str) else None
    if make is None:
        raise UnsupportedCheckpointError(
            f"config.json has rotary scaling {scaling!r}; built are {', '.join(map(repr, SCALINGS))}"
        )
    try:
        with np.errstate(all="ignore"):
            inverse, factor = make(given, head, positions)
        sound = bool(np.isfinite(inverse).all()) and math.isfinite(factor)
    except (ArithmeticError, TypeError, ValueError):
        sound = False
    if not sound:
        said = ", ".join(f"{key} {value!r}" for key, value in given.items())
        raise CheckpointError(f"config.json's rotary settings give no turns of positions: {said}")
    return inverse, factor


def _default(given: Settings, head: int, positions: int) -> tuple[Floats, float]:
    return _inverse(setting(given, "rope_theta", float), head), 1.0


def _linear(given: Settings, head: int, positions: int) -> tuple[Floats, float]:
    """Positions are divided."""
    factor = setting(given, "factor", float)
    return _inverse(setting(given, "rope_theta", float), head) / np.float32(factor), 1.0


def _ntk(given: Settings, head: int, positions: int) -> tuple[Floats, float]:
    """The GTE models', plain and mixed: formulas 6 and 13 of https://kexue.fm/archives/9706."""
    theta, factor = setting(given, "rope_theta", float), setting(given, "factor", float)
    mixed = given.get("mixed_b")
    if mixed is None:
        return _inverse(theta * factor, head) / np.float32(factor ** (2 / head)), 1.0
    steps = np.arange(1, head // 2 + 1, dtype=np.float64)
    scale = np.exp(np.log(factor) / (head / 2) ** float(mixed) * steps ** float(mixed))
    found: Floats = (_inverse(theta, head) / scale).astype(np.float32)
    return found, 1.0


def _llama3(given: Settings, head: int, positions: int) -> tuple[Floats, float]:
    """Long waves are divided, short ones left, those between blended (Llama Team 2024, arXiv:2407.21783)."""
    inverse = _inverse(setting(given, "rope_theta", float), head)
    factor = np.float32(setting(given, "factor", float))
    low, high = setting(given, "low_freq_factor", float), setting(given, "high_freq_factor", float)
    trained = setting(given, "original_max_position_embeddings", int, positions)
    wave = np.float32(TAU) / inverse
    blend = (np.float32(trained) / wave - np.float32(low)) / np.float32(high - low)
    blended = (1 - blend) * inverse / factor + blend * inverse
    found: Floats = np.select([wave < trained / high, wave > trained / low], [inverse, inverse / factor], blended)
    return found.astype(np.float32), 1.0


def _yarn(given: Settings, head: int, positions: int) -> tuple[Floats, float]:
    """Slow channels are divided, fast ones left, a ramp between; scores grow (Peng et al. 2023, arXiv:2309.00071)."""
    theta, factor = setting(given, "rope_theta", float), setting(given, "factor", float)
    trained = setting(given, "original_max_position_embeddings", int, positions)

    def channel(turns: float) -> float:
        """The pair that turns so often in a text as long as those trained on."""
        return head * math.log(trained / (turns * TAU)) / (2 * math.log(theta))

    low = channel(setting(given, "beta_fast", float, 32.0) or 32.0)
    high = channel(setting(given, "beta_slow", float, 1.0) or 1.0)
    if flag(given, "truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head - 1)
    high += 0.001 if low == high else 0.0
    ramp = ((np.arange(head // 2, dtype=np.float32) - np.float32(low)) / np.float32(high - low)).clip(0, 1)
    powers = _powers(theta, head)
    found: Floats = np.float32(1) / (np.float32(factor) * powers) * ramp + np.float32(1) / powers * (1 - ramp)
    return found, _yarn_scale(given, factor)


def _yarn_scale(given: Settings, factor: float) -> float:
    """What cosines and sines are multiplied by."""

    def grown(by: float) -> float:
        return 0.1 * by * math.log(factor) + 1.0 if factor > 1 else 1.0

    if given.get("attention_factor") is not None:
        return setting(given, "attention_factor", float)
    by, by_all = (setting(given, key, float, 0.0) for key in ("mscale", "mscale_all_dim"))
    return grown(by) / grown(by_all) if by and by_all else grown(1.0)


def _powers(theta: float, head: int) -> Floats:
    powers = np.float64(theta) ** (np.arange(0, head, 2, dtype=np.float32) / np.float32(head)).astype(np.float64)
    return powers.astype(np.float32)


def _inverse(theta: float, head: int) -> Floats:
    return np.float32(1.0) / _powers(theta, head)


SCALINGS: Mapping[str, Callable[[Settings, int, int], tuple[Floats, float]]] = {
    "default": _default,
    "linear": _linear,
    "ntk": _ntk,
    "dynamic": _default,  # longer texts alone are scaled, and they are cut
    "llama3": _llama3,
    "yarn": _yarn,
}
