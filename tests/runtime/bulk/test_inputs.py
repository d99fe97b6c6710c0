"""Inputs of jobs in parts: every format gives the same rows, wherever they lie and however ranks share them."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from bulk_inputs import LINES, TEXT, TEXTS, rows_of, texts_of, write
from bulk_jobs import write_jsonl
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from fastembed_rt.bulk import inputs, json_array, run
from fastembed_rt.errors import InvalidInputError


@pytest.mark.parametrize("name", ["in.jsonl", "in.json", "in.csv", "in.tsv", "in.parquet", "in.arrow", "in.txt"])
@pytest.mark.parametrize("skip", [0, 1, 4, 7, 9])
def test_every_format_gives_its_texts_and_passes_over_those_that_are_there(
    tmp_path: Path, name: str, skip: int
) -> None:
    given_texts = LINES if name == "in.txt" else TEXTS
    assert texts_of(write(tmp_path / name, given_texts), skip=skip) == given_texts[skip:]


AWKWARD = {  # lines that are no rows, that are bad ones, and a mark in front
    "in.jsonl": b'\xef\xbb\xbf{"text": "a"}\n\n \r\n\xc2\xa0\n{"text": \n'
    b' "b"\n"c"\r\n[1]\n{"text": "\xff"}\n\n{"text": "d"}',
    "in.txt": b"\xef\xbb\xbfa\r\n\n\xff\n\xc2\xa0\n\n b\nc",
    "in.csv": b'text\na\n\n"b\n\nb"\n\xff\nc,d\n"e"f\ng\n',
}


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("name", AWKWARD)
def test_what_is_passed_over_is_what_would_have_been_read(tmp_path: Path, name: str, ending: str) -> None:
    path = tmp_path / (name + ending)
    path.write_bytes(gzip.compress(AWKWARD[name]) if ending else AWKWARD[name])
    second = write(tmp_path / "second.jsonl", ["e", "f"])
    chosen = ("text",)
    whole = rows_of([path, second], chosen=chosen)
    assert len(whole) == {"in.jsonl": 9, "in.txt": 9, "in.csv": 8}[name]
    for skip in range(len(whole) + 1):
        assert rows_of([path, second], chosen=chosen, skip=skip) == whole[skip:], skip


def zstd(content: bytes) -> bytes:
    return bytes(pyarrow.compress(content, "zstd", asbytes=True))


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}


@pytest.mark.parametrize("ending", COMPRESSORS)
@pytest.mark.parametrize("name", ["in.txt", "in.jsonl", "in.json", "in.csv"])
def test_compressed_files_are_read_and_cut_ones_are_refused(tmp_path: Path, name: str, ending: str) -> None:
    given_texts = LINES * 200
    whole = COMPRESSORS[ending](write(tmp_path / name, given_texts).read_bytes())
    packed = tmp_path / f"{name}{ending}"
    packed.write_bytes(whole)
    assert texts_of(packed) == given_texts
    for length in (len(whole) // 2, 0):
        packed.write_bytes(whole[:length])
        with pytest.raises(InvalidInputError, match="in\\."):
            texts_of(packed)


def test_gzip_members_one_behind_the_other_are_one_file(tmp_path: Path) -> None:
    (tmp_path / "in.txt.gz").write_bytes(gzip.compress(b"a\nb\n") + gzip.compress(b"c\n"))
    (tmp_path / "in.txt.zst").write_bytes(zstd(b"a\nb\n") + zstd(b"c\n"))
    assert texts_of(tmp_path / "in.txt.gz") == texts_of(tmp_path / "in.txt.zst") == ["a", "b", "c"]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r"), max_size=12), max_size=30),
    st.integers(1, 7),
    st.sampled_from(["in.txt", "in.jsonl", "in.parquet", "in.arrow", "in.csv"]),
)
def test_ranks_share_all_rows_in_order_and_none_twice(tmp_path: Path, texts: list[str], world: int, name: str) -> None:
    first, second = write(tmp_path / name, [*texts, "last"]), write(tmp_path / f"b-{name}", ["one", *texts])
    wanted = texts_of(first, second)
    assert wanted == [*texts, "last", "one", *texts]
    assert [text for rank in range(world) for text in texts_of(first, second, rank=rank, world=world)] == wanted


def test_a_large_file_is_really_divided(tmp_path: Path) -> None:
    for name in ("in.txt", "in.parquet", "in.arrow", "in.jsonl"):
        source = write(tmp_path / name, [f"text {k:05d}" for k in range(1000)])
        shares = [len(texts_of(source, rank=rank, world=4)) for rank in range(4)]
        assert all(225 <= count <= 275 for count in shares), (name, shares)


def test_directories_patterns_and_hidden_files(tmp_path: Path) -> None:
    (tmp_path / "in" / "deeper").mkdir(parents=True)
    for k, name in enumerate(["b.txt", "a.txt", "deeper/c.txt", ".hidden.txt", "_SUCCESS.txt"]):
        (tmp_path / "in" / name).write_text(f"{name}\n{k}\n")
    (tmp_path / "in" / "notes.md").write_text("no input")
    assert texts_of(tmp_path / "in") == ["a.txt", "1", "b.txt", "0", "deeper/c.txt", "2"]
    assert texts_of(tmp_path / "in" / "[ab].txt") == ["a.txt", "1", "b.txt", "0"]
    assert texts_of(tmp_path / "in" / "**" / "c.txt") == ["deeper/c.txt", "2"]
    with pytest.raises(InvalidInputError, match="no file matches"):
        texts_of(tmp_path / "*.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidInputError, match="has no file with one of"):
        texts_of(tmp_path / "empty")
    with pytest.raises(InvalidInputError, match="does not exist"):
        texts_of(tmp_path / "none.txt")
    with pytest.raises(InvalidInputError, match="standard input cannot be read again"):
        texts_of("-")


def test_a_dataset_on_disk_is_read_in_the_order_of_its_state(tmp_path: Path) -> None:
    """As datasets.Dataset.save_to_disk writes it: Arrow streams, named by state.json."""
    folder = tmp_path / "set"
    folder.mkdir()
    for k, texts in enumerate((["a", "b"], ["c"])):
        made = pyarrow.table({"text": texts})
        with (
            pyarrow.OSFile(str(folder / f"data-{k}.arrow"), "wb") as file,
            pyarrow.ipc.new_stream(file, made.schema) as out,
        ):
            out.write_table(made)
    state = {"_data_files": [{"filename": "data-1.arrow"}, {"filename": "data-0.arrow"}]}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    assert texts_of(folder) == ["c", "a", "b"]
    (folder / "state.json").write_text(json.dumps({**state, "_indices_data_files": [{"filename": "i.arrow"}]}))
    with pytest.raises(InvalidInputError, match="flatten_indices"):
        texts_of(folder)
    for damaged in ("{", "[]", "{}", '{"_data_files": [1]}'):
        (folder / "state.json").write_text(damaged)
        with pytest.raises(InvalidInputError, match=r"state\.json does not name the files of a dataset"):
            texts_of(folder)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "gone.arrow"}]}))
    with pytest.raises(InvalidInputError, match=r"gone\.arrow is gone, or links to nothing"):
        texts_of(folder)
    (tmp_path / "dataset_dict.json").write_text(json.dumps({"splits": ["train", "test"]}))
    with pytest.raises(InvalidInputError, match="the splits train, test"):
        texts_of(tmp_path)


def test_a_query_on_sqlite(tmp_path: Path) -> None:
    path = tmp_path / "a b.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE notes (key BLOB, body TEXT, n INTEGER, x REAL)")
        connection.executemany(
            "INSERT INTO notes VALUES (?, ?, ?, ?)", [(bytes([k]), f"t{k}", k, k / 2) for k in range(9)]
        )
    connection.close()
    sql = "SELECT key, body AS text, n, x FROM notes WHERE n > 0 ORDER BY n DESC"
    found = rows_of([path], sql=sql, skip=2)
    assert found[0] == {"key": b"\x06", "text": "t6", "n": 6, "x": 3.0}
    assert len(found) == 6
    with pytest.raises(InvalidInputError, match="ORDER BY"):
        rows_of([path], sql="SELECT body AS text FROM notes")
    with pytest.raises(InvalidInputError, match="pass --sql"):
        rows_of([path])
    with pytest.raises(InvalidInputError, match="no such table"):
        rows_of([path], sql="SELECT text FROM none ORDER BY 1")
    with pytest.raises(InvalidInputError, match=r"readonly|read-only|attempt to write"):
        rows_of([path], sql="DELETE FROM notes WHERE n IN (SELECT n FROM notes ORDER BY n)")


def test_a_text_of_sqlite_that_is_none_is_a_bad_row(tmp_path: Path) -> None:
    """SQLite keeps any value in any column."""
    path = tmp_path / "in.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE notes (text)")
        connection.executemany("INSERT INTO notes VALUES (?)", [["a"], [7], [b"\xff"], [None], ["e"]])
    found = rows_of([path], sql="SELECT text FROM notes ORDER BY rowid")
    wanted = ["'text' is int, and string in the rows before", "'text' is bytes, and string in the rows before"]
    assert found == [{"text": "a"}, *wanted, {"text": None}, {"text": "e"}]


def test_delimiters_and_quotes(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("id;text\n1;'a;b'\n2;plain\n\n3;'it''s'\n")
    assert texts_of(path, delimiter=";", quote="'") == ["a;b", "plain", "it's"]
    path.write_text('id|text\n1|"as it is\n')
    assert texts_of(path, delimiter="|", quote="") == ['"as it is']


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "utf-16", "utf-16-le", "utf-8-sig"])
@pytest.mark.parametrize("name", ["in.txt", "in.csv", "in.json"])
def test_encodings(tmp_path: Path, name: str, encoding: str) -> None:
    given_texts = ["süß", "plain", "naïve"]
    path = write(tmp_path / name, given_texts)
    content = path.read_bytes().decode("utf-8")
    path.write_bytes(
        (json.dumps(json.loads(content), ensure_ascii=False) if name == "in.json" else content).encode(encoding)
    )
    assert texts_of(path, encoding=encoding) == given_texts


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize("name", ["in.txt", "in.csv", "in.json", "in.jsonl"])
def test_a_mark_of_the_byte_order_is_no_part_of_the_first_text(tmp_path: Path, name: str, encoding: str) -> None:
    path = write(tmp_path / name, ["plain", "naïve"])
    path.write_bytes(("\ufeff" + path.read_bytes().decode("utf-8")).encode(encoding))
    assert texts_of(path, encoding=encoding) == ["plain", "naïve"]


# The last three turn bytes into bytes or texts into texts.
@pytest.mark.parametrize("encoding", ["utf-9", "", "base64", "rot13", "undefined"])
def test_an_encoding_that_is_not_known(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(InvalidInputError, match=f"'{encoding}' is not known"):
        texts_of(write(tmp_path / "in.txt", ["a"]), encoding=encoding)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sql": "SELECT 1"}, "--sql is for databases .sqlite, duckdb., and the input is txt"),
        ({"delimiter": ";"}, "--delimiter is for csv and tsv, and the input is txt"),
        ({"quote": "'"}, "--quote is for csv and tsv, and the input is txt"),
    ],
    ids=str,
)
def test_what_is_said_of_other_formats_is_refused(tmp_path: Path, options: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        texts_of(write(tmp_path / "in.txt", ["a"]), **options)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("in.csv", {"delimiter": '"'}),
        ("in.csv", {"delimiter": "\n"}),
        ("in.csv", {"quote": ","}),
        ("in.csv", {"quote": "\n"}),
        ("in.csv", {"delimiter": ";", "quote": ";"}),
        ("in.tsv", {"quote": "\t"}),
    ],
    ids=str,
)
def test_fields_that_could_not_be_told_apart_are_refused(tmp_path: Path, name: str, options: dict[str, str]) -> None:
    path = tmp_path / name
    path.write_text("text\na\n")
    with pytest.raises(InvalidInputError, match=r"cannot (end|quote) a field"):
        texts_of(path, **options)


# Columns.


def test_bad_lines_are_faults_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": \n\n[1]\n{"text": "\xff"}\n{"text": "\\ud800"}\n"plain"\n{"text": 7}\n')
    assert rows_of([path]) == [
        {"text": "a"},
        "line 2 is not JSON (Expecting value: line 2 column 1 (char 10))",
        "a list where a string or an object was expected",
        "line 5: byte 0xff is not utf-8 (invalid start byte)",
        "'text' holds half a surrogate pair ('\\ud800')",
        {"text": "plain"},
        "'text' is int, and string in the rows before",
    ]
    path = tmp_path / "in.csv"
    path.write_bytes(b'id,text\n1,a\n2\n3,"a"b\n4,\xff\n5,e\n')
    assert rows_of([path]) == [
        {"id": "1", "text": "a"},
        "line 3 has 1 fields under a header of 2",
        "line 4 is not CSV (',' expected after '\"')",
        "line 5: byte 0xff is not utf-8 (invalid start byte)",
        {"id": "5", "text": "e"},
    ]
    assert rows_of([path], decode_errors="replace")[3] == {"id": "4", "text": "\ufffd"}


def test_a_json_array_is_read_as_it_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_array, "PIECE", 7)  # every token is cut somewhere
    path = tmp_path / "in.json"
    path.write_text('\n[ "a", {"text": "b", "n": 12.5e3} ,\n{"text":"c\\u00fc"}]  ')
    assert [row["text"] for row in rows_of([path], chosen=())] == ["a", "b", "cü"]
    for content, said in (
        ('{"text": 1}', "no JSON array"),
        ('["a"', "ends within"),
        ('["a" "b"]', "no comma"),
        ('["a",', "ends within"),
        ('["a",]', "not JSON"),
        ('["a", nul]', "not JSON"),
    ):
        path.write_text(content)
        with pytest.raises(InvalidInputError, match=said):
            rows_of([path], chosen=())
    path.write_text("[]")
    assert rows_of([path], chosen=()) == []


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "in.parquet").write_bytes(b"PAR1nothingPAR1")
    with pytest.raises(InvalidInputError, match=r"in\.parquet is not readable as parquet"):
        rows_of([tmp_path / "in.parquet"])


def test_a_page_of_parquet_that_is_not_what_its_checksum_says_is_named(tmp_path: Path) -> None:
    """As Spark writes them; without a look at it, another text would be encoded."""
    path = tmp_path / "in.parquet"
    options: Any = {"compression": "none", "use_dictionary": False, "write_statistics": False}
    parquet.write_table(pyarrow.table({"text": ["a dog runs", "a cat"]}), path, write_page_checksum=True, **options)
    assert texts_of(path) == ["a dog runs", "a cat"]
    path.write_bytes(path.read_bytes().replace(b"a dog runs", b"a hog runs", 1))
    with pytest.raises(InvalidInputError, match=r"in\.parquet is not readable as parquet \(.*checksum"):
        texts_of(path)


def test_an_input_that_changes_while_it_is_read_is_noticed(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", ["a", "b"])
    prepared = run.prepare(inputs.find([str(source)]), run.Options(template=TEXT))
    assert prepared.stamps == inputs.stamps(prepared.sources)
    write_jsonl(source, ["a", "c"])
    assert prepared.stamps != inputs.stamps(prepared.sources)
