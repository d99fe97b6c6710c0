"""The Transformer module: what its settings file and its tokenizer's say, read as sentence-transformers reads them.

Without modules.json sentence-transformers makes the module itself and reads neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import settings
from ..errors import CheckpointError, UnsupportedCheckpointError
from ..files import read_json
from . import limits
from .limits import Limits

# The first that is there is read.
SETTINGS_FILES = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)
TOKENIZER_SETTINGS = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template"  # key of processing_kwargs
FORMS = ("flat", "structured", "auto")  # of messages
# Keys until sentence-transformers 5, which replace the new ones where both are there.
_OLD_NAMES = {"model_args": "model_kwargs", "tokenizer_args": "processor_kwargs", "config_args": "config_kwargs"}
_HALVES = ("float16", "bfloat16", "half", "torch.float16", "torch.bfloat16")


@dataclass(frozen=True)
class Output:
    """What a task takes of the module: its transformer_task, and what it is called inside and outside of it."""

    task: str
    method_output: str
    name: str
    by_role: bool | None = False  # own lengths of queries and documents: built, refused, or no matter here (None)
    method: str = "forward"
    absent: str = "feature-extraction"  # the transformer_task where none is named
    chats: bool = False  # texts may go through a chat template


EMBEDDINGS = Output("feature-extraction", "last_hidden_state", "token_embeddings", by_role=True)
# Of a model that makes vectors of texts by itself.
TEXT_FEATURES = Output(
    "feature-extraction", "pooler_output", "sentence_embedding", by_role=True, method="get_text_features"
)
# Whose code config.json's auto_map may name, by what a task takes of the module.
AUTO_CLASSES = {
    "feature-extraction": "AutoModel",
    "sequence-classification": "AutoModelForSequenceClassification",
    "fill-mask": "AutoModelForMaskedLM",
    "text-generation": "AutoModelForCausalLM",
}


@dataclass(frozen=True)
class Chat:
    """How texts go through the tokenizer's chat template."""

    form: str = "auto"  # of a message's content: flat (its text), structured (a list), auto: as the template asks
    restore_end: bool = True
    variables: Mapping[str, Any] = field(default_factory=dict)  # of the template, beside messages and special tokens


@dataclass(frozen=True)
class Padding:
    """What each call of the tokenizer is told of padding."""

    alone: bool = False  # a text alone is padded too
    side: str | None = None  # None: the tokenizer's own


@dataclass(frozen=True)
class Transformer:
    """What the module's settings say."""

    limits: Limits = field(default_factory=lambda: Limits(None))
    lower_case: bool = False
    processor: Mapping[str, Any] = field(default_factory=dict)  # said against tokenizer_config.json
    chat: Chat | None = None  # None: texts are read as they are
    padding: Padding = field(default_factory=Padding)


def read_transformer(path: Path, output: Output, notes: list[str], *, chained: bool) -> Transformer:
    """Settings of the module in directory `path`; `chained`: whether there is a modules.json.

    Raises:
        CheckpointError: damaged, or what sentence-transformers refuses.
        UnsupportedCheckpointError: a setting that would change vectors and is not built.
    """
    config = read_json(path / "config.json")
    tokenizer = _tokenizer_settings(path, notes)
    file = next((path / name for name in SETTINGS_FILES if (path / name).is_file()), None)
    said: dict[str, Any] = {}
    chat: Chat | None = None
    if not chained:
        named = _chat_template(path, tokenizer)
        if named is not None and not output.chats:
            _refuse_chat_template(path, named, config)
        chat = None if named is None else Chat()
        if file is not None:
            notes.append(f"{file.name} is not read: there is no modules.json, and so it is in sentence-transformers")
    else:
        if file is not None:
            said = read_json(file)
            settings.check(settings.TRANSFORMER, said, file.name, notes)
            said = {_OLD_NAMES.get(key, key): value for key, value in sorted(said.items(), key=_old_last)}
        chat = _check_output(said, output, file or path / SETTINGS_FILES[0])
    own, processor, processing = _passed_on(said, config, path, notes, chats=chat is not None)
    if own.get("dtype", own.get("torch_dtype")) in _HALVES:
        notes.append("model_kwargs ask for weights of half precision; they are read as they are stored")
    where = path / "config.json"
    found = limits.read(said, processor, processing, tokenizer, config.get("max_position_embeddings"), where)
    if output.by_role is False:
        _refuse_lengths(found, file)
    if chat is not None:
        chat = replace(
            chat,
            restore_end=bool(processing.pop("restore_suffix", True)),
            variables={key: value for key, value in processing.items() if key not in settings.PROCESSING_TEXT.rules},
        )
    lengths = found.by_role if output.by_role else {}
    padded = processing.get("padding") == "max_length" or bool(processing.get("pad_to_multiple_of"))
    padding = Padding(padded, processing.get("padding_side"))
    return Transformer(Limits(found.all, lengths), bool(said.get("do_lower_case", False)), processor, chat, padding)


def own_model(config: Mapping[str, Any], output: Output) -> str | None:
    """The class that config.json names for the model in code of the checkpoint's own, None where it names none."""
    listed = config.get("auto_map")
    named = listed.get(AUTO_CLASSES[output.task]) if isinstance(listed, dict) else None
    return named if isinstance(named, str) else None


def _old_last(item: tuple[str, Any]) -> bool:
    return item[0] in _OLD_NAMES


