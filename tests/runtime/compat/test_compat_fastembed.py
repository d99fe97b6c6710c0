"""fastembed's classes on model directories: its types and generators, sentence-transformers' values.

`make compat` compares each call with fastembed itself, which needs an environment of its own.
"""

from __future__ import annotations

import copy
import pickle
import shutil
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import routed
from cross_encoders import reference_scores, save_cross_encoder
from exports import quick
from forked import needs_fork, status_beside
from inference_free import save_inference_free
from sparse_encoders import save_splade
from tolerances import close

from fastembed_rt import EmbeddingModel, errors
from fastembed_rt.compat import fastembed as compat

TEXTS = ["a dog runs", "the house is red", "", "new city light: 1 2 3 4 5 6 7 8 9 0 " * 9]
SOURCE = compat.ModelSource(hf="me/model")


@pytest.fixture(autouse=True)
def nothing_registered() -> Iterator[None]:
    kinds: tuple[Any, ...] = (
        compat.TextEmbedding,
        compat.SparseTextEmbedding,
        compat.TextCrossEncoder,
        compat.LateInteractionTextEmbedding,
    )
    before = [dict(kind.registered) for kind in kinds]
    for kind in kinds:
        kind.registered.clear()
    yield
    for kind, names in zip(kinds, before, strict=True):
        kind.registered.clear()
        kind.registered.update(names)


@pytest.fixture(scope="module")
def place(pair: Any) -> str:
    return str(pair.directory)


def test_embed_gives_vectors_one_by_one(place: str, reference: Any) -> None:
    model = compat.TextEmbedding(place)
    wanted = reference.encode(TEXTS)
    for given in (TEXTS, tuple(TEXTS), iter(TEXTS), np.array(TEXTS)):
        found = model.embed(given, batch_size=2, parallel=2)
        assert isinstance(found, types.GeneratorType)
        vectors = list(found)
        assert [(type(vector), vector.shape, vector.dtype) for vector in vectors] == [
            (np.ndarray, (24,), np.float32)
        ] * 4
        close(np.stack(vectors), wanted)
    close(np.stack(list(model.embed(TEXTS[0]))), wanted[:1])
    assert list(model.embed([])) == []


def test_queries_and_passages_have_no_prompt_of_the_models_as_there(place: str, reference: Any) -> None:
    model = compat.TextEmbedding(place, cuda=False)
    assert model.model.get().prompts["query"]
    for call in (model.query_embed, model.passage_embed):
        close(np.stack(list(call(TEXTS))), reference.encode(TEXTS))
    close(np.stack(list(model.query_embed("a dog runs"))), reference.encode(["a dog runs"]))


def test_queries_with_an_encoder_of_their_own_go_through_it(tmp_path: Path) -> None:
    """As fastembed gives them another of Jina v3's tasks."""
    from sentence_transformers import SentenceTransformer

    router = routed.router(routed.transformer(tmp_path / "q"), routed.transformer(tmp_path / "d", "mpnet"))
    checkpoint = routed.save(tmp_path / "checkpoint", router)
    quick(checkpoint, tmp_path / "model")
    theirs = SentenceTransformer(str(checkpoint), device="cpu")
    model = compat.TextEmbedding(str(tmp_path / "model"))
    close(np.stack(list(model.query_embed(TEXTS))), theirs.encode_query(TEXTS))
    for call in (model.embed, model.passage_embed):
        close(np.stack(list(call(TEXTS))), theirs.encode_document(TEXTS))


@pytest.mark.parametrize("default", ["query", "document"])
def test_sparse_queries_are_looked_up_where_the_model_has_a_table_for_them(tmp_path: Path, default: str) -> None:
    """As with fastembed's class for OpenSearch's models."""
    from sentence_transformers import SparseEncoder

    checkpoint = save_inference_free(tmp_path / "checkpoint", default_route=default)
    quick(checkpoint, tmp_path / "model")
    theirs = SparseEncoder(str(checkpoint), device="cpu")
    model = compat.SparseTextEmbedding(str(tmp_path / "model"))
    words = ["a dog runs", "the house is red"]
    for call, encode in (
        (model.query_embed, theirs.encode_query),
        (model.embed, theirs.encode_document),
        (model.passage_embed, theirs.encode_document),
    ):
        for entry, row in zip(call(words), encode(words, convert_to_sparse_tensor=False).numpy(), strict=True):
            found = np.zeros_like(row)
            found[entry.indices] = entry.values
            close(found, row)


