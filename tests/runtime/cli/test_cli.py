"""The command line from outside: exit codes, error lines, pipes, and embed around a stand-in model."""

from __future__ import annotations

import argparse
import errno
import hashlib
import io
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

import fastembed_rt
from fastembed_rt import cli, errors
from fastembed_rt.cli import embed

DIM = 4
HEAVY = {"onnxruntime", "tokenizers", "torch", "transformers", "onnx", "huggingface_hub", "pyarrow", "tqdm"}
needs_full_disk = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
unbuffered_or_not = pytest.mark.parametrize("flags", [(), ("-u",)], ids=["buffered", "unbuffered"])
Command = Callable[[BaseException | None], None]
StartEmbed = Callable[..., "subprocess.Popen[bytes]"]


def vector_of(text: str, dim: int = DIM) -> npt.NDArray[np.float32]:
    """A vector that only this text has: (dim,), dim up to 8."""
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32)
    return (digest[:dim] / 2**32).astype(np.float32)


class StandInModel:
    """Takes texts ahead in batches, as the real one does, and remembers what it was asked."""

    task = "embedding"
    default_prompt_name: str | None = None

    def __init__(self, args: argparse.Namespace, options: object) -> None:
        self.args = args
        self.dim = args.truncate_dim or DIM
        self.max_length = 8
        self.prompts = {"query": "Frage: ", "none": ""}
        self.stats = types.SimpleNamespace(texts=0, tokens=0, truncated=0)
        self.asked: dict[str, object] = {}

    def __enter__(self) -> StandInModel:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def fingerprint(self, **_: object) -> str:
        return f"stand-in-dim{self.dim}"

    def embed(self, texts: Iterable[str], **asked: object) -> Iterator[npt.NDArray[np.float32]]:
        self.asked = asked
        stream = iter(texts)
        while batch := list(itertools.islice(stream, 3)):
            self.stats.truncated += sum(len(text) > self.max_length for text in batch)
            yield from (vector_of(text, self.dim) for text in batch)


@pytest.fixture
def models(monkeypatch: pytest.MonkeyPatch) -> list[StandInModel]:
    """Every model that `embed` opens in the test."""
    opened: list[StandInModel] = []

    def open_model(args: argparse.Namespace, options: object) -> StandInModel:
        opened.append(StandInModel(args, options))
        return opened[-1]

    monkeypatch.setattr(embed, "open_model", open_model)
    return opened


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Command:
    """Registers a command `probe` that raises what the test gives it."""

    def register(failure: BaseException | None) -> None:
        def run(_: argparse.Namespace) -> int:
            if failure is not None:
                raise failure
            return 0

        module = types.ModuleType("fastembed_rt.cli.probe")
        vars(module)["add_parser"] = lambda parsers: parsers.add_parser("probe").set_defaults(run=run)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(cli, "COMMANDS", ("probe",))

    return register


def environment() -> dict[str, str]:
    """This environment, in which a new interpreter finds the package and this file, and buffers as usual."""
    paths = [str(Path(fastembed_rt.__file__).parents[1]), str(Path(__file__).parent)]
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**inherited, "PYTHONPATH": os.pathsep.join(paths)}


