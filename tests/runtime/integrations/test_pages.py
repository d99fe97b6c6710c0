"""The pages of scikit-learn, pandas and polars run as written; those of other frameworks run in tests/integrations."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastembed_rt import EmbeddingModel

PAGES = Path(__file__).parents[3] / "docs" / "integrations"


def run_page(name: str, place: Path) -> dict[str, Any]:
    blocks = re.findall(r"^```python\n(.*?)^```$", (PAGES / name).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    with contextlib.chdir(place):
        for block in blocks:
            exec(compile(block, name, "exec", dont_inherit=True), names)
    return names


@pytest.fixture
def place(model_dir: Path, tmp_path: Path) -> Path:
    (tmp_path / "my-model").symlink_to(model_dir)
    return tmp_path


def test_tables(place: Path, model: EmbeddingModel) -> None:
    names = run_page("pandas-polars.md", place)
    vectors = model.encode_document(["a dog runs", "the house is red"])
    scores = model.similarity(vectors, model.encode_query("which dog runs?")[None])[:, 0]
    np.testing.assert_array_equal(names["frame"]["vector"].drop_nulls().to_numpy(), vectors)
    np.testing.assert_allclose(names["best"]["score"].to_numpy(), [scores.max()], atol=1e-6)
    np.testing.assert_allclose(names["table"]["score"].dropna(), scores, atol=1e-6)


def test_scikit_learn(place: Path) -> None:
    pytest.importorskip("sklearn")
    names = run_page("scikit-learn.md", place)
    assert names["classifier"].predict(["a dog runs"]).tolist() == ["animal"]
