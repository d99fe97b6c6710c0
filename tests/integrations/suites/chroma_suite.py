"""Chroma: collections that embed with our functions, stored and opened again in a fresh process."""

from __future__ import annotations

import json
import pickle
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import chromadb
import numpy as np
import pytest
from chromadb import K, Knn, Schema, Search, SparseVectorIndexConfig
from chromadb.utils.embedding_functions import known_embedding_functions, sparse_known_embedding_functions
from stores_case import StoresCase as Case
from stores_case import case, run_page, same

from fastembed_rt.integrations.chroma import FastEmbedRtEmbeddingFunction, FastEmbedRtSparseEmbeddingFunction

LONG = "a dog " * 200_000  # a megabyte
OPEN_AGAIN = """
import json, sys
import chromadb
import fastembed_rt.integrations.chroma
place = sys.argv[1]
client = chromadb.HttpClient(port=int(place)) if place.isdecimal() else chromadb.PersistentClient(place)
collection = client.get_collection("texts")
found = collection.query(query_texts=[sys.argv[2]], n_results=3, include=["documents", "distances", "embeddings"])
collection.add(ids=["new"], documents=["a new house"])
added = collection.get(ids=["new"], include=["embeddings"])["embeddings"][0]
print(json.dumps({
    "documents": found["documents"][0],
    "distances": found["distances"][0],
    "embeddings": [row.tolist() for row in found["embeddings"][0]],
    "added": added.tolist(),
}))
"""


