"""The table of settings: every key of every file is honoured, without effect, or refused by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_faults import built, refusal
from checkpoints import (
    SIZES,
    TEXTS,
    change_json,
    exported_vectors,
    reference_vectors,
    save_sentence_transformers,
    save_with_heads,
)
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Dense, Dropout, LayerNorm, Normalize, Pooling

from fastembed_rt_export import settings
from fastembed_rt_export.checkpoint.read import load
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.settings import FILES, File, check

WIDTH = SIZES["hidden_size"]
SBERT, TOKENIZER, SENTENCE = "sentence_bert_config.json", "tokenizer_config.json", "config_sentence_transformers.json"


@pytest.fixture(scope="module")
def headed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with every module that stands behind a transformer; no test changes it."""
    heads = (Dense(WIDTH, 20), LayerNorm(20), Dropout(0.3), Normalize())
    return save_with_heads(tmp_path_factory.mktemp("headed") / "headed", *heads)


@pytest.fixture
def whole(headed: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(headed, tmp_path / "whole"))


# --- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_row_says_why(file: File) -> None:
    assert file.rules
    assert all(rule.because for rule in file.rules.values())


@pytest.mark.parametrize(
    ("file", "module"),
    [
        *((settings.POOLING, Pooling), (settings.DENSE, Dense), (settings.LAYER_NORM, LayerNorm)),
        *((settings.DROPOUT, Dropout), (settings.NORMALIZE, Normalize), (settings.TRANSFORMER, Transformer)),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_table_has_every_key_that_the_reference_saves(file: File, module: Any) -> None:
    renamed = {*getattr(module, "config_key_renames", {}).items()}
    assert {*module.config_keys, *(old for old, _ in renamed)} <= set(file.rules)


def test_the_table_has_every_key_that_the_reference_takes() -> None:
    import inspect

    from sentence_transformers.base.modules import transformer

    taken = set(inspect.signature(Transformer.__init__).parameters) - {"self", "model_name_or_path"}
    assert taken <= set(settings.TRANSFORMER.rules)
    assert set(settings.PROCESSING_TEXT.rules) >= {"max_length", "padding", "truncation", "logits_to_keep"}
    assert {"message", "text"} <= set(transformer.MODALITY_TO_PROCESSOR_ARG) | {"message"}


def test_the_table_has_every_key_of_the_reference_tokenizers() -> None:
    from transformers import PreTrainedTokenizerBase

    named = set(PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES)
    said = {"model_max_length", "padding_side", "truncation_side", "model_input_names", "extra_special_tokens"}
    assert named | said | {"split_special_tokens", "clean_up_tokenization_spaces"} <= set(settings.TOKENIZER.rules)


# --- without effect --------------------------------------------------------------------------------------------------

HARMLESS: list[tuple[str, dict[str, Any]]] = [
    (
        SBERT,
        {
            "unpad_inputs": True,
            "cache_dir": None,
            "backend": "onnx",
            "modality_config": {"text": {"method": "forward", "method_output_name": ["last_hidden_state"]}},
            "module_output_name": "token_embeddings",
            "query_expansion": None,
            "tokenizer_name_or_path": None,
            "model_kwargs": {"attn_implementation": "eager", "dtype": "float32", "token": None},
            "config_kwargs": {"use_cache": False, "num_hidden_layers": 3, "trust_remote_code": True},
            "processor_kwargs": {"padding_side": "left", "use_fast": False, "clean_up_tokenization_spaces": True},
            "processing_kwargs": {
                "text": {"padding": "longest", "truncation": True, "pad_to_multiple_of": 8, "padding_side": "right"},
                "common": {"return_tensors": "pt"},
                "image": {"size": 5},
                "chat_template": {"enable_thinking": False},
            },
        },
    ),
    (
        TOKENIZER,
        {
            "clean_up_tokenization_spaces": True,
            "clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output": True,
            "spaces_between_special_tokens": False,
            "padding_side": "left",
            "pad_to_multiple_of": 8,
            "pad_token_type_id": 1,
            "add_bos_token": True,
            "add_eos_token": True,
            "max_length": 3,
            "stride": 3,
            "truncation_strategy": "only_second",
            "never_split": ["cat"],
            "do_basic_tokenize": False,
            "do_lower_case": False,
            "sp_model_kwargs": {},
            "use_fast": False,
            "legacy": True,
            "unk_id": 4,
            "extra_ids": 5,
            "wordpieces_prefix": "@@",
            "clean_text": False,
            "errors": "ignore",
            "trim_offsets": False,
            "vocab_file": "/nowhere/vocab.txt",
            "merges_file": "/nowhere/merges.txt",
            "tokenizer_file": "/nowhere/tokenizer.json",
            "special_tokens_map_file": "/nowhere/map.json",
            "name_or_path": "elsewhere",
            "backend": "tokenizers",
            "is_local": True,
            "verbose": True,
            "return_token_type_ids": False,
            "use_default_system_prompt": False,
            "processor_class": "BertProcessor",
            "init_inputs": [],
            "split_special_tokens": False,
            "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
            "response_schema": {},
        },
    ),
    (
        SENTENCE,
        {
            "__version__": {"sentence_transformers": "5.0.0"},
            "keep_in_fp32_modules": ["pooler"],
            "query_length": 5,
            "skiplist_words": ["cat"],
            "query_prefix": "[Q]",
            "activation_fn": "torch.nn.modules.activation.Sigmoid",
            "max_active_dims": 3,
        },
    ),
    ("1_Pooling/config.json", {"embedding_dimension": 24, "pooling_mode_cls_token": True}),
    ("2_Dense/config.json", {"module_input_name": "sentence_embedding", "module_output_name": None}),
    ("4_Dropout/config.json", {"dropout": 0.9}),
]


@pytest.mark.parametrize(("file", "changes"), HARMLESS, ids=[file for file, _ in HARMLESS])
def test_settings_without_effect_change_no_vector(
    whole: Path, headed: Path, tmp_path: Path, file: str, changes: dict[str, Any]
) -> None:
    change_json(whole / file, **changes)
    # One text a batch: on the left, padding shifts positions.
    wanted = reference_vectors(whole, TEXTS, batch_size=1)
    np.testing.assert_allclose(reference_vectors(headed, TEXTS), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(exported_vectors(whole, tmp_path / "out"), wanted, rtol=1e-5, atol=1e-5)
    assert not [note for note in load(whole, "whole").notes if "passes over" in note]


def test_names_of_arguments_in_modules_json_change_nothing(whole: Path, headed: Path, tmp_path: Path) -> None:
    entries = json.loads((whole / "modules.json").read_text(encoding="utf-8"))
    changed = [{**entry, "kwargs": ["task"], "comment": "x"} for entry in entries]
    (whole / "modules.json").write_text(json.dumps(changed), encoding="utf-8")
    wanted = reference_vectors(whole)
    np.testing.assert_allclose(wanted, reference_vectors(headed), rtol=0, atol=1e-6)
    np.testing.assert_allclose(exported_vectors(whole, tmp_path / "out"), wanted, rtol=1e-5, atol=1e-5)


# --- refused ---------------------------------------------------------------------------------------------------------

MESSAGE = {"method": "forward", "method_output_name": "last_hidden_state", "format": "flat"}
FORWARD = {"method": "forward", "method_output_name": "last_hidden_state"}
REFUSED: list[tuple[str, dict[str, Any]]] = [
    (SBERT, {"modality_config": {"text": FORWARD, "message": MESSAGE}}),
    (SBERT, {"modality_config": {"image": FORWARD}}),
    (SBERT, {"modality_config": {"text": {**FORWARD, "method_output_name": "pooler_output"}}}),
    (SBERT, {"modality_config": {"text": {**FORWARD, "method": "get_text_features"}}}),
    (SBERT, {"module_output_name": "sentence_embedding"}),
    (SBERT, {"transformer_task": "fill-mask"}),
    (SBERT, {"query_expansion": {"strategy": "min", "length": 8}}),
    (SBERT, {"tokenizer_name_or_path": "org/other"}),
    (SBERT, {"config_kwargs": {"num_hidden_layers": 1}}),
    (SBERT, {"config_args": {"hidden_act": "relu"}}),
    (SBERT, {"model_kwargs": {"use_safetensors": False}}),
    (SBERT, {"model_args": {"variant": "fp16"}}),
    (SBERT, {"processing_kwargs": {"text": {"add_special_tokens": False}}}),
    (SBERT, {"processing_kwargs": {"common": {"truncation": False}}}),
    (SBERT, {"processing_kwargs": {"text": {"padding": False}}}),
    (SBERT, {"processor_kwargs": {"add_eos_token": True}}),
    (SBERT, {"processor_kwargs": {"tokenizer_type": "bert"}}),
    (SBERT, {"tokenizer_args": {"split_special_tokens": True}}),
    (SBERT, {"processor_kwargs": {"vocab_file": "vocab.txt"}}),
    (TOKENIZER, {"split_special_tokens": True}),
    (TOKENIZER, {"model_input_names": ["input_ids"]}),
    (TOKENIZER, {"init_inputs": ["x"]}),
    (TOKENIZER, {"fast_tokenizer_files": ["tokenizer.4.0.0.json", "tokenizer.json"]}),
    (TOKENIZER, {"post_processor": {}}),
    (TOKENIZER, {"tokenizer_truncation": {"max_length": 3}}),
    (TOKENIZER, {"fix_mistral_regex": True}),
    (TOKENIZER, {"add_special_tokens": False}),
    (SENTENCE, {"model_type": "Unheard"}),
]


def leaf(changes: dict[str, Any]) -> str:
    """The innermost key that a message has to name."""
    key, value = next(iter(changes.items()))
    inner = key.endswith(("_kwargs", "_args")) and isinstance(value, dict)
    return leaf(value) if inner or key in ("text", "common") else key


@pytest.mark.parametrize(("file", "changes"), REFUSED, ids=[f"{leaf(c)}-{k}" for k, (_, c) in enumerate(REFUSED)])
def test_a_setting_that_would_change_vectors_is_refused_by_name(
    whole: Path, file: str, changes: dict[str, Any]
) -> None:
    change_json(whole / file, **changes)
    message = refusal(whole, UnsupportedCheckpointError)
    named = {"modality_config": ("modality_config", "of 'forward'", "method"), "module_output_name": ("calls it",)}
    assert any(name in message for name in (leaf(changes), *named.get(leaf(changes), ())))
    assert any(word in message for word in ("not built", "built", "known"))


@pytest.mark.parametrize(
    ("file", "key"),
    [
        (SBERT, "max_length"),
        ("1_Pooling/config.json", "pooling_mode_first_token"),
        ("3_LayerNorm/config.json", "eps"),
        ("4_Dropout/config.json", "p"),
    ],
)
def test_an_unknown_setting_that_the_reference_refuses_is_refused(whole: Path, file: str, key: str) -> None:
    change_json(whole / file, **{key: 5})
    with pytest.raises(TypeError):
        reference_vectors(whole, ["a"])
    message = refusal(whole)
    assert f"{file.rpartition('/')[2]} has '{key}', which sentence-transformers refuses as well" in message


@pytest.mark.parametrize("file", [TOKENIZER, SENTENCE, "2_Dense/config.json", "5_Normalize/config.json"])
def test_an_unknown_setting_that_the_reference_passes_over_is_noted(
    whole: Path, headed: Path, tmp_path: Path, file: str
) -> None:
    change_json(whole / file, unheard_of=5)
    np.testing.assert_allclose(reference_vectors(whole), reference_vectors(headed), rtol=0, atol=1e-6)
    assert any("has 'unheard_of', which the reference passes over" in note for note in built(whole).notes)


def test_weights_of_half_precision_that_model_kwargs_ask_for_are_noted(whole: Path) -> None:
    change_json(whole / SBERT, model_kwargs={"torch_dtype": "bfloat16"})
    assert any("half precision" in note for note in load(whole, "whole").notes)


@pytest.mark.parametrize("key", ["model_kwargs", "config_args", "processor_kwargs", "processing_kwargs"])
def test_settings_that_are_no_settings_by_name_are_refused(whole: Path, key: str) -> None:
    change_json(whole / SBERT, **{key: ["x"]})
    assert "are not settings by name" in refusal(whole)


def test_many_unknown_settings_are_named_in_one_short_line() -> None:
    with pytest.raises(CheckpointError) as caught:
        check(settings.LAYER_NORM, {f"key{k}": "x" * 500 for k in range(20)}, "here", [])
    assert "'key0', 'key1', 'key2', 'key3' and 16 more" in str(caught.value)
    assert len(str(caught.value)) < 200


def test_a_checkpoint_as_the_reference_saves_it_has_no_notes(tmp_path: Path) -> None:
    assert load(save_sentence_transformers(tmp_path / "chain"), "chain").notes == ()
