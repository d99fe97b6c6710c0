"""Late interaction beside sentence-transformers' MultiVectorEncoder, and beside ColBERT as its paper describes it."""

from __future__ import annotations

import asyncio
import json
import shutil
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from checkpoints import FP32_FILES, TEXTS, change_json, change_tensors, save_transformers, write_json
from multi_vectors import (
    FIXED,
    assert_agrees,
    assert_same,
    exported,
    reference,
    save_multi_vector,
    save_pylate,
)
from tokenizers import Tokenizer
from tolerances import REORDERED

from fastembed_rt import EmbeddingModel, LateInteractionModel, Reranker, native
from fastembed_rt.cli import main
from fastembed_rt.errors import FastembedRtError, InvalidInputError, InvalidTypeError, TextTooLongError
from fastembed_rt.manifest import read
from fastembed_rt.vectors.maxsim import NOTHING, maxsim
from fastembed_rt_export.errors import CheckpointError, ParityError, UnsupportedCheckpointError
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tasks import late_layouts

pytestmark = pytest.mark.usefixtures("short_gate")


def save_stanford(directory: Path, **metadata: Any) -> Path:
    """What Stanford's ColBERT writes: encoder and projection in one file, markers among the unused words."""
    save_transformers(directory, vocab_size=320)
    _add_to_vocabulary(directory, "[unused0]", "[unused1]")
    projection = np.random.default_rng(0).normal(0, 0.3, (8, 24)).astype(np.float32)

    def change(tensors: dict[str, Any]) -> None:
        encoder = {f"bert.{name}": tensor for name, tensor in tensors.items()}
        tensors.clear()
        tensors.update({**encoder, "linear.weight": projection})

    change_tensors(directory, change)
    change_json(directory / "config.json", architectures=["HF_ColBERT"])
    said = {"query_maxlen": 12, "doc_maxlen": 30, "mask_punctuation": True, "attend_to_mask_tokens": False, "dim": 8}
    write_json(directory / "artifact.metadata", {**said, **metadata})
    return directory


def _add_to_vocabulary(directory: Path, *words: str) -> None:
    body = json.loads((directory / "tokenizer.json").read_text())
    for word in words:
        body["model"]["vocab"][word] = len(body["model"]["vocab"])
    (directory / "tokenizer.json").write_text(json.dumps(body))


@pytest.mark.parametrize("said", [{"attend_to_expansion_tokens": True}, {"do_query_expansion": False}])
def test_convolutions_over_tokens_that_all_see_pass_the_gate(tmp_path: Path, said: dict[str, bool]) -> None:
    source = save_pylate(tmp_path / "source", "lfm2", **said)
    made = export(str(source), ExportOptions(output=tmp_path / "made")).manifest
    assert made.parity["status"] == "passed"


def test_convolutions_over_tokens_that_no_other_sees_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedCheckpointError, match="another convolution over those"):
        exported(save_pylate(tmp_path / "source", "lfm2"), tmp_path / "made")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = {"query": "query: ", "document": "the new red "}
    return save_multi_vector(
        tmp_path_factory.mktemp("late") / "checkpoint", prompts=prompts, query_expansion={**FIXED, "length": 24}
    )