@contextmanager
def chroma_run(folder: Path) -> Iterator[int]:
    """Chroma's own server on a folder: its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    command = [str(Path(sys.executable).with_name("chroma")), "run", "--path", str(folder), "--port", str(port)]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            for _ in range(1200):
                assert process.poll() is None, (folder / "log").read_text()
                with socket.socket() as trying:
                    if trying.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            else:
                raise AssertionError("it does not listen")
            yield port
        finally:
            process.terminate()
            process.wait(timeout=60)


def near(found: Any, wanted: Any) -> None:
    """Chroma divides vectors of a cosine space by their length once more."""
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-7)


def ids(case: Case) -> list[str]:
    return [str(k) for k in range(len(case.texts))]


def test_both_are_registered_by_name() -> None:
    assert known_embedding_functions["fastembed_rt"] is FastEmbedRtEmbeddingFunction
    assert sparse_known_embedding_functions["fastembed_rt_sparse"] is FastEmbedRtSparseEmbeddingFunction


def test_documents_and_queries_have_their_prompts(case: Case) -> None:
    function = FastEmbedRtEmbeddingFunction(case.dense)
    same(function(case.texts), case.documents)
    same(function.embed_query([case.query]), [case.queried])
    assert all(vector.dtype == np.float32 for vector in function(case.texts))
    for one in (function, FastEmbedRtSparseEmbeddingFunction(case.sparse)):
        with pytest.raises(TypeError, match="one str; pass a list"):
            one("abc")  # not three texts
    shorter = FastEmbedRtEmbeddingFunction(case.dense, {"threads": 1}, {"truncate_dim": 7, "prompt": ""})
    same(shorter(case.texts), case.model.encode(case.texts, prompt="", truncate_dim=7))


def test_a_path_is_stored_as_a_name_and_an_open_model_is_not(case: Case) -> None:
    for kind in (FastEmbedRtEmbeddingFunction, FastEmbedRtSparseEmbeddingFunction):
        assert kind(Path(case.dense)).get_config()["model"] == case.dense
        with pytest.raises(TypeError, match="model is EmbeddingModel, expected a name"):
            kind(case.model)  # type: ignore[arg-type]


def test_texts_that_are_none_empty_or_very_long(case: Case) -> None:
    function, sparse = FastEmbedRtEmbeddingFunction(case.dense), FastEmbedRtSparseEmbeddingFunction(case.sparse)
    collection = chromadb.EphemeralClient().create_collection("odd", embedding_function=function)
    for wrong in (None, float("nan")):
        for one in (function, function.embed_query, sparse, sparse.embed_query):
            with pytest.raises(TypeError, match=r"text 1 is (NoneType|float), expected str"):
                one(["a", wrong])  # type: ignore[list-item]
        with pytest.raises(ValueError, match="Expected document to be a str"):
            collection.add(ids=["0", "1"], documents=["a", wrong])  # type: ignore[list-item]
    for wrong in (None, float("nan"), {"a"}, {"a": 1}):
        for one in (function, function.embed_query, sparse, sparse.embed_query):
            with pytest.raises(TypeError, match="inputs are"):
                one(wrong)  # type: ignore[arg-type]
    assert collection.count() == 0
    same(function(["", LONG]), case.model.encode_document(["", LONG]))
    same(function.embed_query(["", LONG]), case.model.encode_query(["", LONG]))
    collection.add(ids=["empty", "long"], documents=["", LONG])
    near(collection.get(include=["embeddings"])["embeddings"], case.model.encode_document(["", LONG]))


def test_configurations_come_back_and_wrong_ones_are_refused(case: Case) -> None:
    function = FastEmbedRtEmbeddingFunction(case.dense, {"threads": 1}, {"truncate_dim": 7})
    config = function.get_config()
    assert json.loads(json.dumps(config)) == config
    assert FastEmbedRtEmbeddingFunction.build_from_config(config).get_config() == config
    assert not function.is_legacy()
    assert function.default_space() == "cosine"
    assert FastEmbedRtEmbeddingFunction.build_from_config(config).client is function.client  # opened once
    for kind in (FastEmbedRtEmbeddingFunction, FastEmbedRtSparseEmbeddingFunction):
        private = kind(case.dense, {"threads": 1, "token": "a-secret"})
        assert private.get_config()["model_kwargs"] == {"threads": 1}
        assert private.model_kwargs["token"] == "a-secret"
        assert "a-secret" not in f"{private!r} {vars(private)}"
        assert b"a-secret" not in pickle.dumps(private)
        with pytest.raises(ValueError, match="is not one of fastembed-rt") as caught:
            kind.build_from_config({**config, "model_kwargs": {"token": "a-secret"}, "device": "cpu"})
        assert "a-secret" not in str(caught.value)
    for wrong in ({}, {"model": 1}, {"model": "x", "device": "cuda"}):
        with pytest.raises(ValueError, match="is not one of fastembed-rt"):
            FastEmbedRtEmbeddingFunction.build_from_config(wrong)


def test_a_collection_holds_the_models_vectors_and_finds_the_nearest(case: Case) -> None:
    client = chromadb.EphemeralClient()
    collection = client.create_collection("held", embedding_function=FastEmbedRtEmbeddingFunction(case.dense))
    assert collection.configuration["hnsw"]["space"] == "cosine"
    collection.add(ids=ids(case), documents=case.texts)
    near(collection.get(include=["embeddings"])["embeddings"], case.documents)
    found: Any = collection.query(query_texts=[case.query], n_results=len(case.texts))
    cosines = case.documents @ case.queried
    order = np.argsort(-cosines, kind="stable")
    assert found["documents"][0] == [case.texts[k] for k in order]
    np.testing.assert_allclose(found["distances"][0], 1 - cosines[order], rtol=0, atol=1e-5)
    collection.upsert(ids=["0"], documents=[case.texts[1]])
    near(collection.get(ids=["0"], include=["embeddings"])["embeddings"][0], case.documents[1])


@pytest.mark.parametrize("space", ["ip", "l2"])
def test_spaces_that_do_not_normalize_hold_them_to_the_bit(case: Case, space: str) -> None:
    function = FastEmbedRtEmbeddingFunction(case.dense)
    client = chromadb.EphemeralClient()
    collection = client.create_collection(
        f"of-{space}", embedding_function=function, configuration={"hnsw": {"space": space}}
    )
    collection.add(ids=ids(case), documents=case.texts)
    same(collection.get(include=["embeddings"])["embeddings"], case.documents)
    found: Any = collection.query(query_texts=[case.query], n_results=len(case.texts))
    order = np.argsort(-(case.documents @ case.queried), kind="stable")
    assert found["documents"][0] == [case.texts[k] for k in order]


def test_a_thousand_documents_go_in_one_call(case: Case) -> None:
    collection = chromadb.EphemeralClient().create_collection(
        "many",
        embedding_function=FastEmbedRtEmbeddingFunction(case.dense),
        configuration={"hnsw": {"space": "ip"}},
    )
    texts = [f"{text} {k}" for k in range(125) for text in case.texts]
    collection.add(ids=[str(k) for k in range(len(texts))], documents=texts)
    same(collection.get(include=["embeddings"])["embeddings"], case.model.encode_document(texts))


def test_a_stored_collection_opens_in_a_fresh_process(case: Case, tmp_path: Path) -> None:
    client = chromadb.PersistentClient(str(tmp_path))
    collection = client.create_collection("texts", embedding_function=FastEmbedRtEmbeddingFunction(case.dense))
    collection.add(ids=ids(case), documents=case.texts)
    check_opened_again(case, str(tmp_path))


def check_opened_again(case: Case, place: str) -> None:
    """A fresh process opens the collection at a path or a port, asks it and adds to it."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN_AGAIN, place, case.query], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    order = np.argsort(-(case.documents @ case.queried), kind="stable")[:3]
    assert told["documents"] == [case.texts[k] for k in order]
    near(told["embeddings"], case.documents[order])
    near(told["added"], case.model.encode_document("a new house"))


