"""Every kind of tokenizer gives transformers' ids: families, odd settings, both sides, files of slow tokenizers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sentencepiece
import transformers
from checkpoints import (
    BERT_SPECIAL,
    TEXTS,
    VOCABULARY,
    WORDS,
    assert_vectors_agree,
    change_json,
    exported_vectors,
    reference_vectors,
    save_sentence_transformers,
    save_tokenizer,
    write_json,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from tolerances import close

from fastembed_rt import EmbeddingModel, manifest
from fastembed_rt.errors import ModelFormatError
from fastembed_rt.text.tokenizer import TextTokenizer
from fastembed_rt_export.checkpoint.read import load
from fastembed_rt_export.errors import CheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tokenizer import tokenizer_json

pytestmark = pytest.mark.usefixtures("short_gate")

DATA = Path(os.environ.get("FASTEMBED_RT_DATA", Path(__file__).parents[3] / "shared" / "data"))
needs_data = pytest.mark.skipif(
    not (DATA / "tokenizers").is_dir(), reason="no data folder; FASTEMBED_RT_DATA says where it is"
)
FAMILIES = {
    "bert-base-uncased": "bert",
    "bge-small-zh-v1.5": "bert",
    "roberta-base": "roberta",
    "t5-small": "t5",
    "phi-2": "phi",
}
CUT = [*TEXTS, "the cat " * 30, "[CLS] the [MASK] cat [SEP]", "É東京 ÉTÉ"]


def data_texts() -> list[str]:
    """Some questions, the naughty strings, and the beginnings of the texts in many languages."""
    questions = (DATA / "texts" / "short_queries_squad_dev.jsonl").read_text(encoding="utf-8").splitlines()
    naughty = json.loads((DATA / "unicode" / "blns.json").read_text(encoding="utf-8"))
    articles = [file.read_text(encoding="utf-8")[:3000] for file in sorted((DATA / "unicode" / "udhr").glob("*.txt"))]
    return [*map(json.loads, questions[::4]), *naughty, *articles]


def family(directory: Path, name: str, model_type: str, *without: str) -> Path:
    """The files of a family as a checkpoint has them, less some of them."""
    directory.mkdir()
    for file in (DATA / "tokenizers" / name).iterdir():
        if file.name not in without:
            shutil.copyfile(file, directory / file.name)
    write_json(directory / "config.json", {"model_type": model_type})
    return directory


class Described:
    """As much of a checkpoint as its tokenizer needs."""

    lower_case = False
    include_prompt = True
    task = "embedding"
    max_length = 512
    is_static = has_words = False
    markers = ()
    chat = None
    tokenizer_settings: dict[str, Any] = {}  # noqa: RUF012

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = json.loads((path / "config.json").read_text(encoding="utf-8"))


def made(directory: Path, max_length: int = 512) -> TextTokenizer:
    """The runtime's tokenizer for the exported file."""
    converted = tokenizer_json.load(Described(directory))  # type: ignore[arg-type]
    file = directory / "exported.json"
    file.write_text(converted.text, encoding="utf-8", newline="")
    return TextTokenizer(file, max_length=max_length, truncation_side=converted.truncation_side)


def assert_ids_agree(directory: Path, texts: list[str], max_length: int = 512) -> None:
    """The exported tokenizer's ids are those of transformers, cut where it cuts."""
    reference = transformers.AutoTokenizer.from_pretrained(directory)
    wanted = reference(texts, truncation=True, max_length=max_length)["input_ids"]
    for text, ids, expected in zip(texts, made(directory, max_length)(texts).ids, wanted, strict=True):
        assert ids.tolist() == list(expected), text


# --- families --------------------------------------------------------------------------------------------------------


@needs_data
@pytest.mark.parametrize(("name", "model_type"), FAMILIES.items())
@pytest.mark.parametrize("side", ["right", "left"])
def test_ids_of_a_family_are_those_of_transformers(tmp_path: Path, name: str, model_type: str, side: str) -> None:
    directory = family(tmp_path / name, name, model_type)
    settings = directory / "tokenizer_config.json"
    old = json.loads(settings.read_text(encoding="utf-8")) if settings.is_file() else {}
    write_json(settings, {**old, "truncation_side": side})
    if side == "right":
        assert_ids_agree(directory, data_texts())
    else:  # only the cut is another
        assert_ids_agree(directory, data_texts()[::4], 24)


@needs_data
@pytest.mark.parametrize(
    ("name", "model_type"),
    [
        ("bert-base-uncased", "bert"),
        ("bert-base-cased_recovered", "bert"),
        ("mpnet_derived", "mpnet"),
        ("roberta-base", "roberta"),
    ],
)
def test_ids_of_converted_vocabularies_are_those_of_transformers(tmp_path: Path, name: str, model_type: str) -> None:
    directory = family(tmp_path / name, name, model_type, "tokenizer.json")
    write_json(directory / "tokenizer_config.json", {"do_lower_case": "cased" not in name.split("-")})
    assert_ids_agree(directory, data_texts()[::3])


