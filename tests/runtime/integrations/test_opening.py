"""What the integrations share: models by name or open, and what is said where a framework is not installed."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from fastembed_rt import EmbeddingModel, Reranker, cli
from fastembed_rt.errors import InvalidInputError, InvalidTypeError, MissingDependencyError
from fastembed_rt.integrations.opening import open_model

# Module: what it imports, and the extra that brings it.
MODULES = {
    "dspy": ("dspy", "dspy"),
    "langchain": ("langchain_core", "langchain"),
    "langchain_qdrant": ("langchain_qdrant", "langchain-qdrant"),
    "llama_index": ("llama_index", "llama-index"),
    "mcp.server": ("mcp", "mcp"),
    "mteb": ("mteb", "mteb"),
    "pandas": ("pandas", "pandas"),
    "polars": ("polars", "polars"),
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


@pytest.mark.skipif(importlib.util.find_spec("mcp") is not None, reason="the SDK is installed")
def test_the_command_names_the_extra(model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mcp", str(model_dir)]) == MissingDependencyError.exit_code
    assert "pip install 'fastembed-rt[mcp]'" in capsys.readouterr().err