@pytest.fixture(scope="module")
def directory(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(checkpoint, tmp_path_factory.mktemp("late") / "out", precisions=("fp32", "int8"))


@pytest.fixture(scope="module")
def model(directory: Path) -> Any:
    with LateInteractionModel(directory) as loaded:
        yield loaded


@pytest.mark.parametrize("target", ["cpu", "portable"])
@pytest.mark.parametrize("model_type", ["bert", "roberta", "distilbert", "mpnet", "electra", "albert"])
def test_every_family_gives_the_reference_vectors(model_type: str, target: str, tmp_path: Path) -> None:
    assert_agrees(
        save_multi_vector(tmp_path / "checkpoint", model_type, query_expansion=FIXED), tmp_path / "out", target
    )


@pytest.mark.parametrize("target", ["cpu", "portable"])
def test_windows_of_attention(target: str, tmp_path: Path) -> None:
    wide = {"local_attention": 64}  # a query's own tokens are near enough to those that fill it up
    checkpoint = save_multi_vector(tmp_path / "checkpoint", "modernbert", query_expansion=FIXED, changes=wide)
    assert_agrees(checkpoint, tmp_path / "out", target)


@pytest.mark.parametrize(
    "transformer",
    [
        {},
        {"query_length": 10},
        {"query_expansion": {"strategy": "fixed", "length": 12, "attend": True}},
        {"query_expansion": {"strategy": "min", "length": 12}},
        {"query_expansion": {"strategy": "min", "length": 9, "attend": True}, "query_length": 20},
        {"query_expansion": {"strategy": "fixed", "length": 12, "token": "cat"}},
        {"document_length": None, "max_seq_length": 17},
    ],
)
def test_lengths_and_expansions(transformer: dict[str, Any], tmp_path: Path) -> None:
    assert_agrees(save_multi_vector(tmp_path / "checkpoint", **transformer), tmp_path / "out")


def test_tokens_that_queries_skip_too_and_the_mean(tmp_path: Path) -> None:
    options = {"skiplist": (".", "[MASK]", "☃"), "skiplist_tasks": ["query", "document"], "similarity": "meanmaxsim"}
    checkpoint = save_multi_vector(tmp_path / "checkpoint", query_expansion=FIXED, **options)  # type: ignore[arg-type]
    assert_agrees(checkpoint, tmp_path / "out")
    assert read(tmp_path / "out").late_interaction.similarity == "meanmaxsim"  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"do_query_expansion": False},
        {"attend_to_expansion_tokens": True, "skiplist_words": None},
        {"query_prefix": "the cat ", "document_prefix": "", "document_length": None},
        {"prompts": {"query": "[Q] old ", "document": "the new "}},
    ],
)
def test_pylate_checkpoints(config: dict[str, Any], tmp_path: Path) -> None:
    assert_agrees(save_pylate(tmp_path / "checkpoint", **config), tmp_path / "out")


@pytest.mark.parametrize("metadata", [{}, {"attend_to_mask_tokens": True, "mask_punctuation": False}])
def test_stanford_checkpoints(metadata: dict[str, Any], tmp_path: Path) -> None:
    checkpoint = save_stanford(tmp_path / "checkpoint", **metadata)
    assert_agrees(checkpoint, tmp_path / "out")
    assert read(tmp_path / "out").notes == ()


def test_a_checkpoint_of_stanfords_without_its_settings(tmp_path: Path) -> None:
    checkpoint = save_stanford(tmp_path / "checkpoint")
    (checkpoint / "artifact.metadata").unlink()
    assert_agrees(checkpoint, tmp_path / "out")


def test_colbert_as_the_paper_describes_it(tmp_path: Path) -> None:
    """[CLS] [Q] q1 ... ql [SEP] and masks to the length; [CLS] [D] d1 ... [SEP] without punctuation; MaxSim."""
    checkpoint = save_stanford(tmp_path / "checkpoint")
    output = exported(checkpoint, tmp_path / "out")
    tokenizer = Tokenizer.from_file(str(checkpoint / "tokenizer.json"))
    vocabulary = tokenizer.get_vocab()
    plain = shutil.copytree(checkpoint, tmp_path / "plain")
    projection: list[Any] = []
    change_tensors(plain, lambda tensors: projection.append(tensors.pop("linear.weight")))
    bert = transformers.BertModel.from_pretrained(plain, attn_implementation="eager").eval()

    def ids(text: str, marker: str, length: int) -> list[int]:
        words = tokenizer.encode(text, add_special_tokens=False).ids[: length - 3]
        first, *_, last = tokenizer.encode("").ids
        return [first, vocabulary[marker], *words, last]

    def vectors(row: list[int], seen: int) -> Any:
        mask = torch.tensor([[1] * seen + [0] * (len(row) - seen)])
        with torch.no_grad():
            states = bert(torch.tensor([row]), attention_mask=mask).last_hidden_state[0]
        return torch.nn.functional.normalize(states @ torch.tensor(projection[0]).T, dim=-1)

    punctuation = {tokenizer.token_to_id(letter) for letter in string.punctuation} - {None}
    queries, documents = [], []
    for text in TEXTS:
        row = ids(text, "[unused0]", 12)
        queries.append(vectors(row + [vocabulary["[MASK]"]] * (12 - len(row)), len(row)))
        row = ids(text, "[unused1]", 30)
        kept = [k for k, token in enumerate(row) if token not in punctuation]
        documents.append(vectors(row, len(row))[kept])
    scores = [[float((q @ d.T).max(dim=1).values.sum()) for d in documents] for q in queries]
    with LateInteractionModel(output) as model:
        assert_same(model.encode_query(TEXTS), queries)
        assert_same(model.encode_document(TEXTS), documents)
        found = model.similarity(model.encode_query(TEXTS), model.encode_document(TEXTS))
        np.testing.assert_allclose(found, scores, rtol=1e-5, atol=1e-4)
        order = [ranked.index for ranked in model.rank(TEXTS[3], TEXTS)]
    assert order == sorted(range(len(TEXTS)), key=lambda k: -scores[3][k])


