"""tokenizer_config.json against tokenizer.json: token ids are those of transformers, whatever is said where."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from checkpoint_faults import refusal
from checkpoints import (
    TEXTS,
    WORDS,
    assert_vectors_agree,
    change_json,
    save_sentence_transformers,
    save_tokenizer,
    write_json,
)
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from fastembed_rt_export.checkpoint.read import load
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.tokenizer import tokenizer_json

ODD = [
    *TEXTS,
    "<obj>",
    "a <obj> cat",
    "[CLS] the [MASK] cat [SEP]",
    "É東京 ÉTÉ",
    "``The ''  Cat\n, cat",
    "cat<thing>dog##x",
]
FAST, BERT = "PreTrainedTokenizerFast", "BertTokenizer"


class Described:
    """As much of a checkpoint as its tokenizer needs."""

    lower_case = False
    include_prompt = True
    task = "embedding"
    max_length = 512
    is_static = has_words = False
    markers = ()
    chat = None

    def __init__(self, path: Path, passed: dict[str, Any]) -> None:
        self.path = path
        self.config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        self.tokenizer_settings = passed


def assert_ids_agree(directory: Path, **passed: Any) -> None:
    """Ids of odd texts are those of AutoTokenizer, which is given `passed`."""
    converted = Tokenizer.from_str(tokenizer_json.load(Described(directory, passed)).text)  # type: ignore[arg-type]
    converted.no_truncation()
    theirs = transformers.AutoTokenizer.from_pretrained(str(directory), **passed)
    found = {text: converted.encode(text).ids for text in ODD}
    assert found == {text: theirs(text)["input_ids"] for text in ODD}


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    save_tokenizer(tmp_path, "bert")
    write_json(tmp_path / "config.json", {"model_type": "bert", "vocab_size": 300})
    return tmp_path


# --- tokens ----------------------------------------------------------------------------------------------------------

TOKEN = {"content": "<obj>", "lstrip": True, "rstrip": False, "single_word": False, "normalized": False}
MARKED = {**TOKEN, "__type": "AddedToken"}


@pytest.mark.parametrize("named", [FAST, BERT])
@pytest.mark.parametrize(
    "settings",
    [
        {"extra_special_tokens": {"object_token": "<obj>", "other": "<thing>"}},
        {"extra_special_tokens": {"object_token": MARKED}},
        {"extra_special_tokens": ["<obj>", "cat"]},
        {"additional_special_tokens": ["<obj>"]},
        {"extra_special_tokens": ["<obj>"], "additional_special_tokens": ["<thing>"]},
        {"extra_special_tokens": [], "additional_special_tokens": ["<thing>"]},
        {"image_token": "<obj>"},
        {"image_token": MARKED, "some_token_id": 5},
        {"image_token": TOKEN},
        {"model_specific_special_tokens": {"object_token": "<obj>"}},
        {"mask_token": "<obj>"},
        {"bos_token": "<obj>", "eos_token": "<thing>", "add_bos_token": True, "add_eos_token": True},
    ],
    ids=str,
)
def test_tokens_beside_those_of_tokenizer_json_are_transformers(bert: Path, named: str, settings: Any) -> None:
    change_json(bert / "tokenizer_config.json", tokenizer_class=named, **settings)
    assert_ids_agree(bert)


def test_tokens_by_name_in_special_tokens_map_are_transformers(bert: Path) -> None:
    write_json(
        bert / "special_tokens_map.json", {"extra_special_tokens": {"object_token": "<obj>"}, "eos_token": "<thing>"}
    )
    assert_ids_agree(bert)


@pytest.mark.parametrize("listed", [False, True])
def test_added_tokens_json_counts_where_no_tokens_are_listed(bert: Path, listed: bool) -> None:
    write_json(bert / "added_tokens.json", {"<thing>": 251, "<obj>": 250})
    if listed:
        change_json(bert / "tokenizer_config.json", added_tokens_decoder={})
    assert_ids_agree(bert)


@pytest.mark.parametrize("number", ["5", None, -1, 2.5])
def test_an_added_token_without_a_number_is_refused(bert: Path, number: object) -> None:
    write_json(bert / "added_tokens.json", {"<obj>": number})
    with pytest.raises(CheckpointError, match=r"added_tokens\.json has the id"):
        assert_ids_agree(bert)


def test_vectors_of_added_tokens_are_the_reference_vectors(tmp_path: Path) -> None:
    chain = save_sentence_transformers(tmp_path / "chain")
    change_json(chain / "tokenizer_config.json", extra_special_tokens={"object_token": "<obj>"})
    assert_vectors_agree(chain, tmp_path / "out", ODD)


# --- what the class sets up ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [FAST, BERT])
def test_the_class_decides_on_letters_in_a_word_and_on_control_characters(bert: Path, named: str) -> None:
    body = json.loads((bert / "tokenizer.json").read_text(encoding="utf-8"))
    body["model"]["max_input_chars_per_word"] = 2
    body["normalizer"]["clean_text"] = False
    write_json(bert / "tokenizer.json", body)
    change_json(bert / "tokenizer_config.json", tokenizer_class=named)
    assert_ids_agree(bert)


def unigram(directory: Path, model_type: str, named: str, special: list[str], first: str, last: str) -> Path:
    """A sentencepiece-like tokenizer.json as such checkpoints have it."""
    pieces = [*((token, 0.0) for token in special), ("▁", -2.0), (",", -4.0), ("▁,", -4.5), ('"', -5.0)]
    pieces += [(f"{start}{word}", -3.0) for word in WORDS if word.isalpha() for start in ("▁", "")]
    pieces += [(f"▁{word.capitalize()}", -3.5) for word in ("the", "cat")] + [(c, -6.0) for c in "éÉetTCx"]
    tokenizer = Tokenizer(
        models.Unigram(
            list(dict(pieces).items()), unk_id=next(k for k, name in enumerate(special) if "unk" in name.lower())
        )
    )
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    ends = [(name, tokenizer.token_to_id(name)) for name in (first, last)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{first} $A {last}", special_tokens=ends)
    tokenizer.add_special_tokens(special)
    tokenizer.save(str(directory / "tokenizer.json"))
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": named})
    write_json(directory / "config.json", {"model_type": model_type, "vocab_size": 300})
    return directory


ALBERT = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"]
DEBERTA = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
XLMR = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
FLAGS = {
    "albert": [{"do_lower_case": False, "keep_accents": True}, {"keep_accents": True}, {"do_lower_case": True}],
    "deberta-v2": [{"do_lower_case": True}, {"do_lower_case": False}],
    "xlm-roberta": [{"add_prefix_space": False}, {"add_prefix_space": True}],
}


@pytest.mark.parametrize(
    ("model_type", "named", "special", "ends"),
    [
        ("albert", "AlbertTokenizer", ALBERT, ("[CLS]", "[SEP]")),
        ("deberta-v2", "DebertaV2Tokenizer", DEBERTA, ("[CLS]", "[SEP]")),
        ("xlm-roberta", "XLMRobertaTokenizer", XLMR, ("<s>", "</s>")),
    ],
)
def test_settings_of_sentencepiece_classes_overrule_tokenizer_json(
    tmp_path: Path, model_type: str, named: str, special: list[str], ends: tuple[str, str]
) -> None:
    for number, flags in enumerate(FLAGS[model_type]):
        directory = tmp_path / str(number)
        directory.mkdir()
        unigram(directory, model_type, named, special, *ends)
        # All that the class sets, so that nothing of the file's own is left.
        prefix = {"add_prefix_space": True, **({"split_by_punct": False} if model_type == "deberta-v2" else {})}
        lower = {"do_lower_case": False} if model_type != "xlm-roberta" else {}
        change_json(directory / "tokenizer_config.json", **{**prefix, **lower, **flags})
        if model_type == "xlm-roberta":  # whose class has no normalizer of its own
            change_json(directory / "tokenizer.json", normalizer=None)
        assert_ids_agree(directory)


@pytest.mark.parametrize(
    ("model_type", "named", "special"),
    [
        ("deberta-v2", "DebertaV2Tokenizer", DEBERTA),
        ("xlm-roberta", "XLMRobertaTokenizer", XLMR),
        ("camembert", "CamembertTokenizer", XLMR),
        ("t5", "T5Tokenizer", ["<pad>", "</s>", "<unk>"]),
        ("albert", "AlbertTokenizer", ALBERT),  # which keeps the file's
    ],
)
def test_the_class_decides_on_the_special_tokens_of_sentencepiece_tokenizers(
    tmp_path: Path, model_type: str, named: str, special: list[str]
) -> None:
    unigram(tmp_path, model_type, named, special, special[-1], special[0])
    converted = Tokenizer.from_str(tokenizer_json.load(Described(tmp_path, {})).text)  # type: ignore[arg-type]
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    for text in ("", "the cat", "red dog house"):
        assert converted.encode(text).ids == theirs(text)["input_ids"]
    both = theirs("the cat", "red dog", return_token_type_ids=True)
    pair = converted.encode("the cat", "red dog")
    assert (pair.ids, pair.type_ids) == (both["input_ids"], both["token_type_ids"])


@pytest.mark.parametrize("flags", [{"split_by_punct": True}, {"add_prefix_space": False}])
def test_settings_of_deberta_about_words_overrule_tokenizer_json(tmp_path: Path, flags: dict[str, bool]) -> None:
    unigram(tmp_path, "deberta-v2", "DebertaV2Tokenizer", DEBERTA, "[CLS]", "[SEP]")
    change_json(tmp_path / "tokenizer_config.json", do_lower_case=False, **flags)
    assert_ids_agree(tmp_path)


@pytest.mark.parametrize("prefix", [True, False])
def test_add_prefix_space_of_qwen_overrules_tokenizer_json(tmp_path: Path, prefix: bool) -> None:
    trained = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(r" ", behavior="merged_with_next")
    steps = [split, pre_tokenizers.ByteLevel(add_prefix_space=not prefix, use_regex=False)]
    trained.pre_tokenizer = pre_tokenizers.Sequence(steps)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    trained.train_from_iterator([" ".join(WORDS)] * 4, trainer)
    trained.save(str(tmp_path / "tokenizer.json"))
    said = {"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": prefix, "eos_token": "<|endoftext|>"}
    write_json(tmp_path / "tokenizer_config.json", said)
    write_json(tmp_path / "config.json", {"model_type": "qwen2"})
    converted = Tokenizer.from_str(tokenizer_json.load(Described(tmp_path, {})).text)  # type: ignore[arg-type]
    theirs = transformers.AutoTokenizer.from_pretrained(str(tmp_path))
    for text in ("cat", "the cat", "cat dog"):
        assert converted.encode(text).tokens[0].startswith("Ġ") is prefix
        assert theirs.tokenize(text)[0].startswith("Ġ") is prefix


@pytest.mark.parametrize("post_processor", ["none", "typed"])
@pytest.mark.parametrize(
    ("named", "special"),
    [
        *((f"{name}Tokenizer", DEBERTA) for name in ("Bert", "DistilBert", "Electra", "ConvBert", "MobileBert")),
        ("MPNetTokenizer", XLMR),
        (FAST, DEBERTA),
        (None, DEBERTA),
    ],
)
def test_the_class_decides_on_the_special_tokens_around_texts(
    tmp_path: Path, named: str | None, special: list[str], post_processor: str
) -> None:
    model_type = "mpnet" if special is XLMR else "bert"
    save_tokenizer(tmp_path, model_type)
    ends = [(special[0], 0), (special[1], 1)]
    template = processors.TemplateProcessing(single=f"$A {special[0]} {special[1]}", special_tokens=ends)
    typed = json.loads(template.__getstate__())
    change_json(tmp_path / "tokenizer.json", post_processor=None if post_processor == "none" else typed)
    change_json(tmp_path / "tokenizer_config.json", tokenizer_class=named)
    write_json(tmp_path / "config.json", {"model_type": model_type, "vocab_size": 300})
    assert_ids_agree(tmp_path)


def test_special_tokens_around_texts_have_the_names_of_the_settings(bert: Path) -> None:
    change_json(bert / "tokenizer.json", post_processor=None)
    change_json(
        bert / "tokenizer_config.json", tokenizer_class=BERT, cls_token="cat", sep_token={**MARKED, "content": "dog"}
    )
    assert_ids_agree(bert)


@pytest.mark.parametrize("of_tokenizer", [True, False])
@pytest.mark.parametrize("of_module", [True, False])
def test_do_lower_case_at_both_levels_is_the_references(tmp_path: Path, of_tokenizer: bool, of_module: bool) -> None:
    chain = save_sentence_transformers(tmp_path / "chain")
    change_json(chain / "tokenizer_config.json", tokenizer_class=BERT, do_lower_case=of_tokenizer)
    change_json(chain / "sentence_bert_config.json", do_lower_case=of_module)
    assert_vectors_agree(chain, tmp_path / "out", ODD[:-1])


# --- what the module passes on ---------------------------------------------------------------------------------------


def test_settings_passed_on_are_transformers(bert: Path) -> None:
    change_json(bert / "tokenizer_config.json", tokenizer_class=BERT)
    assert_ids_agree(bert, do_lower_case=False, extra_special_tokens=["<obj>"])


def test_settings_passed_on_reach_a_converted_tokenizer(bert: Path) -> None:
    vocabulary = json.loads((bert / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    (bert / "vocab.txt").write_text("\n".join(sorted(vocabulary, key=vocabulary.__getitem__)) + "\n", encoding="utf-8")
    (bert / "tokenizer.json").unlink()
    write_json(bert / "tokenizer_config.json", {"tokenizer_class": BERT, "do_lower_case": True})
    assert_ids_agree(bert, do_lower_case=False)


@pytest.mark.parametrize("passed", [{"add_eos_token": False}, {"add_bos_token": True}], ids=str)
def test_special_tokens_around_texts_that_the_module_changes_are_refused(chain: Path, passed: dict[str, Any]) -> None:
    change_json(chain / "sentence_bert_config.json", processor_kwargs=passed)
    assert next(iter(passed)) in refusal(chain, UnsupportedCheckpointError)


def test_code_of_a_tokenizer_is_not_run_and_noted(chain: Path, bert: Path) -> None:
    for directory in (chain, bert):
        change_json(directory / "tokenizer_config.json", auto_map={"AutoTokenizer": [None, "own.Tokenizer"]})
    assert_ids_agree(bert)
    assert any("names code of the checkpoint's own for its tokenizer" in note for note in load(chain, "chain").notes)
