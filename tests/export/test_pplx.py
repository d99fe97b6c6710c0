"""Perplexity's embedders: Qwen3 that sees both ways, and whole numbers of eight bits, beside code as they bring it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TEXTS, change_json, reference_vectors, save_sentence_transformers
from exports import quick

from fastembed_rt import EmbeddingModel
from fastembed_rt_export.checkpoint.read import Overrides
from fastembed_rt_export.errors import UnsupportedCheckpointError
from fastembed_rt_export.gate.parity import FP32, Case, compare
from fastembed_rt_export.pipeline import ExportOptions, export

pytestmark = pytest.mark.usefixtures("short_gate")

QUANTIZER = Path(__file__).parents[1] / "references" / "st_quantize.py"


def save_pplx(directory: Path, *, code: bool = True) -> Path:
    """As pplx-embed-v1 is published: modules.json names the last module in code of its own, without a folder."""
    save_sentence_transformers(directory, "bidirectional_pplx_qwen3", normalize=False)
    modules = json.loads((directory / "modules.json").read_text(encoding="utf-8"))
    own: dict[str, Any] = {"idx": 2, "name": "2", "path": "", "type": "st_quantize.FlexibleQuantizer"}
    (directory / "modules.json").write_text(json.dumps([*modules, {**own, "kwargs": ["quantization"]}]), "utf-8")
    if code:
        shutil.copyfile(QUANTIZER, directory / QUANTIZER.name)
    return directory


def test_vectors_are_the_whole_numbers_that_its_own_code_gives(tmp_path: Path) -> None:
    source = save_pplx(tmp_path / "source")
    wanted = reference_vectors(source)
    assert np.abs(wanted).max() > 50
    options = ExportOptions(output=tmp_path / "out", precisions=("fp32", "bf16"), trust_remote_code=True)
    made = export(str(source), options).manifest
    assert made.parity["status"] == "passed"
    assert not made.refused
    for target, precision in ((None, "fp32"), ("cpu", "fp32"), ("portable", "fp32"), (None, "bf16")):
        with EmbeddingModel(tmp_path / "out", target=target, precision=precision) as model:
            found = model.encode(TEXTS)
            off = np.abs(found - np.rint(wanted))
            assert off.max() <= (1 if precision == "fp32" else 2)
            assert precision == "bf16" or np.count_nonzero(off) <= 2  # halfway between two, on some processor
            np.testing.assert_array_equal(found, np.rint(found))
            if target != "portable":
                np.testing.assert_array_equal(found, np.concatenate([model.encode([text]) for text in TEXTS]))


def test_its_code_is_not_run_without_leave(tmp_path: Path) -> None:
    source = save_pplx(tmp_path / "source", code=False)
    (source / QUANTIZER.name).write_text("raise SystemExit('code of a checkpoint was run')", encoding="utf-8")
    made = export(str(source), ExportOptions(output=tmp_path / "out")).manifest
    assert made.parity["status"] == "not verified"
    assert made.modules[-1] == "WholeTanh(127)"
    assert any("not run" in note for note in made.notes)
    assert not (tmp_path / "out" / "modules.json").exists()
    # Nor behind a model that transformers knows, which the gate would load by itself.
    save_sentence_transformers(tmp_path / "bert", "bert")
    shutil.copyfile(source / "modules.json", tmp_path / "bert" / "modules.json")
    shutil.copyfile(source / QUANTIZER.name, tmp_path / "bert" / QUANTIZER.name)
    made = export(str(tmp_path / "bert"), ExportOptions(output=tmp_path / "other")).manifest
    assert made.parity["status"] == "not verified"


def test_options_go_behind_the_rounding(tmp_path: Path) -> None:
    source = save_pplx(tmp_path / "source")
    wanted = reference_vectors(source)
    overrides = Overrides(truncate_dim=16, normalize=True)
    options = ExportOptions(output=tmp_path / "out", overrides=overrides, trust_remote_code=True)
    assert export(str(source), options).manifest.parity["status"] == "passed"
    with EmbeddingModel(tmp_path / "out") as model:
        cut = wanted[:, :16] / np.maximum(np.linalg.norm(wanted[:, :16], axis=1, keepdims=True), 1e-12)
        np.testing.assert_allclose(model.encode(TEXTS), cut, atol=1e-5)


def test_what_it_is_not_is_refused(tmp_path: Path) -> None:
    source = save_pplx(tmp_path / "source")
    with pytest.raises(UnsupportedCheckpointError, match="no tool rounds"):
        quick(source, tmp_path / "out", layout="hub")
    change_json(source / "config.json", auto_map={"AutoModel": "modeling.PPLXQwen3ContextualModel"})
    with pytest.raises(UnsupportedCheckpointError, match=r"PPLXQwen3ContextualModel.*chunks among the others"):
        quick(source, tmp_path / "out")
    change_json(source / "config.json", "auto_map", use_bidirectional_attention=False)
    with pytest.raises(UnsupportedCheckpointError, match="use_bidirectional_attention"):
        quick(source, tmp_path / "out")


def test_one_step_between_whole_numbers_is_no_difference_and_many_are_one() -> None:
    expected = np.random.default_rng(0).integers(-127, 128, (1, 1024)).astype(np.float32)
    case = [Case("a", "a")]
    near, far, many = expected.copy(), expected.copy(), expected + np.where(np.arange(1024) % 2, 1, -1)
    near[0, :3] += 1
    far[0, 7] += 2
    within = [compare(case, vectors, expected, 1.0)[0].within(FP32) for vectors in (near, far, many)]
    assert within == [True, False, False]
    assert not compare(case, near, expected)[0].within(FP32)
