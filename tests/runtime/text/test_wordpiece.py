"""BERT's token ids without the Rust library are the library's, or none; with real, odd and made-up words and texts."""

from __future__ import annotations

import gc
import itertools
import json
import random
import re
import string
import threading
import time
import unicodedata
import weakref
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_operators import LIBRARY
from tokenizer_texts import DATA, HAS_DATA, compare_ids, nasty_texts, real_texts
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, processors

from fastembed_rt import native
from fastembed_rt.text.quick import Quick
from fastembed_rt.text.tokenizer import TextTokenizer
from fastembed_rt.text.wordpiece import OTHER, characters, wordpiece

assert native.library() == LIBRARY  # which is another build of them where one is named
pytestmark = pytest.mark.skipif(native.wordpiece() is None, reason="the operators are not compiled")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
# Neither < nor [, which added tokens begin with.
PLAIN = re.compile(
    r"[ -;=-Z\\-~\t\n\xa1-\xac\xae-\u012f\u0131-\u017e\u0391-\u03a1\u03b1-\u03c9\u0410-\u044f\u2010-\u2022]*"
)
ODD = [
    *("", " ", "\t\r\n ", "a", "A", "#", "##", "##a", "a##b", "[MASK]", "x[mask]y", "[MASK", "[ MASK ]"),
    *("a[SEP]b [CLS]", "x" * 99, "x" * 100, "x" * 101, "x" * 1001, "ab" * 600, "don't", "3.14", "e-mail@x.org"),
    *("a\x00b", "a\x01", "a\x0bb", "a\x0cb c", "a\x7fb", "\x1b[0m", "a\u200bb", "naïve", "日本", "é"),
    *(string.punctuation, string.printable),
]


def made(
    pieces: list[str],
    *,
    lower: bool = True,
    strip: bool | None = None,
    longest: int = 100,
    added: tuple[str | AddedToken, ...] = (),
) -> Tokenizer:
    words = {piece: k for k, piece in enumerate(dict.fromkeys([*SPECIAL, *pieces]))}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]", max_input_chars_per_word=longest))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower, strip_accents=strip)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.add_special_tokens([*SPECIAL, *added])
    return tokenizer


def content_of(tokenizer: Tokenizer, **changes: Any) -> bytes:
    described = json.loads(tokenizer.to_str())
    described["model"].update(changes.pop("model", {}))
    return json.dumps(described | changes).encode()


def quick(tokenizer: Tokenizer) -> Quick:
    found = wordpiece(content_of(tokenizer))
    assert found is not None
    return found


def compare(mine: Quick, library: Tokenizer, texts: list[str], limit: int) -> int:
    """How many of the texts were done; all of them as the library has them."""
    done = compare_ids(mine, library, texts, limit)
    assert all(k in done for k, text in enumerate(texts) if PLAIN.fullmatch(text))
    return len(done)


@pytest.fixture(scope="module")
def letters() -> Tokenizer:
    """Few pieces of few letters, so that words of them are cut in every way, or not at all."""
    some = random.Random(0)
    whole = ["".join(some.choices("abc", k=some.randint(1, 4))) for _ in range(25)]
    return made([*whole, *("##" + piece for piece in whole[:15]), "a", "##b", ".", "!", "-"])


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("limit", [3, 7, 5000])
def test_odd_texts_have_the_librarys_ids(lower: bool, limit: int) -> None:
    pieces = [
        *string.ascii_letters,
        *("##" + letter for letter in string.ascii_letters),
        *string.digits,
        "don",
        ".",
        "##",
    ]
    library = made(pieces, lower=lower)
    assert compare(quick(library), library, ODD, limit) >= 18


@given(st.lists(st.text("abcAB .!-\t", max_size=30), min_size=1, max_size=20), st.integers(3, 12))
@settings(max_examples=300, deadline=None)
def test_words_are_cut_as_the_library_cuts_them(letters: Tokenizer, texts: list[str], limit: int) -> None:
    assert compare(quick(letters), letters, texts, limit) == len(texts)


@given(st.text(st.characters(max_codepoint=0x17F), max_size=60))
@settings(max_examples=300, deadline=None)
def test_any_text_has_the_librarys_ids_or_none(letters: Tokenizer, text: str) -> None:
    compare(quick(letters), letters, [text], 16)


@pytest.mark.parametrize("lower", [True, False])
@pytest.mark.parametrize("strip", [None, True, False])
def test_every_character_is_what_the_library_makes_of_it(lower: bool, strip: bool | None) -> None:
    codes = (*range(0x3200), *range(0x3200, 0xD800, 29), *range(0xF900, 0x10000), *range(0x10000, 0x30000, 997))
    signs = [chr(code) for code in codes]
    folded = sorted({*signs, *(part for sign in signs for part in unicodedata.normalize("NFD", sign).lower())})
    pieces = [sign for sign in folded if not sign.isspace() and sign.isprintable()]
    library = made([*pieces, *("##" + piece for piece in pieces)], lower=lower, strip=strip)
    texts = [text for sign in signs for text in (sign, f"a{sign}b", f"{sign}{sign} A {sign}\u00e9")]
    known = sum(kind != OTHER for kind in characters(lower, lower if strip is None else strip)[0])
    assert compare(quick(library), library, texts, 5000) >= 3 * known - 9  # of [ none is sure
    assert known > 1500


