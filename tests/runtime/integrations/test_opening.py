"""What the integrations share: models by name or open, and what is said where a framework is not installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from fastembed_rt import EmbeddingModel, Reranker, cli
from fastembed_rt.errors import InvalidInputError, InvalidTypeError, MissingDependencyError
from fastembed_rt.integrations.opening import check_fields, name_of, open_model, several, single

# Module: what it imports, and the extra that brings it.
MODULES = {
    "chroma": ("chromadb", "chroma"),
    "dspy": ("dspy", "dspy"),
    "duckdb": ("duckdb", "duckdb"),
    "lancedb": ("lancedb", "lancedb"),
    "langchain": ("langchain_core", "langchain"),
    "langchain_qdrant": ("langchain_qdrant", "langchain-qdrant"),
    "llama_index": ("llama_index", "llama-index"),
    "mcp.server": ("mcp", "mcp"),
    "mteb": ("mteb", "mteb"),
    "pandas": ("pandas", "pandas"),
    "polars": ("polars", "polars"),
    "qdrant": ("qdrant_client", "qdrant"),
    "scikit_learn": ("sklearn", "scikit-learn"),
    "spacy": ("spacy", "spacy"),
    "txtai": ("txtai", "txtai"),
}


@pytest.mark.parametrize("module", MODULES)
def test_the_extra_is_named_where_a_framework_is_missing(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package, extra = MODULES[module]
    for name in [name for name in list(sys.modules) if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, f"fastembed_rt.integrations.{module}", raising=False)

    class Hidden:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> None:
            if name.partition(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)

    monkeypatch.setattr("sys.meta_path", [Hidden, *sys.meta_path])
    with pytest.raises(
        MissingDependencyError, match=rf"{package} is not installed; pip install 'fastembed-rt\[{extra}\]'"
    ):
        importlib.import_module(f"fastembed_rt.integrations.{module}")


def test_models_by_name_and_open(model_dir: Path, model: EmbeddingModel) -> None:
    assert open_model(EmbeddingModel, model) is model
    with open_model(EmbeddingModel, str(model_dir), {"threads": 1}) as opened:
        assert opened.threads == 1
    with pytest.raises(InvalidInputError, match="threads, precision is for a model that is to be opened"):
        open_model(EmbeddingModel, model, {"threads": 1, "precision": "fp32"})
    with pytest.raises(InvalidTypeError, match="EmbeddingModel, expected a name or an open Reranker"):
        open_model(Reranker, cast(Any, model))
    with pytest.raises(InvalidTypeError, match="NoneType"):
        open_model(EmbeddingModel, cast(Any, None))
    with pytest.raises(TypeError, match="treads"):
        open_model(EmbeddingModel, model_dir, {"treads": 1})


def test_one_text_and_several_are_not_taken_for_each_other() -> None:
    assert several(text for text in ("a", "b")) == ["a", "b"]
    assert several(cast(Any, np.array(["a", "b"]))) == ["a", "b"]
    with pytest.raises(InvalidTypeError, match="one str; pass a list of them"):
        several("ab")
    for wrong in (None, float("nan"), 3, b"a", {"a"}, {"a": 1}):
        with pytest.raises(InvalidTypeError, match=r"inputs are .*; (pass|decode)"):
            several(cast(Any, wrong))
        with pytest.raises(InvalidTypeError, match="expected one str"):
            single(cast(Any, wrong))
    assert single("a") == "a"


def test_what_is_stored_of_a_model_is_its_name(model: EmbeddingModel) -> None:
    assert name_of(Path("a") / "b") == str(Path("a", "b"))
    assert name_of("org/name") == "org/name"
    for wrong in (model, None, 3):
        with pytest.raises(InvalidTypeError, match="expected a name"):
            name_of(cast(Any, wrong))


def test_arguments_that_a_framework_would_drop_are_refused() -> None:
    check_fields("Class", ())
    with pytest.raises(InvalidInputError, match="Class has no precision, threads; options of the model go into model"):
        check_fields("Class", {"threads": 1, "precision": "int8"})


@pytest.mark.skipif(importlib.util.find_spec("mcp") is not None, reason="the SDK is installed")
def test_the_command_names_the_extra(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mcp", str(model_dir)]) == MissingDependencyError.exit_code
    assert "pip install 'fastembed-rt[mcp]'" in capsys.readouterr().err
