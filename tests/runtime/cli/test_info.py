"""`fastembed-rt info`: the facts of hand-made model directories, damaged or not."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import fastembed_rt
from fastembed_rt import cli, files, manifest, native
from fastembed_rt.cli import info
from fastembed_rt.errors import IntegrityError
from fastembed_rt.machine import Cpu
from fastembed_rt.manifest import Manifest, Source, Variant

pytest.importorskip("onnxruntime")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A model directory with four variants of made-up graphs, two of which share their weights."""
    path = tmp_path / "model"
    path.mkdir()
    contents = {
        "tokenizer.json": "{}",
        "model.onnx": "portable graph",
        "model.cpu.fp32.onnx": "cpu graph",
        "model.cpu.int8.onnx": "int8 graph " * 1000,
        "model.cuda.fp16.onnx": "cuda graph",
        "weights.bin": "shared weights",
    }
    for name, text in contents.items():
        (path / name).write_text(text)
    weights = (manifest.record_file(path, "weights.bin"),)
    shared: dict[str, Any] = {"opset": 23, "inputs": ("input_ids", "attention_mask")}
    Manifest(
        source=Source(checkpoint="acme/encoder", revision="0123abc", model_type="bert", sha256="0" * 64),
        dim=384,
        pooling=("mean",),
        normalize=True,
        max_length=256,
        max_positions=512,
        prompts={"query": " Frage: ", "document": ""},
        default_prompt_name="query",
        modules=("Transformer", "Pooling", "Normalize"),
        tokenizer=manifest.record_file(path, "tokenizer.json"),
        variants=(
            Variant(
                graph=manifest.record_file(path, "model.onnx"),
                weights=weights,
                target="portable",
                precision="fp32",
                **shared,
            ),
            Variant(
                graph=manifest.record_file(path, "model.cpu.fp32.onnx"),
                weights=weights,
                target="cpu",
                precision="fp32",
                **shared,
            ),
            Variant(
                graph=manifest.record_file(path, "model.cpu.int8.onnx"),
                target="cpu",
                precision="int8",
                **shared,
            ),
            Variant(
                graph=manifest.record_file(path, "model.cuda.fp16.onnx"),
                target="cuda",
                precision="fp16",
                **shared,
            ),
        ),
        default_variant="model.onnx",
        overrides={"max_length": 256},
        notes=("pooler.dense is left out",),
        parity={"status": "passed", "fp32": {"worst_cosine": 0.9999991, "worst": [{"id": "empty", "cosine": 0.5}]}},
        created_by="fastembed-rt 0.1.0",
    ).write(path)
    return path


