"""The tokens that texts may hold beside those of the vocabulary, and the settings that name them.

transformers takes them from tokenizer_config.json, special_tokens_map.json, added_tokens.json and tokenizer.json, each
only where another is silent. One that the vocabulary lacks gets an id behind it, which the model has a row for or not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer

from ..errors import CheckpointError
from ..files import read_json

Token = str | AddedToken | None  # None: a name that the settings take away
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
ADDED_TOKENS, SPECIAL_MAP = "added_tokens.json", "special_tokens_map.json"
_FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


@dataclass(frozen=True)
class Tokens:
    """What the files say of tokens, before a class adds what it takes for granted."""

    listed: Mapping[int, AddedToken]  # by the id that they had once
    named: Mapping[str, Token]  # by name, those of NAMES that are said first and in their order
    own: Mapping[str, Token]  # by names that only this model knows
    extra: Sequence[Token] | None  # None: nothing is said of them
    older_extra: Sequence[Token] | None = None  # under the older name, where a class reads that itself


def read(settings: Mapping[str, Any], passed: Mapping[str, Any], directory: Path, body: Mapping[str, Any]) -> Tokens:
    """Tokens of a checkpoint, each source where transformers reads it.

    Args:
        settings: of tokenizer_config.json.
        passed: what the module passes on, which counts more.
        directory: of the checkpoint.
        body: tokenizer.json.

    Raises:
        CheckpointError: lists that are none.
    """
    said = {**settings, **passed}
    if said.get("additional_special_tokens") is not None and not said.get("extra_special_tokens"):
        said["extra_special_tokens"] = said.pop("additional_special_tokens")
    own = {key: said.pop(key) for key in list(said) if _is_own(key) and isinstance(said[key], str)}
    if isinstance(said.get("extra_special_tokens"), dict):
        own.update(said.pop("extra_special_tokens"))
    if own:
        said["model_specific_special_tokens"] = own
    listed: dict[int, AddedToken] = {}
    if "added_tokens_decoder" in said:
        listed = _by_id(said["added_tokens_decoder"])
    else:
        if (directory / SPECIAL_MAP).is_file():
            _merge(said, passed, read_json(directory / SPECIAL_MAP))
        if (directory / ADDED_TOKENS).is_file():
            listed = _older_list(directory / ADDED_TOKENS, _contents(said))
        listed |= {int(entry["id"]): _added(entry) for entry in body.get("added_tokens") or []}
    by_content = {str(token): token for token in listed.values()}

    def found(value: Any) -> Token:
        token = _token(value)
        return by_content.get(str(token), token) if token is not None else None

    written = {key: _token(value) for key, value in said.items() if _is_own(key) and is_written(value)}
    specific = said.get("model_specific_special_tokens")
    specific = specific if isinstance(specific, dict) else {}
    return Tokens(
        listed=dict(sorted(listed.items())),
        named={name: found(said[name]) for name in NAMES if name in said},
        own={**written, **{key: _token(value) for key, value in specific.items()}},
        extra=_list(said["extra_special_tokens"]) or [] if "extra_special_tokens" in said else None,
        older_extra=_list(said.get("additional_special_tokens")),
    )


def add(tokenizer: Tokenizer, tokens: Tokens, named: Mapping[str, Token], extra: Sequence[Token]) -> None:
    """Add listed tokens in the order of their ids, then named and others that are not among them."""
    adding: list[Any] = list(tokens.listed.values())
    there = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    there |= {token.content for token in adding}
    for value in (*named.values(), *extra):
        if value is not None and str(value) not in there and value not in adding:
            adding.append(value)
    names = {str(value) for value in named.values() if value is not None}
    made = []
    for value in adding:
        token = AddedToken(value, special=True) if isinstance(value, str) else value
        if not token.special and token.content in names:
            token.special = True
        made.append(token)
    if made:
        tokenizer.add_tokens(made)


def is_written(value: Any) -> bool:
    """Whether a value is a token written with its flags."""
    return isinstance(value, dict) and value.get("__type") == "AddedToken"


def _is_own(key: str) -> bool:
    return key.endswith("_token") and key not in NAMES


def _added(entry: Mapping[str, Any]) -> AddedToken:
    content = entry.get("content")
    if not isinstance(content, str):
        raise CheckpointError(f"an added token has the content {content!r}, expected text")
    return AddedToken(content, **{flag: bool(entry[flag]) for flag in _FLAGS if flag in entry})


def _token(value: Any) -> Token:
    """A token as the files write it: its text, or an object with flags, special where nothing else is said."""
    if isinstance(value, dict):
        return _added(value if "__type" in value else {**value, "special": True})
    return value if isinstance(value, (str, AddedToken)) else None


def _list(value: Any) -> Sequence[Token] | None:
    if not isinstance(value, (list, tuple)):
        return None
    tokens = (_token(one) for one in value)
    return [token for token in tokens if token is not None]


def _by_id(listed: Any) -> dict[int, AddedToken]:
    if not isinstance(listed, dict) or not all(
        str(key).isdigit() and isinstance(token, dict) for key, token in listed.items()
    ):
        raise CheckpointError("tokenizer_config.json has added_tokens_decoder that is not tokens by id")
    return {int(key): _added(token) for key, token in listed.items()}


def _merge(said: dict[str, Any], passed: Mapping[str, Any], special: Mapping[str, Any]) -> None:
    """special_tokens_map.json over the rest, but not over what is passed on."""
    for key, value in special.items():
        if passed.get(key):
            continue
        if key == "extra_special_tokens" and isinstance(value, list):
            before = said.get(key) or []
            said[key] = [*before, *(token for token in value if token not in before)]
        elif key == "extra_special_tokens" and isinstance(value, dict):
            said.pop(key, None)
            said["model_specific_special_tokens"] = {**(said.get("model_specific_special_tokens") or {}), **value}
        else:
            said[key] = {**value, "special": True} if isinstance(value, dict) else value


def _contents(said: Mapping[str, Any]) -> set[str]:
    """Texts of the tokens that have a name or are special otherwise, without those written with flags."""
    values = [*(said.get(name) for name in NAMES), *(said.get("extra_special_tokens") or [])]
    return {str(token) for value in values if not is_written(value) and (token := _token(value)) is not None}


def _older_list(path: Path, special: set[str]) -> dict[int, AddedToken]:
    """added_tokens.json: ids by token."""
    found = {}
    for content, number in read_json(path).items():
        if type(number) is not int or number < 0:
            raise CheckpointError(f"{path} has the id {number!r} for the token {content!r}, expected a number")
        is_special = content in special
        found[number] = AddedToken(content, special=is_special, normalized=not is_special)
    return found
