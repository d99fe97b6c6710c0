"""Importing and running bring only what they need: torch and the export stage's packages never, the rest when used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fastembed_rt import native

EXPORT_ONLY = {
    "torch",
    "transformers",
    "sentence_transformers",
    "onnx",
    "safetensors",
    "ml_dtypes",
    "fastembed_rt_export",
}
ON_DEMAND = {"huggingface_hub", "tqdm", "pyarrow", "uvicorn", "orjson", "uvloop", "httptools"}
RUNTIME = {"onnxruntime", "tokenizers"}
# BERT's tokens of most texts are the compiled library's own work, where there is one.
AT_FIRST = {"numpy", "onnxruntime"} if native.wordpiece() else {"numpy", *RUNTIME}
WATCHED = EXPORT_ONLY | ON_DEMAND | RUNTIME | {"numpy"}
REPORT = f"\nimport json, sys; print(json.dumps([name for name in {sorted(WATCHED)!r} if name in sys.modules]))"


@pytest.fixture
def imported(run_script: Any) -> Any:
    """Which of the watched packages are imported after some code."""

    def imported(code: str, *args: object) -> set[str]:
        done = run_script(code + REPORT, *args)
        assert done.returncode == 0, done.stderr
        return set(json.loads(done.stdout.splitlines()[-1]))

    return imported


def test_the_package_alone_imports_none_of_them(imported: Any) -> None:
    assert imported("import fastembed_rt; fastembed_rt.__version__; fastembed_rt.FastembedRtError") == set()


def test_the_class_brings_numpy_and_nothing_else(imported: Any) -> None:
    assert imported("from fastembed_rt import EmbeddingModel, EncodeStats") == {"numpy"}


def test_a_loaded_model_brings_onnxruntime_and_tokenizers_when_a_text_needs_them(
    imported: Any, model_dir: Path
) -> None:
    code = "import sys; from fastembed_rt import EmbeddingModel; model = EmbeddingModel(sys.argv[1])"
    assert imported(code, model_dir) == AT_FIRST
    assert imported(f"{code}; model.encode('The cat.')", model_dir) == AT_FIRST
    assert imported(f"{code}; model.encode('\u0e01')", model_dir) == {"numpy", *RUNTIME}


# Of Python's own: each takes a millisecond or several, and few models want one.
RARE = {"tempfile", "shutil", "random", "logging", "difflib", "urllib.request", "zlib", "base64", "concurrent.futures"}


def test_a_first_vector_brings_none_of_what_few_models_want(run_script: Any, model_dir: Path) -> None:
    report = "; print(*(name for name in sys.modules))"
    others = set(run_script("import sys, numpy, onnxruntime" + report).stdout.split())
    code = "import sys; from fastembed_rt import EmbeddingModel; EmbeddingModel(sys.argv[1]).encode('The cat.')"
    found = set(run_script(code + report, model_dir).stdout.split())
    assert "fastembed_rt.run.session" in found
    of_gpus = {f"fastembed_rt.run.{name}" for name in ("nvidia", "cuda", "captures", "cuda_operators")}
    wanted = RARE | of_gpus | {"fastembed_rt.run.unnormalized"}
    assert not (found - others) & (wanted if native.wordpiece() else wanted - RARE)


def test_encoding_brings_nothing_more(imported: Any, model_dir: Path) -> None:
    code = (
        "import sys; from fastembed_rt import EmbeddingModel; model = EmbeddingModel(sys.argv[1], truncation='chunk')\n"
        "vectors = model.encode(['a', 'the cat ' * 50], prompt_name='query', truncate_dim=8)\n"
        "model.encode_query('a'); model.encode_document(['a']); list(model.embed(iter(['a', 'b'])))\n"
        "model.similarity(vectors, vectors); model.count_tokens('a'); model.close()"
    )
    assert imported(code, model_dir) == {"numpy", *RUNTIME}


def test_a_progress_bar_brings_tqdm_and_draws_on_stderr(run_script: Any, model_dir: Path) -> None:
    code = (
        "import sys; from fastembed_rt import EmbeddingModel; model = EmbeddingModel(sys.argv[1])\n"
        "model.encode(['a', 'b'], show_progress_bar=True)"
    )
    done = run_script(code + REPORT, model_dir)
    assert set(json.loads(done.stdout)) == {"tqdm", *AT_FIRST}
    assert "2/2" in done.stderr


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    import fastembed_rt

    with pytest.raises(AttributeError, match="has no attribute 'Embeddings'"):
        _ = fastembed_rt.Embeddings
    assert set(dir(fastembed_rt)) >= {"EmbeddingModel", "EncodeStats", "FastembedRtError"}
