"""Token ids of byte-pair encodings without the Rust library are the library's, or none: real, odd and made-up texts."""

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
from tokenizer_texts import DATA, HAS_DATA, compare_ids, nasty_texts, real_texts
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from fastembed_rt import native
from fastembed_rt.text.bpe import EXPRESSIONS, LOWER, UNCERTAIN, bpe, characters
from fastembed_rt.text.quick import Quick
from fastembed_rt.text.tokenizer import TextTokenizer

assert native.library() == LIBRARY  # which is another build of them where one is named
pytestmark = pytest.mark.skipif(native.bpe() is None, reason="the operators are not compiled")
# What the vocabularies are made of.
CORPUS = [
    *(
        "the cat sat on the mat",
        "don't we'll they're I've it's I'd I'm",
        "a  b   c    d",
        "12 345 6789",
        "caf\xe9 na\xefve \u732b",
    ),
    *(
        "x = (a + b) * c;\n\n\treturn x\n",
        "\u043f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440",
        "!!! ... === ---",
        "aaaa aaa aa a",
    ),
]
# What texts are made of.
GROUPS = (
    *(
        " \t\n\r\xa0\u3000ab",
        "'sStTdDmMrReEvVlL \u017f",
        "ae\u0301\u0323 \xe9",
        "\xb2\xbd1\u0663",
        "12345678 a",
        "aBCd\u01c5\u02b0\u05d0/\n ",
        "\n\n\r\n  \t a",
    ),
    *(
        "\u0627\u0628\u0622\u064b",
        "\u0915\u093c\u094d\u0937",
        "\xa9\u2764\ufe0f\U0001f525\U0001f3fd",
        "\uac00\uac01\u1100\u1161",
    ),
    *(
        "\u30ab\uff9e\u30cf\u309a\u6f22",
        "\u2581\u2581 a",
        "a!!==--()",
        "<mask>[X] ",
        "\x00\x01\x7f\x85",
        "abc the cat ",
        "\xad\u200b\u2028",
    ),
)
SPECIAL = ["<s>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True), "[X]", "[X]]", "   "]


def of_bytes(
    words: Any, normalizer: Any = None, added: Callable[[Any], Any] | None = None, whole: tuple[str, ...] = ()
) -> Tokenizer:
    """Trained on the corpus; `added` makes tokens of their contents. `whole`: words that are pieces are not merged, and
    these are pieces that no merge makes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = words
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=420, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    if whole:
        tokenizer = with_whole_words(tokenizer, whole)
    tokenizer.add_tokens(
        [token if added is None or isinstance(token, AddedToken) else added(token) for token in SPECIAL]
    )
    return around(tokenizer)


def with_whole_words(tokenizer: Tokenizer, words: tuple[str, ...]) -> Tokenizer:
    described = json.loads(tokenizer.to_str())
    described["model"]["ignore_merges"] = True
    vocabulary = described["model"]["vocab"]
    for word in words:
        ((written, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(word)
        vocabulary.setdefault(written, len(vocabulary))
    vocabulary["\u732b of no bytes"] = len(vocabulary)
    return Tokenizer.from_str(json.dumps(described))


def around(tokenizer: Tokenizer) -> Tokenizer:
    begin, end = tokenizer.token_to_id("<s>"), tokenizer.token_to_id("</s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", begin), ("</s>", end)]
    )
    return tokenizer


def of_characters(*, prepend: bool, across: bool = False) -> Tokenizer:
    """As sentencepiece makes them; `across`: a piece has a mark behind a letter."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, fuse_unk=True, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    bytes_of = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", *bytes_of], show_progress=False)
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    described = json.loads(tokenizer.to_str())
    described["added_tokens"] = []
    if across:
        described["model"]["vocab"]["t\u2581"] = len(described["model"]["vocab"])
        described["model"]["merges"].insert(0, ["t", "\u2581"])
    described["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(described))
    mark = normalizers.Replace(" ", "\u2581")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), mark]) if prepend else mark
    tokenizer.add_tokens(
        [AddedToken(token, normalized=False) if isinstance(token, str) else token for token in SPECIAL[:3]]
    )
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in ("\n\n", "\n", "[X]")])
    return around(tokenizer)


