"""Columns of pyarrow, pandas, polars and numpy, rows without a text, and token counts, for every task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from checkpoints import TEXTS
from cross_encoders import save_classifier
from exports import quick
from multi_vectors import save_multi_vector
from sparse_encoders import save_splade

from fastembed_rt import EmbeddingModel, LateInteractionModel, Reranker, SparseModel
from fastembed_rt.errors import InvalidInputError, InvalidTypeError
from fastembed_rt.text import columns

NULLS = ["a dog", None, "", None]


def library(name: str) -> Any:
    return pytest.importorskip(name)


COLUMNS: dict[str, Callable[[list[Any]], Any]] = {
    "pyarrow": pa.array,
    "pyarrow large": lambda texts: pa.array(texts, pa.large_string()),
    "pyarrow view": lambda texts: pa.array(texts, pa.string_view()),
    "pyarrow dictionary": lambda texts: pa.array(texts, pa.string()).dictionary_encode(),
    "pyarrow slice": lambda texts: pa.array(["x", *texts, "y"])[1:-1],
    "pyarrow chunked": lambda texts: pa.chunked_array([texts[:2], [], texts[2:]], pa.string()),
    "pyarrow chunked dictionary": lambda texts: pa.chunked_array(
        [texts[:1], texts[1:]], pa.string()
    ).dictionary_encode(),
    "numpy objects": lambda texts: np.array(texts, dtype=object),
    "pandas objects": lambda texts: library("pandas").Series(texts, dtype=object, index=range(9, 9 - len(texts), -1)),
    "pandas python": lambda texts: library("pandas").Series(texts, dtype="string[python]"),
    "pandas pyarrow": lambda texts: library("pandas").Series(texts, dtype="string[pyarrow]"),
    "pandas str": lambda texts: library("pandas").Series(texts, dtype="str"),
    "pandas category": lambda texts: library("pandas").Series(texts, dtype="category"),
    "pandas index": lambda texts: library("pandas").Index(texts, dtype=object),
    "polars": lambda texts: library("polars").Series(texts, dtype=library("polars").String),
    "polars categories": lambda texts: library("polars").Series(texts, dtype=library("polars").Categorical),
}


@pytest.fixture(params=list(COLUMNS))
def column(request: pytest.FixtureRequest) -> Callable[[list[Any]], Any]:
    return COLUMNS[request.param]


@pytest.fixture(scope="module")
def rest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Reranker, SparseModel, LateInteractionModel]]:
    root = tmp_path_factory.mktemp("columns")
    made = {"a": save_classifier(root / "ca"), "b": save_splade(root / "cb"), "c": save_multi_vector(root / "cc")}
    for name, checkpoint in made.items():
        quick(checkpoint, root / name)
    with Reranker(root / "a") as reranker, SparseModel(root / "b") as sparse, LateInteractionModel(root / "c") as late:
        yield reranker, sparse, late


# --- columns ---------------------------------------------------------------------------------------------------------


def test_a_column_gives_what_its_texts_give(column: Callable[[list[Any]], Any], model: EmbeddingModel) -> None:
    given = column(TEXTS)
    np.testing.assert_array_equal(model.encode(given), model.encode(TEXTS))
    np.testing.assert_array_equal(np.array(list(model.embed(given))), model.encode(TEXTS))
    np.testing.assert_array_equal(model.encode_query(given), model.encode_query(TEXTS))
    np.testing.assert_array_equal(model.count_tokens(given), model.count_tokens(TEXTS))
    assert model.encode(column([])).shape == (0, 24)


class Escaped(str):
    """As markupsafe's Markup, which templates of Flask and Jinja give: what is added to it is escaped."""

    def __add__(self, other: str) -> Escaped:
        return Escaped(str.__add__(self, other.replace("<", "&lt;")))

    def __radd__(self, other: str) -> Escaped:
        return Escaped(str.__add__(other.replace("<", "&lt;"), self))

    def encode(self, *_: Any, **__: Any) -> bytes:
        return b"another text"

    def isascii(self) -> bool:
        return True


def test_of_classes_below_str_the_characters_count(
    model: EmbeddingModel, rest: tuple[Reranker, SparseModel, LateInteractionModel]
) -> None:
    reranker, sparse, late = rest
    prompt, texts = "the < of: ", ["a < dog", "été"]
    odd, wanted = [Escaped(text) for text in texts], model.encode([prompt + text for text in texts])
    for given, before in ((odd, prompt), (texts, Escaped(prompt)), (odd, Escaped(prompt))):
        np.testing.assert_array_equal(model.encode(given, prompt=before), wanted)
        np.testing.assert_array_equal(list(model.embed(given, prompt=before)), wanted)
        np.testing.assert_array_equal(model.encode(given[0], prompt=before), wanted[0])
        assert model.count_tokens(given[0], prompt=before) == model.count_tokens(prompt + texts[0])
        pairs = [(given[0], given[1])]
        np.testing.assert_array_equal(
            reranker.predict(pairs, prompt=before), reranker.predict([(prompt + texts[0], texts[1])])
        )
        found = sparse.encode(given[0], prompt=before)
        np.testing.assert_array_equal(found.to_dense(), sparse.encode(prompt + texts[0]).to_dense())
        for one, other in zip(
            late.encode_query(given, prompt=before), late.encode_query(texts, prompt=prompt), strict=True
        ):
            np.testing.assert_array_equal(one, other)
    before_all, model.prompts = model.prompts, {"odd": Escaped(prompt)}
    try:
        np.testing.assert_array_equal(model.encode(texts, prompt_name="odd"), wanted)
    finally:
        model.prompts = before_all


