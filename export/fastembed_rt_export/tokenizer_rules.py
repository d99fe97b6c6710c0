"""Classes of transformers' tokenizers that set up parts of a tokenizer from tokenizer_config.json.

They do it whatever is in tokenizer.json; which class it is, tokenizer_config.json says, else the model type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

Settings = Mapping[str, Any]
BERT = (
    *("Bert", "ConvBert", "DistilBert", "Electra", "Funnel", "LayoutLM", "LayoutLMv2", "LayoutLMv3", "Lxmert"),
    *("MPNet", "MobileBert", "Splinter", "SqueezeBert"),
)
# Model types whose class is one of these when neither config names one.
BERT_TYPES = (
    *("bert", "convbert", "distilbert", "electra", "funnel", "layoutlm", "lxmert", "mpnet", "mobilebert", "splinter"),
    *("squeezebert", "nomic_bert"),
)
# The same for byte-level BPE and its add_prefix_space.
BYTES = ("Roberta", "GPT2", "Longformer", "CodeGen", "Deberta", "Bart")
BYTE_TYPES = ("roberta", "gpt2", "longformer", "deberta", "bart")
SPLIT_BYTES = ("Qwen2",)  # behind a pattern of their own
SPLIT_BYTE_TYPES = ("qwen2", "qwen3")
WORDS = ("XLMRoberta", "Camembert", "Albert")
WORD_TYPES = ("xlm-roberta", "camembert", "albert")
WORD_LETTERS, CONTINUATION = 100, "##"  # of every WordPiece that these classes make


def overrule(tokenizer: Tokenizer, settings: Settings, config: Mapping[str, Any]) -> bool:
    """Set the tokenizer up as its class does; whether that changed anything."""

    def of(classes: tuple[str, ...], types: tuple[str, ...]) -> bool:
        named = settings.get("tokenizer_class") or config.get("tokenizer_class")
        if isinstance(named, str):
            own = named.removesuffix("Fast").removesuffix("Tokenizer")
            return own in classes and named.endswith(("Tokenizer", "Fast"))
        return config.get("model_type") in types

    before = _state(tokenizer)
    if of(BERT, BERT_TYPES):
        _bert(tokenizer, settings)
    if of(BYTES, BYTE_TYPES):
        _bytes(tokenizer, settings)
    if of(SPLIT_BYTES, SPLIT_BYTE_TYPES):
        _split_bytes(tokenizer, settings)
    if of(WORDS, WORD_TYPES):
        _words(tokenizer, settings)
    if of(("Albert",), ("albert",)):
        _albert(tokenizer, settings)
    if of(("DebertaV2",), ("deberta-v2",)):
        _deberta_v2(tokenizer, settings)
    return _state(tokenizer) != before


def _state(tokenizer: Tokenizer) -> list[object]:
    """What the classes set: a large vocabulary takes long to compare."""
    model: Any = tokenizer.model
    words = isinstance(model, models.WordPiece)
    parts = (tokenizer.normalizer, tokenizer.pre_tokenizer)
    return [
        *(None if part is None else part.__getstate__() for part in parts),
        (model.max_input_chars_per_word, model.continuing_subword_prefix) if words else None,
    ]


def _bert(tokenizer: Tokenizer, settings: Settings) -> None:
    """do_lower_case, strip_accents and tokenize_chinese_chars, by default True, None and True."""
    if not isinstance(tokenizer.normalizer, normalizers.BertNormalizer):
        return
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        lowercase=bool(settings.get("do_lower_case", True)),
        strip_accents=settings.get("strip_accents"),
        handle_chinese_chars=bool(settings.get("tokenize_chinese_chars", True)),
    )
    model: Any = tokenizer.model
    if isinstance(model, models.WordPiece):
        wanted = (WORD_LETTERS, CONTINUATION)
        if (model.max_input_chars_per_word, model.continuing_subword_prefix) != wanted:
            model.max_input_chars_per_word, model.continuing_subword_prefix = wanted
            tokenizer.model = model


def _bytes(tokenizer: Tokenizer, settings: Settings) -> None:
    """add_prefix_space, by default False: whether a text's first word begins with a space."""
    old: Any = tokenizer.pre_tokenizer
    if isinstance(old, pre_tokenizers.ByteLevel):
        wanted = bool(settings.get("add_prefix_space", False))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=wanted, use_regex=old.use_regex)


def _split_bytes(tokenizer: Tokenizer, settings: Settings) -> None:
    """The same where it is the last of several steps."""
    if "add_prefix_space" not in settings:
        return
    body = _described(tokenizer.pre_tokenizer)
    for step in body.get("pretokenizers") or []:
        if step.get("type") == "ByteLevel":
            step["add_prefix_space"] = bool(settings["add_prefix_space"])
            tokenizer.pre_tokenizer = _made("pre_tokenizer", body)


def _words(tokenizer: Tokenizer, settings: Settings) -> None:
    """add_prefix_space: whether each word begins with the sign of a space."""
    if "add_prefix_space" in settings:
        scheme = "always" if settings["add_prefix_space"] else "never"
        steps = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme=scheme)]
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)


def _albert(tokenizer: Tokenizer, settings: Settings) -> None:
    """do_lower_case and keep_accents, by default True and False."""
    if not settings.keys() & {"do_lower_case", "keep_accents"}:
        return
    steps: list[Any] = [normalizers.Replace("``", '"'), normalizers.Replace("''", '"')]
    if not settings.get("keep_accents", False):
        steps += [normalizers.NFKD(), normalizers.StripAccents()]
    if settings.get("do_lower_case", True):
        steps.append(normalizers.Lowercase())
    tokenizer.normalizer = normalizers.Sequence([*steps, *_precompiled(tokenizer)])


def _deberta_v2(tokenizer: Tokenizer, settings: Settings) -> None:
    """do_lower_case, split_by_punct and add_prefix_space, by default False, False and True."""
    if settings.keys() & {"do_lower_case"}:
        lower: list[Any] = [normalizers.Lowercase()] if settings["do_lower_case"] else []
        spaces = normalizers.Replace(Regex(r"\s{2,}|[\n\r\t]"), " ")
        end = normalizers.Strip(left=False, right=True)
        tokenizer.normalizer = normalizers.Sequence([*lower, spaces, normalizers.NFC(), end])
    if settings.keys() & {"split_by_punct", "add_prefix_space"}:
        scheme = "always" if settings.get("add_prefix_space", True) else "first"
        steps: list[Any] = [pre_tokenizers.Metaspace(prepend_scheme=scheme)]
        if settings.get("split_by_punct"):
            steps.insert(0, pre_tokenizers.Punctuation(behavior="isolated"))
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)


def _precompiled(tokenizer: Tokenizer) -> list[Any]:
    """sentencepiece's own map of characters, where tokenizer.json has one: it stays."""
    body = _described(tokenizer.normalizer)
    found = [part for part in body.get("normalizers", [body]) if part.get("type") == "Precompiled"]
    return [_made("normalizer", part) for part in found[:1]]


def _described(part: Any) -> dict[str, Any]:
    """A normalizer or pre-tokenizer as tokenizer.json has it."""
    return {} if part is None else json.loads(part.__getstate__())


def _made(kind: str, body: dict[str, Any]) -> Any:
    """The part that tokenizer.json describes so."""
    return getattr(Tokenizer.from_str(json.dumps({**json.loads(Tokenizer(models.BPE()).to_str()), kind: body})), kind)
