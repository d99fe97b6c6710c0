"""The tokenizer that goes into the model directory: tokenizer.json, converted where there is none.

transformers lets tokenizer_config.json overrule tokenizer.json in places; what it says there is written into the file,
so that the file alone gives the checkpoint's ids.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tokenizers import AddedToken, Tokenizer, normalizers

from fastembed_rt.manifest import TRUNCATION_SIDES

from . import tokenizer_rules
from .errors import CheckpointError, MissingDependencyError, first_line, theirs
from .files import read_json, refuse_pointer
from .record import Checkpoint

_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_SPELLINGS = {"mask_token": ("[MASK]", "<mask>"), "eos_token": ("</s>", "<|endoftext|>", "<eos>")}
ADDED_TOKENS = "added_tokens.json"
VOCABULARIES = ("*.txt", "*.model", "*.json", "*.tiktoken")  # files of slow tokenizers


class Vocabulary(Protocol):
    """What knows tokens by name."""

    def token_to_id(self, token: str) -> int | None:
        """Id of a token, None where there is none."""


@dataclass(frozen=True)
class TokenizerFile:
    """Text of tokenizer.json, the id that fills padded positions, the side on which long texts lose tokens."""

    text: str
    pad_token_id: int
    truncation_side: str = "right"
    rows: int | None = None  # of the word table, where there are ids without one


def load(checkpoint: Checkpoint) -> TokenizerFile:
    """Tokenizer of a checkpoint.

    Raises:
        CheckpointError: no tokenizer, or one that the tokenizers library cannot read.
        MissingDependencyError: only slow tokenizer files, and transformers is not installed to convert them.
    """
    path = checkpoint.path / "tokenizer.json"
    refuse_pointer(path)
    try:
        text = path.read_text(encoding="utf-8") if path.is_file() else _convert(checkpoint)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not a text file ({error}); download it again") from error
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:
        if not theirs(error):
            raise
        raise CheckpointError(
            f"{path} cannot be read by tokenizers ({error}); update tokenizers or save it again"
        ) from error
    if checkpoint.is_static:
        # sentence-transformers reads the file alone, and asks it for no special tokens.
        text = json.dumps({**json.loads(text), "post_processor": None}, ensure_ascii=False)
        return TokenizerFile(text, 0, _truncation_side(checkpoint, tokenizer), _rows(checkpoint, tokenizer))
    if path.is_file() and _overrule(tokenizer, checkpoint):
        text = tokenizer.to_str()
    if checkpoint.lower_case and not _lower_cases(tokenizer.normalizer):
        before = [normalizers.Lowercase()]
        before += [tokenizer.normalizer] if tokenizer.normalizer is not None else []
        tokenizer.normalizer = normalizers.Sequence(before)
        text = tokenizer.to_str()
    if _keep_whole(tokenizer, checkpoint.markers):
        text = tokenizer.to_str()
    rows = _rows(checkpoint, tokenizer)
    return TokenizerFile(text, _pad_token_id(checkpoint, tokenizer), _truncation_side(checkpoint, tokenizer), rows)


def _rows(checkpoint: Checkpoint, tokenizer: Tokenizer) -> int | None:
    """Rows of the word table where the tokenizer has ids beyond them, else None."""
    rows = checkpoint.config.get("vocab_size")
    largest = max(tokenizer.get_vocab().values(), default=-1)
    return rows if isinstance(rows, int) and largest >= rows else None


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """What tokenizer_config.json says; special_tokens_map.json counts where that lists no added tokens."""
    directory = checkpoint.path
    path, special = directory / "tokenizer_config.json", directory / "special_tokens_map.json"
    settings = read_json(path) if path.is_file() else {}
    if special.is_file() and "added_tokens_decoder" not in settings:
        settings = {**settings, **read_json(special)}
    return {**settings, **checkpoint.tokenizer_settings}


def _overrule(tokenizer: Tokenizer, checkpoint: Checkpoint) -> bool:
    """Apply tokenizer_config.json to the tokenizer, as transformers does; whether that changed anything."""
    said = _settings(checkpoint)
    changed = tokenizer_rules.overrule(tokenizer, said, checkpoint.config)
    return _added_tokens(tokenizer, said, checkpoint.path) or changed


def _added_tokens(tokenizer: Tokenizer, settings: Mapping[str, Any], directory: Path) -> bool:
    """Tokens that the settings add to those of tokenizer.json, in the order of their ids; whether there are any.

    One that the vocabulary lacks gets an id behind it, which the model has a row for or not.
    """
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    special = _special_tokens(settings)
    listed = settings.get("added_tokens_decoder")
    if listed is None and (directory / ADDED_TOKENS).is_file():
        listed = _older_list(directory / ADDED_TOKENS, {entry["content"] for entry in special})
    listed = listed or {}
    if not isinstance(listed, dict) or not all(key.isdigit() and isinstance(listed[key], dict) for key in listed):
        raise CheckpointError("tokenizer_config.json has added_tokens_decoder that is not tokens by id")
    wanted = {entry.get("content"): entry for _, entry in sorted(listed.items(), key=lambda item: int(item[0]))}
    for entry in special:
        wanted.setdefault(entry["content"], entry)
    new = [entry for content, entry in wanted.items() if isinstance(content, str) and content and content not in known]
    for entry in new:
        is_special = bool(entry.get("special"))
        flags = {name: bool(entry.get(name)) for name in ("lstrip", "rstrip", "single_word")}
        flags["normalized"] = bool(entry.get("normalized", not is_special))
        token = AddedToken(entry["content"], special=is_special, **flags)
        (tokenizer.add_special_tokens if is_special else tokenizer.add_tokens)([token])
    return bool(new)


def _older_list(path: Path, special: set[str]) -> dict[str, Any]:
    """added_tokens.json, which transformers reads where tokenizer_config.json lists none: ids by token."""
    found = {}
    for content, number in read_json(path).items():
        if type(number) is not int or number < 0:
            raise CheckpointError(f"{path} has the id {number!r} for the token {content!r}, expected a number")
        is_special = content in special
        found[str(number)] = {"content": content, "special": is_special, "normalized": not is_special}
    return found


def _special_tokens(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Special tokens by name and by list, as AddedToken's arguments."""
    tokens = [settings.get(name) for name in _SPECIAL_NAMES]
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or ()
    # Tokens of this model alone: any key that says it is one, and those that stand together under one key.
    own = {key: value for key, value in settings.items() if key.endswith("_token") and key not in _SPECIAL_NAMES}
    own = {key: value for key, value in own.items() if isinstance(value, str) or _is_token(value)}
    named = settings.get("model_specific_special_tokens")
    for group in (own, extra if isinstance(extra, dict) else {}, named if isinstance(named, dict) else {}):
        tokens += group.values()
    tokens += extra if isinstance(extra, list) else []
    entries = [token if isinstance(token, dict) else {"content": token} for token in tokens]
    return [
        {"normalized": False, **entry, "special": True} for entry in entries if isinstance(entry.get("content"), str)
    ]


