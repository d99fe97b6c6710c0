"""The parity gate sees what users call: a checkpoint that was read wrong does not pass, in any call, at any limit."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tqdm
from checkpoints import PROMPTS, change_json, save_sentence_transformers, save_transformers
from cross_encoders import save_cross_encoder
from multi_vectors import save_multi_vector
from routed import dense, normalize, router, save, static, transformer
from sparse_encoders import save_splade
from tokenizers import Tokenizer

from fastembed_rt import EmbeddingModel, cli, manifest
from fastembed_rt_export import tasks
from fastembed_rt_export.checkpoint.read import Checkpoint, Overrides
from fastembed_rt_export.errors import ParityError
from fastembed_rt_export.pipeline import ExportOptions, export

DIFFERENTLY = "tokenized differently: "
LIMIT = 30


def read_wrong(monkeypatch: pytest.MonkeyPatch, change: Callable[[Checkpoint], Checkpoint]) -> None:
    """From here on checkpoints are read, and then changed."""
    true = tasks.load
    monkeypatch.setattr(tasks, "load", lambda *args, **options: change(true(*args, **options)))


def refusal(checkpoint: Path, output: Path, **options: Any) -> str:
    """What the gate says of an export, which it refuses."""
    with pytest.raises(ParityError) as caught:
        export(str(checkpoint), ExportOptions(output=output, **options))
    assert not output.exists()
    return str(caught.value)


def overlooked(checkpoint: Path, output: Path, file: str, **settings: Any) -> str:
    """What the gate says where settings beside a checkpoint were not seen when it was read and exported."""
    read = tasks.load(checkpoint, "checkpoint")
    export(str(checkpoint), ExportOptions(output=output, verify=False))
    assert tasks.verify(output, read)["status"] == "passed"
    change_json(checkpoint / file, **settings)
    with pytest.raises(ParityError) as caught:
        tasks.verify(output, read)
    return str(caught.value)


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    return save_sentence_transformers(tmp_path / "checkpoint", prompts=PROMPTS, max_seq_length=LIMIT)


# --- embedding -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [LIMIT - 1, LIMIT + 1, LIMIT + 10])
@pytest.mark.usefixtures("short_gate")
def test_a_limit_that_was_read_wrong_does_not_pass(
    embedding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    read_wrong(monkeypatch, lambda one: replace(one, max_length=wrong))
    message = refusal(embedding, tmp_path / "out")
    assert message.startswith(DIFFERENTLY)
    assert (f": {wrong} against " if wrong < LIMIT else f" against {LIMIT} tokens, ") in message


@pytest.mark.usefixtures("short_gate")
def test_a_limit_of_the_tokenizer_that_was_overlooked_does_not_pass(embedding: Path, tmp_path: Path) -> None:
    limit = {"processor_kwargs": {"model_max_length": 12}}
    message = overlooked(embedding, tmp_path / "out", "sentence_bert_config.json", **limit)
    assert message.startswith(DIFFERENTLY)
    assert " against 12 tokens" in message


@pytest.mark.parametrize(("key", "call"), [("query_length", "encode_query"), ("document_length", "encode_document")])
@pytest.mark.usefixtures("short_gate")
def test_a_limit_of_one_call_that_was_overlooked_does_not_pass(
    embedding: Path, tmp_path: Path, key: str, call: str
) -> None:
    message = overlooked(embedding, tmp_path / "out", "sentence_bert_config.json", **{key: 12})
    assert message.startswith(DIFFERENTLY)
    assert f"by {call}" in message
    assert " against 12 tokens" in message


@pytest.mark.usefixtures("short_gate")
def test_lower_casing_that_was_read_wrong_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = save_sentence_transformers(tmp_path / "checkpoint")
    change_json(checkpoint / "tokenizer.json", normalizer=None)
    read_wrong(monkeypatch, lambda one: replace(one, lower_case=True))
    message = refusal(checkpoint, tmp_path / "out")
    assert message.startswith(DIFFERENTLY)
    assert "against '[UNK]'" in message


@pytest.mark.parametrize(
    ("name", "said"), [("query", "by encode_query"), ("document", "by encode_document"), ("default", "'")]
)
@pytest.mark.usefixtures("short_gate")
def test_a_prompt_that_was_read_wrong_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    named, default = ("query", "query") if name == "default" else (name, None)
    prompts = {"query": "query: ", "document": "the new red "}
    checkpoint = save_sentence_transformers(tmp_path / "source", prompts=prompts, default_prompt_name=default)
    read_wrong(monkeypatch, lambda one: replace(one, prompts={**one.prompts, named: "a dog "}))
    message = refusal(checkpoint, tmp_path / "out")
    assert message.startswith(DIFFERENTLY)
    assert said in message


@pytest.mark.usefixtures("short_gate")
def test_the_side_on_which_texts_are_cut_is_the_references(embedding: Path, tmp_path: Path) -> None:
    message = overlooked(embedding, tmp_path / "right", "tokenizer_config.json", truncation_side="left")
    assert message.startswith(DIFFERENTLY)
    assert f": {LIMIT} against {LIMIT} tokens" in message
    assert export(str(embedding), ExportOptions(output=tmp_path / "left")).manifest.truncation_side == "left"


@pytest.mark.usefixtures("short_gate")
def test_the_users_limit_is_set_on_the_reference_too(embedding: Path, tmp_path: Path) -> None:
    options = ExportOptions(output=tmp_path / "out", overrides=Overrides(max_length=9))
    report = export(str(embedding), options).manifest.parity
    assert report["status"] == "passed"
    assert report["calls"]["encode"]["longest_tokenized"] == 9
    assert cli.main(["verify", str(tmp_path / "out"), "--against", str(embedding), "-q"]) == 0


@pytest.mark.usefixtures("short_gate")
def test_the_users_prompts_are_set_on_the_reference_too(embedding: Path, tmp_path: Path) -> None:
    said = Overrides(prompts={"query": "the cat ", "own": "a dog "}, default_prompt_name="own", normalize=False)
    report = export(str(embedding), ExportOptions(output=tmp_path / "out", overrides=said)).manifest.parity
    assert report["status"] == "passed"
    assert sorted(report["calls"]["encode"]["prompts"]) == ["own", "passage", "query"]


@pytest.mark.usefixtures("short_gate")
def test_a_fact_that_was_read_wrong_does_not_pass(
    embedding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_wrong(monkeypatch, lambda one: replace(one, similarity="dot"))
    assert "similarity 'dot', the checkpoint 'cosine'" in refusal(embedding, tmp_path / "out")


def test_the_report_says_which_calls_and_limits_were_compared(embedding: Path, tmp_path: Path) -> None:
    made = export(str(embedding), ExportOptions(output=tmp_path / "out")).manifest
    calls = made.parity["calls"]
    assert list(calls) == ["encode", "encode_query", "encode_document"]
    assert {call["longest_tokenized"] for call in calls.values()} == {LIMIT}
    assert calls["encode"]["longest_compared"] == LIMIT
    assert sorted(calls["encode"]["prompts"]) == ["passage", "query"]
    assert sum(call["compared"] for call in calls.values()) == made.parity["texts"]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    for name, call in calls.items():
        said = f"- {name}: {call['compared']} compared, tokens of {call['tokenized']}, up to {LIMIT} tokens"
        assert said in card


@pytest.mark.usefixtures("short_gate")
def test_texts_beyond_the_last_position_are_reported_and_not_compared(tmp_path: Path) -> None:
    # The reference takes 50 tokens for the limit and has positions for 48.
    made = export(
        str(save_transformers(tmp_path / "plain", "roberta")), ExportOptions(output=tmp_path / "out")
    ).manifest
    assert made.max_length == 48
    assert made.parity["calls"]["encode"]["reference_cuts_at"] == 50
    assert "cut here, at the model's last position, and at 50" in (tmp_path / "out" / "README.md").read_text()


# --- routes ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("short_gate")
def test_a_query_route_that_was_overlooked_does_not_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    route = router([static(tmp_path / "static")], transformer(tmp_path / "bert"), default_route="document")
    checkpoint = save(tmp_path / "checkpoint", route, normalize())
    read_wrong(monkeypatch, lambda one: replace(one, routes={}))
    message = refusal(checkpoint, tmp_path / "out")
    assert message.startswith(DIFFERENTLY)
    assert "by encode_query" in message


@pytest.mark.usefixtures("short_gate")
def test_a_route_of_the_same_tokens_that_was_overlooked_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    route = router([dense(seed=1)], [dense(seed=2)], default_route="document")
    checkpoint = save(tmp_path / "checkpoint", *transformer(tmp_path / "bert"), route)
    read_wrong(monkeypatch, lambda one: replace(one, routes={}))
    message = refusal(checkpoint, tmp_path / "out")
    assert "are out of bounds" in message
    assert "by encode_query" in message


@pytest.mark.parametrize("options", [{"default_route": "document"}, {"default_route": None, "allow_empty_key": False}])
def test_every_call_of_a_model_with_routes_is_compared(tmp_path: Path, options: dict[str, Any]) -> None:
    route = router([dense(seed=1)], [dense(seed=2)], **options)
    checkpoint = save(tmp_path / "checkpoint", *transformer(tmp_path / "bert"), route)
    report = export(str(checkpoint), ExportOptions(output=tmp_path / "out")).manifest.parity
    calls = report["calls"]
    assert calls["encode_query"]["compared"] > 100
    if options["default_route"]:
        assert calls["encode"]["compared"] > 100
        assert calls["encode_document"]["compared"] > 5
    else:  # the reference refuses a text without a role
        assert "no route" in calls["encode"]["not_compared"]
        assert calls["encode_document"]["compared"] > 20


# --- other tasks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [20, 45])
@pytest.mark.usefixtures("short_gate")
def test_a_rerankers_limit_that_was_read_wrong_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: int
) -> None:
    checkpoint = save_cross_encoder(tmp_path / "source")  # of 40 tokens
    read_wrong(monkeypatch, lambda one: replace(one, max_length=wrong))
    message = refusal(checkpoint, tmp_path / "out")
    assert message.startswith(DIFFERENTLY)
    assert " | " in message  # both texts


@pytest.mark.usefixtures("short_gate")
def test_a_rerankers_default_prompt_that_was_read_wrong_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_cross_encoder(tmp_path / "source", prompts=PROMPTS, default_prompt_name="query")
    read_wrong(monkeypatch, lambda one: replace(one, prompts={**PROMPTS, "query": "a dog "}))
    assert refusal(checkpoint, tmp_path / "out").startswith(DIFFERENTLY)


@pytest.mark.usefixtures("short_gate")
def test_a_reranker_is_spoken_of_in_pairs_and_logits(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = save_cross_encoder(tmp_path / "source", prompts={"query": "query: "}, default_prompt_name="query")
    options = ["--precision", "int8", "--min-cosine", "0.9"]
    assert cli.main(["export", str(checkpoint), "-o", str(tmp_path / "out"), *options]) == 0
    said = capsys.readouterr()
    assert cli.main(["verify", str(tmp_path / "out"), "--against", str(checkpoint)]) == 0
    again = capsys.readouterr()
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8").partition("## Load it")[0]
    for text in (said.out, again.out, card):
        assert "cosine" not in text
        assert " texts" not in text
        assert "pairs against sentence-transformers" in text
        assert "correlation of logits" in text
    assert "fidelity to fp32 on" in said.err
    assert "cosine" not in said.err
    assert "1 label, activation sigmoid, pairs of 40 tokens at most" in said.out
    assert "prompts: query 'query: '; default: query, also where none is named" in said.out + again.out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"max_length": 20}, ": 20 against "),
        ({"prompts": {"query": "a dog ", "document": "the "}}, "by encode_query"),
        ({"prompts": {"query": "query: ", "document": "a dog "}}, "by encode_document"),
    ],
)
@pytest.mark.usefixtures("short_gate")
def test_a_sparse_encoder_that_was_read_wrong_does_not_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    checkpoint = save_splade(tmp_path / "source", prompts={"query": "query: ", "document": "the "})
    read_wrong(monkeypatch, lambda one: replace(one, **changes))
    message = refusal(checkpoint, tmp_path / "out")
    assert message.startswith(DIFFERENTLY)
    assert said in message


@pytest.mark.usefixtures("short_gate")
def test_the_number_of_words_of_a_sparse_encoder_is_the_references(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_splade(tmp_path / "source", max_active_dims=7)
    read_wrong(monkeypatch, lambda one: replace(one, head=replace(one.head, max_active_dims=None)))  # type: ignore[type-var]
    assert "max_active_dims None, the checkpoint 7" in refusal(checkpoint, tmp_path / "out")


@pytest.mark.parametrize(("key", "call"), [("query_length", "encode_query"), ("document_length", "encode_document")])
@pytest.mark.usefixtures("short_gate")
def test_a_limit_of_token_vectors_that_was_overlooked_does_not_pass(tmp_path: Path, key: str, call: str) -> None:
    checkpoint = save_multi_vector(tmp_path / "source", query_length=20)
    message = overlooked(checkpoint, tmp_path / "out", "sentence_bert_config.json", **{key: 12})
    assert message.startswith(DIFFERENTLY)
    assert f"by {call}" in message
    assert " against 12 tokens" in message


# --- texts at limits -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [3, 4, 30, 513, 8192])
def test_texts_at_a_limit_have_exactly_that_many_tokens(tmp_path: Path, limit: int) -> None:
    from fastembed_rt_export.gate.long_texts import at_limit

    tokenizer = Tokenizer.from_file(str(save_transformers(tmp_path / "plain") / "tokenizer.json"))

    def count(text: str) -> int:
        return len(tokenizer.encode(text).ids)

    texts = at_limit(limit, count)
    assert (count(texts.exact), count(texts.one_more), count(texts.far_more)) == (limit, limit + 1, 2 * limit)


def encoder(layers: int, width: int, **more: Any) -> Any:
    """As much of a checkpoint as the cost of a text depends on."""
    weights = {f"layer.{k}": SimpleNamespace(shape=(width, 12 * width)) for k in range(layers)}
    table = {"words": SimpleNamespace(shape=(250_000, width))}
    config = {"hidden_size": width, "num_hidden_layers": layers, "vocab_size": 250_000}
    return SimpleNamespace(config=config, stored={**table, **weights}, is_static=False, **more)


def test_the_longest_text_is_bounded_by_what_it_costs() -> None:
    from fastembed_rt_export.gate.long_texts import longest_compared

    assert longest_compared(encoder(6, 384), 256) == 256
    assert longest_compared(encoder(12, 768), 8192) == 8192
    assert longest_compared(encoder(24, 1024), 8192) == 4096
    assert longest_compared(encoder(28, 1024), 32_768) == 4096
    assert longest_compared(encoder(32, 4096), 512) == 512
    assert 512 <= longest_compared(encoder(32, 4096), 32_768) <= 1024


@pytest.mark.usefixtures("short_gate")
def test_long_texts_beyond_the_cost_are_compared_by_their_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastembed_rt_export.gate import long_texts

    checkpoint = save_sentence_transformers(tmp_path / "source", max_position_embeddings=700, max_seq_length=700)
    monkeypatch.setattr(long_texts, "longest_compared", lambda *_: 600)
    made = export(str(checkpoint), ExportOptions(output=tmp_path / "out")).manifest
    call = made.parity["calls"]["encode"]
    assert (call["longest_tokenized"], call["beyond_budget"]) == (700, True)
    assert "which take the reference minutes, tokens alone" in (tmp_path / "out" / "README.md").read_text()
    read_wrong(monkeypatch, lambda one: replace(one, max_length=690))
    assert refusal(checkpoint, tmp_path / "wrong").startswith(DIFFERENTLY)


def test_the_tokens_that_are_compared_are_those_that_a_call_uses(embedding: Path, tmp_path: Path) -> None:
    from fastembed_rt_export.gate.parity import Case
    from fastembed_rt_export.gate.tokens import fed

    export(str(embedding), ExportOptions(output=tmp_path / "out", verify=False))
    assert manifest.read(tmp_path / "out").max_length == LIMIT
    with EmbeddingModel(tmp_path / "out") as model:
        before = model.encode_query("a cat")
        cases = [Case("long", "a " * 99, call="encode_query"), Case("short", "a cat", prompt_name="passage")]
        long, short = fed(model, cases)
        assert len(long.ids) == LIMIT
        assert model._tokenizer.tokens(short.ids) == ["[CLS]", "the", "new", "red", "a", "cat", "[SEP]"]
        assert model.stats.texts == 1  # nothing ran
        np.testing.assert_array_equal(model.encode_query("a cat"), before)


# --- progress --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save", [save_sentence_transformers, save_cross_encoder, save_splade, save_multi_vector])
@pytest.mark.usefixtures("short_gate")
def test_a_bar_shows_how_far_the_reference_is_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], save: Callable[..., Path]
) -> None:
    monkeypatch.setattr(tqdm, "tqdm", partial(tqdm.tqdm, mininterval=0))  # it shows ten steps a second otherwise
    checkpoint = save(tmp_path / "checkpoint")
    for show in (True, False):
        export(str(checkpoint), ExportOptions(output=tmp_path / f"out-{show}", show_progress=show))
        err = capsys.readouterr().err
        steps = {int(step) for step in re.findall(r"reference:\s+(\d+)%", err)}
        assert (len(steps) > 3 and {0, 100} <= steps) is show
        assert ("reference" in err) is show


@pytest.mark.usefixtures("short_gate")
def test_verify_shows_how_far_the_reference_is_on_a_terminal(
    embedding: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    export(str(embedding), ExportOptions(output=tmp_path / "out", verify=False))
    for watched in (True, False):
        monkeypatch.setattr("fastembed_rt.cli.verify.watched", lambda watched=watched: watched)
        assert cli.main(["verify", str(tmp_path / "out"), "--against", str(embedding)]) == 0
        assert ("reference: 100%" in capsys.readouterr().err) is watched
