"""A tokenizer as transformers sets it up from tokenizer.json and the settings beside it.

transformers 5 builds most classes anew (`tokenizer_rules`); transformers 4 took the file as it is but for a few
settings. The major version that is installed decides, since vectors are compared with it; without one it is 5.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from ..errors import CheckpointError, UnsupportedCheckpointError, theirs
from . import added_tokens, class_names, ends, piece_scores
from .added_tokens import NAMES, Token, Tokens
from .parts import Given, bert_normalizer
from .rules import CLASSES, Again, TokenizerClass

Settings = Mapping[str, Any]
# What the models of the tokenizers library are without flags.
_FLAGS: Mapping[str, Mapping[str, Any]] = {
    "WordPiece": {"unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100},
    "BPE": {
        **dict.fromkeys(("dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix")),
        **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), False),
    },
    "Unigram": {"unk_id": None, "byte_fallback": False},
}


def set_up(
    text: str,
    read: Tokenizer,
    settings: Settings,
    passed: Settings,
    config: Settings,
    directory: Path,
    notes: list[str],
) -> Tokenizer | None:
    """The tokenizer that transformers makes; None where tokenizer.json alone gives the same.

    Around texts stand the special tokens that tokenizer_config.json asks for, which transformers 5 passes over.

    Args:
        text: of tokenizer.json.
        read: what the tokenizers library reads from it; may be changed.
        settings: of tokenizer_config.json.
        passed: what the module passes on, which counts more.
        config: of config.json.
        directory: of the checkpoint.
        notes: gets a sentence where transformers leaves out what is said.

    Raises:
        CheckpointError: a file that does not fit its class.
        UnsupportedCheckpointError: a class whose ways are not known.
    """
    misread = False  # scores, by the tokenizers library

    def number(literal: str) -> float:
        nonlocal misread
        misread = misread or piece_scores.as_read(literal) != float(literal)
        return float(literal)

    body = json.loads(text, parse_float=number)
    tokens = added_tokens.read(settings, passed, directory, body)
    name = _class(settings, config, text)
    row = _row(name, directory)
    given = _given(row, {**settings, **passed}, body, tokens)
    asked = ends.asked(settings, config)
    if _major() < 5:
        return _as_before(read, name, row, given, tokens, asked, notes)
    before = _parts(read)
    try:
        made = _built(row, given, read)
        _with_tokens(made, row, given, tokens, templated=bool(body.get("post_processor")))
        if asked is not None:
            _put_around(made, given, asked, notes)
    except Exception as error:
        if not theirs(error):
            raise
        maker = f"{name}Tokenizer" if name else "TokenizersBackend"
        raise CheckpointError(
            f"{directory}: transformers' {maker} cannot be made from this tokenizer.json ({error}); "
            f"{_ADVICE.format(maker)}"
        ) from error
    same = _keeps_model(row, given) and not (row.kind and misread)
    return None if same and _parts(made) == before else made


def named(text: str, settings: Settings, passed: Settings, config: Settings, directory: Path) -> dict[str, str]:
    """Special tokens by name, as transformers gives them to chat templates; arguments as for `set_up`."""
    body = json.loads(text)
    tokens = added_tokens.read(settings, passed, directory, body)
    given = _given(_row(_class(settings, config, text), directory), {**settings, **passed}, body, tokens)
    return {name: str(token) for name, token in given.named.items() if token is not None}


def special(text: str, settings: Settings, passed: Settings, config: Settings, directory: Path) -> set[str]:
    """Special tokens that have a name or are listed, which are transformers' all_special_tokens; tokenizer.json may
    call others special too. Arguments as for `set_up`.
    """
    body = json.loads(text)
    tokens = added_tokens.read(settings, passed, directory, body)
    row = _row(_class(settings, config, text), directory)
    given = _given(row, {**settings, **passed}, body, tokens)
    return {str(token) for token in (*given.named.values(), *_extra(row, given, tokens)) if token is not None}


_ADVICE = (
    "save the checkpoint with its own tokenizer, or, if vectors were made with tokenizer.json as it is, write "
    '"tokenizer_class": "PreTrainedTokenizerFast" into tokenizer_config.json in place of {}'
)


def _class(settings: Settings, config: Settings, text: str) -> str:
    if _major() < 5:
        return class_names.named(settings, config)
    return class_names.find(settings, config, byte_level=class_names.BYTE_LEVEL in text)


def _row(name: str, directory: Path) -> TokenizerClass:
    if name in class_names.IN_PYTHON:
        why = "which is written in Python and does not read tokenizer.json"
    elif name in class_names.OTHERS and _major() >= 5:
        why = "which makes another tokenizer of tokenizer.json, in a way that is not built"
    else:
        return CLASSES.get(name, TokenizerClass())  # the latter for tokenizer.json as it is
    raise UnsupportedCheckpointError(
        f"{directory}: transformers tokenizes with {name}Tokenizer, {why}; {_ADVICE.format(name + 'Tokenizer')}"
    )


def _major() -> int:
    """The major version of transformers that vectors are compared with."""
    try:
        return int(metadata.version("transformers").partition(".")[0])
    except (metadata.PackageNotFoundError, ValueError):
        return 5


def _given(row: TokenizerClass, settings: Settings, body: Mapping[str, Any], tokens: Tokens) -> Given:
    """The settings, with the class's special tokens where they are silent."""
    named: dict[str, Token] = {}
    padding = body.get("padding") or {}
    saved = {"pad_token": padding["pad_token"]} if padding.get("pad_token") else {}
    for name in NAMES:
        for source in (tokens.named, row.named, saved):
            if name in source:
                named[name] = source[name]
                break
    mask = named.get("mask_token")
    if row.mask is not None and isinstance(mask, str):
        named["mask_token"] = AddedToken(mask, **row.mask)
    return Given(settings, body, {**named, **row.own, **tokens.own})


