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

from fastembed_rt.manifest import RERANKING, TRUNCATION_SIDES

from ..checkpoint.record import Checkpoint
from ..errors import CheckpointError, InvalidInputError, MissingDependencyError, first_line, theirs
from ..files import read_json, refuse_pointer
from . import class_names, ends, phobert, piece_scores, set_as_said, words
from .added_tokens import SPECIAL_MAP

SETTINGS = "tokenizer_config.json"
_SPELLINGS = {"mask_token": ("[MASK]", "<mask>"), "eos_token": ("</s>", "<|endoftext|>", "<eos>")}
VOCABULARIES = ("*.txt", "*.model", "*.json", "*.tiktoken")  # files of slow tokenizers
# Files that transformers takes for a class's vocabulary under other names than the class's own.
_OTHER_VOCABULARIES = ("tokenizer.model*", "*.tiktoken", "tiktoken.model", "tekken.json", "tokenizer.*.json")
_SOME_VOCABULARY = ("*vocab*", "*.model", "merges.txt", "dict.txt", "*.codes")  # what classes call theirs
_NO_VOCABULARY = {"tokenizer.json", SETTINGS, "normalizer.json", "entity_vocab.json"}  # beside it
_PANIC = "PanicException"  # what the Rust library raises of a template that names a token without its id; no Exception
_FEWEST_WORDS = 2  # classes that transformers makes of nothing have up to one word beside their special tokens


class Vocabulary(Protocol):
    """What knows tokens by name."""

    def token_to_id(self, token: str) -> int | None:
        """Id of a token, None where there is none."""


@dataclass(frozen=True)
class TokenizerFile:
    """Text of tokenizer.json, and facts about it: the id that fills padded positions, where long texts lose tokens."""

    text: str
    pad_token_id: int
    truncation_side: str = "right"
    rows: int | None = None  # of the word table, where there are ids without one
    bare: bool = False  # whether it adds no special tokens, so that a text may be without a token
    notes: tuple[str, ...] = ()  # what users of its ids should know
    copied: tuple[int, ...] = ()  # rows of the word table that ids behind it are copies of, see phobert.py


def load(checkpoint: Checkpoint) -> TokenizerFile:
    """Tokenizer of a checkpoint.

    Raises:
        CheckpointError: no tokenizer, or one that the tokenizers library cannot read.
        MissingDependencyError: only slow tokenizer files, and transformers is not installed to convert them.
    """
    path = checkpoint.path / "tokenizer.json"
    refuse_pointer(path)
    asked = asked_ends(checkpoint)
    try:
        own = _reads_file(checkpoint)
        text, copied = (path.read_text(encoding="utf-8"), ()) if own else _convert(checkpoint, asked)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path} is not a text file ({error}); download it again") from error
    tokenizer = parsed(text, path)
    if checkpoint.is_static and checkpoint.head is None:
        _refuse_without_words(checkpoint, tokenizer)
        # sentence-transformers reads the file alone, and asks it for no special tokens.
        text = _bare(tokenizer)
        side = _truncation_side(checkpoint, tokenizer, {})
        return TokenizerFile(text, 0, side, _rows(checkpoint, tokenizer), bare=True)
    changed = False
    notes: list[str] = []
    if own:
        said, passed, config = _file(checkpoint, SETTINGS), checkpoint.tokenizer_settings, checkpoint.config
        made = set_as_said.set_up(text, tokenizer, said, passed, config, checkpoint.path, notes)
        changed, tokenizer = made is not None, made or tokenizer
    elif asked is not None and asked.bos and ends.KEYS[0] not in _file(checkpoint, SETTINGS):
        notes.append(ends.note(asked, tokenizer.encode("").tokens))
    _refuse_without_words(checkpoint, tokenizer)  # after what is said of its class
    if checkpoint.lower_case and not _lower_cases(tokenizer.normalizer):
        before = [normalizers.Lowercase()]
        before += [tokenizer.normalizer] if tokenizer.normalizer is not None else []
        tokenizer.normalizer = normalizers.Sequence(before)
        changed = True
    if _keep_whole(tokenizer, checkpoint.markers) or changed:
        text = piece_scores.exact(tokenizer.to_str())
    if not checkpoint.include_prompt and own:
        known = set_as_said.special(text, said, passed, config, checkpoint.path)
        text = _special_alone(text, known)
    bare = checkpoint.is_static or checkpoint.chat is not None  # transformers' tokenizer, asked for no special tokens
    if bare:
        text, notes = _bare(tokenizer), []
    rows = None if copied else _rows(checkpoint, tokenizer)
    bare = bare or not tokenizer.num_special_tokens_to_add(False)
    if not bare:
        _check_room(checkpoint, tokenizer)
    pad, side = _pad_token_id(checkpoint, tokenizer), _truncation_side(checkpoint, tokenizer, _settings(checkpoint))
    return TokenizerFile(text, pad, side, rows, bare, tuple(notes), copied)


