"""Constructor arguments of sentence-transformers as options of our models: mapped, ignored, or refused by name."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .. import manifest
from ..errors import InvalidInputError, InvalidTypeError, ModelNotFoundError
from ..run.providers import AUTO, PROVIDERS

BACKENDS = ("torch", "onnx", "openvino")
PRECISIONS = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float": "fp32", "half": "fp16"}
# How torch and transformers load weights and compute; nothing of it exists in a finished graph.
WITHOUT_EFFECT = {
    "attention_probs_dropout_prob",
    "classifier_dropout",
    "hidden_dropout_prob",
    "attn_implementation",
    "code_revision",
    "cache_dir",
    "clean_up_tokenization_spaces",
    "disable_mmap",
    "export",
    "force_download",
    "ignore_mismatched_sizes",
    "local_files_only",
    "low_cpu_mem_usage",
    "padding",
    "padding_side",
    "reference_compile",
    "resume_download",
    "return_dict",
    "revision",
    "token",
    "trust_remote_code",
    "use_auth_token",
    "use_cache",
    "use_memory_efficient_attention",
    "use_safetensors",
    "weights_only",
}


class NotFoundError(ModelNotFoundError, FileNotFoundError):
    """No model under that name; a FileNotFoundError too, as sentence-transformers and transformers raise."""


class NotADirectoryFoundError(ModelNotFoundError, NotADirectoryError):
    """A file where a directory should be; a NotADirectoryError too."""


@contextmanager
def their_errors(name: object) -> Any:
    """Within, a model that is not found is an error that programs written for the other library catch."""
    try:
        yield
    except ModelNotFoundError as error:
        is_file = isinstance(name, (str, os.PathLike)) and Path(name).is_file()
        raise (NotADirectoryFoundError if is_file else NotFoundError)(str(error)) from error


def is_short(name: object) -> bool:
    """Whether a name is no directory, and has no organization of the hub."""
    return isinstance(name, str) and "/" not in name and not name.startswith(".") and not Path(name).exists()


def provider_of(device: object) -> dict[str, Any]:
    """Options that put a model on a device: "cpu", "cuda", "cuda:1", a torch.device, a number of a GPU, or several.

    None takes a GPU where one runs the model, as there.

    Raises:
        InvalidInputError: a device that no provider stands for.
    """
    if device is None:
        return {"provider": AUTO}
    if isinstance(device, (list, tuple)):
        placed = [provider_of(entry) for entry in device]
        kinds = {entry["provider"] for entry in placed}
        if len(kinds) != 1:
            raise InvalidInputError(f"devices {list(map(str, device))} are of several kinds; pass those of one")
        numbers = sorted({number for entry in placed for number in entry.get("device_ids", ())})
        return {"provider": kinds.pop(), **({"device_ids": numbers} if numbers else {})}
    name = f"cuda:{device}" if isinstance(device, int) and not isinstance(device, bool) else str(device)
    kind, _, number = name.partition(":")
    if kind not in ("cpu", "cuda") or not (number.isdecimal() or not number):
        raise InvalidInputError(
            f"device {name!r} is not one that models run on here: pass 'cpu', 'cuda' or 'cuda:1', or provider= with "
            f"one of {', '.join(PROVIDERS)}"
        )
    return {"provider": kind, **({"device_ids": [int(number)]} if number and kind == "cuda" else {})}


def load_options(
    name: object,
    *,
    device: object,
    backend: str,
    model_kwargs: Mapping[str, Any] | None,
    processor_kwargs: Mapping[str, Any] | None,
    config_kwargs: Mapping[str, Any] | None,
    ours: Mapping[str, Any],
) -> tuple[dict[str, Any], int | None]:
    """Options of our models, and the length limit in tokens if the arguments set one.

    Args:
        name: of the model: a directory's `file_name` is looked up in its manifest.
        device: where it runs, see `provider_of`.
        backend: torch, onnx or openvino: always onnxruntime here.
        model_kwargs: see the page docs/from-sentence-transformers.md.
        processor_kwargs: of the tokenizer.
        config_kwargs: of the configuration.
        ours: options of our own that come before all of these.

    Raises:
        InvalidInputError: what cannot be done, with what can.
        InvalidTypeError: arguments that are not a mapping.
    """
    if backend not in BACKENDS:
        raise InvalidInputError(f"backend {backend!r} is not known; known: {', '.join(BACKENDS)}")
    given = {
        label: checked(label, mapping)
        for label, mapping in (
            ("model_kwargs", model_kwargs),
            ("processor_kwargs", processor_kwargs),
            ("config_kwargs", config_kwargs),
        )
    }
    for_model = given["model_kwargs"]
    placement = for_model.pop("device_map", None)
    options = provider_of(device if placement in (None, AUTO) else placement)
    for label in ("model_kwargs", "config_kwargs"):
        for key in ("torch_dtype", "dtype"):
            options |= precision_of(given[label].pop(key, None))
    if "provider" in for_model:
        options = {**options, "provider": provider_named(for_model.pop("provider"))}
    for_model.pop("provider_options", None)
    if "file_name" in for_model:
        options |= variant_of(name, str(for_model.pop("file_name")), str(for_model.pop("subfolder", "")))
    limit = given["processor_kwargs"].pop("model_max_length", given["processor_kwargs"].pop("max_length", None))
    if given["processor_kwargs"].pop("use_fast", True) is False:
        raise InvalidInputError("use_fast=False is not possible: the model directory has the fast tokenizer alone")
    for label, mapping in given.items():
        refuse(label, mapping)
    return {**options, **ours}, limit


def checked(label: str, mapping: Mapping[str, Any] | None) -> dict[str, Any]:
    """A copy of keyword arguments that came in one argument."""
    if mapping is None:
        return {}
    if not isinstance(mapping, Mapping):
        raise InvalidTypeError(f"{label} is {type(mapping).__name__}, expected a dict")
    return dict(mapping)


def refuse(label: str, rest: Iterable[str]) -> None:
    """Raise InvalidInputError for the first key that would have changed something."""
    for key in rest:
        if key in WITHOUT_EFFECT:
            continue
        if "quant" in key or key.startswith("load_in_"):
            what = "precision='int8' takes the INT8 graph of the model directory; export it with --precision fp32,int8"
        elif key == "truncation_side":
            what = "it is part of the export: set it in the checkpoint's tokenizer_config.json and export again"
        else:
            what = "set it in the checkpoint and export again: the graph and the tokenizer are finished"
        raise InvalidInputError(f"{label}[{key!r}] is not possible here: {what}")


def precision_of(dtype: object) -> dict[str, str]:
    """The option for a torch dtype or its name; none for None and "auto"."""
    if dtype is None or dtype == AUTO:
        return {}
    name = str(dtype).removeprefix("torch.")
    if name not in PRECISIONS:
        raise InvalidInputError(f"dtype {name!r} is not one that graphs have; known: {', '.join(PRECISIONS)}")
    return {"precision": PRECISIONS[name]}


def provider_named(name: object) -> str:
    """Our name of a provider of onnxruntime's."""
    found = {row.onnxruntime_name: ours for ours, row in PROVIDERS.items()}.get(str(name))
    if found is None:
        known = ", ".join(row.onnxruntime_name for row in PROVIDERS.values())
        raise InvalidInputError(f"provider {name!r} is not known; known: {known}")
    return found


def variant_of(name: object, file: str, folder: str) -> dict[str, str]:
    """Precision and target of the graph in a file of a model directory on this disk."""
    wanted = f"{folder}/{file}" if folder else file
    if wanted in ("model.onnx", "onnx/model.onnx"):
        return {}  # what runs in their library under that name: the model as it is
    directory = Path(str(name))
    if directory.is_dir():
        described = manifest.read(directory)
        for variant in described.variants:
            if variant.graph.file in (wanted, file):
                return {"precision": variant.precision, "target": variant.target}
        have = ", ".join(variant.graph.file for variant in described.variants)
    else:
        have = "unknown before it is downloaded"
    raise InvalidInputError(
        f"model_kwargs['file_name'] {wanted!r} is not a graph of this model ({have}); pass precision= instead, "
        "such as precision='int8'"
    )
