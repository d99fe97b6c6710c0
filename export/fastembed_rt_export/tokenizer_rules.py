"""Classes of transformers' tokenizers that set up parts of a tokenizer from tokenizer_config.json.

They do it whatever is in tokenizer.json; which class it is, tokenizer_config.json says, else the model type.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

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
# Special tokens around a text and around two, by name, as the class sets them; 1 is the second text's type.
_TYPED = ("{cls}:0 $A:0 {sep}:0", "{cls}:0 $A:0 {sep}:0 $B:1 {sep}:1")
_TWO = ("{cls}:0 $A:0 {sep}:0", "{cls}:0 $A:0 {sep}:0 {sep}:0 $B:0 {sep}:0")
_ENDS = (
    (("Bert", "ConvBert", "DistilBert", "Electra", "MobileBert", "SqueezeBert", "LayoutLM", "Lxmert"), _TYPED),
    (("DebertaV2",), _TYPED),
    (("MPNet", "Roberta", "XLMRoberta", "Camembert", "Deberta"), _TWO),
    (("T5",), ("$A:0 {sep}:0", "$A:0 {sep}:0 $B:0 {sep}:0")),
)
_BRACKETS, _ANGLES = {"cls": "[CLS]", "sep": "[SEP]"}, {"cls": "<s>", "sep": "</s>"}
_ANGLED = ("MPNet", "Roberta", "XLMRoberta", "Camembert", "T5")
# XLM-R and CamemBERT go by these names, and T5 writes its end as it is.
_OTHER_NAMES = {"XLMRoberta": ("bos", "eos"), "Camembert": ("bos", "eos"), "T5": ("", "")}
_OF_TYPES = {
    **dict.fromkeys(("bert", "convbert", "distilbert", "electra", "layoutlm", "lxmert", "mobilebert"), "Bert"),
    **{"squeezebert": "Bert", "nomic_bert": "Bert", "mpnet": "MPNet", "roberta": "Roberta", "t5": "T5"},
    **{"xlm-roberta": "XLMRoberta", "camembert": "Camembert", "deberta": "Deberta", "deberta-v2": "DebertaV2"},
}
WORD_LETTERS, CONTINUATION = 100, "##"  # of every WordPiece that these classes make


def overrule(tokenizer: Tokenizer, settings: Settings, config: Mapping[str, Any]) -> bool:
    """Set the tokenizer up as its class does; whether that changed anything."""

    named = settings.get("tokenizer_class") or config.get("tokenizer_class")

    def of(classes: tuple[str, ...], types: tuple[str, ...]) -> bool:
        return _own(named) in classes if isinstance(named, str) else config.get("model_type") in types

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
    own = _own(named) if isinstance(named, str) else _OF_TYPES.get(str(config.get("model_type")), "")
    return _ends(tokenizer, settings, own) or _state(tokenizer) != before


def _own(named: str) -> str:
    """Name of a class without what most of them end in."""
    return named.removesuffix("Fast").removesuffix("Tokenizer") if named.endswith(("Tokenizer", "Fast")) else ""


def _ends(tokenizer: Tokenizer, settings: Settings, own: str) -> bool:
    """The class's special tokens around texts; whether those of tokenizer.json are others."""
    found = next((templates for classes, templates in _ENDS if own in classes), None)
    if found is None:
        return False
    defaults = _ANGLES if own in _ANGLED else _BRACKETS
    names = dict(zip(("cls", "sep"), _OTHER_NAMES.get(own, ("cls", "sep")), strict=True))
    tokens: dict[str, str] = {}
    for part, name in names.items():
        said = settings.get(f"{name}_token") or defaults[part]
        tokens[part] = str(said.get("content") if isinstance(said, dict) else said)
    numbers = [(token, tokenizer.token_to_id(token)) for token in tokens.values()]
    used = [(token, number) for (token, number), part in zip(numbers, tokens, strict=True) if f"{{{part}}}" in found[0]]
    if any(number is None or " " in token or ":" in token for token, number in used):
        return False
    before, old = _around(tokenizer), tokenizer.post_processor
    single, pair = (template.format(**tokens) for template in found)
    tokenizer.post_processor = processors.TemplateProcessing(single=single, pair=pair, special_tokens=used)
    if _around(tokenizer) != before:
        return True
    tokenizer.post_processor = old  # the same in other words
    return False


def _around(tokenizer: Tokenizer) -> list[tuple[list[int], list[int]]]:
    """Ids and types of no text, of a text, and of two."""
    made = [tokenizer.encode(""), tokenizer.encode("a"), tokenizer.encode("a", "a")]
    return [(encoding.ids, encoding.type_ids) for encoding in made]


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
