"""A row without a text: what is advised is what the call that was made takes."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from task_models import save_all

from fastembed_rt import EmbeddingModel, LateInteractionModel, Reranker, SparseModel
from fastembed_rt.errors import InvalidTypeError

TEXTS = ["a dog", None]
PLAIN = "text 1 is NoneType, expected str; leave rows without a text out, or pass '' for them"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    kinds = {"dense": EmbeddingModel, "splade": SparseModel, "colbert": LateInteractionModel, "reranker": Reranker}
    found = save_all(tmp_path_factory.mktemp("missing"))
    made: dict[str, Any] = {name: kind(found[name].directory, threads=1) for name, kind in kinds.items()}
    made["directories"] = {name: found[name].directory for name in kinds}
    yield made
    for name in kinds:
        made[name].close()


def said(call: Any, *arguments: Any) -> str:
    with pytest.raises(InvalidTypeError) as caught:
        found = call(*arguments)
        if inspect.isgenerator(found):
            list(found)
    return str(caught.value)


def test_every_method_advises_what_it_takes(models: dict[str, Any]) -> None:
    seen = 0
    for name in ("dense", "splade", "colbert", "reranker"):
        model = models[name]
        for method in ("encode", "encode_query", "encode_document", "embed", "embed_documents", "embed_queries",
                       "count_tokens", "rank", "encode_spans"):  # fmt: skip
            call = getattr(model, method, None)
            if call is None or (name, method) == ("reranker", "count_tokens"):
                continue
            known = inspect.signature(call).parameters
            passed_on = any(entry.kind is entry.VAR_KEYWORD for entry in known.values())
            arguments: tuple[Any, ...] = (TEXTS,)
            if method == "rank":
                arguments = ("a", TEXTS)
            elif method == "encode_spans":
                arguments = (TEXTS, [[], []])
            found = said(call, *arguments)
            if "on_null" in known or passed_on:
                assert "pass on_null='empty'" in found, (name, method)
            else:
                assert found == PLAIN, (name, method)
            seen += 1
    assert seen == 18


def test_classes_under_other_names(models: dict[str, Any]) -> None:
    from fastembed_rt.compat.fastembed import LateInteractionTextEmbedding, SparseTextEmbedding, TextEmbedding
    from fastembed_rt.compat.sentence_transformers import SentenceTransformer, SparseEncoder

    places: dict[str, Path] = models["directories"]
    theirs = SentenceTransformer(str(places["dense"]))
    for output in ("sentence_embedding", "token_embeddings"):
        assert said(lambda value=output: theirs.encode(TEXTS, output_value=value)) == PLAIN
    assert said(SparseEncoder(str(places["splade"])).encode, TEXTS) == PLAIN
    for kind, name in (
        (TextEmbedding, "dense"),
        (SparseTextEmbedding, "splade"),
        (LateInteractionTextEmbedding, "colbert"),
    ):
        made: Any = kind(str(places[name]))
        for texts in (TEXTS, iter(TEXTS)):
            assert said(made.embed, texts) == PLAIN
