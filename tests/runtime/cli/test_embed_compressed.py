"""Compressed inputs and outputs of `embed`: by their names, and never another content than the name says."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from test_cli import StandInModel, give_stdin  # type: ignore[import-not-found]

from fastembed_rt import cli
from fastembed_rt.cli import embed

PACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
UNPACK: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.decompress, ".bz2": bz2.decompress, ".xz": lzma.decompress}
endings = pytest.mark.parametrize("ending", list(PACK))


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working directory with an input, and a model that costs nothing."""
    monkeypatch.setattr(embed, "open_model", StandInModel)
    monkeypatch.chdir(tmp_path)
    Path("in.txt").write_text("über\n\nlast\n", encoding="utf-8")


def run(*words: str) -> int:
    return cli.main(["embed", "MODEL", *words, "--quiet"])


@endings
@pytest.mark.parametrize("options", [(), ("--output-format", "jsonl")])
def test_an_output_is_what_its_name_says(ending: str, options: tuple[str, ...]) -> None:
    assert run("in.txt", "-o", "plain.jsonl") == run("in.txt", "-o", f"out.jsonl{ending}", *options) == 0
    assert UNPACK[ending](Path(f"out.jsonl{ending}").read_bytes()) == Path("plain.jsonl").read_bytes()
    beside = json.loads(Path(f"out.jsonl{ending}.json").read_text())
    assert beside == json.loads(Path("plain.jsonl.json").read_text())


def test_the_same_vectors_give_the_same_file() -> None:
    """No time, no name inside."""
    assert run("in.txt", "-o", "a.jsonl.gz") == run("in.txt", "-o", "b.jsonl.gz") == 0
    assert Path("a.jsonl.gz").read_bytes() == Path("b.jsonl.gz").read_bytes()


@endings
@pytest.mark.parametrize(
    ("name", "content"),
    [("in.txt", "über\nlast\n"), ("in.jsonl", '"über"\n{"text": "last"}\n'), ("in.csv", "text\nüber\nlast\n")],
)
def test_an_input_is_read_as_its_name_says(
    ending: str, name: str, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(name + ending).write_bytes(PACK[ending](content.encode()))
    assert run(name + ending) == 0
    assert [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()] == ["über", "last"]


@endings
@pytest.mark.parametrize("content", [b"not compressed at all\n", None, b""], ids=["plain", "cut", "empty"])
def test_a_damaged_input_is_named(ending: str, content: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"in.txt{ending}"
    Path(name).write_bytes(PACK[ending](bytes(range(256)).hex().encode() * 100)[:-20] if content is None else content)
    assert run(name, "-o", "out.npy") == 2
    assert f"{name} is not what its ending {ending} says (" in capsys.readouterr().err
    assert not list(Path().glob("*.npy"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            "in.txt -o x.jsonl.zst",
            "x.jsonl.zst would be compressed with .zst, which is not known; known: .gz, .bz2, .xz",
        ),
        ("in.txt -o x.zip --output-format jsonl", "x.zip would be compressed with .zip"),
        ("in.txt -o x.npy.gz", "x.npy.gz: npy is not compressed with .gz; name it x.npy"),
        ("in.txt -o x.gz --output-format npy", "x.gz: npy is not compressed with .gz; name it x.npy"),
        ("in.txt -o x.parquet.xz", "x.parquet.xz: parquet is not compressed with .xz; name it x.parquet"),
        ("in.txt -o x.gz", "the name x.gz does not tell its format"),
        ("in.txt -o x.jsonl.gz --append", "x.jsonl.gz is compressed and cannot grow"),
        ("in.parquet.gz -o x.npy", "in.parquet.gz: parquet is not compressed with .gz"),
    ],
)
def test_what_is_not_compressed_so_is_refused_before_anything_is_done(
    words: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("in.parquet.gz").write_bytes(b"")
    assert run(*words.split()) == 2
    assert said in capsys.readouterr().err
    assert not list(Path().glob("x.*"))


def test_pipes_are_never_compressed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    give_stdin(monkeypatch, b"one\n")
    assert run() == 0
    assert json.loads(capsys.readouterr().out)["text"] == "one"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(b"one\n"))))
    assert run() == 2
    assert "is not UTF-8" in capsys.readouterr().err