def test_nothing_is_opened_before_it_is_used(place: str) -> None:
    lazy = compat.TextEmbedding(place, lazy_load=True)
    assert not hasattr(lazy.model, "model")
    coming = lazy.embed(TEXTS)
    assert not hasattr(lazy.model, "model")
    next(coming)
    assert hasattr(lazy.model, "model")
    assert lazy.model._model_dir == Path(place).resolve()
    assert hasattr(compat.TextEmbedding(place).model, "model")


@needs_fork
def test_a_forked_child_opens_what_a_thread_of_its_parent_was_opening(place: str) -> None:
    lazy = compat.TextEmbedding(place, lazy_load=True)

    def opened(here: Callable[[], None]) -> None:
        lazy.model._open_it = here
        lazy.model.get()

    assert status_beside(opened) == 0


def test_sizes_and_tokens(place: str, reference: Any) -> None:
    model = compat.TextEmbedding(place)
    assert model.embedding_size == compat.TextEmbedding.get_embedding_size(place) == 24
    cut = reference.tokenizer(TEXTS, truncation=True, max_length=16)["input_ids"]
    assert model.token_count(TEXTS) == model.token_count(iter(TEXTS), batch_size=1) == sum(map(len, cut))
    assert model.token_count(TEXTS[0]) == len(cut[0])


def test_a_registered_name_opens_what_it_stands_for(place: str, reference: Any) -> None:
    compat.TextEmbedding.add_custom_model(
        "me/Model",
        compat.PoolingType.MEAN,
        True,
        SimpleNamespace(hf=place, url=None),  # as fastembed's own record is
        24,
        "model.onnx",
        size_in_gb=0.1,
    )
    (entry,) = compat.TextEmbedding.list_supported_models()
    assert {name: entry[name] for name in ("model", "dim", "sources", "model_file", "size_in_GB")} == {
        "model": "me/Model",
        "dim": 24,
        "sources": {"hf": place, "url": None},
        "model_file": "model.onnx",
        "size_in_GB": 0.1,
    }
    close(np.stack(list(compat.TextEmbedding("ME/model").embed(TEXTS))), reference.encode(TEXTS))
    assert compat.TextEmbedding.get_embedding_size("me/model") == 24
    with pytest.raises(ValueError, match="already registered in TextEmbedding"):
        compat.TextEmbedding.add_custom_model("me/model", compat.PoolingType.MEAN, True, SOURCE, 24)
    (listed,) = compat.SparseTextEmbedding.list_supported_models()
    assert listed["model"] == "Qdrant/bm25"
    assert all(listed[name] for name in ("sources", "model_file", "license", "size_in_GB")), "as of any model there"


def test_what_is_registered_is_checked_against_the_model(place: str, export_pair: Any) -> None:
    add = compat.TextEmbedding.add_custom_model
    here = compat.ModelSource(hf=place)
    add("wrong dim", compat.PoolingType.MEAN, True, here, 25)
    add("wrong pooling", "CLS", True, here, 24)
    add("any pooling", compat.PoolingType.DISABLED, True, here, 24)
    with pytest.raises(errors.InvalidInputError, match="dim 25, the model's is 24"):
        compat.TextEmbedding("wrong dim")
    with pytest.raises(errors.InvalidInputError, match=r"pooling CLS, the graph's is mean"):
        compat.TextEmbedding("wrong pooling")
    assert compat.TextEmbedding("any pooling").embedding_size == 24
    with pytest.raises(ValueError, match="source"):
        add("nothing", compat.PoolingType.MEAN, True, compat.ModelSource(url="https://example.org/model.tar.gz"), 24)
    with pytest.raises(ValueError, match="source"):
        compat.ModelSource()
    unnormalized = export_pair(normalize=False)
    for name, normalization in (("long", False), ("one", True)):
        add(name, compat.PoolingType.MEAN, normalization, compat.ModelSource(hf=str(unnormalized.directory)), 24)
        wanted = unnormalized.reference.encode(TEXTS, normalize_embeddings=normalization)
        close(np.stack(list(compat.TextEmbedding(name).embed(TEXTS))), wanted)


