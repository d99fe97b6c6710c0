"""BM25's sparse vectors are fastembed's, to the bit."""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_hub import FakeHub

from fastembed_rt import BM25
from fastembed_rt.compat.fastembed import SparseTextEmbedding
from fastembed_rt.errors import InvalidInputError, InvalidTypeError, MissingDependencyError, ModelNotFoundError

STOP_WORDS = {
    "english": ("the", "is", "a"),
    "german": ("der", "die"),
    "greek": ("και",),
    "russian": ("и",),
    "turkish": ("ve",),
    "arabic": ("في",),
}
# Made with fastembed 0.9.1 and these stop words, avg_len=8: a text, its words' numbers and weights in their order, and
# what token_count gives. A sigma is another at the end of a word, an apostrophe ends none; i has a dot in Turkish.
FOUND: dict[str, tuple[str, dict[int, float], int]] = {
    "english": (
        "The dogs' running_dog is running; _ the DOG runs 3.14 times!",
        {1312749093: 1.375, 455135583: 1.0, 243905464: 1.375, 264741300: 1.0, 1749031367: 1.0, 2058513491: 1.0},
        12,
    ),
    "german": (
        "Die Häuser der Straße, die STRASSEN",
        {18554856: 1.3435114503816796, 1962405504: 1.6682464454976305},
        6,
    ),
    "greek": ("ΟΔΟΣ'Α και οδός ΟΔΟΣ.", {884386035: 1.7600000000000002, 485463464: 1.2571428571428573}, 5),
    "russian": (
        "Собаки бегут и собака бежит",
        {2097298659: 1.6, 368786056: 1.2571428571428573, 1523764043: 1.2571428571428573},
        5,
    ),
    "turkish": (
        "İstanbul'da ve ISPARTA evlerinde",
        {
            2128973781: 1.1812080536912755,
            1304640163: 1.1812080536912755,
            593807351: 1.1812080536912755,
            741309084: 1.1812080536912755,
            954164472: 1.1812080536912755,
        },
        6,
    ),
    "arabic": (
        "الكتاب في المكتبة والكتب",
        {1808354261: 1.3435114503816796, 1863414707: 1.3435114503816796, 1583845129: 1.3435114503816796},
        4,
    ),
    "tamil": (
        "புத்தகங்கள் புத்தகம் 猫 ①²",
        {
            1762985899: 1.328301886792453,
            1217262932: 1.328301886792453,
            1358891976: 0.9513513513513514,
            2043297161: 0.9513513513513514,
            1082003002: 0.9513513513513514,
            1162507245: 0.9513513513513514,
            534005108: 0.9513513513513514,
        },
        9,
    ),
}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for language, words in STOP_WORDS.items():
        (tmp_path / f"{language}.txt").write_text("".join(f"{word}\n" for word in words), encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("language", FOUND)
def test_numbers_and_weights_are_fastembeds(place: Path, language: str) -> None:
    text, wanted, words = FOUND[language]
    mine = BM25(place, language=language, avg_len=8.0)
    assert list(mine.weights(text).items()) == list(wanted.items())
    assert mine.count_words(text) == words
    document, query = mine.encode_document(text), mine.encode_query([text])[0]
    assert document.as_dict() == {k: float(np.float32(value)) for k, value in sorted(wanted.items())}
    assert query.as_dict() == dict.fromkeys(sorted(wanted), 1.0)
    theirs = SparseTextEmbedding("Qdrant/bm25", specific_model_path=str(place), language=language, avg_len=8.0)
    for model in (theirs, copy.deepcopy(theirs), pickle.loads(pickle.dumps(theirs))):
        (embedded,), (asked,) = model.embed(text), model.query_embed([text])
        assert list(embedded.as_dict().items()) == list(wanted.items())
        assert (str(embedded.values.dtype), str(embedded.indices.dtype)) == ("float64", "int64")
        assert asked.as_dict() == query.as_dict()
        assert model.token_count([text, text]) == 2 * words


@pytest.mark.parametrize(
    "where",
    [{"threads": 1}, {"cuda": True, "device_ids": [0]}, {"providers": [("CUDAExecutionProvider", {"device_id": 1})]}],
)
def test_options_of_a_graph_are_nothing_to_it(place: Path, where: dict[str, Any]) -> None:
    (found,) = SparseTextEmbedding("Qdrant/bm25", specific_model_path=str(place), **where).embed("the dogs")
    assert found.as_dict() == BM25(place).weights("the dogs")


def test_texts_without_words_are_empty(place: Path) -> None:
    mine = BM25(place)
    for text in ("", " \n", "the IS a", "_ ... !", "x" * 41):
        assert len(mine.encode_document(text)) == len(mine.encode_query(text)) == 0
        (found,) = SparseTextEmbedding("qdrant/BM25", specific_model_path=str(place)).embed([text])
        assert (str(found.indices.dtype), len(found.values)) == ("int64", 0)
    assert len(mine.encode_document("x" * 40)) == 1
    assert mine.encode_document([]) == []


def test_a_document_and_a_query_meet_in_the_words_they_have_in_common(place: Path) -> None:
    mine = BM25(place)
    query = mine.encode_query("where do dogs run?").as_dict()
    near, far = (mine.encode_document(text).as_dict() for text in ("A dog is running.", "The price of oil"))
    assert len(query.keys() & near.keys()) == 2
    assert not query.keys() & far.keys()


class Halves:
    def stem_word(self, word: str) -> str:
        return word[: len(word) // 2]


def test_words_stems_and_stop_words_may_be_others(place: Path) -> None:
    plain = BM25(place, disable_stemmer=True)
    assert plain.weights("the dogs").keys() == {plain._number("the"), plain._number("dogs")}
    assert BM25(place, stopwords=("DOGS",)).weights("the dogs").keys() == {plain._number("the")}
    halved = BM25(language="klingon", stemmer=Halves())
    assert halved.weights("a dogs").keys() == {plain._number("do")}, "a word without a stem is left out"
    assert pickle.loads(pickle.dumps(halved)).weights("a dogs") == halved.weights("a dogs")
    (place / "tamil.txt").write_text("the\n", encoding="utf-8")
    assert BM25(place, language="tamil").weights("the dogs").keys() == plain.weights("dogs").keys(), "one's own file"
    assert BM25(place, token_max_length=3).weights("dogs cat").keys() == {plain._number("cat")}


def test_what_cannot_be_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInputError, match="language 'klingon' is not known; known: arabic"):
        BM25(place, language="klingon")
    with pytest.raises(InvalidInputError, match="exclude each other"):
        BM25(place, disable_stemmer=True, stemmer=Halves())
    with pytest.raises(ModelNotFoundError, match=r"has no danish\.txt, the language's stop words; pass stopwords=\(\)"):
        BM25(place, language="danish")
    with pytest.raises(ValueError, match=r"danish\.txt"):
        SparseTextEmbedding("Qdrant/bm25", specific_model_path=str(place), language="danish")
    assert BM25(place, language="danish", stopwords=()).stopwords == frozenset()
    with pytest.raises(InvalidTypeError, match="text 1 is int"):
        BM25(place).encode_document(["a", 1])  # type: ignore[list-item]
    for name in ("Qdrant/bm42-all-minilm-l6-v2-attentions", "Qdrant/minicoil-v1"):
        with pytest.raises(ValueError, match="not built here; of fastembed's sparse models without a head over words"):
            SparseTextEmbedding(name)
    monkeypatch.setitem(sys.modules, "py_rust_stemmers", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fastembed-rt\[bm25\]'"):
        BM25(place)


def test_stop_words_come_from_the_hub_a_language_at_a_time(hub: FakeHub, tmp_path: Path) -> None:
    hub.add("Qdrant/bm25", {"config.json": "{}", "english.txt": "the\nis\n", "german.txt": "der\n"})
    assert BM25().stopwords == {"the", "is"}
    assert not [line for line in hub.requests if "german" in str(line)]
    assert BM25(local_files_only=True).stopwords == {"the", "is"}
    assert BM25(language="tamil").stopwords == frozenset(), "has none"
    model = SparseTextEmbedding("Qdrant/bm25", cache_dir=str(tmp_path / "elsewhere"), language="german", threads=1)
    assert model.model.get().stopwords == {"der"}
    with pytest.raises(ValueError, match=r"danish\.txt"):
        SparseTextEmbedding("Qdrant/bm25", language="danish")


def test_what_is_known_of_words_does_not_grow(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastembed_rt.models.bm25.KNOWN", 10)
    mine, fresh = BM25(place), BM25(place)
    for k in range(60):
        text = f"dog{k} cat{k} runs"
        assert mine.weights(text) == copy.copy(fresh).weights(text)
    assert max(len(mine._stems), len(mine._numbers)) <= 13


def test_it_is_listed_for_who_looks_names_up() -> None:
    (first, *_) = SparseTextEmbedding.list_supported_models()
    assert (first["model"], first["requires_idf"]) == ("Qdrant/bm25", True)