def _is_token(value: Any) -> bool:
    return isinstance(value, dict) and value.get("__type") == "AddedToken"


def _keep_whole(tokenizer: Tokenizer, markers: Sequence[str]) -> bool:
    """Make a token of each marker that the vocabulary has and the tokenizer would split; whether that changed anything.

    A marker may be stored with the space behind it. One that the vocabulary lacks is text like any other.
    """
    added = []
    for marker in markers:
        first = next((name for name in (marker, *marker.split()[:1]) if tokenizer.token_to_id(name) is not None), None)
        if first is not None and tokenizer.encode(first, add_special_tokens=False).tokens != [first]:
            added.append(AddedToken(first, special=True, normalized=False))
    if added:
        tokenizer.add_special_tokens(added)
    return bool(added)


def special_token(checkpoint: Checkpoint, tokenizer: Vocabulary, name: str) -> int | None:
    """Id of a special token such as "mask_token": as the tokenizer's settings say, else under its usual spellings."""
    said = _settings(checkpoint).get(name)
    said = said.get("content") if isinstance(said, dict) else said
    for spelling in (said,) if isinstance(said, str) else _SPELLINGS.get(name, ()):
        found = tokenizer.token_to_id(spelling)
        if found is not None:
            return found
    return None


def _truncation_side(checkpoint: Checkpoint, tokenizer: Tokenizer) -> str:
    """The side of tokenizer_config.json, else the one that tokenizer.json was saved with, else the end."""
    saved = tokenizer.truncation or {}
    side = _settings(checkpoint).get("truncation_side") or str(saved.get("direction", TRUNCATION_SIDES[0])).lower()
    if side not in TRUNCATION_SIDES:
        known = ", ".join(TRUNCATION_SIDES)
        raise CheckpointError(f"{checkpoint.path}: truncation_side {side!r} is not known; known: {known}")
    return str(side)


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
            if known is not None and known < checkpoint.config.get("vocab_size", known + 1):
                return int(known)
    configured = checkpoint.config.get("pad_token_id")
    return configured if isinstance(configured, int) and configured >= 0 else 0


def _convert(checkpoint: Checkpoint) -> str:
    """tokenizer.json of slow tokenizer files, by transformers, with all their settings applied."""
    directory = checkpoint.path
    for pattern in VOCABULARIES:
        for file in directory.glob(pattern):
            refuse_pointer(file)
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise MissingDependencyError(
            f"{directory} has no tokenizer.json; install transformers to convert its tokenizer "
            "(pip install 'fastembed-rt[verify]'), or save it with a fast tokenizer's save_pretrained()"
        ) from error
    passed = {**checkpoint.tokenizer_settings, "use_fast": True, "local_files_only": True}
    passed.pop("trust_remote_code", None)
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), **passed)
        backend = tokenizer.backend_tokenizer
        return str(backend.to_str())
    except Exception as error:
        if not theirs(error):
            raise
        reason = first_line(error)
        raise CheckpointError(
            f"{directory} has no tokenizer.json and its tokenizer cannot be converted ({reason}); "
            "save it with a fast tokenizer's save_pretrained()"
        ) from error