def _built(row: TokenizerClass, given: Given, read: Tokenizer) -> Tokenizer:
    """The class's model and the parts before it, without added tokens; `read` itself where these are the file's."""
    if not row.kind:
        return read
    made = Tokenizer(_model(row, given))
    normalizer, pre_tokenizer = row.normalizer(given), row.pre_tokenizer(given)
    if normalizer is not None:
        made.normalizer = normalizer
    if pre_tokenizer is not None:
        made.pre_tokenizer = pre_tokenizer
    for part in ("post_processor", "decoder"):
        if getattr(read, part) is not None:
            setattr(made, part, getattr(read, part))
    if read.truncation is not None:
        made.enable_truncation(**read.truncation)
    if read.padding is not None:
        made.enable_padding(**read.padding)
    return made


def _model(row: TokenizerClass, given: Given) -> Any:
    described = given.body["model"]
    vocabulary = described["vocab"]
    if row.kind == "Unigram":
        if not isinstance(vocabulary, list):
            raise ValueError("its model has no pieces with scores")
        pieces = [(str(piece), float(score)) for piece, score in vocabulary]
        return models.Unigram(pieces, **row.flags(given))
    if isinstance(vocabulary, list):
        vocabulary = {entry[0]: number for number, entry in enumerate(vocabulary)}
    if row.kind == "WordPiece":
        return models.WordPiece(vocabulary, **row.flags(given))
    merges = [tuple(merge.split(" ") if isinstance(merge, str) else merge) for merge in described.get("merges") or []]
    return models.BPE(vocabulary, merges, **row.flags(given))


def _with_tokens(made: Tokenizer, row: TokenizerClass, given: Given, tokens: Tokens, *, templated: bool) -> None:
    """Add the tokens, then the class's special tokens around texts; `templated`: the file has such."""
    extra = _extra(row, given, tokens)
    added_tokens.add(made, tokens, given.named, extra)
    special = [token for token in (*given.named.values(), *extra) if token is not None]
    if row.again is Again.PLAIN:
        made.add_tokens([AddedToken(str(token), special=True) for token in special])
    if row.again is Again.KEPT:
        made.add_special_tokens(
            [
                AddedToken(token, special=True, normalized=False) if isinstance(token, str) else token
                for token in special
            ]
        )
        if not templated:
            return
    ends = row.ends or (None if templated else row.ends_without)
    if ends is not None:
        made.post_processor = _template(made, ends, given, row.ids)


def _extra(row: TokenizerClass, given: Given, tokens: Tokens) -> Sequence[Token]:
    return row.extra(tokens.older_extra, given) if tokens.extra is None else tokens.extra


