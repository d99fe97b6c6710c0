"""Files of tokenizers, from the data or trained small, and the ids of an export beside transformers'."""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import transformers
from tokenizer_texts import DATA, real_texts
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.tokenizer import tokenizer_json

REAL = Path(os.environ.get("FASTEMBED_RT_REAL", "/nonexistent"))  # real checkpoints, a folder each
PIECES, TRAINED = 3000, "trained"


class Described:
    """As much of a checkpoint as its tokenizer needs."""

    lower_case = False
    include_prompt = True
    task = "embedding"
    max_length = 512
    is_static = has_words = False
    markers = ()
    chat = None

    def __init__(self, path: Path, passed: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        self.tokenizer_settings = passed or {}


@dataclass(frozen=True)
class Case:
    """A tokenizer as a checkpoint has it."""

    title: str
    source: str  # where the file comes from
    lay: Callable[[Path], None]  # puts tokenizer.json, and perhaps more, into a folder
    model_type: str
    settings: Mapping[str, Any] = field(default_factory=dict)  # tokenizer_config.json

    def at(self, directory: Path, **settings: Any) -> Path:
        """The checkpoint's files in an empty folder."""
        self.lay(directory)
        write(directory / "config.json", {"model_type": self.model_type})
        before = read(directory / "tokenizer_config.json") if (directory / "tokenizer_config.json").is_file() else {}
        write(directory / "tokenizer_config.json", {**before, **self.settings, **settings})
        return directory


@dataclass(frozen=True)
class Compared:
    """How many texts have the reference's ids; `refused`: why the export takes none."""

    texts: int = 0
    different: tuple[str, ...] = ()
    alone: int = 0  # how many would not, if tokenizer.json were taken as it is
    refused: str = ""


def compare(directory: Path, texts: list[str], *, alone: bool = False) -> Compared:
    """The ids of the exported tokenizer beside AutoTokenizer's; also ids and types of some pairs.

    `alone` compares tokenizer.json as it is as well.
    """
    try:
        made = tokenizer_json.load(Described(directory))  # type: ignore[arg-type]
    except (CheckpointError, UnsupportedCheckpointError) as error:
        return Compared(refused=str(error))
    ours = Tokenizer.from_str(made.text)
    ours.no_truncation()
    ours.no_padding()
    theirs = transformers.AutoTokenizer.from_pretrained(str(directory))
    found = [encoding.ids for encoding in ours.encode_batch(texts)]
    wanted = theirs(texts, return_attention_mask=False, return_token_type_ids=False)["input_ids"]
    pairs = list(pairwise(texts[:41]))
    both = theirs([list(pair) for pair in pairs], return_token_type_ids=True)
    rows = [(encoding.ids, encoding.type_ids) for encoding in ours.encode_batch(pairs)]
    different = [text for text, a, b in zip(texts, found, wanted, strict=True) if a != b]
    expected = zip(both["input_ids"], both["token_type_ids"], strict=True)
    different += [str(pair) for pair, a, b in zip(pairs, rows, expected, strict=True) if a != b]
    if not alone:
        return Compared(len(texts), tuple(different))
    file = Tokenizer.from_file(str(directory / "tokenizer.json"))
    file.no_truncation()
    file.no_padding()
    differ = [encoding.ids != ids for encoding, ids in zip(file.encode_batch(texts), wanted, strict=True)]
    return Compared(len(texts), tuple(different), sum(differ))


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def write(file: Path, body: object) -> None:
    file.write_text(json.dumps(body), encoding="utf-8")


# --- trained vocabularies --------------------------------------------------------------------------------------------


@cache
def training_texts() -> tuple[str, ...]:
    return tuple(text[:200] for text in real_texts()[:2400])


def _model(model: Any, trainer: Any, pre_tokenizer: Any, normalizer: Any = None) -> dict[str, Any]:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(training_texts(), trainer)
    found: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return found


@cache
def word_pieces() -> dict[str, Any]:
    trainer = trainers.WordPieceTrainer(vocab_size=PIECES, limit_alphabet=700, show_progress=False)
    splits, lower = pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=False)
    return _model(models.WordPiece(unk_token="[UNK]"), trainer, splits, lower)


@cache
def byte_pairs() -> dict[str, Any]:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=PIECES, initial_alphabet=alphabet, show_progress=False)
    return _model(models.BPE(), trainer, pre_tokenizers.ByteLevel())


