"""Rerankers of causal language models: exports give the scores of sentence-transformers' LogitScore, or are refused."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
import transformers
from causal_rerankers import (
    LOGITS,
    MORE,
    PROMPT,
    QWEN,
    TURNS,
    assert_agree,
    exported,
    save_causal,
    save_causal_reranker,
    token_id,
)
from checkpoints import change_json, change_tensors, write_json
from cross_encoders import (
    PAIRS,
    assert_scores_agree,
    cross_encoder,
    exported_scores,
    reference_scores,
    save_classifier,
)
from safetensors.numpy import load_file

from fastembed_rt import Reranker, cli, manifest
from fastembed_rt_export import tasks
from fastembed_rt_export.checkpoint.read import Overrides
from fastembed_rt_export.errors import CheckpointError, MissingDependencyError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tasks import reranking_parity
from fastembed_rt_export.tasks.logit_score import MODELS

pytestmark = pytest.mark.usefixtures("short_gate")

# For a vocabulary of these words and letters.
PLAIN_WORDS = (
    "[CLS] {{ messages | selectattr('role', 'eq', 'system') | map(attribute='content') | first | default('the new') }} "
    "cat {{ messages[-2].content }} dog {{ messages[-1].content }} red house [SEP]"
)


def save_classifier_with_template(directory: Path, model_type: str) -> Path:
    """A cross-encoder with a classification head, saved by sentence-transformers with its chat template."""
    plain = save_classifier(directory.with_name("plain"), model_type, max_position_embeddings=200)
    (plain / "chat_template.jinja").write_text(PLAIN_WORDS, encoding="utf-8")
    change_json(plain / "tokenizer_config.json", model_max_length=60)
    cross_encoder(plain).save_pretrained(str(directory), create_model_card=False)
    return directory


# --- heads -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("model_type", sorted(MODELS))
def test_every_architecture_scores_as_its_cross_encoder(tmp_path: Path, model_type: str, tied: bool) -> None:
    wide: dict[str, Any] = (
        {"sliding_window": 200} if model_type == "mistral" else {}
    )  # else its last token sees the template alone
    source = save_causal_reranker(tmp_path / "source", model_type, tie_word_embeddings=tied, **wide)
    assert ("lm_head.weight" in load_file(source / "model.safetensors")) is not tied
    exported(source, tmp_path / "made")
    logits = reference_scores(source, MORE, activation_fn=LOGITS)
    assert np.ptp(logits) > 0.1
    for target in ("cpu", "portable"):
        with Reranker(tmp_path / "made", target=target) as model:
            assert model.labels == ("LABEL_0",)
            np.testing.assert_allclose(model.predict(MORE, activation="identity"), logits, rtol=1e-5, atol=2e-5)


def test_one_word_has_its_logit_alone(tmp_path: Path) -> None:
    source = save_causal_reranker(tmp_path / "source", words=("1", None), activation=torch.nn.Identity())
    assert_agree(source, tmp_path / "made")
    made = manifest.read(tmp_path / "made")
    assert made.modules == ("Transformer(qwen3)", f"LogitScore(token {token_id(source, '1')}, identity)")


def test_only_the_words_rows_are_in_the_graph(tmp_path: Path) -> None:
    sizes = []
    for tied in (True, False):
        source = save_causal_reranker(tmp_path / f"source-{tied}", tie_word_embeddings=tied)
        described = exported(source, tmp_path / f"made-{tied}")
        sizes.append([sum(record.size for record in variant.files) for variant in described.variants])
    assert np.abs(np.diff(sizes, axis=0)).max() < 200  # bytes; a head has 40,320


def test_rows_of_other_words_are_not_read(tmp_path: Path) -> None:
    source = save_causal_reranker(tmp_path / "source", tie_word_embeddings=False)
    before = reference_scores(source, MORE)
    (said,) = source.glob("*LogitScore/config.json")
    words = list(json.loads(said.read_text(encoding="utf-8")).values())[:2]

    def change(tensors: dict[str, Any]) -> None:
        head = tensors["lm_head.weight"]
        head[np.setdiff1d(np.arange(len(head)), words)] = np.nan

    change_tensors(source, change)
    exported(source, tmp_path / "made")
    with Reranker(tmp_path / "made") as model:
        np.testing.assert_allclose(model.predict(MORE), before, atol=2e-5)


def test_a_head_that_is_stored_beside_its_table_counts(tmp_path: Path) -> None:
    """As in transformers, which ties nothing that is stored twice with different values."""
    source = save_causal_reranker(tmp_path / "source")
    change_tensors(
        source,
        lambda tensors: tensors.update({"lm_head.weight": tensors["model.embed_tokens.weight"][::-1].copy()}),
    )
    assert_agree(source, tmp_path / "made")


def test_a_head_that_is_nowhere_is_missing(tmp_path: Path) -> None:
    source = save_causal_reranker(tmp_path / "source", tie_word_embeddings=False)
    change_tensors(source, lambda tensors: tensors.pop("lm_head.weight"))
    with pytest.raises(CheckpointError, match=r"missing: lm_head\.weight"):
        exported(source, tmp_path / "made")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"true_token_id": 420}, CheckpointError, "names token 420, and the model has 420"),
        ({"false_token_id": -1}, CheckpointError, "names token -1"),
        ({"true_token_id": None}, CheckpointError, "true_token_id None .* expected ids of tokens"),
        ({"true_token_id": True}, CheckpointError, "true_token_id True"),
        ({"bias": 1.0}, CheckpointError, "has 'bias', which sentence-transformers refuses as well"),
        ({"module_input_name": "scores"}, UnsupportedCheckpointError, "module_input_name 'scores'; built is"),
    ],
)
def test_words_that_are_none_are_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    source = save_causal_reranker(tmp_path / "source")
    change_json(source / "1_LogitScore" / "config.json", **changes)
    with pytest.raises(error, match=words):
        exported(source, tmp_path / "made")


@pytest.mark.parametrize("model_type", ["gemma2", "gemma3_text"])
def test_logits_within_a_cap_are_those_of_the_cross_encoder(tmp_path: Path, model_type: str) -> None:
    source = save_causal_reranker(tmp_path / "source", model_type, final_logit_softcapping=0.5)
    assert_agree(source, tmp_path / "made")
    with Reranker(tmp_path / "made") as model:
        capped = model.predict(MORE, activation="identity")
    change_json(source / "config.json", final_logit_softcapping=None)
    assert_agree(source, tmp_path / "free")
    with Reranker(tmp_path / "free") as model:
        assert np.abs(model.predict(MORE, activation="identity") - capped).max() > 0.01
    change_json(source / "config.json", final_logit_softcapping=0)
    with pytest.raises(CheckpointError, match=r"final_logit_softcapping 0\.0, expected a number above 0"):
        exported(source, tmp_path / "zero")


# --- as published, without modules.json ------------------------------------------------------------------------------


@pytest.mark.parametrize("template", [QWEN, TURNS], ids=["flat", "structured"])
def test_a_published_directory_scores_yes_less_no(tmp_path: Path, template: str) -> None:
    source = save_causal(tmp_path / "source", template=template)
    change_json(source / "tokenizer_config.json", model_max_length=160)
    made = export(str(source), ExportOptions(output=tmp_path / "made", task="reranking")).manifest
    assert made.parity["status"] == "passed"
    assert any("the logit of 'yes' less that of 'no'" in note for note in made.notes)
    assert_agree(source, tmp_path / "made", prompt=PROMPT)
    assert_agree(source, tmp_path / "made")


def test_templates_by_name_are_guessed_to_take_lists(tmp_path: Path) -> None:
    """Whatever stands in them, as sentence-transformers guesses: of one without a name it looks."""
    text = "{{ m.content if m.content is string else m.content[0]['te' ~ 'xt'] ~ '!' }} "
    template = "{% for m in messages %}" + text + "{% endfor %}"
    source = save_causal(tmp_path / "source", template=None)
    ways: dict[str, Any] = {"one": template, "named": [{"name": "default", "template": template}]}
    for name, said in ways.items():
        change_json(source / "tokenizer_config.json", model_max_length=160, chat_template=said)
        exported(source, tmp_path / name, task="reranking")
        assert_scores_agree(source, tmp_path / name, MORE)
    about = manifest.read(tmp_path / "named").reranking
    assert about is not None
    assert about.chat is not None
    assert any("!" in part.text for part in about.chat.plain)


def test_a_template_that_is_no_text_is_refused(tmp_path: Path) -> None:
    source = save_causal(tmp_path / "source")
    (source / "chat_template.jinja").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError, match="is not a text file"):
        exported(source, tmp_path / "made", task="reranking")


def test_a_published_directory_is_a_reranker_when_it_is_said(tmp_path: Path) -> None:
    source = save_causal(tmp_path / "source")
    assert tasks.detect(source) == "embedding"
    with pytest.raises(UnsupportedCheckpointError, match="if it is a reranker, export it with --task reranking"):
        exported(source, tmp_path / "made")


def test_a_published_directory_of_which_nothing_says_how_pairs_look_is_refused(tmp_path: Path) -> None:
    source = save_causal(tmp_path / "source", template=None)
    with pytest.raises(
        UnsupportedCheckpointError, match=r"nothing says what its pairs look like: .*chat_template\.jinja"
    ):
        exported(source, tmp_path / "made", task="reranking")


def test_a_published_template_of_a_chat_is_refused(tmp_path: Path) -> None:
    """Qwen's own, as most causal models are published: sentence-transformers refuses pairs as well."""
    turns = "{% for m in messages %}{% if m.role in ('user', 'assistant') %}{{ m.content }}{% endif %}{% endfor %}"
    source = save_causal(tmp_path / "source", template=turns)
    with pytest.raises(ValueError, match="cannot carry a 'query'/'document' pair"):
        reference_scores(source)
    with pytest.raises(
        UnsupportedCheckpointError, match=r"writes no query and no document.*roles 'query' and 'document'"
    ):
        exported(source, tmp_path / "made", task="reranking")


