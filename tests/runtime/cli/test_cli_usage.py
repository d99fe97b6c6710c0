"""Wrong options: exit code 2 from every command, the usage of that command, and what would be right."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from fastembed_rt import cli

NOTHING = "/nonexistent"  # a name that is never asked of the hub
REQUIRED = {
    "export": 1,
    "embed": 1,
    "rerank": 2,
    "similar": 1,
    "index": 2,
    "search": 1,
    "verify": 1,
    "info": 1,
    "bench": 1,
    "serve": 0,
    "mcp": 1,
    "push": 2,
    "cache": 1,
    "doctor": 0,
}
MOST = {**REQUIRED, "similar": 3}  # of words that are no options


def words(name: str, most: Mapping[str, int] = REQUIRED) -> list[str]:
    """As many as a command needs."""
    first = {"cache": ["list"], "index": ["info"]}.get(name, [])
    return [*first, *[NOTHING] * (most[name] - len(first))]


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """What standard error says of a command that exits with 2."""
    assert cli.main(list(words)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_an_unknown_option_prints_the_usage_of_its_command(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, name, *words(name), "--bogus")
    assert err.startswith(f"usage: fastembed-rt {name} ")
    assert err.splitlines()[-1] == f"fastembed-rt {name}: error: unrecognized arguments: --bogus"


@pytest.mark.parametrize("name", [name for name in cli.COMMANDS if name not in ("embed", "rerank", "serve", "cache")])
def test_a_word_too_many_does_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, name, *words(name, MOST), "another")
    assert err.splitlines()[-1] == f"fastembed-rt {name}: error: unrecognized arguments: another"


@pytest.mark.parametrize("name", [name for name, number in REQUIRED.items() if number])
def test_a_word_too_few_does_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, name)
    assert err.startswith(f"usage: fastembed-rt {name} ")
    assert f"\nfastembed-rt {name}: error: the following arguments are required: " in err


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_no_command_takes_abbreviations(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is short for one option today is short for two tomorrow."""
    assert "unrecognized arguments: --debu" in refused(capsys, name, *words(name), "--debu")


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_wrong_option_does_not_drown_in_thirty_lines_of_usage(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    usage, *_, where, error = refused(capsys, name, *words(name), "--bogus").splitlines()
    assert usage.startswith(f"usage: fastembed-rt {name} [options]")
    assert name != "serve" or usage.endswith("[MODEL ...]")
    assert where == f"(all options: fastembed-rt {name} --help)"
    assert error.endswith("--bogus")


def test_a_wrong_value_from_the_environment_names_its_variable(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKERS", "two")
    said = refused(capsys, "serve", NOTHING).splitlines()[-1]
    assert said.endswith("'two' is not a positive integer (the environment has WORKERS=two)")
    assert "environment" not in refused(capsys, "serve", NOTHING, "--workers", "three")


def test_without_a_command_the_usage_is_the_programs(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--bogus"], ["nothing"]):
        assert refused(capsys, *words).startswith("usage: fastembed-rt [-h]")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("embed M --precision int4", "'int4' is not a precision; there are fp32, fp16, bf16, fp8 and int8"),
        ("info M --precision float16", "'float16' is not a precision; there are fp32, fp16, bf16, fp8 and int8"),
        ("bench M --precision FP32", "'FP32' is not a precision"),
        ("embed M --threads 0", "'0' is not a positive integer"),
        ("embed M --device-ids 0,a", "'0,a' is not numbers joined by commas"),
        ("bench M --seconds nan", "'nan' is not a number of seconds"),
        ("export M --max-length ten", "invalid int value: 'ten'"),
        ("export M --min-cosine 98", "'98' is not a cosine, a number from -1 to 1"),
        ("verify M --min-cosine nan", "'nan' is not a cosine"),
        ("export M --pooling", "expected one argument"),
        ("embed M --prompt a --prompt-name b", "not allowed with argument"),
    ],
)
def test_a_wrong_value_says_what_is_possible(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, *words.replace("M", NOTHING).split())
    assert err.startswith(f"usage: fastembed-rt {words.split(maxsplit=1)[0]} ")
    assert said in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--precision fp16", "does not run with provider 'cpu', for which there are fp32, bf16 and int8"),
        (
            "--precision int8",
            "this model directory has fp32 (cpu); take one of those, or export again with --target cpu",
        ),
        ("--provider gpu", "provider 'gpu' is not known; known: cpu, cuda"),
        ("--max-length 999", "expected 1 to 48"),
        ("--truncate-dim 999", "expected 1 to 24"),
        ("--prompt-name nobody", "it has document, query"),
        ("--revision main", "is a directory here"),
        ("--ranges none.npy --output-precision int8", "none.npy does not exist"),
        ("--ranges none.npy", "drop it"),
        ("--output-precision int8", "needs --ranges"),
        ("-o x.feather", "does not tell its format (.npy, .npz, .jsonl, .ndjson, .parquet)"),
        ("-o nowhere/x.npy", "does not exist; create it"),
        ("--append", "--append is for a file"),
    ],
)
def test_what_this_model_does_not_have_is_wrong_usage_too(
    model_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, said: str
) -> None:
    (tmp_path / "in.txt").write_text("a\n")
    before = Path.cwd()
    os.chdir(tmp_path)
    try:
        err = refused(capsys, "embed", str(model_dir), str(tmp_path / "in.txt"), *options.split())
    finally:
        os.chdir(before)
    assert err.count("\n") == 1
    assert said in err
    assert [path.name for path in tmp_path.iterdir()] == ["in.txt"]


@pytest.mark.parametrize(
    "command",
    [
        ["embed", NOTHING, ""],
        ["embed", NOTHING, "--cache", ""],
        ["embed", NOTHING, "--cache-dir", ""],
        ["embed", NOTHING, "--metrics-file", " "],
        ["embed", NOTHING, "--shards", ""],
        ["embed", NOTHING, "-o", ""],
        ["embed", NOTHING, "--ranges", ""],
        ["rerank", NOTHING, "query", ""],
        ["index", "build", ""],
        ["search", "query", "--folder", ""],
        ["export", NOTHING, "-o", ""],
        ["export", NOTHING, "--calibration", ""],
        ["similar", NOTHING, "--file", ""],
        ["bench", NOTHING, "--texts", ""],
        ["verify", ""],
        ["push", "", "org/name"],
    ],
    ids=" ".join,
)
def test_an_empty_name_is_not_the_working_directory(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    err = refused(capsys, *command)
    assert "is empty; name a file or directory" in err.splitlines()[-1]