@cache
def space_pairs() -> dict[str, Any]:
    """BPE as sentencepiece makes it."""
    trainer = trainers.BpeTrainer(vocab_size=PIECES, limit_alphabet=700, show_progress=False)
    return _model(models.BPE(), trainer, pre_tokenizers.Metaspace())


@cache
def word_pairs() -> dict[str, Any]:
    """BPE that marks the end of a word."""
    trainer = trainers.BpeTrainer(vocab_size=PIECES, limit_alphabet=700, end_of_word_suffix="</w>", show_progress=False)
    splits = pre_tokenizers.BertPreTokenizer()
    return _model(models.BPE(end_of_word_suffix="</w>"), trainer, splits, normalizers.Lowercase())


@cache
def scored_pieces() -> dict[str, Any]:
    # Punctuation apart, or a piece would span it; DeBERTa's split_by_punct shows then.
    trainer = trainers.UnigramTrainer(vocab_size=PIECES, unk_token="<unk>", show_progress=False)
    return _model(models.Unigram(), trainer, pre_tokenizers.Metaspace(), normalizers.NFKC())


@cache
def characters() -> Any:
    """sentencepiece's own map of characters, from a real file."""
    body = read(DATA / "tokenizers" / "t5-small" / "tokenizer.json")["normalizer"]
    part = next(part for part in body.get("normalizers", [body]) if part["type"] == "Precompiled")
    return normalizers.Precompiled(base64.b64decode(part["precompiled_charsmap"]))


# --- files of tokenizers ---------------------------------------------------------------------------------------------


def trained(
    model: Callable[[], dict[str, Any]],
    special: str,
    normalizer: Callable[[], Any] | None,
    pre_tokenizer: Callable[[], Any],
    ends: str | None = None,
    last: str = "",
    **flags: Any,  # of the model
) -> Callable[[Path], None]:
    """A file with a trained model: special tokens in front and at the end of its vocabulary, and the parts given.

    `ends` are the special tokens around a text, which stands as `$A`.
    """

    def lay(directory: Path) -> None:
        found = model()
        first, at_end = special.split(), last.split()
        pieces = found["vocab"]
        if isinstance(pieces, list):
            inner = [entry for entry in pieces if entry[0] not in {*first, *at_end}]
            pieces = [*([token, 0.0] for token in first), *inner, *([token, 0.0] for token in at_end)]
            numbers = {token: number for number, (token, _) in enumerate(pieces)}
        else:
            inner = [piece for piece in sorted(pieces, key=pieces.get) if piece not in {*first, *at_end}]
            pieces = numbers = {token: number for number, token in enumerate([*first, *inner, *at_end])}
        unknown = next((token for token in first if "unk" in token.lower()), None)
        unknowns: dict[str, Any] = {"unk_id": numbers.get(unknown, 0)} if isinstance(pieces, list) else {}
        unknowns |= {"unk_token": unknown} if found["type"] == "WordPiece" else {}
        made = Tokenizer.from_str(json.dumps({**_EMPTY, "model": {**found, "vocab": pieces, **unknowns, **flags}}))
        if normalizer is not None:
            made.normalizer = normalizer()
        made.pre_tokenizer = pre_tokenizer()
        if ends is not None:
            around = [(token, numbers[token]) for token in dict.fromkeys(ends.split()) if token != "$A"]
            made.post_processor = processors.TemplateProcessing(single=ends, special_tokens=around)
        made.add_special_tokens([*first, *at_end])
        made.save(str(directory / "tokenizer.json"))

    return lay


_EMPTY: dict[str, Any] = {"version": "1.0", "added_tokens": [], "truncation": None, "padding": None}
_EMPTY |= dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder"))


def given(name: str) -> Callable[[Path], None]:
    """The files of a real tokenizer in the data."""

    def lay(directory: Path) -> None:
        for file in (DATA / "tokenizers" / name).iterdir():
            shutil.copyfile(file, directory / file.name)

    return lay


def checkpoint(name: str) -> Callable[[Path], None]:
    """The tokenizer of a real checkpoint."""

    def lay(directory: Path) -> None:
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            if (REAL / name / file).is_file():
                shutil.copyfile(REAL / name / file, directory / file)

    return lay
