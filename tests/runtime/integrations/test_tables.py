"""Columns of pandas and polars: vectors and similarities, with nulls where there is no text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError, InvalidTypeError
from fastembed_rt.integrations import pandas as of_pandas
from fastembed_rt.integrations import polars as of_polars

TEXTS = ["a dog runs", None, "the house is red", "a cat sleeps", None]
KNOWN = [0, 2, 3]


@pytest.fixture(scope="module")
def wanted(model: EmbeddingModel) -> Any:
    return model.encode_document([text for text in TEXTS if text is not None])


def test_an_expression_of_polars_gives_vectors(model: EmbeddingModel, wanted: Any) -> None:
    frame = pl.DataFrame({"text": TEXTS, "n": range(5)})
    made = frame.with_columns(vector=of_polars.embed("text", model, role="document"))
    assert made.schema["vector"] == pl.Array(pl.Float32, model.dim)
    assert made["vector"].is_null().to_list() == [text is None for text in TEXTS]
    np.testing.assert_array_equal(made["vector"].drop_nulls().to_numpy(), wanted)
    namespace: Any = pl.col("text").fastembed_rt
    lazy = frame.lazy().with_columns(vector=namespace.embed(model, role="document"))
    assert lazy.collect_schema()["vector"] == pl.Array(pl.Float32, model.dim)
    assert lazy.collect().equals(made)
    assert lazy.filter(pl.col("n") == 2).collect()["vector"].to_list() == [made["vector"][2].to_list()]
    streamed = lazy.collect(engine="streaming")["vector"].drop_nulls().to_numpy()
    np.testing.assert_allclose(streamed, wanted, rtol=0, atol=1e-6)


def test_without_a_role_texts_have_the_default_prompt(model: EmbeddingModel, model_dir: Path) -> None:
    options = {"default_prompt_name": "query"}
    queried = model.encode_query(["a dog runs"])
    made = pl.DataFrame({"text": ["a dog runs"]}).select(of_polars.embed("text", str(model_dir), model_kwargs=options))
    np.testing.assert_array_equal(made["text"].to_numpy(), queried)
    of_series = of_pandas.embed(pd.Series(["a dog runs"]), str(model_dir), model_kwargs=options)
    np.testing.assert_array_equal(of_series.iloc[0], queried[0])


def test_polars_columns_that_are_empty_or_all_null(model: EmbeddingModel) -> None:
    for texts in ([], [None, None]):
        frame = pl.DataFrame({"text": texts}, schema={"text": pl.String})
        made = frame.select(of_polars.embed("text", model))
        assert made["text"].to_list() == texts
        assert made.schema["text"] == pl.Array(pl.Float32, model.dim)
        assert made.select(of_polars.similarity("text", np.ones(model.dim), model))["text"].to_list() == texts


def test_a_series_of_pandas_gives_vectors(model: EmbeddingModel, wanted: Any) -> None:
    index = list("vwxyz")
    for dtype in ("object", "str", "string"):
        texts = pd.Series(TEXTS, index=index, name="text", dtype=dtype)
        accessor: Any = texts.fastembed_rt
        for made in (of_pandas.embed(texts, model, role="document"), accessor.embed(model, role="document")):
            assert list(made.index) == index and made.name == "text"
            assert [vector is None for vector in made] == [text is None for text in TEXTS]
            np.testing.assert_array_equal(np.stack(made.dropna().to_list()), wanted)
            assert made.iloc[0].dtype == np.float32
    assert of_pandas.embed(pd.Series([], dtype="str"), model).empty


@pytest.mark.parametrize("own", [True, False])
def test_similarities_are_the_models_or_the_cosine(model: EmbeddingModel, wanted: Any, own: bool) -> None:
    query = model.encode_query("a dog")
    scores = model.similarity(wanted, query[None])[:, 0]
    given = model if own else None
    texts = pl.DataFrame({"text": TEXTS}).select(of_polars.embed("text", model, role="document").alias("vector"))
    namespace: Any = pl.col("vector").fastembed_rt
    of_vectors = texts.select(namespace.similarity(query, given))["vector"]
    assert of_vectors.is_null().to_list() == [text is None for text in TEXTS]
    np.testing.assert_allclose(of_vectors.drop_nulls().to_numpy(), scores, rtol=0, atol=1e-6)
    as_lists = texts.with_columns(pl.col("vector").arr.to_list())
    assert as_lists.select(of_polars.similarity("vector", query, given))["vector"].equals(of_vectors)
    series = of_pandas.embed(pd.Series(TEXTS), model, role="document")
    accessor: Any = series.fastembed_rt
    found = accessor.similarity(query, given)
    assert found.dtype == np.float32
    assert list(np.flatnonzero(found.isna())) == [1, 4]
    np.testing.assert_allclose(found[KNOWN], scores, rtol=0, atol=1e-6)


def test_options_and_names_of_models(model_dir: Path, model: EmbeddingModel) -> None:
    frame = pl.DataFrame({"text": ["a dog", "a cat"]})
    made = frame.select(of_polars.embed("text", model_dir, model_kwargs={"threads": 1}, truncate_dim=8, prompt="the "))
    assert made.schema["text"] == pl.Array(pl.Float32, 8)
    np.testing.assert_array_equal(made["text"].to_numpy(), model.encode(frame["text"], truncate_dim=8, prompt="the "))
    with pytest.raises(InvalidInputError, match="precision is not for columns"):
        of_polars.embed("text", model, precision="int8")
    with pytest.raises(InvalidInputError, match="role 'passage'"):
        of_pandas.embed(pd.Series(["a"]), model, role="passage")
    with pytest.raises(InvalidInputError, match="2 dimensions"):
        of_polars.similarity("text", [[1.0, 2.0]])
    with pytest.raises(InvalidTypeError, match="int"):
        of_pandas.embed(pd.Series([1, 2]), model)


def test_what_is_no_column_is_named(model: EmbeddingModel) -> None:
    query = np.ones(model.dim, np.float32)
    wrong: tuple[Any, ...] = (None, ["a"], pd.DataFrame({"text": ["a"]}), pl.Series(["a"]))
    for column in wrong:
        with pytest.raises(InvalidTypeError, match="pass a Series, such as"):
            of_pandas.embed(column, model)
        with pytest.raises(InvalidTypeError, match="pass a Series, such as"):
            of_pandas.similarity(column, query)
        with pytest.raises(InvalidTypeError, match="pass its name or an expression"):
            of_polars.embed(column, model)
        with pytest.raises(InvalidTypeError, match="pass its name or an expression"):
            of_polars.similarity(column, query)
