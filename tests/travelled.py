"""What worker processes import to say how often they loaded a model that came to them."""

from __future__ import annotations

import os
from typing import Any

from fastembed_rt.hub import resolve
from fastembed_rt.models import starting

opened: list[str] = []


def _counting(module: Any, name: str) -> None:
    real = getattr(module, name)

    def call(*arguments: Any, **options: Any) -> Any:
        opened.append(name)
        return real(*arguments, **options)

    setattr(module, name, call)


_counting(starting, "open_session")
_counting(resolve, "resolve_model")


def encode(job: tuple[Any, list[str]]) -> tuple[int, list[str], Any]:
    """Vectors by this process, and all that it has opened so far."""
    model, texts = job
    vectors = model.encode(texts)
    return os.getpid(), list(opened), vectors
