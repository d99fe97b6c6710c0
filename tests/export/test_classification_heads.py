"""Which token of a pair a decoder's classification head scores, and how many labels a head has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from causal_rerankers import QWEN, SPECIAL, WORDS, save_bpe_tokenizer
from checkpoints import change_json, change_tensors, random_model
from cross_encoders import (
    PAIRS,
    assert_scores_agree,
    exported_scores,
    reference_scores,
    save_classifier,
    save_cross_encoder,
)
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from fastembed_rt import Reranker, manifest
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tasks.classification import CLASSIFIERS, PADS

pytestmark = pytest.mark.usefixtures("short_gate")

PAD = SPECIAL[0]
ENDS = [
    ("a", f"the{PAD}"),
    ("a", f"the{PAD}{PAD}"),
    ("a", f"the {PAD} dog"),
    (f"a{PAD}", ""),
    (PAD, PAD),
    ("a", "the"),
    ("new city light: 1 2 3 4 5 6 7 8 9 0 " * 9, f"under the old tree {PAD * 40}"),
]


def save_open_ended(directory: Path, model_type: str = "qwen3", template: str | None = None, **changes: Any) -> Path:
    """A decoder's classification head whose tokenizer puts nothing around pairs, as Qwen's."""
    save_classifier(directory, model_type, vocab_size=WORDS, max_position_embeddings=512, **changes)
    save_bpe_tokenizer(directory, template)
    change_json(directory / "tokenizer_config.json", model_max_length=60)
    return directory


@pytest.mark.parametrize("model_type", ["gemma2", "llama", "qwen3"])
def test_pad_tokens_at_the_end_of_a_text_are_passed_over(tmp_path: Path, model_type: str) -> None:
    source = save_open_ended(tmp_path / "source", model_type)
    assert_scores_agree(source, tmp_path / "made", ENDS)
    with Reranker(tmp_path / "made") as model:
        alone = [model.predict(pair) for pair in ENDS]
        np.testing.assert_array_equal(model.predict(ENDS), alone)
        assert alone[0] == alone[1] == alone[5] != alone[2]


def test_pad_tokens_at_the_end_of_a_chat_template(tmp_path: Path) -> None:
    source = save_open_ended(tmp_path / "source", template=QWEN + PAD)
    change_json(source / "tokenizer_config.json", model_max_length=200)
    assert_scores_agree(source, tmp_path / "made", ENDS)


def test_a_last_token_of_all_pairs_that_is_the_pad_token_is_passed_over(tmp_path: Path) -> None:
    """As of a reranker made of Qwen3-Embedding, whose tokenizer ends texts with the token that others pad with."""
    source = save_cross_encoder(tmp_path / "source", "qwen3")
    other = reference_scores(source)
    change_json(source / "config.json", pad_token_id=3)
    change_json(source / "tokenizer_config.json", pad_token="[SEP]")
    assert np.abs(reference_scores(source) - other).max() > 0.01
    assert_scores_agree(source, tmp_path / "made")
    assert export(str(source), ExportOptions(output=tmp_path / "checked")).manifest.parity["status"] == "passed"


def test_a_last_token_that_is_the_pad_token_is_refused_where_all_tokens_see_it(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "source", "qwen3", is_causal=False)
    assert_scores_agree(source, tmp_path / "made")
    change_json(source / "config.json", pad_token_id=3)
    with pytest.raises(UnsupportedCheckpointError, match="ends pairs with token 3, which config"):
        export(str(source), ExportOptions(output=tmp_path / "refused", verify=False))


def test_int8_is_calibrated_on_pairs_without_their_ends(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "source", "qwen3")
    change_json(source / "config.json", pad_token_id=3)
    export(str(source), ExportOptions(output=tmp_path / "made", precisions=("int8",), verify=False))
    found, wanted = exported_scores(source, tmp_path / "made"), reference_scores(source)
    assert np.corrcoef(found, wanted)[0, 1] > 0.95


@pytest.mark.parametrize("model_type", sorted(name for name in CLASSIFIERS if name in transformers.CONFIG_MAPPING))
def test_the_pad_token_is_that_of_transformers_where_config_json_has_none(model_type: str) -> None:
    pad = transformers.AutoConfig.for_model(model_type).pad_token_id
    made = CLASSIFIERS[model_type]({"model_type": model_type})
    assert made.passes_over == (pad if made.pooling == "lasttoken" else None)
    assert model_type in PADS or made.passes_over is None


def test_padding_that_a_tokenizer_was_saved_with_is_no_last_token(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "source", "qwen3")
    tokenizer = Tokenizer.from_file(str(source / "tokenizer.json"))
    tokenizer.enable_padding(length=20)
    tokenizer.save(str(source / "tokenizer.json"))
    assert_scores_agree(source, tmp_path / "made")


@pytest.mark.parametrize("names", [{"0": "no"}, {"0": "no", "1": "perhaps", "2": "yes"}])
def test_a_number_of_labels_counts_more_than_their_names(tmp_path: Path, names: dict[str, str]) -> None:
    source = save_classifier(tmp_path / "source", "roberta", labels=2, max_position_embeddings=300)
    change_json(source / "config.json", num_labels=2, id2label=names)
    assert_scores_agree(source, tmp_path / "made")
    about = manifest.read(tmp_path / "made").reranking
    assert about is not None
    assert about.labels == ("LABEL_0", "LABEL_1")


@pytest.mark.parametrize("changes", [{"id2label": {}}, {"id2label": {"0": "no"}, "num_labels": None}])
def test_labels_of_no_number_are_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    source = save_classifier(tmp_path / "source")
    change_json(source / "config.json", **changes)
    with pytest.raises((RuntimeError, TypeError)):
        reference_scores(source)
    with pytest.raises(CheckpointError, match="expected a number of labels"):
        export(str(source), ExportOptions(output=tmp_path / "made", verify=False))


@pytest.mark.parametrize(("model_type", "front"), [("bert", "bert."), ("qwen3", "model.")])
def test_heads_that_are_stored_twice_are_refused(tmp_path: Path, model_type: str, front: str) -> None:
    """transformers takes those that come first in the file, here those with the encoder's name in front."""
    source = save_classifier(tmp_path / "source", model_type)
    wanted = reference_scores(source)

    def change(tensors: dict[str, Any]) -> None:
        tensors.update({front + name: 2 * tensors[name] for name in list(tensors) if not name.startswith(front)})

    change_tensors(source, change)
    assert np.abs(reference_scores(source) - wanted).max() > 0.01
    with pytest.raises(CheckpointError, match=f"twice, with {front} in front and without"):
        export(str(source), ExportOptions(output=tmp_path / "made", verify=False))


