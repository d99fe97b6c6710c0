"""Exports of a name on the hub: what an export of the same folder reads is fetched, and the same comes out."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import Made
from causal_rerankers import BEHIND, save_causal_reranker
from checkpoints import change_json, change_tensors, save_sentence_transformers, save_transformers, write_json
from cross_encoders import save_classifier, save_cross_encoder
from exports import contents
from fake_hub import FakeHub
from hub_repositories import hub, tree
from inference_free import save_inference_free
from jina_checkpoints import save_embedder
from multi_vectors import FIXED, save_multi_vector
from sparse_encoders import save_masked_lm, save_splade

from fastembed_rt.hub.resolve import is_text
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tokenizer import tokenizer_json

__all__ = ["hub"]
NAME = "acme/tiny"
_opened: list[list[str]] = []  # of those who listen now


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _opened and event == "open" and isinstance(arguments[0], str):
        _opened[-1].append(arguments[0])


sys.addaudithook(_hook)


@contextmanager
def opened() -> Iterator[list[str]]:
    """Paths of the files that Python code opens meanwhile."""
    _opened.append([])
    try:
        yield _opened[-1]
    finally:
        del _opened[-1]


def hub_cache() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def with_templates(directory: Path) -> Path:
    source = save_causal_reranker(directory)
    (source / "chat_template.jinja").unlink()
    (source / "additional_chat_templates").mkdir()
    for name in ("default", "other"):
        (source / "additional_chat_templates" / f"{name}.jinja").write_text(BEHIND + name, encoding="utf-8")
    return source


def without_tokenizer_json(directory: Path) -> Path:
    source = save_sentence_transformers(directory)
    words = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    (source / "vocab.txt").write_text("\n".join(sorted(words, key=words.get)), encoding="utf-8")
    change_json(source / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    (source / "tokenizer.json").unlink()
    return source


def stanfords(directory: Path) -> Path:
    source = save_transformers(directory)
    projection = {"linear.weight": np.random.default_rng(0).normal(size=(8, 24)).astype(np.float32)}
    change_tensors(source, lambda tensors: tensors.update(projection))
    write_json(source / "artifact.metadata", {"doc_maxlen": 20, "query_maxlen": 12, "dim": 24})
    return source


def merged(directory: Path) -> Path:
    """An adapter, whose base is a directory here."""
    made = Made(directory, base=save_sentence_transformers(directory.with_name("base")))
    return made.queries_and_values().save()


Make = Callable[[Path], Path]
MAKERS: dict[str, tuple[Make, dict[str, Any]]] = {
    "sentence-transformers": (lambda at: save_sentence_transformers(at, prompts={"query": "q: "}), {}),
    "transformers": (save_transformers, {}),
    "words alone": (without_tokenizer_json, {}),
    "Stanford's ColBERT": (stanfords, {}),
    "cross-encoder": (save_cross_encoder, {}),
    "classifier": (save_classifier, {}),
    "causal reranker": (save_causal_reranker, {}),
    "named templates": (with_templates, {}),
    "SPLADE": (save_splade, {}),
    "masked language model": (save_masked_lm, {"task": "sparse"}),
    "routes": (save_inference_free, {}),
    "late interaction": (lambda at: save_multi_vector(at, query_expansion=FIXED), {}),
    "Jina's adapters": (save_embedder, {"adapter": "retrieval.query"}),
    "adapter": (merged, {}),
}


def made(source: str, output: Path, **options: Any) -> dict[str, bytes]:
    export(source, ExportOptions(output=output, verify=False, **options))
    return contents(output)


@pytest.mark.parametrize("kind", MAKERS)
def test_an_export_by_name_reads_the_files_that_one_of_the_folder_reads(
    hub: FakeHub, tmp_path: Path, kind: str
) -> None:
    maker, options = MAKERS[kind]
    folder = maker(tmp_path / "tiny")
    whole = contents(folder)
    commit = hub.add(NAME, whole)
    source = tmp_path / "copied" / "models--acme--tiny" / "snapshots" / commit  # which gives it the same name
    shutil.copytree(folder, source)
    with opened() as paths:
        wanted = made(str(source), tmp_path / "of-folder", **options)
    read = {Path(path).relative_to(source).as_posix() for path in paths if Path(path).is_relative_to(source)}
    read &= whole.keys()  # others were looked for
    assert read
    found = made(NAME, tmp_path / "by-name", **options)
    assert read - set(tree(hub_cache() / "models--acme--tiny" / "snapshots" / commit)) == set()
    assert found.keys() == wanted.keys()
    assert [name for name in wanted if found[name] != wanted[name]] == []


def test_every_vocabulary_that_an_export_looks_for_is_fetched() -> None:
    kinds = {*tokenizer_json.VOCABULARIES, *tokenizer_json._OTHER_VOCABULARIES, *tokenizer_json._SOME_VOCABULARY}
    assert [kind for kind in kinds if not is_text(f"0_Transformer/{kind.replace('*', 'x')}", "0_Transformer")] == []
    assert not any(
        is_text(file, "") for file in ("model.safetensors", "pytorch_model.bin.index.json", "onnx/vocab.txt")
    )