def _tokenizer_settings(path: Path, notes: list[str]) -> dict[str, Any]:
    file = path / TOKENIZER_SETTINGS
    said = read_json(file) if file.is_file() else {}
    settings.check(settings.TOKENIZER, said, file.name, notes)
    if isinstance(said.get("auto_map"), dict) and "AutoTokenizer" in said["auto_map"]:
        notes.append(f"{file.name} names code of the checkpoint's own for its tokenizer, which is not run")
    return said


def _chat_template(path: Path, tokenizer: Mapping[str, Any]) -> str | None:
    """The file in directory `path` that has a chat template."""
    files = [path / "chat_template.jinja", *sorted((path / "additional_chat_templates").glob("*.jinja"))]
    found = next((file.name for file in files if file.is_file()), None)
    return found or (TOKENIZER_SETTINGS if tokenizer.get("chat_template") is not None else None)


def _refuse_chat_template(path: Path, found: str, config: Mapping[str, Any]) -> None:
    """A plain directory with a chat template: sentence-transformers makes a chat of every text."""
    named = config.get("architectures")
    causal = isinstance(named, list) and bool(named) and str(named[0]).endswith("ForCausalLM")
    reranker = "; if it is a reranker, export it with --task reranking" if causal else ""
    raise UnsupportedCheckpointError(
        f"{path} has a chat template ({found}) and no modules.json: sentence-transformers would put every text "
        "through it, which is not built; remove the template if texts are meant as they are, or save the model "
        f"with sentence-transformers and a modality_config of 'text' alone{reranker}"
    )


def _check_output(said: Mapping[str, Any], output: Output, file: Path) -> Chat | None:
    """Refuse another output of the transformer than the task's; whether texts go through a chat template."""
    task = said.get("transformer_task", output.absent)
    if task != output.task:
        raise UnsupportedCheckpointError(
            f"{file} has transformer_task {task!r}; what follows is built behind {output.task!r} only"
        )
    modality = said.get("modality_config")
    chats = modality is not None and "message" in modality
    if modality is not None and chats and not output.chats:
        raise UnsupportedCheckpointError(
            f"{file} has modality_config {sorted(modality)}, which is not built: texts would go through a chat "
            "template; save the model again with a modality_config of 'text' alone, if that is how it was trained"
        )
    text: Mapping[str, Any] = {}
    if modality is not None:
        text = modality["message" if chats else "text"]
        text = text if isinstance(text, dict) else {}
        name = text.get("method_output_name")
        found = (text.get("method"), name[0] if isinstance(name, list) and len(name) == 1 else name)
        if found != (output.method, output.method_output) or said.get("module_output_name") != output.name:
            raise UnsupportedCheckpointError(
                f"{file} takes {name!r} of {text.get('method')!r} for texts and calls it "
                f"{said.get('module_output_name')!r}; built is {output.method_output!r} of {output.method!r}, called "
                f"{output.name!r}"
            )
    if said.get("query_expansion") is not None and output.by_role is not None:
        raise UnsupportedCheckpointError(
            f"{file} has query_expansion, which is built for late interaction alone; leave it out"
        )
    if not chats:
        return None
    form = text.get("format", "auto")
    if form not in FORMS:
        raise CheckpointError(f"{file} has messages of format {form!r}; known: {', '.join(FORMS)}")
    return Chat(str(form))


def _refuse_lengths(found: Limits, file: Path | None) -> None:
    for role, length in found.by_role.items():
        if length != found.all:
            raise UnsupportedCheckpointError(
                f"{file} cuts texts in the role {role!r} at {length} tokens and others elsewhere, which is built for "
                f"embeddings alone; leave {role}_length out"
            )


def _passed_on(
    said: Mapping[str, Any], config: Mapping[str, Any], path: Path, notes: list[str], *, chats: bool
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What the module passes on to the model, to the tokenizer, and to each of the tokenizer's calls with texts.

    Of `chats` the last has what it passes on to the chat template, too.
    """
    kwargs = {}
    for key in (*_OLD_NAMES.values(), "processing_kwargs"):
        value = said.get(key) or {}
        if not isinstance(value, dict):
            raise CheckpointError(f"{key} {value!r} beside {path / 'config.json'} are not settings by name")
        kwargs[key] = value
    changed = {
        key: value for key, value in kwargs["config_kwargs"].items() if key not in config or config[key] != value
    }
    settings.check(settings.CONFIG_KWARGS, changed, "config_kwargs", notes)
    settings.check(settings.MODEL_KWARGS, kwargs["model_kwargs"], "model_kwargs", notes)
    settings.check(settings.PROCESSOR_KWARGS, kwargs["processor_kwargs"], "processor_kwargs", notes)
    processing: dict[str, Any] = {}
    # In this order: what is common counts more, but not in chats, where the template's own counts most.
    for key in ("common", "text", CHAT_TEMPLATE) if chats else ("text", "common"):
        part = kwargs["processing_kwargs"].get(key) or {}
        if not isinstance(part, dict):
            raise CheckpointError(f"processing_kwargs has {key} {part!r}, expected settings by name")
        known = settings.CHAT if key == CHAT_TEMPLATE else settings.PROCESSING_TEXT
        settings.check(known, part, f"processing_kwargs {key!r}", notes)
        processing.update(part)
    return kwargs["model_kwargs"], kwargs["processor_kwargs"], processing