def test_a_vocabulary_without_the_words_is_refused(tmp_path: Path) -> None:
    source = save_causal(tmp_path / "source")
    body = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    body["model"]["merges"] = [merge for merge in body["model"]["merges"] if "".join(merge) != "yes"]
    body["model"]["vocab"]["unused"] = body["model"]["vocab"].pop("yes")
    write_json(source / "tokenizer.json", body)
    with pytest.raises((CheckpointError, UnsupportedCheckpointError), match="its vocabulary has no 'yes'"):
        exported(source, tmp_path / "made", task="reranking")


def test_a_model_without_a_head_over_words_is_refused(tmp_path: Path) -> None:
    source = save_causal(tmp_path / "source")
    change_json(source / "config.json", model_type="bert", architectures=["BertForCausalLM"])
    with pytest.raises((CheckpointError, UnsupportedCheckpointError), match="model_type 'bert' has no head over"):
        exported(source, tmp_path / "made", task="reranking")


# --- chains ----------------------------------------------------------------------------------------------------------


def test_a_logit_score_behind_anything_else_is_refused(tmp_path: Path) -> None:
    source = save_causal_reranker(tmp_path / "source")
    modules = [
        {"idx": k, "name": str(k), "path": path, "type": kind}
        for k, (path, kind) in enumerate(
            [
                ("", "sentence_transformers.base.modules.transformer.Transformer"),
                ("1_LogitScore", "sentence_transformers.cross_encoder.modules.logit_score.LogitScore"),
                ("2_Dense", "sentence_transformers.base.modules.dense.Dense"),
            ]
        )
    ]
    write_json(source / "modules.json", modules)
    with pytest.raises(UnsupportedCheckpointError, match=r"has Transformer, LogitScore, Dense; with LogitScore"):
        exported(source, tmp_path / "made")


