"""What the helpers for tables share: a model called on a column without nulls, similarities of a matrix to a query."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import EmbeddingModel
from ..errors import InvalidInputError
from ..models.prompts import OF_ROLES, check_role, of_role
from ..vectors import quantized
from ..vectors.dense import Vectors
from .opening import open_model

ENCODE = ("prompt_name", "prompt", "truncate_dim", "normalize")  # what keeps a row a vector of float32


def encoder(
    model: str | os.PathLike[str] | EmbeddingModel,
    role: str | None,
    model_kwargs: Mapping[str, Any] | None,
    encode_kwargs: Mapping[str, Any],
) -> tuple[int, Callable[[Any], Vectors]]:
    """(dim, call): a function of texts (n,) that gives vectors (n, dim).

    Raises:
        InvalidInputError: an unknown role; an option that `encode` does not have or that is not for columns.
    """
    check_options(encode_kwargs)
    if role is not None:
        check_role(role)
    opened = open_model(EmbeddingModel, model, model_kwargs)
    options = dict(encode_kwargs)
    if role is not None:
        options = of_role(OF_ROLES[role], opened.prompts, options)
        opened = opened.for_role(role)
    dim = options.get("truncate_dim") or opened.dim
    return dim, lambda texts: opened.encode(texts, **options)


def check_options(encode_kwargs: Mapping[str, Any]) -> None:
    """Raise InvalidInputError for an option of `encode` that is not for columns."""
    wrong = sorted(encode_kwargs.keys() - set(ENCODE))
    if wrong:
        raise InvalidInputError(f"{', '.join(wrong)} is not for columns; there are {', '.join(ENCODE)}")


def similarities(query: npt.ArrayLike, model: EmbeddingModel | None) -> Callable[[Vectors], Vectors]:
    """A function of vectors (n, dim) that gives their similarities to the query, (n,)."""
    wanted = np.asarray(query, dtype=np.float32)
    if wanted.ndim != 1:
        raise InvalidInputError(f"the query has {wanted.ndim} dimensions; pass one vector")
    function = "cosine" if model is None else model.manifest.similarity
    return lambda vectors: quantized.similarity(function, vectors, wanted[None], "float32", None)[:, 0]
