"""The pages of scikit-learn, pandas and polars run as written; those of other frameworks run in tests/integrations."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastembed_rt import EmbeddingModel

ROOT = Path(__file__).parents[3]
PAGES = ROOT / "docs" / "integrations"
PARTS = ("Prompts", "Asynchronous", "Persistence", "Batch sizes", "Tested")


def run_page(name: str, place: Path) -> dict[str, Any]:
    blocks = re.findall(r"^```python\n(.*?)^```$", (PAGES / name).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    with contextlib.chdir(place):
        for block in blocks:
            exec(compile(block, name, "exec", dont_inherit=True), names)
    return names


@pytest.mark.parametrize("page", sorted(PAGES.glob("*.md")), ids=lambda page: page.stem)
def test_a_page_has_all_that_a_reader_looks_for(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert re.search(r"^```sh\npip install '", text, re.MULTILINE)
    assert re.search(r"^```(python|py)\n", text, re.MULTILINE)
    assert [part for part in PARTS if f"**{part}" not in text] == []


@pytest.mark.parametrize("page", [*sorted(PAGES.glob("*.md")), ROOT / "docs" / "mcp.md"], ids=lambda page: page.stem)
def test_a_page_names_the_versions_that_its_suite_runs_with(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    recipes = re.findall(r"^\$\(INTEGRATIONS\)/\.\w+: Makefile\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    pinned = dict(re.findall(r"([a-z-]+)==([\d.]+)", "".join(recipes)))
    assert len(recipes) == 2 and len(pinned) > 10
    (tested,) = re.findall(
        r"^\*\*Tested\*\*(.*?)(?:\n\n|\Z)", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )
    found = re.findall(r"\b([a-z][a-z-]+) (\d+(?:\.\d+)+)", tested)
    named = dict(reversed(found))  # of a name the first: what follows is about others
    assert named
    assert {name: version for name, version in named.items() if pinned.get(name, version) != version} == {}


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