@needs_data
@pytest.mark.parametrize(("name", "model_type"), [("bert-base-uncased", "bert"), ("roberta-base", "roberta")])
def test_a_converted_vocabulary_is_the_familys_own_tokenizer_json(tmp_path: Path, name: str, model_type: str) -> None:
    texts = data_texts()[::3]
    converted = made(family(tmp_path / "slow", name, model_type, "tokenizer.json"))(texts).ids
    authors = Tokenizer.from_file(str(DATA / "tokenizers" / name / "tokenizer.json"))
    authors.enable_truncation(512)
    assert [row.tolist() for row in converted] == [encoding.ids for encoding in authors.encode_batch(texts)]


@needs_data
def test_pieces_are_those_published_for_the_questions(tmp_path: Path) -> None:
    entries = json.loads((DATA / "tokenizers" / "golden" / "question_tokens.json").read_text(encoding="utf-8"))
    directory = family(tmp_path / "bert", "bert-base-uncased", "bert", "tokenizer.json")
    vocabulary = (directory / "vocab.txt").read_text(encoding="utf-8").splitlines()
    rows = made(directory)([entry["original"] for entry in entries]).ids
    assert [[vocabulary[k] for k in row[1:-1]] for row in rows] == [entry["wordpiece"] for entry in entries]


# --- sentencepiece ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def spm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small Unigram model of sentencepiece."""
    root = tmp_path_factory.mktemp("spm")
    lines = [" ".join(WORDS[k:] + WORDS[:k]) for k in range(len(WORDS))]
    (root / "lines.txt").write_text("\n".join(lines), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(root / "lines.txt"),
        model_prefix=str(root / "spm"),
        vocab_size=120,
        model_type="unigram",
        minloglevel=2,
        hard_vocab_limit=False,
    )
    return root / "spm.model"


@pytest.mark.parametrize(
    ("model_type", "file", "shift"),
    [("xlm-roberta", "sentencepiece.bpe.model", 1), ("camembert", "sentencepiece.bpe.model", None)],
)
def test_a_sentencepiece_model_is_converted(
    tmp_path: Path, spm: Path, model_type: str, file: str, shift: int | None
) -> None:
    shutil.copyfile(spm, tmp_path / file)
    write_json(tmp_path / "config.json", {"model_type": model_type})
    texts = ["the cat sleeps", "a dog runs quickly under the old tree", "", "vector model 1 2 3", "éxù 東京"]
    assert_ids_agree(tmp_path, texts)
    if shift is not None:  # XLM-R moves sentencepiece's ids by one; <unk> is 3
        pieces = sentencepiece.SentencePieceProcessor(model_file=str(spm))
        wanted = [[k + shift if k else 3 for k in pieces.encode(text)] for text in texts]
        assert [row[1:-1].tolist() for row in made(tmp_path)(texts).ids] == wanted


# --- what tokenizer_config.json says ---------------------------------------------------------------------------------


def saved(directory: Path, **settings: Any) -> Path:
    """A BERT tokenizer with its settings; tokenizer.json always lower-cases."""
    directory.mkdir(exist_ok=True)
    save_tokenizer(directory, "bert")
    body = json.loads((directory / "tokenizer.json").read_text(encoding="utf-8"))
    body["model"]["max_input_chars_per_word"] = 100
    write_json(directory / "tokenizer.json", body)
    write_json(directory / "tokenizer_config.json", settings)
    write_json(directory / "config.json", {"model_type": "bert"})
    return directory


@pytest.mark.parametrize("named", ["BertTokenizer", "BertTokenizerFast", None, "PreTrainedTokenizerFast"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"do_lower_case": False},
        {"do_lower_case": False, "strip_accents": True},
        {"strip_accents": False},
        {"tokenize_chinese_chars": False},
        {"do_lower_case": True, "strip_accents": True, "tokenize_chinese_chars": True},
    ],
)
def test_settings_of_bert_tokenizers_overrule_tokenizer_json(
    tmp_path: Path, named: str | None, settings: dict[str, Any]
) -> None:
    directory = saved(tmp_path / "bert", **settings, **({"tokenizer_class": named} if named else {}))
    assert_ids_agree(directory, CUT)


def test_a_lower_cased_file_of_a_cased_class_is_cased(tmp_path: Path) -> None:
    ids = made(saved(tmp_path / "cased", tokenizer_class="BertTokenizer", do_lower_case=False))(["THE", "the"]).ids
    assert ids[0].tolist() != ids[1].tolist()