def test_nulls_of_a_column(column: Callable[[list[Any]], Any], model: EmbeddingModel) -> None:
    given = column(NULLS)
    with pytest.raises(InvalidTypeError, match=r"text 1 is \w+, expected str; leave rows without a text out"):
        model.count_tokens(given)
    for call in (model.encode, model.encode_document, lambda texts: list(model.embed(texts))):
        with pytest.raises(
            InvalidTypeError, match=r"text 1 is \w+, expected str; for rows without a text pass on_null="
        ):
            call(given)
    wanted = model.encode(["a dog", "", "", ""])
    np.testing.assert_array_equal(model.encode(given, on_null="empty"), wanted)
    np.testing.assert_array_equal(np.array(list(model.embed(given, on_null="empty"))), wanted)
    wanted[[1, 3]] = 0
    np.testing.assert_array_equal(model.encode(given, on_null="zero"), wanted)
    np.testing.assert_array_equal(np.array(list(model.embed(given, on_null="zero"))), wanted)
    assert not model.encode(column([None]), on_null="zero").any()


@pytest.mark.parametrize("dtype", ["U", "O", "T"])
def test_numpy_arrays_of_each_kind_of_text(dtype: str, model: EmbeddingModel) -> None:
    array = np.array(TEXTS, dtype=dtype)
    np.testing.assert_array_equal(model.encode(array), model.encode(TEXTS))
    assert all(type(text) is str for text in columns.column(array)[1])  # type: ignore[index]


@pytest.mark.parametrize("null", [None, float("nan"), np.float64("nan"), np.float32("nan")])
def test_nulls_of_a_list(null: Any, model: EmbeddingModel) -> None:
    with pytest.raises(InvalidInputError, match="text 2 is "):
        model.encode(["a", "b", null])
    assert not model.encode(["a", null], on_null="zero")[1].any()


@pytest.mark.parametrize("value", [1, 1.5, b"a", float("inf"), True, [], np.nan * np.ones(1)])
def test_what_is_no_null_stays_an_error(value: Any, model: EmbeddingModel) -> None:
    for on_null in ("error", "empty", "zero"):
        with pytest.raises(InvalidTypeError, match=f"text 1 is {type(value).__name__}, expected str"):
            model.encode(["a", value], on_null=on_null)


def test_columns_of_something_else(model: EmbeddingModel) -> None:
    wrong = {
        "a pyarrow column of int64, expected strings": pa.array([1, 2]),
        "a pyarrow column of binary, expected strings; cast it": pa.array([b"a"]),
        "a pyarrow column of list<": pa.chunked_array([[["a"]]]),
        "text 0 is int, expected str": np.array([1, 2]),
        "text 0 is ndarray, expected str": np.array([["a"]]),
        "pyarrow.Table, whose names or keys would be taken for texts": pa.table({"a": ["x"]}),
        "pyarrow.RecordBatch, whose names": pa.RecordBatch.from_pydict({"a": ["x"]}),
        "inputs are StringScalar; pass a str": pa.scalar("a"),
    }
    for message, given in wrong.items():
        with pytest.raises(InvalidTypeError, match=message):
            model.encode(given)
    with pytest.raises(InvalidInputError, match="on_null 'drop' is not known; known: error, empty, zero"):
        model.encode(["a"], on_null="drop")


def test_tables_of_other_libraries_are_refused_as_before(model: EmbeddingModel) -> None:
    pandas, polars = library("pandas"), library("polars")
    for given in (pandas.DataFrame({"a": ["x"]}), polars.DataFrame({"a": ["x"]}), {"a": "x"}):
        with pytest.raises(InvalidTypeError, match="whose names or keys would be taken for texts"):
            model.encode(given)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="a polars column of Int64, expected String"):
        model.encode(polars.Series([1]))


