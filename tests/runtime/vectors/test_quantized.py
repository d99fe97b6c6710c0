"""Stored forms of vectors beside sentence-transformers' quantize_embeddings, their similarities, and fingerprints."""

from __future__ import annotations

import asyncio
import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy
from sentence_transformers import util
from sentence_transformers.util.quantization import _dequantize_embeddings
from tolerances import close

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError, InvalidTypeError
from fastembed_rt.vectors.fingerprint import fingerprint
from fastembed_rt.vectors.quantized import BITS, RangesWarning, form, quantize_embeddings, restored, similarity

QUANTIZED = ["int8", "uint8", "binary", "ubinary"]
SCALAR = ["int8", "uint8"]
PACKED = ["binary", "ubinary"]
TEXTS = [f"the {a} {b}" for a in "cat dog house river old new red blue".split() for b in "runs sleeps . !".split()]
Array = npt.NDArray[Any]

matrices = st.tuples(st.integers(2, 9), st.integers(1, 19)).flatmap(
    lambda shape: st_numpy.arrays(
        st.sampled_from([np.float32, np.float64]), shape, elements=st.floats(-4, 4, width=32, allow_subnormal=False)
    )
)


def random_vectors(rows: int, dim: int = 24, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)


def ranges_of(vectors: Array) -> npt.NDArray[np.float32]:
    return np.vstack([vectors.min(axis=0), vectors.max(axis=0)]).astype(np.float32)


def same(ours: Array, theirs: Any) -> None:
    assert ours.dtype == theirs.dtype
    assert ours.shape == theirs.shape
    np.testing.assert_array_equal(ours, theirs)


# --- the forms -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("precision", QUANTIZED)
def test_a_number_that_is_not_finite_has_no_code(precision: str, odd: float) -> None:
    vectors = random_vectors(3)
    ranges = ranges_of(vectors) if precision in SCALAR else None
    vectors[1, 5] = odd
    for given_vectors in (vectors, vectors[1]):
        with pytest.raises(InvalidInputError, match=f"a vector is not finite, and {precision} has no code"):
            quantize_embeddings(given_vectors, precision, ranges)
    for kept in ("float32", "float16"):  # which say so themselves
        np.testing.assert_array_equal(quantize_embeddings(vectors, kept)[1, 5], np.float32(odd))


@pytest.mark.filterwarnings("ignore::fastembed_rt.vectors.quantized.RangesWarning")
@pytest.mark.parametrize("precision", ["float32", *QUANTIZED])
@given(vectors=matrices)
def test_a_form_is_that_of_sentence_transformers_to_the_bit(precision: str, vectors: Array) -> None:
    other = np.concatenate([vectors[:1] * np.float32(0.5), vectors[1:] * np.float32(0.9)])
    same(quantize_embeddings(vectors, precision), util.quantize_embeddings(vectors, precision))
    given: Any
    for given in ({"ranges": ranges_of(other)}, {"calibration_embeddings": other}):
        same(quantize_embeddings(vectors, precision, **given), util.quantize_embeddings(vectors, precision, **given))


@pytest.mark.parametrize("precision", QUANTIZED)
def test_many_real_sized_vectors_are_those_of_sentence_transformers(precision: str) -> None:
    vectors = random_vectors(500, 384) / 20
    ranges = ranges_of(random_vectors(200, 384, seed=1) / 20)
    ranges[:, 7] = 0.01  # a dimension that never changes
    same(quantize_embeddings(vectors, precision, ranges), util.quantize_embeddings(vectors, precision, ranges))
    wide = ranges.astype(np.float64)
    same(quantize_embeddings(vectors, precision, wide), util.quantize_embeddings(vectors, precision, wide))


@pytest.mark.parametrize("precision", ["float32", *QUANTIZED])
def test_no_vectors_keep_their_width(precision: str) -> None:
    none = np.empty((0, 13), np.float32)
    same(quantize_embeddings(none, precision), util.quantize_embeddings(none, precision))


def test_float16_rounds_as_numpy_does_and_refuses_what_it_cannot_hold() -> None:
    vectors = random_vectors(5)
    same(quantize_embeddings(vectors, "float16"), vectors.astype(np.float16))
    with pytest.raises(InvalidInputError, match="70000 does not fit float16"):
        quantize_embeddings(np.array([1.0, 70000.0], np.float32), "float16")


@pytest.mark.parametrize("precision", SCALAR)
def test_ranges_from_the_vectors_themselves_are_warned_of(precision: str) -> None:
    with pytest.warns(RangesWarning, match=f"{precision} ranges come from these 4 vectors") as caught:
        quantize_embeddings(random_vectors(4), precision)
    assert caught[0].filename == __file__


