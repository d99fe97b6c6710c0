"""Token types where they are built: others than 0 of a single text are refused, pairs have those they are given."""

from __future__ import annotations

from pathlib import Path

import pytest
from checkpoints import change_json, exported_vectors, reference_vectors, save_sentence_transformers
from cross_encoders import assert_scores_agree, save_classifier, save_cross_encoder
from tolerances import close
from typed_tokenizers import tokenizer_with

from fastembed_rt import manifest
from fastembed_rt_export.errors import UnsupportedCheckpointError


def test_other_types_than_0_are_refused_where_the_model_takes_them(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "source", "bert")
    tokenizer_with(source, "[CLS]:0 $A:1 [SEP]:1")
    with pytest.raises(UnsupportedCheckpointError, match=r"gives the tokens of 'a' the types \[0, 1, 1\]"):
        exported_vectors(source, tmp_path / "refused")
    change_json(source / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    close(exported_vectors(source, tmp_path / "without"), reference_vectors(source))


def test_a_model_without_types_takes_no_notice_of_them(tmp_path: Path) -> None:
    source = save_sentence_transformers(tmp_path / "source", "distilbert")
    tokenizer_with(source, "[CLS]:0 $A:1 [SEP]:1")
    close(exported_vectors(source, tmp_path / "made"), reference_vectors(source))


# --- of pairs --------------------------------------------------------------------------------------------------------

NAMED = ["BertTokenizer", "PreTrainedTokenizerFast", "ElectraTokenizerFast", "DistilBertTokenizer"]


@pytest.mark.parametrize("named", NAMED)
def test_the_tokenizers_class_may_be_named_in_config_json(tmp_path: Path, named: str) -> None:
    source = save_classifier(tmp_path / "source", "bert")
    change_json(source / "tokenizer_config.json", "model_input_names", "tokenizer_class")
    change_json(source / "config.json", tokenizer_class=named)
    assert_scores_agree(source, tmp_path / "made")


@pytest.mark.parametrize("types", [True, False])
def test_inputs_that_the_module_names_for_its_tokenizer_count_more(tmp_path: Path, types: bool) -> None:
    source = save_cross_encoder(tmp_path / "source", "bert", types=not types)
    inputs = ["input_ids", "attention_mask", *(["token_type_ids"] if types else [])]
    change_json(source / "sentence_bert_config.json", processor_kwargs={"model_input_names": inputs})
    assert_scores_agree(source, tmp_path / "made")
    assert ("token_type_ids" in manifest.read(tmp_path / "made").variants[0].inputs) is types
