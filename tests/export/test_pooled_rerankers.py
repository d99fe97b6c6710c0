"""Cross-encoders of a pooling and layers behind it (ettin-reranker): scores of sentence-transformers, or a refusal."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checkpoints import change_json, change_tensors
from cross_encoders import PAIRS, PROMPTS, exported_scores, reference_scores, save_classifier

from fastembed_rt import Reranker, manifest
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export

pytestmark = pytest.mark.usefixtures("short_gate")


def save_pooled(
    directory: Path,
    model_type: str = "modernbert",
    pooling: str | tuple[str, ...] = "cls",
    labels: int = 1,
    activation: Any = None,
    **options: Any,
) -> Path:
    """A cross-encoder as the published ones are: a dense layer with GELU, a normalization, a layer to the scores."""
    from sentence_transformers import CrossEncoder
    from sentence_transformers.base.modules import Dense, Transformer
    from sentence_transformers.sentence_transformer.modules import LayerNorm, Pooling

    plain = save_classifier(directory.with_name(f"{directory.name}-plain"), model_type)
    torch.manual_seed(0)
    transformer = Transformer(str(plain), transformer_task="feature-extraction", max_seq_length=40)
    pool = Pooling(24, pooling_mode=pooling)
    width = pool.get_embedding_dimension()
    norm = LayerNorm(20)
    torch.nn.init.normal_(norm.norm.weight, 1.0, 0.3)
    modules = [
        transformer,
        pool,
        Dense(width, 20, bias=False, activation_function=torch.nn.GELU()),
        norm,
        Dense(20, labels, activation_function=torch.nn.Identity(), module_output_name="scores"),
    ]
    model = CrossEncoder(modules=modules, device="cpu", activation_fn=activation, **options)
    model.save_pretrained(str(directory), create_model_card=False)
    return directory


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize(
    ("model_type", "pooling"), [("modernbert", "cls"), ("bert", "mean"), ("qwen3", "lasttoken"), ("xlm-roberta", "max")]
)
def test_scores_are_those_of_the_cross_encoder(tmp_path: Path, model_type: str, pooling: str, labels: int) -> None:
    source = save_pooled(tmp_path / "source", model_type, pooling, labels)
    wanted = reference_scores(source)
    assert np.ptp(wanted) > 0.01, "pairs that score the same tell nothing"
    made = export(str(source), ExportOptions(output=tmp_path / "made")).manifest
    assert made.parity["status"] == "passed"
    assert made.task == manifest.RERANKING
    for target in ("cpu", "portable"):
        with Reranker(tmp_path / "made", target=target) as model:
            assert model.labels == tuple(f"LABEL_{k}" for k in range(labels))
            np.testing.assert_allclose(model.predict(PAIRS), wanted, rtol=1e-5, atol=1e-5)


def test_several_poolings_stand_side_by_side(tmp_path: Path) -> None:
    source = save_pooled(tmp_path / "source", pooling=("cls", "mean"))
    np.testing.assert_allclose(exported_scores(source, tmp_path / "made"), reference_scores(source), atol=1e-5)
    assert manifest.read(tmp_path / "made").modules == (
        "Transformer(modernbert)",
        "Pooling(cls+mean)",
        "Dense(48 -> 20, gelu)",
        "LayerNorm(20)",
        "Dense(20 -> 1, linear)",
        "sigmoid",
    )


def test_prompts_and_activations_are_the_checkpoints(tmp_path: Path) -> None:
    source = save_pooled(tmp_path / "source", activation=torch.nn.Identity(), prompts=PROMPTS)
    for name in PROMPTS:
        found = exported_scores(source, tmp_path / "made", prompt_name=name)
        np.testing.assert_allclose(found, reference_scores(source, prompt_name=name), rtol=1e-5, atol=1e-5)
    assert manifest.read(tmp_path / "made").modules[-1] == "identity"


def test_int8_passes_its_gate(tmp_path: Path) -> None:
    source = save_pooled(tmp_path / "source")
    made = export(str(source), ExportOptions(output=tmp_path / "made", precisions=("int8",))).manifest
    assert made.parity["status"] == "passed"


def test_weights_of_the_layers_count_in_what_an_export_is_of(tmp_path: Path) -> None:
    source = save_pooled(tmp_path / "source")
    first = export(str(source), ExportOptions(output=tmp_path / "first", verify=False)).manifest
    change_tensors(source / "4_Dense", lambda tensors: tensors.update({"linear.bias": np.ones(1, np.float32)}))
    second = export(str(source), ExportOptions(output=tmp_path / "second", verify=False)).manifest
    assert first.source != second.source


@pytest.mark.parametrize(
    ("place", "changes", "error", "words"),
    [
        ("4_Dense", {"module_output_name": None}, UnsupportedCheckpointError, "module_output_name None is not built"),
        ("4_Dense", {}, UnsupportedCheckpointError, "module_output_name None is not built"),
        ("2_Dense", {"module_output_name": "other"}, UnsupportedCheckpointError, "module_output_name 'other'"),
        ("4_Dense", {"module_input_name": "scores"}, UnsupportedCheckpointError, "module_input_name 'scores'"),
        ("4_Dense", {"in_features": 24}, CheckpointError, "takes 24 channels and gets 20"),
        ("1_Pooling", {"include_prompt": False}, UnsupportedCheckpointError, "leaves prompts out"),
    ],
)
def test_modules_that_are_not_built_are_refused(
    tmp_path: Path, place: str, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    source = save_pooled(tmp_path / "source")
    change_json(source / place / "config.json", *([] if changes else ["module_output_name"]), **changes)
    with pytest.raises(error, match=words):
        export(str(source), ExportOptions(output=tmp_path / "made", verify=False))


def test_a_chain_without_scores_at_its_end_is_refused(tmp_path: Path) -> None:
    source = save_pooled(tmp_path / "source")
    chain = json.loads((source / "modules.json").read_text(encoding="utf-8"))
    (source / "modules.json").write_text(json.dumps(chain[:4]), encoding="utf-8")
    with pytest.raises(UnsupportedCheckpointError, match="has Transformer, Pooling, Dense, LayerNorm; built are"):
        export(str(source), ExportOptions(output=tmp_path / "made", verify=False))