def test_an_unknown_model_is_a_value_error_as_there() -> None:
    with pytest.raises(ValueError, match="no/such/model") as caught:
        compat.TextEmbedding("no/such/model", local_files_only=True)
    assert isinstance(caught.value, errors.ModelNotFoundError)
    with pytest.raises(ValueError, match="neither a model directory nor registered"):
        compat.TextEmbedding.get_embedding_size("no/such/model")


def test_arguments_of_devices(place: str) -> None:
    for options in (
        {"providers": ["CPUExecutionProvider"]},
        {"cuda": False},
        {"cuda": compat.Device.CPU, "device_ids": [0]},
        {"cuda": compat.Device.AUTO},
        {"cuda": SimpleNamespace(value="cpu")},  # as fastembed's own enumeration is
    ):
        assert compat.TextEmbedding(place, **options).model.get().provider == "cpu"
    model = compat.TextEmbedding("me", None, 1, specific_model_path=place, enable_cpu_mem_arena=False, precision="fp32")
    assert model.model.get().threads == 1
    with pytest.raises(errors.InvalidInputError, match="exclude each other"):
        compat.TextEmbedding(place, providers=["CPUExecutionProvider"], device_ids=[1])
    with pytest.raises(errors.InvalidInputError, match="is not known"):
        compat.TextEmbedding(place, providers=["NoProvider"])
    with pytest.raises(errors.InvalidInputError, match="not possible"):
        compat.TextEmbedding(place, providers=[("CUDAExecutionProvider", {"arena_extend_strategy": "x"})])
    with pytest.raises(errors.InvalidInputError, match="cuda 'often'"):
        compat.TextEmbedding(place, cuda="often")
    with pytest.raises(errors.ProviderUnavailableError):
        compat.TextEmbedding(place, cuda=True)
    with pytest.raises(TypeError, match="embed does not take task_id"):
        list(compat.TextEmbedding(place).embed(TEXTS, task_id=1))
    with pytest.raises(TypeError, match="no option 'speed'"):
        compat.TextEmbedding(place, speed=1)


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy])
def test_copies_share_the_engine(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: Any, lazy: bool
) -> None:
    directory = str(shutil.copytree(place, tmp_path / "model"))  # of which no other test has an engine
    opened = 0
    from_checkpoint = EmbeddingModel.from_checkpoint

    def counted(*arguments: Any, **options: Any) -> Any:
        nonlocal opened
        opened += 1
        return from_checkpoint(*arguments, **options)

    monkeypatch.setattr(EmbeddingModel, "from_checkpoint", counted)
    model = compat.TextEmbedding(directory, lazy_load=lazy, token="a-secret")
    other = way(model)
    assert np.array_equal(list(other.embed(TEXTS)), list(model.embed(TEXTS)))
    assert opened == 1
    assert other.model.get()._running() is model.model.get()._running()
    assert (other.model_name, other.lazy_load, other._options) == (directory, lazy, model._options)
    assert way(way(other)).model.get()._running() is model.model.get()._running()
    model.model.get().close()
    assert len(list(other.embed(TEXTS))) == len(TEXTS)  # each is closed by itself


def test_copies_and_pickles(place: str) -> None:
    model = compat.TextEmbedding(place)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(list(other.embed(TEXTS)), list(model.embed(TEXTS)))
    assert b"a-secret" not in pickle.dumps(compat.TextEmbedding(place, token="a-secret"))