@pytest.mark.parametrize("longest", [1, 3, 100, 1000])
def test_words_over_the_limit_of_characters_are_unknown(longest: int) -> None:
    library = made(["a", "##a", "aaa", "\u1e61", "##\u1e61"], strip=False, longest=longest)
    lengths = (1, 2, 3, 4, 99, 100, 101, 999, 1000, 1001)
    texts = [letter * k for letter in "a\u1e61" for k in lengths]  # of one byte, of three
    assert compare(quick(library), library, texts, 5000) == len(texts)


@pytest.mark.parametrize("texts", [["abc abcab " * 1_000_000], ["abc abcab " * 100_000] * 10])
def test_other_threads_run_beside_few_long_texts(letters: Tokenizer, texts: list[str]) -> None:
    mine = quick(letters)
    ticks: list[float] = []
    over = threading.Event()

    def tick() -> None:
        while not over.wait(0.0005):
            ticks.append(time.perf_counter())

    def longest_wait() -> float:
        """Of the other thread, as a share of a call's time."""
        begun = time.perf_counter()
        rows = mine.pieces(texts)
        ended = time.perf_counter()
        assert all(row is not None for row in rows)
        seen = [begun, *(moment for moment in ticks if begun < moment < ended), ended]
        return max(after - before for before, after in itertools.pairwise(seen)) / (ended - begun)

    ticking = threading.Thread(target=tick)
    ticking.start()
    try:
        # Other programs may have the processors for a while; what holds the interpreter's lock does so every time.
        assert any(longest_wait() < 0.5 for _ in range(20))
    finally:
        over.set()
        ticking.join()


def test_texts_with_added_tokens_are_the_librarys() -> None:
    library = made(["a", "b", "<", "[", "X"], added=("<Mask>", "[X"))
    texts = ["a <mask>", "a<MASK>b", "a < b", "[x]", "[ x", "b [pad]", "<m\u00e1sk>", "<b\u00e1>", "<"]
    rows, _ = quick(library)(texts, 20)
    assert [row is None for row in rows] == [True, True, False, True, False, True, True, False, False]


def test_added_tokens_of_normalized_text_are_the_librarys() -> None:
    library = made(["a", "b"], added=(AddedToken("<mask>", normalized=True),))
    compare(quick(library), library, ["<mask>", "a <M\u00c1SK> b", "<m\u00e1sk>", "<m\u00e1>", "a<b"], 20)


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("lower", [True, False])
def test_chinese_japanese_and_korean_texts_have_the_librarys_ids(apart: bool, lower: bool) -> None:
    library = made(["\u6771", "\u4eac", "##\u4eac", "\u304b", "##\u306a", "\ud55c", "##\uae00", "\u3002", "a"])
    library.normalizer = normalizers.BertNormalizer(lowercase=lower, handle_chinese_chars=apart)
    texts = [
        "\u6771\u4eac\u3002",
        "a\u6771a",
        "\u304b\u306a",
        "\u304c\u306a",
        "\u3000\u6771\u3000",
        "\uff08\u6771\uff09",
        "\uff21",
    ]
    texts += ["\ud55c\uae00", "[\u6771]", "\u6771\u3099", "\u304b\u3099\u306a"]
    mine = quick(library)
    done = compare_ids(mine, library, texts, 50)
    assert set(range(len(texts))) - done == ({6, 7, 9, 10} if lower else {6, 9, 10})
    assert compare_ids(mine, library, texts, 4) >= done


@pytest.mark.parametrize(
    ("token", "text"),
    [("[\u00e9]", "a [e] b"), ("<a\tb>", "<a b>"), ("<a b>", "<a\tb>"), (".\u200bb", ".b"), ("\u00b7a", "a \u0387a")],
)
def test_an_added_token_that_normalizing_changes_is_found(token: str, text: str) -> None:
    library = made(["a", "b", "e", "<", ".", "["], added=(AddedToken(token, normalized=True),))
    mine = wordpiece(content_of(library))
    if mine is not None:
        compare(mine, library, [text], 20)