def test_another_output_of_the_transformer_is_refused(tmp_path: Path) -> None:
    source = save_causal_reranker(tmp_path / "source")
    change_json(source / "sentence_bert_config.json", transformer_task="sequence-classification")
    with pytest.raises(UnsupportedCheckpointError, match="built behind 'text-generation' only"):
        exported(source, tmp_path / "made")


def test_limits_and_prompts_can_be_said_against_the_checkpoint(tmp_path: Path) -> None:
    source = save_causal_reranker(tmp_path / "source")
    said = Overrides(max_length=150, prompts={"new": PROMPT}, default_prompt_name="new")
    made = export(str(source), ExportOptions(output=tmp_path / "made", overrides=said))
    assert made.manifest.parity["status"] == "passed"
    reference = cross_encoder(source)
    reference.max_seq_length = 150
    wanted = reference.predict([list(pair) for pair in MORE], prompt=PROMPT, batch_size=1)
    np.testing.assert_allclose(exported_scores(source, tmp_path / "made", MORE), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("template", [QWEN, None])
def test_the_layout_of_other_tools_is_refused(tmp_path: Path, template: str | None) -> None:
    source = save_causal_reranker(tmp_path / "source", template=template)
    with pytest.raises(UnsupportedCheckpointError, match=r"has no layout hub: .*(chat template|whole vocabulary)"):
        exported(source, tmp_path / "made", layout="hub")


def test_the_template_lies_beside_the_graph_for_other_tools(tmp_path: Path) -> None:
    """With which plain onnxruntime and transformers get the same logits."""
    source = save_causal_reranker(tmp_path / "source")
    exported(source, tmp_path / "made")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "made")
    session = onnxruntime.InferenceSession(str(tmp_path / "made" / "model.onnx"))
    for query, document in (pair for pair in PAIRS if len(pair[0]) + len(pair[1]) < 40):
        messages = [{"role": "query", "content": query}, {"role": "document", "content": document}]
        feeds = tokenizer.apply_chat_template(messages, return_dict=True, return_tensors="np")
        ids = np.asarray(feeds["input_ids"], dtype=np.int64)
        (logits,) = session.run(["logits"], {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        wanted = reference_scores(source, [(query, document)], activation_fn=LOGITS)
        np.testing.assert_allclose(logits[0], wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("tied", "targets", "merged"),
    [
        (True, ["q_proj", "down_proj"], True),
        (False, ["q_proj", "lm_head"], True),
        (True, ["q_proj", "lm_head"], False),
        (True, ["embed_tokens", "v_proj"], False),
    ],
)
def test_adapters_are_merged_where_head_and_table_are_not_one(
    tmp_path: Path, tied: bool, targets: list[str], merged: bool
) -> None:
    peft = pytest.importorskip("peft")
    base = save_causal(tmp_path / "base", tie_word_embeddings=tied)
    change_json(base / "tokenizer_config.json", model_max_length=160)
    torch.manual_seed(1)
    plain = transformers.AutoModelForCausalLM.from_pretrained(base)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft's own, of tied weights
        model = peft.get_peft_model(plain, peft.LoraConfig(r=4, target_modules=targets, task_type="CAUSAL_LM"))
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.data.normal_(0, 0.3)
        model.save_pretrained(str(tmp_path / "adapter"))
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(base / file, tmp_path / "adapter" / file)
    if not merged:
        with pytest.raises(UnsupportedCheckpointError, match="one matrix for the word table and the head"):
            exported(tmp_path / "adapter", tmp_path / "made", task="reranking")
        return
    exported(tmp_path / "adapter", tmp_path / "made", task="reranking")
    shutil.copytree(base, tmp_path / "merged")
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    wanted = reference_scores(tmp_path / "merged", MORE, activation_fn=LOGITS)
    found = exported_scores(tmp_path / "adapter", tmp_path / "made", MORE, activation="identity")
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=2e-5)
    assert np.abs(wanted - reference_scores(base, MORE, activation_fn=LOGITS)).max() > 1e-2


@pytest.mark.parametrize("absent", ["sentence_transformers.nowhere", "sentence_transformers.nowhere.logit_score"])
def test_a_reference_that_is_too_old_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, absent: str) -> None:
    monkeypatch.setattr(reranking_parity, "LOGIT_SCORE", absent)
    source = save_causal_reranker(tmp_path / "source")
    with pytest.raises(MissingDependencyError, match=r"knows no chat templates.*pip install -U"):
        export(str(source), ExportOptions(output=tmp_path / "made"))


