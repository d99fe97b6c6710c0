"""The export from outside: what a model directory holds, how it appears whole or not at all, what it costs."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
import torch
from checkpoints import (
    PROMPTS,
    SIZES,
    TEXTS,
    assert_vectors_agree,
    change_json,
    change_tensors,
    exported_vectors,
    save_sentence_transformers,
    save_tokenizer,
    save_with_heads,
)
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling

from fastembed_rt import EmbeddingModel, cli, manifest
from fastembed_rt.errors import CheckpointError, IntegrityError, OutputExistsError, ParityError
from fastembed_rt_export import parity
from fastembed_rt_export.checkpoint import Overrides
from fastembed_rt_export.directory import atomic_directory
from fastembed_rt_export.errors import UnsupportedCheckpointError
from fastembed_rt_export.graph import writer
from fastembed_rt_export.pipeline import ExportOptions, export

Vectors = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that no test changes."""
    directory = tmp_path_factory.mktemp("checkpoint") / "mini"
    return save_sentence_transformers(directory, prompts=PROMPTS, default_prompt_name="query")


@pytest.fixture(scope="module")
def model(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its export, verified, that no test changes."""
    output = tmp_path_factory.mktemp("model") / "mini-onnx"
    export(str(checkpoint), ExportOptions(output=output))
    return output


def contents(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def quick(checkpoint: Path, output: Path, **options: Any) -> manifest.Manifest:
    return export(str(checkpoint), ExportOptions(output=output, verify=False, **options)).manifest


# --- what is in the directory ----------------------------------------------------------------------------------------


def test_the_directory_holds_what_the_manifest_names_and_a_card_and_nothing_else(model: Path) -> None:
    described = manifest.read(model)
    named = {record.file for record in described.files}
    assert named >= {"model.onnx", "tokenizer.json"}
    assert {file.name for file in model.iterdir()} == named | {"manifest.json", "README.md"}
    for record in described.files:
        manifest.check_file(model, record)


def test_the_manifest_says_what_the_checkpoint_is(model: Path, checkpoint: Path) -> None:
    described = manifest.read(model)
    assert described.source.checkpoint == checkpoint.name
    assert described.source.model_type == "bert"
    assert described.source.sha256 == manifest.sha256_file(checkpoint / "model.safetensors")
    assert described.source.revision is None
    assert (described.dim, described.max_length, described.max_positions) == (24, 48, 48)
    assert (described.pooling, described.normalize, described.include_prompt) == (("mean",), True, True)
    assert described.prompts == {**PROMPTS, "document": ""}
    assert described.default_prompt_name == "query"
    assert described.similarity == "cosine"
    assert described.pad_token_id == 0
    assert described.modules == ("Transformer(bert)", "Pooling(mean)", "Normalize")
    assert described.overrides == {}
    assert described.notes == ()
    assert described.parity["status"] == "passed"
    assert re.fullmatch(r"fastembed-rt \d+\.\d+\.\d+\S*", described.created_by)


def test_the_manifest_describes_the_portable_graph(model: Path) -> None:
    described = manifest.read(model)
    (portable,) = [variant for variant in described.variants if variant.target == "portable"]
    assert portable.graph.file == "model.onnx"
    assert portable.precision == "fp32"
    assert portable.opset == 17
    assert portable.inputs == ("input_ids", "attention_mask")
    assert portable.weights == ()


def test_every_graph_of_the_directory_gives_the_same_vectors(model: Path) -> None:
    found = []
    for variant in manifest.read(model).variants:
        with EmbeddingModel(model, target=variant.target, precision=variant.precision) as loaded:
            assert loaded.variant == variant
            found.append(loaded.encode(TEXTS))
    for vectors in found[1:]:
        np.testing.assert_allclose(vectors, found[0], rtol=0, atol=1e-6)


def test_the_manifest_and_the_graphs_hold_no_path_of_this_machine(model: Path, checkpoint: Path) -> None:
    for name, body in contents(model).items():
        for path in (model.parent, checkpoint.parent, Path.home(), Path.cwd()):
            assert str(path).encode() not in body, name


def test_the_portable_graph_is_what_other_runtimes_expect(model: Path) -> None:
    onnx.checker.check_model(str(model / "model.onnx"), full_check=True)
    graph = onnx.load(str(model / "model.onnx"))
    assert {domain.domain for domain in graph.opset_import} == {""}
    assert {tensor.data_location for tensor in graph.graph.initializer} == {onnx.TensorProto.DEFAULT}
    session = onnxruntime.InferenceSession(str(model / "model.onnx"))
    inputs = {value.name: (value.type, value.shape) for value in session.get_inputs()}
    assert inputs == {
        "input_ids": ("tensor(int64)", ["batch", "sequence"]),
        "attention_mask": ("tensor(int64)", ["batch", "sequence"]),
    }
    (output,) = session.get_outputs()
    assert (output.name, output.type, output.shape) == ("sentence_embedding", "tensor(float)", ["batch", 24])


def code_blocks(model: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (model / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def run_code(code: str, where: Path, *, without: str = "") -> Vectors:
    """`vectors` of a piece of code that runs in a fresh interpreter."""
    block = f"import sys; sys.modules[{without!r}] = None\n" if without else ""
    keep = "\nimport numpy; print(); print(numpy.asarray(vectors).tolist())\n"
    done = subprocess.run(
        [sys.executable, "-c", block + code + keep], cwd=where, capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stderr
    return np.array(json.loads(done.stdout.splitlines()[-1]), np.float32)


@pytest.mark.parametrize(
    "include_prompt",
    [
        True,
        False,
    ],
)
def test_the_card_loads_the_model_here_and_in_plain_onnxruntime(tmp_path: Path, include_prompt: bool) -> None:
    source = save_sentence_transformers(tmp_path / "source", include_prompt=include_prompt, max_seq_length=6)
    quick(source, tmp_path / "model")
    ours, plain = code_blocks(tmp_path / "model")
    wanted = SentenceTransformer(str(source), device="cpu").encode(["A sentence.", "Another one."])
    assert "path/to/this/directory" in ours
    here = run_code(ours.replace("path/to/this/directory", str(tmp_path / "model")), tmp_path)
    np.testing.assert_allclose(here, wanted, rtol=0, atol=1e-5)
    elsewhere = run_code(plain, tmp_path / "model", without="fastembed_rt")
    np.testing.assert_allclose(elsewhere, wanted, rtol=0, atol=1e-5)


def test_the_card_says_what_a_reader_needs(model: Path) -> None:
    card = (model / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\nlibrary_name: fastembed-rt\n")
    for said in ("# mini, as ONNX", "24 dimensions, 48 tokens at most", "`query`: `'query: '`", "(default: `query`)"):
        assert said in card
    assert "Parity with the checkpoint: passed on" in card
    assert "| model.onnx | portable | fp32 | 17 |" in card


@pytest.mark.parametrize("options", [{}, {"external_data": True}])
def test_two_exports_are_equal_byte_by_byte(checkpoint: Path, tmp_path: Path, options: dict[str, Any]) -> None:
    quick(checkpoint, tmp_path / "a", **options)
    quick(checkpoint, tmp_path / "b", **options)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_verified_export_has_the_same_graphs_and_tokenizer(checkpoint: Path, model: Path, tmp_path: Path) -> None:
    quick(checkpoint, tmp_path / "again")
    told = {"manifest.json", "README.md"}  # these hold the report
    wanted = {name: body for name, body in contents(model).items() if name not in told}
    assert {name: body for name, body in contents(tmp_path / "again").items() if name not in told} == wanted


def test_the_graph_names_its_source(model: Path) -> None:
    metadata = {entry.key: entry.value for entry in onnx.load(str(model / "model.onnx")).metadata_props}
    assert metadata == {"source": "mini", "pooling": "mean", "normalize": "true", "max_length": "48"}


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
    real = writer._bytes

    def failing(weight: Any) -> Any:
        calls.append(weight)
        if len(calls) == 12:
            raise error
        return real(weight)

    monkeypatch.setattr(writer, "_bytes", failing)


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


# --- external data ---------------------------------------------------------------------------------------------------


def test_external_data_gives_the_same_vectors_wherever_the_directory_is_moved(checkpoint: Path, tmp_path: Path) -> None:
    inside = exported_vectors(checkpoint, tmp_path / "inside")
    outside = exported_vectors(checkpoint, tmp_path / "outside", external_data=True)
    np.testing.assert_array_equal(outside, inside)
    (tmp_path / "far").mkdir()
    moved = Path(shutil.move(tmp_path / "outside", tmp_path / "far" / "moved"))
    with EmbeddingModel(moved) as model:
        np.testing.assert_array_equal(model.encode(TEXTS), inside)
    with EmbeddingModel(moved, target="portable") as model:
        np.testing.assert_allclose(model.encode(TEXTS), inside, rtol=0, atol=1e-6)
    onnx.checker.check_model(str(moved / "model.onnx"))


def test_external_data_is_hashed_and_checked(checkpoint: Path, tmp_path: Path) -> None:
    described = quick(checkpoint, tmp_path / "out", external_data=True)
    (portable,) = [variant for variant in described.variants if variant.target == "portable"]
    assert [record.file for record in portable.files] == ["model.onnx", "model.onnx.data"]
    assert portable.graph.size < 60_000 < portable.weights[0].size
    for record in portable.files:
        manifest.check_file(tmp_path / "out", record)
    data = tmp_path / "out" / "model.onnx.data"
    body = bytearray(data.read_bytes())
    body[5000] ^= 1
    data.write_bytes(body)
    with pytest.raises(IntegrityError, match=r"model\.onnx\.data has SHA-256"):
        EmbeddingModel(tmp_path / "out")


def test_a_graph_over_the_limit_goes_to_external_data_by_itself(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = exported_vectors(checkpoint, tmp_path / "inside")
    monkeypatch.setattr(writer, "PROTOBUF_LIMIT", 50_000)
    np.testing.assert_array_equal(exported_vectors(checkpoint, tmp_path / "outside"), inside)
    assert (tmp_path / "outside" / "model.onnx.data").stat().st_size > 50_000
    assert not (tmp_path / "inside" / "model.onnx.data").exists()


# --- what the user says against the checkpoint -----------------------------------------------------------------------


def changed_reference(
    source: Path,
    pooling: tuple[str, ...] | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    prompts: dict[str, str] | None = None,
    default_prompt_name: str | None = None,
) -> Vectors:
    """Vectors of sentence-transformers with the same changes."""
    model = SentenceTransformer(str(source), device="cpu")
    modules = list(model)
    if pooling is not None:
        modules[1] = Pooling(SIZES["hidden_size"], pooling_mode=pooling)
    if normalize is not None:
        modules = [module for module in modules if not isinstance(module, Normalize)]
        modules += [Normalize()] if normalize else []
    model = SentenceTransformer(
        modules=modules,
        device="cpu",
        prompts={**model.prompts, **(prompts or {})},
        default_prompt_name=default_prompt_name or model.default_prompt_name,
    )
    if max_length is not None:
        model.max_seq_length = max_length
    vectors: Vectors = model.encode(TEXTS)
    return vectors


CHANGES: list[dict[str, Any]] = [
    {"pooling": ("cls",)},
    {"pooling": ("max", "mean")},
    {"pooling": ("lasttoken",), "normalize": False},
    {"normalize": True},
    {"normalize": False},
    {"max_length": 5},
    {"max_length": 48},
    {"prompts": {"query": "the new red "}},
    {"prompts": {"query": "the new red "}, "default_prompt_name": "query"},
    {"default_prompt_name": "passage"},
    {"prompts": {"own": "a river: "}, "default_prompt_name": "own", "normalize": False, "max_length": 9},
]


@pytest.mark.parametrize("changes", CHANGES, ids=str)
@pytest.mark.parametrize("normalized", [True, False])
def test_overrides_change_vectors_as_the_same_change_does_in_sentence_transformers(
    tmp_path: Path, changes: dict[str, Any], normalized: bool
) -> None:
    source = save_sentence_transformers(tmp_path / "source", normalize=normalized, prompts=PROMPTS, max_seq_length=30)
    vectors = exported_vectors(source, tmp_path / "out", overrides=Overrides(**changes))
    np.testing.assert_allclose(vectors, changed_reference(source, **changes), rtol=1e-5, atol=1e-5)
    described = manifest.read(tmp_path / "out")
    said = {key: list(value) if isinstance(value, tuple) else value for key, value in changes.items()}
    assert described.overrides == said
    assert described.normalize is changes.get("normalize", normalized)
    assert described.pooling == changes.get("pooling", ("mean",))
    assert described.max_length == changes.get("max_length", 30)
    assert described.prompts == {"document": "", **PROMPTS, **changes.get("prompts", {})}
    assert described.default_prompt_name == changes.get("default_prompt_name")
    for key in said:
        assert f"- {key}: " in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("changes", [CHANGES[2], CHANGES[-1], {"normalize": True, "pooling": ("cls", "max")}], ids=str)
def test_the_gate_compares_with_the_overrides(tmp_path: Path, changes: dict[str, Any]) -> None:
    source = save_sentence_transformers(tmp_path / "source", normalize=not changes["normalize"], prompts=PROMPTS)
    made = export(str(source), ExportOptions(output=tmp_path / "out", overrides=Overrides(**changes)))
    assert made.manifest.parity["status"] == "passed"
    assert cli.main(["verify", str(tmp_path / "out"), "--against", str(source), "-q"]) == 0


def test_normalization_is_taken_off_behind_a_dense(tmp_path: Path) -> None:
    source = save_with_heads(tmp_path / "source", Dense(SIZES["hidden_size"], 10), Normalize(), Normalize())
    vectors = exported_vectors(source, tmp_path / "out", overrides=Overrides(normalize=False))
    np.testing.assert_allclose(vectors, changed_reference(source, normalize=False), rtol=1e-5, atol=1e-5)
    assert manifest.read(tmp_path / "out").modules[-1] == "Dense(24 -> 10, tanh)"


def test_the_command_hands_every_option_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, output = save_sentence_transformers(tmp_path / "source", prompts=PROMPTS), tmp_path / "out"
    argv = ["export", str(source), "-o", str(output), "--pooling", "cls+mean_sqrt_len", "--no-normalize"]
    argv += ["--max-length", "9", "--prompt", "own=a = b: ", "--prompt", "query=", "--default-prompt", "own"]
    assert cli.main([*argv, "--opset", "20", "--external-data", "--no-verify"]) == 0
    described = manifest.read(output)
    assert described.pooling == ("cls", "mean_sqrt_len_tokens")
    assert not described.normalize
    assert described.max_length == 9
    assert described.prompts == {**PROMPTS, "document": "", "own": "a = b: ", "query": ""}
    assert described.default_prompt_name == "own"
    (portable,) = [variant for variant in described.variants if variant.target == "portable"]
    assert portable.opset == 20
    assert (output / "model.onnx.data").is_file()
    said = capsys.readouterr()
    for line in ("dim 48, max_length 9", "default: own", "changed: pooling", "parity: not verified (not asked for)"):
        assert line in said.out
    assert "writing model.onnx" in said.err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--pooling", "median"], 3, "median"),
        (["--max-length", "49"], 3, "48 positions"),
        (["--max-length", "0"], 3, "max_length 0"),
        (["--prompt", "no equals sign"], 2, "NAME=TEXT"),
        (["--prompt", "=nameless"], 2, "NAME=TEXT"),
        (["--default-prompt", "nobody"], 3, "'nobody'"),
        (["--opset", "16"], 3, "17 to 24"),
        (["--opset", "25"], 3, "17 to 24"),
    ],
)
def test_impossible_options_are_refused_and_nothing_is_written(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    assert cli.main(["export", str(checkpoint), "-o", str(tmp_path / "out"), "--no-verify", *options]) == code
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("opset", [16, 25, 0, -1])
def test_an_opset_that_is_not_built_is_refused(checkpoint: Path, tmp_path: Path, opset: int) -> None:
    with pytest.raises(UnsupportedCheckpointError, match=f"opset {opset} is not built; choose 17 to 24"):
        quick(checkpoint, tmp_path / "out", opset=opset)
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_no_checkpoint_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    assert cli.main(["export", str(tmp_path / "empty"), "-o", str(tmp_path / "out"), "-q"]) == 3
    assert "config.json is missing" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_checkpoint_is_not_changed(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "source")
    change_json(source / "sentence_bert_config.json", do_lower_case=True)
    before = contents(source)
    assert_vectors_agree(source, tmp_path / "out")
    assert contents(source) == before


# --- what it costs ---------------------------------------------------------------------------------------------------

MEASURED = """
import json, pathlib, resource, sys, time
sys.modules["torch"] = sys.modules["transformers"] = None
start = time.monotonic()
from fastembed_rt import cli
code = cli.main(sys.argv[1:])
status = pathlib.Path("/proc/self/status")
if status.exists():  # Linux: ru_maxrss would count the process that started this one
    peak = next(int(line.split()[1]) * 1024 for line in status.read_text().splitlines() if line.startswith("VmHWM"))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"code": code, "seconds": time.monotonic() - start, "peak": peak}))
