"""Chat templates around the pairs of a reranker: prompts, cuts, where they are found, which are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from causal_rerankers import (
    BEHIND,
    LOGITS,
    MORE,
    PROMPT,
    QWEN,
    TURNS,
    assert_agree,
    exported,
    save_causal,
    save_causal_reranker,
)
from checkpoints import change_json
from cross_encoders import (
    PAIRS,
    assert_scores_agree,
    cross_encoder,
    exported_scores,
    reference_scores,
)

from fastembed_rt import Reranker, manifest
from fastembed_rt.errors import InvalidInputError
from fastembed_rt_export.errors import CheckpointError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tokenizer import set_as_said

pytestmark = pytest.mark.usefixtures("short_gate")

THINKING: dict[str, Any] = {"chat_template": {"add_generation_prompt": True, "enable_thinking": False}}
LAYOUTS: dict[str, dict[str, Any]] = {
    "qwen": {"template": QWEN},
    "turns": {"template": TURNS, "processing": THINKING, "tokenizer": {"bos_token": "<|im_start|>"}},
    "behind": {"template": BEHIND},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_prompts_are_the_templates_system_message(tmp_path: Path, layout: str) -> None:
    prompts = {"web": "Find web pages", "empty": ""}
    source = save_causal_reranker(tmp_path / "source", prompts=prompts, **LAYOUTS[layout])
    calls: list[dict[str, Any]] = [{"prompt": None}, {"prompt": ""}, {"prompt": PROMPT}, {"prompt_name": "web"}]
    for options in calls:
        assert_agree(source, tmp_path / "made", **options)
    plain, named = (exported_scores(source, tmp_path / "made", prompt=text) for text in ("", PROMPT))
    assert np.abs(plain - named).max() > 1e-3


def test_the_default_prompt_counts(tmp_path: Path) -> None:
    source = save_causal_reranker(tmp_path / "source", prompts={"web": "Find web pages"}, default_prompt_name="web")
    assert_agree(source, tmp_path / "made")
    assert_agree(source, tmp_path / "made", prompt="")


# Every two of layout, room and side, each layout with both rooms and both sides.
@pytest.mark.parametrize(
    ("layout", "room", "side"),
    [
        ("qwen", 3, "right"),
        ("qwen", 40, "left"),
        ("turns", 3, "left"),
        ("turns", 40, "right"),
        ("behind", 3, "right"),
        ("behind", 40, "left"),
    ],
)
def test_a_cut_takes_the_end_of_the_text_and_not_of_the_template(
    tmp_path: Path, layout: str, room: int, side: str
) -> None:
    """The gate compares token ids of every pair, with each prompt and without."""
    source = save_causal_reranker(tmp_path / "source", prompts={"web": PROMPT}, **LAYOUTS[layout])
    max_length = cross_encoder(source).preprocess([("", "")])["input_ids"].shape[1] + room
    change_json(source / "tokenizer_config.json", model_max_length=max_length, truncation_side=side)
    made = export(str(source), ExportOptions(output=tmp_path / "made")).manifest
    assert (made.max_length, made.truncation_side) == (max_length, side)
    assert made.parity["status"] == "passed"
    calls: list[dict[str, Any]] = [{}, {"prompt_name": "web"}]
    for given in calls:
        wanted = reference_scores(source, MORE, activation_fn=LOGITS, **given)
        found = exported_scores(source, tmp_path / "made", MORE, activation="identity", **given)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-5)


def test_a_limit_without_room_for_a_pair_is_refused(tmp_path: Path) -> None:
    """Of which the reference makes one score for all pairs."""
    source = save_causal_reranker(tmp_path / "source", max_length=90)
    assert np.ptp(reference_scores(source, MORE)) < 1e-5
    with pytest.raises(InvalidInputError, match=r"max_length 90 leaves no room beside \d+ tokens of the chat template"):
        export(str(source), ExportOptions(output=tmp_path / "made"))


def test_the_end_is_cut_where_that_is_asked_for(tmp_path: Path) -> None:
    cut = {"chat_template": {"restore_suffix": False}}
    source = save_causal_reranker(tmp_path / "source", processing=cut)
    assert_scores_agree(source, tmp_path / "made", MORE)
    other = save_causal_reranker(tmp_path / "other")
    assert np.abs(reference_scores(source, MORE) - reference_scores(other, MORE)).max() > 1e-3


@pytest.mark.parametrize(
    ("processing", "limit"),
    [
        ({"text": {"max_length": 170}, "common": {"max_length": 180}}, 170),
        ({"common": {"max_length": 180}}, 180),
        ({"text": {"max_length": 170}, "chat_template": {"max_length": 190, "truncation": True}}, 190),
    ],
)
def test_limits_of_a_call_count_as_in_the_reference(tmp_path: Path, processing: dict[str, Any], limit: int) -> None:
    source = save_causal_reranker(tmp_path / "source", processing=processing)
    assert_scores_agree(source, tmp_path / "made", MORE)
    assert manifest.read(tmp_path / "made").max_length == limit
    assert cross_encoder(source).preprocess([("a", "no " * 400)])["input_ids"].shape[1] == limit


def test_a_template_without_a_place_for_prompts_takes_none(tmp_path: Path) -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + BEHIND
    source = save_causal_reranker(tmp_path / "source", template=refusing)
    assert_agree(source, tmp_path / "made")
    with Reranker(tmp_path / "made") as model, pytest.raises(InvalidInputError, match="takes no system message"):
        model.predict(PAIRS, prompt=PROMPT)
    with_prompts = save_causal_reranker(tmp_path / "prompts", template=refusing, prompts={"web": PROMPT})
    with pytest.raises(UnsupportedCheckpointError, match="has prompts, and its chat template takes no system message"):
        exported(with_prompts, tmp_path / "none")


def test_a_prompt_without_a_place_changes_nothing(tmp_path: Path) -> None:
    source = save_causal_reranker(
        tmp_path / "source", template="{{ messages[-2].content }}?{{ messages[-1].content }}:"
    )
    assert_agree(source, tmp_path / "made", prompt=PROMPT)


@pytest.mark.parametrize("place", ["tokenizer_config.json", "list", "additional"])
def test_a_template_is_found_where_transformers_finds_it(tmp_path: Path, place: str) -> None:
    source = save_causal_reranker(tmp_path / "source")
    (source / "chat_template.jinja").unlink()
    if place == "additional":
        (source / "additional_chat_templates").mkdir()
        for name in ("default", "other"):
            (source / "additional_chat_templates" / f"{name}.jinja").write_text(BEHIND + name, encoding="utf-8")
    else:
        several = [{"name": "other", "template": QWEN}, {"name": "default", "template": BEHIND}]
        change_json(source / "tokenizer_config.json", chat_template=several if place == "list" else BEHIND)
    assert_agree(source, tmp_path / "made")


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "writes no query and no document"),
        ("{{ messages[-2].content }}: yes or no?", "writes no document"),
        ("{{ messages[-2].content | upper }} {{ messages[-1].content }}", "does more with a text"),
        ("{{ messages[-2].content }} {{ messages[-1].content.split('</think>')[-1] }}", "does more with a text"),
        ("{{ messages[-2].content[:500] }} {{ messages[-1].content }}", "does more with a text"),
        ("{{ ('Q: ' + messages[-2].content) | trim }} {{ messages[-1].content }}", "does more with a text"),
        ("{{ messages[-2].content | tojson }} {{ messages[-1].content }}", "does more with a text"),
        ("{{ strftime_now('%Y') }} {{ messages[-2].content }} {{ messages[-1].content }}", "writes today's date"),
        ("{{ raise_exception('no') }}", r"gives no text of a query and a document \(.*: no\)"),
        ("{% if %}", "not a template that Jinja reads"),
    ],
)
def test_templates_that_are_more_than_a_frame_are_refused_with_what_to_do(
    tmp_path: Path, template: str, words: str
) -> None:
    source = save_causal_reranker(tmp_path / "source")
    (source / "chat_template.jinja").write_text(template, encoding="utf-8")
    with pytest.raises((CheckpointError, UnsupportedCheckpointError), match=words):
        exported(source, tmp_path / "made")


@pytest.mark.parametrize("key", ["continue_final_message", "sanitize_control_tokens", "tools"])
def test_arguments_of_chats_that_are_not_built_are_refused(tmp_path: Path, key: str) -> None:
    source = save_causal_reranker(tmp_path / "source")
    change_json(source / "sentence_bert_config.json", processing_kwargs={"chat_template": {key: [True]}})
    with pytest.raises(UnsupportedCheckpointError, match=f"has {key}"):
        exported(source, tmp_path / "made")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"bos_token": {"__type": "AddedToken", "content": "<think>", "lstrip": False}, "unk_token": None},
        {"tokenizer_class": "Qwen2Tokenizer"},
        {"tokenizer_class": "Qwen2Tokenizer", "eos_token": None, "pad_token": "</think>"},
        {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<|im_start|>"},
        {"tokenizer_class": "LlamaTokenizer"},
        {"tokenizer_class": "GemmaTokenizer"},
        {"extra_special_tokens": ["<think>"], "image_token": "<think>"},
    ],
)
def test_special_tokens_have_the_names_that_templates_know_them_by(tmp_path: Path, settings: dict[str, Any]) -> None:
    """What transformers gives a template: what the settings say, then what the tokenizer's class takes for granted."""
    source = save_causal(tmp_path / "source")
    change_json(source / "tokenizer_config.json", "pad_token", "eos_token", **settings)
    said = json.loads((source / "tokenizer_config.json").read_text(encoding="utf-8"))
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    text = (source / "tokenizer.json").read_text(encoding="utf-8")
    found = set_as_said.named(text, said, {}, config, source)
    assert found == transformers.AutoTokenizer.from_pretrained(source).special_tokens_map


