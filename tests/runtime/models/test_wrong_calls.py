"""Calls written for other libraries are answered with what to write here."""

from __future__ import annotations

import re
from typing import Any

import pytest

from fastembed_rt import EmbeddingModel, LateInteractionModel, Reranker, SparseModel
from fastembed_rt.models.answers import CALLS, LOADING

KEEP = "To keep calls as they are: fastembed_rt.compat.sentence_transformers or fastembed_rt.compat.fastembed"


def answer(call: Any, *arguments: Any, **options: Any) -> str:
    with pytest.raises(TypeError) as caught:
        call(*arguments, **options)
    assert type(caught.value) is TypeError
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            {"normalize_embeddings": True},
            "EmbeddingModel.encode has no normalize_embeddings. normalize_embeddings: norm",
        ),
        (
            {"batch_size": 32},
            "batch_size: batches are bounded by tokens: leave it out, or load the model with max_batch",
        ),
        ({"show_progress": True}, "show_progress: show_progress_bar="),
        ({"convert_to_tensor": True}, r"convert_to_tensor: vectors are numpy arrays: torch.from_numpy\(vectors\)"),
        ({"convert_to_numpy": True}, "convert_to_numpy: vectors are numpy arrays: leave it out"),
        ({"device": "cuda"}, "device: load the model with provider='cpu' or 'cuda'"),
        ({"output_value": "token_embeddings"}, "output_value: output='tokens' for 'token_embeddings'"),
        ({"promt_name": "query"}, r"promt_name: did you mean prompt_name=\?"),
        ({"zzz": 1}, "zzz: it takes calibration_embeddings, normalize, on_null, out, output, precision, prompt"),
        ({"batch_size": 32, "device": "cpu"}, "has no batch_size, device. batch_size: .*; device: load"),
    ],
)
def test_a_keyword_of_another_library(options: dict[str, Any], said: str, model: EmbeddingModel) -> None:
    for call in (model.encode, model.encode_query, model.encode_document):
        found = answer(call, ["a"], **options)
        assert re.search(said.replace("EmbeddingModel.encode", r"EmbeddingModel.encode\w*"), found), found
        assert found.endswith(KEEP)


def test_texts_by_another_name_or_too_many_of_them(model: EmbeddingModel) -> None:
    for call, name in ((model.encode, "sentences"), (model.embed, "documents"), (model.encode_query, "queries")):
        assert f"{name}: give the texts first, without a name" in answer(call, **{name: ["a"]})
    assert model.encode(inputs="a").shape == (24,)
    found = answer(model.encode, ["a"], "query", None, 32)
    assert found.startswith("EmbeddingModel.encode takes inputs alone without a name; write calibration_embeddings, ")
    assert "missing 1 required positional argument: 'inputs'" in answer(model.encode)


def test_what_goes_wrong_inside_keeps_its_own_words(model: EmbeddingModel) -> None:
    with pytest.raises(TypeError, match="text 0 is int, expected str"):
        model.encode([1])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="truncate_dim is float, expected int"):
        model.encode("a", truncate_dim=2.5)  # type: ignore[call-overload]


def test_every_class_answers_when_it_is_loaded() -> None:
    for kind in (EmbeddingModel, LateInteractionModel, Reranker, SparseModel):
        for name, said in LOADING.items():
            if name not in ("model", "model_name", "model_name_or_path"):
                found = answer(kind, "nowhere", **{name: 1})
                assert f"{kind.__name__} has no option {name!r}; {name}: {said}. {KEEP}" == found
    assert "did you mean max_length=?" in answer(EmbeddingModel, "nowhere", maxlength=3)


def test_asyncio_answers_too(model: EmbeddingModel) -> None:
    import asyncio

    with pytest.raises(TypeError, match="normalize_embeddings: normalize="):
        asyncio.run(model.aencode("a", normalize_embeddings=True))  # type: ignore[call-overload]


def test_no_answer_is_a_keyword_that_is_there(model: EmbeddingModel) -> None:
    import inspect

    for kind, methods in {EmbeddingModel: ("encode", "embed"), Reranker: ("predict", "rank")}.items():
        for method in methods:
            known = {name for name, entry in inspect.signature(getattr(kind, method)).parameters.items()}
            known -= {"self", "inputs", "pairs", "query", "documents"}
            assert not known & CALLS.keys(), method
    for kind in (EmbeddingModel, LateInteractionModel, Reranker, SparseModel):
        assert not inspect.signature(kind).parameters.keys() & LOADING.keys()
