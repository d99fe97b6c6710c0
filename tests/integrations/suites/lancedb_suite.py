"""LanceDB: tables that embed with our function, stored and opened again in a fresh process, and the reranker."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest
from lancedb.embeddings import get_registry
from lancedb.index import FTS
from lancedb.pydantic import LanceModel, Vector
from stores_case import StoresCase as Case
from stores_case import case, run_page, same

from fastembed_rt import EmbeddingModel
from fastembed_rt.integrations.lancedb import FastEmbedRtEmbeddings, FastEmbedRtReranker

OPEN_AGAIN = """
import json, sys
import lancedb
import fastembed_rt.integrations.lancedb
table = lancedb.connect(sys.argv[1]).open_table("texts")
found = table.search(sys.argv[2]).limit(3).to_list()
table.add([{"text": "a new house"}])
added = table.search().where("text = 'a new house'").to_list()[0]["vector"]
print(json.dumps({"texts": [row["text"] for row in found], "added": list(map(float, added))}))
"""


def make(case: Case, place: Path, **options: Any) -> Any:
    function = get_registry().get("fastembed-rt").create(name=case.dense, **options)

    class Row(LanceModel):
        text: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()  # type: ignore[valid-type]

    table = lancedb.connect(place).create_table("texts", schema=Row)
    table.add([{"text": text} for text in case.texts])
    return table


def test_a_table_holds_the_models_vectors_and_asks_with_the_query_prompt(case: Case, tmp_path: Path) -> None:
    assert get_registry().get("fastembed-rt") is FastEmbedRtEmbeddings
    table = make(case, tmp_path)
    stored = table.to_arrow()
    assert stored.schema.field("vector").type == pa.list_(pa.float32(), case.model.dim)
    same(stored["vector"].to_pylist(), case.documents)
    found = table.search(case.query).metric("cosine").limit(len(case.texts)).to_list()
    cosines = case.documents @ case.queried
    order = np.argsort(-cosines, kind="stable")
    assert [row["text"] for row in found] == [case.texts[k] for k in order]
    np.testing.assert_allclose([row["_distance"] for row in found], 1 - cosines[order], rtol=0, atol=1e-5)


def test_options_are_the_models_and_are_stored(case: Case, tmp_path: Path) -> None:
    table = make(case, tmp_path, model_kwargs={"threads": 1}, encode_kwargs={"truncate_dim": 8, "prompt": ""})
    same(table.to_arrow()["vector"].to_pylist(), case.model.encode(case.texts, prompt="", truncate_dim=8))
    (config,) = lancedb.connect(tmp_path).open_table("texts").embedding_functions.values()
    assert config.function == get_registry().get("fastembed-rt").create(
        name=case.dense, model_kwargs={"threads": 1}, encode_kwargs={"truncate_dim": 8, "prompt": ""}
    )
    assert config.function != get_registry().get("fastembed-rt").create(name=case.dense)
    assert config.function.client is FastEmbedRtEmbeddings.create(name=case.dense, model_kwargs={"threads": 1}).client
    private = FastEmbedRtEmbeddings.create(name=case.dense, model_kwargs={"threads": 1, "token": "secret"})
    assert private.safe_model_dump() == {"name": case.dense, "model_kwargs": {"threads": 1}}
    assert private.model_kwargs["token"] == "secret"
    assert b"secret" not in pickle.dumps(private)
    assert "secret" not in repr(private)
    again = pickle.loads(pickle.dumps(private))
    assert again.model_kwargs == again.safe_model_dump()["model_kwargs"] == {"threads": 1}
    with pytest.raises(ValueError, match="name") as caught:
        FastEmbedRtEmbeddings.create(model_kwargs={"token": "secret"})
    assert "secret" not in str(caught.value)


def test_a_rerankers_hub_token_is_neither_shown_nor_pickled(case: Case) -> None:
    private = FastEmbedRtReranker(case.reranker, model_kwargs={"threads": 1, "token": "secret"})
    assert private.model_kwargs["token"] == "secret"
    assert "secret" not in f"{private!r} {private} {vars(private)}"
    assert b"secret" not in pickle.dumps(private)
    assert pickle.loads(pickle.dumps(private)).model_kwargs == {"threads": 1}


@pytest.mark.parametrize("kind", ["list", "array", "chunked", "numpy"])
def test_columns_of_all_kinds(case: Case, kind: str) -> None:
    function = FastEmbedRtEmbeddings.create(name=case.dense)
    columns: dict[str, Any] = {
        "list": case.texts,
        "array": pa.array(case.texts),
        "chunked": pa.chunked_array([case.texts[:3], case.texts[3:]]),
        "numpy": np.array(case.texts),
    }
    same(function.compute_source_embeddings_with_retry(columns[kind]), case.documents)
    same(function.compute_query_embeddings_with_retry(case.query), [case.queried])


def test_options_that_the_framework_would_drop_are_refused(case: Case) -> None:
    with pytest.raises(ValueError, match="has no precision; options of the model go into model_kwargs"):
        get_registry().get("fastembed-rt").create(name=case.dense, precision="int8")


@pytest.mark.parametrize("wrong", [None, float("nan"), 3, b"a dog", {"a dog"}, {"text": "a dog"}])
def test_what_is_no_text_is_named(case: Case, wrong: Any) -> None:
    function = FastEmbedRtEmbeddings.create(name=case.dense)
    for call in (function.compute_query_embeddings, function.compute_source_embeddings, function.generate_embeddings):
        with pytest.raises(TypeError, match=r"inputs are .*(pass|decode)"):
            call(wrong)


def test_texts_come_from_a_generator_too(case: Case) -> None:
    function = FastEmbedRtEmbeddings.create(name=case.dense)
    same(function.compute_source_embeddings(text for text in case.texts), case.documents)


def test_a_row_without_a_text_has_no_vector(case: Case) -> None:
    function = FastEmbedRtEmbeddings.create(name=case.dense)
    first, second, third = function.compute_source_embeddings(pa.array([case.texts[0], None, case.texts[1]]))
    assert second is None
    same([first, third], case.documents[:2])
    assert function.compute_source_embeddings([None]) == [None]
    with pytest.raises(TypeError, match="text 1 is float, expected str"):
        function.compute_source_embeddings(["a", float("nan")])  # of columns, Arrow makes it null


@pytest.mark.parametrize(
    ("option", "kept"), [("error", None), ("drop", ["a", ""]), ("null", ["a", None, ""]), ("fill", ["a", None, ""])]
)
def test_a_table_takes_rows_without_a_text_as_it_is_told(
    case: Case, tmp_path: Path, option: str, kept: list[str | None] | None
) -> None:
    function = FastEmbedRtEmbeddings.create(name=case.dense)

    class Row(LanceModel):
        text: str | None = function.SourceField()
        vector: Vector(function.ndims()) | None = function.VectorField()  # type: ignore[valid-type]

    table = lancedb.connect(tmp_path).create_table("texts", schema=Row)
    rows = [{"text": "a"}, {"text": None}, {"text": ""}]
    if kept is None:
        with pytest.raises(RuntimeError, match="Set on_bad_vectors="):
            table.add(rows, on_bad_vectors=option)
        assert table.count_rows() == 0
        return
    table.add(rows, on_bad_vectors=option)
    stored = table.to_arrow().to_pylist()
    assert [row["text"] for row in stored] == kept
    zero = None if option == "null" else [0.0] * case.model.dim
    for row in stored:
        if row["text"] is None:
            assert row["vector"] == zero
        else:
            same(row["vector"], case.model.encode_document(row["text"]))


def test_empty_and_very_long_texts(case: Case) -> None:
    function = FastEmbedRtEmbeddings.create(name=case.dense)
    texts = ["", "a dog " * 200_000]
    same(function.compute_source_embeddings(texts), case.model.encode_document(texts))
    for text in texts:
        same(function.compute_query_embeddings(text), [case.model.encode_query(text)])
    assert function.compute_source_embeddings([]) == []
    found = FastEmbedRtReranker(case.reranker).rerank_vector(case.query, pa.table({"text": [None, *texts]}))
    from fastembed_rt import Reranker

    with Reranker(case.reranker) as model:
        scores = dict(zip(texts, model.predict([(case.query, text) for text in texts]).tolist(), strict=True))
    for row in found.to_pylist():
        assert row["_relevance_score"] == pytest.approx(scores[row["text"] or ""], abs=1e-6)


def test_a_thousand_rows_go_in_one_call(case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    encode = EmbeddingModel.encode_document
    monkeypatch.setattr(
        EmbeddingModel,
        "encode_document",
        lambda self, texts, **options: calls.append(len(texts)) or encode(self, texts, **options),
    )
    table = make(case, tmp_path)
    texts = [f"{text} {k}" for k in range(125) for text in case.texts]
    table.add([{"text": text} for text in texts])
    assert calls == [len(case.texts), 1000]
    same(table.to_arrow()["vector"].to_pylist()[len(case.texts) :], case.model.encode_document(texts))


def test_a_stored_table_opens_in_a_fresh_process(case: Case, tmp_path: Path) -> None:
    make(case, tmp_path)
    words = [sys.executable, "-c", OPEN_AGAIN, str(tmp_path), case.query]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    distances = ((case.documents - case.queried) ** 2).sum(axis=1)
    assert told["texts"] == [case.texts[k] for k in np.argsort(distances, kind="stable")[:3]]
    same(told["added"], case.model.encode_document("a new house"))


def test_asynchronous_tables_embed_and_ask_too(case: Case, tmp_path: Path) -> None:
    import asyncio

    make(case, tmp_path)

    async def ask() -> list[Any]:
        table = await (await lancedb.connect_async(tmp_path)).open_table("texts")
        return await (await table.search(case.query)).limit(2).to_list()

    found = asyncio.run(ask())
    distances = ((case.documents - case.queried) ** 2).sum(axis=1)
    assert [row["text"] for row in found] == [case.texts[k] for k in np.argsort(distances, kind="stable")[:2]]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("score", ["relevance", "all"])
@pytest.mark.parametrize("kind", ["vector", "fts", "hybrid"])
def test_the_reranker_orders_what_was_found(case: Case, tmp_path: Path, late: bool, score: str, kind: str) -> None:
    table = make(case, tmp_path)
    if kind != "vector":
        table.create_index("text", config=FTS())
    name = case.late if late else case.reranker
    reranker = FastEmbedRtReranker(name, return_score=score, late_interaction=late)
    asked = case.query if kind != "fts" else "dog"
    words = {"query_string": asked} if kind == "vector" else {}
    rows = table.search(asked, query_type=kind).limit(len(case.texts)).rerank(reranker, **words).to_list()
    assert rows
    if asked == case.query:
        scores = case.late_scores if late else case.scores
        wanted = dict(zip(case.texts, scores.tolist(), strict=True))
        assert len(rows) == len(case.texts)
        for row in rows:
            assert row["_relevance_score"] == pytest.approx(wanted[row["text"]], abs=1e-6)
    given = [row["_relevance_score"] for row in rows]
    assert given == sorted(given, reverse=True)
    assert ("_distance" in rows[0]) == (score == "all" and kind != "fts")


def test_the_reranker_says_what_it_cannot_do(case: Case, tmp_path: Path) -> None:
    table = make(case, tmp_path)
    reranker = FastEmbedRtReranker(case.reranker, column="body")
    with pytest.raises(ValueError, match="no column 'body' to compare with the query; they have text"):
        table.search(case.query).rerank(reranker, query_string=case.query).to_list()
    with pytest.raises(ValueError, match="score must be either"):
        FastEmbedRtReranker(case.reranker, return_score="best")
    empty = table.search(case.query).where("text = 'nobody'").to_arrow()
    assert len(FastEmbedRtReranker(case.reranker).rerank_vector(case.query, empty)) == 0
    assert str(reranker) == f"FastEmbedRtReranker(model={case.reranker})"


def test_the_page_runs(case: Case, tmp_path: Path) -> None:
    names = run_page("lancedb.md", case, tmp_path)
    assert [set(row) for row in names["found"]] == [{"text", "vector", "_relevance_score"}] * 2
    same(
        names["table"].to_arrow()["vector"].to_pylist(), case.model.encode_document(["a dog runs", "the house is red"])
    )
