"""Checkpoints' tokenizers of every class one meets, real where the data has them, else trained small ones.

A trained one has the parts that such a class's files have on the hub, which mostly are not those that the class sets up.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import transformers
from tokenizer_texts import DATA, nasty_texts, real_texts
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from fastembed_rt_export import tokenizer_file
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError

REAL = Path(os.environ.get("FASTEMBED_RT_REAL", "/nonexistent"))  # real checkpoints, a folder each
PIECES = 3000


class Described:
    """As much of a checkpoint as its tokenizer needs."""

    lower_case = False
    is_static = False
    markers = ()

    def __init__(self, path: Path, passed: Mapping[str, Any] | None = None) -> None:
        self.path = path
        self.config = json.loads((path / "config.json").read_text(encoding="utf-8"))
        self.tokenizer_settings = passed or {}


@dataclass(frozen=True)
class Case:
    """A tokenizer as a checkpoint has it."""

    title: str
    source: str  # where the file comes from
    lay: Callable[[Path], None]  # puts tokenizer.json, and perhaps more, into a folder
    model_type: str
    settings: Mapping[str, Any] = field(default_factory=dict)  # tokenizer_config.json

    def at(self, directory: Path, **settings: Any) -> Path:
        """The checkpoint's files in an empty folder."""
        self.lay(directory)
        write(directory / "config.json", {"model_type": self.model_type})
        before = read(directory / "tokenizer_config.json") if (directory / "tokenizer_config.json").is_file() else {}
        write(directory / "tokenizer_config.json", {**before, **self.settings, **settings})
        return directory


@dataclass(frozen=True)
class Compared:
    """How many texts have the reference's ids; `refused`: why the export takes none."""

    texts: int = 0
    different: tuple[str, ...] = ()
    refused: str = ""


def compare(directory: Path, texts: list[str], **passed: Any) -> Compared:
    """The ids of the exported tokenizer beside AutoTokenizer's; also ids and types of some pairs."""
    try:
        made = tokenizer_file.load(Described(directory, passed))  # type: ignore[arg-type]
    except (CheckpointError, UnsupportedCheckpointError) as error:
        return Compared(refused=str(error))
    ours = Tokenizer.from_str(made.text)
    ours.no_truncation()
    ours.no_padding()
    theirs = transformers.AutoTokenizer.from_pretrained(str(directory), **passed)
    found = [encoding.ids for encoding in ours.encode_batch(texts)]
    wanted = theirs(texts, return_attention_mask=False, return_token_type_ids=False)["input_ids"]
    pairs = list(zip(texts[:80], texts[1:81], strict=False))
    both = theirs([list(pair) for pair in pairs], return_token_type_ids=True)
    rows = [(encoding.ids, encoding.type_ids) for encoding in ours.encode_batch(pairs)]
    different = [text for text, a, b in zip(texts, found, wanted, strict=True) if a != b]
    expected = zip(both["input_ids"], both["token_type_ids"], strict=True)
    different += [str(pair) for pair, a, b in zip(pairs, rows, expected, strict=True) if a != b]
    return Compared(len(texts), tuple(different))


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def write(file: Path, body: object) -> None:
    file.write_text(json.dumps(body), encoding="utf-8")


# --- trained vocabularies --------------------------------------------------------------------------------------------


@cache
def training_texts() -> tuple[str, ...]:
    return tuple(text[:200] for text in real_texts()[:2400])


def _trained(model: Any, trainer: Any, pre_tokenizer: Any, normalizer: Any = None) -> dict[str, Any]:
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer is not None:
        tokenizer.normalizer = normalizer
    tokenizer.train_from_iterator(training_texts(), trainer)
    found: dict[str, Any] = json.loads(tokenizer.to_str())["model"]
    return found


@cache
def word_pieces() -> dict[str, Any]:
    trainer = trainers.WordPieceTrainer(vocab_size=PIECES, limit_alphabet=700, show_progress=False)
    splits, lower = pre_tokenizers.BertPreTokenizer(), normalizers.BertNormalizer(lowercase=False)
    return _trained(models.WordPiece(unk_token="[UNK]"), trainer, splits, lower)


@cache
def byte_pairs() -> dict[str, Any]:
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=PIECES, initial_alphabet=alphabet, show_progress=False)
    return _trained(models.BPE(), trainer, pre_tokenizers.ByteLevel())