"""


def measured(source: Path, output: Path) -> dict[str, float]:
    """Exit code, seconds and peak memory of an export without torch, in a process of its own."""
    argv = ["export", str(source), "-o", str(output), "-q"]
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *argv], capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode == 0, done.stderr
    figures: dict[str, float] = json.loads(done.stdout)
    assert figures["code"] == 0, done.stderr
    return figures


def random_weights(directory: Path, model_type: str, **sizes: Any) -> Path:
    """A checkpoint of any size without ever having the model in memory."""
    import transformers
    from safetensors.numpy import save_file

    config = transformers.AutoConfig.for_model(model_type, **sizes)
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in transformers.AutoModel.from_config(config).state_dict().items()}
    random = np.random.default_rng(0)
    directory.mkdir(parents=True)
    save_file(
        {name: random.standard_normal(shape, np.float32) for name, shape in shapes.items() if shape},
        directory / "model.safetensors",
    )
    config.save_pretrained(directory)
    save_tokenizer(directory, model_type)
    return directory


def test_an_export_of_minilms_size_takes_little_memory_and_time_without_torch(tmp_path: Path) -> None:
    sizes = {"hidden_size": 384, "num_attention_heads": 12, "num_hidden_layers": 6, "intermediate_size": 1536}
    source = random_weights(tmp_path / "minilm", "bert", vocab_size=30522, **sizes)
    figures = measured(source, tmp_path / "out")
    assert figures["peak"] < 600e6
    assert figures["seconds"] < 10
    reason = {"status": "not verified", "reason": "torch not installed"}
    assert manifest.read(tmp_path / "out").parity == reason


@pytest.mark.slow
def test_an_export_of_a_gigabyte_stays_under_three_times_the_weights(tmp_path: Path) -> None:
    source = random_weights(
        tmp_path / "xlm-r", "xlm-roberta", vocab_size=250002, max_position_embeddings=514, type_vocab_size=1
    )
    weights = (source / "model.safetensors").stat().st_size
    assert weights > 1.1e9
    figures = measured(source, tmp_path / "out")
    assert figures["peak"] < 3 * weights
    shutil.rmtree(tmp_path / "out")