@pytest.mark.parametrize("precision", SCALAR)
@pytest.mark.parametrize("shape", [(24,), (1, 24)])
def test_a_single_vector_has_no_ranges(precision: str, shape: tuple[int, ...]) -> None:
    vector = random_vectors(1).reshape(shape)
    with pytest.raises(ValueError, match="single embedding"):
        util.quantize_embeddings(vector, precision)
    with pytest.raises(InvalidInputError, match=f"{precision} needs ranges and a single vector has none"):
        quantize_embeddings(vector, precision)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int4"}, "'int4' of vectors is not known; known: float32, float16, int8"),
        ({"precision": "fp32"}, "the precision of the graph is chosen when the model loads"),
        ({"precision": "int8", "ranges": np.zeros((2, 5))}, r"ranges are of shape \(2, 5\); expected \(2, 24\)"),
        ({"precision": "int8", "ranges": np.zeros((3, 24))}, r"ranges are of shape \(3, 24\)"),
        ({"precision": "int8", "ranges": np.zeros(24)}, r"ranges are of shape \(24,\)"),
        ({"precision": "int8", "ranges": [[1.0] * 24, [0.0] * 24]}, "a least number above its greatest"),
        ({"precision": "int8", "ranges": np.full((2, 24), np.nan)}, "not finite"),
        ({"precision": "int8", "ranges": "wide"}, "ranges are not numbers"),
        ({"precision": "uint8", "calibration_embeddings": np.zeros((0, 24))}, r"\(0, 24\); expected \(n, 24\)"),
        ({"precision": "uint8", "calibration_embeddings": np.zeros((9, 23))}, r"\(9, 23\); expected \(n, 24\)"),
    ],
)
def test_what_cannot_be_a_form_is_refused(model: EmbeddingModel, options: dict[str, Any], message: str) -> None:
    vectors = random_vectors(3)
    for call in (
        lambda: quantize_embeddings(vectors, **options),
        lambda: model.encode(["a", "b"], **options),
        lambda: model.embed(["a", "b"], **options),
        lambda: model.fingerprint(**options),
    ):
        with pytest.raises(InvalidInputError, match=message):
            call()


def test_only_floats_are_quantized() -> None:
    with pytest.raises(InvalidTypeError, match="embeddings are int8"):
        quantize_embeddings(np.zeros((2, 3), np.int8), "binary")


# --- what a model returns --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["float16", *QUANTIZED])
@pytest.mark.parametrize("dim", [None, 24, 13])
def test_every_way_to_encode_gives_the_form(model: EmbeddingModel, precision: str, dim: int | None) -> None:
    plain = model.encode(TEXTS, truncate_dim=dim)
    ranges = ranges_of(plain)
    wanted = (
        plain.astype(np.float16)
        if precision == "float16"
        else util.quantize_embeddings(plain, precision, ranges=ranges)
    )
    plain_options: dict[str, Any] = {"truncate_dim": dim, "precision": precision}
    ranged = precision in SCALAR  # others take neither
    options = {**plain_options, **({"ranges": ranges} if ranged else {})}
    same(model.encode(TEXTS, **options), wanted)
    from_vectors: dict[str, Any] = {"calibration_embeddings": plain} if ranged else {}
    same(model.encode(tuple(TEXTS), **plain_options, **from_vectors), wanted)
    same(np.stack(list(model.embed(iter(TEXTS), **options))), wanted)
    same(asyncio.run(model.aencode(TEXTS, **options)), wanted)
    same(model.encode(TEXTS[3], **options), wanted[3])
    assert model.encode([], **options).shape == (0, wanted.shape[1])
    query = model.encode_query(TEXTS, truncate_dim=dim)
    same(model.encode_query(TEXTS, **options), quantize_embeddings(query, precision, ranges))
    document = model.encode_document(TEXTS, truncate_dim=dim)
    same(model.encode_document(TEXTS, **options), quantize_embeddings(document, precision, ranges))


@pytest.mark.parametrize("precision", QUANTIZED)
def test_without_ranges_a_model_does_as_sentence_transformers(model: EmbeddingModel, precision: str) -> None:
    plain = model.encode(TEXTS)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        same(model.encode(TEXTS, precision=precision), util.quantize_embeddings(plain, precision))
    assert [entry.category for entry in caught] == ([RangesWarning] if precision in SCALAR else [])
    assert all(entry.filename == __file__ for entry in caught)


@pytest.mark.parametrize("precision", PACKED)
def test_bits_are_those_that_sentence_transformers_encodes(pair: Any, model: EmbeddingModel, precision: str) -> None:
    wanted = pair.reference.encode(TEXTS, precision=precision)
    assert np.abs(pair.reference.encode(TEXTS)).min() > 1e-6  # no number so near 0 that its sign could differ
    same(model.encode(TEXTS, precision=precision), wanted)


