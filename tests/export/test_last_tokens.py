"""Where the pooling takes the last token, the last layer computes no other, if that sees all of its text."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from causal_rerankers import MORE, exported, save_causal_reranker
from checkpoints import OWN_FP32, TEXTS, assert_vectors_agree, reference_vectors, save_sentence_transformers
from cross_encoders import reference_scores
from tolerances import REFERENCE, close

from fastembed_rt import EmbeddingModel, Reranker
from fastembed_rt_export.pipeline import ExportOptions, export

pytestmark = pytest.mark.usefixtures("short_gate")

CUT: dict[str, dict[str, Any]] = {
    **{key: {} for key in ("qwen2", "qwen3", "llama", "llama_bidirec", "eurobert", "gte", "gemma", "gemma3_text")},
    "gemma2": {"layer_types": ["sliding_attention"] + ["full_attention"] * 2},
    "embedding_gemma2_text": {},
    "qwen3_bidirectional": {},
    "ministral3": {},
    **{key: {"layer_types": ["conv", "conv", "full_attention"]} for key in ("lfm2", "lfm2_bidirectional")},
    "mistral": {"sliding_window": None},
}
WINDOWS = {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}
# Windows, distances, layers that are normalized behind their parts.
WHOLE: dict[str, dict[str, Any]] = {
    **{
        "qwen3": WINDOWS,
        "mistral": {"sliding_window": 4},
        "bert": {},
        "mpnet": {},
        "deberta-v2": {},
        "gemma2": {},
        "lfm2": {},
    },
    "gemma3_text": {
        "layer_types": ["full_attention"] * 2 + ["sliding_attention"],
        "use_bidirectional_attention": False,
    },
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 12, "attention_factor": 2.0}


def is_cut(file: Path) -> bool:
    """Whether the last layer of three gathers the last tokens."""
    nodes = onnx.load(str(file), load_external_data=False).graph.node
    return any(re.search(r"layer\.2/attention/last(#|$)", node.name) for node in nodes if node.op_type == "Gather")


def files(directory: Path) -> list[Path]:
    return [directory / name for name in (*OWN_FP32, "model.cpu.fp32.onnx")]


@pytest.mark.parametrize("model_type", sorted(CUT))
def test_the_last_layer_computes_the_last_token_alone(tmp_path: Path, model_type: str) -> None:
    source = save_sentence_transformers(tmp_path / "source", model_type, pooling="lasttoken", **CUT[model_type])
    wanted = reference_vectors(source)
    export(str(source), ExportOptions(output=tmp_path / "out", verify=False, precisions=("fp32", "bf16")))
    assert all(is_cut(file) for file in files(tmp_path / "out"))
    for target, precision in ((None, "fp32"), ("cpu", "fp32"), (None, "bf16")):
        with EmbeddingModel(tmp_path / "out", target=target, precision=precision) as model:
            found = model.encode(TEXTS)
            close(found, wanted, 0.1 if precision == "bf16" else REFERENCE)
            np.testing.assert_array_equal(found, np.concatenate([model.encode([text]) for text in TEXTS]))


@pytest.mark.parametrize("model_type", sorted(WHOLE))
def test_a_last_token_that_does_not_see_all_alike_is_computed_with_the_others(tmp_path: Path, model_type: str) -> None:
    source = save_sentence_transformers(tmp_path / "source", model_type, pooling="lasttoken", **WHOLE[model_type])
    assert_vectors_agree(source, tmp_path / "out")
    assert not any(is_cut(file) for file in files(tmp_path / "out"))


@pytest.mark.parametrize("options", [{"include_prompt": False}, {"pooling": ("lasttoken", "mean")}], ids=str)
def test_other_poolings_need_the_other_tokens(tmp_path: Path, options: dict[str, Any]) -> None:
    source = save_sentence_transformers(tmp_path / "source", "qwen3", **{"pooling": "lasttoken", **options})
    assert_vectors_agree(source, tmp_path / "out")
    assert not any(is_cut(file) for file in files(tmp_path / "out"))


def test_a_scaling_of_the_tables_is_in_the_last_tokens_query_too(tmp_path: Path) -> None:
    parameters = {**YARN, "rope_theta": 50.0}
    source = save_sentence_transformers(
        tmp_path / "yarn", "qwen3", pooling="lasttoken", max_seq_length=40, rope_parameters=parameters
    )
    assert_vectors_agree(source, tmp_path / "out")


def test_int8_is_calibrated_on_last_tokens(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "source", "qwen3", pooling="lasttoken")
    options = ExportOptions(output=tmp_path / "out", precisions=("int8",), min_cosine=0.98)
    assert export(str(source), options).manifest.parity["status"] == "passed"
    with EmbeddingModel(tmp_path / "out", precision="int8") as model:
        found = model.encode(TEXTS)
        np.testing.assert_array_equal(found, np.concatenate([model.encode([text]) for text in TEXTS]))


@pytest.mark.parametrize("model_type", ["llama", "qwen3"])
def test_a_word_is_scored_by_the_last_token_alone(tmp_path: Path, model_type: str) -> None:
    source = save_causal_reranker(tmp_path / "source", model_type)
    exported(source, tmp_path / "out")
    assert all(is_cut(file) for file in files(tmp_path / "out"))
    with Reranker(tmp_path / "out") as model:
        found = model.predict(MORE)
        np.testing.assert_allclose(found, reference_scores(source, MORE), atol=2e-5)
        np.testing.assert_array_equal(found, np.concatenate([model.predict([pair]) for pair in MORE]))
