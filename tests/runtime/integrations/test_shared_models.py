"""What integrations share, without a framework: one model for many objects; what is said where no framework is."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import needs_fork, status_beside

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError
from fastembed_rt.integrations.opening import shared_model

MODULES = {"chroma": "chromadb", "lancedb": "lancedb", "qdrant": "qdrant_client", "duckdb": "duckdb"}


def test_one_model_for_a_name_and_options(model_dir: Path) -> None:
    first = shared_model(EmbeddingModel, str(model_dir), {"threads": 1, "precision": "fp32"})
    assert shared_model(EmbeddingModel, str(model_dir), {"precision": "fp32", "threads": 1}) is first
    assert shared_model(EmbeddingModel, str(model_dir), {"threads": 2}) is not first
    with EmbeddingModel(model_dir) as reference:
        np.testing.assert_array_equal(first.encode("a dog"), reference.encode("a dog"))
    first.close()
    again = shared_model(EmbeddingModel, str(model_dir), {"threads": 1, "precision": "fp32"})
    assert again is not first  # which somebody closed
    seen = weakref.ref(again)
    del again
    gc.collect()
    assert seen() is None  # it is there as long as somebody has it


def test_threads_that_ask_at_once_have_one_model(model_dir: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: shared_model(EmbeddingModel, str(model_dir), {"max_length": 9}), range(16)))
    assert len({id(one) for one in found}) == 1


@needs_fork
def test_a_forked_child_opens_a_model_that_a_thread_of_its_parent_was_opening() -> None:
    def opened(here: Callable[[], None]) -> None:
        class Kind:
            _closed = False

            @classmethod
            def from_checkpoint(cls, name: str) -> Kind:
                here()
                return cls()

        kind: Any = Kind
        assert shared_model(kind, "a model", {}) is not None

    assert status_beside(opened) == 0


def test_a_model_of_another_task_is_refused(model_dir: Path) -> None:
    from fastembed_rt import Reranker

    with pytest.raises(InvalidInputError, match="holds a model for embedding"):
        shared_model(Reranker, str(model_dir), {})


@pytest.mark.parametrize(("module", "package"), MODULES.items())
def test_without_its_framework_a_module_names_the_extra(module: str, package: str) -> None:
    code = f"import sys; sys.modules[{package!r}] = None\nimport fastembed_rt.integrations.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"is not installed; pip install 'fastembed-rt[{module}]'" in done.stderr.splitlines()[-1]
