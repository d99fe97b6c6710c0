"""DuckDB: SQL functions that embed a column, in memory and in a stored database."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from stores_case import StoresCase as Case
from stores_case import case, run_page, same

from fastembed_rt import EmbeddingModel
from fastembed_rt.integrations.duckdb import register


@pytest.fixture
def connection(case: Case) -> Any:
    found = duckdb.connect()
    found.execute("CREATE TABLE texts (number INTEGER, text VARCHAR)")
    found.executemany("INSERT INTO texts VALUES (?, ?)", list(enumerate(case.texts)))
    return found


def vectors(relation: Any) -> Any:
    return np.array([row[0] for row in relation.fetchall()], np.float32)


def test_a_column_becomes_the_models_vectors(case: Case, connection: Any) -> None:
    model = register(connection, case.dense)
    assert isinstance(model, EmbeddingModel)
    same(vectors(connection.sql("SELECT embed(text) FROM texts ORDER BY number")), case.documents)
    same(vectors(connection.sql(f"SELECT embed_query('{case.query}')")), [case.queried])
    ((kind,),) = connection.sql("SELECT typeof(embed('a'))").fetchall()
    assert kind == f"FLOAT[{model.dim}]"


def test_the_nearest_in_sql(case: Case, connection: Any) -> None:
    register(connection, case.model)
    connection.execute("CREATE TABLE vectors AS SELECT number, text, embed(text) AS vector FROM texts")
    found = connection.execute(
        f"SELECT text, array_cosine_similarity(vector, q.v) AS score FROM vectors, "
        f"(SELECT embed_query($1)::FLOAT[{case.model.dim}] AS v) q ORDER BY score DESC",
        [case.query],
    ).fetchall()
    cosines = case.documents @ case.queried
    order = np.argsort(-cosines, kind="stable")
    assert [row[0] for row in found] == [case.texts[k] for k in order]
    np.testing.assert_allclose([row[1] for row in found], cosines[order], rtol=0, atol=1e-5)


def test_null_gives_null_and_empty_does_not(case: Case, connection: Any) -> None:
    register(connection, case.dense)
    connection.execute("INSERT INTO texts VALUES (100, NULL), (101, ''), (102, NULL)")
    rows = connection.sql("SELECT embed(text) FROM texts ORDER BY number").fetchall()
    assert [row[0] is None for row in rows[-3:]] == [True, False, True]
    same([row[0] for row in rows[:-3]], case.documents)
    same(rows[-2][0], case.model.encode_document(""))
    assert connection.sql("SELECT embed(NULL)").fetchall() == [(None,)]
    assert connection.sql("SELECT embed(text) FROM texts WHERE number > 1000").fetchall() == []
    assert connection.sql("SELECT embed(text) FROM texts WHERE text IS NULL").fetchall() == [(None,), (None,)]


def test_a_text_of_a_megabyte_and_what_is_none(case: Case, connection: Any) -> None:
    register(connection, case.dense)
    wanted = case.model.encode_document("a dog " * 200_000)
    same(vectors(connection.sql("SELECT embed(repeat('a dog ', 200000))")), [wanted])
    for value in ("1", "'nan'::DOUBLE"):
        with pytest.raises(duckdb.BinderException, match=r"embed\(VARCHAR\)"):
            connection.sql(f"SELECT embed({value})")


def test_a_table_of_many_rows(case: Case, connection: Any) -> None:
    register(connection, case.model)
    texts = [f"{text} {k}" for k in range(700) for text in case.texts]  # several of DuckDB's vectors
    connection.execute(
        "CREATE TABLE many AS SELECT * FROM (SELECT unnest($1) AS text, unnest($2) AS number)",
        [texts, [*range(len(texts))]],
    )
    same(vectors(connection.sql("SELECT embed(text) FROM many ORDER BY number")), case.model.encode_document(texts))


def test_names_and_options(case: Case, connection: Any) -> None:
    register(connection, case.dense, name="short", model_kwargs={"threads": 1}, truncate_dim=6)
    same(
        vectors(connection.sql("SELECT short(text) FROM texts ORDER BY number")),
        case.model.encode_document(case.texts, truncate_dim=6),
    )
    for option in ("precision", "promt"):
        with pytest.raises(ValueError, match=f"{option} is not for columns"):
            register(connection, case.dense, name="wrong", **{option: "int8"})
    with pytest.raises(duckdb.Error, match="short"):
        register(connection, case.dense, name="short")


def test_stored_vectors_are_there_in_another_connection(case: Case, tmp_path: Path) -> None:
    with duckdb.connect(tmp_path / "db") as first:
        register(first, case.model)
        first.execute("CREATE TABLE kept AS SELECT embed(unnest($1)) AS vector", [case.texts])
    with duckdb.connect(tmp_path / "db") as second:
        same(vectors(second.sql("SELECT vector FROM kept")), case.documents)
        with pytest.raises(duckdb.CatalogException, match="embed"):  # functions are a connection's: register again
            second.sql("SELECT embed('a')")


def test_the_page_runs(case: Case, tmp_path: Path) -> None:
    found = run_page("duckdb.md", case, tmp_path)["found"]
    scores = case.model.encode_document(["a dog runs", "the house is red"]) @ case.model.encode_query("which dog runs?")
    np.testing.assert_allclose([score for _, score in found], sorted(scores, reverse=True), rtol=0, atol=1e-5)
