"""Tables of word vectors beside sentence-transformers: words of a text, their means and weights, what is refused."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path
from typing import Any

import pytest
import torch
from checkpoints import change_json
from routed import normalize, save
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules.dense import Dense
from sentence_transformers.sentence_transformer.modules import BoW, Pooling, WordEmbeddings, WordWeights
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer
from tokenizers import Tokenizer
from tolerances import close

from fastembed_rt import EmbeddingModel, native
from fastembed_rt.manifest import NOT_VERIFIED
from fastembed_rt_export.checkpoint.read import load
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.gate.parity import parity_texts
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tokenizer import words

pytestmark = pytest.mark.usefixtures("short_gate")
DIM = 12
WRITTEN = "PADDING_TOKEN Paris paris PARIS U.S. u.s. u.s 's n't -- C++ c++ ΟΔΟΣ οδος οδός 10% 10 # i̇ the The naïve 東京"
PLAIN = sorted({word for case in parity_texts() for word in case.text.lower().split()})
VOCABULARY = [*WRITTEN.split(), *[word for word in PLAIN if word not in WRITTEN.split()]]
CASED = sorted({word for case in parity_texts() for word in case.text.split()[::2]})
TEXTS = [
    *("The U.S. 's capital is u.s., not Paris!", "'PARIS' (Paris) paris... u.s", 'C++, c++ and "c++" -- 10% 10', "..."),
    *(
        "",
        " \n",
        "unheardof",
        "ΟΔΟΣ, ΟΔΌΣ İ n't",
        "the the THE\x1fthe\u3000naïve\u200bnaïve 東京\x85東京",
        "▁the \U0010fffeu.s. \U0010ffffthe",
    ),
]

NOTHING = ["", "unheardof", "(%$%) but"]


def nasty(vocabulary: list[str]) -> list[str]:
    """Known words in all cases between all signs and spaces, some of them joined."""
    chance = random.Random(5)
    pool = [*vocabulary, *WRITTEN.split(), "ΣΑΣ'", "ẞ", "▁", "\U0010ffff", "A" * 3000]
    cases = (str, str.upper, str.lower, str.title, str.swapcase)

    def signs() -> str:
        return "".join(chance.choices(string.punctuation, k=chance.choice((0, 0, 0, 1, 2))))

    def word() -> str:
        gap = chance.choice((" ", "  ", "\n", "\u3000", "\x1f", "\u200b", "", "\x85"))
        return signs() + chance.choice(cases)(chance.choice(pool)) + signs() + gap

    return ["".join(word() for _ in range(chance.randrange(8))) for _ in range(1500)]


def save_words(directory: Path, *behind: Any, weights: dict[str, float] | None = None, **options: Any) -> Path:
    torch.manual_seed(7)
    table = WordEmbeddings(WhitespaceTokenizer(VOCABULARY), torch.randn(len(VOCABULARY), DIM) + 0.2, **options)
    weighted = [] if weights is None else [WordWeights(VOCABULARY, weights, 0.5)]
    return save(directory, table, *weighted, *behind)


@pytest.mark.parametrize("lower", [False, True])
@pytest.mark.parametrize("vocabulary", [VOCABULARY, CASED], ids=["lower case", "both cases"])
def test_a_text_has_the_words_that_sentence_transformers_finds(
    tmp_path: Path, vocabulary: list[str], lower: bool
) -> None:
    stops = {"vocabulary": {}, "own": {"stop_words": ["The", "--", "c++", "of", "(a)", "two words"]}}
    for options in stops.values():
        WhitespaceTokenizer([*vocabulary, "two words", "the"], do_lower_case=lower, **options).save(str(tmp_path))
        theirs = WhitespaceTokenizer.load(str(tmp_path))
        ours = Tokenizer.from_str(words.convert(tmp_path))
        for text in [*TEXTS, *(case.text for case in parity_texts()), *nasty(vocabulary)]:
            assert ours.encode(text).ids == theirs.tokenize(text), repr(text)


@pytest.mark.parametrize(
    ("pooling", "weights", "behind", "options"),
    [
        ("mean", None, [], {}),
        ("mean_sqrt_len_tokens", None, [Dense(DIM, 5)], {"max_seq_length": 4}),
        (("max", "mean"), None, [normalize()], {}),
        ("mean", {"paris": 2.5, "10": 0.0, "naïve": 0.1}, [normalize()], {}),
    ],
    ids=["mean", "root of the length", "two poolings", "weights"],
)
def test_vectors_are_those_of_sentence_transformers(
    tmp_path: Path, pooling: Any, weights: dict[str, float] | None, behind: list[Any], options: dict[str, Any]
) -> None:
    source = save_words(tmp_path / "source", Pooling(DIM, pooling), *behind, weights=weights, **options)
    whole = weights is not None
    precisions = ("fp32", "bf16", "int8") if whole and native.kernels() else ("fp32",)
    made = export(str(source), ExportOptions(output=tmp_path / "out", precisions=precisions, verify=whole)).manifest
    assert not made.refused and made.parity["status"] == ("passed" if whole else NOT_VERIFIED)
    assert ("WordWeights" in made.modules) == whole
    theirs = SentenceTransformer(str(source), device="cpu", local_files_only=True)
    for target in (*(("native",) if native.kernels() else ()), "cpu", "portable"):
        with EmbeddingModel(tmp_path / "out", target=target, precision="fp32") as model:
            known = [text for text in TEXTS if model.count_tokens(text)]
            assert len(known) == 6
            close(model.encode(known), theirs.encode(known), what=target)
            nothing = model.encode(NOTHING)
            assert not nothing.any()
            if pooling == "mean":  # else the reference has no number, or a layer's bias
                close(nothing, theirs.encode(NOTHING))


def test_very_long_texts_have_all_their_words(tmp_path: Path) -> None:
    source = save_words(tmp_path / "source", Pooling(DIM, "mean"))
    text = "Paris, u.s. ΟΔΟΣ the " * 20_000
    theirs = SentenceTransformer(str(source), device="cpu", local_files_only=True)
    export(str(source), ExportOptions(output=tmp_path / "out", verify=False))
    with EmbeddingModel(tmp_path / "out") as model:
        assert model.count_tokens(text) == len(theirs.tokenize([text])["input_ids"][0]) == 60_000


def test_what_is_not_built_of_words_is_refused_by_name(tmp_path: Path) -> None:
    def refusal(source: Path, error: type[Exception] = UnsupportedCheckpointError) -> str:
        with pytest.raises(error) as raised:
            load(source, "words")
        return str(raised.value)

    source = save_words(tmp_path / "source", Pooling(DIM, "mean"), weights={})
    change_json(source / "1_WordWeights" / "config.json", unknown_word_weight=-1.0)
    assert "weights below 0" in refusal(source)
    change_json(source / "1_WordWeights" / "config.json", unknown_word_weight="x")
    assert "are no numbers" in refusal(source, CheckpointError)
    change_json(source / "2_Pooling" / "config.json", pooling_mode="max")
    assert "pooling max of WordEmbeddings is not built with WordWeights" in refusal(source)
    folder = source / json.loads((source / "modules.json").read_text(encoding="utf-8"))[0]["path"]
    change_json(source / "2_Pooling" / "config.json", pooling_mode="mean")
    change_json(folder / "whitespacetokenizer_config.json", vocab=[*VOCABULARY, "more"])
    assert "words for a table of" in refusal(source, CheckpointError)
    phrases = "sentence_transformers.models.tokenizer.PhraseTokenizer.PhraseTokenizer"
    change_json(folder / "wordembedding_config.json", tokenizer_class=phrases)
    assert "tokenizer_class PhraseTokenizer, which is not built; built is WhitespaceTokenizer" in refusal(source)
    assert "begins with BoW" in refusal(save(tmp_path / "bow", BoW(VOCABULARY)))
    entries = json.loads((source / "modules.json").read_text(encoding="utf-8"))
    for kind in ("CNN", "LSTM"):
        entries[1]["type"] = f"sentence_transformers.models.{kind}"
        (source / "modules.json").write_text(json.dumps(entries), encoding="utf-8")
        assert f"WordEmbeddings, {kind}" in refusal(source)
