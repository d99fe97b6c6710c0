"""Where a long text may be cut: the tokens of its beginning are the first tokens of all of it."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from checkpoints import WORDS
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from word_tokenizers import FILES, PIECES, TRAINED, UNSAFE, long_texts, made

from fastembed_rt import EmbeddingModel
from fastembed_rt.text import caps
from fastembed_rt.text.tokenizer import TextTokenizer


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    found: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return found


def differences(tokenizer: Tokenizer) -> tuple[int, list[str]]:
    """How many cuts were looked at, and those behind which the beginning has other tokens."""
    tokenizer.no_truncation()
    tokenizer.no_padding()
    pattern = caps.gaps_of(json.loads(tokenizer.to_str()))
    chance = random.Random(3)
    looked, wrong = 0, []
    for text in long_texts():
        whole = ids(tokenizer, text)
        gaps = [match.start() for match in pattern.finditer(text)]
        for at in chance.sample(gaps, min(len(gaps), 6)):
            beginning = ids(tokenizer, text[:at])
            looked += 1
            if whole[: len(beginning)] != beginning:
                wrong.append(text[max(at - 30, 0) : at + 30])
    return looked, wrong


@pytest.mark.parametrize("name", TRAINED)
def test_a_cut_between_two_words_changes_no_token_before_it(name: str) -> None:
    tokenizer = TRAINED[name]()
    assert caps.works_within_words(json.loads(tokenizer.to_str()))
    looked, wrong = differences(tokenizer)
    assert looked > 200
    assert wrong == []


@pytest.mark.skipif(not FILES, reason="no tokenizers in FASTEMBED_RT_DATA or FASTEMBED_RT_REAL")
@pytest.mark.parametrize("path", FILES, ids=[path.parent.name for path in FILES])
def test_real_tokenizers_may_be_cut_or_are_known_not_to(path: Path) -> None:
    settings = json.loads(path.read_text(encoding="utf-8"))
    assert caps.works_within_words(settings) == (path.parent.name not in UNSAFE)
    if path.parent.name not in UNSAFE:
        looked, wrong = differences(Tokenizer.from_file(str(path)))
        assert looked > 200
        assert wrong == []


def test_tokenizers_that_reach_over_words_are_left_alone() -> None:
    """One of whole texts has pieces of several words, so that a cut changes what stands before it."""
    tokenizer = made(
        models.BPE(unk_token="<unk>"),
        trainers.BpeTrainer(vocab_size=PIECES, special_tokens=["<unk>"], show_progress=False),
        pre_tokenizers.Split("\n", "isolated"),
    )
    assert not caps.works_within_words(json.loads(tokenizer.to_str()))
    assert differences(tokenizer)[1]


@pytest.mark.parametrize(
    "change",
    [
        {"pre_tokenizer": None},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}},
        {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": False}},
        {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": ".*"}, "behavior": "Isolated", "invert": False}},
        {"pre_tokenizer": {"type": "UnicodeScripts"}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "a b"}, "content": "c"}},
        {"normalizer": {"type": "Replace", "pattern": {"String": "a b"}, "content": "c"}},
        {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": ""}},
        {"normalizer": {"type": "Replace", "pattern": {"String": "ab"}, "content": ""}},
        {"normalizer": {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": "x"}},
        {"normalizer": {"type": "SomethingNew"}},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [
                    {"type": "Split", "pattern": {"String": "a b"}, "behavior": "Removed", "invert": False},
                    {"type": "Whitespace"},
                ],
            }
        },
        {"added_tokens": [{"content": "New York"}]},
        {"added_tokens": [{"content": "New\u2581York"}]},
        {"normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}},
    ],
)
def test_what_is_not_known_to_be_local_is_left_alone(change: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"pre_tokenizer": {"type": "BertPreTokenizer"}, "normalizer": None, "added_tokens": []}
    assert caps.works_within_words(settings)
    assert not caps.works_within_words({**settings, **change})


@pytest.mark.parametrize(
    "change",
    [
        {"added_tokens": [{"content": "a\u3002"}]},
        {"added_tokens": [{"content": "a:"}]},  # which a wide colon may become
        {"normalizer": {"type": "Replace", "pattern": {"String": "\u3002"}, "content": ""}},
        {"pre_tokenizer": {"type": "WhitespaceSplit"}},
        {
            "pre_tokenizer": {
                "type": "Sequence",
                "pretokenizers": [{"type": "Punctuation", "behavior": "MergedWithPrevious"}, {"type": "Whitespace"}],
            }
        },
    ],
)
def test_what_may_join_a_stop_to_the_letter_before_it_is_cut_at_spaces_alone(change: dict[str, Any]) -> None:
    settings: dict[str, Any] = {"pre_tokenizer": {"type": "BertPreTokenizer"}, "normalizer": None, "added_tokens": []}
    assert caps.gaps_of(settings) is caps.at_stops()
    assert caps.works_within_words({**settings, **change})
    assert caps.gaps_of({**settings, **change}) is caps.GAP


@pytest.mark.parametrize(
    ("splits", "normalizer"),
    [
        (pre_tokenizers.ByteLevel(add_prefix_space=False), normalizers.BertNormalizer(lowercase=False)),
        (pre_tokenizers.WhitespaceSplit(), normalizers.BertNormalizer(lowercase=False)),
    ],
    ids=["spaces around Han", "stops apart from Han"],
)
def test_normalizers_that_change_gaps_change_no_token(splits: Any, normalizer: Any) -> None:
    tokenizer = made(
        models.BPE(unk_token="<unk>"),
        trainers.BpeTrainer(vocab_size=PIECES, special_tokens=["<unk>"], show_progress=False),
        pre_tokenizers.Sequence([splits, pre_tokenizers.ByteLevel(add_prefix_space=True)]),
        normalizer,
    )
    settings = json.loads(tokenizer.to_str())
    if not caps.works_within_words(settings):
        return
    for text in long_texts():
        gap = caps.gaps_of(settings).search(text, len(text) // 2)
        if gap is not None:
            begin, word = tokenizer.encode(text[: gap.start()]).ids, tokenizer.encode("a").ids
            rest = tokenizer.encode("a" + text[gap.start() :]).ids
            assert begin + rest[len(word) :] == tokenizer.encode(text).ids


def test_what_normalizers_take_apart_is_not_cut_behind() -> None:
    """Numbers in circles are no letters to the library, and of a voiced letter's two parts the second is none."""
    for letter in "\u2460\u00b2\u2488\u304c\u30d1\u3099\u00e9a1":
        assert caps.at_stops().search(letter + "\u3002" + letter) is None
    for letter in "\u732b\u3042\u30ab\u30fc":
        assert caps.at_stops().search(letter + "\u3002" + letter) is not None


