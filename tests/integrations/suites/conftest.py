"""What every suite compares with: models in the folder FASTEMBED_RT_CASE, their own calls, and a reference in torch."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastembed_rt import EmbeddingModel, Reranker, SparseModel

PAGES = Path(__file__).parents[3] / "docs" / "integrations"
NEAR = 2e-5  # of a reference in torch, as the export's own check has it


class Case:
    """Model directories by name, texts, a query, and what sentence-transformers makes of them."""

    def __init__(self, folder: Path) -> None:
        told = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        self.texts: list[str] = told["texts"]
        self.query: str = told["query"]
        self.prompts: dict[str, str] = told["prompts"]
        self.dense, self.sparse, self.reranker = (
            str(folder / f"{name}-onnx") for name in ("dense", "splade", "reranker")
        )
        self.reference: Any = np.load(folder / "reference.npz")

    @cached_property
    def model(self) -> EmbeddingModel:
        return EmbeddingModel(self.dense)

    @cached_property
    def documents(self) -> Any:
        """(n, dim) of `encode_document`, near the reference's, and not what `encode` gives without a prompt."""
        made = self.model.encode_document(self.texts)
        np.testing.assert_allclose(made, self.reference["documents"], rtol=0, atol=NEAR)
        assert np.abs(made - self.model.encode(self.texts)).max() > 0.01
        return made

    @cached_property
    def queried(self) -> Any:
        """(dim,) of `encode_query`."""
        made = self.model.encode_query(self.query)
        np.testing.assert_allclose(made, self.reference["query"], rtol=0, atol=NEAR)
        assert np.abs(made - self.model.encode_document(self.query)).max() > 0.01
        return made

    @cached_property
    def weights(self) -> Any:
        """SparseVector of each text."""
        made = SparseModel(self.sparse).encode_document(self.texts)
        np.testing.assert_allclose([vector.to_dense() for vector in made], self.reference["weights"], rtol=0, atol=NEAR)
        return made

    @cached_property
    def query_weights(self) -> Any:
        made = SparseModel(self.sparse).encode_query(self.query)
        np.testing.assert_allclose(made.to_dense(), self.reference["query_weights"], rtol=0, atol=NEAR)
        return made

    @cached_property
    def scores(self) -> Any:
        """(n,) of the reranker, for the query and each text."""
        made = Reranker(self.reranker).predict([(self.query, text) for text in self.texts])
        np.testing.assert_allclose(made, self.reference["scores"], rtol=0, atol=NEAR)
        return made

    @cached_property
    def order(self) -> list[int]:
        """Texts by falling score."""
        found: list[int] = np.argsort(-self.scores, kind="stable").tolist()
        return found


@pytest.fixture(scope="session")
def case() -> Iterator[Case]:
    yield Case(Path(os.environ["FASTEMBED_RT_CASE"]))


def same(found: Any, wanted: Any) -> None:
    """Numbers that are exactly float32's."""
    np.testing.assert_array_equal(np.asarray(found, dtype=np.float32), wanted)


def close(found: Any, wanted: Any) -> None:
    """The same vectors out of other batches: sums of floats in another order."""
    np.testing.assert_allclose(np.asarray(found, dtype=np.float32), wanted, rtol=0, atol=1e-6)


def run_page(name: str, case: Case, place: Path) -> dict[str, Any]:
    """The names that the Python of a page of docs/integrations leaves, run in a folder with the models it speaks of."""
    for model in ("dense", "splade", "reranker"):
        (place / f"my-{'model' if model == 'dense' else model}").symlink_to(Path(case.dense).with_name(f"{model}-onnx"))
    text = (PAGES / name).read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert blocks
    with contextlib.chdir(place):
        for block in blocks:
            exec(compile(block, name, "exec", dont_inherit=True), names)
    return names
