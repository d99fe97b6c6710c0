"""Embed on batches of every kind, for models of every task: the same as the model's own call, in the same container."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cloudpickle  # type: ignore[import-untyped]
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from exports import contents
from task_models import Exported, save_all
from tolerances import REFERENCE, close

from fastembed_rt import EmbeddingModel, LateInteractionModel, Reranker, SparseModel, machine
from fastembed_rt.errors import IntegrityError, InvalidInputError, InvalidTypeError, ModelNotFoundError
from fastembed_rt.models import shared, starting
from fastembed_rt.scale import Embed, granted
from fastembed_rt.scale.outputs import MOST, Dense, Sparse

TEXTS = ["a dog runs quickly under the old tree!", "the house is red", "", "a cat sleeps. the river, the light", "new"]
IDS = [3, 1, 4, 1, 5]
QUERIES = ["which dog runs ?", "a house", "x", "where does the cat sleep", "old"]
BATCHES: dict[str, Any] = {
    "table": lambda: pa.table({"id": IDS, "text": TEXTS}).replace_schema_metadata({"who": "we"}),
    "chunked table": lambda: pa.concat_tables(
        [pa.table({"id": IDS[:2], "text": TEXTS[:2]}), pa.table({"id": IDS[2:], "text": TEXTS[2:]})]
    ),
    "record batch": lambda: pa.record_batch({"id": IDS, "text": TEXTS}),
    "pandas": lambda: pd.DataFrame({"id": IDS, "text": TEXTS}, index=[9, 8, 7, 7, 5]),
    "polars": lambda: pl.DataFrame({"id": IDS, "text": TEXTS}),
    "lists": lambda: {"id": IDS, "text": TEXTS},
    "arrays": lambda: {"id": np.array(IDS), "text": np.array(TEXTS)},
    "objects": lambda: {"id": np.array(IDS), "text": np.array(TEXTS, dtype=object)},
}


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Exported]:
    return save_all(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="module")
def dense(tasks: dict[str, Exported]) -> Path:
    return tasks["dense"].directory


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """The threads of each session that this process opens, as one that nothing has arrived in."""
    counted: list[int] = []
    real = vars(starting)["open_session"]

    def opening(*arguments: Any, **options: Any) -> Any:
        counted.append(options["threads"])
        return real(*arguments, **options)

    monkeypatch.setattr(starting, "open_session", opening)
    monkeypatch.setattr(shared, "_registry", shared._Registry())
    yield counted


def columns(batch: Any) -> list[str]:
    if isinstance(batch, dict):
        return list(batch)
    return list(batch.schema.names if isinstance(batch, pa.Table | pa.RecordBatch) else batch.columns)


def rows(batch: Any, name: str) -> list[Any]:
    """A column as Python has it, arrays for lists."""
    found = batch[name]
    found = found.to_pylist() if isinstance(found, pa.ChunkedArray | pa.Array) else list(found)
    return [np.asarray(row, np.float32) if not isinstance(row, dict) else row for row in found]


# --- batches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BATCHES)
def test_a_batch_comes_back_as_its_kind_with_the_vectors_of_encode(kind: str, tasks: dict[str, Exported]) -> None:
    with EmbeddingModel(tasks["dense"].directory) as model:
        wanted = model.encode(TEXTS)
    close(wanted, tasks["dense"].reference.encode(TEXTS), REFERENCE)
    batch = BATCHES[kind]()
    made = Embed(tasks["dense"].directory, "text", "vector")(batch)
    assert type(made) is type(batch)
    assert columns(made) == ["id", "text", "vector"]
    np.testing.assert_array_equal(np.stack(rows(made, "vector")), wanted)
    assert [int(k) for k in rows(made, "id")] == IDS
    assert columns(batch) == ["id", "text"]


def test_what_was_there_is_passed_on_and_numbers_are_not_copied(dense: Path) -> None:
    embed = Embed(dense)
    table = BATCHES["table"]()
    made = embed(table)
    assert made.schema.metadata == {b"who": b"we"}
    for name in table.column_names:
        there, here = (found[name].chunk(0).buffers()[-1].address for found in (table, made))
        assert there == here
    frame = BATCHES["pandas"]()
    assert embed(frame).index.tolist() == frame.index.tolist()
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
    for fixed in (True, False):
        found = Dense(4).column(pa, vectors, fixed=fixed)
        assert found.flatten().buffers()[1].address == vectors.ctypes.data
        assert found.to_pylist() == vectors.tolist()
    views = embed(BATCHES["lists"]())["embedding"]
    assert views.shape == (len(TEXTS), embed.dim)
    assert all(row.base is not None for row in embed(frame)["embedding"])


@pytest.mark.parametrize("lists", ["fixed", "list"])
def test_the_type_is_what_was_asked_for_and_that_of_batches_without_rows(lists: str, dense: Path) -> None:
    embed = Embed(dense, lists=lists)
    wanted = pa.list_(pa.float32(), 24 if lists == "fixed" else -1)
    assert embed.arrow_type == wanted
    for kind in ("table", "record batch", "chunked table"):
        batch = BATCHES[kind]()
        assert embed(batch).schema.field("embedding").type == wanted
        assert embed(batch.slice(0, 0)).schema.field("embedding").type == wanted
    assert embed(BATCHES["pandas"]())["embedding"].dtype == pd.ArrowDtype(wanted)
    assert embed(BATCHES["pandas"]()[:0])["embedding"].dtype == pd.ArrowDtype(wanted)
    assert isinstance(embed(BATCHES["polars"]())["embedding"].dtype, pl.Array if lists == "fixed" else pl.List)


def test_a_batch_without_rows_opens_nothing(dense: Path, opened: list[int]) -> None:
    embed = Embed(dense)
    for kind, make in BATCHES.items():
        batch = make()
        nothing = {name: part[:0] for name, part in batch.items()} if isinstance(batch, dict) else batch[:0]
        made = embed(nothing)
        assert len(made["embedding"]) == 0, kind
        assert type(made) is type(batch)
    assert opened == []


@pytest.mark.parametrize("on_null", ["zero", "empty"])
@pytest.mark.parametrize("kind", ["table", "pandas", "polars", "lists"])
def test_rows_without_a_text(on_null: str, kind: str, dense: Path) -> None:
    texts = ["a dog", None, "the house"]
    made: Any = {"table": pa.table, "pandas": pd.DataFrame, "polars": pl.DataFrame, "lists": dict}[kind]
    batch = made({"text": texts})
    found = np.stack(rows(Embed(dense, on_null=on_null)(batch), "embedding"))
    with EmbeddingModel(dense) as model:
        wanted = model.encode(["a dog", "", "the house"])
    if on_null == "zero":
        wanted[1] = 0
    np.testing.assert_array_equal(found, wanted)
    with pytest.raises(InvalidTypeError, match="1"):
        Embed(dense)(batch)


def test_what_is_no_batch_and_columns_that_are_not_there(dense: Path) -> None:
    embed = Embed(dense)
    with pytest.raises(InvalidTypeError, match=r"a batch is builtins.list; expected a Table or RecordBatch"):
        embed(TEXTS)
    with pytest.raises(InvalidInputError, match="no column 'text'; it has id, body"):
        embed(pa.table({"id": IDS, "body": TEXTS}))
    with pytest.raises(InvalidInputError, match="has a column 'embedding' already"):
        embed(embed(BATCHES["table"]()))
    with pytest.raises(InvalidTypeError, match="int64"):
        Embed(dense, "id")(BATCHES["table"]())


# --- tasks ------------------------------------------------------------------------------------------------------------


def test_roles_options_and_forms_of_the_vectors(dense: Path) -> None:
    table = BATCHES["table"]()
    with EmbeddingModel(dense, max_length=9, truncate_dim=8) as model:
        pairs: list[tuple[Embed, Any]] = [
            (Embed(dense, role="query", max_length=9, truncate_dim=8), model.encode_query(TEXTS)),
            (Embed(model, role="document"), model.encode_document(TEXTS)),
            (Embed(model, encode={"prompt_name": "query"}), model.encode(TEXTS, prompt_name="query")),
            (Embed(model, encode={"truncate_dim": 4}), model.encode(TEXTS, truncate_dim=4)),
            (Embed(model, encode={"precision": "float16"}), model.encode(TEXTS, precision="float16")),
            (Embed(model, encode={"precision": "ubinary"}), model.encode(TEXTS, precision="ubinary")),
        ]
        given = model.encode(TEXTS)
        options: dict[str, Any] = {"precision": "int8", "calibration_embeddings": given}
        pairs.append((Embed(model, encode=options), model.encode(TEXTS, **options)))
        for embed, wanted in pairs:
            made = pickle.loads(pickle.dumps(embed))(table)["embedding"]
            found = made.combine_chunks().flatten().to_numpy().reshape(len(TEXTS), -1)
            assert found.dtype == wanted.dtype
            np.testing.assert_array_equal(found, wanted)
        with pytest.raises(InvalidInputError, match="vectors as int8 need ranges="):
            Embed(model, encode={"precision": "int8"})
        many = np.tile(given, (5000, 1))
        assert len(pickle.dumps(Embed(model, encode={**options, "calibration_embeddings": many}))) < 5000


def test_sparse_vectors(tasks: dict[str, Exported]) -> None:
    with SparseModel(tasks["splade"].directory) as model:
        wanted = [{"indices": one.indices.tolist(), "values": one.values.tolist()} for one in model.encode(TEXTS)]
    embed = Embed(tasks["splade"].directory, into="words")
    assert embed.dim is None
    table = embed(BATCHES["table"]())
    assert table["words"].type == embed.arrow_type
    assert table["words"].to_pylist() == wanted
    for kind in ("pandas", "lists", "polars"):
        found = [dict(row) for row in embed(BATCHES[kind]())["words"]]
        assert [{name: np.asarray(row[name]).tolist() for name in row} for row in found] == wanted
    assert embed(BATCHES["table"]()[:0])["words"].type == embed.arrow_type


@pytest.mark.parametrize("lists", [None, "list"])
def test_token_vectors(lists: str | None, tasks: dict[str, Exported]) -> None:
    for name, encode in (("colbert", {}), ("dense", {"output": "tokens"})):
        directory = tasks[name].directory
        kind: Any = LateInteractionModel if name == "colbert" else EmbeddingModel
        with kind(directory) as model:
            given = model.encode_document(TEXTS) if name == "colbert" else model.encode(TEXTS, output="tokens")
        wanted = [getattr(one, "vectors", one) for one in given]
        embed = Embed(directory, encode=encode, lists=lists)
        assert embed.dim == wanted[0].shape[1]
        for batch in ("table", "pandas", "arrays"):
            made = embed(BATCHES[batch]())
            for found, row in zip(rows(made, "embedding"), wanted, strict=True):
                np.testing.assert_array_equal(found.reshape(row.shape), row)
        assert embed(BATCHES["table"]())["embedding"].type == embed.arrow_type
        assert embed(BATCHES["table"]()[:0])["embedding"].type == embed.arrow_type


def test_scores_of_pairs(tasks: dict[str, Exported]) -> None:
    given = {"query": QUERIES, "text": TEXTS}
    pairs = list(zip(QUERIES, TEXTS, strict=True))
    for name in ("reranker", "labels"):
        embed = Embed(tasks[name].directory, ("query", "text"), "score")
        with Reranker(tasks[name].directory) as model:
            wanted = model.predict(pairs)
        for batch in (
            pa.table(given),
            pa.RecordBatch.from_pydict(given),
            pd.DataFrame(given),
            pl.DataFrame(given),
            given,
        ):
            found = np.stack(rows(embed(batch), "score"))
            np.testing.assert_array_equal(found, wanted)
        assert embed(pa.table(given)[:0])["score"].type == embed.arrow_type
        frame = embed(pd.DataFrame(given))
        assert frame["score"].dtype == (np.float32 if name == "reranker" else object)
    with pytest.raises(InvalidInputError, match="a pair of columns"):
        Embed(tasks["reranker"].directory, "text")
    with pytest.raises(InvalidInputError, match="role 'query' is not one of a model for reranking; known: none"):
        Embed(tasks["reranker"].directory, ("query", "text"), role="query")
    with pytest.raises(InvalidInputError, match="not for pairs"):
        Embed(tasks["reranker"].directory, ("query", "text"), on_null="zero")
    with pytest.raises(InvalidTypeError, match="pair 0 holds NoneType"):
        embed(pa.table({"query": pa.array([None], pa.string()), "text": ["a"]}))


def test_what_cannot_be_is_said_where_it_is_made(dense: Path, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"EmbeddingModel has no option 'device'; device: provider='cpu' or 'cuda'"):
        Embed(dense, device="cuda")
    with pytest.raises(TypeError, match=r"EmbeddingModel.encode has no normalize_embeddings here. normalize="):
        Embed(dense, encode={"normalize_embeddings": True})
    with pytest.raises(TypeError, match="on_null= of Embed"):
        Embed(dense, encode={"on_null": "zero"})
    with pytest.raises(InvalidInputError, match="no prompt 'quer'"):
        Embed(dense, encode={"prompt_name": "quer"})
    with pytest.raises(InvalidInputError, match="truncate_dim"):
        Embed(dense, truncate_dim=1000)
    with pytest.raises(InvalidInputError, match="which takes one column"):
        Embed(dense, ["text", "title"])
    with pytest.raises(InvalidInputError, match="into 'text' is a column of texts"):
        Embed(dense, into="text")
    with pytest.raises(InvalidInputError, match="lists 'tuple' is not known; known: fixed, list"):
        Embed(dense, lists="tuple")
    with pytest.raises(InvalidInputError, match="on_null 'null' is not known"):
        Embed(dense, on_null="null")
    with pytest.raises(ModelNotFoundError):
        Embed(tmp_path / "nothing")
    with EmbeddingModel(dense) as model, pytest.raises(InvalidInputError, match="the model is open already"):
        Embed(model, threads=1)
    with pytest.raises(InvalidTypeError, match="model is int"):
        Embed(3)  # type: ignore[arg-type]


def test_more_numbers_than_an_array_of_arrow_holds_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert np.iinfo(np.int32).max == MOST
    from fastembed_rt.scale import outputs

    monkeypatch.setattr(outputs, "MOST", 11)
    with pytest.raises(InvalidInputError, match="a batch of 3 rows gives 12 numbers, and an Arrow list array holds 11"):
        Dense(4).column(pa, np.zeros((3, 4), np.float32), fixed=False)
    assert len(Dense(4).column(pa, np.zeros((3, 4), np.float32), fixed=True)) == 3
    assert len(Sparse().column(pa, [], fixed=False)) == 0


# --- travel -----------------------------------------------------------------------------------------------------------


def test_it_pickles_small_and_copies_open_the_model_once(dense: Path, opened: list[int]) -> None:
    embed = Embed(dense)
    table = BATCHES["table"]()
    unopened = pickle.dumps(embed)
    wanted = embed(table)
    assert pickle.dumps(embed) == unopened  # what engines make cache keys of
    for dumps in (pickle.dumps, cloudpickle.dumps):
        sent = dumps(embed)
        assert len(sent) < 3000
        for _ in range(3):  # as tasks get them, each dropped behind its task
            assert pickle.loads(sent)(table).equals(wanted)
    assert len(opened) == 1


def test_an_open_model_works_here_as_it_is_and_is_opened_alike_elsewhere(dense: Path, opened: list[int]) -> None:
    with EmbeddingModel(dense, threads=1, max_length=7) as model:
        embed = Embed(model)
        assert embed.model is model
        np.testing.assert_array_equal(np.stack(rows(embed(BATCHES["table"]()), "embedding")), model.encode(TEXTS))
        sent = pickle.dumps(embed)
    shared._registry = shared._Registry()  # another process
    arrived = pickle.loads(sent)
    assert (arrived.model.max_length, arrived.model.threads) == (7, 1)
    assert opened == [1, 1]


def test_other_files_under_the_path_are_refused(dense: Path, tasks: dict[str, Exported], tmp_path: Path) -> None:
    link = tmp_path / "model"
    embed = Embed(dense, find=lambda: link)
    link.symlink_to(tasks["colbert"].directory)
    with pytest.raises(InvalidInputError, match="late_interaction"):
        embed(BATCHES["table"]())
    from checkpoints import save_sentence_transformers
    from exports import quick

    quick(save_sentence_transformers(tmp_path / "other", dense=8), tmp_path / "other-onnx")
    link.unlink()
    link.symlink_to(tmp_path / "other-onnx")
    with pytest.raises(IntegrityError, match="a model arrived with the fingerprint"):
        embed(BATCHES["table"]())
    link.unlink()
    link.symlink_to(dense)
    assert embed(BATCHES["table"]()).num_rows == len(TEXTS)
    before = contents(dense)
    assert before == contents(dense)


# --- threads ----------------------------------------------------------------------------------------------------------


class Context:
    """What engines say of the process, as their modules do."""

    def __init__(self, **facts: Any) -> None:
        vars(self).update(facts)


def ray(cpus: float | None, *, actor: str | None = "a", up: bool = True) -> Any:
    given = {} if cpus is None else {"CPU": cpus}
    context = Context(get_actor_id=lambda: actor, get_task_id=lambda: actor, get_assigned_resources=lambda: dict(given))
    return Context(is_initialized=lambda: up, get_runtime_context=lambda: context)


def spark(cpus: int | None, *gpus: str) -> Any:
    given = {"gpu": Context(addresses=list(gpus))} if gpus else {}
    task = None if cpus is None else Context(cpus=lambda: cpus, resources=lambda: given)
    return Context(TaskContext=Context(get=lambda: task))


def dask(threads: int | None) -> Any:
    def get_worker() -> Any:
        if threads is None:
            raise ValueError("no worker found")
        return Context(state=Context(nthreads=threads))

    return Context(get_worker=get_worker)


@pytest.mark.parametrize(
    ("there", "variable", "wanted"),
    [
        ({"ray": ray(3.0)}, "1", 3),
        ({"ray": ray(0.5)}, None, 1),
        ({"ray": ray(64.0)}, None, 8),  # more than there are
        ({"ray": ray(2.0, actor=None)}, None, 8),  # its driver
        ({"ray": ray(2.0, up=False), "pyspark": spark(4)}, "1", 4),
        ({"pyspark": spark(None)}, "2", 2),
        ({"distributed": dask(2)}, "1", 2),
        ({"distributed": dask(None)}, None, 8),
        ({}, "3,2", 3),
        ({}, "0", 8),
        ({}, "many", 8),
        ({}, None, 8),
    ],
)
def test_threads_are_what_the_engine_grants(
    there: dict[str, Any], variable: str | None, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in granted.READERS:
        monkeypatch.delitem(sys.modules, name, raising=False)
    for name, module in there.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delenv(granted.VARIABLE, raising=False)
    if variable is not None:
        monkeypatch.setenv(granted.VARIABLE, variable)
    monkeypatch.setattr(machine, "available_threads", lambda: 8)
    assert granted.threads() == wanted


def test_threads_of_the_model_are_asked_for_or_granted(
    dense: Path, opened: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "available_threads", lambda: 8)
    monkeypatch.setitem(sys.modules, "pyspark", spark(3))
    assert Embed(dense).model.threads == 3
    assert Embed(dense, threads=2).model.threads == 2
    assert Embed(dense).replaced(threads=1).model.threads == 1
    assert opened == [3, 2, 1]


def test_a_task_of_spark_takes_the_gpus_that_it_was_given(dense: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Spark tells the task and hides none: all tasks of an executor would take its first one."""
    arrived: list[Any] = []
    monkeypatch.setattr("fastembed_rt.scale.embed.travel.arrive", lambda given: arrived.append(given.options))
    embed = Embed(dense)
    given = embed._plan.ticket
    on_gpu = replace(embed._plan, ticket=replace(given, options={**given.options, "provider": "cuda"}))
    for plan, module in (
        (on_gpu, spark(1, "3")),
        (on_gpu, spark(1)),
        (on_gpu, spark(None)),
        (embed._plan, spark(1, "3")),
    ):
        monkeypatch.setitem(sys.modules, "pyspark", module)
        one = embed.replaced()
        one._plan = plan
        assert one.model is None
    assert [options["device_ids"] for options in arrived] == [[3], None, None, None]


def test_the_page_begins_with_a_block_that_runs(
    dense: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is below runs in tests/scale."""
    page = (Path(__file__).parents[3] / "docs/scale.md").read_text(encoding="utf-8")
    (tmp_path / "my-model").symlink_to(dense)
    monkeypatch.chdir(tmp_path)
    exec(page.partition("```python\n")[2].partition("```")[0], {})
    assert capsys.readouterr().out.startswith("fixed_size_list<")


def test_no_engine_is_imported(run_script: Any) -> None:
    code = "import sys, fastembed_rt.scale; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    found = set(run_script(code).stdout.split())
    assert "fastembed_rt" in found
    assert not found & {"ray", "pyspark", "dask", "distributed", "daft", "datasets", "polars", "apache_beam", "pyflink"}
    assert not found & {"pyarrow", "pandas", "onnxruntime", "torch"}
