"""Where texts are cut: the limits that a checkpoint's files name, in the order in which sentence-transformers asks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastembed_rt.manifest import ROLES

from ..errors import CheckpointError

_NO_LIMIT = 10**20  # transformers writes 10**30 where there is none, and takes all from here on for that


@dataclass(frozen=True)
class Limits:
    """Tokens after which texts are cut, special tokens included; None: the files name no limit."""

    all: int | None
    by_role: Mapping[str, int] = field(default_factory=dict)  # of queries and documents, where they have their own


def read(
    settings: Mapping[str, Any],
    processor: Mapping[str, Any],
    processing: Mapping[str, Any],
    tokenizer: Mapping[str, Any],
    positions: object,
    where: object,
) -> Limits:
    """Limits of one transformer.

    Args:
        settings: sentence_bert_config.json.
        processor: what it passes on to the tokenizer.
        processing: what it passes on to each call of the tokenizer.
        tokenizer: tokenizer_config.json.
        positions: max_position_embeddings of config.json.
        where: what messages call the place.

    Raises:
        CheckpointError: a limit that is no number of tokens.
    """
    if "model_max_length" in processor:
        limit = tokens(processor["model_max_length"], "model_max_length", where)
    elif settings.get("max_seq_length") is not None:
        limit = tokens(settings["max_seq_length"], "max_seq_length", where)
    else:
        named = tokenizer.get("model_max_length") if "model_max_length" in tokenizer else tokenizer.get("max_len")
        limit = tokens(named, "model_max_length", where)
        if type(positions) is int and positions > 0:
            limit = positions if limit is None else min(limit, positions)
    roles = {role: tokens(settings.get(f"{role}_length"), f"{role}_length", where) for role in ROLES}
    always = tokens(processing.get("max_length"), "processing_kwargs max_length", where)
    if always is not None:
        return Limits(always)
    return Limits(limit, {role: length for role, length in roles.items() if length is not None})


def tokens(value: object, key: str, where: object) -> int | None:
    """A number of tokens; a float without a fraction is one, None says that there is no limit.

    Raises:
        CheckpointError: something else.
    """
    if value is None:
        return None
    whole = type(value) is int or (isinstance(value, float) and value.is_integer())
    if not whole or int(value) < 1:  # type: ignore[call-overload]
        raise CheckpointError(f"{key} {value!r} beside {where} is not a number of tokens")
    count = int(value)  # type: ignore[call-overload]
    return None if count >= _NO_LIMIT else count