def test_neighbours_do_not_change_a_vector(directory: Path) -> None:
    for precision in ("fp32", "int8"):
        with LateInteractionModel(directory, precision=precision) as model:
            for encode in (model.encode_query, model.encode_document):
                together = encode(TEXTS * 20)
                assert_same([encode(text) for text in TEXTS], together[: len(TEXTS)], REORDERED)


def test_int8_stays_near(directory: Path, checkpoint: Path) -> None:
    wanted = reference(checkpoint).encode_document(TEXTS)
    with LateInteractionModel(directory, precision="int8") as model:
        cosines = [
            float((ours * theirs.numpy()).sum(1).mean())
            for ours, theirs in zip(model.encode_document(TEXTS), wanted, strict=True)
        ]
    assert np.mean(cosines) > 0.97
    notes = read(directory).variants[-1].notes
    assert notes["fidelity"]["min_cosine"] > 0.98


@pytest.mark.skipif(native.kernels() is None, reason=f"target native does not run here: {native.why_not()}")
@pytest.mark.parametrize("expansion", [None, {**FIXED, "attend": True}, FIXED])
def test_every_precision_runs_on_our_own_operators(tmp_path: Path, expansion: dict[str, Any] | None) -> None:
    checkpoint = save_multi_vector(tmp_path / "checkpoint", query_expansion=expansion)
    made = exported(checkpoint, tmp_path / "out", precisions=("fp32", "bf16", "int8"), min_cosine=0.5)
    found = [(variant.target, variant.precision) for variant in read(made).variants]
    assert {("native", "fp32"), ("native", "bf16"), ("native", "int8"), ("cpu", "int8")} <= set(found)
    theirs = reference(checkpoint)
    for precision, target, least in (
        ("fp32", "native", 1 - 1e-6),
        ("bf16", "native", 0.999),
        ("int8", "native", 0.97),
        ("int8", "cpu", 0.97),
    ):
        with LateInteractionModel(made, precision=precision, target=target) as model:
            for encode in ("encode_query", "encode_document"):
                wanted, call = getattr(theirs, encode)(TEXTS), getattr(model, encode)
                for ours, expected in zip(call(TEXTS), wanted, strict=True):
                    assert float((ours * expected.numpy()).sum(1).mean()) > least, (precision, target, encode)
                together = call(TEXTS * 20)
                for alone, ours in zip([call(text) for text in TEXTS], together, strict=False):
                    if target == "native":
                        np.testing.assert_array_equal(alone, ours)


def test_streams_asyncio_and_prompts(model: LateInteractionModel, checkpoint: Path) -> None:
    documents = model.encode_document(TEXTS)
    assert_same(list(model.embed_documents(iter(TEXTS))), documents, REORDERED)
    assert_same(list(model.embed_queries(iter(TEXTS))), model.encode_query(TEXTS), REORDERED)
    assert_same(asyncio.run(model.aencode_document(TEXTS)), documents, REORDERED)
    assert_same([asyncio.run(model.aencode_query("a cat"))], [model.encode_query("a cat")], REORDERED)
    assert_same(model.encode_query(TEXTS, prompt="a dog "), reference(checkpoint).encode_query(TEXTS, prompt="a dog "))
    assert model.encode_document([]) == []


