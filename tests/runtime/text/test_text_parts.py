"""Very long texts a part at a time: ids, places and marks are those that the library gives of the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
from word_tokenizers import FILES, TRAINED, UNSAFE, long_texts

from fastembed_rt import EmbeddingModel
from fastembed_rt.text import caps, library, parts
from fastembed_rt.text.tokenizer import TextTokenizer

SMALL = 40  # characters of a part


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (parts, library):
        monkeypatch.setattr(module, "PART", SMALL)


def differing(tokenizer: Tokenizer) -> tuple[int, list[str]]:
    """How many texts fell into parts, and those whose parts have other tokens than the whole."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    made = parts.parts(tokenizer)
    assert made is not None
    looked, wrong = 0, []
    for text in long_texts():
        for parallel in (False, True):
            found = made.encoded(text, offsets=True, parallel=parallel)
            ids = made.encoded(text, offsets=False, parallel=parallel)
            if found is None or ids is None:
                continue
            looked += 1
            whole = tokenizer.encode(text)
            same = found.ids.tolist() == ids.ids.tolist() == whole.ids
            same &= found.special_tokens_mask.tolist() == [bool(mark) for mark in whole.special_tokens_mask]
            if not (same and found.offsets.tolist() == [list(place) for place in whole.offsets]):
                wrong.append(text)
    return looked, wrong


@pytest.mark.parametrize("name", TRAINED)
def test_parts_have_the_tokens_of_the_whole(name: str, small: None) -> None:
    tokenizer = TRAINED[name]()
    if "[UNK]" in tokenizer.get_vocab():
        special = [("[UNK]", tokenizer.token_to_id("[UNK]"))]
        tokenizer.post_processor = processors.TemplateProcessing(single="[UNK] $A [UNK] [UNK]", special_tokens=special)
    looked, wrong = differing(tokenizer)
    assert looked > 50
    assert wrong == []


@pytest.mark.skipif(not FILES, reason="no tokenizers in FASTEMBED_RT_DATA or FASTEMBED_RT_REAL")
@pytest.mark.parametrize("path", FILES, ids=[path.parent.name for path in FILES])
def test_parts_of_real_tokenizers_have_the_tokens_of_the_whole(path: Path, small: None) -> None:
    if path.parent.name in UNSAFE:
        assert parts.parts(Tokenizer.from_file(str(path))) is None
        return
    looked, wrong = differing(Tokenizer.from_file(str(path)))
    assert looked > 50
    assert wrong == []


def test_added_tokens_that_end_as_words_do_leave_texts_whole() -> None:
    def made(change: Any = None, **flags: Any) -> parts.Parts | None:
        tokenizer = TRAINED["BERT"]()
        if flags:
            tokenizer.add_tokens([AddedToken(flags.pop("content"), **flags)])
        if change is not None:
            tokenizer.post_processor = change
        return parts.parts(tokenizer)

    assert made(content="<x>", rstrip=True) is not None  # no word of letters
    assert made(content="xyz", rstrip=True) is None
    assert made(content="a", single_word=True) is None
    assert made(content="xyz") is None  # behind it a text may begin anew, with a mark in front or without its space
    assert made(processors.TemplateProcessing(single="$A $A", special_tokens=[])) is None


def test_a_text_that_begins_anew_behind_an_added_token_has_the_tokens_of_the_whole(small: None) -> None:
    tokenizer = TRAINED["sentencepiece"]()
    tokenizer.normalizer = normalizers.Sequence([normalizers.Strip(), normalizers.NFKC()])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.add_tokens([AddedToken("xyz", normalized=False)])
    made = parts.parts(tokenizer)
    text = "xyz cat " * 40
    found = None if made is None else made.encoded(text, offsets=False, parallel=False)
    assert found is None or found.ids.tolist() == tokenizer.encode(text).ids


def test_texts_without_gaps_are_left_whole(small: None) -> None:
    tokenizer = TRAINED["BERT"]()
    made = parts.parts(tokenizer)
    assert made is not None
    for text in ("", "a cat", "x" * 500, "a, " * 200, "\u200ba cat " * 50):
        assert made.encoded(text, offsets=True, parallel=True) is None


@pytest.mark.filterwarnings("ignore:text")
@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("truncation", ["truncate", "warn", "chunk"])
def test_policies_see_no_difference(
    model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch, truncation: str, side: str
) -> None:
    path = model.path / model.manifest.tokenizer.file
    texts = [f"\u732b {text}" for text in long_texts()[::5]] + ["\u732b a cat", "\u732b" * 300, ""]

    def made() -> tuple[Any, ...]:
        tokenizer = TextTokenizer(path, max_length=16, truncation=truncation, truncation_side=side)
        found = tokenizer(texts, prompt="the dog : ")
        whole = [[part.tolist() for part in row] for row in tokenizer.whole(texts, "the dog : ")]
        counts = tokenizer.count(texts, "the dog : ").tolist()
        rows = [row.tolist() for row in found.ids]
        return rows, found.owner.tolist(), found.truncated, found.warning, whole, counts

    wanted = made()
    for module in (parts, library):
        monkeypatch.setattr(module, "PART", SMALL)
    monkeypatch.setattr(caps, "LETTERS_A_TOKEN", 1)
    monkeypatch.setattr(caps, "SEARCHED", 5)  # so that the beginning is rarely enough
    assert made() == wanted


def test_the_library_never_has_much_of_a_very_long_text_at_once(
    model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = model.path / model.manifest.tokenizer.file
    tokenizer = TextTokenizer(path, max_length=16, truncation="chunk")
    most = 0

    class Watched:
        """The library's tokenizer, and how much of a text it is given."""

        def __init__(self, made: Any) -> None:
            self._made = made

        def __getattr__(self, name: str) -> Any:
            found = getattr(self._made, name)

            def call(given: Any, *arguments: Any, **options: Any) -> Any:
                nonlocal most
                most = max(most, sum(map(len, given)) if isinstance(given, list) else len(given))
                return found(given, *arguments, **options)

            return call if name.startswith("encode") else found

    tokenizer._library._made_free = Watched(tokenizer._library.free)
    tokenizer._library._made_limited = Watched(tokenizer._library.limited)
    text = "\u732b " + "the cat runs to the house " * 60_000
    ((ids, offsets, _),) = tokenizer.whole([text])
    assert len(ids) == int(tokenizer.count([text])[0]) == len(offsets)
    assert sum(len(row) - 2 for row in tokenizer([text]).ids) == len(ids) - 2
    assert 0 < most < 2 * parts.TOGETHER * parts.PART < len(text)