def _reads_file(checkpoint: Checkpoint) -> bool:
    """Whether the checkpoint's tokenizer.json is what is read: not where transformers reads other files of it."""
    if checkpoint.has_words or not (checkpoint.path / "tokenizer.json").is_file():
        return False
    kind = class_names.find(_file(checkpoint, SETTINGS), checkpoint.config, byte_level=False)
    there = all((checkpoint.path / name).is_file() for name in phobert.FILES)
    return not (there and f"{kind}Tokenizer" in phobert.CLASSES)


def asked_ends(checkpoint: Checkpoint) -> ends.Asked | None:
    """The special tokens around texts that the checkpoint's settings ask for; see ends.py."""
    converted = not (checkpoint.path / "tokenizer.json").is_file()
    return (
        None
        if checkpoint.is_static
        else ends.asked(_file(checkpoint, SETTINGS), checkpoint.config, converted=converted)
    )


def refuse_code(checkpoint: Checkpoint) -> None:
    """Raise UnsupportedCheckpointError where code of the checkpoint's own makes its tokens and is not compared with."""
    if not checkpoint.is_static and not checkpoint.trusted:
        ends.refuse_code(_file(checkpoint, SETTINGS), checkpoint.path / SETTINGS)


def parsed(text: str, path: Path) -> Tokenizer:
    """The tokenizer of the text of tokenizer.json, which is at `path`.

    Raises:
        CheckpointError: the tokenizers library cannot read it.
    """
    advice = "update tokenizers or save it again"
    try:
        made = Tokenizer.from_str(text)
    except Exception as error:
        if not theirs(error):
            raise
        raise CheckpointError(f"{path} cannot be read by tokenizers ({error}); {advice}") from error
    try:
        made.encode_batch(["a", ("a", "a")])
    except BaseException as error:
        if type(error).__name__ == _PANIC:
            raise CheckpointError(f"{path} cannot be used by tokenizers ({error}); {advice}") from error
        if not isinstance(error, Exception) or not theirs(error):
            raise
        # Else a vocabulary that lacks its own unknown token: texts will say so.
    return made