@pytest.mark.skipif(not HAS_DATA, reason=f"no data in {DATA}")
def test_real_and_nasty_texts_have_the_librarys_ids() -> None:
    texts, compared = [*real_texts(), *nasty_texts()], 0
    for file in sorted((DATA / "tokenizers").glob("*/tokenizer.json")):
        mine, library = wordpiece(file.read_bytes()), Tokenizer.from_file(str(file))
        if mine is not None:
            assert compare(mine, library, texts, 64) > len(texts) / 2
            compared += 1
    assert compared >= 2


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": None},
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"model": {"continuing_subword_prefix": "@@"}},
        {"model": {"unk_token": "nothing"}},
        {"model": {"max_input_chars_per_word": 5000}},
        {"model": {"vocab": {"[UNK]": "1"}}},
        {"model": {"type": "BPE"}},
        {"added_tokens": [{"content": ""}]},
        {"added_tokens": None},
    ],
)
def test_another_kind_of_tokenizer_is_the_librarys(letters: Tokenizer, changes: dict[str, Any]) -> None:
    assert wordpiece(content_of(letters)) is not None
    assert wordpiece(content_of(letters, **changes)) is None


@pytest.mark.parametrize("token", ["hello", " x", "9", "\u00e9", "\u20acx", "\u0416"])
def test_an_added_token_that_may_stand_in_a_word_is_the_librarys(token: str) -> None:
    assert wordpiece(content_of(made(["a"], added=(token,)))) is None


def test_special_tokens_are_those_of_the_file(letters: Tokenizer) -> None:
    for processor, expected in (
        (processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2)), [2, 3]),
        (processors.RobertaProcessing(("[SEP]", 3), ("[CLS]", 2)), [2, 3]),
        (processors.TemplateProcessing(single="[CLS] [MASK] $A", special_tokens=[("[CLS]", 2), ("[MASK]", 4)]), [2, 4]),
        (processors.TemplateProcessing(single="$A", special_tokens=[]), []),
    ):
        library = made(["a"])
        library.post_processor = processor
        (row,), _ = quick(library)([""], 10)
        assert row is not None
        assert row.tolist() == library.encode("").ids == expected


def test_without_special_tokens_ids_are_the_librarys_too(letters: Tokenizer) -> None:
    content = content_of(letters, post_processor=None)  # as tables of words have it
    mine, library = wordpiece(content), Tokenizer.from_str(content.decode())
    assert mine is not None
    assert (mine.special, mine.pair) == (0, None)
    texts = ["", " ", "a", "a b c", "b.c", "abc a b c a b", "a " * 40]
    assert compare(mine, library, texts, 5) == len(texts)


@pytest.mark.parametrize("truncation", ["truncate", "warn", "chunk"])
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.filterwarnings("ignore:text")
def test_policies_are_kept_beside_the_library(letters: Tokenizer, tmp_path: Path, truncation: str, side: str) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content_of(letters))
    texts = ["a b c " * 9, "a", "\u0e01\u0e34 a b c a b c a b c", "b.c", "a b c a b c a b"]
    tokenizers = [TextTokenizer(file, max_length=8, truncation=truncation, truncation_side=side) for _ in range(2)]
    tokenizers[1]._fast = None
    mine, theirs = (tokenizer(texts) for tokenizer in tokenizers)
    assert [row.tolist() for row in mine.ids] == [row.tolist() for row in theirs.ids]
    assert mine.owner.tolist() == theirs.owner.tolist()
    assert (mine.texts, mine.truncated, mine.warning) == (theirs.texts, theirs.truncated, theirs.warning)
    assert mine.truncated == (0 if truncation == "chunk" else 3)


def test_a_limit_without_room_is_refused_before_the_library_is_made(letters: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content_of(letters))
    tokenizer = TextTokenizer(file, max_length=3)
    assert tokenizer._library._made_limited is None
    assert tokenizer(["a b"]).ids[0].tolist()[0] == 2
    assert tokenizer._library._made_limited is None
    file.write_bytes(b"{}")
    assert tokenizer(["\u0e01\u0e34"]).ids[0].tolist() == [2, 1, 3], "of the file that was read"


def test_a_vocabulary_outlives_the_interpreters_end(letters: Tokenizer) -> None:
    """Threads may be at it until the process is gone; else it is freed with its object."""
    before = set(weakref.finalize._registry)  # type: ignore[attr-defined]
    mine = quick(letters)
    (added,) = set(weakref.finalize._registry) - before  # type: ignore[attr-defined]
    assert not added.atexit
    del mine
    gc.collect()
    assert not added.alive


def test_a_policy_is_made_once_however_often_it_is_asked_for(letters: Tokenizer, tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_bytes(content_of(letters))
    tokenizer = TextTokenizer(file, max_length=8)
    for truncation, side in (("error", None), ("truncate", "left"), ("warn", "left"), ("chunk", None)):
        other = tokenizer.with_policy(truncation, side)
        assert other is tokenizer.with_policy(truncation, side)
        assert (other.truncation, other.side) == (truncation, side or "right")
    assert tokenizer.with_policy("error")._library is tokenizer._library, "one library for policies of one side"
    left = tokenizer.with_policy("truncate", "left")
    assert left._library is not tokenizer._library
    assert left(["a b c a b c \u0e01 a b c"]).ids[0].tolist() == tokenizer(["b c \u0e01 a b c"]).ids[0].tolist()
