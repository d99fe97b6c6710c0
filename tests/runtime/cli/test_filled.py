"""Help texts, tables and hits on narrow terminals; colours where they are wanted."""

from __future__ import annotations

import io
import re

import pytest

from fastembed_rt import cli
from fastembed_rt.cli.filled import aligned, wrapped
from fastembed_rt.system import terminal

TABLE = [("", "file", "size", "why"), ("*", "a.onnx", "90 MB", "it loads here"), ("", "b.onnx", "", "another is taken")]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_keeps_to_the_terminal_and_loses_no_word(
    name: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    assert cli.main([name, "--help"]) == 0
    wide = capsys.readouterr().out
    monkeypatch.setenv("COLUMNS", str(width))
    assert cli.main([name, "--help"]) == 0
    narrow = capsys.readouterr().out
    said, end = wide.index("\n\n"), narrow.index("\n\n")  # usages are argparse's
    # argparse itself breaks words at hyphens.
    assert re.sub(r"\s", "", narrow[end:]) == re.sub(r"\s", "", wide[said:])
    longest = max(narrow[end:].splitlines(), key=len)
    assert len(longest) <= width or len(longest.split()) == 1 or longest.lstrip().startswith("--"), longest


def test_a_list_in_a_help_text_keeps_its_entries(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    cli.main(["embed", "--help"])
    said = capsys.readouterr().out
    assert "\n  txt      one text a line; an empty line is an empty text\n" in said
    assert '\n  jsonl    in: a string or an object a line; out: {"id"?,\n           "text", VECTORS}\n' in said


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_no_list_in_a_help_text_runs_into_one_line(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines at the margin flow: entries of a list begin further in."""
    monkeypatch.setenv("COLUMNS", "1000")
    cli.main([name, "--help"])
    said = capsys.readouterr().out
    assert re.findall(r"^\S.*\S {2,}\S.*$", said, re.MULTILINE) == []


def test_a_table_that_does_not_fit_has_a_few_lines_a_row() -> None:
    wide = list(aligned(TABLE, None))
    assert (
        wide
        == list(aligned(TABLE, 40))
        == [
            "   file    size   why",
            "*  a.onnx  90 MB  it loads here",
            "   b.onnx         another is taken",
        ]
    )
    assert list(aligned(TABLE, 30)) == [
        "*  a.onnx",
        "      size 90 MB, why it loads",
        "      here",
        "   b.onnx",
        "      why another is taken",
    ]
    assert wrapped("one two three", 12) == ["    one two", "    three"]


def test_columns_and_colours_of_a_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("COLUMNS", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.columns(None) is terminal.columns(io.StringIO()) is None
    assert terminal.columns(Terminal()) == terminal.USUAL
    monkeypatch.setenv("COLUMNS", "60")
    assert terminal.columns(Terminal()) == 60
    assert terminal.columns(io.StringIO()) is None
    assert terminal.coloured(Terminal())
    assert not terminal.coloured(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "")
    assert terminal.coloured(Terminal())  # https://no-color.org: when it is not empty
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.coloured(Terminal())
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert not terminal.coloured(Terminal())
