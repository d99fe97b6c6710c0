"""The Transformer module: what its settings file and its tokenizer's say, read as sentence-transformers reads them.

Without modules.json sentence-transformers makes the module itself and reads neither.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
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
    absent: str = "feature-extraction"  # the transformer_task where none is named


EMBEDDINGS = Output("feature-extraction", "last_hidden_state", "token_embeddings", by_role=True)
# Whose code config.json's auto_map may name, by what a task takes of the module.
AUTO_CLASSES = {
    "feature-extraction": "AutoModel",
    "sequence-classification": "AutoModelForSequenceClassification",
    "fill-mask": "AutoModelForMaskedLM",
}


@dataclass(frozen=True)
class Transformer:
    """What the module's settings say."""

    limits: Limits = field(default_factory=lambda: Limits(None))
    lower_case: bool = False
    processor: Mapping[str, Any] = field(default_factory=dict)  # said against tokenizer_config.json


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
    if not chained:
        _refuse_chat_template(path, tokenizer)
        if file is not None:
            notes.append(f"{file.name} is not read: there is no modules.json, and so it is in sentence-transformers")
    elif file is not None:
        said = read_json(file)
        settings.check(settings.TRANSFORMER, said, file.name, notes)
        said = {_OLD_NAMES.get(key, key): value for key, value in sorted(said.items(), key=_old_last)}
        _check_output(said, output, file)
    own, processor, processing = _passed_on(said, config, path, notes)
    if own.get("dtype", own.get("torch_dtype")) in _HALVES:
        notes.append("model_kwargs ask for weights of half precision; they are read as they are stored")
    where = path / "config.json"
    found = limits.read(said, processor, processing, tokenizer, config.get("max_position_embeddings"), where)
    if output.by_role is False:
        _refuse_lengths(found, file)
    return Transformer(
        Limits(found.all, found.by_role if output.by_role else {}), bool(said.get("do_lower_case", False)), processor
    )


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


def _refuse_chat_template(path: Path, tokenizer: Mapping[str, Any]) -> None:
    """A plain directory with a chat template: sentence-transformers makes a chat of every text."""
    files = [path / "chat_template.jinja", *sorted((path / "additional_chat_templates").glob("*.jinja"))]
    found = next((file.name for file in files if file.is_file()), None)
    found = found or (TOKENIZER_SETTINGS if tokenizer.get("chat_template") is not None else None)
    if found is not None:
        raise UnsupportedCheckpointError(
            f"{path} has a chat template ({found}) and no modules.json: sentence-transformers would put every text "
            "through it, which is not built; remove the template if texts are meant as they are, or save the model "
            "with sentence-transformers and a modality_config of 'text' alone"
        )


def _check_output(said: Mapping[str, Any], output: Output, file: Path) -> None:
    """Refuse another output of the transformer than the task's."""
    task = said.get("transformer_task", output.absent)
    if task != output.task:
        raise UnsupportedCheckpointError(
            f"{file} has transformer_task {task!r}; what follows is built behind {output.task!r} only"
        )
    modality = said.get("modality_config")
    if modality is not None:
        text = modality["text"] if isinstance(modality["text"], dict) else {}
        name = text.get("method_output_name")
        found = (text.get("method"), name[0] if isinstance(name, list) and len(name) == 1 else name)
        if found != ("forward", output.method_output) or said.get("module_output_name") != output.name:
            raise UnsupportedCheckpointError(
                f"{file} takes {name!r} of {text.get('method')!r} for texts and calls it "
                f"{said.get('module_output_name')!r}; built is {output.method_output!r} of 'forward', called "
                f"{output.name!r}"
            )
    if said.get("query_expansion") is not None and output.by_role is not None:
        raise UnsupportedCheckpointError(
            f"{file} has query_expansion, which is built for late interaction alone; leave it out"
        )


def _refuse_lengths(found: Limits, file: Path | None) -> None:
    for role, length in found.by_role.items():
        if length != found.all:
            raise UnsupportedCheckpointError(
                f"{file} cuts texts in the role {role!r} at {length} tokens and others elsewhere, which is built for "
                f"embeddings alone; leave {role}_length out"
            )


def _passed_on(
    said: Mapping[str, Any], config: Mapping[str, Any], path: Path, notes: list[str]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """What the module passes on to the model, to the tokenizer, and to each of the tokenizer's calls with texts."""
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
    for key in ("text", "common"):  # in this order: what is common counts more
        part = kwargs["processing_kwargs"].get(key) or {}
        if not isinstance(part, dict):
            raise CheckpointError(f"processing_kwargs has {key} {part!r}, expected settings by name")
        settings.check(settings.PROCESSING_TEXT, part, f"processing_kwargs {key!r}", notes)
        processing.update(part)
    return kwargs["model_kwargs"], kwargs["processor_kwargs"], processing