def test_a_column_is_turned_into_str_piece_by_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    class Array:
        """One of pyarrow's that says what is asked of it."""

        type = pa.string()
        asked: ClassVar[list[tuple[int, int]]] = []

        def __len__(self) -> int:
            return 25

        def __getitem__(self, rows: slice) -> Any:
            self.asked.append((rows.start, rows.stop))
            return pa.array([f"{k}" for k in range(rows.start, rows.stop)])

        def to_numpy(self) -> None:
            raise AssertionError("the whole column at once")

    Array.__module__ = "pyarrow.lib"
    monkeypatch.setattr(columns, "PIECE", 10)
    found = columns.column(Array())
    assert found is not None
    count, texts = found
    assert (count, next(texts), Array.asked) == (25, "0", [(0, 10)])
    assert list(texts)[-1] == "24"
    assert Array.asked == [(0, 10), (10, 20), (20, 25)]


def test_no_library_of_columns_is_imported(model_dir: Path, run_script: Any) -> None:
    done = run_script(
        "import sys; from fastembed_rt import EmbeddingModel; import numpy as np\n"
        "EmbeddingModel(sys.argv[1]).encode(np.array(['a', None], dtype=object), on_null='zero')\n"
        "print(sorted({'pyarrow', 'pandas', 'polars'} & set(sys.modules)))",
        model_dir,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_other_tasks_take_columns_and_nulls(rest: tuple[Reranker, SparseModel, LateInteractionModel]) -> None:
    reranker, sparse, late = rest
    given, nulls = pa.array(TEXTS), pa.array(NULLS)
    for one, wanted in zip(sparse.encode(given), sparse.encode(TEXTS), strict=True):
        np.testing.assert_array_equal(one.values, wanted.values)
    assert [len(one) for one in sparse.encode(nulls, on_null="zero")][1::2] == [0, 0]
    assert [len(one) for one in sparse.embed(nulls, on_null="zero")][1::2] == [0, 0]
    assert len(sparse.encode(nulls, on_null="empty")[1]) == len(sparse.encode(""))
    for encode in (late.encode_query, late.encode_document):
        for one, wanted in zip(encode(given), encode(TEXTS), strict=True):
            np.testing.assert_array_equal(one, wanted)
        assert [len(one) for one in encode(nulls, on_null="zero")][1::2] == [0, 0]
        np.testing.assert_array_equal(encode(nulls, on_null="empty")[1], encode(""))
        with pytest.raises(InvalidTypeError, match="text 1 is NoneType"):
            encode(nulls)
    assert [len(one) for one in late.embed_documents(nulls, on_null="zero")][1::2] == [0, 0]
    assert [one.index for one in reranker.rank("a dog", given)] == [one.index for one in reranker.rank("a dog", TEXTS)]
    assert [one.index for one in late.rank("a dog", given)] == [one.index for one in late.rank("a dog", TEXTS)]


# --- tokens ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("truncation", ["truncate", "chunk"])
def test_tokens_come_with_the_vectors(truncation: str, model_dir: Path, reference: Any) -> None:
    with EmbeddingModel(model_dir, truncation=truncation) as model:
        most = model.max_length
        for prompt in ("", "query : "):
            before = model.stats.tokens
            vectors, tokens = model.encode(TEXTS, prompt=prompt, return_tokens=True)
            assert model.stats.tokens - before == tokens.sum()
            np.testing.assert_array_equal(vectors, model.encode(TEXTS, prompt=prompt))
            whole = [len(reference.tokenizer(prompt + text, truncation=False)["input_ids"]) for text in TEXTS]
            pieces = [-(-max(count - 2, 1) // (most - 2)) for count in whole]
            cut = [min(count, most) for count in whole]
            chunked = [count + 2 * (number - 1) for count, number in zip(whole, pieces, strict=True)]
            assert tokens.tolist() == (cut if truncation == "truncate" else chunked)
            assert tokens.dtype == np.int64
        one = model.encode("a dog", return_tokens=True)
        assert (one.vectors.shape, one.tokens) == ((24,), 4)
        assert model.encode([], return_tokens=True).tokens.shape == (0,)
        stored = model.encode(TEXTS, return_tokens=True, precision="binary")
        assert stored.vectors.dtype == np.int8
        many = model.encode(["a dog", "a"] * 5000, return_tokens=True).tokens
        assert many.tolist() == [4, 3] * 5000


def test_tokens_of_other_tasks(rest: tuple[Reranker, SparseModel, LateInteractionModel]) -> None:
    reranker, sparse, late = rest
    pairs = [("a dog", text) for text in TEXTS]
    scores, tokens = reranker.predict(pairs, return_tokens=True)
    np.testing.assert_array_equal(scores, reranker.predict(pairs))
    assert tokens.tolist() == np.minimum(reranker.count_tokens(pairs), reranker.max_length).tolist()
    assert reranker.predict(pairs[1], return_tokens=True).tokens == reranker.count_tokens(pairs[1])
    assert (
        sparse.encode(TEXTS, return_tokens=True).tokens.tolist()
        == np.minimum(sparse.count_tokens(TEXTS), sparse.max_length).tolist()
    )
    for encode in (late.encode_query, late.encode_document):
        before = late.stats.tokens
        assert late.stats.tokens - before == 0
        assert encode(TEXTS, return_tokens=True).tokens.sum() == late.stats.tokens - before