def test_the_command_line_shows_the_template_and_takes_an_instruction(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = save_causal_reranker(tmp_path / "source")
    exported(source, tmp_path / "made")
    assert cli.main(["info", str(tmp_path / "made")]) == 0
    shown = capsys.readouterr().out
    assert "Find passages that answer the query\\n<Query>: {query}\\n<Document>: {document}<|im_end|>" in shown
    assert "<Instruct>: {prompt}\\n<Query>: {query}" in shown
    texts = ["a dog runs", "the house is red"]
    (tmp_path / "texts.txt").write_text("\n".join(texts), encoding="utf-8")
    asked = ["rerank", str(tmp_path / "made"), "a dog", str(tmp_path / "texts.txt"), "--json", "-q"]
    assert cli.main([*asked, "--query-prompt", PROMPT]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = {row["text"]: row["score"] for row in rows}
    wanted = reference_scores(source, [("a dog", text) for text in texts], prompt=PROMPT)
    np.testing.assert_allclose([found[text] for text in texts], wanted, atol=1e-5)


# --- precisions ------------------------------------------------------------------------------------------------------


def test_narrow_precisions_pass_the_gate(tmp_path: Path) -> None:
    source = save_causal_reranker(tmp_path / "source", prompts={"web": PROMPT})
    options = ExportOptions(output=tmp_path / "made", precisions=("int8", "bf16", "fp32"), min_cosine=0.9)
    made = export(str(source), options)
    assert not made.refused
    logits = reference_scores(source, MORE, activation_fn=LOGITS)
    for precision, least in (("int8", 0.9), ("bf16", 0.99)):
        with Reranker(tmp_path / "made", precision=precision) as model:
            found = model.predict(MORE, activation="identity")
        assert np.corrcoef(found, logits)[0, 1] > least


# --- classification heads behind a chat template ---------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [None, PROMPT])
@pytest.mark.parametrize("model_type", ["qwen3", "bert"])
def test_a_classifier_may_read_pairs_through_a_template(tmp_path: Path, model_type: str, prompt: str | None) -> None:
    """As conversions of such rerankers do: the head's rows are stored as a classifier's, the template is the same."""
    source = save_classifier_with_template(tmp_path / "source", model_type)
    made = export(str(source), ExportOptions(output=tmp_path / "made")).manifest
    assert made.parity["status"] == "passed"
    assert made.reranking is not None
    assert made.reranking.chat is not None
    assert_scores_agree(source, tmp_path / "made", MORE, prompt=prompt)


def test_a_published_classifier_with_a_template_goes_through_it(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "source", "qwen3", max_position_embeddings=200)
    (source / "chat_template.jinja").write_text(PLAIN_WORDS, encoding="utf-8")
    assert_scores_agree(source, tmp_path / "made", MORE)
    (source / "chat_template.jinja").write_text("the old {{ messages[-2].content }}", encoding="utf-8")
    with pytest.raises(UnsupportedCheckpointError, match=r"no document.* or remove the template if texts are meant"):
        exported(source, tmp_path / "none")


def test_a_template_that_ends_with_the_pad_token_is_refused_where_all_tokens_see_it(
    tmp_path: Path,
) -> None:
    source = save_classifier_with_template(tmp_path / "source", "qwen3")
    (source / "chat_template.jinja").write_text(PLAIN_WORDS + "[PAD]", encoding="utf-8")
    assert_scores_agree(source, tmp_path / "causal")
    change_json(source / "config.json", is_causal=False)
    with pytest.raises(UnsupportedCheckpointError, match="ends pairs with token 0, which config"):
        exported(source, tmp_path / "made")