def run_module(*arguments: str, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    """`python -m fastembed_rt` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "fastembed_rt", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env=environment(),
        timeout=60,
        check=False,
    )


@pytest.fixture
def start_embed(terminal_signals: None) -> Iterator[StartEmbed]:
    """Starts `fastembed-rt embed MODEL ...` in a process of its own, with the stand-in model."""
    script = (
        "import sys, test_cli; from fastembed_rt import cli; from fastembed_rt.cli import embed\n"
        "embed.open_model = test_cli.StandInModel\n"
        "sys.exit(cli.main(['embed', 'MODEL', *sys.argv[1:]]))"
    )
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, stdout: int = subprocess.PIPE, flags: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, *flags, "-c", script, *arguments],
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=subprocess.PIPE,
            env=environment(),
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()  # only a failed test leaves one alive
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def give_stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


# The frame: help, versions, exit codes, error lines.


def test_version_is_the_package_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"fastembed-rt {fastembed_rt.__version__}\n"


def test_python_m_runs_the_same_command_line() -> None:
    done = run_module("--version")
    assert done.stdout.decode().strip() == f"fastembed-rt {fastembed_rt.__version__}"


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    script = "import sys; from fastembed_rt.cli import main; main(['--help']); print('MODULES', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, env=environment(), check=True)
    help_text, _, modules = done.stdout.decode().partition("MODULES")
    assert all(f"\n    {name}" in help_text for name in cli.COMMANDS)
    assert not HEAVY & set(modules.split())


@pytest.mark.parametrize("argv", [[], ["unknown"], ["probe", "--unknown"], ["--debu", "probe"]])
def test_usage_errors_exit_with_2(command: Command, argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    command(None)
    assert cli.main(argv) == 2
    assert "error:" in capsys.readouterr().err


@pytest.mark.parametrize(
    "kind",
    [
        errors.FastembedRtError,
        errors.InvalidTypeError,
        errors.IntegrityError,
        errors.ParityError,
        errors.MissingDependencyError,
    ],
)
def test_our_errors_are_one_line_with_their_exit_code(
    command: Command, kind: type[errors.FastembedRtError], capsys: pytest.CaptureFixture[str]
) -> None:
    command(kind("the reason,\nin two lines"))
    assert cli.main(["probe"]) == kind.exit_code
    assert capsys.readouterr() == ("", "fastembed-rt: error: the reason, in two lines\n")


@pytest.mark.parametrize(
    ("failure", "code", "line"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device"), 1, "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "a.npy"), 1, "Permission denied: a.npy"),
        (ZeroDivisionError("by 0"), 1, "ZeroDivisionError: by 0 (run again with --debug for the traceback)"),
        (MemoryError(), 1, "MemoryError (run again with --debug for the traceback)"),
    ],
)
def test_other_failures_are_one_line_too(
    command: Command, failure: BaseException, code: int, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command(failure)
    assert cli.main(["probe"]) == code
    assert capsys.readouterr().err == f"fastembed-rt: error: {line}\n"


@pytest.mark.parametrize("argv", [["--debug", "probe"], ["probe", "--debug"]])
def test_debug_prints_the_traceback_before_and_after_the_command(
    command: Command, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    command(ZeroDivisionError("by 0"))
    assert cli.main(argv) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1] == "fastembed-rt: error: ZeroDivisionError: by 0"


@unbuffered_or_not
def test_a_broken_pipe_ends_quietly(start_embed: StartEmbed, flags: tuple[str, ...]) -> None:
    process = start_embed("--quiet", flags=flags)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()  # as `| head` does when it has seen enough
    process.stdin.write(b"text\n" * 100)
    process.stdin.close()
    assert process.wait(timeout=60) == cli.BROKEN_PIPE
    assert process.stderr.read() == b""


@pytest.mark.skipif(os.name == "nt", reason="pipes of Unix")
def test_help_into_a_broken_pipe_ends_quietly() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = run_module("--help", stdout=write_end)
    os.close(write_end)
    assert (done.returncode, done.stderr) == (cli.BROKEN_PIPE, b"")


@needs_full_disk
def test_help_onto_a_full_disk_is_one_line() -> None:
    with Path("/dev/full").open("wb") as full:
        done = run_module("--help", stdout=full.fileno())
    assert (done.returncode, done.stderr) == (1, b"fastembed-rt: error: No space left on device\n")


@needs_full_disk
@unbuffered_or_not
@pytest.mark.parametrize("output_format", ["jsonl", "npy", "parquet"])
def test_a_full_disk_is_one_line(start_embed: StartEmbed, output_format: str, flags: tuple[str, ...]) -> None:
    with Path("/dev/full").open("wb") as full:
        process = start_embed("--quiet", "--output-format", output_format, stdout=full.fileno(), flags=flags)
        _, stderr = process.communicate(b"text\n", timeout=60)
    assert process.returncode == 1
    assert stderr == b"fastembed-rt: error: No space left on device\n"


# embed: what goes through a pipe or into a file.


def test_a_pipe_gives_a_line_of_json_for_a_line_of_text(start_embed: StartEmbed) -> None:
    process = start_embed()
    stdout, stderr = process.communicate("über\n\nlast".encode(), timeout=60)
    assert process.returncode == 0, stderr
    rows = [json.loads(line) for line in stdout.splitlines()]
    assert [row["text"] for row in rows] == ["über", "", "last"]
    for row in rows:
        np.testing.assert_array_equal(np.array(row["embedding"], np.float32), vector_of(row["text"]))
    assert stderr.decode().startswith("3 texts, dim 4, ")


@unbuffered_or_not
def test_npy_goes_through_a_pipe_when_asked_for(start_embed: StartEmbed, flags: tuple[str, ...]) -> None:
    process = start_embed("--output-format", "npy", "--quiet", flags=flags)
    stdout, stderr = process.communicate(b"a\nb\n", timeout=60)
    np.testing.assert_array_equal(np.load(io.BytesIO(stdout)), np.stack([vector_of("a"), vector_of("b")]))
    assert stderr == b""


@pytest.mark.skipif(os.name == "nt", reason="waits for a pipe as Unix can")
def test_vectors_leave_the_pipe_before_the_last_text_has_come(start_embed: StartEmbed) -> None:
    process = start_embed("--quiet")
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"1\n2\n3\n")  # what the stand-in takes at a time, and no end of file
    process.stdin.flush()
    ready, _, _ = select.select([process.stdout], [], [], 60)
    assert ready
    assert json.loads(process.stdout.readline())["text"] == "1"


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_ctrl_c_leaves_no_half_file(start_embed: StartEmbed, tmp_path: Path) -> None:
    process = start_embed("-o", str(tmp_path / "out.npy"))
    assert process.stdin is not None
    process.stdin.write(b"text\n" * 5000)
    process.stdin.flush()
    deadline = time.monotonic() + 60
    while not (begun := list(tmp_path.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [path.suffix for path in begun] == [".part"]
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert stderr == b"fastembed-rt: error: interrupted\n"
    assert process.returncode == cli.INTERRUPTED
    assert list(tmp_path.iterdir()) == []


def test_several_inputs_of_several_formats_come_out_in_order(
    models: list[StandInModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.jsonl").write_text('"three"\n{"text": "four"}\n')
    (tmp_path / "c.csv").write_text('id,text\n1,"five, a long one"\n')
    target = tmp_path / "out.npy"
    inputs = [str(tmp_path / name) for name in ("a.txt", "b.jsonl", "c.csv")]
    assert cli.main(["embed", "MODEL", *inputs, "-o", str(target)]) == 0
    expected = [vector_of(text) for text in ("one", "two", "three", "four", "five, a long one")]
    np.testing.assert_array_equal(np.load(target, mmap_mode="r"), np.stack(expected))
    summary = capsys.readouterr().err
    assert summary.startswith("5 texts, dim 4, ")
    assert summary.endswith(f" texts/s, 1 truncated to max_length 8, {target}\n")


@pytest.mark.parametrize(
    "order",
    [
        "MODEL a.txt b.txt -o out.npy",
        "MODEL -o out.npy a.txt b.txt",
        "-o out.npy MODEL a.txt b.txt",
        "MODEL a.txt -o out.npy --quiet b.txt",
        "--no-normalize MODEL -o out.npy -- a.txt b.txt",
    ],
)
def test_options_and_inputs_come_in_any_order(
    models: list[StandInModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.txt").write_text("one\n")
    Path("b.txt").write_text("two\n")
    assert cli.main(["embed", *order.split()]) == 0
    np.testing.assert_array_equal(np.load("out.npy"), np.stack([vector_of("one"), vector_of("two")]))
    assert models[0].asked["normalize"] is (False if "--no-normalize" in order else None)


def test_no_input_gives_no_rows_of_the_right_width(
    models: list[StandInModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_stdin(monkeypatch, b"")
    target = tmp_path / "out.npy"
    assert cli.main(["embed", "MODEL", "-o", str(target), "--truncate-dim", "2"]) == 0
    assert np.load(target).shape == (0, 2)


def test_options_reach_the_model(models: list[StandInModel], monkeypatch: pytest.MonkeyPatch) -> None:
    give_stdin(monkeypatch, b"text\n")
    options = ["--prompt-name", "query", "--no-normalize", "--threads", "2", "--truncation", "error"]
    options += ["--precision", "int8", "--max-length", "64", "--truncate-dim", "3", "--local-files-only"]
    assert cli.main(["embed", "MODEL", *options]) == 0
    (model,) = models
    assert model.asked == {"prompt_name": "query", "prompt": None, "normalize": False}
    given = (model.args.threads, model.args.truncation, model.args.precision, model.args.max_length)
    assert given == (2, "error", "int8", 64)
    assert model.args.local_files_only
    assert model.args.provider == "cpu"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--id-column", "id"], "txt has no ids"),
        (["--column", "body"], "--column is for jsonl, csv and parquet"),
        (["missing.txt"], "missing.txt does not exist"),
        ([__file__], "does not tell its format"),
        (["-o", "out.dat"], "does not tell its format"),
        (["-o", "no/such/out.npy"], "does not exist; create it"),
        (["-o", ".", "--output-format", "npy"], "is not a regular file"),
        (["--input-format", "csv", "--id-column", "id", "-o", "out.npy"], "npy holds vectors only"),
    ],
)
def test_what_cannot_work_is_refused_before_a_model_loads(
    models: list[StandInModel], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["embed", "MODEL", *options]) == 2
    assert models == []
    stderr = capsys.readouterr().err
    assert message in stderr
    assert stderr.count("\n") == 1


@pytest.mark.parametrize(
    "options", [["--threads", "0"], ["--truncate-dim", "-1"], ["--prompt", "a", "--prompt-name", "b"]]
)
def test_wrong_options_are_usage_errors(models: list[StandInModel], options: list[str]) -> None:
    assert cli.main(["embed", "MODEL", *options]) == 2
    assert models == []


def test_an_output_that_exists_is_kept_unless_forced(
    models: list[StandInModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out.npy"
    target.write_bytes(b"precious")
    give_stdin(monkeypatch, b"text\n")
    assert cli.main(["embed", "MODEL", "-o", str(target)]) == errors.OutputExistsError.exit_code
    assert target.read_bytes() == b"precious"
    assert cli.main(["embed", "MODEL", "-o", str(target), "--force"]) == 0
    assert np.load(target).shape == (1, DIM)


def test_an_error_in_the_last_line_keeps_the_old_output_and_leaves_no_part(
    models: list[StandInModel], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in.jsonl").write_text('"a"\n"b"\n"c"\n"d"\nnull\n')
    target = tmp_path / "out.npy"
    target.write_bytes(b"precious")
    argv = ["embed", "MODEL", str(tmp_path / "in.jsonl"), "-o", str(target), "--force"]
    assert cli.main(argv) == 2
    assert "in.jsonl, line 5: null where a string or an object" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.npy"]
    assert target.read_bytes() == b"precious"


def test_a_terminal_gets_a_progress_bar_and_quiet_none(
    models: list[StandInModel], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    give_stdin(monkeypatch, b"text\n")
    assert cli.main(["embed", "MODEL"]) == 0
    assert "texts/s" in capsys.readouterr().err.split("\r")[1]
    give_stdin(monkeypatch, b"text\n")
    assert cli.main(["embed", "MODEL", "--quiet"]) == 0
    assert capsys.readouterr().err == ""


def test_a_model_that_loses_a_text_is_found_out(
    models: list[StandInModel], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def embed_all_but_one(self: StandInModel, texts: Iterable[str], **_: object) -> Iterator[object]:
        yield from [vector_of(text) for text in texts][:-1]

    monkeypatch.setattr(StandInModel, "embed", embed_all_but_one)
    give_stdin(monkeypatch, b"a\nb\n")
    assert cli.main(["embed", "MODEL", "-o", str(tmp_path / "out.npy")]) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_an_import_that_ctrl_c_interrupts_is_not_said(
    terminal_signals: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Modules in C swallow the exception and raise their own; of NumPy: "caused by a bad install"."""

    def run(_: object) -> int:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("caused by a bad install or environment on your machine") from None
        return 0

    monkeypatch.setattr("fastembed_rt.cli.doctor.run", run)
    assert cli.main(["doctor"]) == cli.INTERRUPTED
    assert capsys.readouterr().err == "fastembed-rt: error: interrupted\n"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
