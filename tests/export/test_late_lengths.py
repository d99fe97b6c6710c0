"""Late interaction: limits of queries and documents, also where engines are built for a longest text."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import change_json
from exports import quick
from multi_vectors import FIXED, save_multi_vector
from pretended import pretended_gpus

from fastembed_rt import LateInteractionModel, manifest
from fastembed_rt.errors import FixedError, InvalidInputError
from fastembed_rt.run.providers import PROVIDERS
from fastembed_rt_export.errors import UnsupportedCheckpointError

__all__ = ["pretended_gpus"]
LONG = "the cat runs under a tree and sleeps " * 4


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Queries of 30 tokens, documents of 20."""
    root = tmp_path_factory.mktemp("late")
    checkpoint = save_multi_vector(root / "checkpoint", query_length=30, document_length=20)
    quick(checkpoint, root / "model")
    return root / "model"


@pytest.fixture(scope="module")
def reference(directory: Path) -> Any:
    from sentence_transformers import MultiVectorEncoder

    return MultiVectorEncoder(str(directory.with_name("checkpoint")), device="cpu", local_files_only=True)


def assert_alike(model: LateInteractionModel, reference: Any) -> None:
    for role in ("encode_query", "encode_document"):
        found = getattr(model, role)([LONG, "a cat"])
        for ours, theirs in zip(found, getattr(reference, role)([LONG, "a cat"]), strict=True):
            np.testing.assert_allclose(ours, np.asarray(theirs), rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Attention reaches 16 tokens back; queries are filled up to 12."""
    root = tmp_path_factory.mktemp("narrow")
    wide = {"local_attention": 32}
    quick(save_multi_vector(root / "checkpoint", "modernbert", query_expansion=FIXED, changes=wide), root / "model")
    return root / "model"


@pytest.mark.parametrize("target", ["native", "cpu", "portable"])
def test_what_fills_a_query_up_sees_it_or_the_length_is_refused(narrow: Path, target: str) -> None:
    from sentence_transformers import MultiVectorEncoder

    reference = MultiVectorEncoder(str(narrow.with_name("checkpoint")), device="cpu", local_files_only=True)
    with LateInteractionModel(narrow, target=target, query_length=18) as model:
        reference[0].query_length = reference[0].query_expansion["length"] = 18
        texts = ["", "a cat", LONG]
        for ours, theirs in zip(model.encode_query(texts), reference.encode_query(texts), strict=True):
            assert len(ours) == 18
            np.testing.assert_allclose(ours, np.asarray(theirs), rtol=0, atol=1e-5)
        said = "queries of 19 tokens are not possible: attention reaches 16 .* query_length may be 18 at most"
        with pytest.raises(InvalidInputError, match=said):
            model.query_length = 19
        assert (model.query_length, len(model.encode_query("a cat"))) == (18, 18)
        model.query_length, model.document_length = 12, 40
        with pytest.raises(InvalidInputError, match=said):
            LateInteractionModel(narrow, target=target, query_length=19)


def test_queries_that_are_seen_whole_or_not_filled_up_have_no_such_limit(tmp_path: Path) -> None:
    for name, said in (("seen", {**FIXED, "attend": True}), ("plain", None)):
        given: dict[str, Any] = {} if said is None else {"query_expansion": said}
        checkpoint = save_multi_vector(tmp_path / name, "modernbert", changes={"local_attention": 8}, **given)
        quick(checkpoint, tmp_path / f"{name}-model")
        with LateInteractionModel(tmp_path / f"{name}-model", query_length=30) as model:
            assert len(model.encode_query(LONG)) == 30


@pytest.mark.parametrize("provider", ["cpu", "tensorrt"])
def test_queries_may_be_longer_than_documents(
    directory: Path, reference: Any, pretended_gpus: None, provider: str
) -> None:
    with LateInteractionModel(directory, provider=provider, threads=2) as model:
        assert (model.query_length, model.document_length) == (30, 20)
        assert len(model.encode_query(LONG)) == 30
        assert_alike(model, reference)


@pytest.mark.parametrize("provider", ["cpu", "tensorrt"])
def test_batches_are_as_large_as_the_provider_wants_them(directory: Path, pretended_gpus: None, provider: str) -> None:
    with LateInteractionModel(directory, provider=provider, threads=2) as model:
        assert model.max_batch_tokens == PROVIDERS[provider].batch_tokens
        with pytest.raises(FixedError, match="load the model again with max_batch_tokens="):
            model.max_batch_tokens = 7


def test_limits_that_are_assigned_hold_for_what_comes(directory: Path, reference: Any) -> None:
    with LateInteractionModel(directory, threads=2) as model:
        assert_alike(model, reference)
        model.query_length, model.document_length = 12, 25
        assert (len(model.encode_query(LONG)), len(model.encode_document(LONG))) == (12, 25)
        assert "query_length=12, document_length=25" in repr(model)
        with pytest.raises(InvalidInputError, match="query_length 4096 is not possible"):
            model.query_length = 4096


@pytest.mark.parametrize("length", [12, 18])  # of queries, in the checkpoint; 12 is also what they are filled up to
def test_a_least_length_of_queries_stays_where_their_limit_is_raised(tmp_path: Path, length: int) -> None:
    from sentence_transformers import MultiVectorEncoder

    least = {**FIXED, "strategy": "min"}
    checkpoint = save_multi_vector(tmp_path / "c", query_length=length, document_length=30, query_expansion=least)
    reference = MultiVectorEncoder(str(checkpoint), device="cpu", local_files_only=True)
    quick(checkpoint, tmp_path / "m")
    reference[0].query_length = 24
    with LateInteractionModel(tmp_path / "m", query_length=24) as given, LateInteractionModel(tmp_path / "m") as model:
        assert model.query_length == length
        with pytest.raises(InvalidInputError, match="filled up to 12 tokens at least; query_length may be 12 or more"):
            model.query_length = 11  # which sentence-transformers refuses too
        assert model.query_length == length
        model.query_length = 24
        for each in (given, model):
            assert each.expansion_length == 12
            assert [len(vectors) for vectors in each.encode_query([LONG, "a cat"])] == [24, 12]
            assert_alike(each, reference)


def test_exports_that_do_not_say_so_have_one_length_of_queries_where_both_are_the_same(tmp_path: Path) -> None:
    checkpoint = save_multi_vector(tmp_path / "c", query_length=12, document_length=30, query_expansion=FIXED)
    quick(checkpoint, tmp_path / "m")
    described = manifest.read(tmp_path / "m")
    assert described.late_interaction is not None
    assert described.late_interaction.expansion_fixed is True
    replace(described, late_interaction=replace(described.late_interaction, expansion_fixed=None)).write(tmp_path / "m")
    with LateInteractionModel(tmp_path / "m", query_length=18) as model:
        assert len(model.encode_query("a cat")) == 18


def test_a_fixed_length_of_queries_goes_with_their_limit(tmp_path: Path) -> None:
    checkpoint = save_multi_vector(tmp_path / "c", query_length=12, document_length=30, query_expansion=FIXED)
    quick(checkpoint, tmp_path / "m")
    with LateInteractionModel(tmp_path / "m", threads=2) as model:
        assert len(model.encode_query("a cat")) == 12
        model.query_length = 9
        assert model.expansion_length == 9
        assert len(model.encode_query("a cat")) == len(model.encode_query(LONG)) == 9


@pytest.mark.parametrize(
    "own", [{"document_length": 20}, {"query_expansion": {"strategy": "min", "length": 12}}], ids=str
)
@pytest.mark.parametrize("part", ["text", "common"])
def test_a_length_of_every_call_beside_those_of_roles_is_refused(
    part: str, own: dict[str, Any], tmp_path: Path
) -> None:
    """It counts more than theirs, and is not raised to that of filled queries."""
    checkpoint = save_multi_vector(tmp_path / "checkpoint", **own)
    change_json(checkpoint / "sentence_bert_config.json", processing_kwargs={part: {"max_length": 9}})
    with pytest.raises(UnsupportedCheckpointError, match="has a max_length in processing_kwargs beside"):
        quick(checkpoint, tmp_path / "model")


def test_queries_that_are_cut_before_they_are_filled_up_are_refused(tmp_path: Path) -> None:
    expansion = {"strategy": "min", "length": 14}
    checkpoint = save_multi_vector(tmp_path / "checkpoint", query_expansion=expansion, max_seq_length=9)
    with pytest.raises(UnsupportedCheckpointError, match="cut at 9 tokens and then filled up to 14"):
        quick(checkpoint, tmp_path / "model")
    change_json(checkpoint / "sentence_bert_config.json", query_length=20)
    assert quick(checkpoint, tmp_path / "model").late_interaction.query_length == 20  # type: ignore[union-attr]
