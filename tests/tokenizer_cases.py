"""The tokenizers that are compared: a row for each class one meets, real where the data has them, else trained.

A trained one has the parts that such a class's files have on the hub: mostly not those that the class sets up.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tokenizer_files import (
    REAL,
    TRAINED,
    Case,
    byte_pairs,
    characters,
    checkpoint,
    given,
    read,
    scored_pieces,
    space_pairs,
    trained,
    word_pairs,
    word_pieces,
)
from tokenizers import Regex, normalizers, pre_tokenizers


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


def _cased() -> Any:
    return normalizers.BertNormalizer(lowercase=False)


def _plain_bytes() -> Any:
    return pre_tokenizers.ByteLevel(add_prefix_space=False)


def _prepended() -> Any:
    return normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])


_splits = pre_tokenizers.BertPreTokenizer
_BRACKETS, _ANGLES, _END = "[PAD] [UNK] [CLS] [SEP] [MASK]", "<s> <pad> </s> <unk>", "<|endoftext|>"
_BYTES = " ".join(f"<0x{code:02X}>" for code in range(256))
_FALLBACK: dict[str, Any] = {"fuse_unk": True, "byte_fallback": True, "unk_token": "<unk>"}
_FAST = {"tokenizer_class": "PreTrainedTokenizerFast"}


def _words(special: str, ends: str, last: str = "", normalizer: Any = normalizers.BertNormalizer) -> Any:
    return trained(word_pieces, special, normalizer, _splits, ends, last)


def _pairs(special: str, ends: str | None, unknown: str, normalizer: Any = normalizers.BertNormalizer) -> Any:
    return trained(word_pairs, special, normalizer, _splits, ends, unk_token=unknown)


def _bytes(
    special: str, ends: str | None = None, normalizer: Any = None, words: Any = _plain_bytes, **flags: Any
) -> Any:
    return trained(byte_pairs, special, normalizer, words, ends, **flags)


def _scored(
    special: str, ends: str, last: str = "", normalizer: Any = _spm, words: Any = pre_tokenizers.Metaspace
) -> Any:
    return trained(scored_pieces, special, normalizer, words, ends, last)


_bert = _words(_BRACKETS, "[CLS] $A [SEP]", "", _cased)
_roberta = _bytes(f"{_ANGLES} <mask>", "<s> $A </s>")
_xlmr = _scored(_ANGLES, "<s> $A </s>", "<mask>")
_llama = trained(
    space_pairs,
    f"<unk> <s> </s> {_BYTES}",
    _prepended,
    lambda: pre_tokenizers.Metaspace(split=False),
    "<s> $A",
    **_FALLBACK,
)
_gemma = trained(
    space_pairs,
    f"<pad> <eos> <bos> <unk> <mask> {_BYTES}",
    lambda: normalizers.Replace(" ", "▁"),
    lambda: pre_tokenizers.Split(" ", "merged_with_previous"),
    "<bos> $A <eos>",
    **_FALLBACK,
)


def _named(name: str) -> dict[str, str]:
    return {"tokenizer_class": f"{name}Tokenizer"}


def _trained(name: str, model_type: str, lay: Callable[[Path], None], **settings: Any) -> Case:
    return Case(name, TRAINED, lay, model_type, {**_named(name), **settings})


def _real(title: str, source: str, model_type: str, name: str = "", **settings: Any) -> Case:
    return Case(title, source, given(source), model_type, {**(_named(name) if name else {}), **settings})


CASES = [
    # BERT and its kin.
    _real("Bert", "bert-base-uncased", "bert"),
    _real("Bert", "bge-small-zh-v1.5", "bert", "Bert"),
    _trained("Bert", "bert", _bert, do_lower_case=False),
    _trained("DistilBert", "distilbert", _bert),
    _trained("Electra", "electra", _bert, strip_accents=True),
    _trained("ConvBert", "convbert", _bert),
    Case("NomicBERT", TRAINED, _bert, "nomic_bert", _named("Bert")),
    Case("GTE, as the hub has it", TRAINED, _bert, "new", _named("Bert")),
    Case("MobileBERT", TRAINED, _bert, "mobilebert"),
    Case("SqueezeBERT", TRAINED, _bert, "squeezebert"),
    _trained("Funnel", "funnel", _words("<pad> <unk> <cls> <sep> <mask> <s> </s>", "<cls> $A <sep>")),
    _trained(
        "Splinter", "splinter", _words(f"{_BRACKETS} [QUESTION]", "[CLS] $A [SEP]", "", _cased), do_lower_case=False
    ),
    _trained("MPNet", "mpnet", _words("<s> <pad> </s> [UNK]", "<s> $A </s>", "<mask>")),
    _trained("Herbert", "bert", _pairs(f"{_ANGLES} <mask>", "<s> $A </s>", "<unk>", _cased)),
    _trained("OpenAIGPT", "openai-gpt", _pairs("<unk>", None, "<unk>")),
    _trained("CLIP", "clip", _pairs(f"<|startoftext|> {_END}", f"<|startoftext|> $A {_END}", _END)),
    # Byte-level BPE.
    _real("Roberta", "roberta-base", "roberta"),
    _trained("Longformer", "longformer", _roberta, add_prefix_space=True),
    _trained("Bart", "bart", _roberta),
    _trained("Roberta", "roberta", _roberta, add_prefix_space=True),
    _trained("Blenderbot", "blenderbot", _bytes(f"{_ANGLES} <mask>", "$A </s>")),
    _trained("Deberta", "deberta", _bytes(_BRACKETS, "[CLS] $A [SEP]")),
    _real("CodeGen", "phi-2", "phi", "CodeGen"),
    _trained("GPT2", "gpt2", _bytes(f"{_END} <|padding|>")),
    _trained("GPTNeoX", "gpt_neox", _bytes(f"{_END} <|padding|>")),
    _trained(
        "Cohere",
        "cohere",
        _bytes("<PAD> <UNK> <CLS> <SEP> <MASK_TOKEN> <BOS_TOKEN>", "<BOS_TOKEN> $A", normalizers.NFC),
    ),
    _trained(
        "Qwen2",
        "qwen3",
        _bytes(f"{_END} <|im_start|> <|im_end|>", f"$A {_END}", normalizers.NFC, _llama_3),
        **{"pad_token": _END, "eos_token": "<|im_end|>", "add_bos_token": False},
    ),
    _trained("Qwen3_5", "qwen3_5", _bytes(f"{_END} <|im_start|>", None, normalizers.NFC, _llama_3)),
    Case(
        "ModernBERT",
        TRAINED,
        _bytes(f"<|padding|> {_END} [UNK] [CLS] [SEP] [PAD] [MASK]", "[CLS] $A [SEP]", normalizers.NFC),
        "modernbert",
        _FAST,
    ),
    # sentencepiece.
    _trained("XLMRoberta", "xlm-roberta", _xlmr),
    Case("GTE", TRAINED, _xlmr, "gte", {}),
    Case("GTE, as the hub has it", TRAINED, _xlmr, "new", _named("XLMRoberta")),
    _trained(
        "Camembert",
        "camembert",
        _scored("<s>NOTUSED <pad> </s>NOTUSED <unk> <unk>NOTUSED <s> </s>", "<s> $A </s>", "<mask>"),
    ),
    _trained(
        "Albert", "albert", _scored("<pad> <unk> [CLS] [SEP] [MASK]", "[CLS] $A [SEP]", "", _spm_quotes, _split_words)
    ),
    _trained("DebertaV2", "deberta-v2", _scored("[PAD] [CLS] [SEP] [UNK]", "[CLS] $A [SEP]", "[MASK]")),
    _real("T5", "t5-small", "t5", "T5"),
    _trained("T5", "t5", _scored("<pad> </s> <unk>", "$A </s>")),
    Case("umT5", TRAINED, _scored("<pad> </s> <unk>", "$A </s>"), "umt5", _named("T5")),
    _trained("BigBird", "big_bird", _scored("<pad> </s> <s> <unk> [SEP] [CLS]", "[CLS] $A [SEP]", "[MASK]")),
    _trained("RemBert", "rembert", _scored("<pad> <unk> [CLS] [SEP] [MASK]", "[CLS] $A [SEP]")),
    _trained(
        "XLNet",
        "xlnet",
        _scored("<unk> <s> </s> <cls> <sep> <pad> <mask> <eod> <eop>", "$A <sep> <cls>", "", _spm_quotes, _split_words),
    ),
    _trained("Barthez", "mbart", _xlmr),
    _trained("XGLM", "xglm", _scored(_ANGLES, "</s> $A")),
    _trained("Pegasus", "pegasus", _scored("<pad> </s> <mask_1> <mask_2> <unk>", "$A </s>")),
    _trained(
        "Reformer", "reformer", trained(space_pairs, "<unk> </s>", _spm, pre_tokenizers.Metaspace, unk_token="<unk>")
    ),
    _trained("Llama", "llama", _llama),
    Case(
        "Llama, byte-level",
        TRAINED,
        _bytes("<s> </s> <unk>", "<s> $A", None, _llama_3, ignore_merges=True),
        "llama",
        _named("Llama"),
    ),
    Case("Mistral", TRAINED, _llama, "mistral", _named("Llama")),
    _trained("Gemma", "gemma3_text", _gemma),
]
# What settings make of classes that read them.
SETTINGS: dict[str, list[dict[str, Any]]] = {
    "Bert": [{"do_lower_case": True, "strip_accents": False}, {"tokenize_chinese_chars": False}],
    "Funnel": [{"clean_text": False}, {"do_lower_case": False}],
    "MPNet": [{"do_lower_case": False}, {"mask_token": "<s>"}],
    "Roberta": [{"add_prefix_space": False}],
    "Deberta": [{"add_prefix_space": True}],
    "GPT2": [{"add_prefix_space": True, "pad_token": "<|padding|>"}, {"bos_token": None, "unk_token": "the"}],
    "Qwen2": [{"add_prefix_space": True}, {"extra_special_tokens": ["the"]}],
    "XLMRoberta": [
        {"add_prefix_space": False},
        {"mask_token": "▁the"},
        {"additional_special_tokens": ["▁cat", "New"]},
    ],
    "Camembert": [{"add_prefix_space": False}, {"additional_special_tokens": ["<x>"]}, {"unk_token": "<pad>"}],
    "Albert": [{"do_lower_case": False, "keep_accents": True}, {"add_prefix_space": False}],
    "DebertaV2": [
        {"do_lower_case": True, "split_by_punct": True},
        {"add_prefix_space": False},
        {"unk_id": 5, "unk_token": "the"},
    ],
    "T5": [
        {"extra_ids": 0},
        {"additional_special_tokens": ["<x>"]},
        {"extra_special_tokens": []},
        {"eos_token": "<unk>"},
    ],
    "BigBird": [{"add_prefix_space": False, "unk_token": "the"}],
    "RemBert": [{"do_lower_case": True, "keep_accents": False}],
    "XLNet": [{"do_lower_case": True, "unk_id": 2}],
    "Llama": [{"legacy": True}, {"legacy": False, "add_prefix_space": False}, {"pad_token": "<pad>", "legacy": None}],
    "Gemma": [{"unk_token": "<pad>"}, {"extra_special_tokens": {"image_token": "<image>"}}],
    "Herbert": [{"cls_token": "</s>"}],
    "Pegasus": [{"offset": 0}, {"mask_token_sent": None}],
    "Reformer": [{"additional_special_tokens": ["the"]}],
    "Cohere": [{"add_prefix_space": True, "bos_token": "the"}],
}
REFUSED = {
    **{"xlm": "XLM", "flaubert": "Flaubert", "canine": "Canine", "roc_bert": "RoCBert", "esm": "Esm"},
    **{"m2m_100": "M2M100", "roformer": "RoFormer", "layoutlmv3": "LayoutLMv3", "luke": "Luke", "mbart": "MBart"},
    **{"whisper": "Whisper", "dpr": "DPRQuestionEncoder"},
}


def real_cases() -> list[Case]:
    """The tokenizers of the real checkpoints that are there."""
    names = {"minilm": "Bert", "splade": "Bert", "mpnet": "MPNet", "e5": "XLMRoberta", "e5-xlmr": "XLMRoberta"}
    types = {name: read(REAL / name / "config.json")["model_type"] for name in names if (REAL / name).is_dir()}
    return [Case(names[name], name, checkpoint(name), model_type) for name, model_type in types.items()]
