"""An export from end to end: what the directory holds, that others can read it, and what making it costs."""

from __future__ import annotations

import importlib.metadata
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
    TEXTS,
    exported_vectors,
    save_sentence_transformers,
    save_tokenizer,
)
from exports import contents, quick
from sentence_transformers import SentenceTransformer
from tolerances import REORDERED, close

import fastembed_rt
from fastembed_rt import EmbeddingModel, files, manifest
from fastembed_rt.errors import IntegrityError
from fastembed_rt_export.graph import writer

Vectors = npt.NDArray[np.float32]


def test_a_source_tree_that_is_not_installed_exports(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def version(name: str, known: Callable[[str], str] = importlib.metadata.version) -> str:
        if name == "fastembed-rt":
            raise importlib.metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    quick(checkpoint, tmp_path / "model")
    assert manifest.read(tmp_path / "model").created_by == f"fastembed-rt {fastembed_rt.__version__}"


# --- what is in the directory ----------------------------------------------------------------------------------------


def test_the_directory_holds_what_the_manifest_names_and_a_card_and_nothing_else(model: Path) -> None:
    described = manifest.read(model)
    named = {record.file for record in described.files}
    assert named >= {"model.onnx", "tokenizer.json"}
    assert set(contents(model)) == named | {"manifest.json", "README.md"}
    for record in described.files:
        files.check_file(model, record)


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
        close(vectors, found[0], REORDERED)


def test_the_manifest_and_the_graphs_hold_no_path_of_this_machine(model: Path, checkpoint: Path) -> None:
    # A home that is the root, as containers have it, is a part of every path.
    own = {model.parent, checkpoint.parent, Path(os.environ.get("HOME", "/")), Path.cwd()} - {Path("/")}
    for name, body in contents(model).items():
        for path in own:
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
    close(here, wanted)
    elsewhere = run_code(plain, tmp_path / "model", without="fastembed_rt")
    close(elsewhere, wanted)


def test_the_card_says_what_a_reader_needs(model: Path) -> None:
    card = (model / "README.md").read_text(encoding="utf-8")
    assert card.startswith('---\nlibrary_name: "fastembed-rt"\n')
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


def test_the_folder_of_a_checkpoint_is_in_no_file_that_decides_vectors(checkpoint: Path, tmp_path: Path) -> None:
    """Stored vectors and pickled models are told apart by those files: a folder that was renamed is no other model."""
    renamed = shutil.copytree(checkpoint, tmp_path / "renamed")
    quick(checkpoint, tmp_path / "a")
    quick(renamed, tmp_path / "b")
    told = {"manifest.json", "README.md"}  # these name it
    first, second = ({k: v for k, v in contents(tmp_path / name).items() if k not in told} for name in "ab")
    assert first == second
    with EmbeddingModel(tmp_path / "a") as one, EmbeddingModel(tmp_path / "b") as other:
        assert one.fingerprint() == other.fingerprint()


def test_the_graph_says_what_it_computes(model: Path) -> None:
    metadata = {entry.key: entry.value for entry in onnx.load(str(model / "model.onnx")).metadata_props}
    assert metadata == {"pooling": "mean", "normalize": "true", "max_length": "48"}


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
        close(model.encode(TEXTS), inside, REORDERED)
    onnx.checker.check_model(str(moved / "model.onnx"))


def test_each_file_is_hashed_once_however_many_graphs_refer_to_it(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashed: list[Path] = []
    real = manifest.sha256_file

    def hashing(path: Path) -> str:
        hashed.append(path)
        return real(path)

    monkeypatch.setattr(manifest, "sha256_file", hashing)
    described = quick(checkpoint, tmp_path / "out", precisions=("fp32", "int8"))
    weights = [record.file for variant in described.variants for record in variant.weights]
    assert {"model.onnx", "model.cpu.int8.onnx"} <= set(weights)  # which graphs of their own have too
    assert len(hashed) == len(set(hashed)) == len(list(described.files))


def test_external_data_is_hashed_and_checked(checkpoint: Path, tmp_path: Path) -> None:
    described = quick(checkpoint, tmp_path / "out", external_data=True)
    (portable,) = [variant for variant in described.variants if variant.target == "portable"]
    assert [record.file for record in portable.files] == ["model.onnx", "model.onnx.data"]
    assert portable.graph.size < 60_000 < portable.weights[0].size
    for record in portable.files:
        files.check_file(tmp_path / "out", record)
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