@pytest.mark.parametrize("prefix", [True, False, None])
def test_add_prefix_space_overrules_tokenizer_json(tmp_path: Path, prefix: bool | None) -> None:
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    trained.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    trained.save(str(tmp_path / "tokenizer.json"))
    said = {} if prefix is None else {"add_prefix_space": prefix}
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer", **said})
    write_json(tmp_path / "config.json", {"model_type": "roberta"})
    assert_ids_agree(tmp_path, CUT)
    pieces = Tokenizer.from_file(str(made(tmp_path)._path)).encode("cat").tokens
    assert ("Ġcat" in pieces) is bool(prefix)


ADDED = {"content": "<obj>", "lstrip": False, "rstrip": False, "single_word": False, "normalized": False}


@pytest.mark.parametrize(
    "settings",
    [
        {"added_tokens_decoder": {"250": {**ADDED, "special": True}}},
        {"added_tokens_decoder": {"250": {**ADDED, "special": False, "normalized": True, "content": "CatDog"}}},
        {"added_tokens_decoder": {"250": {**ADDED, "special": False, "lstrip": True}}},
        {"additional_special_tokens": ["cat"]},
        {"pad_token": "dog", "mask_token": {**ADDED, "content": "##x", "__type": "AddedToken"}},
    ],
)
@pytest.mark.parametrize("special_map", [False, True])
def test_tokens_that_the_config_adds_are_added(tmp_path: Path, settings: dict[str, Any], special_map: bool) -> None:
    directory = saved(tmp_path / "bert", tokenizer_class="PreTrainedTokenizerFast")
    map_it = special_map and "added_tokens_decoder" not in settings
    change_json(directory / "tokenizer_config.json", **({} if map_it else settings))
    if map_it:
        write_json(directory / "special_tokens_map.json", settings)
    assert_ids_agree(directory, [*CUT, "the <obj> runs", "catdog CatDog", "cat cats a cat", "dog ##x"])


@pytest.mark.parametrize("listed", [[1], {"a": {}}, {"1": "x"}])
def test_added_tokens_that_are_no_tokens_are_refused(tmp_path: Path, listed: object) -> None:
    directory = saved(tmp_path / "bert", added_tokens_decoder=listed)
    with pytest.raises(CheckpointError, match="added_tokens_decoder that is not tokens by id"):
        made(directory)


@pytest.mark.parametrize("key", ["processor_kwargs", "tokenizer_args"])
def test_settings_that_the_module_passes_on_count_more(tmp_path: Path, key: str) -> None:
    chain = save_sentence_transformers(tmp_path / "chain")
    change_json(chain / "tokenizer_config.json", model_max_length=40)
    change_json(chain / "sentence_bert_config.json", **{key: {"model_max_length": 12, "truncation_side": "left"}})
    assert_vectors_agree(chain, tmp_path / "out", CUT)
    described = manifest.read(tmp_path / "out")
    assert (described.max_length, described.truncation_side) == (12, "left")


def test_settings_that_are_none_are_refused(tmp_path: Path) -> None:
    chain = save_sentence_transformers(tmp_path / "chain")
    change_json(chain / "sentence_bert_config.json", processor_kwargs=["left"])
    with pytest.raises(CheckpointError, match="are not settings by name"):
        load(chain, "chain")


def test_without_a_pad_token_padding_is_filled_with_what_the_config_says(tmp_path: Path) -> None:
    chain = save_sentence_transformers(tmp_path / "chain")
    before = exported_vectors(chain, tmp_path / "before")
    change_json(chain / "tokenizer_config.json", "pad_token")
    change_json(chain / "config.json", pad_token_id=7)
    np.testing.assert_array_equal(exported_vectors(chain, tmp_path / "out"), before)
    assert manifest.read(tmp_path / "out").pad_token_id == 7


# --- sides -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    return save_sentence_transformers(tmp_path / "chain", max_seq_length=10, prompts={"query": "the new red "})


def test_texts_that_lose_their_beginning_have_the_reference_vectors(chain: Path, tmp_path: Path) -> None:
    right = exported_vectors(chain, tmp_path / "right", CUT)
    change_json(chain / "tokenizer_config.json", truncation_side="left")
    assert_vectors_agree(chain, tmp_path / "left", CUT)
    with EmbeddingModel(tmp_path / "left") as model:
        assert model.manifest.truncation_side == "left"
        close(model.encode(CUT, prompt_name="query"), reference_vectors(chain, CUT, prompt_name="query"))
        assert np.abs(model.encode(CUT) - right).max() > 1e-2