@cache
def space_pairs() -> dict[str, Any]:
    """BPE as sentencepiece makes it."""
    trainer = trainers.BpeTrainer(vocab_size=PIECES, limit_alphabet=700, show_progress=False)
    return _trained(models.BPE(), trainer, pre_tokenizers.Metaspace())


@cache
def word_pairs() -> dict[str, Any]:
    """BPE that marks the end of a word."""
    trainer = trainers.BpeTrainer(
        vocab_size=PIECES, limit_alphabet=700, end_of_word_suffix="</w>", show_progress=False
    )
    splits = pre_tokenizers.BertPreTokenizer()
    return _trained(models.BPE(end_of_word_suffix="</w>"), trainer, splits, normalizers.Lowercase())


@cache
def scored_pieces() -> dict[str, Any]:
    # Punctuation apart, or a piece would span it; DeBERTa's split_by_punct shows then.
    trainer = trainers.UnigramTrainer(vocab_size=PIECES, unk_token="<unk>", show_progress=False)
    return _trained(models.Unigram(), trainer, pre_tokenizers.Metaspace(), normalizers.NFKC())


@cache
def characters() -> Any:
    """sentencepiece's own map of characters, from a real file."""
    body = read(DATA / "tokenizers" / "t5-small" / "tokenizer.json")["normalizer"]
    part = next(part for part in body.get("normalizers", [body]) if part["type"] == "Precompiled")
    return normalizers.Precompiled(base64.b64decode(part["precompiled_charsmap"]))


# --- files of tokenizers ---------------------------------------------------------------------------------------------


def trained(
    model: Callable[[], dict[str, Any]],
    special: str,
    normalizer: Callable[[], Any] | None,
    pre_tokenizer: Callable[[], Any],
    ends: str | None = None,
    last: str = "",
    **flags: Any,
) -> Callable[[Path], None]:
    """A file with a trained model: special tokens in front and at the end of its vocabulary, and the parts given.

    `ends` are the special tokens around a text, which stands as `$A`.
    """

    def lay(directory: Path) -> None:
        found = model()
        first, at_end = special.split(), last.split()
        pieces = found["vocab"]
        if isinstance(pieces, list):
            inner = [entry for entry in pieces if entry[0] not in {*first, *at_end}]
            pieces = [*([token, 0.0] for token in first), *inner, *([token, 0.0] for token in at_end)]
            numbers = {token: number for number, (token, _) in enumerate(pieces)}
        else:
            inner = [piece for piece in sorted(pieces, key=pieces.get) if piece not in {*first, *at_end}]
            pieces = numbers = {token: number for number, token in enumerate([*first, *inner, *at_end])}
        unknown = next((token for token in first if "unk" in token.lower()), None)
        unknowns = {"unk_id": numbers.get(unknown, 0)} if isinstance(pieces, list) else {}
        made = Tokenizer.from_str(json.dumps({**_EMPTY, "model": {**found, "vocab": pieces, **unknowns, **flags}}))
        if normalizer is not None:
            made.normalizer = normalizer()
        made.pre_tokenizer = pre_tokenizer()
        if ends is not None:
            around = [(token, numbers[token]) for token in dict.fromkeys(ends.split()) if token != "$A"]
            made.post_processor = processors.TemplateProcessing(single=ends, special_tokens=around)
        made.add_special_tokens([*first, *at_end])
        made.save(str(directory / "tokenizer.json"))

    return lay


_EMPTY: dict[str, Any] = {"version": "1.0", "added_tokens": [], "truncation": None, "padding": None}
_EMPTY |= dict.fromkeys(("normalizer", "pre_tokenizer", "post_processor", "decoder"))


def given(name: str) -> Callable[[Path], None]:
    """The files of a real tokenizer in the data."""

    def lay(directory: Path) -> None:
        for file in (DATA / "tokenizers" / name).iterdir():
            shutil.copyfile(file, directory / file.name)

    return lay


def checkpoint(name: str) -> Callable[[Path], None]:
    """The tokenizer of a real checkpoint."""

    def lay(directory: Path) -> None:
        for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
            if (REAL / name / file).is_file():
                shutil.copyfile(REAL / name / file, directory / file)

    return lay


def _spm() -> Any:
    """What converters of sentencepiece write."""
    parts = [normalizers.Strip(left=False, right=True), characters(), normalizers.Replace(Regex(" {2,}"), "▁")]
    return normalizers.Sequence(parts)


