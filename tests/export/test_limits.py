"""Where texts are cut: every place that names a limit counts as much as it does in sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoint_faults import refusal
from checkpoints import PROMPTS, TEXTS, change_json, save_sentence_transformers, save_transformers, write_json
from exports import quick

from fastembed_rt import EmbeddingModel, manifest
from fastembed_rt_export.checkpoint.read import Overrides, load, override
from fastembed_rt_export.errors import CheckpointError, InvalidInputError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export

LONG = [*TEXTS, "the cat runs " * 40]


def reference(directory: Path) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(directory), device="cpu", local_files_only=True)


def assert_cut_alike(directory: Path, output: Path, expected: int) -> manifest.Manifest:
    """Texts beyond every limit have the reference's vectors, cut where the reference cuts them."""
    described = quick(directory, output)
    theirs = reference(directory)
    longest = max(len(row) for row in theirs.preprocess(LONG)["input_ids"])
    assert longest == expected
    assert described.max_length == expected
    with EmbeddingModel(output) as model:
        np.testing.assert_allclose(model.encode(LONG), theirs.encode(LONG), rtol=1e-5, atol=1e-5)
    return described


@pytest.mark.parametrize("key", ["processor_kwargs", "tokenizer_args"])
def test_the_limit_passed_to_the_tokenizer_counts_more_than_max_seq_length(
    chain: Path, tmp_path: Path, key: str
) -> None:
    change_json(chain / "sentence_bert_config.json", max_seq_length=30, **{key: {"model_max_length": 12}})
    assert_cut_alike(chain, tmp_path / "out", 12)


def test_settings_by_the_old_name_count_more_than_those_by_the_new_one(chain: Path, tmp_path: Path) -> None:
    both = {"processor_kwargs": {"model_max_length": 30}, "tokenizer_args": {"model_max_length": 12}}
    change_json(chain / "sentence_bert_config.json", **both)
    assert_cut_alike(chain, tmp_path / "out", 12)


@pytest.mark.parametrize("where", ["text", "common"])
def test_a_limit_on_every_call_counts_most(chain: Path, tmp_path: Path, where: str) -> None:
    said = {"processor_kwargs": {"model_max_length": 30}, "processing_kwargs": {where: {"max_length": 12}}}
    change_json(chain / "sentence_bert_config.json", query_length=20, **said)
    described = assert_cut_alike(chain, tmp_path / "out", 12)
    assert not described.routes


def test_max_len_stands_in_for_model_max_length(chain: Path, tmp_path: Path) -> None:
    change_json(chain / "tokenizer_config.json", "model_max_length", max_len=12)
    assert_cut_alike(chain, tmp_path / "out", 12)


def test_a_float_without_a_fraction_is_a_number_of_tokens(chain: Path) -> None:
    change_json(chain / "sentence_bert_config.json", max_seq_length=12.0)
    assert load(chain, "chain").max_length == 12


@pytest.mark.parametrize("value", ["12", 12.5, 0, -3, True, [12], float("inf")])
def test_a_model_max_length_that_is_no_number_of_tokens_is_refused(chain: Path, value: object) -> None:
    change_json(chain / "tokenizer_config.json", model_max_length=value)
    assert f"model_max_length {value!r}" in refusal(chain)


def test_a_left_over_settings_file_beside_a_plain_directory_is_not_read(plain: Path, tmp_path: Path) -> None:
    write_json(plain / "sentence_bert_config.json", {"max_seq_length": 12, "do_lower_case": True})
    described = assert_cut_alike(plain, tmp_path / "out", 48)
    assert any("sentence_bert_config.json is not read" in note for note in described.notes)


def test_left_over_prompts_beside_a_plain_directory_are_not_read(plain: Path, tmp_path: Path) -> None:
    said = {"prompts": {"query": "the red "}, "default_prompt_name": "query", "truncate_dim": 8}
    write_json(plain / "config_sentence_transformers.json", {**said, "similarity_fn_name": "dot"})
    described = assert_cut_alike(plain, tmp_path / "out", 48)
    assert (described.prompts, described.dim, described.similarity) == ({}, 24, "cosine")
    assert any("config_sentence_transformers.json is not read" in note for note in described.notes)


def test_a_model_without_a_limit_says_where_its_texts_are_cut(tmp_path: Path) -> None:
    directory = save_sentence_transformers(tmp_path / "t5", "t5")
    assert any("48 positions" in note for note in load(directory, "t5").notes)


# --- queries and documents -------------------------------------------------------------------------------------------


@pytest.fixture
def cut_by_role(tmp_path: Path) -> Path:
    directory = save_sentence_transformers(tmp_path / "roles", max_seq_length=30, prompts=PROMPTS)
    change_json(directory / "sentence_bert_config.json", query_length=7, document_length=20)
    return directory


