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

from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers

from fastembed_rt.manifest import TRUNCATION_SIDES

from .checkpoint import Checkpoint
from .errors import CheckpointError, MissingDependencyError
from .files import read_json

# Tokenizer classes of transformers that set up a BertNormalizer from tokenizer_config.json, whatever is in
# tokenizer.json.
_BERT_CLASSES = (
    *("Bert", "ConvBert", "DistilBert", "Electra", "Funnel", "LayoutLM", "LayoutLMv2", "LayoutLMv3", "Lxmert"),
    *("MPNet", "MobileBert", "Splinter", "SqueezeBert"),
)
# Model types whose class is one of these when neither config names one.
_BERT_TYPES = (
    *("bert", "convbert", "distilbert", "electra", "funnel", "layoutlm", "lxmert", "mpnet", "mobilebert", "splinter"),
    *("squeezebert", "nomic_bert"),
)
# The same for byte-level BPE and its add_prefix_space.
_BYTE_CLASSES = ("Roberta", "GPT2", "Longformer", "CodeGen", "Deberta", "Bart")
_BYTE_TYPES = ("roberta", "gpt2", "longformer", "deberta", "bart")
_SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_SPELLINGS = {"mask_token": ("[MASK]", "<mask>"), "eos_token": ("</s>", "<|endoftext|>", "<eos>")}
_SPECIAL_LISTS = ("additional_special_tokens", "extra_special_tokens")


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


def load(checkpoint: Checkpoint) -> TokenizerFile:
    """Tokenizer of a checkpoint.

    Raises:
        CheckpointError: no tokenizer, or one that the tokenizers library cannot read.
        MissingDependencyError: only slow tokenizer files, and transformers is not installed to convert them.
    """
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
    if checkpoint.is_static:
        # sentence-transformers reads the file alone, and asks it for no special tokens.
        text = json.dumps({**json.loads(text), "post_processor": None}, ensure_ascii=False)
        return TokenizerFile(text, 0, _truncation_side(checkpoint, tokenizer))
    if path.is_file() and _overrule(tokenizer, _settings(checkpoint), checkpoint.config):
        text = tokenizer.to_str()
    if checkpoint.lower_case and not _lower_cases(tokenizer.normalizer):
        before = [normalizers.Lowercase()]
        before += [tokenizer.normalizer] if tokenizer.normalizer is not None else []
        tokenizer.normalizer = normalizers.Sequence(before)
        text = tokenizer.to_str()
    if _keep_whole(tokenizer, checkpoint.markers):
        text = tokenizer.to_str()
    return TokenizerFile(text, _pad_token_id(checkpoint, tokenizer), _truncation_side(checkpoint, tokenizer))


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """What tokenizer_config.json says; special_tokens_map.json counts where that lists no added tokens."""
    directory = checkpoint.path
    path, special = directory / "tokenizer_config.json", directory / "special_tokens_map.json"
    settings = read_json(path) if path.is_file() else {}
    if special.is_file() and "added_tokens_decoder" not in settings:
        settings = {**settings, **read_json(special)}
    return {**settings, **checkpoint.tokenizer_settings}


def _overrule(tokenizer: Tokenizer, settings: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """Apply tokenizer_config.json to the tokenizer, as transformers does; whether that changed anything."""
    changes = [
        _bert_normalizer(tokenizer, settings, config),
        _prefix_space(tokenizer, settings, config),
        _added_tokens(tokenizer, settings),
    ]
    return any(changes)


def _is_class(
    settings: Mapping[str, Any], config: Mapping[str, Any], classes: tuple[str, ...], types: tuple[str, ...]
) -> bool:
    named = settings.get("tokenizer_class") or config.get("tokenizer_class")
    if isinstance(named, str):
        return named.removesuffix("Fast").removesuffix("Tokenizer") in classes and named.endswith(("Tokenizer", "Fast"))
    return config.get("model_type") in types


def _bert_normalizer(tokenizer: Tokenizer, settings: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """do_lower_case, strip_accents and tokenize_chinese_chars, by default True, None and True."""
    old = tokenizer.normalizer
    if not isinstance(old, normalizers.BertNormalizer):
        return False
    if not _is_class(settings, config, _BERT_CLASSES, _BERT_TYPES):
        return False
    wanted: dict[str, Any] = {
        "lowercase": bool(settings.get("do_lower_case", True)),
        "strip_accents": settings.get("strip_accents"),
        "handle_chinese_chars": bool(settings.get("tokenize_chinese_chars", True)),
    }
    if all(getattr(old, name) == value for name, value in wanted.items()):
        return False
    tokenizer.normalizer = normalizers.BertNormalizer(clean_text=old.clean_text, **wanted)
    return True


def _prefix_space(tokenizer: Tokenizer, settings: Mapping[str, Any], config: Mapping[str, Any]) -> bool:
    """add_prefix_space, by default False: whether a text's first word begins with a space."""
    old = tokenizer.pre_tokenizer
    if not isinstance(old, pre_tokenizers.ByteLevel) or not _is_class(settings, config, _BYTE_CLASSES, _BYTE_TYPES):
        return False
    wanted = bool(settings.get("add_prefix_space", False))
    if old.add_prefix_space == wanted:
        return False
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=wanted, use_regex=old.use_regex)
    return True


def _added_tokens(tokenizer: Tokenizer, settings: Mapping[str, Any]) -> bool:
    """Tokens that tokenizer_config.json adds to those of tokenizer.json, in the order of their ids."""
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    listed = settings.get("added_tokens_decoder") or {}
    if not isinstance(listed, dict) or not all(key.isdigit() and isinstance(listed[key], dict) for key in listed):
        raise CheckpointError("tokenizer_config.json has added_tokens_decoder that is not tokens by id")
    wanted = {entry.get("content"): entry for _, entry in sorted(listed.items(), key=lambda item: int(item[0]))}
    for entry in _special_tokens(settings):
        # Without an id of its own no text can ask for it: at most it fills padding, which is masked.
        if tokenizer.token_to_id(entry["content"]) is not None:
            wanted.setdefault(entry["content"], entry)
    new = [entry for content, entry in wanted.items() if isinstance(content, str) and content and content not in known]
    for entry in new:
        special = bool(entry.get("special"))
        flags = {name: bool(entry.get(name)) for name in ("lstrip", "rstrip", "single_word")}
        flags["normalized"] = bool(entry.get("normalized", not special))
        token = AddedToken(entry["content"], special=special, **flags)
        (tokenizer.add_special_tokens if special else tokenizer.add_tokens)([token])
    return bool(new)


def _special_tokens(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Special tokens by name and by list, as AddedToken's arguments."""
    tokens = [settings.get(name) for name in _SPECIAL_NAMES]
    for name in _SPECIAL_LISTS:
        tokens += settings[name] if isinstance(settings.get(name), list) else []
    entries = [token if isinstance(token, dict) else {"content": token} for token in tokens]
    return [
        {"normalized": False, **entry, "special": True} for entry in entries if isinstance(entry.get("content"), str)
    ]


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
