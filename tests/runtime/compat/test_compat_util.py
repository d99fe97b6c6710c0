"""Search, mining and similarities in numpy beside sentence_transformers.util, and what is there without torch."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from same_results import outcome, same
from sentence_transformers import util

from fastembed_rt.compat import sentence_transformers as compat
from fastembed_rt.compat.sentence_transformers import functions, search
from fastembed_rt.compat.sentence_transformers.sparse import coo
from fastembed_rt.compat.sentence_transformers.util import OURS
from fastembed_rt.vectors.sparse import SparseVector

RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.normal(size=(60, 12)).astype(np.float32)
# Three heaps and some noise, so that there are communities.
CENTRES = np.repeat(RANDOM.normal(size=(3, 12)) * 4, [20, 12, 6], axis=0)
HEAPS = np.concatenate([CENTRES + RANDOM.normal(size=(38, 12)), RANDOM.normal(size=(10, 12))]).astype(np.float32)
Call = Callable[[Any], Any]


def named(name: str, left: Any, right: Any) -> Call:
    return lambda u: getattr(u, name)(left, right)


def quantized(given: Any, precision: str) -> Call:
    return lambda u: u.quantize_embeddings(given, precision)


ALL = ("cos_sim", "dot_score", "pytorch_cos_sim", "euclidean_sim", "manhattan_sim")
ROW_BY_ROW = ("pairwise_cos_sim", "pairwise_dot_score", "pairwise_euclidean_sim", "pairwise_manhattan_sim")
CALLS: dict[str, Call] = {
    **{name: named(name, VECTORS[:7], VECTORS[7:]) for name in ALL},
    **{name: named(name, VECTORS[:9], VECTORS[9:18]) for name in ROW_BY_ROW},
    "cos_sim of lists": lambda u: u.cos_sim(VECTORS[:2].tolist(), list(torch.from_numpy(VECTORS))),
    "cos_sim of bfloat16": lambda u: u.cos_sim(*(torch.from_numpy(VECTORS).bfloat16(),) * 2),
    "pairwise of two": lambda u: u.pairwise_dot_score(VECTORS[0], VECTORS[1]),
    "normalize": lambda u: u.normalize_embeddings(torch.from_numpy(VECTORS)),
    "truncate": lambda u: u.truncate_embeddings(VECTORS, 5),
    "search": lambda u: u.semantic_search(VECTORS[:5], VECTORS),
    "search in pieces": lambda u: u.semantic_search(VECTORS[:5], VECTORS, 2, 7, 4),
    "search for one": lambda u: u.semantic_search(torch.from_numpy(VECTORS[0]), torch.from_numpy(VECTORS), top_k=3),
    "search for more than there are": lambda u: u.semantic_search(VECTORS[:2], VECTORS[:3], top_k=9),
    "search by dot": lambda u: u.semantic_search(VECTORS[:5], VECTORS, score_function=u.dot_score),
    "older name": lambda u: u.information_retrieval(VECTORS[:2], VECTORS),
    "mining": lambda u: u.paraphrase_mining_embeddings(torch.from_numpy(VECTORS)),
    "mining a few": lambda u: u.paraphrase_mining_embeddings(torch.from_numpy(VECTORS), 7, 11, 20, 3),
    "mining by dot": lambda u: u.paraphrase_mining_embeddings(
        torch.from_numpy(VECTORS), max_pairs=30, score_function=u.dot_score
    ),
    "communities": lambda u: u.community_detection(HEAPS, 0.6, 4),
    "communities in pieces": lambda u: u.community_detection(torch.from_numpy(HEAPS), 0.5, 3, 10),
    "no communities": lambda u: u.community_detection(HEAPS, 0.999, 10),
    "communities of nothing": lambda u: u.community_detection(torch.zeros(0, 4)),
    **{f"codes, {name}": quantized(VECTORS, name) for name in ("int8", "uint8", "binary", "ubinary", "float32")},
    "codes of tensors": quantized(list(torch.from_numpy(VECTORS)), "int8"),
    "codes of token vectors": quantized([VECTORS[:7], VECTORS[7:9], VECTORS[:0]], "int8"),
    "codes of nothing": quantized([], "int8"),
    "codes of one": quantized(VECTORS[:1], "int8"),
    "codes of codes": quantized(VECTORS.astype(np.int8).astype(np.float32), "uint8"),
    "on a device": lambda u: u.batch_to_device({"a": torch.zeros(2), "b": "text"}, "cpu"),
}


class Ours:
    """Our functions, whatever is installed."""

    def __getattr__(self, name: str) -> Any:
        return OURS[name]


@pytest.mark.parametrize("name", CALLS)
def test_numpy_gives_what_torch_gives(name: str) -> None:
    same(outcome(CALLS[name], Ours()), outcome(CALLS[name], util), 2e-5)


WIDE = 30_522  # words of BERT's vocabulary


def words(n: int, seed: int, dim: int = WIDE) -> list[SparseVector]:
    random = np.random.default_rng(seed)
    places = [np.unique(random.integers(0, dim, 40)) for _ in range(n)]
    return [SparseVector(own, random.random(len(own)).astype(np.float32), dim) for own in places]


def peak(call: Callable[[], Any]) -> tuple[int, Any]:
    """Bytes that a call had of numpy's and Python's memory at once, and what it gave."""
    tracemalloc.start()
    try:
        made = call()
        return tracemalloc.get_traced_memory()[1], made
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("name", ROW_BY_ROW)
@pytest.mark.parametrize("counts", [(130, 130), (130, 1), (1, 130)])
def test_sparse_vectors_are_compared_row_by_row(name: str, counts: tuple[int, int]) -> None:
    left, right = (words(count, seed, 50) for seed, count in enumerate(counts))
    dense = [np.stack([vector.to_dense() for vector in side]) for side in (left, right)]
    function = OURS[name]
    same(function(left, right), function(*dense), 1e-6)
    same(function(coo(left), dense[1]), function(*dense), 1e-6)
    same(function(left[0], right[0]), function(dense[0][0], dense[1][0]), 1e-6)
    with pytest.raises(ValueError, match="not as many"):
        function(words(65, 0, 50), words(128, 1, 50))


def test_what_compares_sparse_vectors_never_holds_all_their_zeros() -> None:
    left, right = words(600, 0), words(600, 1)
    zeros = 600 * WIDE * 4
    for call in (
        lambda: functions.pairwise_cos_sim(left, right),
        lambda: search.semantic_search(left, right, top_k=3),
        lambda: search.paraphrase_mining_embeddings(left + left[:5], top_k=3, max_pairs=5),
    ):
        held, made = peak(call)
        assert held < zeros / 2
    assert [pair[1:] for pair in sorted(made, key=lambda pair: pair[1])] == [[k, 600 + k] for k in range(5)]
    found = search.semantic_search(left[:9], right, top_k=3)
    queries, corpus = (np.stack([vector.to_dense() for vector in side]) for side in (left[:9], right))
    same(found, search.semantic_search(queries, corpus, top_k=3))
    # A function of the caller's is given arrays, whatever the vectors are.
    same(
        search.semantic_search(left[:9], right, score_function=lambda a, b: functions.cos_sim(a * 2, b), top_k=3), found
    )


def test_mining_holds_no_more_pairs_than_it_gives() -> None:
    random = np.random.default_rng(2)
    vectors = random.normal(size=(1500, 8)).astype(np.float32)
    every = search.paraphrase_mining_embeddings(vectors, 100, max_pairs=10**6, top_k=60)
    held, few = peak(lambda: search.paraphrase_mining_embeddings(vectors, 100, max_pairs=100, top_k=60))
    assert len(every) > 40_000
    assert few == every[:100]
    assert held < 8e6, "tens of bytes for each of all pairs"
    assert search.paraphrase_mining_embeddings(vectors, max_pairs=0) == []
    alike = np.ones((7, 2), np.float32)  # of equal scores, the pairs that came first
    whole = search.paraphrase_mining_embeddings(alike)
    assert search.paraphrase_mining_embeddings(alike, max_pairs=4) == whole[:4]


def test_mining_encodes_first() -> None:
    class Model:
        def encode(self, sentences: list[str], convert_to_tensor: bool = False, **_: Any) -> Any:
            found = VECTORS[[int(text) for text in sentences]]
            return torch.from_numpy(found) if convert_to_tensor else found

    texts = [str(number) for number in range(20)]
    same(search.paraphrase_mining(Model(), texts), util.paraphrase_mining(Model(), texts), 2e-5)


def test_the_librarys_own_functions_are_handed_through() -> None:
    from fastembed_rt.compat.sentence_transformers.util import cos_sim, mine_hard_negatives

    assert cos_sim is util.cos_sim
    assert mine_hard_negatives is util.mine_hard_negatives
    assert compat.InputExample(texts=["a"]).texts == ["a"]
    for module in (compat, compat.util):
        with pytest.raises(AttributeError, match="no_such_name"):
            module.no_such_name  # noqa: B018 - asked for


WITHOUT_TORCH = """
import sys
for name in ("torch", "sentence_transformers", "transformers"):
    sys.modules[name] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *a: None if name in ("torch", "sentence_transformers") else find(name, *a)
