"""Options that would have been passed over in silence: what is no bool, has no effect, or is misspelt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from task_models import save_all

from fastembed_rt import EmbeddingModel, LateInteractionModel, Reranker, SparseModel
from fastembed_rt.errors import InvalidInputError, InvalidTypeError
from fastembed_rt.vectors.quantized import similarity

RANGES = np.array([[-1.0] * 24, [1.0] * 24], np.float32)
NO_BOOLS = ["false", 0, 1, "no", "", 0.0, []]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    kinds = {"dense": EmbeddingModel, "splade": SparseModel, "colbert": LateInteractionModel, "labels": Reranker}
    found = save_all(tmp_path_factory.mktemp("refused"))
    made: dict[str, Any] = {name: kind(found[name].directory, threads=1) for name, kind in kinds.items()}
    yield made
    for model in made.values():
        model.close()


@pytest.mark.parametrize("value", NO_BOOLS, ids=repr)
def test_what_is_no_bool_is_not_taken_for_one(value: Any, models: dict[str, Any]) -> None:
    dense = models["dense"]
    calls: list[tuple[str, Any]] = [
        ("normalize", lambda **o: dense.encode("a dog", **o)),
        ("normalize", lambda **o: dense.encode_query(["a dog"], **o)),
        ("normalize", lambda **o: list(dense.embed(["a dog"], **o))),
        ("normalize", dense.fingerprint),
        ("normalize", dense.prepare),
        ("normalize", lambda **o: dense.encode_spans("a dog", [(0, 1)], **o)),
        ("show_progress_bar", lambda **o: dense.encode_spans("a dog", [(0, 1)], **o)),
        ("apply_softmax", lambda **o: models["labels"].predict(("a", "b"), **o)),
    ]
    encoders = [
        dense.encode,
        models["splade"].encode,
        models["colbert"].encode_query,
        models["colbert"].encode_document,
    ]
    calls += [
        (name, lambda encode=encode, **o: encode(["a dog"], **o))
        for encode in encoders
        for name in ("show_progress_bar", "return_tokens")
    ]
    calls += [
        (name, lambda **o: models["labels"].predict([("a", "b")], **o))
        for name in ("show_progress_bar", "return_tokens")
    ]
    calls += [
        (name, lambda **o: EmbeddingModel("nowhere/at-all", **o)) for name in ("check_hashes", "local_files_only")
    ]
    for name, call in calls:
        with pytest.raises(InvalidTypeError, match=f"{name} is {type(value).__name__}, expected bool"):
            call(**{name: value})


def test_bools_of_numpy_are_bools(models: dict[str, Any]) -> None:
    dense = models["dense"]
    wanted = dense.encode(["a dog"], normalize=True)
    np.testing.assert_array_equal(dense.encode(["a dog"], normalize=np.True_), wanted)
    for value in (False, np.False_):
        assert dense.prepare(normalize=value) is not None  # by the graph before it normalizes
    assert dense.encode(["a dog"], return_tokens=np.True_).tokens.shape == (1,)
    shares = models["labels"].predict(("a", "b"), apply_softmax=np.True_)
    assert abs(shares.sum() - 1) < 1e-6


@pytest.mark.parametrize("precision", ["float32", "float16", "binary", "ubinary"])
def test_ranges_of_a_precision_without_them(precision: str, model: EmbeddingModel) -> None:
    for name in ("ranges", "calibration_embeddings"):
        options: dict[str, Any] = {"precision": precision, name: RANGES}
        for call in (
            lambda given=options: model.encode(["a dog"], **given),
            lambda given=options: list(model.embed(["a dog"], **given)),
            lambda given=options: model.fingerprint(**given),
        ):
            with pytest.raises(
                InvalidInputError, match=f"{name} is for int8 and uint8, and precision is '{precision}'"
            ):
                call()
    with pytest.raises(InvalidInputError, match="ranges is for int8 and uint8"):
        similarity("cosine", RANGES, RANGES, precision, RANGES)


def test_ranges_and_vectors_to_take_them_from(model: EmbeddingModel) -> None:
    both: dict[str, Any] = {"precision": "int8", "ranges": RANGES, "calibration_embeddings": RANGES}
    for call in (model.encode, lambda texts, **o: list(model.embed(texts, **o))):
        with pytest.raises(InvalidInputError, match="ranges and calibration_embeddings are both given"):
            call(["a dog"], **both)
    assert model.encode(["a dog"], precision="int8", ranges=RANGES).dtype == np.int8


def test_sentence_transformers_function_passes_over_what_theirs_does() -> None:
    from sentence_transformers.util import quantize_embeddings as theirs

    from fastembed_rt.compat.sentence_transformers import quantize_embeddings as ours

    vectors = np.random.default_rng(0).standard_normal((4, 24)).astype(np.float32)
    for precision in ("float32", "binary", "ubinary", "int8", "uint8"):
        given: dict[str, Any] = {"ranges": RANGES, "calibration_embeddings": vectors}
        np.testing.assert_array_equal(ours(vectors, precision, **given), theirs(vectors, precision=precision, **given))


def test_a_route_where_there_is_one_encoder(model: EmbeddingModel, models: dict[str, Any]) -> None:
    for kind, place in ((EmbeddingModel, model.path), (SparseModel, models["splade"].path)):
        with pytest.raises(InvalidInputError, match="route 'query' is for models with an encoder for each role"):
            kind(place, route="query")


def test_an_attribute_that_is_no_setting(models: dict[str, Any]) -> None:
    wanted = {
        "dense": "default_prompt_name, max_length, max_seq_length, prompts, truncate_dim",
        "splade": "default_prompt_name, max_active_dims, max_length, prompts",
        "colbert": "default_prompt_name, document_length, prompts, query_length",
        "labels": "default_prompt_name, max_length, prompts",
    }
    for name, known in wanted.items():
        model = models[name]
        for wrong in ("max_len", "normalise"):
            with pytest.raises(AttributeError, match=f"has no setting '{wrong}'; what can be assigned: {known}[.]"):
                setattr(model, wrong, 4)
            assert not hasattr(model, wrong)
    models["dense"].max_length = 8
    models["dense"]._own_business = 1
    del models["dense"]._own_business


class Mine(EmbeddingModel):
    """A user's, with an attribute of its own."""

    def __init__(self, path: Any) -> None:
        super().__init__(path, threads=1)
        self.note = "mine"


def test_a_users_class_has_what_attributes_it_likes(model: EmbeddingModel) -> None:
    with Mine(model.path) as made:
        made.other = 3
        assert vars(made)["other"] == 3
        assert made.note == "mine"


@pytest.mark.parametrize("kind", ["dense", "splade", "colbert"])
@pytest.mark.parametrize("role", ["passage", "", "Query"])
def test_a_role_nobody_knows_is_refused_by_name(kind: str, role: str, models: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=f"role '{role}' is not known; known: query, document"):
        models[kind].prepare(role=role)


def test_a_fingerprint_of_an_unknown_role_is_refused(models: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="role 'passage' is not known"):
        models["dense"].fingerprint(role="passage")
