"""Cross-encoders: exports give the scores of sentence-transformers' CrossEncoder, or are refused with a reason."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from checkpoints import (
    FP32_FILES,
    OWN_CODE,
    change_json,
    change_tensors,
    save_sentence_transformers,
    save_transformers,
    write_json,
)
from cross_encoders import (
    PAIRS,
    PROMPTS,
    assert_scores_agree,
    cross_encoder,
    exported_scores,
    reference_scores,
    save_classifier,
    save_cross_encoder,
)
from safetensors.numpy import load_file, save_file

from fastembed_rt import EmbeddingModel, Reranker, cli, manifest, native
from fastembed_rt.errors import InvalidInputError
from fastembed_rt_export import tasks
from fastembed_rt_export.checkpoint.read import Overrides
from fastembed_rt_export.errors import CheckpointError, ParityError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, check_again, export
from fastembed_rt_export.tasks.classification import CLASSIFIERS

pytestmark = pytest.mark.usefixtures("short_gate")

LOGITS = torch.nn.Identity()


# --- every architecture ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("model_type", sorted({*CLASSIFIERS} - {*OWN_CODE}))
def test_every_architecture_scores_as_its_cross_encoder(tmp_path: Path, model_type: str, labels: int) -> None:
    source = save_cross_encoder(tmp_path / "source", model_type, labels=labels)
    export(str(source), ExportOptions(output=tmp_path / "made", verify=False))
    logits, scores = reference_scores(source, activation_fn=LOGITS), reference_scores(source)
    assert np.ptp(logits) > 0.1, "pairs that score the same tell nothing"
    assert scores.shape == ((len(PAIRS),) if labels == 1 else (len(PAIRS), labels))
    for target in ("cpu", "portable"):
        with Reranker(tmp_path / "made", target=target) as model:
            found = model.predict(PAIRS, activation="identity")
            np.testing.assert_allclose(found, logits, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(model.predict(PAIRS), scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("model_type", "pooling"), [("eurobert", "bos"), ("eurobert", "mean"), ("ultrabert", "mean")])
def test_heads_over_other_tokens(tmp_path: Path, model_type: str, pooling: str) -> None:
    source = save_cross_encoder(tmp_path / "source", model_type, classifier_pooling=pooling)
    assert_scores_agree(source, tmp_path / "made")
    change_json(source / "config.json", classifier_pooling="max")
    with pytest.raises(UnsupportedCheckpointError, match="classifier_pooling 'max'; built are"):
        export(str(source), ExportOptions(output=tmp_path / "max", verify=False))


def test_gte_has_the_head_that_its_code_on_the_hub_has(tmp_path: Path) -> None:
    """gte-multilingual-reranker's layout: another model_type, and another name in front of the tensors."""
    source = save_cross_encoder(tmp_path / "source", "gte")
    wanted = reference_scores(source)
    tensors = load_file(source / "model.safetensors")
    renamed = {name.replace("gte.", "new.", 1): value for name, value in tensors.items()}
    assert "new.pooler.dense.weight" in renamed
    save_file(renamed, source / "model.safetensors", metadata={"format": "pt"})
    change_json(source / "config.json", model_type="new", architectures=["NewForSequenceClassification"])
    np.testing.assert_allclose(exported_scores(source, tmp_path / "made"), wanted, rtol=1e-5, atol=1e-5)


def test_a_chat_template_of_a_converted_reranker_is_refused_with_what_to_do(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "source", "qwen3")
    turns = "{% for m in messages %}{% if m.role == 'user' %}{{ m.content }}{% endif %}{% endfor %}"
    change_json(source / "tokenizer_config.json", chat_template=turns)
    with pytest.raises(UnsupportedCheckpointError, match="remove the template if texts are meant as they are"):
        export(str(source), ExportOptions(output=tmp_path / "made", verify=False))


