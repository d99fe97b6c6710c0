"""What the user says against a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import InvalidInputError
from .modules import EOS, Dense, Head, LayerNorm, Normalize, Truncate
from .record import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What the user says against the checkpoint; None leaves the checkpoint's word."""

    pooling: tuple[str, ...] | None = None
    normalize: bool | None = None
    max_length: int | None = None
    prompts: Mapping[str, str] | None = None
    default_prompt_name: str | None = None
    truncate_dim: int | None = None


def override(checkpoint: Checkpoint, wanted: Overrides) -> Checkpoint:
    """The checkpoint with the user's word instead of its own, recorded.

    Raises:
        InvalidInputError: a max_length that the model has no positions for, a default prompt that does not exist,
            a truncate_dim below 1, something that a checkpoint of this kind does not have.
    """
    _check_kind(checkpoint, wanted)
    elsewhere = replace(wanted, max_length=None)  # what has a limit of its own keeps it, as in sentence-transformers
    changes: dict[str, Any] = {
        "routes": {
            role: override(route, elsewhere if role in checkpoint.lengths else wanted)
            for role, route in checkpoint.routes.items()
        },
    }
    if wanted.pooling is not None:
        if checkpoint.heads and len(wanted.pooling) != len(checkpoint.pooling) and _needs_width(checkpoint.heads):
            raise InvalidInputError(
                f"pooling {'+'.join(wanted.pooling)} changes the width that {checkpoint.heads[0]} takes; "
                "leave the pooling as the checkpoint has it"
            )
        changes["pooling"] = wanted.pooling
    if wanted.normalize is not None:
        changes["heads"] = _normalized(checkpoint.heads, wanted.normalize)
    if wanted.truncate_dim is not None:
        if wanted.truncate_dim < 1:
            raise InvalidInputError(
                f"truncate_dim {wanted.truncate_dim} is not possible; vectors have 1 number or more"
            )
        changes["heads"] = _truncated(changes.get("heads", checkpoint.heads), wanted.truncate_dim)
    if wanted.max_length is not None and not checkpoint.is_static:
        limit = checkpoint.architecture.positions(checkpoint.config)
        if not 1 <= wanted.max_length <= limit:
            raise InvalidInputError(f"max_length {wanted.max_length} is not possible; the model has {limit} positions")
        changes["max_length"] = wanted.max_length
    if wanted.prompts is not None:
        changes["prompts"] = {**checkpoint.prompts, **wanted.prompts}
    if wanted.default_prompt_name is not None:
        prompts = changes.get("prompts", checkpoint.prompts)
        if wanted.default_prompt_name not in prompts:
            known = f"there are {', '.join(map(repr, sorted(prompts)))}" if prompts else "there is none"
            raise InvalidInputError(
                f"default prompt {wanted.default_prompt_name!r} is no prompt of the checkpoint ({known}); "
                f"add it with --prompt '{wanted.default_prompt_name}=TEXT'"
            )
        changes["default_prompt_name"] = wanted.default_prompt_name
    said = {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in vars(wanted).items()
        if value is not None
    }
    return replace(checkpoint, **changes, overrides=said)


def _check_kind(checkpoint: Checkpoint, wanted: Overrides) -> None:
    if checkpoint.route is not None and (wanted.pooling is not None or wanted.normalize is not None):
        raise InvalidInputError("--pooling and --normalize are not for a model with routes; leave them out")
    if EOS in checkpoint.pooling and wanted.pooling is not None:
        raise InvalidInputError(
            f"--pooling is not for {checkpoint.name}, whose own pooling of the end of text its last layer is for; "
            "leave it out"
        )
    if checkpoint.is_static and checkpoint.route is None and (wanted.pooling or wanted.max_length) is not None:
        raise InvalidInputError(
            "--pooling and --max-length are not for a StaticEmbedding or WordEmbeddings, which have no transformer"
        )


def _normalized(heads: tuple[Head, ...], wanted: bool) -> tuple[Head, ...]:
    """The chain with normalization as its last step, or without one at its end, also before the checkpoint's cut."""
    cut = tuple(head for head in heads if isinstance(head, Truncate))
    rest = _not_normalized(heads)
    return (*rest, *cut, Normalize()) if wanted else (*rest, *cut)


def _truncated(heads: tuple[Head, ...], dim: int) -> tuple[Head, ...]:
    """The chain cut to `dim`, instead of the checkpoint's cut, before the normalization at its end."""
    rest = _not_normalized(heads)
    normalizes = Normalize() in heads[len(rest) :]
    return (*rest, Truncate(dim), Normalize()) if normalizes else (*rest, Truncate(dim))


def _not_normalized(heads: tuple[Head, ...]) -> tuple[Head, ...]:
    while heads and isinstance(heads[-1], (Normalize, Truncate)):
        heads = heads[:-1]
    return heads


def _needs_width(heads: tuple[Head, ...]) -> bool:
    return any(isinstance(head, (Dense, LayerNorm)) for head in heads)