def _spm_quotes() -> Any:
    steps = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"'), normalizers.NFKD()]
    steps += [normalizers.StripAccents(), normalizers.Lowercase(), characters()]
    return normalizers.Sequence([*steps, normalizers.Replace(Regex(" {2,}"), " ")])


def _split_words() -> Any:
    return pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])


def _llama_3() -> Any:
    words = pre_tokenizers.Split(Regex(r"\p{N}{1,3}|\p{L}+| ?[^\s\p{L}\p{N}]+|\s+"), "isolated")
    return pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


_bert_words, _lower, _cased = (
    pre_tokenizers.BertPreTokenizer,
    normalizers.BertNormalizer,
    lambda: normalizers.BertNormalizer(lowercase=False),
)
_plain_bytes = lambda: pre_tokenizers.ByteLevel(add_prefix_space=False)  # noqa: E731
_BRACKETS, _ANGLES = "[PAD] [UNK] [CLS] [SEP] [MASK]", "<s> <pad> </s> <unk>"
_BYTES = " ".join(f"<0x{code:02X}>" for code in range(256))
_TRAINED = "trained"
_ROBERTA = {"add_prefix_space": False, "trim_offsets": True}


def _class(name: str, model_type: str, lay: Callable[[Path], None], source: str = _TRAINED, **settings: Any) -> Case:
    return Case(name, source, lay, model_type, {"tokenizer_class": f"{name}Tokenizer", **settings})