def test_gte_saved_again_by_transformers_keeps_the_hubs_names(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "source", "gte")
    tensors = load_file(source / "model.safetensors")
    save_file({name.replace("gte.", "new.", 1): value for name, value in tensors.items()}, source / "model.safetensors")
    assert_scores_agree(source, tmp_path / "made")


def test_a_pooler_of_another_width_is_refused(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "source", "deberta-v2")
    change_json(source / "config.json", pooler_hidden_size=48)
    with pytest.raises(UnsupportedCheckpointError, match="pooler_hidden_size 48; built is hidden_size, 24"):
        export(str(source), ExportOptions(output=tmp_path / "made", verify=False))


@pytest.mark.parametrize(
    "changes",
    [
        {"classifier_pooling": "mean"},
        {"classifier_bias": True, "norm_bias": True, "classifier_activation": "relu"},
    ],
)
def test_the_head_of_modernbert_is_as_its_config_says(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert_scores_agree(save_cross_encoder(tmp_path / "source", "modernbert", **changes), tmp_path / "made")


def test_an_unknown_pooling_of_the_head_is_refused(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "source", "modernbert")
    change_json(source / "config.json", classifier_pooling="max")
    with pytest.raises(UnsupportedCheckpointError, match="classifier_pooling 'max'; built are 'cls' and 'mean'"):
        export(str(source), ExportOptions(output=tmp_path / "made"))


def test_a_plain_transformers_directory_is_taken(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "source", "roberta", max_position_embeddings=200)
    change_json(source / "tokenizer_config.json", model_max_length=60)
    assert_scores_agree(source, tmp_path / "made")


def test_the_portable_graph_runs_in_plain_onnxruntime(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "source")
    export(str(source), ExportOptions(output=tmp_path / "made", verify=False))
    session = onnxruntime.InferenceSession(str(tmp_path / "made" / "model.onnx"))
    tokenizer = cross_encoder(source).tokenizer
    feeds = tokenizer([left for left, _ in PAIRS], [right for _, right in PAIRS], padding=True, truncation=True)
    (logits,) = session.run(["logits"], {name: np.array(rows, dtype=np.int64) for name, rows in feeds.items()})
    wanted = reference_scores(source, activation_fn=LOGITS)
    np.testing.assert_allclose(logits[:, 0], wanted, rtol=1e-5, atol=1e-5)


# --- token types -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_type", ["bert", "electra", "albert"])
@pytest.mark.parametrize("types", [True, False])
def test_token_types_are_given_where_the_tokenizer_gives_them(tmp_path: Path, model_type: str, types: bool) -> None:
    source = save_cross_encoder(tmp_path / "source", model_type, types=types)
    assert_scores_agree(source, tmp_path / "made")
    inputs = [variant.inputs for variant in manifest.read(tmp_path / "made").variants]
    assert [("token_type_ids" in names) for names in inputs] == [types] * len(FP32_FILES)
    # The reference sees a difference, so the test above does.
    other = save_cross_encoder(tmp_path / "other", model_type, types=not types)
    assert np.abs(reference_scores(other) - reference_scores(source)).max() > 1e-3


@pytest.mark.parametrize(
    "settings",
    [
        {"tokenizer_class": "BertTokenizer"},
        {"tokenizer_class": "BertTokenizerFast"},
        {"tokenizer_class": "PreTrainedTokenizerFast"},
        {"tokenizer_class": "TokenizersBackend"},
        {"tokenizer_class": "ElectraTokenizer"},
        {"tokenizer_class": "DistilBertTokenizer"},
        {},
    ],
)
def test_without_input_names_the_tokenizers_class_decides(tmp_path: Path, settings: dict[str, str]) -> None:
    source = save_classifier(tmp_path / "source", "bert")
    change_json(source / "tokenizer_config.json", "model_input_names", "tokenizer_class", **settings)
    assert_scores_agree(source, tmp_path / "made")


def test_one_row_of_token_types_takes_none(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "source", "bert", types=False, type_vocab_size=1)
    assert_scores_agree(source, tmp_path / "made")


# --- lengths and sides -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("max_length", [6, 17, 48])
def test_long_pairs_lose_their_longer_text_first(tmp_path: Path, max_length: int, side: str) -> None:
    source = save_cross_encoder(tmp_path / "source", max_length=max_length)
    change_json(source / "tokenizer_config.json", truncation_side=side)
    words = "the a cat dog house river runs sleeps quickly under over tree red blue old new city".split()
    pairs = [(" ".join(words[:left]), " ".join(words[-right:])) for left in (1, 5, 17) for right in (1, 6, 17)]
    assert_scores_agree(source, tmp_path / "made", [*PAIRS, *pairs])
    assert manifest.read(tmp_path / "made").max_length == max_length


def test_padding_on_the_left_changes_no_score(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "source")
    change_json(source / "tokenizer_config.json", padding_side="left")
    assert_scores_agree(source, tmp_path / "made")


@pytest.mark.parametrize("prompt_name", [None, "query", "long"])
def test_prompts_stand_in_front_of_the_first_text(tmp_path: Path, prompt_name: str | None) -> None:
    source = save_cross_encoder(tmp_path / "source", prompts=PROMPTS, default_prompt_name="query")
    assert_scores_agree(source, tmp_path / "made", prompt_name=prompt_name)
    bare, named = (exported_scores(source, tmp_path / "made", prompt=text) for text in ("", PROMPTS["long"]))
    assert np.abs(bare - named).max() > 1e-3


def test_limits_and_prompts_can_be_said_against_the_checkpoint(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "source", prompts=PROMPTS)
    said = Overrides(max_length=20, prompts={"new": "old "}, default_prompt_name="new")
    made = export(str(source), ExportOptions(output=tmp_path / "made", overrides=said))
    assert made.manifest.parity["status"] == "passed"
    reference = cross_encoder(source)
    reference.max_seq_length = 20
    wanted = reference.predict([list(pair) for pair in PAIRS], prompt="old ", batch_size=1)
    np.testing.assert_allclose(exported_scores(source, tmp_path / "made"), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("said", "option"),
    [
        (Overrides(pooling=("mean",)), "--pooling"),
        (Overrides(normalize=True), "--normalize"),
        (Overrides(truncate_dim=8), "--truncate-dim"),
    ],
)
def test_options_of_vectors_are_refused(tmp_path: Path, said: Overrides, option: str) -> None:
    source = save_classifier(tmp_path / "source")
    with pytest.raises(InvalidInputError, match=f"{option} is not for reranking"):
        export(str(source), ExportOptions(output=tmp_path / "made", overrides=said))
    assert not (tmp_path / "made").exists()


# --- activations -----------------------------------------------------------------------------------------------------

LEGACY = "sbert_ce_default_activation_function"
SIGMOID, IDENTITY = "torch.nn.modules.activation.Sigmoid", "torch.nn.modules.linear.Identity"


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("activation", [torch.nn.Sigmoid(), torch.nn.Identity(), None])
def test_the_activation_that_was_saved_is_taken(tmp_path: Path, activation: Any, labels: int) -> None:
    assert_scores_agree(
        save_cross_encoder(tmp_path / "source", labels=labels, activation=activation), tmp_path / "made"
    )


@pytest.mark.parametrize(
    ("config", "beside", "saved"),
    [
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, {}, False),
        ({"sbert_ce_default_activation_function": IDENTITY}, {}, False),
        ({"sentence_transformers": {"version": "4.0"}, LEGACY: IDENTITY}, {}, False),
        ({"sentence_transformers": {"activation_fn": SIGMOID}, LEGACY: IDENTITY}, {}, False),
        ({"sentence_transformers": {"activation_fn": SIGMOID}}, {"activation_fn": IDENTITY}, True),
        ({"sentence_transformers": {"activation_fn": IDENTITY}}, {"activation_fn": "own.Module"}, True),
        ({}, {"activation_fn": "own.Module"}, True),
        # Without modules.json, sentence-transformers reads nothing of its own.
        ({}, {"activation_fn": IDENTITY, "prompts": {"query": "query: "}, "default_prompt_name": "query"}, False),
    ],
)
def test_the_newest_place_with_a_known_activation_is_read(
    tmp_path: Path, config: dict[str, Any], beside: dict[str, Any], saved: bool
) -> None:
    source = (save_cross_encoder if saved else save_classifier)(tmp_path / "source")
    change_json(source / "config.json", **config)
    if beside:
        write_json(source / "config_sentence_transformers.json", {"model_type": "CrossEncoder", **beside})
    assert_scores_agree(source, tmp_path / "made")
    noted = any("own.Module" in note for note in manifest.read(tmp_path / "made").notes)
    assert noted is ("own.Module" in beside.values())


