"""Vectors written into an array that the caller brings."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError, InvalidTypeError

TEXTS = ["a dog in the garden", "a puppy", "", "the price of oil", "a dog in the garden"]
RANGES = np.array([[-1.0], [1.0]], np.float32)


def room(model: EmbeddingModel, rows: int | None, dtype: Any = np.float32) -> Any:
    return np.full((model.dim,) if rows is None else (rows, model.dim), 7, dtype)


def test_vectors_are_written_into_the_array_that_is_returned(model: EmbeddingModel) -> None:
    wanted = model.encode(TEXTS)
    whole = room(model, 9)
    out = whole[2:7]  # whole rows of a larger array
    assert model.encode(TEXTS, out=out) is out
    assert out.tobytes() == wanted.tobytes()
    assert (whole[[0, 1, 7, 8]] == 7).all()
    assert model.encode(tuple(TEXTS), out=out) is out
    nulls: Any = [*TEXTS[:4], None]
    found = model.encode(nulls, out=out, on_null="zero", return_tokens=True)
    assert found.vectors is out
    assert len(found.tokens) == 5
    assert not out[4].any()
    assert out[:4].tobytes() == wanted[:4].tobytes()


def test_one_text_has_a_vector_and_no_text_has_nothing(model: EmbeddingModel) -> None:
    out = room(model, None)
    assert model.encode(TEXTS[0], out=out) is out
    assert out.tobytes() == model.encode(TEXTS[0]).tobytes()
    nothing = room(model, 0)
    assert model.encode([], out=nothing) is nothing


def test_roles_asyncio_and_fewer_dimensions_take_it_too(model: EmbeddingModel) -> None:
    out = room(model, 5)
    assert model.encode_query(TEXTS, out=out) is out
    assert out.tobytes() == model.encode_query(TEXTS).tobytes()
    assert asyncio.run(model.aencode(TEXTS, out=out)) is out
    assert out.tobytes() == model.encode(TEXTS).tobytes()
    short = np.empty((5, 8), np.float32)
    assert model.encode(TEXTS, truncate_dim=8, out=short).tobytes() == model.encode(TEXTS, truncate_dim=8).tobytes()


@pytest.mark.parametrize("precision", ["float16", "int8", "ubinary"])
def test_vectors_as_they_are_stored_are_written_too(model: EmbeddingModel, precision: str) -> None:
    options: dict[str, Any] = {"precision": precision}
    if precision == "int8":
        options["ranges"] = RANGES.repeat(model.dim, axis=1)
    wanted = model.encode(TEXTS, **options)
    out = np.zeros_like(wanted)
    assert model.encode(tuple(TEXTS), out=out, **options) is out
    assert out.tobytes() == wanted.tobytes()
    one = np.zeros_like(wanted[0])
    assert model.encode(TEXTS[0], out=one, **options) is one
    assert one.tobytes() == wanted[0].tobytes()
    with pytest.raises(InvalidTypeError, match=f"out holds float64, and the vectors are {wanted.dtype}"):
        model.encode(TEXTS, out=out.astype(np.float64), **options)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda out: out.tolist(), InvalidTypeError, "out is list; pass a numpy array of shape"),
        (lambda out: out.astype(np.float64), InvalidTypeError, "out holds float64, and the vectors are float32"),
        (lambda out: out[:4], InvalidInputError, r"out has shape \(4, .*, and the vectors have \(5, "),
        (lambda out: out[:, :8], InvalidInputError, r"out has shape \(5, 8\)"),
        (np.asfortranarray, InvalidInputError, "out is not contiguous"),
        (lambda out: out.repeat(2, axis=0)[::2], InvalidInputError, "out is not contiguous"),
        (lambda out: np.broadcast_to(out.copy()[:5], out.shape), InvalidInputError, "out is read-only"),
    ],
)
def test_what_the_vectors_do_not_fit_is_refused(model: EmbeddingModel, change: Any, error: Any, message: str) -> None:
    out = room(model, 5)
    before = model.stats.texts
    with pytest.raises(error, match=message):
        model.encode(TEXTS, out=change(out))
    assert model.stats.texts == before  # before the work begins
    assert (out == 7).all()


def test_vectors_of_tokens_have_no_such_array(model: EmbeddingModel) -> None:
    with pytest.raises(InvalidInputError, match="out is for vectors of texts"):
        model.encode(TEXTS, output="tokens", out=room(model, 5))