def test_queries_and_documents_are_cut_where_the_reference_cuts_them(cut_by_role: Path, tmp_path: Path) -> None:
    described = quick(cut_by_role, tmp_path / "out")
    lengths = {role: route.max_length for role, route in described.routes.items()}
    assert (described.max_length, lengths) == (30, {"query": 7, "document": 20})
    theirs = reference(cut_by_role)
    with EmbeddingModel(tmp_path / "out") as model:
        for name in ("encode", "encode_query", "encode_document"):
            np.testing.assert_allclose(getattr(model, name)(LONG), getattr(theirs, name)(LONG), rtol=1e-5, atol=1e-5)
        assert np.abs(model.encode_query(LONG, prompt="") - model.encode(LONG)).max() > 1e-2


def test_lengths_by_role_share_one_graph(cut_by_role: Path, tmp_path: Path) -> None:
    described = quick(cut_by_role, tmp_path / "out")
    assert {route.default.graph for route in described.routes.values()} == {described.default.graph}
    assert not list((tmp_path / "out").rglob("*/*.onnx"))  # none in a folder of its own


@pytest.mark.usefixtures("short_gate")
def test_the_parity_gate_compares_queries_and_documents_that_are_cut_elsewhere(
    cut_by_role: Path, tmp_path: Path
) -> None:
    made = export(str(cut_by_role), ExportOptions(output=tmp_path / "out"))
    assert made.manifest.parity["status"] == "passed"
    assert made.manifest.parity["texts"] > 2 * 100  # each role's own


def test_a_length_like_that_of_other_texts_makes_no_encoder_of_its_own(tmp_path: Path) -> None:
    directory = save_sentence_transformers(tmp_path / "same", max_seq_length=30)
    change_json(directory / "sentence_bert_config.json", query_length=30, document_length=None)
    assert not load(directory, "same").routes


def test_an_override_of_max_length_leaves_lengths_by_role_as_they_are(cut_by_role: Path) -> None:
    checkpoint = override(load(cut_by_role, "roles"), Overrides(max_length=12))
    assert checkpoint.max_length == 12
    assert {role: route.max_length for role, route in checkpoint.routes.items()} == {"query": 7, "document": 20}


def test_a_length_by_role_beyond_the_positions_is_capped_and_noted(chain: Path) -> None:
    change_json(chain / "sentence_bert_config.json", max_seq_length=30, query_length=100)
    checkpoint = load(chain, "chain")
    assert checkpoint.routes["query"].max_length == 48
    assert any("100 is more than the 48 positions" in note for note in checkpoint.notes)


# --- plain directories -----------------------------------------------------------------------------------------------


def test_a_plain_directory_of_a_causal_model_is_pooled_at_its_last_token(tmp_path: Path) -> None:
    directory = save_transformers(tmp_path / "causal", "qwen3")
    change_json(directory / "config.json", architectures=["Qwen3ForCausalLM"])
    described = assert_cut_alike(directory, tmp_path / "out", 48)
    assert described.pooling == ("lasttoken",)


def test_a_causal_model_that_is_not_causal_is_pooled_by_the_mean(plain: Path) -> None:
    change_json(plain / "config.json", architectures=["BertForCausalLM"], is_causal=False)
    assert load(plain, "plain").pooling == ("mean",)


TEMPLATE = "{% for message in messages %}the {{ message['content'] }} cat{% endfor %}"


@pytest.mark.parametrize("place", ["tokenizer_config.json", "chat_template.jinja"])
def test_a_chat_template_of_a_plain_directory_is_refused(plain: Path, place: str) -> None:
    before = reference(plain).encode(["red"])
    if place.endswith("json"):
        change_json(plain / place, chat_template=TEMPLATE)
    else:
        (plain / place).write_text(TEMPLATE, encoding="utf-8")
    assert np.abs(reference(plain).encode(["red"]) - before).max() > 1e-2  # the reference puts texts through it
    message = refusal(plain, UnsupportedCheckpointError)
    assert f"has a chat template ({place})" in message


def test_a_chat_template_beside_modules_json_changes_nothing(chain: Path, tmp_path: Path) -> None:
    change_json(chain / "tokenizer_config.json", chat_template=TEMPLATE)
    assert_cut_alike(chain, tmp_path / "out", 48)


@pytest.mark.parametrize("length", [1, 2])
def test_a_limit_without_room_beside_special_tokens_is_refused(chain: Path, tmp_path: Path, length: int) -> None:
    said = f"max_length {length} leaves no room beside 2 special tokens"
    with pytest.raises(InvalidInputError, match=said):
        quick(chain, tmp_path / "out", overrides=Overrides(max_length=length))
    change_json(chain / "sentence_bert_config.json", max_seq_length=length)
    with pytest.raises(CheckpointError, match=said):
        quick(chain, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert quick(chain, tmp_path / "out", overrides=Overrides(max_length=3)).max_length == 3