def test_an_activation_that_is_not_built_is_named(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "source", activation=torch.nn.Tanh())
    with pytest.raises(UnsupportedCheckpointError, match=r"Tanh is not built; built are torch.nn's Identity, Sigmoid"):
        export(str(source), ExportOptions(output=tmp_path / "made"))


# --- what a directory is ---------------------------------------------------------------------------------------------


def test_labels_and_facts_are_in_the_manifest(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "source", labels=3)
    change_json(source / "config.json", id2label={"0": "contradiction", "2": "neutral", "1": "entailment"})
    made = export(str(source), ExportOptions(output=tmp_path / "made", verify=False)).manifest
    assert made.task == "reranking"
    assert made.dim == 3
    assert made.reranking is not None
    assert made.reranking.labels == ("contradiction", "entailment", "neutral")
    assert made.modules == ("Transformer(bert)", "Classification(3 labels, identity)")
    assert not made.notes
    assert tasks.detect(source) == "reranking"


def test_two_labels_where_the_config_says_nothing(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "source", labels=2)
    change_json(source / "config.json", "id2label", "label2id", "num_labels")
    assert_scores_agree(source, tmp_path / "made")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id2label": ["no", "yes"]}, "id2label"),
        ({"id2label": {"first": "no"}}, "id2label"),
        ({"id2label": None, "num_labels": "two"}, "num_labels 'two', expected a number of labels"),
        ({"architectures": ["BertModel"]}, "holds no classification head"),
        ({"architectures": None}, "holds no classification head"),
    ],
)
def test_a_config_that_names_no_scores_is_refused(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    source = save_classifier(tmp_path / "source")
    change_json(source / "config.json", **change)
    with pytest.raises(CheckpointError, match=words):
        export(str(source), ExportOptions(output=tmp_path / "made", task="reranking"))


def test_a_head_that_does_not_fit_is_named(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "source", labels=3)
    change_json(source / "config.json", id2label={"0": "one"}, label2id={"one": 0})
    with pytest.raises(CheckpointError, match=r"misshapen: classifier.weight is F32 \(3, 24\)"):
        export(str(source), ExportOptions(output=tmp_path / "made"))
    change_tensors(source, lambda tensors: tensors.pop("classifier.bias"))
    with pytest.raises(CheckpointError, match=r"missing: classifier.bias"):
        export(str(source), ExportOptions(output=tmp_path / "made"))


def test_an_encoder_without_a_known_head_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save_classifier(tmp_path / "source")
    monkeypatch.delitem(CLASSIFIERS, "bert")
    with pytest.raises(UnsupportedCheckpointError, match=r"model_type 'bert' has no classification head.*albert"):
        export(str(source), ExportOptions(output=tmp_path / "made"))


def test_more_modules_than_the_transformer_are_refused(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "source")
    modules = json.loads((source / "modules.json").read_text(encoding="utf-8"))
    kind = "sentence_transformers.base.modules.dense.Dense"
    write_json(source / "modules.json", [*modules, {"idx": 1, "name": "1", "path": "1_Dense", "type": kind}])
    with pytest.raises(UnsupportedCheckpointError, match=r"modules.json has Transformer, Dense; built are"):
        export(str(source), ExportOptions(output=tmp_path / "made"))


def test_tracing_a_reranker_is_refused(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "source")
    with pytest.raises(UnsupportedCheckpointError, match="leave --exporter out"):
        export(str(source), ExportOptions(output=tmp_path / "made", exporter="optimum"))


def test_an_embedding_model_stays_one(tmp_path: Path) -> None:
    for source in (save_sentence_transformers(tmp_path / "chain"), save_transformers(tmp_path / "plain")):
        assert tasks.detect(source) == "embedding"
        with pytest.raises((CheckpointError, UnsupportedCheckpointError), match=r"Transformer, Pooling|no classificat"):
            export(str(source), ExportOptions(output=tmp_path / "made", task="reranking"))


def test_a_classifier_can_be_exported_for_its_vectors(tmp_path: Path) -> None:
    source = save_classifier(tmp_path / "source", types=False)
    export(str(source), ExportOptions(output=tmp_path / "made", task="embedding"))
    with EmbeddingModel(tmp_path / "made") as model:
        assert model.encode("the cat").shape == (24,)


def test_each_class_refuses_the_other_task(tmp_path: Path) -> None:
    export(str(save_cross_encoder(tmp_path / "a")), ExportOptions(output=tmp_path / "reranker", verify=False))
    export(str(save_sentence_transformers(tmp_path / "b")), ExportOptions(output=tmp_path / "encoder", verify=False))
    with pytest.raises(InvalidInputError, match=r"model for reranking; open it with fastembed_rt.Reranker, not Embed"):
        EmbeddingModel(tmp_path / "reranker")
    with pytest.raises(InvalidInputError, match=r"model for embedding; open it with fastembed_rt.EmbeddingModel, not"):
        Reranker(tmp_path / "encoder")


# --- parity ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model_type", "labels"), [("bert", 1), ("distilbert", 3), ("modernbert", 1)])
def test_the_parity_gate_passes_and_says_on_what(tmp_path: Path, model_type: str, labels: int) -> None:
    source = save_cross_encoder(tmp_path / "source", model_type, labels=labels, prompts=PROMPTS)
    report = export(str(source), ExportOptions(output=tmp_path / "made")).manifest.parity
    assert report["status"] == "passed"
    assert report["prompts"] == ["long", "query"]
    assert report["pairs"] > 20
    assert "sentence-transformers" in report["reference"]
    for figures in report["variants"].values():
        assert figures["max_abs_diff"] <= 1e-5
        assert figures["correlation"] >= 0.99999


@pytest.mark.parametrize(
    "name", ["classifier.weight", "bert.pooler.dense.bias", "bert.encoder.layer.1.output.dense.bias"]
)
def test_weights_that_are_not_the_checkpoints_fail_the_gate(tmp_path: Path, name: str) -> None:
    source = save_cross_encoder(tmp_path / "source")
    options = ExportOptions(output=tmp_path / "made", verify=False)
    export(str(source), options)
    assert check_again(tmp_path / "made", str(source), options, print).parity["status"] == "passed"
    change_tensors(source, lambda tensors: tensors[name].reshape(-1)[:1].__iadd__(0.1))
    with pytest.raises(ParityError, match=r"logits of \d+ pairs .* are out of bounds: correlation"):
        check_again(tmp_path / "made", str(source), options, print)


def test_another_activation_fails_the_gate(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "source")
    options = ExportOptions(output=tmp_path / "made", verify=False)
    export(str(source), options)
    change_json(source / "config_sentence_transformers.json", activation_fn=IDENTITY)
    with pytest.raises(ParityError, match="not the activation"):
        check_again(tmp_path / "made", str(source), options, print)


# --- int8 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model_type", "labels"), [("bert", 1), ("roberta", 3), ("modernbert", 1)])
def test_int8_ranks_as_float_and_neighbours_change_no_bit(tmp_path: Path, model_type: str, labels: int) -> None:
    source = save_cross_encoder(tmp_path / "source", model_type, labels=labels)
    made = export(str(source), ExportOptions(output=tmp_path / "made", precisions=("int8", "fp32"), min_cosine=0.9))
    notes = next(variant.notes for variant in made.manifest.variants if variant.precision == "int8")
    assert 0.9 <= notes["fidelity"]["min_correlation"] < 1
    figures = [entry for entry in made.manifest.parity["variants"].values() if entry["precision"] == "int8"]
    assert [0.9 <= entry["correlation"] < 1 for entry in figures] == [True] * (2 if native.kernels() else 1)
    wanted = reference_scores(source, activation_fn=LOGITS).reshape(len(PAIRS), -1)
    with Reranker(tmp_path / "made") as model:
        assert model.variant.precision == "int8"
        together = np.asarray(model.predict(PAIRS, activation="identity")).reshape(len(PAIRS), -1)
        alone = np.stack([np.asarray(model.predict(pair, activation="identity")).reshape(-1) for pair in PAIRS])
    np.testing.assert_array_equal(together, alone)
    for column in range(labels):
        assert np.corrcoef(together[:, column], wanted[:, column])[0, 1] > 0.95
    assert np.abs(together - wanted).max() > 1e-5, "that was not int8"


def test_int8_below_the_floor_fails_the_export_and_leaves_nothing(tmp_path: Path) -> None:
    source = save_cross_encoder(tmp_path / "source", num_hidden_layers=1)
    with pytest.raises(ParityError, match=r"int8 .* asked for 1\.0 or more"):
        export(str(source), ExportOptions(output=tmp_path / "made", precisions=("int8",), min_cosine=1.0, verify=False))
    assert not (tmp_path / "made").exists()


# --- the command line ------------------------------------------------------------------------------------------------


def test_export_info_and_verify_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, made = save_cross_encoder(tmp_path / "source", prompts=PROMPTS), tmp_path / "made"
    assert cli.main(["export", str(source), "-o", str(made)]) == 0
    printed = capsys.readouterr().out
    assert "Classification(1 label, sigmoid)" in printed
    assert "parity: passed" in printed
    assert cli.main(["info", str(made)]) == 0
    printed = capsys.readouterr().out
    assert "1: LABEL_0" in printed
    assert "sigmoid" in printed
    assert "pooling" not in printed
    assert "fingerprint" not in printed
    assert cli.main(["info", str(made), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    about = {"labels": ["LABEL_0"], "activation": "sigmoid", "chat": None, "score_tokens": [], "unscored": None}
    assert facts["manifest"]["reranking"] == about
    assert cli.main(["verify", str(made), "--against", str(source), "--write"]) == 0
    assert "correlation" in capsys.readouterr().out
    change_tensors(source, lambda tensors: tensors.update({"classifier.bias": tensors["classifier.bias"] + 1}))
    assert cli.main(["verify", str(made), "--against", str(source), "-q"]) == ParityError.exit_code
    assert "out of bounds" in capsys.readouterr().err


def test_embed_says_what_the_directory_is_and_what_to_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(str(save_cross_encoder(tmp_path / "source")), ExportOptions(output=tmp_path / "made", verify=False))
    (tmp_path / "texts.txt").write_text("a cat\n", encoding="utf-8")
    assert (
        cli.main(["embed", str(tmp_path / "made"), str(tmp_path / "texts.txt"), "-o", str(tmp_path / "out.npy")]) == 2
    )
    assert "holds a model for reranking, which scores pairs of texts" in capsys.readouterr().err