def test_the_side_that_tokenizer_json_was_saved_with_counts_when_nothing_else_is_said(
    chain: Path, tmp_path: Path
) -> None:
    truncation = {"direction": "Left", "max_length": 7, "strategy": "LongestFirst", "stride": 0}
    change_json(chain / "tokenizer.json", truncation=truncation)
    change_json(chain / "tokenizer_config.json", "truncation_side")
    assert_vectors_agree(chain, tmp_path / "out", CUT)
    assert manifest.read(tmp_path / "out").truncation_side == "left"


def test_chunks_begin_at_the_beginning_on_either_side(chain: Path, tmp_path: Path) -> None:
    vectors = {}
    for side in ("right", "left"):
        change_json(chain / "tokenizer_config.json", truncation_side=side)
        export(str(chain), ExportOptions(output=tmp_path / side, verify=False))
        with EmbeddingModel(tmp_path / side, truncation="chunk") as model:
            vectors[side] = model.encode(CUT)
    np.testing.assert_array_equal(vectors["left"], vectors["right"])


def test_an_unknown_side_is_refused(chain: Path, tmp_path: Path) -> None:
    change_json(chain / "tokenizer_config.json", truncation_side="middle")
    with pytest.raises(CheckpointError, match="truncation_side 'middle' is not known; known: right, left"):
        export(str(chain), ExportOptions(output=tmp_path / "out", verify=False))


def test_a_manifest_with_an_unknown_side_is_refused(chain: Path, tmp_path: Path) -> None:
    export(str(chain), ExportOptions(output=tmp_path / "out", verify=False))
    change_json(tmp_path / "out" / "manifest.json", truncation_side="middle")
    with pytest.raises(ModelFormatError, match="truncation_side 'middle' is not known"):
        manifest.read(tmp_path / "out")


@pytest.mark.parametrize("model_type", ["bert", "roberta"])
@pytest.mark.parametrize("pooling", ["mean", "lasttoken", "weightedmean", "cls"])
def test_padding_on_the_left_changes_no_vector(tmp_path: Path, model_type: str, pooling: str) -> None:
    # Named, because sentence-transformers takes all of RoBERTa's positions, of which it cannot use the first two.
    chain = save_sentence_transformers(tmp_path / "chain", model_type, pooling=pooling, max_seq_length=48)
    before = exported_vectors(chain, tmp_path / "before")
    change_json(chain / "tokenizer_config.json", padding_side="left")
    np.testing.assert_array_equal(exported_vectors(chain, tmp_path / "after"), before)
    alone = np.concatenate([reference_vectors(chain, [text], batch_size=1) for text in TEXTS])
    close(before, alone)


def test_the_parity_gate_passes_where_padding_is_on_the_left(chain: Path, tmp_path: Path) -> None:
    change_json(chain / "tokenizer_config.json", padding_side="left", truncation_side="left")
    report = export(str(chain), ExportOptions(output=tmp_path / "out")).manifest.parity
    assert report["status"] == "passed"


# --- kinds of models -------------------------------------------------------------------------------------------------


def word_level() -> Tokenizer:
    tokenizer = Tokenizer(models.WordLevel({word: k for k, word in enumerate([*BERT_SPECIAL, *WORDS])}, "[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return tokenizer


def unigram() -> Tokenizer:
    letters = sorted({letter for word in WORDS for letter in word})
    pieces = [*((special, 0.0) for special in BERT_SPECIAL), ("▁", -2.0)]
    pieces += [(f"▁{word}", -3.0) for word in WORDS if len(word) > 1]
    pieces += [(letter, -6.0) for letter in letters]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=1))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    return tokenizer


def byte_pairs() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, special_tokens=BERT_SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    return tokenizer


def word_piece() -> Tokenizer:
    pieces = [*BERT_SPECIAL, *WORDS, *(f"##{word}" for word in WORDS if word.isalpha())]
    tokenizer = Tokenizer(models.WordPiece({piece: k for k, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return tokenizer


@pytest.mark.parametrize("make", [word_level, unigram, byte_pairs, word_piece])
@pytest.mark.parametrize("special", [True, False])
def test_any_model_of_the_tokenizers_library_is_taken(
    tmp_path: Path, make: Callable[[], Tokenizer], special: bool
) -> None:
    chain = save_sentence_transformers(tmp_path / "chain")
    tokenizer = make()
    if special:
        ends = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
        tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.save(str(chain / "tokenizer.json"))
    # Without special tokens an empty text has no tokens; transformers cannot run a batch of such texts alone.
    texts = CUT if special else [text for text in CUT if text]
    assert_vectors_agree(chain, tmp_path / "out", texts)
    assert_ids_agree(chain, CUT)
    with EmbeddingModel(tmp_path / "out") as model:
        assert model.count_tokens("") == (2 if special else 0)