def test_a_template_that_is_asked_for_and_is_not_there_is_missed(tmp_path: Path) -> None:
    source = save_causal_reranker(tmp_path / "source")
    (source / "chat_template.jinja").unlink()
    with pytest.raises(CheckpointError, match=r"has no chat template, which its modality_config asks for; a template"):
        exported(source, tmp_path / "made")


# --- without a template ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [None, "the new red city "])
def test_without_a_template_a_pair_is_two_texts(tmp_path: Path, prompt: str | None) -> None:
    source = save_causal_reranker(tmp_path / "source", template=None, max_length=40)
    about = exported(source, tmp_path / "made").reranking
    assert about is not None
    assert about.chat is None
    pairs = [pair for pair in MORE if any(pair)]  # of no token at all the reference has no logits
    wanted = reference_scores(source, pairs, activation_fn=LOGITS, prompt=prompt)
    found = exported_scores(source, tmp_path / "made", pairs, activation="identity", prompt=prompt)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-5)


def test_a_template_beside_a_reranker_of_plain_texts_is_not_taken(tmp_path: Path) -> None:
    source = save_causal_reranker(tmp_path / "source", template=None)
    (source / "chat_template.jinja").write_text(QWEN, encoding="utf-8")
    pairs = [pair for pair in MORE if any(pair)]
    assert_scores_agree(source, tmp_path / "made", pairs)
