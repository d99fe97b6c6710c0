"""Rotary positions (Su et al. 2021, arXiv:2104.09864): config.json -> tables of cosines and sines.

Scalings that are the same for every text are in the tables (`rotary_scaling`). Those that depend on the longest text of
a batch ("dynamic") do nothing up to max_position_embeddings, and longer texts are cut there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import CheckpointError, UnsupportedCheckpointError
from ..graph.layers import Angles
from ..graph.ops import Ops
from ..graph.weight import Array, Floats, Weight
from .blocks import Config, setting
from .rotary_scaling import frequencies


def angles(
    ops: Ops,
    config: Config,
    head: int,
    theta: float,
    kind: str | None = None,
    *,
    theta_key: str = "rope_theta",
    scaled: bool = True,
) -> Angles:
    """Rotary positions of heads of `head` channels for `Attention.angles`.

    Args:
        ops: operations of the graph.
        config: config.json.
        head: channels of a head.
        theta: base where config.json names none.
        kind: which of the layer types, where config.json has settings for each.
        theta_key: see `settings`.
        scaled: see `settings`.

    Raises:
        CheckpointError: an odd head, settings that are no object.
        UnsupportedCheckpointError: settings that are not known.
    """
    if head % 2:
        raise CheckpointError(f"config.json gives heads of {head} channels; rotary positions need an even number")
    rows = setting(config, "max_position_embeddings", int)
    inverse, factor = frequencies(settings(config, theta, kind, theta_key=theta_key, scaled=scaled), head, rows)

    def table(function: Callable[[Floats], Floats]) -> Callable[[], Array]:
        def load() -> Array:
            turns = np.arange(rows, dtype=np.float32)[:, None] * inverse  # rounded to float32, as the models do
            found: Array = function(turns.astype(np.float64)).astype(np.float32)
            return found if factor == 1.0 else found * np.float32(factor)

        return load

    name = f"rotary.{kind}" if kind else "rotary"
    shape = (rows, head // 2)
    tables = Weight(f"{name}.cos", shape, table(np.cos)), Weight(f"{name}.sin", shape, table(np.sin))
    return ops.angles(*tables, scale=factor)


def settings(
    config: Config, theta: float, kind: str | None = None, *, theta_key: str = "rope_theta", scaled: bool = True
) -> Mapping[str, Any]:
    """Settings of the rotary positions under the names of transformers 5, from wherever config.json has them.

    Merged as `convert_rope_params_to_dict` of transformers 5.24 does it. Of models with one kind of layers rope_scaling
    takes the place of rope_parameters, its base included; of models with several it changes what the entry of the layer
    type says, and settings outside of these entries are nobody's.

    Args:
        config: config.json.
        theta: base where config.json names none.
        kind: which of the layer types, where config.json has settings for each.
        theta_key: what config.json calls the base outside of rope_parameters.
        scaled: whether rope_scaling is for this type of layer.

    Raises:
        CheckpointError: settings that are no object.
        UnsupportedCheckpointError: settings for each layer type, of a model with one kind of layers.
    """
    parameters, scaling = _object(config, "rope_parameters"), _object(config, "rope_scaling")
    outside = {"rope_theta": config.get(theta_key), "partial_rotary_factor": config.get("partial_rotary_factor")}
    inside: dict[str, Any] = {}  # what takes the place of what the settings say
    if kind is None:
        given = dict(scaling or parameters)
        inside["original_max_position_embeddings"] = config.get("original_max_position_embeddings")
        if entries := [key for key, value in given.items() if isinstance(value, Mapping)]:
            raise UnsupportedCheckpointError(
                f"config.json has rotary settings for each type of layer ({', '.join(map(repr, entries))}); this "
                "builder knows one for all of them"
            )
    else:
        given = {"rope_type": "default"} if parameters.get(kind) is None else dict(_object(parameters, kind))
        given |= scaling if scaled else {}
        given.pop("truncate", None)  # looked for beside the entries of the layer types, where none is
    inside = {key: value for key, value in inside.items() if value is not None}
    found = {key: value for key, value in {**outside, **given, **inside}.items() if value is not None}
    return {"rope_type": found.get("type", "default"), "rope_theta": theta, **found}


def _object(config: Config, key: str) -> Mapping[str, Any]:
    """What config.json has under `key`: settings by name, none where it is silent."""
    value = config.get(key)
    if value is not None and not isinstance(value, Mapping):
        raise CheckpointError(f"config.json has {key} = {value!r}, expected an object with rotary settings")
    return value or {}
