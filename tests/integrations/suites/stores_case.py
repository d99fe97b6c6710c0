"""The case with late interaction beside what conftest.py has; import `case` from here to have it."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import NEAR, Case, same

from fastembed_rt import LateInteractionModel

__all__ = ["StoresCase", "case", "same"]


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


@pytest.fixture(scope="session")
def case() -> StoresCase:
    return StoresCase(Path(os.environ["FASTEMBED_RT_CASE"]))
