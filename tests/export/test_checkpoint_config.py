"""config.json and the files of lengths and prompts: read as sentence-transformers reads them, every fault is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_faults import built, refusal
from checkpoints import (
    SIZES,
    assert_vectors_agree,
    change_json,
    change_tensors,
    save_with_heads,
)
from exports import quick
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense

from fastembed_rt import manifest
from fastembed_rt_export import tasks
from fastembed_rt_export.checkpoint.read import Overrides, load, override
from fastembed_rt_export.errors import CheckpointError, InvalidInputError, UnsupportedCheckpointError

WIDTH = SIZES["hidden_size"]


# --- config.json -----------------------------------------------------------------------------------------------------


def test_an_unknown_model_type_names_those_known_and_the_way_through_optimum(plain: Path) -> None:
    change_json(plain / "config.json", model_type="new-bert")
    message = refusal(plain, UnsupportedCheckpointError)
    assert "'new-bert'" in message
    assert "albert, bert, " in message
    assert "pip install 'fastembed-rt[optimum]'" in message


@pytest.mark.parametrize(
    ("task", "model_type", "kind"),
    [
        ("reranking", "minicpm", "LayerWiseMiniCPMForCausalLM"),  # bge-reranker-v2-minicpm-layerwise
        ("reranking", "cost_wise_gemma", "CostWiseGemmaForCausalLM"),  # bge-reranker-v2.5-gemma2-lightweight
        ("reranking", "new-bert", "NewBertForSequenceClassification"),
        ("sparse", "new-bert", "NewBertForMaskedLM"),
    ],
)
def test_what_is_not_traced_is_not_sent_to_optimum(plain: Path, task: str, model_type: str, kind: str) -> None:
    change_json(plain / "config.json", model_type=model_type, architectures=[kind])
    with pytest.raises(UnsupportedCheckpointError, match=f"'{model_type}' has no builder.*not traced$") as refused:
        tasks.load(plain, "plain", task=task)
    assert "optimum" not in str(refused.value)


@pytest.mark.parametrize("model_type", [5, ["bert"], None])
def test_a_model_type_that_is_not_a_name_is_refused(plain: Path, model_type: object) -> None:
    change_json(plain / "config.json", model_type=model_type)
    assert "model_type" in refusal(plain, UnsupportedCheckpointError)


def test_a_config_without_model_type_is_refused(plain: Path) -> None:
    change_json(plain / "config.json", "model_type")
    assert "has no model_type" in refusal(plain)


def test_an_absent_config_is_refused(plain: Path) -> None:
    (plain / "config.json").unlink()
    assert f"{plain / 'config.json'} is missing" in refusal(plain)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe{}", "cannot be read as JSON"),
        (b"[]", "holds list, expected an object"),
        (b'"bert"', "holds str, expected an object"),
        (b"null", "holds NoneType, expected an object"),
    ],
)
def test_a_config_that_is_not_a_json_object_is_refused(plain: Path, content: bytes, said: str) -> None:
    (plain / "config.json").write_bytes(content)
    assert said in refusal(plain)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("hidden_size", "24", "hidden_size = '24', expected int"),
        ("hidden_size", True, "hidden_size = True, expected int"),
        ("hidden_size", 24.0, "hidden_size = 24.0, expected int"),
        ("num_hidden_layers", [3], "num_hidden_layers = [3], expected int"),
        ("hidden_act", 5, "hidden_act = 5, expected str"),
        ("layer_norm_eps", "1e-12", "layer_norm_eps = '1e-12', expected float"),
        ("vocab_size", None, "lacks 'vocab_size'"),
        ("max_position_embeddings", None, "lacks 'max_position_embeddings'"),
        ("layer_norm_eps", float("nan"), "layer_norm_eps = nan, expected float"),
        ("layer_norm_eps", 10**400, "layer_norm_eps = inf, expected float"),
        ("layer_norm_eps", -1, "impossible size"),
        ("hidden_size", 0, "impossible size"),
        ("hidden_size", -24, "impossible size"),
        ("num_hidden_layers", 0, "impossible size"),
        ("num_attention_heads", 0, "impossible size"),
        ("intermediate_size", -1, "impossible size"),
        ("num_attention_heads", 5, "hidden size 24 is not a multiple of 5 heads"),
        ("vocab_size", 10**30, "misshapen: embeddings.word_embeddings.weight"),
        ("vocab_size", -1, "misshapen: embeddings.word_embeddings.weight"),
        ("max_position_embeddings", 10**12, "misshapen: embeddings.position_embeddings.weight"),
        ("intermediate_size", 10**15, "misshapen: encoder.layer.0.intermediate.dense.weight"),
    ],
)
def test_a_config_with_impossible_values_is_refused(plain: Path, key: str, value: object, said: str) -> None:
    change_json(plain / "config.json", **{key: value})
    assert said in refusal(plain)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("position_embedding_type", "relative_key_query"),
        ("is_decoder", True),
        ("add_cross_attention", True),
        ("hidden_act", "mish"),
    ],
)
def test_what_no_builder_computes_is_refused_by_name(plain: Path, key: str, value: object) -> None:
    change_json(plain / "config.json", **{key: value})
    assert repr(value) in refusal(plain, UnsupportedCheckpointError)


# --- prompts and similarity ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "method"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "gptq"),
        ({"quant_method": "awq", "bits": 4}, "awq"),
        ({"quant_method": "fp8", "weight_block_size": [128, 128]}, "fp8"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
        ({}, None),
    ],
)
@pytest.mark.parametrize("weights", ["as floats", "as whole numbers"])
def test_quantized_weights_are_refused_by_their_method(
    plain: Path, said: dict[str, Any], method: str | None, weights: str
) -> None:
    change_json(plain / "config.json", quantization_config=said)
    if weights == "as whole numbers":
        name = "encoder.layer.0.attention.self.query.weight"
        change_tensors(plain, lambda tensors: tensors.update({name: tensors[name].astype(np.int8)}))
    assert f"quantization_config (method {method!r})" in refusal(plain, UnsupportedCheckpointError)


def test_a_quantization_of_null_is_none(plain: Path) -> None:
    change_json(plain / "config.json", quantization_config=None)
    built(plain)


@pytest.mark.parametrize("prompts", [["query: "], "query: ", {"query": 5}, {"query": ["query: "]}, 5])
def test_prompts_that_are_not_texts_by_name_are_refused(chain: Path, prompts: object) -> None:
    change_json(chain / "config_sentence_transformers.json", prompts=prompts)
    assert "prompts that are not texts by name" in refusal(chain)


# Every step of an export meets them, those before the build too.
@pytest.mark.parametrize("key", ["vocab_size", "type_vocab_size", "num_hidden_layers", "hidden_size", "pad_token_id"])
@pytest.mark.parametrize("value", [[None], {"a": 1}, "x", 1.5])
def test_a_number_that_is_none_is_named_wherever_it_is_met(
    plain: Path, tmp_path: Path, key: str, value: object
) -> None:
    change_json(plain / "config.json", **{key: value})
    try:
        quick(plain, tmp_path / "out")
    except CheckpointError as error:
        assert key in str(error)
    else:
        assert key == "pad_token_id"  # any will do, since padding is masked


@pytest.mark.parametrize("value", [[[]], {"a": 1}, 5])
def test_a_default_prompt_that_is_no_name_is_refused(chain: Path, value: object) -> None:
    change_json(chain / "config_sentence_transformers.json", default_prompt_name=value)
    assert "default_prompt_name" in refusal(chain)


def test_a_prompt_of_null_is_empty(chain: Path) -> None:
    change_json(chain / "config_sentence_transformers.json", prompts={"query": None, "passage": "p: "})
    assert built(chain).prompts == {"query": "", "passage": "p: "}


@pytest.mark.parametrize("absent", ["config_sentence_transformers.json", "sentence_bert_config.json"])
def test_files_that_older_checkpoints_lack_may_be_absent(chain: Path, tmp_path: Path, absent: str) -> None:
    (chain / absent).unlink()
    assert_vectors_agree(chain, tmp_path / "out")
    assert manifest.read(tmp_path / "out").similarity == "cosine"


def test_an_unknown_default_prompt_is_refused(chain: Path) -> None:
    change_json(chain / "config_sentence_transformers.json", prompts={"query": "q: "}, default_prompt_name="passage")
    message = refusal(chain)
    assert "'passage'" in message
    assert "['query']" in message


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan", None])
def test_similarities_of_sentence_transformers_are_kept(chain: Path, name: str | None) -> None:
    change_json(chain / "config_sentence_transformers.json", similarity_fn_name=name)
    assert built(chain).similarity == (name or "cosine")


@pytest.mark.parametrize("name", ["cos_sim", "pytorch_cos_sim", "dot_score", "jaccard"])
def test_a_similarity_that_the_reference_does_not_know_is_its_default_and_noted(
    chain: Path, tmp_path: Path, name: str
) -> None:
    change_json(chain / "config_sentence_transformers.json", similarity_fn_name=name)
    checkpoint = built(chain)
    assert checkpoint.similarity == SentenceTransformer(str(chain), device="cpu").similarity_fn_name == "cosine"
    assert any(f"similarity_fn_name {name!r} is none of cosine, dot" in note for note in checkpoint.notes)


@pytest.mark.parametrize("name", [5, ["cosine"]])
def test_a_similarity_that_is_no_name_is_refused(chain: Path, name: object) -> None:
    change_json(chain / "config_sentence_transformers.json", similarity_fn_name=name)
    message = refusal(chain)
    assert repr(name) in message
    assert "cosine, dot, euclidean, manhattan" in message


# --- lengths ---------------------------------------------------------------------------------------------------------


def limited(directory: Path, max_seq_length: object, model_max_length: object) -> None:
    change_json(directory / "sentence_bert_config.json", max_seq_length=max_seq_length)
    change_json(directory / "tokenizer_config.json", model_max_length=model_max_length)


@pytest.mark.parametrize(
    ("max_seq_length", "model_max_length", "expected"),
    [(10, 10**30, 10), (10, 20, 10), (None, 20, 20), (None, 1e30, 48), (None, 512, 48), (48, 20, 48)],
)
def test_texts_are_cut_where_sentence_transformers_cuts_them(
    chain: Path, tmp_path: Path, max_seq_length: int | None, model_max_length: float, expected: int
) -> None:
    limited(chain, max_seq_length, model_max_length)
    assert_vectors_agree(chain, tmp_path / "out")
    assert manifest.read(tmp_path / "out").max_length == expected


def test_a_max_seq_length_over_the_positions_is_capped_and_noted(chain: Path) -> None:
    limited(chain, 512, 10**30)
    checkpoint = built(chain)
    assert checkpoint.max_length == SIZES["max_position_embeddings"]
    assert any("512" in note and "capped" in note for note in checkpoint.notes)


@pytest.mark.parametrize("value", ["256", -1, 0, True, [256], 2.5])
def test_a_max_seq_length_that_is_no_number_of_tokens_is_refused(chain: Path, value: object) -> None:
    limited(chain, value, 10**30)
    assert f"max_seq_length {value!r}" in refusal(chain)


@pytest.mark.parametrize("value", [0, -5, 49])
def test_an_override_of_max_length_that_the_model_has_no_positions_for_is_refused(chain: Path, value: int) -> None:
    with pytest.raises(InvalidInputError, match=f"max_length {value} is not possible; the model has 48 positions"):
        override(load(chain, "chain"), Overrides(max_length=value))


def test_an_override_of_the_pooling_that_a_dense_cannot_take_is_refused(tmp_path: Path) -> None:
    directory = save_with_heads(tmp_path / "dense", Dense(WIDTH, 10))
    with pytest.raises(InvalidInputError, match=r"cls\+mean changes the width that Dense\(24 -> 10, tanh\) takes"):
        override(load(directory, "dense"), Overrides(pooling=("cls", "mean")))
