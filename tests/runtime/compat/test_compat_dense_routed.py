"""SentenceTransformer with a Router: encoders for queries and for documents, as sentence-transformers has them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dense_calls import TEXTS, Call, ids_of
from same_results import outcome, same

from fastembed_rt import EmbeddingModel
from fastembed_rt.compat import sentence_transformers as compat


@pytest.fixture(scope="module")
def routed_pair(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model with an encoder for queries (8 tokens) and one for documents (20), and its checkpoint."""
    import routed
    from exports import quick
    from sentence_transformers.base.modules import Router

    root = tmp_path_factory.mktemp("routed")
    route = Router.for_query_document(
        query_modules=routed.transformer(root / "q", processor_kwargs={"model_max_length": 8}),
        document_modules=routed.transformer(root / "d", "mpnet"),
    )
    routed.save(root / "checkpoint", route, prompts={"query": "the red ", "document": "a new "})
    quick(root / "checkpoint", root / "model")
    return root / "model", root / "checkpoint"


ROUTED_CALLS: dict[str, Call] = {
    "queries": lambda m: m.encode_query(TEXTS),
    "documents": lambda m: m.encode_document(TEXTS),
    "task query": lambda m: m.encode(TEXTS, task="query"),
    "a task that has no route": lambda m: m.encode(TEXTS, task="foo"),
    "documents normalized": lambda m: m.encode_document(TEXTS, convert_to_tensor=True, normalize_embeddings=True),
    "ids of queries": lambda m: ids_of(m.preprocess(TEXTS, task="query")),
    "ids of documents": lambda m: ids_of(m.preprocess(TEXTS, task="document")),
    "ids of the default": lambda m: ids_of(m.preprocess(TEXTS)),
    "ids for a task that has no route": lambda m: m.preprocess(TEXTS, task="foo"),
}


def test_a_routed_model_encodes_queries_and_documents_apart(routed_pair: tuple[Path, Path]) -> None:
    from sentence_transformers import SentenceTransformer

    model, checkpoint = routed_pair
    ours, theirs = compat.SentenceTransformer(str(model)), SentenceTransformer(str(checkpoint), device="cpu")
    for call in ROUTED_CALLS.values():
        same(outcome(call, ours), outcome(call, theirs))
    ours.close()


@pytest.mark.parametrize("limit", [None, 6])
def test_a_routed_model_is_saved_with_the_prompts_and_limits_of_all_its_encoders(
    limit: int | None, routed_pair: tuple[Path, Path], tmp_path: Path
) -> None:
    from sentence_transformers import SentenceTransformer

    model, checkpoint = routed_pair
    both = compat.SentenceTransformer(str(model)), SentenceTransformer(str(checkpoint), device="cpu")
    again = []
    for kind, changed, place in zip((compat.SentenceTransformer, SentenceTransformer), both, "ab", strict=True):
        changed.prompts["query"], changed.prompts["document"] = "the new red ", "light "
        if limit is not None:
            changed.max_seq_length = limit
        changed.save_pretrained(str(tmp_path / place))
        again.append(kind(str(tmp_path / place), device="cpu"))
    for name in ("queries", "documents"):
        call = ROUTED_CALLS[name]
        assert np.array_equal(call(again[0]), call(both[0]))
        same(call(again[0]), call(again[1]))
    plain = EmbeddingModel(tmp_path / "a")
    assert np.array_equal(plain.encode_query(TEXTS), both[0].encode_query(TEXTS))
    compat.SentenceTransformer(str(model)).save(str(tmp_path / "unchanged"))
    assert (tmp_path / "unchanged" / "manifest.json").read_bytes() == (model / "manifest.json").read_bytes()


def test_a_routed_models_fingerprint_for_a_role_is_that_of_its_encoder(routed_pair: tuple[Path, Path]) -> None:
    model = EmbeddingModel(routed_pair[0])
    names = [model.fingerprint(role=role) for role in ("query", "document")]
    assert names == [EmbeddingModel(routed_pair[0], route="query").fingerprint(prompt_name="query"), names[1]]
    files = [name.split("-")[0] for name in names]
    assert files[0] != files[1] == model.fingerprint().split("-")[0]


def test_a_routed_model_that_was_pickled_keeps_the_limit_of_each_encoder(routed_pair: tuple[Path, Path]) -> None:
    model = compat.SentenceTransformer(str(routed_pair[0]))
    other = pickle.loads(pickle.dumps(model))
    assert np.array_equal(other.encode_query(TEXTS), model.encode_query(TEXTS))
    assert np.array_equal(other.encode_document(TEXTS), model.encode_document(TEXTS))


ROLES_CUT_ELSEWHERE: dict[str, dict[str, Any]] = {
    "without a Router": {"query_length": 7, "document_length": 12, "max_seq_length": 20},
    "with one": {"query_length": 7, "document_length": 12},
}


@pytest.mark.parametrize("case", ROLES_CUT_ELSEWHERE)
def test_roles_with_lengths_of_their_own_are_cut_there(case: str, tmp_path: Path) -> None:
    """Also where the role's encoder is the default one, and by the task alone."""
    import routed
    from exports import quick
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    modules = routed.transformer(tmp_path / "plain", **ROLES_CUT_ELSEWHERE[case])
    if case == "with one":
        modules = [Router.for_query_document(modules, routed.transformer(tmp_path / "d"), default_route="query")]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(
        str(tmp_path / "checkpoint"), create_model_card=False
    )
    quick(tmp_path / "checkpoint", tmp_path / "model")
    ours = compat.SentenceTransformer(str(tmp_path / "model"))
    theirs = SentenceTransformer(str(tmp_path / "checkpoint"), device="cpu")
    for name, call in ROUTED_CALLS.items():
        if name != "ids for a task that has no route":  # of their own type where it is no error
            same(outcome(call, ours), outcome(call, theirs))
    ours.close()


def test_a_task_is_a_role_before_it_is_the_name_of_a_route(tmp_path: Path) -> None:
    """Here the route 'query' is for documents, and the other one for all else."""
    import routed
    from exports import quick
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    mappings = {("document", None): "query", (None, None): "document"}
    modules = {"query": routed.transformer(tmp_path / "q"), "document": routed.transformer(tmp_path / "d", "mpnet")}
    routed.save(tmp_path / "checkpoint", Router(modules, route_mappings=mappings))
    quick(tmp_path / "checkpoint", tmp_path / "model")
    ours = compat.SentenceTransformer(str(tmp_path / "model"))
    theirs = SentenceTransformer(str(tmp_path / "checkpoint"), device="cpu")
    for name in ("queries", "documents", "task query"):
        same(outcome(ROUTED_CALLS[name], ours), outcome(ROUTED_CALLS[name], theirs))
    ours.close()