@pytest.mark.parametrize("precision", SCALAR)
def test_a_stream_and_a_single_text_need_ranges(model: EmbeddingModel, precision: str) -> None:
    with pytest.raises(InvalidInputError, match=f"embed as {precision} needs ranges= or calibration_embeddings="):
        model.embed(TEXTS, precision=precision)
    with pytest.raises(InvalidInputError, match="a single vector has none"):
        model.encode("the cat", precision=precision)


# --- cut vectors -----------------------------------------------------------------------------------------------------


def test_cut_vectors_are_those_of_sentence_transformers_told_to_normalize(pair: Any, model: EmbeddingModel) -> None:
    cut = pair.reference.encode(TEXTS, truncate_dim=9)
    again = pair.reference.encode(TEXTS, truncate_dim=9, normalize_embeddings=True)
    close(model.encode(TEXTS, truncate_dim=9), again)
    assert np.linalg.norm(cut, axis=1).max() < 0.99  # what it gives when it is not told


# --- similarity ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", PACKED)
@pytest.mark.parametrize("dim", [8, 24, 13])
def test_similarity_of_bits_counts_the_signs_that_differ(model: EmbeddingModel, precision: str, dim: int) -> None:
    left, right = random_vectors(5, dim), random_vectors(7, dim, seed=1)
    wanted = -((left > 0)[:, None, :] != (right > 0)[None, :, :]).sum(axis=2)
    a, b = (quantize_embeddings(side, precision) for side in (left, right))
    found = model.similarity(a, b, precision=precision)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(model.similarity(a[0], b, precision=precision), wanted[:1])


def test_the_table_of_bits_counts_as_numpy_2_does() -> None:
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(BITS[values], np.unpackbits(values[:, None], axis=1).sum(axis=1))


@pytest.mark.parametrize("precision", SCALAR)
def test_similarity_of_bytes_is_that_of_the_restored_vectors(precision: str) -> None:
    left, right = random_vectors(5), random_vectors(7, seed=1)
    ranges = ranges_of(np.concatenate([left, right]))
    a, b = (util.quantize_embeddings(side, precision, ranges=ranges) for side in (left, right))
    back_a, back_b = (_dequantize_embeddings(side, precision, ranges) for side in (a, b))
    close(restored(a, precision, ranges), back_a)
    for function, reference in (("cosine", util.cos_sim), ("dot", util.dot_score), ("euclidean", util.euclidean_sim)):
        wanted = reference(back_a, back_b).numpy()
        np.testing.assert_allclose(similarity(function, a, b, precision, ranges), wanted, rtol=0, atol=1e-4)
        mixed = reference(left.astype(np.float64), back_b).numpy()
        np.testing.assert_allclose(similarity(function, left, b, precision, ranges), mixed, rtol=0, atol=1e-4)


def test_half_floats_have_the_similarity_of_floats(model: EmbeddingModel) -> None:
    vectors = model.encode(TEXTS)
    half = model.encode(TEXTS, precision="float16")
    np.testing.assert_allclose(model.similarity(half, half), util.cos_sim(vectors, vectors).numpy(), rtol=0, atol=1e-3)


