"""Normalization, similarities and means of chunks beside torch, sentence-transformers and numpy in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import util

from fastembed_rt.errors import InvalidInputError
from fastembed_rt.vectors.dense import chunk_means, normalized, similarity

REFERENCES = {
    "cosine": util.cos_sim,
    "dot": util.dot_score,
    "euclidean": util.euclidean_sim,
    "manhattan": util.manhattan_sim,
}
functions = pytest.mark.parametrize("function", list(REFERENCES))


def random_vectors(rows: int, dim: int = 24, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


@functions
def test_a_similarity_is_that_of_sentence_transformers(function: str) -> None:
    left, right = random_vectors(7), random_vectors(5, seed=1)
    ours = similarity(function, left, right)
    np.testing.assert_allclose(ours, REFERENCES[function](left, right).numpy(), rtol=1e-5, atol=1e-5)
    assert ours.dtype == np.float32


@functions
@pytest.mark.parametrize("shapes", [((24,), (24,)), ((24,), (3, 24)), ((3, 24), (24,)), ((1, 24), (1, 24))])
def test_single_vectors_count_as_one_row(function: str, shapes: tuple[tuple[int, ...], tuple[int, ...]]) -> None:
    left, right = (random_vectors(8, seed=2)[: shape[0] if len(shape) == 2 else 1].reshape(shape) for shape in shapes)
    wanted = REFERENCES[function](torch.tensor(left), torch.tensor(right)).numpy()
    np.testing.assert_allclose(similarity(function, left, right), wanted, rtol=1e-5, atol=1e-5)


@functions
def test_a_zero_vector_has_a_similarity_and_no_nan(function: str) -> None:
    left = np.vstack([np.zeros(24, np.float32), random_vectors(1)[0]])
    wanted = REFERENCES[function](left, left).numpy()
    assert np.isfinite(wanted).all()
    np.testing.assert_allclose(similarity(function, left, left), wanted, atol=1e-5)


@functions
def test_nothing_compared_with_something_is_empty(function: str) -> None:
    assert similarity(function, random_vectors(0), random_vectors(3)).shape == (0, 3)
    assert similarity(function, random_vectors(3), random_vectors(0)).shape == (3, 0)


@pytest.mark.parametrize("function", ["cosine", "dot", "euclidean", "manhattan"])
@pytest.mark.parametrize("dim", [7, 32, 384, 768])
@pytest.mark.parametrize("count", [2, 3, 5, 50, 257])
def test_beside_one_vector_equal_ones_are_equally_similar(function: str, dim: int, count: int) -> None:
    made = np.random.default_rng(count * dim)
    for _ in range(10):
        one, other = made.standard_normal((2, dim)).astype(np.float32)
        alone = similarity(function, one, other)[0, 0]
        many = np.repeat(other[None], count, axis=0)
        assert set(similarity(function, one, many)[0].tolist()) == {float(alone)}
        assert set(similarity(function, many, one)[:, 0].tolist()) == {float(alone)}


@functions
@pytest.mark.parametrize("kind", [list, np.float64, np.float16, torch.tensor], ids=lambda kind: kind.__name__)
def test_lists_and_other_kinds_of_numbers_are_taken(function: str, kind: Any) -> None:
    left, right = (side.astype(np.float16).astype(np.float32) for side in (random_vectors(2), random_vectors(3)))
    if kind is list:
        given_left, given_right = left.tolist(), right.tolist()
    elif kind is torch.tensor:
        given_left, given_right = torch.tensor(left), torch.tensor(right)
    else:
        given_left, given_right = left.astype(kind), right.astype(kind)
    wanted = REFERENCES[function](left, right).numpy()
    np.testing.assert_allclose(similarity(function, given_left, given_right), wanted, rtol=1e-5, atol=1e-5)


def test_the_distance_of_near_vectors_keeps_its_digits() -> None:
    left = random_vectors(4) * 100
    right = np.nextafter(left, np.float32(np.inf))
    wanted = -np.linalg.norm(left.astype(np.float64) - right.astype(np.float64), axis=1)
    np.testing.assert_allclose(np.diag(similarity("euclidean", left, right)), wanted, rtol=1e-5)


@pytest.mark.parametrize(("left", "right"), [((2, 3), (2, 4)), ((2, 2, 3), (2, 3)), ((3,), (4,))])
def test_vectors_that_do_not_fit_are_refused_with_their_shapes(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match="do not fit") as caught:
        similarity("cosine", np.ones(left), np.ones(right))
    assert str(left[-1]) in str(caught.value)
    assert str(right[-1]) in str(caught.value)


def test_an_unknown_similarity_names_the_known_ones() -> None:
    with pytest.raises(InvalidInputError, match=r"'jaccard'.*cosine, dot, euclidean, manhattan"):
        similarity("jaccard", random_vectors(1), random_vectors(1))


@pytest.mark.parametrize("scale", [1e-30, 1e-8, 1.0, 1e8])
def test_normalized_rows_are_those_of_torch(scale: float) -> None:
    rows = np.vstack([random_vectors(5) * np.float32(scale), np.zeros((1, 24), np.float32)])
    wanted = torch.nn.functional.normalize(torch.tensor(rows)).numpy()
    ours = normalized(rows)
    np.testing.assert_allclose(ours, wanted, rtol=1e-5, atol=1e-7)
    assert ours.dtype == np.float32
    assert not ours[-1].any()


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.booleans())
def test_chunks_become_the_mean_of_their_text(counts: list[int], again: bool) -> None:
    rows = random_vectors(sum(counts))
    owner = np.repeat(np.arange(len(counts)), counts)
    ours = chunk_means(rows, owner, len(counts), again=again)
    assert ours.shape == (len(counts), 24)
    for text, count in enumerate(counts):
        own = rows[owner == text].astype(np.float64)
        wanted = own.mean(axis=0)
        if again and count > 1:
            wanted = wanted / np.linalg.norm(wanted)
        np.testing.assert_allclose(ours[text], wanted, rtol=1e-5, atol=1e-6)
        if count == 1:
            assert ours[text].tobytes() == rows[owner == text][0].tobytes()


def test_no_texts_have_no_means() -> None:
    assert chunk_means(random_vectors(0), np.zeros(0, np.int64), 0, again=True).shape == (0, 24)
