"""What the user says against the checkpoint changes vectors as the same change does in sentence-transformers."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from checkpoints import (
    PROMPTS,
    SIZES,
    TEXTS,
    assert_vectors_agree,
    change_json,
    exported_vectors,
    save_sentence_transformers,
    save_with_heads,
)
from exports import contents, quick
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling
from tolerances import close

from fastembed_rt import cli, manifest
from fastembed_rt_export.checkpoint.read import Overrides
from fastembed_rt_export.errors import InvalidInputError
from fastembed_rt_export.pipeline import ExportOptions, export

pytestmark = pytest.mark.usefixtures("short_gate")

Vectors = npt.NDArray[np.float32]


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
    close(vectors, changed_reference(source, **changes))
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
    close(vectors, changed_reference(source, normalize=False))
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
    parity = "parity: not verified (not asked for)"
    for line in ("48 dimensions, 9 tokens at most", "default: own", "changed: pooling", parity):
        assert line in said.out
    assert "writing model.onnx" in said.err


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--pooling", "median"], 2, "median"),
        (["--max-length", "49"], 2, "48 positions"),
        (["--max-length", "0"], 2, "max_length 0"),
        (["--prompt", "no equals sign"], 2, "NAME=TEXT"),
        (["--prompt", "=nameless"], 2, "NAME=TEXT"),
        (["--default-prompt", "nobody"], 2, "add it with --prompt 'nobody=TEXT'"),
        (["--opset", "16"], 2, "17 to 24"),
        (["--opset", "25"], 2, "17 to 24"),
        (["--target", "gpu"], 2, "target 'gpu' is not possible; choose from cpu, cuda, tensorrt"),
        (["--precision", "int4"], 2, "error: 'int4' is not a precision; there are fp32, fp16, bf16, fp8 and int8"),
        (
            ["--precision", "fp16"],
            2,
            "for target cpu; choose from fp32, bf16, int8, each once, or add --target cuda or tens",
        ),
        (["--truncate-dim", "0"], 2, "truncate_dim 0"),
        (["--truncate-dim", "25"], 2, "the vectors have 24 numbers"),
        (["--min-cosine", "7"], 2, "'7' is not a cosine"),
        (["--min-cosine", "nan"], 2, "'nan' is not a cosine"),
        (
            ["--precision", "int8", "--calibration", "nowhere.txt"],
            2,
            "nowhere.txt cannot be read (No such file or directory);",
        ),
        (["--calibration", "nowhere.txt"], 2, "for precision int8 and fp8, which are not asked for"),
        (["--revision", "main"], 2, "is a directory here"),
        (["--max-len", "16"], 2, "unrecognized arguments: --max-len 16"),
    ],
)
def test_impossible_options_are_refused_and_nothing_is_written(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: int, said: str
) -> None:
    assert cli.main(["export", str(checkpoint), "-o", str(tmp_path / "out"), "--no-verify", *options]) == code
    assert said in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_a_word_of_the_checkpoint_itself_is_no_wrong_option(checkpoint: Path, tmp_path: Path) -> None:
    """Exit code 2 is for what was typed; a pooling that nobody knows is the checkpoint's fault where it says so."""
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint, copy)
    change_json(copy / "1_Pooling" / "config.json", pooling_mode="median")
    assert cli.main(["export", str(copy), "-o", str(tmp_path / "out"), "--no-verify"]) == 3


@pytest.mark.parametrize("opset", [16, 25, 0, -1])
def test_an_opset_that_is_not_built_is_refused(checkpoint: Path, tmp_path: Path, opset: int) -> None:
    with pytest.raises(InvalidInputError, match=f"opset {opset} is not built; choose 17 to 24"):
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