def test_jina_bert_has_the_head_that_its_code_on_the_hub_has(tmp_path: Path) -> None:
    """jina-reranker-v1's layout: BERT's pooler and classifier behind another encoder, all of them of its own code."""
    source = save_classifier(tmp_path / "source", "bert", types=True)
    head = load_file(source / "model.safetensors")
    encoder = random_model("jina_bert")
    encoder.save_pretrained(source)
    code = {"AutoModelForSequenceClassification": "modeling_bert.JinaBertForSequenceClassification"}
    named = {"id2label": {"0": "LABEL_0"}, "architectures": ["JinaBertForSequenceClassification"], "auto_map": code}
    change_json(source / "config.json", model_type="bert", position_embedding_type="alibi", **named)

    def change(tensors: dict[str, Any]) -> None:
        inner = {f"bert.{name}": tensors.pop(name) for name in list(tensors)}
        tensors.update(inner)
        tensors.update({name: head[name] for name in head if "pooler" in name or name.startswith("classifier")})

    change_tensors(source, change)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    weights = {name: torch.from_numpy(head[name]) for name in head}
    wanted = []
    for left, right in PAIRS[1:6]:
        with torch.inference_mode():
            state = encoder(**tokenizer([left], [right], return_tensors="pt")).last_hidden_state[:, 0]
        pooled = torch.tanh(state @ weights["bert.pooler.dense.weight"].T + weights["bert.pooler.dense.bias"])
        wanted.append(float(pooled @ weights["classifier.weight"][0] + weights["classifier.bias"][0]))
    found = exported_scores(source, tmp_path / "made", PAIRS[1:6], activation="identity")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
