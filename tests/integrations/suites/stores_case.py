"""The case with late interaction beside what conftest.py has; import `case` from here to have it."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import NEAR, Case, same

from fastembed_rt import LateInteractionModel

__all__ = ["StoresCase", "case", "run_page", "same"]
PAGES = Path(__file__).parents[3] / "docs" / "integrations"


class StoresCase(Case):
    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.late = str(folder / "colbert-onnx")
        self.late_reference = np.load(folder / "late.npz")["scores"]

    @cached_property
    def late_model(self) -> LateInteractionModel:
        return LateInteractionModel(self.late)

    @cached_property
    def late_documents(self) -> Any:
        """(tokens, dim) of each text."""
        return self.late_model.encode_document(self.texts)

    @cached_property
    def late_scores(self) -> Any:
        """(n,) MaxSim of the query and each text, near the reference's."""
        made = self.late_model.similarity(self.late_model.encode_query(self.query), self.late_documents)[0]
        np.testing.assert_allclose(made, self.late_reference, rtol=0, atol=10 * NEAR)
        return made


def run_page(name: str, case: StoresCase, place: Path, change: Callable[[str], str] = str) -> dict[str, Any]:
    """Run the Python of a page of docs/integrations from its top to its end, in a folder with the models it names."""
    for model, directory in {
        "my-model": case.dense,
        "my-splade": case.sparse,
        "my-reranker": case.reranker,
        "my-colbert": case.late,
    }.items():
        (place / model).symlink_to(directory)
    text = (PAGES / name).read_text(encoding="utf-8")
    names: dict[str, Any] = {}
    blocks = re.findall(r"^```python\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    assert blocks
    with contextlib.chdir(place):
        for block in blocks:
            exec(compile(change(block), name, "exec", dont_inherit=True), names)
    return names


@pytest.fixture(scope="session")
def case() -> StoresCase:
    return StoresCase(Path(os.environ["FASTEMBED_RT_CASE"]))