_albert = trained(scored_pieces, "<pad> <unk> [CLS] [SEP] [MASK]", _spm_quotes, _split_words, "[CLS] $A [SEP]")
_xlmr = trained(scored_pieces, _ANGLES, _spm, pre_tokenizers.Metaspace, "<s> $A </s>", "<mask>")
_gpt = trained(byte_pairs, "<|endoftext|> <|padding|>", None, _plain_bytes)
_llama = trained(
    space_pairs, f"<unk> <s> </s> {_BYTES}", lambda: normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
    lambda: pre_tokenizers.Metaspace(split=False), "<s> $A", fuse_unk=True, byte_fallback=True, unk_token="<unk>",
)
CASES = [
    # As the hub has them: BERT and its kin.
    Case("Bert", "bert-base-uncased", given("bert-base-uncased"), "bert", {}),
    Case("Bert (zh)", "bge-small-zh-v1.5", given("bge-small-zh-v1.5"), "bert", {"tokenizer_class": "BertTokenizer"}),
    _class("Bert", "bert", trained(word_pieces, _BRACKETS, _cased, _bert_words, "[CLS] $A [SEP]"), do_lower_case=False),
    _class("DistilBert", "distilbert", given("bert-base-uncased"), "bert-base-uncased"),
    _class("Electra", "electra", given("bert-base-uncased"), "bert-base-uncased", strip_accents=True),
    _class("ConvBert", "convbert", given("bert-base-uncased"), "bert-base-uncased"),
    Case("NomicBERT", "bert-base-uncased", given("bert-base-uncased"), "nomic_bert", {"tokenizer_class": "BertTokenizer"}),
    Case("GTE (new)", "bert-base-uncased", given("bert-base-uncased"), "new", {"tokenizer_class": "BertTokenizer"}),
    Case("MobileBERT", "bert-base-uncased", given("bert-base-uncased"), "mobilebert", {}),
    Case("SqueezeBERT", "bert-base-uncased", given("bert-base-uncased"), "squeezebert", {}),
    _class("Funnel", "funnel", trained(word_pieces, "<pad> <unk> <cls> <sep> <mask> <s> </s>", _lower, _bert_words, "<cls> $A <sep>")),
    _class("Splinter", "splinter", trained(word_pieces, f"{_BRACKETS} [QUESTION]", _cased, _bert_words, "[CLS] $A [SEP]"), do_lower_case=False),
    _class("MPNet", "mpnet", trained(word_pieces, "<s> <pad> </s> [UNK]", _lower, _bert_words, "<s> $A </s>", "<mask>")),
    _class("Herbert", "bert", trained(word_pairs, "<s> <pad> </s> <unk> <mask>", _cased, _bert_words, "<s> $A </s>", unk_token="<unk>")),
    _class("OpenAIGPT", "openai-gpt", trained(word_pairs, "<unk>", _lower, _bert_words, unk_token="<unk>")),
    _class("CLIP", "clip", trained(word_pairs, "<|startoftext|> <|endoftext|>", normalizers.Lowercase, _bert_words, "<|startoftext|> $A <|endoftext|>", unk_token="<|endoftext|>")),
    # Byte-level BPE.
    Case("Roberta", "roberta-base", given("roberta-base"), "roberta", {}),
    _class("Longformer", "longformer", given("roberta-base"), "roberta-base", **_ROBERTA),
    _class("Bart", "bart", given("roberta-base"), "roberta-base"),
    _class("Roberta", "roberta", trained(byte_pairs, f"{_ANGLES} <mask>", None, _plain_bytes, "<s> $A </s>"), add_prefix_space=True),
    _class("Blenderbot", "blenderbot", trained(byte_pairs, f"{_ANGLES} <mask>", None, _plain_bytes, "$A </s>")),
    _class("Deberta", "deberta", trained(byte_pairs, _BRACKETS, None, _plain_bytes, "[CLS] $A [SEP]")),
    _class("CodeGen", "phi", given("phi-2"), "phi-2"),
    _class("GPT2", "gpt2", _gpt),
    _class("GPTNeoX", "gpt_neox", _gpt),
    _class("Cohere", "cohere", trained(byte_pairs, "<PAD> <UNK> <CLS> <SEP> <MASK_TOKEN> <BOS_TOKEN>", normalizers.NFC, _plain_bytes, "<BOS_TOKEN> $A")),
    _class("Qwen2", "qwen3", trained(byte_pairs, "<|endoftext|> <|im_start|> <|im_end|>", normalizers.NFC, _llama_3, "$A <|endoftext|>"), pad_token="<|endoftext|>", eos_token="<|im_end|>", add_bos_token=False),
    _class("Qwen3_5", "qwen3_5", trained(byte_pairs, "<|endoftext|> <|im_start|> <|im_end|>", normalizers.NFC, _llama_3)),
    Case("ModernBERT", _TRAINED, trained(byte_pairs, "<|padding|> <|endoftext|> [UNK] [CLS] [SEP] [PAD] [MASK]", normalizers.NFC, _plain_bytes, "[CLS] $A [SEP]"), "modernbert", {"tokenizer_class": "PreTrainedTokenizerFast"}),
    # sentencepiece.
    _class("XLMRoberta", "xlm-roberta", _xlmr),
    Case("GTE", _TRAINED, _xlmr, "gte", {}),
    Case("GTE (new, XLM-R)", _TRAINED, _xlmr, "new", {"tokenizer_class": "XLMRobertaTokenizer"}),
    _class("Camembert", "camembert", trained(scored_pieces, "<s>NOTUSED <pad> </s>NOTUSED <unk> <unk>NOTUSED <s> </s>", _spm, pre_tokenizers.Metaspace, "<s> $A </s>", "<mask>")),
    _class("Albert", "albert", _albert),
    _class("DebertaV2", "deberta-v2", trained(scored_pieces, "[PAD] [CLS] [SEP] [UNK]", _spm, pre_tokenizers.Metaspace, "[CLS] $A [SEP]", "[MASK]")),
    _class("T5", "t5", given("t5-small"), "t5-small"),
    _class("T5", "t5", trained(scored_pieces, "<pad> </s> <unk>", _spm, pre_tokenizers.Metaspace, "$A </s>")),
    Case("umT5", _TRAINED, trained(scored_pieces, "<pad> </s> <unk>", _spm, pre_tokenizers.Metaspace, "$A </s>"), "umt5", {"tokenizer_class": "T5Tokenizer"}),
    _class("BigBird", "big_bird", trained(scored_pieces, "<pad> </s> <s> <unk> [SEP] [CLS]", _spm, pre_tokenizers.Metaspace, "[CLS] $A [SEP]", "[MASK]")),
    _class("RemBert", "rembert", trained(scored_pieces, "<pad> <unk> [CLS] [SEP] [MASK]", _spm, pre_tokenizers.Metaspace, "[CLS] $A [SEP]")),
    _class("XLNet", "xlnet", trained(scored_pieces, "<unk> <s> </s> <cls> <sep> <pad> <mask> <eod> <eop>", _spm_quotes, _split_words, "$A <sep> <cls>")),
    _class("Barthez", "mbart", trained(scored_pieces, _ANGLES, _spm, pre_tokenizers.Metaspace, "<s> $A </s>", "<mask>")),
    _class("XGLM", "xglm", trained(scored_pieces, _ANGLES, _spm, pre_tokenizers.Metaspace, "</s> $A")),
    _class("Pegasus", "pegasus", trained(scored_pieces, "<pad> </s> <mask_1> <mask_2> <unk>", _spm, pre_tokenizers.Metaspace, "$A </s>")),
    _class("Reformer", "reformer", trained(space_pairs, "<unk> </s>", _spm, pre_tokenizers.Metaspace, unk_token="<unk>")),
    _class("Llama", "llama", _llama),
    _class("Llama", "llama", trained(byte_pairs, "<s> </s> <unk>", None, _llama_3, "<s> $A", ignore_merges=True), "trained, byte-level"),
    Case("Mistral", _TRAINED, _llama, "mistral", {"tokenizer_class": "LlamaTokenizer"}),
    _class("Gemma", "gemma3_text", trained(space_pairs, f"<pad> <eos> <bos> <unk> <mask> {_BYTES}", lambda: normalizers.Replace(" ", "▁"), lambda: pre_tokenizers.Split(" ", "merged_with_previous"), "<bos> $A <eos>", fuse_unk=True, byte_fallback=True, unk_token="<unk>")),
]
# What settings make of classes that read them.
SETTINGS = {
    "Bert": [{"do_lower_case": True, "strip_accents": False}, {"tokenize_chinese_chars": False}],
    "Funnel": [{"clean_text": False}, {"do_lower_case": False}],
    "MPNet": [{"do_lower_case": False}, {"mask_token": "<s>"}],
    "Roberta": [{"add_prefix_space": False}],
    "Deberta": [{"add_prefix_space": True}],
    "GPT2": [{"add_prefix_space": True, "pad_token": "<|padding|>"}, {"bos_token": None, "unk_token": "the"}],
    "Qwen2": [{"add_prefix_space": True}, {"extra_special_tokens": ["the"]}],
    "XLMRoberta": [{"add_prefix_space": False}, {"mask_token": "▁the"}, {"additional_special_tokens": ["▁cat", "New"]}],
    "Camembert": [{"add_prefix_space": False}, {"additional_special_tokens": ["<x>"]}, {"unk_token": "<pad>"}],
    "Albert": [{"do_lower_case": False, "keep_accents": True}, {"add_prefix_space": False}],
    "DebertaV2": [{"do_lower_case": True, "split_by_punct": True}, {"add_prefix_space": False}, {"unk_id": 5, "unk_token": "the"}],
    "T5": [{"extra_ids": 0}, {"additional_special_tokens": ["<x>"]}, {"extra_special_tokens": []}, {"eos_token": "<unk>"}],
    "BigBird": [{"add_prefix_space": False, "unk_token": "the"}],
    "RemBert": [{"do_lower_case": True, "keep_accents": False}],
    "XLNet": [{"do_lower_case": True, "unk_id": 2}],
    "Llama": [{"legacy": True}, {"legacy": False, "add_prefix_space": False}, {"pad_token": "<pad>", "legacy": None}],
    "Gemma": [{"unk_token": "<pad>"}, {"extra_special_tokens": {"image_token": "<image>"}}],
    "Pegasus": [{"offset": 0}, {"mask_token_sent": None}],
    "Reformer": [{"additional_special_tokens": ["the"]}],
    "Cohere": [{"add_prefix_space": True, "bos_token": "the"}],
}
REFUSED = {
    "xlm": "XLM", "flaubert": "Flaubert", "roformer": "RoFormer", "layoutlmv3": "LayoutLMv3", "luke": "Luke", "mbart": "MBart",
    "canine": "Canine", "roc_bert": "RoCBert", "esm": "Esm", "m2m_100": "M2M100", "whisper": "Whisper", "dpr": "DPRQuestionEncoder",
}
REAL_CASES = [
    Case(title, name, checkpoint(name), model_type)
    for title, name, model_type in (
        ("Bert", "minilm", "bert"), ("Bert", "splade", "bert"), ("MPNet", "mpnet", "mpnet"),
        ("XLMRoberta", "e5", "bert"), ("XLMRoberta", "e5-xlmr", "xlm-roberta"),
    )
    if (REAL / name).is_dir()
]
