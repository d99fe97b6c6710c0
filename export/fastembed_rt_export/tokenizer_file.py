"""The tokenizer that goes into the model directory: tokenizer.json as it is, converted only where there is none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, normalizers

from .checkpoint import Checkpoint, read_json
from .errors import CheckpointError, MissingDependencyError, UnsupportedCheckpointError


@dataclass(frozen=True)
class TokenizerFile:
    """Text of tokenizer.json, and the id that fills padded positions."""

    text: str
    pad_token_id: int


def load(checkpoint: Checkpoint) -> TokenizerFile:
    """Tokenizer of a checkpoint.

    Raises:
        CheckpointError: no tokenizer, or one that the tokenizers library cannot read.
        MissingDependencyError: only slow tokenizer files, and transformers is not installed to convert them.
    """
    _refuse_left_truncation(checkpoint.path)
    path = checkpoint.path / "tokenizer.json"
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else _convert(checkpoint.path)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not a text file ({error}); download it again") from error
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:
        raise CheckpointError(
            f"{path} cannot be read by tokenizers ({error}); update tokenizers or save it again"
        ) from error
    largest, vocabulary = max(tokenizer.get_vocab().values(), default=-1), checkpoint.config.get("vocab_size")
    if isinstance(vocabulary, int) and largest >= vocabulary:
        raise CheckpointError(
            f"the tokenizer has ids up to {largest}, the model's vocab_size is {vocabulary}; "
            "tokenizer and weights are not of the same checkpoint"
        )
    if checkpoint.lower_case and not _lower_cases(tokenizer.normalizer):
        before = [normalizers.Lowercase()]
        before += [tokenizer.normalizer] if tokenizer.normalizer is not None else []
        tokenizer.normalizer = normalizers.Sequence(before)
        text = tokenizer.to_str()
    return TokenizerFile(text, _pad_token_id(checkpoint, tokenizer))


def _refuse_left_truncation(directory: Path) -> None:
    path = directory / "tokenizer_config.json"
    if path.is_file() and read_json(path).get("truncation_side") == "left":
        raise UnsupportedCheckpointError(
            f"{path} has truncation_side 'left'; texts are cut at their end here, so long ones would differ"
        )


def _lower_cases(normalizer: Any) -> bool:
    """Whether a normalizer lower-cases by itself, looked up in what it says of itself."""
    if normalizer is None:
        return False
    state = json.loads(normalizer.__getstate__())
    parts = state.get("normalizers", [state])
    return any(part.get("type") == "Lowercase" or part.get("lowercase") is True for part in parts)


def _pad_token_id(checkpoint: Checkpoint, tokenizer: Tokenizer) -> int:
    """The tokenizer's pad token, else the config's, else 0: padding is masked, any id inside the vocabulary does."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        if (checkpoint.path / name).is_file():
            token = read_json(checkpoint.path / name).get("pad_token")
            content = token.get("content") if isinstance(token, dict) else token
            known = tokenizer.token_to_id(content) if isinstance(content, str) else None
            if known is not None:
                return int(known)
    configured = checkpoint.config.get("pad_token_id")
    return configured if isinstance(configured, int) and configured >= 0 else 0


def _convert(directory: Path) -> str:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingDependencyError(
            f"{directory} has no tokenizer.json; install transformers to convert its tokenizer "
            "(pip install 'fastembed-rt[verify]'), or save it with a fast tokenizer's save_pretrained()"
        ) from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), use_fast=True, local_files_only=True)
        backend = tokenizer.backend_tokenizer
        return str(backend.to_str())
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"{directory} has no tokenizer.json and its tokenizer cannot be converted ({reason}); "
            "save it with a fast tokenizer's save_pretrained()"
        ) from error