import numpy as np
from fastembed_rt.compat.sentence_transformers import CrossEncoder, SentenceTransformer, SparseEncoder, util
from fastembed_rt.vectors.sparse import SparseVector
model = SentenceTransformer(sys.argv[1])
texts = ["a dog runs", "the house is red"]
vectors = model.encode(texts)
np.save(sys.argv[2], vectors)
assert type(model.similarity(vectors, vectors)) is np.ndarray and type(util.cos_sim(vectors, vectors)) is np.ndarray
assert model.device == "cpu" and model.device.type == "cpu" and model.device.index is None
assert type(model.preprocess(texts)["input_ids"]) is np.ndarray
assert model.tokenizer.encode("a dog").ids
assert [hit["corpus_id"] for hit in util.semantic_search(vectors, vectors, top_k=1)[1]] == [1]
try:
    model.encode(texts, convert_to_tensor=True)
except ImportError as error:
    print(error)
try:
    util.mine_hard_negatives
except AttributeError as error:
    print(error)
sparse = SparseEncoder(sys.argv[3])
one, two = sparse.encode(texts)
assert type(one) is SparseVector and type(sparse.encode(texts[0])) is SparseVector
assert sparse.encode(texts, convert_to_sparse_tensor=False).shape == (2, sparse.get_embedding_dimension())
assert sparse.similarity([one], [one, two]).shape == (1, 2) and sparse.decode(one)[0][1] >= sparse.decode(one)[1][1]
assert sparse.sparsity([one, two])["active_dims"] == (len(one) + len(two)) / 2
assert len(sparse.intersection(one, one)) == len(one)
scores = CrossEncoder(sys.argv[4]).predict([("a", "b")], activation_fn=lambda column: column * 2)
assert type(scores) is np.ndarray
assert not any(sys.modules.get(name) for name in ("torch", "sentence_transformers", "transformers"))
"""


def test_everything_but_tensors_works_without_torch(pair: Any, reference: Any, run_script: Any, tmp_path: Any) -> None:
    from cross_encoders import save_cross_encoder
    from exports import quick
    from sparse_encoders import save_splade

    quick(save_splade(tmp_path / "splade"), tmp_path / "my-splade")
    quick(save_cross_encoder(tmp_path / "reranker"), tmp_path / "my-reranker")
    places = (pair.directory, tmp_path / "vectors.npy", tmp_path / "my-splade", tmp_path / "my-reranker")
    done = run_script(WITHOUT_TORCH, *places)
    assert done.returncode == 0, done.stderr
    assert "pip install torch" in done.stdout
    assert "sentence-transformers, which has more, is not installed" in done.stdout
    same(np.load(tmp_path / "vectors.npy"), reference.encode(["a dog runs", "the house is red"]))


def test_a_call_that_wants_no_tensor_imports_no_torch(model_dir: Any, run_script: Any) -> None:
    code = """
import sys
from fastembed_rt.compat.sentence_transformers import SentenceTransformer, util
import fastembed_rt.compat.fastembed
assert not {"torch", "onnxruntime", "transformers", "sentence_transformers", "huggingface_hub"} & set(sys.modules)
model = SentenceTransformer(sys.argv[1], truncate_dim=8)
model.encode(["a dog runs"], normalize_embeddings=True, prompt_name="query")
model.encode_query("a dog runs", precision="binary")
assert (model.device, model.max_seq_length, model.get_embedding_dimension()) == ("cpu", 16, 8)
assert not {"torch", "transformers", "sentence_transformers"} & set(sys.modules)
"""
    done = run_script(code, model_dir)
    assert done.returncode == 0, done.stderr
