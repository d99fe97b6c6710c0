"""Which layers see the whole text and which a window of it."""

from __future__ import annotations

from collections.abc import Callable

from ..errors import CheckpointError
from .blocks import Config

FULL, SLIDING = "full_attention", "sliding_attention"


def layer_types(config: Config, layers: int, default: Callable[[int], str]) -> list[str]:
    """Type of each layer, from config.json or, where it lists none, by the layer's number.

    Raises:
        CheckpointError: another number of types than layers, or a type that is not known.
    """
    given = config.get("layer_types")
    kinds = [default(index) for index in range(layers)] if given is None else given
    if not isinstance(kinds, list) or len(kinds) != layers or not all(kind in (FULL, SLIDING) for kind in kinds):
        raise CheckpointError(
            f"config.json has layer_types {kinds!r}; expected {FULL!r} or {SLIDING!r} for each of {layers} layers"
        )
    return kinds
