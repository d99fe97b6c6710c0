"""sentence-transformers' WhitespaceTokenizer as tokenizer.json: which of a text's words are in the vocabulary.

A word between spaces is looked up as it is, then without punctuation at its ends, then that in lower case. The first of
the three that the vocabulary or the stop words have decides: a stop word is dropped, and so is a word that they have in
none of the three forms. In tokenizer.json the known words that are not in the last form, since they have punctuation at
an end or capitals, are marked where they stand, by patterns of all of them; all other words get the last form. A byte
pair encoding without merges then looks whole words up and drops the letters of others: no letter alone is a token,
since each word begins with BEGINS.
"""

from __future__ import annotations

import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from ..checkpoint.words import TOKENIZER_FILE, listed
from ..errors import UnsupportedCheckpointError
from ..files import read_json

BEGINS = " "  # what every word has in front
# Noncharacters, which texts do not have; from a text's own stands another one, which no pattern knows.
_KEPT, _CAPITALS, _TEXTS_OWN = _MARKS = "\U0010fffe", "\U0010ffff", "\U000ffffe"
_OTHERS = "\t-\r\x1c-\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # str.isspace, beside
_SPACES = f"{BEGINS}{_OTHERS}"
_SIGNS = "!-/:-@\\[-`{-~"  # string.punctuation
_HAS_SIGNS = f"[{_SIGNS}]|[^ ]*+(?<=[{_SIGNS}])"  # at an end
_HAS_CAPITALS = "[!-@\\[-~]*+[^ !-@\\[-~]"  # or letters beyond ASCII
# What str.lower makes of a sigma at a word's end, where the library sees a letter at a time.
_FINAL_SIGMA = "\\p{Cased}\\p{Case_Ignorable}*\\K\u03a3(?!\\p{Case_Ignorable}*\\p{Cased})"


def convert(folder: Path) -> str:
    """tokenizer.json of the tokenizer saved in `folder`; it gives the numbers of words, and adds nothing.

    Raises:
        CheckpointError: no list of words.
        UnsupportedCheckpointError: an empty word, or noncharacters in one.
    """
    path = folder / TOKENIZER_FILE
    said = read_json(path)
    vocabulary = listed(said, "vocab", path)
    numbers = {word: number for number, word in enumerate(vocabulary)}  # of words that are there twice, the last
    stops = set(listed(said, "stop_words", path))
    if "" in numbers or any(mark in word for mark in _MARKS for word in numbers):
        raise UnsupportedCheckpointError(f"{path} has an empty word, or one of noncharacters, which is not built")
    lower = bool(said.get("do_lower_case"))
    known = {word for word in (*numbers, *stops) if _reached(word, lower=lower)}
    kept = {word for word in known if word.strip(string.punctuation) != word}
    capitals = {word for word in known if word.lower() != word}
    normalizer = _normalizer(kept, capitals, lower=lower)
    keys: dict[str, int] = {}
    for number, word in enumerate(vocabulary):
        if word not in known or word in stops or numbers[word] != number:
            keys[f"{number}{BEGINS}"] = number  # no text has it: it is there so that numbers have no holes
        else:
            written = word in kept or word in capitals
            keys[normalizer.normalize_str(word) if written else BEGINS + word] = number
    made = Tokenizer(models.BPE(keys, [], ignore_merges=True))
    made.normalizer = normalizer
    made.pre_tokenizer = pre_tokenizers.Split(BEGINS, "merged_with_next")
    return made.to_str()


def _reached(word: str, *, lower: bool) -> bool:
    """Whether a text may have it: a word without spaces, and without capitals where texts lose theirs first."""
    return word.split() == [word] and not (lower and word.lower() != word)


def _normalizer(kept: set[str], capitals: set[str], *, lower: bool) -> Any:
    """A text whose words are what is looked up, each behind BEGINS and, where it stays as it is written, a mark."""
    in_lower_case = [_replace(_FINAL_SIGMA, "\u03c2"), normalizers.Lowercase()]
    steps: list[Any] = [_replace(f"[{_KEPT}{_CAPITALS}]", _TEXTS_OWN)]
    steps += in_lower_case if lower else []
    # A pattern takes a letter at least: the library loses count of places where something is put between two.
    steps += [normalizers.Prepend(" "), _replace(f" [{_SPACES}]+|[{_OTHERS}][{_SPACES}]*", " ")]
    steps += _marked(kept, _KEPT, _HAS_SIGNS)
    steps.append(_replace(f" (?!{_KEPT})[^ ]*[^ {_SIGNS}]\\K[{_SIGNS}]+(?![^ ])", ""))
    steps.append(_replace(f"(?<= )[{_SIGNS}]+", ""))
    steps += _marked(capitals - kept, _CAPITALS, _HAS_CAPITALS)
    steps += [] if lower else in_lower_case
    return normalizers.Sequence(steps)


def _marked(words: Iterable[str], mark: str, have: str) -> list[Any]:
    """A mark in front of each of these; two in front of the second that is the same in lower case, and so on.

    `have`: a pattern of what all of them have, so that others are not compared with each.
    """
    alike: dict[str, int] = {}
    ranks: dict[int, list[str]] = {}
    for word in sorted(words):
        ranks.setdefault(alike.setdefault(word.lower(), 0), []).append(word)
        alike[word.lower()] += 1
    return [
        _replace(f" (?={have})(?=(?:{_any(found)})(?![^ ]))", f" {mark * (rank + 1)}") for rank, found in ranks.items()
    ]


def _replace(pattern: str, by: str) -> Any:
    return normalizers.Replace(Regex(pattern), by)


def _any(words: Iterable[str]) -> str:
    """A pattern of any of these, in which what several begin with stands once."""
    return _branch(sorted(words), 0)


def _branch(words: list[str], depth: int) -> str:
    """Of sorted words, from a place on up to which they are the same."""
    if len(words) == 1:
        return _literal(words[0][depth:])
    first, last = words[0], words[-1]
    common = depth
    while common < len(first) and first[common] == last[common]:
        common += 1
    ended = len(first) == common
    branches, start = [], int(ended)
    for stop in range(start + 1, len(words) + 1):
        if stop == len(words) or words[stop][common] != words[start][common]:
            branches.append(_branch(words[start:stop], common))
            start = stop
    return f"{_literal(first[depth:common])}(?:{'|'.join([*branches, *([''] if ended else [])])})"


def _literal(text: str) -> str:
    return "".join(f"\\{letter}" if letter in string.punctuation else letter for letter in text)
