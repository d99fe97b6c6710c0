"""A SentenceTransformer of fastembed_rt.compat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from fastembed_rt.compat import sentence_transformers as compat


@pytest.fixture(scope="module")
def ours(pair: Any) -> Iterator[Any]:
    model = compat.SentenceTransformer(str(pair.directory))
    yield model
    model.close()