def test_lengths_can_be_set(directory: Path, checkpoint: Path) -> None:
    theirs = reference(checkpoint)
    theirs[0].document_length = 9
    theirs[0].query_expansion = {"strategy": "fixed", "length": 30}
    with LateInteractionModel(directory, query_length=30, document_length=9) as model:
        assert_same(model.encode_query(TEXTS), theirs.encode_query(TEXTS))
        assert_same(model.encode_document(TEXTS), theirs.encode_document(TEXTS))
        assert model.stats.truncated > 0
    with (
        LateInteractionModel(directory, truncation="error") as model,
        pytest.raises(TextTooLongError, match="text 4 has"),
    ):
        model.encode_query(TEXTS)


def test_maxsim_in_pieces_and_without_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    from sentence_transformers.util.similarity import maxsim as theirs

    random = np.random.default_rng(0)
    queries = [random.normal(size=(n, 4)).astype(np.float32) for n in (3, 1, 5)]
    documents = [random.normal(size=(n, 4)).astype(np.float32) for n in (2, 7, 0, 1, 4)]
    monkeypatch.setattr("fastembed_rt.vectors.maxsim.PRODUCTS", 25)
    for mean in (False, True):
        wanted = theirs(list(map(torch.tensor, queries)), list(map(torch.tensor, documents)), length_normalize=mean)
        found = maxsim(queries, documents, 4, mean=mean)
        there = [k for k, document in enumerate(documents) if len(document)]
        np.testing.assert_allclose(found[:, there], wanted.numpy()[:, there], rtol=1e-5, atol=1e-6)
        assert (found[:, 2] == NOTHING).all()
    assert maxsim([], documents, 4).shape == (0, 5)
    assert maxsim(queries[0], documents[0], 4).shape == (1, 1)