@pytest.mark.parametrize(
    ("left", "right", "options", "message"),
    [
        (np.int8, np.int8, {}, "arrays of int8 or uint8: say what they hold"),
        (np.float32, np.uint8, {}, "arrays of int8 or uint8: say what they hold"),
        (np.int8, np.int8, {"precision": "int8"}, "similarity of int8 vectors needs the ranges"),
        (np.int8, np.int8, {"precision": "ubinary"}, "ubinary vectors are uint8, these are int8"),
        (np.float32, np.uint8, {"precision": "ubinary"}, "ubinary vectors are uint8, these are float32"),
        (np.uint8, np.uint8, {"precision": "int8", "ranges": np.zeros((2, 3))}, "int8 vectors are int8"),
        (np.int8, np.int8, {"precision": "int8", "ranges": np.zeros((2, 4))}, "ranges are of shape"),
        (np.int8, np.int8, {"precision": "bits"}, "'bits' of vectors is not known"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    model: EmbeddingModel, left: Any, right: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        model.similarity(np.zeros((2, 3), left), np.zeros((2, 3), right), **options)


def test_bits_of_other_lengths_do_not_fit(model: EmbeddingModel) -> None:
    with pytest.raises(InvalidInputError, match=r"\(2, 3\) and \(2, 4\) do not fit"):
        model.similarity(np.zeros((2, 3), np.uint8), np.zeros((2, 4), np.uint8), precision="ubinary")


# --- fingerprints ----------------------------------------------------------------------------------------------------


def test_a_fingerprint_names_what_decides_a_vector(model: EmbeddingModel) -> None:
    ranges = ranges_of(random_vectors(9))
    model_hash, *rest = model.fingerprint().split("-")
    assert rest == [f"{model.target}.fp32", "noprompt", "len16", "dim24", "unit", "float32"]
    assert len(model_hash) == 12
    seen = {
        model.fingerprint(**options)
        for options in (
            {},
            {"prompt_name": "query"},
            {"prompt": "other"},
            {"truncate_dim": 8},
            {"precision": "float16"},
            {"precision": "ubinary"},
            {"precision": "binary"},
            {"precision": "int8", "ranges": ranges},
            {"precision": "uint8", "ranges": ranges},
            {"precision": "int8", "ranges": ranges * 2},
        )
    }
    assert len(seen) == 10


def test_a_fingerprint_of_a_role_names_its_prompt(model: EmbeddingModel, model_dir: Any) -> None:
    for role in ("query", "document"):
        assert model.fingerprint(role=role) == model.fingerprint(prompt_name=role) != model.fingerprint()
        assert model.fingerprint(role=role, prompt="") == model.fingerprint()
        short = model.fingerprint(role=role, truncate_dim=8, precision="ubinary")
        assert short == model.fingerprint(prompt_name=role, truncate_dim=8, precision="ubinary")
    made = [EmbeddingModel(model_dir, prompts={"document": text}).fingerprint(role="document") for text in ("A", "B")]
    assert made[0] != made[1]
    with pytest.raises(InvalidInputError, match="role 'passage' is not known; known: query, document"):
        model.fingerprint(role="passage")


def test_what_gives_the_same_vectors_has_the_same_fingerprint(model: EmbeddingModel, model_dir: Any) -> None:
    vectors = random_vectors(9)
    assert model.fingerprint(prompt_name="query") == model.fingerprint(prompt="query : ")
    assert model.fingerprint(normalize=True, truncate_dim=24) == model.fingerprint(prompt="")
    calibrated = model.fingerprint(precision="int8", calibration_embeddings=vectors)
    assert calibrated == model.fingerprint(precision="int8", ranges=ranges_of(vectors))
    with EmbeddingModel(model_dir, threads=1, truncation="warn", max_batch_tokens=64) as again:
        assert again.fingerprint() == model.fingerprint()


@pytest.mark.parametrize(
    "options", [{"target": "portable"}, {"max_length": 12}, {"truncation": "chunk"}, {"default_prompt_name": "query"}]
)
def test_a_model_loaded_otherwise_has_another_fingerprint(
    model: EmbeddingModel, model_dir: Any, options: dict[str, Any]
) -> None:
    with EmbeddingModel(model_dir, threads=1, **options) as other:
        assert other.fingerprint() != model.fingerprint()


def test_other_weights_and_another_tokenizer_have_another_fingerprint(
    model: EmbeddingModel, export_pair: Callable[..., Any]
) -> None:
    other = export_pair(prompts={"query": "query : ", "document": "passage : "}, max_seq_length=16, seed=5)
    with EmbeddingModel(other.directory, threads=1) as loaded:
        assert loaded.fingerprint().split("-")[1:] == model.fingerprint().split("-")[1:]
        assert loaded.fingerprint() != model.fingerprint()
    record = dataclasses.replace(model.manifest.tokenizer, sha256="0" * 64)
    described = dataclasses.replace(model.manifest, tokenizer=record)
    options: dict[str, Any] = {"prompt": "", "normalize": True, "max_length": 16, "chunked": False}
    assert fingerprint(model.manifest, model.variant, form("float32", 24), **options) == model.fingerprint()
    assert fingerprint(described, model.variant, form("float32", 24), **options) != model.fingerprint()
    left = dataclasses.replace(model.manifest, truncation_side="left")  # which the manifest alone says
    assert "-len16left-" in fingerprint(left, model.variant, form("float32", 24), **options)


def test_a_model_that_does_not_normalize_says_raw(export_pair: Callable[..., Any]) -> None:
    with EmbeddingModel(export_pair(normalize=False).directory, threads=1) as model:
        assert "-raw-" in model.fingerprint()
        assert "-unit-" in model.fingerprint(normalize=True)


def test_vectors_with_ranges_of_their_own_have_no_fingerprint(model: EmbeddingModel) -> None:
    with pytest.raises(InvalidInputError, match="int8 vectors have no fingerprint without ranges"):
        model.fingerprint(precision="int8")