def test_sparse_embeddings(tmp_path: Path) -> None:
    from sentence_transformers import SparseEncoder

    checkpoint = save_splade(tmp_path / "splade")
    quick(checkpoint, tmp_path / "model")
    compat.SparseTextEmbedding.add_custom_model("me/splade", compat.ModelSource(hf=str(tmp_path / "model")))
    model = compat.SparseTextEmbedding("me/splade")
    wanted = SparseEncoder(str(checkpoint), device="cpu").encode(TEXTS, convert_to_sparse_tensor=False).numpy()
    for call in (model.embed, model.query_embed, model.passage_embed):
        found = list(call(TEXTS))
        assert {type(entry) for entry in found} == {compat.SparseEmbedding}
        for entry, row in zip(found, wanted, strict=True):
            assert [str(array.dtype) for array in (entry.values, entry.indices)] == ["float32", "int64"]
            dense = np.zeros_like(row)
            dense[entry.indices] = entry.values
            close(dense, row)
    one = found[0]
    assert one.as_object() == {"values": one.values, "indices": one.indices}
    again = compat.SparseEmbedding.from_dict(one.as_dict())
    assert np.array_equal(again.indices, one.indices)
    assert np.array_equal(again.values, one.values)
    assert compat.SparseEmbedding.from_dict({}).values.shape == (0,)
    assert model.token_count("a dog runs") == 5
    assert model.embedding_size == wanted.shape[1]


def test_scores_are_logits_in_the_documents_order(tmp_path: Path) -> None:
    import torch

    checkpoint = save_cross_encoder(tmp_path / "reranker")
    quick(checkpoint, tmp_path / "model")
    compat.TextCrossEncoder.add_custom_model("me/reranker", compat.ModelSource(hf=str(tmp_path / "model")))
    model = compat.TextCrossEncoder("me/reranker")
    pairs = [("where is the dog?", text) for text in TEXTS]
    wanted = reference_scores(checkpoint, pairs, activation_fn=torch.nn.Identity())
    for found in (model.rerank(pairs[0][0], iter(TEXTS)), model.rerank_pairs(iter(pairs), batch_size=1, parallel=2)):
        assert isinstance(found, types.GeneratorType)
        scores = list(found)
        assert {type(score) for score in scores} == {float}
        np.testing.assert_allclose(scores, wanted, rtol=1e-5, atol=1e-5)
    lengths = [min(model.model.get().count_tokens(pair), 40) for pair in pairs]
    assert model.token_count(pairs) == sum(lengths)


def test_several_labels_have_no_order(tmp_path: Path) -> None:
    checkpoint = save_cross_encoder(tmp_path / "reranker", labels=3)
    quick(checkpoint, tmp_path / "model")
    with pytest.raises(errors.InvalidInputError, match="3 scores a pair"):
        list(compat.TextCrossEncoder(str(tmp_path / "model")).rerank("a", ["b"]))


def test_token_vectors(tmp_path: Path) -> None:
    from multi_vectors import save_multi_vector
    from sentence_transformers import MultiVectorEncoder

    checkpoint = save_multi_vector(tmp_path / "colbert")
    quick(checkpoint, tmp_path / "model")
    model = compat.LateInteractionTextEmbedding(str(tmp_path / "model"))
    theirs = MultiVectorEncoder(str(checkpoint), device="cpu")
    for found, wanted in (
        (list(model.embed(TEXTS)), theirs.encode_document(TEXTS)),
        (list(model.passage_embed(iter(TEXTS))), theirs.encode_document(TEXTS)),
        (list(model.query_embed(TEXTS)), theirs.encode_query(TEXTS)),
        (list(model.query_embed(TEXTS[0])), theirs.encode_query(TEXTS[:1])),
    ):
        assert len(found) == len(wanted)
        for ours, other in zip(found, wanted, strict=True):
            close(ours, np.asarray(other))
    queries = sum(len(vectors) for vectors in theirs.encode_query(TEXTS))
    assert model.token_count(TEXTS, is_doc=False, include_extension=True) == queries
    assert model.token_count("a dog runs") == 5
