"""Where an export goes, and that one which fails changes nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoints import (
    change_tensors,
)
from exports import contents, quick

from fastembed_rt import cli
from fastembed_rt.errors import CheckpointError, OutputExistsError, ParityError
from fastembed_rt_export.directory.whole import atomic_directory
from fastembed_rt_export.gate import parity
from fastembed_rt_export.graph.weight import Weight
from fastembed_rt_export.pipeline import ExportOptions, export

# --- where the directory goes ----------------------------------------------------------------------------------------


def test_an_existing_model_directory_is_kept_unless_forced(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    quick(checkpoint, output)
    (output / "mine.txt").write_text("mine")
    before = contents(output)
    with pytest.raises(OutputExistsError, match="pass --force to replace it"):
        quick(checkpoint, output)
    assert contents(output) == before
    quick(checkpoint, output, force=True)
    assert contents(output) == {name: body for name, body in before.items() if name != "mine.txt"}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_an_empty_directory_is_filled(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    quick(checkpoint, tmp_path / "out")
    assert (tmp_path / "out" / "model.onnx").is_file()


def test_force_does_not_delete_the_checkpoint_that_is_exported(checkpoint: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    quick(checkpoint, output)
    inside = Path(shutil.copytree(checkpoint, output / "from"))
    before = contents(output)
    (tmp_path / "link").symlink_to(inside)
    for source in (inside, tmp_path / "link"):
        with pytest.raises(OutputExistsError, match=r"lies inside .*, which --force replaces"):
            quick(source, output, force=True)
    assert contents(output) == before
    assert quick(inside, output / "another").dim


def test_force_does_not_replace_what_is_not_a_model_directory(checkpoint: Path, tmp_path: Path) -> None:
    """A mistyped output must not cost the checkpoint, or a home directory."""
    source = Path(shutil.copytree(checkpoint, tmp_path / "source"))
    before = contents(tmp_path)
    for output in (source, tmp_path):
        with pytest.raises(OutputExistsError, match=r"is not a model directory \(no manifest\.json\)"):
            quick(source, output, force=True)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("kind", ["file", "link to a directory", "link to nothing"])
def test_an_output_that_is_not_a_directory_is_refused(checkpoint: Path, tmp_path: Path, kind: str, force: bool) -> None:
    output, target = tmp_path / "out", tmp_path / "target"
    if kind == "file":
        output.write_text("a file")
    else:
        output.symlink_to(target)
    if kind == "link to a directory":
        quick(checkpoint, target)
    before = contents(tmp_path)
    with pytest.raises(OutputExistsError, match="is there and is not a directory"):
        quick(checkpoint, output, force=force)
    assert contents(tmp_path) == before
    assert output.is_symlink() is (kind != "file")


def test_missing_parents_are_made(checkpoint: Path, tmp_path: Path) -> None:
    quick(checkpoint, tmp_path / "some" / "where" / "out")
    assert (tmp_path / "some" / "where" / "out" / "manifest.json").is_file()


def test_the_output_is_named_after_the_checkpoint_when_none_is_given(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made = export(str(checkpoint), ExportOptions(verify=False))
    assert made.directory == Path("mini-onnx")
    assert (tmp_path / "mini-onnx" / "model.onnx").is_file()

    (tmp_path / "latest").symlink_to(checkpoint)
    assert export("latest", ExportOptions(verify=False)).directory == Path("latest-onnx")


def test_a_new_directory_is_readable_by_others(checkpoint: Path, tmp_path: Path) -> None:
    quick(checkpoint, tmp_path / "out")
    (tmp_path / "plain").mkdir()
    assert (tmp_path / "out").stat().st_mode == (tmp_path / "plain").stat().st_mode


# --- when an export fails --------------------------------------------------------------------------------------------


Break = Callable[[Path, pytest.MonkeyPatch], None]


def damage_the_checkpoint(source: Path, _: pytest.MonkeyPatch) -> None:
    change_tensors(source, lambda tensors: tensors.pop("encoder.layer.2.output.dense.bias"))


def miss_the_parity(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parity, "FP32", parity.Bounds(2.0, 0.0))


def in_the_middle(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Raise while weights are written, after a few."""
    calls = []
    real = Weight.contents

    def failing(weight: Weight) -> memoryview:
        calls.append(weight)
        if len(calls) == 12:
            raise error
        return real(weight)

    monkeypatch.setattr(Weight, "contents", failing)


