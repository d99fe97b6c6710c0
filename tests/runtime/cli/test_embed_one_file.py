"""`embed -o FILE` of what jobs in parts read: directories, patterns, databases, templates; and what is refused."""

from __future__ import annotations

import gzip
import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from task_models import TEXTS, Exported, Run

from fastembed_rt import EmbeddingModel, SparseModel


def encoded(task_models: dict[str, Exported], texts: list[str], **options: Any) -> Any:
    with EmbeddingModel(task_models["dense"].directory) as model:
        return model.encode(texts, **options)


def rows(name: str) -> list[Any]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def vectors(name: str) -> Any:
    return np.array([row["embedding"] for row in rows(name)], np.float32)


@pytest.fixture
def corpus() -> list[str]:
    """Files of several formats below a directory; their texts in order."""
    Path("corpus/more").mkdir(parents=True)
    Path("corpus/a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "one", "n": 1}\n'))
    Path("corpus/b.json").write_text('[{"text": "two", "n": 2}, {"text": "three", "n": 3}]')
    packed = pa.compress(b'{"text": "four", "n": 4}\n', codec="zstd", asbytes=True)
    Path("corpus/more/c.jsonl.zst").write_bytes(packed)
    pq.write_table(pa.table({"text": ["five"], "n": [5]}), "corpus/more/d.parquet")
    return ["one", "two", "three", "four", "five"]


@pytest.fixture(autouse=True)
def inside(run_task: Run) -> None:
    """The working directory is the test's own."""


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz", "out.parquet", "out.npy"])
def test_a_directory_becomes_one_file(
    run_task: Run, task_models: dict[str, Exported], corpus: list[str], name: str
) -> None:
    code, _, said = run_task("embed", "dense", "corpus", "-o", name)
    assert code == 0, said
    assert said.startswith("5 texts, ")
    assert said.endswith(f", {name}\n")
    wanted = encoded(task_models, corpus)
    if name == "out.npy":
        assert np.load(name).tobytes() == wanted.tobytes()
    elif name == "out.parquet":
        table = pq.read_table(name)
        assert table.column_names == ["text", "embedding"]
        assert table.column("text").to_pylist() == corpus
        assert np.stack(table.column("embedding").to_numpy()).tobytes() == wanted.tobytes()
        with EmbeddingModel(task_models["dense"].directory) as model:
            assert table.schema.metadata[b"fastembed_rt.fingerprint"].decode() == model.fingerprint()
    else:
        if name.endswith(".gz"):
            Path("out.jsonl").write_bytes(gzip.decompress(Path(name).read_bytes()))
        assert [row["text"] for row in rows("out.jsonl")] == corpus
        assert vectors("out.jsonl").tobytes() == wanted.tobytes()


def test_one_file_is_what_plain_readers_make_of_it(run_task: Run) -> None:
    """The same rows, whichever way they come: a file by its name, and by a pattern."""
    for name in ("out.jsonl", "out.npy"):
        assert run_task("embed", "dense", "texts.jsonl", "-o", f"plain-{name}")[0] == 0
        assert run_task("embed", "dense", "text?.jsonl", "-o", f"tables-{name}")[0] == 0
        assert Path(f"plain-{name}").read_bytes() == Path(f"tables-{name}").read_bytes()
        beside = [Path(f"{kind}-{name}.json").read_text() for kind in ("plain", "tables")]
        assert beside[0] == beside[1]
    words = ["--id-column", "number", "-o", "-"]
    plain, tables = (run_task("embed", "dense", source, *words)[1] for source in ("texts.jsonl", "text?.jsonl"))
    assert plain == tables
    assert [json.loads(line)["id"] for line in tables.splitlines()] == [10, 11, 12, 13, 14]


def test_columns_are_chosen_and_texts_made_of_several(run_task: Run, task_models: dict[str, Exported]) -> None:
    wanted = encoded(task_models, [f"{10 + k}: {text}" for k, text in enumerate(TEXTS)])
    template = ["--template", "{number}: {text}"]
    for words, names in (
        ([], ["text"]),
        (["--columns", "number"], ["number"]),
        (["--columns", "all"], ["number", "text"]),
        (["--columns", "none"], []),
        (["--columns", "text", "--id-column", "number"], ["number", "text"]),
    ):
        for name in ("out.jsonl", "out.parquet"):
            code, _, said = run_task("embed", "dense", "texts.jsonl", *template, *words, "-o", name, "--force")
            assert code == 0, said
        assert list(rows("out.jsonl")[0]) == pq.read_table("out.parquet").column_names == [*names, "embedding"]
        assert vectors("out.jsonl").tobytes() == wanted.tobytes()
    assert run_task("embed", "dense", "texts.jsonl", *template, "-o", "made.jsonl")[0] == 0
    assert rows("made.jsonl")[0]["text"] == f"10: {TEXTS[0]}"


def test_csv_with_options_and_a_query(run_task: Run, task_models: dict[str, Exported]) -> None:
    Path("in.csv").write_bytes("text;n\n'größe; x';1\n".encode("latin-1"))
    words = ["--delimiter", ";", "--quote", "'", "--encoding", "latin-1", "--columns", "all"]
    code, out, said = run_task("embed", "dense", "in.csv", *words, "-q")
    assert code == 0, said
    assert (json.loads(out)["text"], json.loads(out)["n"]) == ("größe; x", "1")
    with sqlite3.connect("notes.db") as database:
        database.execute("CREATE TABLE notes (id INTEGER, body TEXT)")
        database.executemany("INSERT INTO notes VALUES (?, ?)", [(2, "second"), (1, "first")])
    database.close()
    words = ["--sql", "SELECT id, body AS text FROM notes ORDER BY id", "--id-column", "id"]
    assert run_task("embed", "dense", "notes.db", *words, "-o", "notes.jsonl")[0] == 0
    assert [(row["id"], row["text"]) for row in rows("notes.jsonl")] == [(1, "first"), (2, "second")]
    assert vectors("notes.jsonl").tobytes() == encoded(task_models, ["first", "second"]).tobytes()


@pytest.mark.parametrize("content", ["", "no json\n"], ids=["no row", "no good row"])
@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_inputs_without_a_row_have_the_columns_that_are_asked_for(run_task: Run, content: str, name: str) -> None:
    Path("in.jsonl").write_text(content)
    for words in (["--id-column", "id"], ["--columns", "id,n"]):
        code, _, said = run_task("embed", "dense", "in.jsonl", *words, "--on-error", "skip", "-o", name, "--force")
        assert code == 0, said
    assert name == "out.jsonl" or pq.read_table(name).column_names == ["id", "n", "embedding"]


@pytest.mark.parametrize("policy", ["skip", "null"])
def test_bad_rows_are_noted_beside_the_output(run_task: Run, task_models: dict[str, Exported], policy: str) -> None:
    Path("in.jsonl").write_text('"one"\nno json\n"two"\n{"text": null}\n"one"\n')
    code, _, said = run_task("embed", "dense", "in.jsonl", "--on-error", policy, "-o", "out.jsonl")
    assert code == 0, said
    assert "2 rejected (see out.jsonl.rejects.jsonl)" in said
    assert "1 duplicates" in said
    assert [row["row"] for row in rows("out.jsonl.rejects.jsonl")] == [2, 4]
    kept = [row for row in rows("out.jsonl") if row["embedding"] is not None]
    assert len(rows("out.jsonl")) == (3 if policy == "skip" else 5)
    assert [row["text"] for row in kept] == ["one", "two", "one"]
    found = np.array([row["embedding"] for row in kept], np.float32)
    assert found.tobytes() == encoded(task_models, ["one", "two", "one"]).tobytes()
    assert run_task("embed", "dense", "in.jsonl", "--on-error", policy, "-o", "out.parquet")[0] == 0
    nulls = pq.read_table("out.parquet").column("embedding").is_null().to_pylist()
    assert nulls == ([False] * 3 if policy == "skip" else [False, True, False, True, False])
    Path("in.jsonl").write_text('"one"\n')
    assert run_task("embed", "dense", "in.jsonl", "--on-error", policy, "-o", "out.jsonl", "--force")[0] == 0
    assert not Path("out.jsonl.rejects.jsonl").exists()  # those were another output's
    assert run_task("embed", "dense", "in.jsonl", "--on-error", policy, "-o", "out.npy")[0] == 2


@pytest.mark.parametrize(
    ("name", "content", "options", "remedy", "advised"),
    [
        ("in.csv", b"id;text\n1;a\n", [], "pass --delimiter ';', or --column", ["--delimiter", ";"]),
        ("in.csv", b"id\ttext\n1\ta\n", [], r"pass --delimiter '\t', or --column", ["--delimiter", r"\t"]),
        ("in.csv", b"id;text\n1;a\n", ["--columns", "id"], "pass --delimiter ';', or --columns", ["--delimiter", ";"]),
        ("in.txt", b"caf\xe9\n", [], "or pass --encoding, such as latin-1", ["--encoding", "latin-1"]),
        ("in.jsonl", b'{"text": null}\n', [], "or pass --on-null", ["--on-null", "zero"]),
        ("in.jsonl", b'{"text": "a"}\n{"text": 5}\n', [], "or pass --on-error", ["--on-error", "null"]),
    ],
)
def test_what_cannot_be_read_names_the_option_that_reads_it(
    run_task: Run, name: str, content: bytes, options: list[str], remedy: str, advised: list[str]
) -> None:
    Path(name).write_bytes(content)
    code, _, said = run_task("embed", "dense", name, *options, "-o", "out.parquet")
    assert (code, remedy in said) == (2, True), said
    assert run_task("embed", "dense", name, *options, *advised, "-o", "out.parquet")[0] == 0
    code, _, said = run_task("rerank", "dense", "a query", name)  # which has no such options
    assert code == 2
    assert not any(word in said for word in ("--delimiter", "--encoding", "--on-"))


def test_a_file_where_rejected_rows_go_is_replaced_only_when_asked(run_task: Run) -> None:
    Path("in.jsonl").write_text('"one"\n')
    mine = Path("out.jsonl.rejects.jsonl")
    mine.write_text("not of this program")
    command = ["embed", "dense", "in.jsonl", "--template", "{text}", "-o", "out.jsonl"]
    code, _, said = run_task(*command)
    assert code == 2
    assert "out.jsonl.rejects.jsonl exists already" in said
    assert "--force" in said
    assert mine.read_text() == "not of this program"
    assert not Path("out.jsonl").exists()
    assert run_task(*command, "--append")[0] == 0  # which adds to both
    assert mine.read_text() == "not of this program"
    assert run_task(*command, "--force")[0] == 0
    assert not mine.exists()


def test_a_bad_row_ends_the_run_and_leaves_nothing(run_task: Run) -> None:
    Path("in.jsonl").write_text('"one"\nno json\n')
    code, _, said = run_task("embed", "dense", "*.jsonl", "--template", "{text}", "-o", "out.npy")
    assert code == 2
    assert "in.jsonl, row 2: line 2 is not JSON" in said
    assert sorted(path.name for path in Path().iterdir()) == ["in.jsonl", "pairs.csv", "texts.jsonl"]


def test_vectors_are_appended_and_kept_for_later_runs(run_task: Run, task_models: dict[str, Exported]) -> None:
    words = ["--cache", "kept", "--metrics-file", "figures.json", "-o", "out.npy", "--append"]
    for share in (0.0, 1.0):
        assert run_task("embed", "dense", "texts.jsonl", *words)[0] == 0
        assert json.loads(Path("figures.json").read_text())["cache_share"] == share
    assert np.load("out.npy").tobytes() == encoded(task_models, [*TEXTS, *TEXTS]).tobytes()


def test_sparse_vectors_and_vectors_of_tokens(run_task: Run, task_models: dict[str, Exported]) -> None:
    with SparseModel(task_models["splade"].directory) as sparse:
        wanted = sparse.encode(TEXTS)
    assert run_task("embed", "splade", "text?.jsonl", "-o", "out.jsonl")[0] == 0
    assert [row["indices"] for row in rows("out.jsonl")] == [vector.indices.tolist() for vector in wanted]
    for name, words in (("splade", []), ("colbert", []), ("dense", ["--tokens"])):
        for source in ("texts.jsonl", "text?.jsonl"):
            assert run_task("embed", name, source, *words, "-o", f"{source[4]}.npz", "--force")[0] == 0
        with np.load("s.npz") as plain, np.load("?.npz") as tables:
            assert sorted(plain) == sorted(tables)
            assert all(plain[key].tobytes() == tables[key].tobytes() for key in plain)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["texts.jsonl", "--metrics-file", "."], "--metrics-file . cannot be written"),
        (["texts.jsonl", "--metrics-file", "no/such.json"], "--metrics-file no/such.json cannot be written"),
        (["texts.jsonl", "--resume"], "--resume is for jobs in parts; pass --shards DIR"),
        (["texts.jsonl", "--to", "duckdb://a/b"], "--to is for jobs in parts"),
        (["texts.jsonl", "--shard-format", "npy"], "for one file it is --output-format"),
        (["texts.jsonl", "--part-rows", "5"], "one file has no parts"),
        (["texts.jsonl", "--rank", "0"], "--rank is for jobs in parts"),
        (["--template", "{text}"], "--template is for files, which are looked at before they are read"),
        (["-", "text?.jsonl"], "text?.jsonl is for files"),
        (["-", "--input-format", "arrow"], "is not read as arrow"),
        (["nothing*.jsonl"], "no file matches nothing*.jsonl"),
        (["texts.jsonl", "--on-error", "skip", "-o", "x.npy"], "npy holds vectors alone"),
        (["texts.jsonl", "--on-null", "zero", "--id-column", "number", "-o", "x.npy"], "npy holds vectors only"),
        (["texts.jsonl", "--columns", "body"], "no column 'body'"),
        (["texts.jsonl", "--columns", "number", "-o", "x.npy"], "npy holds vectors alone; drop --columns"),
        (["texts.jsonl", "--template", "{a}", "--column", "b"], "both say what the text is"),
        (["texts.jsonl", "--no-dedupe", "-o", "x.npz"], "npz holds sparse vectors and token vectors"),
    ],
)
def test_what_one_file_cannot_have_is_refused_by_name(run_task: Run, words: list[str], said: str) -> None:
    code, out, err = run_task("embed", "dense", *words)
    assert (code, out) == (2, "")
    assert said in err
    assert not Path("x.npy").exists()