def split(expression: str) -> Any:
    of_words = pre_tokenizers.Split(Regex(expression), "isolated")
    return pre_tokenizers.Sequence([of_words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def plain(token: str) -> AddedToken:
    return AddedToken(token, normalized=False)


DIGITS1, DIGITS3, TEKKEN = EXPRESSIONS
WHOLE = (" cafe", "caf\xe9", " \u732b", "345", "12", "=)", "\n\n\n", "  ", "'ll", "zzz", "\xad", " a b", "<mask")
KINDS: dict[str, Callable[[], Tokenizer]] = {
    "gpt2": lambda: of_bytes(pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "longformer": lambda: of_bytes(pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "modernbert": lambda: of_bytes(pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.NFC()),
    "qwen": lambda: of_bytes(split(DIGITS1), normalizers.NFC(), plain),
    "starcoder": lambda: of_bytes(split(DIGITS3), None, plain),
    "llama3": lambda: of_bytes(split(DIGITS3), None, plain, WHOLE),
    "tekken": lambda: of_bytes(split(TEKKEN), None, plain, WHOLE),
    "gemma": lambda: of_characters(prepend=False),
    "llama2": lambda: of_characters(prepend=True),
    "across": lambda: of_characters(prepend=False, across=True),
}


@pytest.fixture(scope="module", params=list(KINDS))
def both(request: pytest.FixtureRequest) -> tuple[Quick, Tokenizer]:
    library = KINDS[request.param]()
    return quick(library), library


def quick(tokenizer: Tokenizer) -> Quick:
    found = changed(tokenizer)
    assert found is not None
    return found


def changed(tokenizer: Tokenizer, **changes: Any) -> Quick | None:
    described = json.loads(tokenizer.to_str())
    described["model"].update(changes.pop("model", {}))
    return bpe(json.dumps(described | changes).encode())


@pytest.mark.parametrize("limit", [4, 9, 100_000])
def test_odd_texts_have_the_librarys_ids(both: tuple[Quick, Tokenizer], limit: int) -> None:
    some = random.Random(limit)
    texts = ["".join(some.choices("".join(some.sample(GROUPS, 2)), k=some.randint(0, 16))) for _ in range(3000)]
    long = [letters * n for letters in ("a", "a ", "\n", "=", "  a", "\u732b", "the") for n in (3, 30, 3000)]
    assert len(compare_ids(*both, [*texts, *nasty_texts(), *CORPUS, *long], limit)) > 2300


@given(st.text(st.characters(max_codepoint=0x17F), max_size=60))
@settings(max_examples=200, deadline=None)
def test_any_text_has_the_librarys_ids_or_none(both: tuple[Quick, Tokenizer], text: str) -> None:
    compare_ids(*both, [text], 16)


@pytest.mark.parametrize("kind", ["gpt2", "qwen", "tekken"])
@pytest.mark.parametrize("around", ["1{}2", "'{}e", "  {}", "\n{}\n", "!{}", " {}{} a", "A{}A", "a{}/\n"])
def test_every_character_is_of_the_kind_that_the_library_takes_it_for(kind: str, around: str) -> None:
    library = KINDS[kind]()
    codes = (*range(0x3400), *range(0x3400, 0xD800, 37), *range(0xF900, 0x10000), *range(0x10000, 0x30000, 37))
    texts = [around.replace("{}", chr(code)) for code in codes]
    compare_ids(quick(library), library, texts, 5000)
    assert (characters() != UNCERTAIN).sum() > 7000
    assert set(characters()) == set(range(UNCERTAIN + 1))
    assert (characters(cased=True) != UNCERTAIN).sum() > 6500
    assert set(characters(cased=True)) == set(range(LOWER + 1))


@pytest.mark.skipif(not HAS_DATA, reason=f"no data in {DATA}")
def test_real_texts_have_the_librarys_ids() -> None:
    for name, share in (("roberta-base", 0.95), ("phi-2", 0.95)):
        content = (DATA / "tokenizers" / name / "tokenizer.json").read_bytes()
        mine, library = bpe(content), Tokenizer.from_buffer(content)
        assert mine is not None
        real = real_texts()[::8]
        assert len(compare_ids(mine, library, real, 64)) > share * len(real)


@pytest.mark.parametrize(
    "changes",
    [
        {"normalizer": {"type": "NFKC"}},
        {"normalizer": {"type": "Lowercase"}},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}},
        {"pre_tokenizer": None},
        {"model": {"dropout": 0.1}},
        {"model": {"end_of_word_suffix": "</w>"}},
        {"model": {"merges": [["a", "nothing"]]}},
        {"model": {"merges": ["a b c"]}},
        {"model": {"vocab": {"a": 0}}},
        {
            "post_processor": {
                "type": "Sequence",
                "processors": [{"type": "BertProcessing"}, {"type": "BertProcessing"}],
            }
        },
        {"added_tokens": None},
    ],
)
def test_another_kind_of_tokenizer_is_the_librarys(changes: dict[str, Any]) -> None:
    library = KINDS["gpt2"]()
    assert changed(library) is not None
    assert changed(library, **changes) is None


def test_added_tokens_are_the_librarys_ids_or_left_to_it(both: tuple[Quick, Tokenizer]) -> None:
    mine, library = both
    texts = ["a[X]b", "[X]]", "[X]]]", "[X", "</s>a", "<s><s>", "a\n\n\nb", "a   b", "      "]
    assert len(compare_ids(mine, library, texts, 40)) == len(texts)
    assert len(compare_ids(mine, library, ["a <mask>"], 40)) == (library.token_to_id("<mask>") is None)


def test_a_space_stands_in_front_where_the_file_says_so() -> None:
    library = KINDS["longformer"]()
    mine = quick(library)
    texts = ["the cat", " the cat", "'s", "12", "!!", "</s>the</s> the", "[X]", "  a", "\u732b"]
    assert len(compare_ids(mine, library, texts, 40)) == len(texts)
    rows, _ = mine(["the cat", " the cat", "\tthe", "\u3000a"], 40)
    assert rows[0] is not None and rows[1] is not None
    assert rows[0].tolist() == rows[1].tolist()
    assert rows[2:] == [None, None]  # a space and a blank are no word
    split_too = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=False)
    library.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(DIGITS1), "isolated"), split_too])
    assert changed(library) is None  # in front of each word
    assert changed(KINDS["longformer"](), model={"ignore_merges": True}) is None