def _template(made: Tokenizer, ends: tuple[str, str], given: Given, ids: Mapping[str, int]) -> Any:
    names = {name.removesuffix("_token"): str(token) for name, token in given.named.items()}
    unknown = made.token_to_id(given.token("unk_token"))
    used: dict[str, Any] = {}

    def piece(part: str) -> str:
        name, _, kind = part.rpartition(":")
        if name.startswith("$"):
            return part
        key = name.strip("{}")
        content = names[key] if name != key else name
        number = ids.get(key, made.token_to_id(content))
        number = unknown if number is None else number
        if used.setdefault(content, number) != number:
            content = key  # two ids of one text
            used[content] = number
        return f"{content}:{kind}"

    single, pair = ([piece(part) for part in template.split()] for template in ends)
    return processors.TemplateProcessing(single=single, pair=pair, special_tokens=list(used.items()))


def _put_around(made: Tokenizer, given: Given, asked: ends.Asked, notes: list[str]) -> None:
    """Replace the special tokens around texts by those that are asked for; a note where they are others."""
    first = "{bos}:0 " if asked.bos and given.named.get("bos_token") is not None else ""
    last = " {eos}:0" if asked.eos and given.named.get("eos_token") is not None else ""
    single = f"{first}$A:0{last}"
    before = made.encode("").ids
    pair = f"{single} {single.replace('$A', '$B').replace(':0', ':1')}"
    made.post_processor = _template(made, (single, pair), given, {})
    if made.encode("").ids != before:
        notes.append(ends.note(asked, made.encode("").tokens))


def _keeps_model(row: TokenizerClass, given: Given) -> bool:
    """Whether the class's model, whose vocabulary is the file's, is the file's."""
    described = given.body["model"]
    if not row.kind or described.get("type", row.kind) != row.kind:
        return not row.kind
    wanted = {**_FLAGS[row.kind], **row.flags(given)}
    return all(_or_none(described.get(flag, _FLAGS[row.kind][flag])) == _or_none(wanted[flag]) for flag in wanted)


def _or_none(flag: Any) -> Any:
    return None if flag == "" else flag


def _parts(tokenizer: Tokenizer) -> list[object]:
    """What a tokenizer is beside its vocabulary; two with the same give the same ids.

    The special tokens around texts are looked up in ids and types of no text, of a text, and of two, since they can be
    said in several ways.
    """
    parts = (tokenizer.normalizer, tokenizer.pre_tokenizer)
    added = {number: repr(token) for number, token in tokenizer.get_added_tokens_decoder().items()}
    try:
        encoded = [tokenizer.encode(""), tokenizer.encode("a"), tokenizer.encode("a", "a")]
    except Exception as error:
        if not theirs(error):
            raise
        encoded = []  # of a vocabulary that lacks its own unknown token
    around = [(encoding.ids, encoding.type_ids) for encoding in encoded]
    return [*(None if part is None else part.__getstate__() for part in parts), added, around]


# --- transformers 4 --------------------------------------------------------------------------------------------------

_BERT_LIKE = ("Bert", "ConvBert", "Funnel", "MPNet", "Splinter")


def _as_before(
    read: Tokenizer,
    name: str,
    row: TokenizerClass,
    given: Given,
    tokens: Tokens,
    asked: ends.Asked | None,
    notes: list[str],
) -> Tokenizer | None:
    """The file, with BERT's settings of letters, add_prefix_space, and the ends of classes that make them anew."""
    before = _parts(read)
    added_tokens.add(read, tokens, given.named, _extra(row, given, tokens))
    if name in _BERT_LIKE and isinstance(read.normalizer, normalizers.BertNormalizer):
        clean = json.loads(read.normalizer.__getstate__())["clean_text"]
        read.normalizer = bert_normalizer(given, clean=clean)
    if isinstance(read.pre_tokenizer, pre_tokenizers.ByteLevel):
        prefix = given.flag("add_prefix_space", False)
        regex = json.loads(read.pre_tokenizer.__getstate__()).get("use_regex", True)
        read.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=regex)
    if asked is not None and asked.by_code:
        _put_around(read, given, asked, notes)
    elif name in ends.BOS:  # by itself, said or not
        _put_around(read, given, asked or ends.Asked(ends.BOS[name], False), [])
    return None if _parts(read) == before else read