def test_values_without_a_word_in_json_are_named(run_task: Run) -> None:
    pq.write_table(pa.table({"text": ["a"], "raw": [b"\x00"]}), "in.parquet")
    code, _, said = run_task("embed", "dense", "in.parquet", "--columns", "all", "-o", "out.jsonl")
    assert code == 2
    assert "column 'raw' has b'\\x00', for which JSON has no word; write parquet" in said


@pytest.mark.parametrize("words", [["--shards", "out"], ["-o", "out.parquet", "--columns", "all"]])
def test_an_object_without_keys_is_refused_where_it_cannot_be_written(run_task: Run, words: list[str]) -> None:
    Path("in.jsonl").write_text('{"text": "a", "meta": {}}\n', encoding="utf-8")
    code, _, said = run_task("embed", "dense", "in.jsonl", *words)
    assert (code, "column 'meta' holds struct<>, which cannot be written" in said) == (2, True), said
    code, _, said = run_task("embed", "dense", "in.jsonl", "-o", "out.jsonl", "--columns", "all")
    assert code == 0, said
    assert rows("out.jsonl")[0]["meta"] == {}


def test_a_row_that_is_no_utf8_is_named(run_task: Run) -> None:
    packed = pa.array([b"a"] * 1500 + [b"caf\xe9"])
    texts = pa.StringArray.from_buffers(len(packed), *packed.buffers()[1:])
    pq.write_table(pa.table({"text": texts}), "bad.parquet")
    code, _, said = run_task("embed", "dense", "bad.parquet", "-o", "out.npy")
    assert (code, "bad.parquet, row 1501: 'text' is not UTF-8" in said) == (2, True), said
    code, _, said = run_task("embed", "dense", "bad.parquet", "-o", "out.jsonl", "--on-error", "skip")
    assert (code, "1500 texts" in said) == (0, True), said
