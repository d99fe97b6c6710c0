"""Standard streams that are closed or speak no UTF-8, and names that the locale cannot spell."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_cli import environment  # type: ignore[import-not-found]

from fastembed_rt import EmbeddingModel, cli
from fastembed_rt.errors import InvalidInputError
from fastembed_rt.system.paths import as_text, as_utf8
from fastembed_rt.system.progress import NoBar, progress

posix = pytest.mark.skipif(os.name == "nt", reason="descriptors and names of Unix")
NAME = "größe 模型"
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
CLOSE = "import os, sys; [os.close(n) for n in map(int, sys.argv[1].split())]; os.execv(sys.argv[2], sys.argv[2:])"


def run(words: Sequence[str], closed: Sequence[int] = (), **env: str) -> subprocess.CompletedProcess[bytes]:
    """`python -m fastembed_rt`, started with these descriptors closed, as a shell's `2>&-` does."""
    command = [sys.executable, "-m", "fastembed_rt", *words]
    if closed:
        command = [sys.executable, "-c", CLOSE, " ".join(map(str, closed)), *command]
    return subprocess.run(
        command, capture_output=True, env={**environment(), **env}, stdin=subprocess.DEVNULL, timeout=60, check=False
    )


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    path = tmp_path / "texts.txt"
    path.write_text("a dog runs\nthe house is red\n")
    return path


@posix
@pytest.mark.parametrize("closed", [(2,), (1, 2), (0, 1, 2)], ids=str)
def test_embed_writes_its_file_whatever_is_closed(
    model_dir: Path, model: EmbeddingModel, texts: Path, tmp_path: Path, closed: tuple[int, ...]
) -> None:
    output = tmp_path / "out.npy"
    done = run(["embed", str(model_dir), str(texts), "-o", str(output), "--threads", "2"], closed)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    np.testing.assert_array_equal(np.load(output), model.encode(texts.read_text().splitlines()))


@posix
def test_a_summary_does_not_end_up_among_the_vectors(model_dir: Path, texts: Path) -> None:
    """print(file=None) writes to standard output."""
    done = run(["embed", str(model_dir), str(texts)], (2,))
    assert done.returncode == 0
    assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == texts.read_text().splitlines()


@posix
def test_scores_that_nobody_would_see_are_refused(model_dir: Path) -> None:
    done = run(["similar", str(model_dir), "a dog runs", "the house is red"], (1,))
    assert (done.returncode, b"standard output is closed, and the scores would go there" in done.stderr) == (2, True)
    done = run(["search", "a dog", "--model", str(model_dir)], (1,))
    assert (done.returncode, b"standard output is closed, and the hits would go there" in done.stderr) == (2, True)


@posix
def test_an_error_keeps_its_code_and_touches_nothing_else(model_dir: Path, texts: Path) -> None:
    for words, code in (
        (["embed", str(model_dir), "nowhere.txt"], 2),
        (["embed", "--bogus"], 2),
        (["info", "/nonexistent"], 3),
    ):
        assert (done := run(words, (2,))).returncode == code
        assert done.stdout == b""


@posix
def test_what_a_library_prints_on_a_closed_descriptor_is_in_no_file(texts: Path, tmp_path: Path) -> None:
    """The file opened first would have number 2, and native code prints there without asking Python."""
    script = (
        "import os, sys, test_cli; from fastembed_rt import cli; from fastembed_rt.cli import embed\n"
        "class Noisy(test_cli.StandInModel):\n"
        "    def embed(self, texts, **asked):\n"
        "        os.write(2, b'native code says something')\n"
        "        yield from super().embed(texts, **asked)\n"
        "embed.open_model = Noisy\n"
        "sys.exit(cli.main(['embed', 'MODEL', *sys.argv[1:]]))"
    )
    output = tmp_path / "out.jsonl"
    command = [sys.executable, "-c", CLOSE, "2", sys.executable, "-c", script, str(texts), "-o", str(output)]
    assert subprocess.run(command, env=environment(), timeout=60, check=False).returncode == 0
    assert [json.loads(line)["text"] for line in output.read_text().splitlines()] == texts.read_text().splitlines()


def test_standard_error_may_be_none(
    model_dir: Path, texts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under pythonw."""
    monkeypatch.setattr(sys, "stderr", None)
    assert cli.main(["embed", str(model_dir), str(texts), "-o", str(tmp_path / "out.npy")]) == 0
    assert cli.main(["embed", "--bogus"]) == 2
    assert sys.stderr is None


@pytest.mark.parametrize("closed", [False, True])
def test_a_progress_bar_that_nobody_can_see_is_left_out(
    model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, closed: bool
) -> None:
    stream = (tmp_path / "stream").open("w")
    stream.close()
    monkeypatch.setattr(sys, "stderr", stream if closed else None)
    assert isinstance(progress(3, show=True), NoBar)
    assert model.encode(["a", "b"], show_progress_bar=True).shape == (2, model.dim)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_error_that_cannot_be_told_keeps_its_code() -> None:
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "fastembed_rt", "embed", "/nonexistent", "nowhere.txt"]
        assert subprocess.run(command, stderr=full, env=environment(), timeout=60, check=False).returncode == 2


# Names and texts beyond ASCII in a process that knows ASCII only.


@posix
@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_model_under_a_name_that_the_locale_cannot_spell_runs(
    two_precisions: Path, texts: Path, tmp_path: Path, precision: str
) -> None:
    shutil.copytree(two_precisions, tmp_path / NAME)
    output = tmp_path / NAME / "größe.npy"
    options = ["--precision", precision, "--threads", "1", "--prompt", "Größe: "]
    done = run(["embed", str(tmp_path / NAME), str(texts), "-o", str(output), *options], (), **ASCII)
    assert done.returncode == 0, done.stderr
    with EmbeddingModel(two_precisions, precision=precision, threads=1) as same:
        expected = same.encode(texts.read_text().splitlines(), prompt="Größe: ")
    np.testing.assert_array_equal(np.load(output), expected)
    said = run(["info", str(tmp_path / NAME), "--precision", precision], (), **ASCII)
    assert (said.returncode, said.stderr) == (0, b"")


@posix
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_printing_in_another_encoding_never_fails(two_precisions: Path, tmp_path: Path, encoding: str) -> None:
    shutil.copytree(two_precisions, tmp_path / NAME)
    done = run(["info", str(tmp_path / NAME)], PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, b"")


@posix
def test_a_name_that_is_no_utf8_is_said_as_it_is(model_dir: Path, tmp_path: Path) -> None:
    """Rust and onnxruntime open names of UTF-8 only; exporting again would not help."""
    copy = Path(os.fsdecode(os.fsencode(tmp_path) + b"/gr\xf6\xdfe"))
    shutil.copytree(model_dir, copy)
    with pytest.raises(InvalidInputError, match=r"gr\\xf6\\xdfe.* is not UTF-8 \(byte 0xf6\).*rename the directory"):
        EmbeddingModel(copy)


@posix
def test_paths_are_what_the_file_system_has() -> None:
    surrogates = os.fsencode(NAME).decode("ascii", "surrogateescape")
    assert as_utf8(NAME) == as_text(NAME) == NAME
    if sys.getfilesystemencoding() == "utf-8":
        assert as_utf8(surrogates) == as_text(surrogates) == NAME


@pytest.fixture(scope="session")
def two_precisions(pair: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from exports import quick

    directory = tmp_path_factory.mktemp("two") / "model"
    quick(pair.checkpoint, directory, precisions=("fp32", "int8"))
    return directory
