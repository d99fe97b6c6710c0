"""Texts that tokenizers are compared on: real ones in many languages, and what breaks tokenizers."""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from functools import cache
from itertools import product
from pathlib import Path

from tokenizers import Tokenizer

from fastembed_rt.text.quick import Quick

DATA = Path(os.environ.get("FASTEMBED_RT_DATA", Path(__file__).parents[2] / "shared" / "data"))
HAS_DATA = (DATA / "tokenizers").is_dir()
CONTROLS = [chr(code) for code in (*range(0x20), *range(0x7F, 0xA1))]
SPACES = ["\xa0", "\u1680", "\u2003", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "\u180e"]
INVISIBLE = ["\xad", "\u034f", "\u061c", "\u200b", "\u200c", "\u200d", "\u200e", "\u2060", "\ufe0f", "\ufeff", "\ufffd"]
PLAIN = ["The cat's on the mat.", "Où est l'école, élève?", "東京は日本の首都です。", "don't stop, 12,345 times"]
SPECIAL = (
    "[CLS] [SEP] [PAD] [UNK] [MASK] <s> </s> <pad> <unk> <mask> <cls> <sep> <bos> <eos> <|endoftext|> <|padding|> "
    "<extra_id_0> <s>NOTUSED <0x41> ▁ ## Ġ </w>"
).split()


@cache
def real_texts() -> list[str]:
    """Every 20,000 and some: sentences, questions, paragraphs, lines of the declaration of human rights; mixed."""
    groups = [
        _sentences("stsb-en-train", "stsb-de-dev", "stsb-ru-dev", "stsb-zh-dev"),
        _lines("short_queries_squad_dev"),
        _lines("paragraph_wikitext2")[::2],
        _lines("paragraph_xquad_contexts"),
        [line for file in sorted((DATA / "unicode" / "udhr").glob("*.txt")) for line in _read(file) if line.strip()],
    ]
    # One of each in turn, so that any part of the list has all of them.
    found = dict.fromkeys(text for row in range(max(map(len, groups))) for g in groups for text in g[row : row + 1])
    return list(found)[:20_000]


@cache
def nasty_texts() -> list[str]:
    """Blanks and control characters everywhere, special tokens, odd Unicode, very long words, nothing at all."""
    odd = [*CONTROLS, *SPACES, *INVISIBLE]
    texts = ["", " ", "  ", " \t\n ", "\n", "\t", "▁", "▁▁ ▁a", "x" * 101, "x" * 3000, "猫" * 1000, "ab" * 200 + " c"]
    blanks = (("", " ", "  ", "\n"), (" ", "  ", "\t", "\r\n"), ("", " ", "\n"))
    texts += [f"{first}the cat{between}sat {last}" for first, between, last in product(*blanks)]
    for sign in odd:
        texts += [sign, f"a{sign}b", f"the cat {sign}", f"{sign} the cat", f"{sign}{sign}a"]
    for name in SPECIAL:
        texts += [name, f"a {name} b", f"a{name}b", f"  {name}  ", f"{name}{name} c", name.lower()]
    for text in PLAIN:
        texts += [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
        texts += [
            text.upper(),
            text.title(),
            f"``{text}''",
            f"{text} ",
            f"  {text}",
            text.replace(" ", "  "),
            text[::-1],
        ]
    texts += ["ǅ ﬁ ﬀ Å Å ½ ① Ⅳ ㍿ ｆｕｌｌ", "İstanbul ıI ß ẞ Σίσυφος ς", "e\u0301\u0323 a\u0300\u0316"]
    texts += ["\U0001f3f3\ufe0f\u200d\U0001f308\U0001f469\U0001f3fd\u200d\U0001f680 🇩🇪", "क्षि किं", "ก็ ำ"]
    return list(dict.fromkeys(texts))


@cache
def odd_files() -> list[str]:
    """The lines of the naughty strings, of the decoder's stress test, and of the emoji."""
    naughty = json.loads((DATA / "unicode" / "blns.json").read_text(encoding="utf-8"))
    stress = (DATA / "unicode" / "UTF-8-test.txt").read_text(encoding="utf-8", errors="replace").split("\n")
    emoji = (DATA / "unicode" / "emoji-test.txt").read_text(encoding="utf-8").split("\n")
    return list(dict.fromkeys([*naughty, *stress, *emoji]))


def some_texts() -> list[str]:
    """Some 1,600 of all these, the nasty ones first, the real ones cut."""
    short = [text[:160] for text in real_texts()[:1000:3]]
    return [*nasty_texts(), *odd_files()[::9], *short]


def all_texts() -> list[str]:
    """All of them."""
    return [*nasty_texts(), *odd_files(), *real_texts()]


def _read(file: Path) -> list[str]:
    return file.read_text(encoding="utf-8").split("\n")


def _lines(name: str) -> list[str]:
    lines = (DATA / "texts" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
    return [text if isinstance(text := json.loads(line), str) else text["text"] for line in lines]


def _sentences(*names: str) -> list[str]:
    rows = []
    for name in names:
        with (DATA / "stsb" / f"{name}.csv").open(encoding="utf-8", newline="") as file:
            rows += [text for row in csv.reader(file) for text in row[:2]]
    return rows


def compare_ids(mine: Quick, library: Tokenizer, texts: list[str], limit: int) -> set[int]:
    """Numbers of the texts that were not left to the library; those are as it has them, at most `limit` tokens each."""
    library.no_padding()
    library.enable_truncation(limit)
    rows, cut = mine(texts, limit)
    theirs = library.encode_batch(texts)
    done = {k for k, row in enumerate(rows) if row is not None}
    for k in done:
        assert rows[k].tolist() == theirs[k].ids, repr(texts[k])  # type: ignore[union-attr]
    assert cut == [k for k in sorted(done) if theirs[k].overflowing]
    return done
