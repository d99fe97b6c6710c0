"""Token ids of unigram models without the Rust library are the library's, or none: real, odd and made-up texts."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_operators import LIBRARY
from tokenizer_texts import DATA, HAS_DATA, compare_ids, nasty_texts, real_texts
from tokenizers import AddedToken, Regex, Tokenizer, normalizers
from unigram_tokenizers import GROUPS, SPECIAL, characters, few_pieces, made, quick

from fastembed_rt import native
from fastembed_rt.text.quick import Quick, read
from fastembed_rt.text.tokenizer import TextTokenizer
from fastembed_rt.text.unigram import unigram

assert native.library() == LIBRARY  # which is another build of them where one is named
pytestmark = pytest.mark.skipif(native.unigram() is None, reason="the operators are not compiled")


@pytest.fixture(scope="module")
def table() -> normalizers.Normalizer:
    return characters()


@pytest.fixture(scope="module")
def pieces() -> list[tuple[str, float]]:
    return few_pieces()


def normalized(table: normalizers.Normalizer) -> Iterator[normalizers.Normalizer | None]:
    """In each way that converters write."""
    several = Regex(" {2,}")
    yield None
    yield table
    yield normalizers.Sequence([table, normalizers.Replace(several, " ")])
    yield normalizers.Sequence([table, normalizers.Strip(left=False), normalizers.Replace(several, "\u2581")])
    yield normalizers.Sequence([table, normalizers.Strip(left=False)])
    yield normalizers.Sequence([normalizers.Replace(several, " ")])


@pytest.mark.parametrize("apart", [True, False])
@pytest.mark.parametrize("limit", [4, 9, 10_000])
def test_odd_texts_have_the_librarys_ids(
    table: normalizers.Normalizer, pieces: list[tuple[str, float]], apart: bool, limit: int
) -> None:
    some = random.Random(limit)
    texts = ["".join(some.choices("".join(some.sample(GROUPS, 2)), k=some.randint(0, 14))) for _ in range(2000)]
    for number, normalizer in enumerate(normalized(table)):
        library = made(pieces, normalizer, apart=apart)
        mine = quick(library)
        if mine is None:
            assert (number, apart) == (3, True)  # a mark is no blank
            continue
        assert len(compare_ids(mine, library, [*texts, *nasty_texts()], limit)) > 1700


@pytest.fixture(scope="module", params=[True, False])
def both(
    request: pytest.FixtureRequest, table: normalizers.Normalizer, pieces: list[tuple[str, float]]
) -> tuple[Quick, Tokenizer]:
    library = made(pieces, table, apart=request.param)
    mine = quick(library)
    assert mine is not None
    return mine, library


@given(st.text(st.characters(max_codepoint=0x17F), max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_has_the_librarys_ids_or_none(both: tuple[Quick, Tokenizer], text: str) -> None:
    compare_ids(*both, [text], 16)


@pytest.mark.parametrize("around", ["a{}b", "\xb2{}", "e{}\u0301", "{}\u0301{} ", "\u0627\u064b{}", "\n{}"])
def test_every_character_is_what_the_library_makes_of_it(table: normalizers.Normalizer, around: str) -> None:
    codes = (*range(0x3400), *range(0x3400, 0xD800, 37), *range(0xF900, 0x10000), *range(0x10000, 0x20000, 17))
    signs = [chr(code) for code in codes]
    some = dict.fromkeys("".join(table.normalize_str(sign) for sign in [*signs[:0x3000:3], "\xb2", "\xe9", "\u0301"]))
    library = made([(piece, 0.0) for piece in SPECIAL] + [(sign, -1.5) for sign in some if sign != " "], table)
    mine = quick(library)
    assert mine is not None
    texts = [around.replace("{}", sign) for sign in signs]
    left = len(texts) - len(compare_ids(mine, library, texts, 5000))
    assert left < (10_000 if around[0] == "\xb2" or "\u0301" in around else 10)


@pytest.mark.parametrize("letters", ["a", "ab", "a=", "= ", "!", "\xe9\u0301", "\u732b", "x"])
def test_long_words_and_ways_that_are_as_good(
    table: normalizers.Normalizer, pieces: list[tuple[str, float]], letters: str
) -> None:
    library = made(pieces, table)
    mine = quick(library)
    assert mine is not None
    texts = [letters * n for n in (1, 2, 3, 5, 8, 13, 100, 500, 3000, 20_000)]
    assert len(compare_ids(mine, library, texts, 100_000)) == len(texts)
    assert mine(["a" * 200_000], 9)[0] == [None]  # of which the library is left to say what it makes


@pytest.mark.skipif(not HAS_DATA, reason=f"no data in {DATA}")
def test_real_and_nasty_texts_have_the_librarys_ids() -> None:
    content = (DATA / "tokenizers" / "t5-small" / "tokenizer.json").read_bytes()
    mine, library = unigram(content), Tokenizer.from_buffer(content)
    assert mine is not None
    real = real_texts()[::4]
    assert len(compare_ids(mine, library, [*real, *nasty_texts()], 64)) >= len(real) + 630


@pytest.mark.skipif(not HAS_DATA, reason=f"no data in {DATA}")
def test_scores_have_the_librarys_bits() -> None:
    """Which are not always those of the nearest number: two ways through a word may differ by less."""
    functions = native.unigram()
    assert functions is not None
    content = (DATA / "tokenizers" / "t5-small" / "tokenizer.json").read_bytes()
    found = read(content, functions, b"[]", 6, np.float64)
    assert found is not None
    theirs = [score for _, score in json.loads(Tokenizer.from_buffer(content).to_str())["model"]["vocab"]]
    assert found.values.tolist() == theirs
    assert theirs != [score for _, score in json.loads(content)["model"]["vocab"]]


@pytest.mark.parametrize(
    "written",
    ["0", "-0.0", "1", "-1.5", "0.1", "1e2", "1E-2", "2.5e+1", "-3.4635426998138428", "0.30000000000000004", "1e-40",
     "-7.0000000000000000000000000001", "0.000000000000000000000123", "123456789012345678", "9007199254740993.0"],
)  # fmt: skip
def test_any_number_is_read_as_the_library_reads_it(written: str) -> None:
    functions = native.unigram()
    assert functions is not None
    vocabulary = f'[["<unk>", 0], ["a", {written}]]'
    content = f'{{"model": {{"type": "Unigram", "unk_id": 0, "vocab": {vocabulary}}}, "added_tokens": []}}'
    found = read(content.encode(), functions, b"[]", 6, np.float64)
    assert found is not None
    library = Tokenizer.from_str(content)
    assert found.values.tolist() == [score for _, score in json.loads(library.to_str())["model"]["vocab"]]


@pytest.mark.parametrize(
    "written", ["01", "-", ".5", "1.", "1e", "1e+", "+1", "1e-60", "1234567890123456789", "NaN", '"1"', "1, 2"]
)
def test_other_numbers_are_the_librarys(written: str) -> None:
    functions = native.unigram()
    assert functions is not None
    content = f'{{"model": {{"vocab": [["a", 0], ["b", {written}]]}}}}'
    assert read(content.encode(), functions, b"[]", 6, np.float64) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "!"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": True}},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "never", "split": True}},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": False}},
        {"model": {"byte_fallback": True}},
        {"model": {"unk_id": None}},
        {"model": {"unk_id": 5000}},
        {"model": {"alpha": 0.1}},
        {"model": {"vocab": [["", 0.0], ["<unk>", 0.0], ["b", 0.0], ["c", 0.0]]}},
        {"model": {"vocab": [["a", 20.0], ["b", 20.0], ["c", 20.0], ["<unk>", 20.0]]}},
        {"post_processor": {"type": "Other"}},
        {"added_tokens": None},
    ],
)
def test_another_kind_of_tokenizer_is_the_librarys(pieces: list[tuple[str, float]], changes: dict[str, Any]) -> None:
    library = made(pieces, None)
    assert quick(library) is not None
    assert quick(library, **changes) is None


def test_added_tokens_have_the_librarys_ids_or_are_left_to_it(
    table: normalizers.Normalizer, pieces: list[tuple[str, float]]
) -> None:
    library = made(pieces, table, added=("[X]", "\u00e9\u00e9"))
    mine = quick(library)
    assert mine is not None
    texts = [
        "a <mask>",
        "a<mask>b",
        "a < b",
        "<mas",
        "a  [X] b",
        "[x]",
        "\xe9\xe9",
        "\xe9 \xe9",
        "\uff1cmask\uff1e",
        "<<s>",
    ]
    texts += ["<s></s>a", "a[X] ", " [X][X]a", "[X", "a\u0301[X]\u0301", "\n[X]\u0301", "a b[X]c d"]
    for limit in (3, 4, 20):
        done = compare_ids(mine, library, texts, limit)
        left = set(range(len(texts))) - done  # <mask> takes the spaces before it
        assert left == {0, 1} if limit == 20 else left <= {0, 1}


@pytest.mark.parametrize("apart", [True, False])
def test_texts_with_the_first_sign_of_a_token_in_normalized_texts_are_the_librarys(
    table: normalizers.Normalizer, pieces: list[tuple[str, float]], apart: bool
) -> None:
    library = made(pieces, table, apart=apart, added=(AddedToken("{m}", normalized=True, lstrip=True),))
    mine = quick(library)
    assert mine is not None
    texts = ["a b", "a<s> b", "a  b ", "a {m}", "{M}", "\uff5bm\uff5d", "a\ufe5bm\ufe5c", "\u2774m", "a {b"]
    for limit in (3, 4, 5, 40):
        done = compare_ids(mine, library, texts, limit)
        assert done >= ({0, 1, 2} if apart or limit == 40 else {0, 1})  # a limit between spaces: see below
        assert not done & {4, 5, 6}
    for token in ("y", "\u2460", '"', "[\u2460]"):  # a letter's case may be another, and most texts have it
        assert quick(made(pieces, table, added=(AddedToken(token, normalized=True),))) is None


def test_a_limit_between_spaces_leaves_it_to_the_library_what_a_token_behind_them_takes(
    table: normalizers.Normalizer, pieces: list[tuple[str, float]]
) -> None:
    library = made(pieces, table, apart=False)
    mine = quick(library)
    assert mine is not None
    texts = ["a" + " " * n + end for n in range(1, 6) for end in ("<mask>", "b", "", "\t<mask>")]
    for limit in range(3, 9):
        compare_ids(mine, library, texts, limit)


def test_a_model_is_made_without_the_library_and_knows_pairs(
    table: normalizers.Normalizer, pieces: list[tuple[str, float]], tmp_path: Path
) -> None:
    library = made(pieces, table)
    file = tmp_path / "tokenizer.json"
    file.write_text(library.to_str(), encoding="utf-8")
    tokenizer = TextTokenizer(file, max_length=12)
    texts = ["a b c", "\u732b a", "abc" * 9]
    assert tokenizer.count(texts).tolist() == [len(library.encode(text).ids) for text in texts]
    assert [row.tolist() for row in tokenizer(texts[:2]).ids] == [library.encode(text).ids for text in texts[:2]]
    of_pairs = TextTokenizer(file, max_length=40, of_pairs=True)
    (row,) = of_pairs.pairs([("a b", "\u732b c")]).ids
    assert row.tolist() == library.encode("a b", "\u732b c").ids
    assert tokenizer._library._made_limited is None
    assert of_pairs._library._made_limited is None


def test_of_two_scores_of_a_piece_the_last_one_counts(pieces: list[tuple[str, float]]) -> None:
    library = made([*pieces, ("zz", -9.0), ("z", -4.4), ("zz", -8.7)], None)
    mine = quick(library)
    assert mine is not None
    assert compare_ids(mine, library, ["zz", "zzz", "zzzz z"], 20) == {0, 1, 2}