def test_the_gate_passes_and_reports_every_variant(checkpoint: Path, tmp_path: Path) -> None:
    made = export(str(checkpoint), ExportOptions(output=tmp_path / "out", precisions=("fp32", "int8"))).manifest
    assert made.parity["status"] == "passed"
    own = ["model.native.int8.onnx"] if native.kernels() else []
    assert set(made.parity["variants"]) == {*FP32_FILES, *own, "model.cpu.int8.onnx"}
    assert made.parity["variants"]["model.onnx"]["max_abs_diff"] < 1e-5
    assert "LateInteractionModel" in (tmp_path / "out" / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("PUNCTUATION", (), "the reference"),
        ("QUERY_LENGTH", 9, "tokenized differently"),
        ("SIMILARITIES", None, "similarity"),
    ],
)
def test_the_gate_refuses_other_tokens_and_scores(
    name: str, value: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = save_pylate(tmp_path / "checkpoint", query_length=None, skiplist_words=None)
    monkeypatch.setattr(late_layouts, name, ("meanmaxsim",) if value is None else value)
    with pytest.raises(ParityError, match=message):
        export(str(checkpoint), ExportOptions(output=tmp_path / "out"))


def test_another_class_says_which_one_opens_the_directory(directory: Path) -> None:
    for other in (EmbeddingModel, Reranker):
        with pytest.raises(
            FastembedRtError, match=r"late_interaction; open it with fastembed_rt\.LateInteractionModel"
        ):
            other(directory)


def test_options_that_cannot_be_are_refused(directory: Path, model: LateInteractionModel) -> None:
    with pytest.raises(InvalidInputError, match="truncation 'chunk' is not for token vectors"):
        LateInteractionModel(directory, truncation="chunk")
    with pytest.raises(InvalidInputError, match="query_length 999 is not possible; expected 1 to 48"):
        LateInteractionModel(directory, query_length=999)
    with pytest.raises(InvalidInputError, match=r"documents: number 0 has shape \(3, 5\), expected \(tokens, 8\)"):
        model.similarity(model.encode_query("a"), [np.zeros((3, 5), np.float32)])
    with pytest.raises(InvalidTypeError, match="documents are one text"):
        model.rank("a", "b")
    with pytest.raises(InvalidTypeError, match="query is int"):
        model.rank(1, ["b"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("3_MultiVectorMask/config.json", {"keep_only_token_ids": [3]}, "keep_only_token_ids, which is for images"),
        ("3_MultiVectorMask/config.json", {"skiplist_words": [3]}, r"skiplist \[3\] is not a list of words"),
        ("1_Dense/config.json", {"module_input_name": "sentence_embedding"}, "Dense with module_input_name"),
        ("1_Dense/config.json", {"out_features": 12}, r"misshapen: linear\.weight is F32 \(16, 24\)"),
        ("4_Normalize/config.json", {"module_input_name": "sentence_embedding"}, "Normalize with module_input_name"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task 'fill-mask'"),
        ("sentence_bert_config.json", {"query_expansion": {"strategy": "some", "length": 3}}, "expected strategy"),
        ("sentence_bert_config.json", {"query_expansion": {"strategy": "fixed"}}, "without a length"),
        (
            "sentence_bert_config.json",
            {"query_expansion": {"strategy": "fixed", "length": 9, "token": 0}},
            "token 0, expected its text",
        ),
        ("sentence_bert_config.json", {"document_length": -1}, "document_length -1, expected a number of tokens"),
        (
            "sentence_bert_config.json",
            {"query_expansion": {"strategy": "fixed", "length": 9, "token": "no such token"}},
            "'no such token', which the tokenizer does not have",
        ),
    ],
)
def test_what_is_not_built_is_refused(file: str, changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    checkpoint = save_multi_vector(tmp_path / "checkpoint")
    change_json(checkpoint / file, **changes)
    with pytest.raises((UnsupportedCheckpointError, CheckpointError), match=message):
        exported(checkpoint, tmp_path / "out")


def test_other_modules_are_refused_by_name(tmp_path: Path) -> None:
    checkpoint = save_multi_vector(tmp_path / "checkpoint")
    modules = json.loads((checkpoint / "modules.json").read_text())
    modules[4]["type"] = "sentence_transformers.multi_vector_encoder.modules.HierarchicalTokenPooling"
    write_json(checkpoint / "modules.json", modules)
    with pytest.raises(UnsupportedCheckpointError, match="a HierarchicalTokenPooling module; built on tokens are"):
        exported(checkpoint, tmp_path / "out")


def test_a_checkpoint_without_a_projection_is_refused(tmp_path: Path) -> None:
    checkpoint = save_stanford(tmp_path / "checkpoint")
    change_tensors(checkpoint, lambda tensors: tensors.pop("linear.weight"))
    with pytest.raises(CheckpointError, match=r"nothing under 'linear\.weight', expected ColBERT's projection"):
        exported(checkpoint, tmp_path / "out")
    plain = save_transformers(tmp_path / "plain")
    with pytest.raises(UnsupportedCheckpointError, match="which hold a projection of tokens"):
        exported(plain, tmp_path / "out", task="late_interaction")


def test_the_command_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    assert main(["export", str(checkpoint), "-o", str(output), "--max-length", "30"]) == 0
    assert read(output).late_interaction.document_length == 30  # type: ignore[union-attr]
    assert main(["info", str(output)]) == 0
    assert "late_interaction, opened by fastembed_rt.LateInteractionModel" in capsys.readouterr().out
    assert main(["verify", str(output), "--against", str(checkpoint)]) == 0
    assert "parity: passed" in capsys.readouterr().out
    (tmp_path / "texts.txt").write_text("a cat\n")
    assert main(["embed", str(output), str(tmp_path / "texts.txt")]) == 0
    assert "token_embeddings" in json.loads(capsys.readouterr().out)


def test_graphs_for_tensorrt_are_refused(checkpoint: Path, tmp_path: Path) -> None:
    options = ExportOptions(output=tmp_path / "made", targets=("tensorrt",), verify=False)
    with pytest.raises(UnsupportedCheckpointError, match="target tensorrt gives one vector a text"):
        export(str(checkpoint), options)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("tasks", [[], "query", ["query", "document"], None])
def test_what_texts_skip_words_in(tasks: Any, tmp_path: Path) -> None:
    checkpoint = save_multi_vector(tmp_path / "checkpoint", query_expansion=FIXED)
    change_json(next(checkpoint.glob("*_MultiVectorMask")) / "config.json", skiplist_tasks=tasks)
    assert_agrees(checkpoint, tmp_path / "out")


def test_settings_under_an_older_name_of_their_file(tmp_path: Path) -> None:
    checkpoint = save_multi_vector(tmp_path / "checkpoint", query_expansion=FIXED, document_length=9)
    (checkpoint / "sentence_bert_config.json").rename(checkpoint / "sentence_roberta_config.json")
    assert_agrees(checkpoint, tmp_path / "out")
