"""Token ids of DeBERTa's, ALBERT's and XLNet's models, which normalize texts otherwise: the library's, or none."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from native_operators import LIBRARY
from tokenizer_texts import DATA, HAS_DATA, compare_ids, nasty_texts, odd_files, real_texts
from tokenizers import AddedToken, Regex, Tokenizer, normalizers, pre_tokenizers, processors
from unigram_tokenizers import GROUPS, SPECIAL, characters, few_pieces, made, quick

from fastembed_rt import native
from fastembed_rt.text.folding import FOLDED, UNCERTAIN, folded
from fastembed_rt.text.quick import Quick
from fastembed_rt.text.tokenizer import TextTokenizer
from fastembed_rt.text.unigram import unigram

assert native.library() == LIBRARY  # which is another build of them where one is named
pytestmark = pytest.mark.skipif(native.unigram() is None, reason="the operators are not compiled")
# Blanks of all kinds beside others, quotation marks, capitals, what is folded: beside the groups of all unigram models.
ODD = (
    " \t\n\r\x0b\x85\xa0\u2028ab",
    "``''\"'` a",
    "ABC\xc9a\u0301 \u0130\u1e9e\u03a3\u03c2",
    "\u304c\u30d1\u3099 \uff21\uff42\uff01",
    "\uac01\u11a8\u1100 \u2167\u210c",
)
SEVERAL = Regex(" {2,}")
SIGNS = pre_tokenizers.Punctuation("isolated")


def quotes(*steps: Any) -> normalizers.Normalizer:
    marks = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    return normalizers.Sequence([*marks, *steps])


def accents() -> list[Any]:
    return [normalizers.NFKD(), normalizers.StripAccents()]


def deberta() -> normalizers.Normalizer:
    blanks = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
    return normalizers.Sequence([blanks, normalizers.NFC(), normalizers.Strip(left=False, right=True)])


def deberta_converted() -> normalizers.Normalizer:
    return normalizers.Sequence([normalizers.Strip(), characters(), normalizers.Replace(SEVERAL, " ")])


# As transformers' classes set them up, and as converters write them; and whether words are what is between blanks.
KINDS: dict[str, tuple[Callable[[], normalizers.Normalizer], bool]] = {
    "DeBERTa": (deberta, False),
    "DeBERTa, converted": (deberta_converted, False),
    "ALBERT": (lambda: quotes(*accents(), normalizers.Lowercase(), characters()), True),
    "ALBERT without a table": (lambda: quotes(*accents(), normalizers.Lowercase()), True),
    "ALBERT with accents": (lambda: quotes(characters()), True),
    "ALBERT, converted": (
        lambda: quotes(*accents(), normalizers.Lowercase(), characters(), normalizers.Replace(SEVERAL, " ")),
        True,
    ),
    "XLNet": (lambda: quotes(*accents(), characters()), True),
    "folded, spaces kept": (lambda: normalizers.Sequence([*accents(), characters()]), False),
}


def tokenizer_of(kind: str, pieces: list[tuple[str, float]] | None = None, **options: Any) -> Tokenizer:
    normalizer, apart = KINDS[kind]
    return made(few_pieces() if pieces is None else pieces, normalizer(), apart=apart, **options)


@pytest.fixture(scope="module", params=list(KINDS))
def both(request: pytest.FixtureRequest) -> tuple[Quick, Tokenizer]:
    library = tokenizer_of(request.param)
    mine = quick(library)
    assert mine is not None
    return mine, library


@pytest.mark.parametrize("limit", [3, 4, 9, 10_000])
def test_odd_texts_have_the_librarys_ids(both: tuple[Quick, Tokenizer], limit: int) -> None:
    some = random.Random(limit)
    groups = [*GROUPS, *ODD]
    texts = ["".join(some.choices("".join(some.sample(groups, 2)), k=some.randint(0, 14))) for _ in range(3000)]
    assert len(compare_ids(*both, [*texts, *nasty_texts()], limit)) > 2200


@given(st.text(st.characters(max_codepoint=0x17F), max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_has_the_librarys_ids_or_none(both: tuple[Quick, Tokenizer], text: str) -> None:
    compare_ids(*both, [text], 16)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("around", ["A{} {}\u0301 ", "'{}{}' \uff9e"])
def test_every_character_is_what_the_library_makes_of_it(kind: str, around: str) -> None:
    codes = (*range(0x3400), *range(0x3400, 0xD800, 37), *range(0xF900, 0x10000), *range(0x10000, 0x30000, 37))
    signs = [chr(code) for code in codes]
    normalizer = KINDS[kind][0]()
    some = dict.fromkeys("".join(normalizer.normalize_str(f"a{sign}a") for sign in [*signs, "\xb2", "\u0301"]))
    library = tokenizer_of(kind, [(piece, 0.0) for piece in SPECIAL] + [(sign, -1.5) for sign in some if sign != " "])
    mine = quick(library)
    assert mine is not None
    compare_ids(mine, library, [around.replace("{}", sign) for sign in signs], 5000)


@pytest.mark.parametrize("lower", [True, False])
def test_most_characters_are_certain(lower: bool) -> None:
    data, starts = folded(lower)
    sure = [not data[starts[code] : starts[code + 1]].startswith(UNCERTAIN) for code in range(FOLDED)]
    assert sum(sure) > 8000
    assert all(sure[:0x220])
    assert all(sure[0x3041:0x3095])


def test_long_texts_and_words(both: tuple[Quick, Tokenizer]) -> None:
    """Longer than what is folded at once, with clusters, quotes and blanks across each place where that may end."""
    texts = ["a" * n + end for n in range(4046, 4070) for end in ("\u200d\uff9e b", "''b", " \t c", "\xc9\u0301a")]
    texts += [letters * n for letters in ("a", "A ", "\xe9", "``", " \n", "\u732b\u200d") for n in (13, 500, 9000)]
    texts = [text for text in texts if text.isascii() or not both[0].normal or text.find("\u0301") < 0]
    assert len(compare_ids(*both, texts, 100_000)) > 0.7 * len(texts)
    compare_ids(*both, texts, 9)


@pytest.mark.skipif(not HAS_DATA, reason=f"no data in {DATA}")
@pytest.mark.parametrize("kind", ["DeBERTa", "DeBERTa, converted", "ALBERT", "XLNet"])
def test_real_and_naughty_texts_have_the_librarys_ids(kind: str) -> None:
    found = json.loads((DATA / "tokenizers" / "t5-small" / "tokenizer.json").read_text(encoding="utf-8"))
    like = json.loads(tokenizer_of(kind).to_str())
    content = json.dumps(found | {part: like[part] for part in ("normalizer", "pre_tokenizer")}).encode()
    mine, library = unigram(content), Tokenizer.from_buffer(content)
    assert mine is not None
    real = real_texts()[::4]
    assert len(compare_ids(mine, library, real, 64)) > 0.98 * len(real)
    odd = [*odd_files(), *nasty_texts()]
    assert len(compare_ids(mine, library, odd, 512)) > 0.9 * len(odd)


def test_blanks_become_one_space_and_none_at_the_end_of_debertas_texts() -> None:
    pieces = [*((piece, 0.0) for piece in SPECIAL), *((sign, -1.0) for sign in "\u2581ab\xa0\x0b")]
    library = tokenizer_of("DeBERTa", pieces)
    mine = quick(library)
    assert mine is not None
    blanks = [*" \t\n\x0b\xa0\x85\u3000\u180e\x1c\u200b", "  ", " \xa0", "\r\n", "\x0b\x85"]
    texts = [text.replace("_", blank) for blank in blanks for text in ("a_b", "_a", "a_", "_", "a _b", "a<s>_b_</s>_")]
    assert len(compare_ids(mine, library, texts, 50)) == len(texts)
    marked, spaced = (mine([text], 50)[0][0] for text in ("a\xa0b", "a \xa0 b"))
    assert marked is not None
    assert spaced is not None
    assert marked.tolist() != spaced.tolist() == library.encode("a b").ids


def test_debertas_texts_that_are_not_in_form_c_are_the_librarys() -> None:
    mine = quick(tokenizer_of("DeBERTa"))
    assert mine is not None
    rows, _ = mine(["caf\xe9", "cafe\u0301", "\u212b", "cafe"], 40)
    assert [row is None for row in rows] == [False, True, True, False]


def test_added_tokens_have_the_librarys_ids_or_are_left_to_it(both: tuple[Quick, Tokenizer]) -> None:
    mine, library = both
    texts = ["a<s>b", "<S>", "<s>\xe9", "'<s>'", "''<s>``", " <s> \n</s>", "a\u0301<s>\u0301", "<<s>", "<s", "\uff1cs>"]
    done = compare_ids(mine, library, [*texts, "a <mask>"], 40)
    assert len(done) >= len(texts) - 1
    assert len(texts) not in done  # <mask> takes the space before it


@pytest.mark.parametrize("token", ["'", "`x"])
def test_a_token_that_begins_with_a_quotation_mark_is_the_librarys(token: str) -> None:
    added = (AddedToken(token, normalized=False),)
    assert quick(tokenizer_of("ALBERT", added=added)) is None
    assert quick(tokenizer_of("DeBERTa", added=added)) is not None


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("DeBERTa", {"pre_tokenizer": pre_tokenizers.Metaspace(prepend_scheme="first")}),
        ("DeBERTa", {"pre_tokenizer": pre_tokenizers.Sequence([SIGNS, pre_tokenizers.Metaspace()])}),
        ("DeBERTa", {"normalizer": normalizers.Sequence([normalizers.Lowercase(), deberta()])}),
        ("DeBERTa", {"normalizer": normalizers.Sequence([normalizers.NFC(), normalizers.Strip(left=False)])}),
        ("DeBERTa", {"normalizer": normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")}),
        ("DeBERTa", {"normalizer": normalizers.Sequence([normalizers.Strip(right=False)])}),
        ("ALBERT", {"normalizer": normalizers.Sequence([normalizers.Replace("``", '"'), *accents()])}),
        ("ALBERT", {"normalizer": quotes(normalizers.NFKD())}),
        ("ALBERT", {"normalizer": quotes(normalizers.NFD(), normalizers.StripAccents())}),
        ("ALBERT", {"normalizer": quotes(normalizers.Lowercase())}),
        ("ALBERT", {"normalizer": quotes(normalizers.Lowercase(), *accents())}),
        ("ALBERT", {"normalizer": quotes(normalizers.Strip(), *accents())}),
    ],
)
def test_other_settings_are_the_librarys(kind: str, change: dict[str, Any]) -> None:
    library = tokenizer_of(kind)
    assert quick(library) is not None
    for part, value in change.items():
        setattr(library, part, value)
    assert quick(library) is None


@pytest.mark.parametrize("kind", ["DeBERTa", "ALBERT"])
def test_pairs_have_the_librarys_ids_and_types(kind: str, tmp_path: Path) -> None:
    library = tokenizer_of(kind)
    library.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s>:0 $A:0 </s>:0 $B:1 </s>:1", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    file = tmp_path / "tokenizer.json"
    file.write_text(library.to_str(), encoding="utf-8")
    tokenizer = TextTokenizer(file, max_length=14, of_pairs=True)
    pairs = [("a b", "a c"), ("a ``b''\tc\n", " \xe9 "), ("abc" * 9, "a"), ("a", "b c " * 9), ("", " ")]
    pairs += [("A" * 30, "b!" * 30), ("a b " * 9, "\u732bc " * 9)]
    found = tokenizer.pairs(pairs)
    library.enable_truncation(14, strategy="longest_first")
    theirs = library.encode_batch(pairs)
    assert [row.tolist() for row in found.ids] == [encoding.ids for encoding in theirs]
    assert found.first_segments is not None
    assert found.first_segments.tolist() == [encoding.type_ids.count(0) for encoding in theirs]
    assert tokenizer._library._made_limited is None
