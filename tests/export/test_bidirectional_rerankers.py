"""Rerankers of NVIDIA's Llama that sees both ways: a score of the mean token of one text, made of a pair."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from causal_rerankers import MORE
from checkpoints import CONFIGS, change_json, save_tokenizer, spread_weights
from references.modeling_llama_bidirectional import (
    LlamaBidirectionalConfig,
    LlamaBidirectionalForSequenceClassification,
)
from transformers import AutoTokenizer

from fastembed_rt import Reranker
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export

pytestmark = pytest.mark.usefixtures("short_gate")

LlamaBidirectionalForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")


def save(directory: Path, **said: Any) -> Path:
    """As such a checkpoint is published: code of its own, no chat template, the first token before a text."""
    torch.manual_seed(0)
    settings = {**CONFIGS["llama_bidirec"], "num_labels": 1, "max_position_embeddings": 200, **said}
    model = LlamaBidirectionalForSequenceClassification(LlamaBidirectionalConfig(**settings)).eval()
    spread_weights(model)
    model.save_pretrained(directory)
    save_tokenizer(directory, "bert")
    change_json(directory / "tokenizer_config.json", bos_token="[CLS]", model_max_length=120)
    change_json(directory / "tokenizer.json", post_processor=FIRST)
    return directory


FIRST = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [2], "tokens": ["[CLS]"]}},
}


def as_documented(directory: Path) -> Any:
    """Logits as the models' card computes them: of each pair, written into one text."""
    tokenizer = AutoTokenizer.from_pretrained(str(directory))
    model = LlamaBidirectionalForSequenceClassification.from_pretrained(str(directory)).eval()
    texts = [f"question:{query} \n \n passage:{document}" for query, document in MORE]
    given = tokenizer(texts, padding=True, padding_side="left", truncation=True, max_length=120, return_tensors="pt")
    with torch.no_grad():
        return model(given["input_ids"], given["attention_mask"]).logits[:, 0].numpy()


def with_the_template_that_is_named(directory: Path) -> Path:
    """The checkpoint with the file that its refusal asks for."""
    with pytest.raises(UnsupportedCheckpointError, match="no chat template, and its kind scores") as refused:
        export(str(directory), ExportOptions(output=directory.with_name("none"), task="reranking"))
    found = re.search(r"as chat_template\.jinja: (.*)$", str(refused.value))
    assert found is not None
    (directory / "chat_template.jinja").write_text(found[1], encoding="utf-8")
    return directory


@pytest.mark.parametrize(
    "said", [{}, {"temperature": 0.5}, {"pooling": "cls"}, {"pooling": "last", "temperature": 2}], ids=str
)
def test_scores_are_those_of_the_documented_usage(tmp_path: Path, said: dict[str, Any]) -> None:
    source = save(tmp_path / "source", **said)
    wanted = as_documented(source)
    assert np.ptp(wanted) > 0.1
    options = ExportOptions(output=tmp_path / "out", task="reranking", trust_remote_code=True)
    described = export(str(with_the_template_that_is_named(source)), options).manifest
    assert described.parity["status"] == "passed"
    for target in ("cpu", "portable", None):
        with Reranker(tmp_path / "out", target=target) as model:
            np.testing.assert_allclose(model.predict(MORE, activation="identity"), wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (
            {"pooling": "weighted_avg"},
            UnsupportedCheckpointError,
            "pooling 'weighted_avg'; built for a score are 'avg'",
        ),
        ({"temperature": 0}, CheckpointError, "temperature 0.0, expected a number above 0"),
    ],
)
def test_other_heads_are_refused(tmp_path: Path, said: dict[str, Any], kind: type[Exception], words: str) -> None:
    source = save(tmp_path / "source")
    change_json(source / "config.json", **said)
    with pytest.raises(kind, match=words):
        export(str(source), ExportOptions(output=tmp_path / "out", task="reranking"))