def test_a_tokenizer_has_the_settings_of_its_file() -> None:
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.add_tokens(["x", AddedToken("</s>", special=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits()])
    tokenizer.normalizer = normalizers.NFC()
    settings, file = caps.settings_of(tokenizer), json.loads(tokenizer.to_str())
    assert {step: settings[step] for step in caps.STEPS} == {step: file[step] for step in caps.STEPS}
    named = [{"id": token["id"], "content": token["content"]} for token in file["added_tokens"]]
    assert settings["added_tokens"] == named


def test_texts_are_cut_at_a_gap_behind_what_is_enough_or_not_at_all() -> None:
    shorten = caps.cutter({"pre_tokenizer": {"type": "Whitespace"}}, 4)
    assert shorten is not None
    most = 4 * caps.LETTERS_A_TOKEN
    text = "ab " * 5000
    cut = shorten(text)
    assert most <= len(cut) <= most + 3
    assert text.startswith(cut + " ")
    assert cut.endswith("b")
    for whole in ("a" * 10_000, "a, " * 5000, "ab " * 100, ""):
        assert shorten(whole) is whole
    assert shorten("猫、犬。" * 5000) == "猫、犬。" * (most // 4) + "猫"
    at_space = caps.cutter({"pre_tokenizer": {"type": "Metaspace"}}, 4)
    assert at_space is not None
    whole = "猫、犬。" * 5000
    assert at_space(whole) is whole


def test_millions_of_characters_cost_what_their_first_tokens_cost(model: EmbeddingModel) -> None:
    text = "\u732b " + " ".join(random.Random(4).choices(WORDS, k=500_000))  # the library's, for one letter
    assert len(text) > 2_000_000
    tokenizer = TextTokenizer(model.path / model.manifest.tokenizer.file, max_length=model.max_length)
    tokenizer(["\u732b"])  # it is made
    began = time.process_time()
    made = tokenizer([text, "a cat", "\u732b cat"])
    short = time.process_time() - began
    began = time.process_time()
    library = tokenizer._library.limited.encode(text)
    assert made.ids[0].tolist() == library.ids
    assert short < (time.process_time() - began) / 5
    assert (made.truncated, [len(row) for row in made.ids[1:]]) == (1, [4, 4])
    first = text[: 100 * model.max_length].rpartition(" ")[0]
    assert model.encode(text).tobytes() == model.encode(first).tobytes()


@pytest.mark.parametrize("truncation", ["truncate", "warn", "chunk"])
@pytest.mark.filterwarnings("ignore:text")
def test_the_rest_of_a_text_counts_where_its_beginning_is_not_enough(
    model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch, truncation: str
) -> None:
    monkeypatch.setattr(caps, "LETTERS_A_TOKEN", 1)
    monkeypatch.setattr(caps, "SEARCHED", 20)
    path = model.path / model.manifest.tokenizer.file
    texts = [
        "\u732b " + "tree " * 40,  # its beginning is enough
        "\u732b" + "x" * 200 + " a cat runs" * 2,  # no gap where it is looked for
        "\u732b" + "y" * 19 + " the" + " " * 60 + "cat",  # fewer tokens than there is room for
        "\u732b a dog",
    ]
    made = TextTokenizer(path, max_length=16, truncation=truncation)(texts)
    monkeypatch.setattr(caps, "SEARCHED", 10_000)
    whole = TextTokenizer(path, max_length=16, truncation=truncation)(texts)
    assert [row.tolist() for row in made.ids] == [row.tolist() for row in whole.ids]
    assert (made.truncated, made.warning) == (whole.truncated, whole.warning)
    assert made.owner.tolist() == whole.owner.tolist()