def test_words_that_are_pieces_are_not_merged_where_the_file_says_so() -> None:
    library = KINDS["llama3"]()
    texts = ["a cafe", "caf\xe9", "a \u732b", "x345", "zzz zzz", "=)", "a\n\n\nb"]
    rows, _ = quick(library)(texts, 40)
    merged, _ = quick(KINDS["starcoder"]())(texts, 40)
    for row, other, text in zip(rows, merged, texts, strict=True):
        assert row is not None and other is not None
        assert row.tolist() == library.encode(text).ids
        assert row.tolist() != other.tolist()


def test_a_token_whose_number_is_not_the_librarys_is_left_to_it() -> None:
    described = json.loads(KINDS["gpt2"]().to_str())
    described["added_tokens"][-1]["id"] += 1
    assert bpe(json.dumps(described).encode()) is None


@pytest.mark.parametrize("written", [" ".join, list])
def test_merges_are_read_in_strings_and_in_arrays(written: Callable[[list[str]], Any]) -> None:
    library = KINDS["gpt2"]()
    described = json.loads(library.to_str())
    described["model"]["merges"] = [written(pair) for pair in described["model"]["merges"]]
    mine = bpe(json.dumps(described, ensure_ascii=False).encode())
    assert mine is not None
    assert len(compare_ids(mine, library, CORPUS, 500)) == len(CORPUS)


def test_a_vocabulary_may_have_the_words_vocab_and_merges() -> None:
    library = KINDS["gpt2"]()
    described = json.loads(library.to_str())
    vocabulary = described["model"]["vocab"]
    described["model"]["vocab"] = {"vocab": len(vocabulary) + 50, "merges": len(vocabulary) + 51, **vocabulary}
    described["added_tokens"] = []
    content = json.dumps(described)
    mine, library = bpe(content.encode()), Tokenizer.from_str(content)
    assert mine is not None
    assert len(compare_ids(mine, library, CORPUS, 500)) == len(CORPUS)


def test_texts_that_are_not_in_form_c_are_the_librarys() -> None:
    library = KINDS["modernbert"]()
    mine = quick(library)
    rows, _ = mine(["caf\xe9", "cafe\u0301", "\u212b", "cafe"], 40)
    assert [row is None for row in rows] == [False, True, True, False]
    compare_ids(mine, library, ["caf\xe9", "cafe"], 40)


def test_an_added_token_that_normalizing_changes_is_the_librarys() -> None:
    library = KINDS["modernbert"]()
    library.add_tokens([AddedToken("e\u0301", normalized=True)])
    assert library.encode("\xe9").ids[1] == library.token_to_id("e\u0301")
    assert changed(library) is None


def test_a_model_is_made_without_the_library(tmp_path: Path) -> None:
    library = KINDS["gpt2"]()
    file = tmp_path / "tokenizer.json"
    file.write_text(library.to_str(), encoding="utf-8")
    tokenizer = TextTokenizer(file, max_length=12)
    assert tokenizer.count(CORPUS).tolist() == [len(library.encode(text).ids) for text in CORPUS]
    (row,) = tokenizer(["the cat"]).ids
    assert row.tolist() == library.encode("the cat").ids
    (pair,) = TextTokenizer(file, max_length=40, of_pairs=True).pairs([("the cat", "a mat")]).ids
    assert pair.tolist() == library.encode("the cat", "a mat").ids
    assert tokenizer._library._made_limited is None