def _check_room(checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    """Raise where all that texts are cut to is special tokens, since no text has a vector of its own then."""
    special = tokenizer.num_special_tokens_to_add(checkpoint.task == RERANKING)
    if checkpoint.max_length > special:
        return
    said = f"max_length {checkpoint.max_length} leaves no room beside {special} special tokens"
    if "max_length" in checkpoint.overrides:
        raise InvalidInputError(said)
    raise CheckpointError(f"{checkpoint.path}: {said}; change it in the checkpoint's settings, or pass --max-length")


def _bare(tokenizer: Tokenizer) -> str:
    """tokenizer.json of a tokenizer that adds no special tokens."""
    bare = {**json.loads(tokenizer.to_str()), "post_processor": None}
    return piece_scores.exact(json.dumps(bare, ensure_ascii=False))


def _special_alone(text: str, known: set[str]) -> str:
    """tokenizer.json that calls no other tokens special: whether one ends a prompt decides how long that is."""
    body = json.loads(text)
    others = [token for token in body.get("added_tokens") or [] if token["special"] and token["content"] not in known]
    for token in others:
        token["special"] = False
    return piece_scores.exact(json.dumps(body, ensure_ascii=False)) if others else text


def _rows(checkpoint: Checkpoint, tokenizer: Tokenizer) -> int | None:
    """Rows of the word table where the tokenizer has ids beyond them, else None."""
    rows = checkpoint.config.get("vocab_size")
    largest = max(tokenizer.get_vocab().values(), default=-1)
    return rows if isinstance(rows, int) and largest >= rows else None


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """What tokenizer_config.json says; special_tokens_map.json counts where that lists no added tokens."""
    settings = _file(checkpoint, SETTINGS)
    special = {} if "added_tokens_decoder" in settings else _file(checkpoint, SPECIAL_MAP)
    return {**settings, **special, **checkpoint.tokenizer_settings}


def _file(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
    path = checkpoint.path / name
    return read_json(path) if path.is_file() else {}


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


def _truncation_side(checkpoint: Checkpoint, tokenizer: Tokenizer, settings: Mapping[str, Any]) -> str:
    """The side of the settings, else the one that tokenizer.json was saved with, else the end."""
    saved = tokenizer.truncation or {}
    side = settings.get("truncation_side") or str(saved.get("direction", TRUNCATION_SIDES[0])).lower()
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
    for name in (SETTINGS, SPECIAL_MAP):
        token = _file(checkpoint, name).get("pad_token")
        content = token.get("content") if isinstance(token, dict) else token
        known = tokenizer.token_to_id(content) if isinstance(content, str) else None
        rows = checkpoint.config.get("vocab_size")
        if known is not None and (not isinstance(rows, int) or known < rows):
            return int(known)
    configured = checkpoint.config.get("pad_token_id")
    return configured if isinstance(configured, int) and configured >= 0 else 0


def _refuse_without_words(checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    """Raise CheckpointError where no text has a known token, as with what transformers makes without a vocabulary."""
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special}
    vocabulary = set(tokenizer.get_vocab(with_added_tokens=True))
    if len(vocabulary - special) < _FEWEST_WORDS:
        rows = checkpoint.config.get("vocab_size")
        beside = f" beside a word table of {rows} rows" if isinstance(rows, int) else ""
        raise CheckpointError(
            f"the tokenizer of {checkpoint.path} has no words, its tokens are {len(vocabulary)} in all{beside}: the "
            "checkpoint's vocabulary files are missing, or it was saved after they were; take tokenizer.json of the "
            "model that it was trained from"
        )


def _refuse_without_vocabulary(directory: Path, tokenizer: Any) -> None:
    """Raise CheckpointError where no vocabulary is there: of the tokenizer's class, or, with None, of any class.

    transformers makes a tokenizer without words then, without a sentence.
    """
    own: tuple[str, ...]
    if tokenizer is None:
        own, absent = _SOME_VOCABULARY, "no other vocabulary"
    else:
        own = tuple(sorted(set(getattr(tokenizer, "vocab_files_names", {}).values()) - _NO_VOCABULARY))
        absent = f"no {' and no '.join(own)} of its {type(tokenizer).__name__}"
        if not own:  # its words are part of its code, or it needs no words
            return
    if not any(_there(directory, pattern) for pattern in (*own, *_OTHER_VOCABULARIES)):
        raise CheckpointError(
            f"{directory} lacks the checkpoint's vocabulary files: there is no tokenizer.json and {absent}; copy or "
            "download the whole checkpoint again"
        )


def _there(directory: Path, pattern: str) -> bool:
    return any(True for _ in directory.glob(pattern))


def _convert(checkpoint: Checkpoint, asked: ends.Asked | None) -> tuple[str, tuple[int, ...]]:
    """tokenizer.json of slow tokenizer files, by transformers, with all their settings applied; rows that it copies."""
    directory = checkpoint.path
    if checkpoint.has_words:
        return words.convert(directory), ()
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
    passed |= {} if asked is None else asked.arguments
    tokenizer = None
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(directory), **passed)
        _refuse_without_vocabulary(directory, tokenizer)
        if type(tokenizer).__name__ in phobert.CLASSES:
            return phobert.convert(tokenizer, checkpoint.config["vocab_size"])
        backend = tokenizer.backend_tokenizer
        return piece_scores.exact(str(backend.to_str())), ()
    except Exception as error:
        if isinstance(error, CheckpointError) or not theirs(error):
            raise
        if tokenizer is None:
            _refuse_without_vocabulary(directory, None)
        reason = first_line(error)
        raise CheckpointError(
            f"{directory} has no tokenizer.json and its tokenizer cannot be converted ({reason}); "
            "save it with a fast tokenizer's save_pretrained()"
        ) from error