@pytest.fixture
def shown(directory: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs `info` on the directory: (exit code, text)."""

    def show(*options: str) -> tuple[int, str]:
        code = cli.main(["info", str(directory), *options])
        return code, capsys.readouterr().out

    return show


@pytest.mark.parametrize("options", [{}, {"prompts": {"query": "query : "}, "default_prompt_name": "query"}])
def test_the_fingerprint_is_that_of_the_loaded_model(
    export_pair: Any, options: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    directory = export_pair(**options).directory
    with fastembed_rt.EmbeddingModel(directory, threads=1) as model:
        wanted = model.fingerprint()
    with fastembed_rt.EmbeddingModel(directory, threads=1, target="portable") as model:
        portable = model.fingerprint()
    assert ("noprompt" in wanted) == (not options)
    assert cli.main(["info", str(directory)]) == 0
    assert f"fingerprint {wanted}" in " ".join(capsys.readouterr().out.split())
    assert cli.main(["info", str(directory), "--json"]) == 0
    variants = json.loads(capsys.readouterr().out)["variants"]
    assert variants[f"model.{'native' if native.kernels() else 'cpu'}.fp32.onnx"]["fingerprint"] == wanted
    assert variants["model.onnx"]["fingerprint"] == portable


def row_of(text: str, file: str) -> str:
    """The line of the variant table that begins with this file."""
    (row,) = [line for line in text.splitlines() if file in line.removeprefix("*").split()[:1]]
    return row


def test_all_facts_of_the_manifest_are_told(shown: Any) -> None:
    code, text = shown()
    assert code == 0
    facts = " ".join(text.split())
    for fact in (
        "source acme/encoder at 0123abc",
        "model type bert",
        "dim 384",
        "pooling mean",
        "normalize yes",
        "max length 256 tokens, can be raised to 512",
        "similarity cosine",
        'prompt query (default): " Frage: "',
        'prompt document: ""',
        "modules Transformer -> Pooling -> Normalize",
        "override max_length = 256",
        "parity passed",
        "fp32.worst_cosine 0.9999991",
        'fp32.worst id "empty", cosine 0.5',
        "tokenizer tokenizer.json, 2 B, ok",
        "note: pooler.dense is left out",
        "created by fastembed-rt 0.1.0",
    ):
        assert fact in facts


def test_the_variant_that_loads_is_marked_and_the_others_say_why_not(shown: Any) -> None:
    _, text = shown()
    assert row_of(text, "model.cpu.fp32.onnx").startswith("*")
    assert row_of(text, "model.cpu.fp32.onnx").endswith("loads here: the default, provider cpu")
    assert "model.cpu.fp32.onnx is taken" in row_of(text, "model.onnx")
    assert row_of(text, "model.cpu.int8.onnx").endswith("loads with --precision int8")
    assert row_of(text, "model.cuda.fp16.onnx").endswith("for provider cuda")
    assert text.count("\n*") == 1


def test_the_table_tells_sizes_opset_and_weights(shown: Any) -> None:
    _, text = shown()
    assert row_of(text, "model.onnx").split()[1:7] == ["portable", "fp32", "23", "14", "B", "ok"]
    assert "weights.bin 14 B ok" in row_of(text, "model.onnx")
    assert "11.0 KB" in row_of(text, "model.cpu.int8.onnx")
    assert "inside" in row_of(text, "model.cpu.int8.onnx")


def test_weights_that_graphs_share_are_counted_once(shown: Any, directory: Path) -> None:
    sizes = [path.stat().st_size for path in directory.iterdir() if path.name != manifest.MANIFEST_FILE]
    assert f"{len(sizes)} files, {sum(sizes) / 1000:.1f} KB" in shown()[1]


def test_a_default_prompt_is_said_with_its_text(shown: Any) -> None:
    assert re.search(r'^plain encode +puts " Frage: " before each text \(prompt \'query\'\)$', shown()[1], re.MULTILINE)


def test_a_precision_that_does_not_exist_is_wrong_usage(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(directory), "--precision", "int4"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(
        "error: argument --precision: 'int4' is not a precision; there are fp32, fp16, bf16, fp8 and int8"
    )


def test_a_precision_asked_for_is_the_one_marked(shown: Any) -> None:
    _, text = shown("--precision", "int8")
    assert row_of(text, "model.cpu.int8.onnx").endswith("loads here: precision int8 asked for, provider cpu")
    assert row_of(text, "model.cpu.fp32.onnx").endswith("loads with --precision fp32")


def test_a_precision_that_is_not_there_loads_nothing_and_says_what_would(shown: Any) -> None:
    code, text = shown("--precision", "bf16")
    assert code == 0
    assert "no variant loads here" in text
    assert row_of(text, "model.cpu.int8.onnx").endswith("loads with --precision int8")


def test_what_info_marks_is_what_json_names(shown: Any) -> None:
    code, text = shown("--json", "--precision", "int8")
    found = json.loads(text)
    assert code == 0
    assert found["ok"] is True
    assert found["loads"] == "model.cpu.int8.onnx"
    assert found["manifest"]["source"]["checkpoint"] == "acme/encoder"
    assert set(found["files"].values()) == {"ok"}
    assert [name for name, variant in found["variants"].items() if variant["loads"]] == [found["loads"]]


@pytest.mark.parametrize("file", ["model.cpu.fp32.onnx", "weights.bin", "tokenizer.json"])
def test_an_altered_file_exits_with_3_and_everything_is_still_printed(shown: Any, directory: Path, file: str) -> None:
    content = (directory / file).read_bytes()
    (directory / file).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # the size stays
    code, text = shown()
    assert code == 3
    assert f"damaged: {file} is ALTERED" in text
    assert "acme/encoder" in text
    assert f"would be taken, but {file} is ALTERED" in row_of(text, "model.cpu.fp32.onnx")
    assert "no variant loads here" in text


def test_a_missing_file_exits_with_3_and_the_rest_still_loads(shown: Any, directory: Path) -> None:
    (directory / "model.cpu.int8.onnx").unlink()
    code, text = shown()
    assert code == 3
    assert "MISSING" in row_of(text, "model.cpu.int8.onnx")
    assert row_of(text, "model.cpu.fp32.onnx").startswith("*")
    assert json.loads(shown("--json")[1])["files"]["model.cpu.int8.onnx"] == "MISSING"


def test_info_says_with_what_int8_runs_here(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def processor() -> Cpu:
        return Cpu(vendor="GenuineIntel", model="Xeon", instruction_sets=frozenset({"avx2", "avx512_vnni"}), known=True)

    monkeypatch.setattr(info, "cpu_features", processor)
    assert re.search("^int8 here +full speed with AVX512-VNNI$", shown()[1], re.MULTILINE)
    assert json.loads(shown("--json")[1])["int8"] == "full speed with AVX512-VNNI"


def test_a_truncated_file_is_altered(shown: Any, directory: Path) -> None:
    (directory / "model.onnx").write_text("port")
    assert shown()[0] == 3
    assert "ALTERED" in row_of(shown()[1], "model.onnx")


def test_without_onnxruntime_the_facts_are_told_with_what_to_install(
    shown: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    code, text = shown()
    assert code == 0
    assert "acme/encoder" in text
    assert text.count("fastembed-rt[cpu]") == 1
    assert "no variant loads here: onnxruntime is not installed" in text
    assert "\n*" not in text


def test_a_provider_that_this_onnxruntime_lacks_loads_nothing(shown: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastembed_rt.run.session.available_providers", lambda: ["CPUExecutionProvider"])
    code, text = shown("--provider", "cuda")
    assert code == 0
    assert "no variant loads here: cuda is not in this onnxruntime (CPUExecutionProvider)" in text
    assert "fastembed-rt[gpu]" in text


def test_an_unknown_provider_is_a_usage_error(shown: Any) -> None:
    assert shown("--provider", "abacus")[0] == 2


def test_no_model_directory_exits_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["info", str(tmp_path)]) == 3
    assert capsys.readouterr().err.startswith(f"fastembed-rt: error: {tmp_path} holds no manifest.json")


def test_files_of_a_hub_model_that_were_never_fetched_are_no_damage(
    directory: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (directory / "model.cuda.fp16.onnx").unlink()
    monkeypatch.setattr(info, "find", lambda args, **_: directory)
    assert cli.main(["info", "acme/encoder-rt"]) == 0
    assert "not fetched" in row_of(capsys.readouterr().out, "model.cuda.fp16.onnx")


def test_an_unverified_model_says_so(shown: Any, directory: Path) -> None:
    facts = manifest.read(directory)
    dataclasses.replace(facts, parity={"status": manifest.NOT_VERIFIED}).write(directory)
    assert "parity not verified" in " ".join(shown()[1].split())


def test_a_terminal_without_utf8_still_gets_the_facts(directory: Path) -> None:
    facts = manifest.read(directory)
    dataclasses.replace(facts, notes=("für später …",)).write(directory)
    root = str(Path(fastembed_rt.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "fastembed_rt", "info", str(directory)],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": root, "PYTHONIOENCODING": "ascii"},
        check=True,
    )
    assert rb"note: f\xfcr sp\xe4ter \u2026" in done.stdout


def test_auto_says_what_it_takes(
    model_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    assert cli.main(["info", str(model_dir), "--provider", "auto"]) == 0
    assert "provider cpu: auto took cpu (not cuda: not in this onnxruntime" in capsys.readouterr().out
    assert cli.main(["info", str(model_dir), "--provider", "auto", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["provider"], told["provider_choice"][:13]) == ("cpu", "auto took cpu")


def test_the_graphs_stand_before_what_parity_found_and_that_is_short(directory: Path, shown: Any) -> None:
    facts = manifest.read(directory)
    figures = {f"corpus{k}": {"texts": k, "worst_cosine": 0.9 + k / 1000} for k in range(29)}
    dataclasses.replace(facts, parity={"status": "passed", **figures}).write(directory)
    lines = shown()[1].splitlines()
    (table,) = [k for k, line in enumerate(lines) if line.split()[:2] == ["file", "target"]]
    assert table <= 22  # all of it on one screen
    parity = [k for k, line in enumerate(lines) if line.startswith("parity: ")]
    assert table < parity[0]
    assert lines[parity[0]] == "parity: corpus0.worst_cosine 0.9"
    assert lines[parity[-1]] == "parity: 53 more with --json"
    assert len(parity) == 6
    described = json.loads(shown("--json")[1])
    assert described["manifest"]["parity"] == {"status": "passed", **figures}


def test_a_file_that_may_not_be_read_is_not_called_altered(
    directory: Path, shown: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    really = os.open

    def closed(path: Any, *arguments: Any, **options: Any) -> int:
        if Path(path).name == "model.onnx":  # a mode would not keep root out
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return really(path, *arguments, **options)

    monkeypatch.setattr(os, "open", closed)
    code, text = shown()
    assert code == 3
    assert "cannot be read: model.onnx; see who may read the files" in text
    assert "damaged" not in text
    assert "ALTERED" not in text
    with pytest.raises(IntegrityError, match=r"Permission denied.*give this user the right to read it"):
        files.check_file(directory, manifest.read(directory).default.graph)