def interrupt(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_middle(monkeypatch, KeyboardInterrupt())


def fill_the_disk(_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_middle(monkeypatch, OSError(28, "No space left on device"))


def break_the_tokenizer(source: Path, _: pytest.MonkeyPatch) -> None:
    (source / "tokenizer.json").write_text("{}")


FAILURES = [
    (damage_the_checkpoint, CheckpointError, 3),
    (break_the_tokenizer, CheckpointError, 3),
    (miss_the_parity, ParityError, 4),
    (interrupt, KeyboardInterrupt, 130),
    (fill_the_disk, OSError, 1),
]


@pytest.mark.parametrize(("spoil", "error", "_"), FAILURES, ids=[failure[0].__name__ for failure in FAILURES])
@pytest.mark.parametrize("there", [True, False], ids=["over an old one", "in a new place"])
@pytest.mark.parametrize("external_data", [False, True])
def test_a_failed_export_leaves_everything_as_it_was(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Break,
    error: type[BaseException],
    _: int,
    there: bool,
    external_data: bool,
) -> None:
    source = Path(shutil.copytree(checkpoint, tmp_path / "source"))
    output = tmp_path / "parent" / "out"
    if there:
        quick(source, output)
    spoil(source, monkeypatch)
    files, everything = contents(tmp_path), sorted(tmp_path.rglob("*"))
    with pytest.raises(error):
        export(str(source), ExportOptions(output=output, force=True, external_data=external_data))
    assert contents(tmp_path) == files
    assert sorted(tmp_path.rglob("*")) == everything


@pytest.mark.parametrize(("spoil", "_", "code"), FAILURES, ids=[failure[0].__name__ for failure in FAILURES])
@pytest.mark.usefixtures("short_gate")
def test_the_command_turns_every_failure_into_one_line_and_an_exit_code(
    checkpoint: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: Break,
    _: object,
    code: int,
) -> None:
    source = Path(shutil.copytree(checkpoint, tmp_path / "source"))
    spoil(source, monkeypatch)
    assert cli.main(["export", str(source), "-o", str(tmp_path / "out"), "-q"]) == code
    said = capsys.readouterr()
    assert said.out == ""
    assert len(re.findall("^fastembed-rt: error: .+$", said.err, re.MULTILINE)) == 1


def test_a_full_disk_leaves_the_old_directory_and_nothing_else(checkpoint: Path, tmp_path: Path) -> None:
    quick(checkpoint, tmp_path / "out")
    before = contents(tmp_path)
    code = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))\n"
        "from fastembed_rt import cli; sys.exit(cli.main(sys.argv[1:]))"
    )
    argv = ["export", str(checkpoint), "-o", str(tmp_path / "out"), "--force", "--no-verify", "-q"]
    # A coverage run would meet the limit too, when it saves its data.
    env = {key: value for key, value in os.environ.items() if not key.startswith("COVERAGE")}
    command = [sys.executable, "-c", code, *argv]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=100, env=env)
    assert done.returncode == 1
    assert done.stderr.startswith("fastembed-rt: error: File too large")
    assert len(done.stderr.splitlines()) == 1
    assert contents(tmp_path) == before
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_a_directory_that_comes_into_being_meanwhile_is_kept(tmp_path: Path) -> None:
    output = tmp_path / "out"
    with pytest.raises(OutputExistsError), atomic_directory(output) as work:
        (work / "new").write_text("new")
        output.mkdir()
        (output / "other").write_text("somebody else's")
    assert contents(tmp_path) == {"out/other": b"somebody else's"}


def test_a_swap_that_fails_brings_the_old_directory_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "manifest.json").write_text("old")
    real = Path.rename

    def failing(self: Path, target: Path) -> Path:
        if self.suffix == ".partial":
            raise OSError(5, "Input/output error")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(OSError, match="Input/output"), atomic_directory(output, force=True) as work:
        (work / "manifest.json").write_text("new")
    assert contents(tmp_path) == {"out/manifest.json": b"old"}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]


def test_the_old_directory_is_there_until_the_new_one_is_complete(tmp_path: Path) -> None:
    output = tmp_path / "out"
    output.mkdir()
    (output / "manifest.json").write_text("old")
    with atomic_directory(output, force=True) as work:
        (work / "manifest.json").write_text("new")
        assert (output / "manifest.json").read_text() == "old"
    assert contents(tmp_path) == {"out/manifest.json": b"new"}


def test_a_swap_moves_nothing_onto_a_directory_that_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Windows refuses that, also where it is empty."""
    output = tmp_path / "out"
    output.mkdir()
    (output / "manifest.json").write_text("old")
    real = Path.rename

    def refusing(self: Path, target: Path) -> Path:
        if target.exists():
            raise FileExistsError(183, "Cannot create a file when that file already exists")
        return real(self, target)

    monkeypatch.setattr(Path, "rename", refusing)
    with atomic_directory(output, force=True) as work:
        (work / "manifest.json").write_text("new")
    assert contents(tmp_path) == {"out/manifest.json": b"new"}
    assert [file.name for file in tmp_path.iterdir()] == ["out"]
