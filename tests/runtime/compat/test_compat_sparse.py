"""SparseEncoder of fastembed_rt.compat and of sentence-transformers, each call in both."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exports import quick
from same_results import outcome, same
from sparse_encoders import save_splade

from fastembed_rt import SparseModel, errors
from fastembed_rt.compat import sentence_transformers as compat
from fastembed_rt.vectors.sparse import SparseVector

Call = Callable[[Any], Any]
TEXTS = ["a dog runs", "the house is red", "", "new city light: 1 2 3 4 5 " * 9]
DIM = 12
DENSE = torch.tensor(np.random.default_rng(1).normal(size=(3, DIM)).clip(0).astype(np.float32))
SPARSE = DENSE.to_sparse()

CALLS: dict[str, Call] = {
    "list": lambda m: m.encode(TEXTS),
    "one": lambda m: m.encode("a dog runs"),
    "array": lambda m: m.encode(np.array(TEXTS)),
    "sentences=": lambda m: m.encode(sentences=TEXTS),
    "nothing": lambda m: m.encode([]),
    "nothing, dense": lambda m: m.encode([], convert_to_sparse_tensor=False),
    "nothing, list": lambda m: m.encode([], convert_to_tensor=False),
    "dense": lambda m: m.encode(TEXTS, convert_to_sparse_tensor=False),
    "one, dense": lambda m: m.encode("a dog runs", convert_to_sparse_tensor=False),
    "list of sparse": lambda m: m.encode(TEXTS, convert_to_tensor=False),
    "list of dense": lambda m: m.encode(TEXTS, convert_to_tensor=False, convert_to_sparse_tensor=False),
    "save_to_cpu": lambda m: m.encode(TEXTS, save_to_cpu=True, batch_size=2),
    "most": lambda m: m.encode(TEXTS, max_active_dims=4),
    "most of one": lambda m: m.encode("a dog runs", max_active_dims=4),
    "positional prompt": lambda m: m.encode(TEXTS, "query"),
    "prompt": lambda m: m.encode(TEXTS, prompt="the new "),
    "unknown prompt": lambda m: m.encode(TEXTS, prompt_name="nothing"),
    "queries": lambda m: m.encode_query(TEXTS),
    "documents": lambda m: m.encode_document(TEXTS, save_to_cpu=True),
    "batch_size 0": lambda m: m.encode(TEXTS, batch_size=0),
    "unknown keyword": lambda m: m.encode(TEXTS, speed=1),
    "dimension": lambda m: (m.get_embedding_dimension(), m.get_sentence_embedding_dimension()),
    "max_seq_length": lambda m: m.max_seq_length,
    "prompts": lambda m: (m.prompts, m.default_prompt_name, m.similarity_fn_name, m.max_active_dims),
    "similarity": lambda m: m.similarity(SPARSE, SPARSE),
    "similarity of what it gives": lambda m: m.similarity(m.encode(TEXTS[:2]), m.encode(TEXTS)),
    "similarity of dense and sparse": lambda m: m.similarity(DENSE, SPARSE),
    "similarity of one and many": lambda m: m.similarity(SPARSE[0], SPARSE),
    "similarity of lists": lambda m: m.similarity(list(SPARSE), list(SPARSE)),
    "similarity_pairwise": lambda m: m.similarity_pairwise(SPARSE, SPARSE),
    "similarity_pairwise of dense": lambda m: m.similarity_pairwise(DENSE, DENSE),
    "sparsity": lambda m: m.sparsity(SPARSE),
    "sparsity of one": lambda m: m.sparsity(DENSE[0]),
    "sparsity of none": lambda m: m.sparsity(torch.zeros(0, 4)),
    "sparsity of a list": lambda m: m.sparsity([1.0]),
    "sparsity of cubes": lambda m: m.sparsity(torch.zeros(1, 1, 4)),
    "intersection": lambda m: m.intersection(SPARSE[0], SPARSE[1]),
    "intersection with many": lambda m: m.intersection(DENSE[0], SPARSE),
    "intersection of many": lambda m: m.intersection(SPARSE, SPARSE),
    "intersection of others": lambda m: m.intersection(SPARSE[0], DENSE[0][:5]),
    "decode": lambda m: m.decode(torch.tensor([0.0, 0.0, 3.0, 1.0, 0.0, 2.0])),
    "decode many": lambda m: m.decode(torch.tensor([[0.0, 2.0, 3.0], [0.0, 0.0, 0.0], [1.0, 0.0, 2.0]]).to_sparse()),
    "decode the heaviest": lambda m: m.decode(torch.tensor([[0.0, 2.0, 3.0], [1.0, 0.0, 2.0]]), top_k=1),
    "decode nothing": lambda m: m.decode(torch.zeros(4)),
    "decode none": lambda m: m.decode(torch.zeros(4), top_k=0),
    "decode a cube": lambda m: m.decode(torch.zeros(1, 1, 4)),
    "decode a list": lambda m: m.decode([1, 2, 3]),
    "singular": lambda m: [m.is_singular_input(x) for x in ("a", ["a"])],
}


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, Any]]:
    from sentence_transformers import SparseEncoder

    root = tmp_path_factory.mktemp("splade")
    checkpoint = save_splade(root / "checkpoint", prompts={"query": "the red "})
    quick(checkpoint, root / "model")
    ours = compat.SparseEncoder(str(root / "model"))
    yield ours, SparseEncoder(str(checkpoint), device="cpu")
    ours.close()


@pytest.mark.parametrize("name", CALLS)
def test_each_call_gives_what_it_gives_there(name: str, both: tuple[Any, Any]) -> None:
    ours, theirs = (outcome(CALLS[name], model) for model in both)
    same(ours, theirs)


@pytest.mark.parametrize("function", compat.SimilarityFunction.possible_values())
def test_each_similarity(function: str, both: tuple[Any, Any]) -> None:
    before = both[0].similarity_fn_name
    try:
        for model in both:
            model.similarity_fn_name = function
        for given in (SPARSE, DENSE):
            ours, theirs = (model.similarity(given, SPARSE) for model in both)
            same(ours, theirs, 1e-3)  # there distances of near ones lose digits: a^2 - 2ab + b^2
            ours, theirs = (model.similarity_pairwise(given, SPARSE) for model in both)
            same(ours, theirs, 1e-4)
    finally:
        for model in both:
            model.similarity_fn_name = before


def test_the_number_of_words_is_the_constructors_the_calls_or_the_models(both: tuple[Any, Any], tmp_path: Path) -> None:
    place = str(both[0]._model.path)
    model = compat.SparseEncoder(place, max_active_dims=3)
    assert model.sparsity(model.encode(TEXTS[:2]))["active_dims"] == 3
    assert model.sparsity(model.encode(TEXTS[:2], max_active_dims=5))["active_dims"] == 5
    assert copy.deepcopy(model).max_active_dims == 3
    model.save_pretrained(str(tmp_path / "saved"))
    assert compat.SparseEncoder(str(tmp_path / "saved")).max_active_dims == 3
    for wrong in (0, -1, True):
        with pytest.raises(errors.InvalidInputError, match="expected 1 or more"):
            compat.SparseEncoder(place, max_active_dims=wrong)


def test_vectors_of_ours_go_everywhere_too(both: tuple[Any, Any]) -> None:
    """What `encode` gives without torch."""
    ours, _ = both
    vectors = [SparseVector(np.flatnonzero(row), row[row > 0], DIM) for row in DENSE.numpy()]
    same(ours.similarity(vectors, vectors), ours.similarity(SPARSE, SPARSE))
    same(ours.sparsity(vectors), ours.sparsity(SPARSE))
    assert ours.decode(vectors) == ours.decode(SPARSE)
    shared = ours.intersection(vectors[0], vectors[1])
    same(torch.from_numpy(shared.to_dense()), ours.intersection(SPARSE[0], SPARSE[1]).to_dense())


ROUTED_CALLS: dict[str, Call] = {
    "queries": lambda m: m.encode_query(TEXTS),
    "documents": lambda m: m.encode_document(TEXTS),
    "texts": lambda m: m.encode(TEXTS),
    "task query": lambda m: m.encode(TEXTS, task="query", max_active_dims=2),
    "task document": lambda m: m.encode(TEXTS[0], task="document"),
    "a task that has no route": lambda m: m.encode(TEXTS, task="foo"),
    "ids of queries": lambda m: m.preprocess(TEXTS, task="query")["input_ids"],
}


@pytest.mark.parametrize("default", ["query", "document"])
def test_a_routed_model_encodes_queries_and_documents_apart_and_is_saved_so(default: str, tmp_path: Path) -> None:
    from inference_free import save_inference_free
    from sentence_transformers import SparseEncoder

    checkpoint = save_inference_free(tmp_path / "checkpoint", default_route=default)
    quick(checkpoint, tmp_path / "model")
    ours, theirs = compat.SparseEncoder(str(tmp_path / "model")), SparseEncoder(str(checkpoint), device="cpu")
    for call in ROUTED_CALLS.values():
        same(outcome(call, ours), outcome(call, theirs))
    ours.max_active_dims, ours.similarity_fn_name = 3, "cosine"
    ours.save_pretrained(str(tmp_path / "saved"))
    again = compat.SparseEncoder(str(tmp_path / "saved"))
    for call in (lambda m: m.encode_query(TEXTS), lambda m: m.encode_document(TEXTS)):
        same(call(again), call(ours))
    plain = SparseModel(tmp_path / "saved")  # which asks each encoder for its number of words
    assert max(len(vector) for vector in [*plain.encode_query(TEXTS), *plain.encode_document(TEXTS)]) == 3
