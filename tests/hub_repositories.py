"""A model directory and a checkpoint as repositories of a fake hub, and what the resolvers say of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_hub import FakeHub, running_hub

from fastembed_rt.errors import FastembedRtError, ModelNotFoundError
from fastembed_rt.hub.resolve import resolve_checkpoint, resolve_model
from fastembed_rt.manifest import FileRecord, Manifest, Source, Variant

Files = dict[str, str | bytes]
NAME = "acme/mini"
TOKEN = "hf_right"


def record(file: str) -> FileRecord:
    return FileRecord(file=file, size=1, sha256="0" * 64)


def variant(file: str, precision: str, weights: tuple[str, ...] = ()) -> Variant:
    return Variant(
        graph=record(file),
        weights=tuple(map(record, weights)),
        target="cpu",
        precision=precision,
        opset=17,
        inputs=("input_ids", "attention_mask"),
    )


MANIFEST = Manifest(
    source=Source(checkpoint="acme/base", model_type="bert", sha256="0" * 64),
    dim=4,
    pooling=("mean",),
    normalize=True,
    max_length=16,
    max_positions=16,
    tokenizer=record("tokenizer.json"),
    variants=(variant("model.onnx", "fp32", ("model.onnx.data",)), variant("model.cpu.int8.onnx", "int8")),
    default_variant="model.onnx",
)
MODEL: Files = {
    "README.md": "a card",
    "manifest.json": MANIFEST.to_json(),
    "model.cpu.int8.onnx": b"int8 graph",
    "model.onnx": b"graph",
    "model.onnx.data": b"weights",
    "tokenizer.json": "{}",
}
MODULES = json.dumps(
    [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"},
    ]
)
CHECKPOINT: Files = {  # no two files alike: the cache would download their contents once
    ".gitattributes": "x",
    "1_Pooling/config.json": '{"of": "1_Pooling/config.json"}',
    "2_Dense/config.json": '{"of": "2_Dense/config.json"}',
    "2_Dense/model.safetensors": b"dense",
    "2_Dense/pytorch_model.bin": b"dense too",
    "README.md": "a card",
    "config.json": '{"of": "config.json"}',
    "config_sentence_transformers.json": '{"of": "config_sentence_transformers.json"}',
    "flax_model.msgpack": b"flax",
    "model.safetensors": b"weights",
    "modeling_mini.py": "print()",
    "modules.json": MODULES,
    "onnx/config.json": '{"of": "onnx/config.json"}',
    "onnx/model.onnx": b"onnx",
    "openvino/openvino_model.bin": b"openvino",
    "pytorch_model.bin": b"weights too",
    "sentence_bert_config.json": '{"of": "sentence_bert_config.json"}',
    "sentencepiece.bpe.model": b"pieces",
    "tf_model.h5": b"tensorflow",
    "tokenizer.json": '{"of": "tokenizer.json"}',
    "vocab.txt": "words",
}
NEEDED = [
    "1_Pooling/config.json",
    "2_Dense/config.json",
    "2_Dense/model.safetensors",
    "README.md",
    "config.json",
    "config_sentence_transformers.json",
    "model.safetensors",
    "modules.json",
    "sentence_bert_config.json",
    "sentencepiece.bpe.model",
    "tokenizer.json",
    "vocab.txt",
]
PLAIN: Files = {"config.json": "{}", "model.safetensors": b"weights", "tokenizer.json": "{}"}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A fresh hub and an empty cache; huggingface_hub has read its settings already, so they are patched."""
    from huggingface_hub import constants

    with running_hub() as running:
        point_at(running.url, monkeypatch)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
            monkeypatch.delenv(variable, raising=False)
        yield running


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants, file_download

    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    for module in (constants, file_download):  # before 1.0, file_download had a copy of its own
        monkeypatch.setattr(module, "HUGGINGFACE_CO_URL_TEMPLATE", template, raising=False)


def default_files(manifest: Manifest) -> list[str]:
    return [manifest.tokenizer.file, *(file.file for file in manifest.default.files)]


def tree(directory: Path) -> list[str]:
    return sorted(path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file())


def says(error: pytest.ExceptionInfo[FastembedRtError], *words: str) -> None:
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def fails(name: str, *words: str, **options: Any) -> None:
    """Both resolvers refuse with a ModelNotFoundError that says `words`."""
    with pytest.raises(ModelNotFoundError) as error:
        resolve_model(name, files=default_files, **options)
    says(error, *words)
    with pytest.raises(ModelNotFoundError) as error:
        resolve_checkpoint(name, **options)
    says(error, *words)