def test_a_collection_of_a_server_opens_in_a_fresh_process_after_it_started_again(case: Case, tmp_path: Path) -> None:
    with chroma_run(tmp_path) as port:
        client = chromadb.HttpClient(port=port)
        collection = client.create_collection("texts", embedding_function=FastEmbedRtEmbeddingFunction(case.dense))
        collection.add(ids=ids(case), documents=case.texts)
    with chroma_run(tmp_path) as port:
        check_opened_again(case, str(port))


async def test_the_asynchronous_client_of_a_server_embeds_too(case: Case, tmp_path: Path) -> None:
    with chroma_run(tmp_path) as port:
        client = await chromadb.AsyncHttpClient(port=port)
        function = FastEmbedRtEmbeddingFunction(case.dense)
        collection = await client.create_collection("texts", embedding_function=function)
        await collection.add(ids=ids(case), documents=case.texts)
        found: Any = await collection.query(query_texts=[case.query], n_results=3)
    order = np.argsort(-(case.documents @ case.queried), kind="stable")[:3]
    assert found["documents"][0] == [case.texts[k] for k in order]


def test_another_function_for_a_stored_collection_is_refused(case: Case, tmp_path: Path) -> None:
    client = chromadb.PersistentClient(str(tmp_path))
    client.create_collection("texts", embedding_function=FastEmbedRtEmbeddingFunction(case.dense))

    class Other(FastEmbedRtEmbeddingFunction):
        @staticmethod
        def name() -> str:
            return "another"

    with pytest.raises(ValueError, match="another"):
        client.get_collection("texts", embedding_function=Other(case.dense))


def test_sparse_vectors_are_the_models(case: Case) -> None:
    function = FastEmbedRtSparseEmbeddingFunction(case.sparse)
    for found, wanted in (
        (function(case.texts), case.weights),
        (function.embed_query([case.query]), [case.query_weights]),
    ):
        for vector, one in zip(found, wanted, strict=True):
            assert vector.indices == one.indices.tolist()
            same(vector.values, one.values)
    config = function.get_config()
    assert FastEmbedRtSparseEmbeddingFunction.build_from_config(config).get_config() == config


def test_a_schema_takes_the_sparse_function(case: Case, tmp_path: Path) -> None:
    """Local Chroma stores sparse vectors with the schema but does not search them, which its server does."""
    schema = Schema()
    function = FastEmbedRtSparseEmbeddingFunction(case.sparse)
    schema.create_index(config=SparseVectorIndexConfig(source_key=K.DOCUMENT, embedding_function=function), key="words")
    told = schema.serialize_to_json()
    assert json.dumps(function.get_config(), sort_keys=True) in json.dumps(told, sort_keys=True)
    again = Schema.deserialize_from_json(told)
    assert again.serialize_to_json() == told
    Search().rank(Knn(query=case.query, key="words"))


def test_the_page_runs(case: Case, tmp_path: Path) -> None:
    names = run_page("chroma.md", case, tmp_path)
    assert len(names["found"]["documents"][0]) == 1
    near(
        names["collection"].get(ids=["1"], include=["embeddings"])["embeddings"][0],
        case.model.encode_document("a dog runs"),
    )
