"""Rerankers that answer with a word (monoT5), beside transformers' T5ForConditionalGeneration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import torch
import transformers
from checkpoints import CONFIGS, TEXTS, change_json, change_tensors, saved_once, spread_weights, write_json
from exports import quick
from packed_attention import evaluate
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from fastembed_rt import Reranker
from fastembed_rt.manifest import RERANKING
from fastembed_rt.run import batching
from fastembed_rt_export import tasks
from fastembed_rt_export.errors import CheckpointError, ParityError, UnsupportedCheckpointError
from fastembed_rt_export.graph import cuda
from fastembed_rt_export.graph.writer import write
from fastembed_rt_export.pipeline import ExportOptions, check_again, export

pytestmark = pytest.mark.usefixtures("short_gate")

PAIRS = [("the cat", text) for text in TEXTS] + [("", ""), ("a red river " * 20, "dogs")]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz0123456789.,!?:-()QDR", "▁"]


def save_tokenizer(directory: Path, words: tuple[str, ...]) -> None:
    """Letters and a few words, with the end that T5's adds to every text."""
    pieces = ["<pad>", "</s>", "<unk>", "▁Query", "▁Document", "▁Relevant", "▁the", "▁cat", *words, *LETTERS]
    tokenizer = Tokenizer(models.Unigram([(piece, -float(k)) for k, piece in enumerate(pieces)], unk_id=2))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.add_special_tokens(["<pad>", "</s>", "<unk>"])
    tokenizer.save(str(directory / "tokenizer.json"))
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    write_json(
        directory / "tokenizer_config.json",
        {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 40, **special},
    )


@saved_once
def save_monot5(
    directory: Path, words: tuple[str, ...] = ("▁true", "▁false"), kind: str = "T5", **changes: Any
) -> Path:
    """A T5ForConditionalGeneration as monoT5 is published: without modules.json, its words in no file."""
    settings = {
        **CONFIGS[kind.lower()],
        "vocab_size": 80,
        "decoder_start_token_id": 0,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**{**settings, "num_decoder_layers": 2, **changes})
    model = getattr(transformers, f"{kind}ForConditionalGeneration")(config).eval()
    spread_weights(model)
    model.save_pretrained(directory)
    save_tokenizer(directory, words)
    return directory


def logits(source: Path, words: tuple[str, str] = ("▁true", "▁false")) -> npt.NDArray[Any]:
    """Of the words in this order, for and against, each pair alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(source).eval()
    true, false = tokenizer.convert_tokens_to_ids(list(words))
    found = []
    for query, document in PAIRS:
        text = f"Query: {query} Document: {document} Relevant:"
        given = tokenizer(text, truncation=True, return_tensors="pt")
        with torch.no_grad():
            made = model(
                input_ids=given.input_ids,
                attention_mask=given.attention_mask,
                decoder_input_ids=torch.tensor([[model.config.decoder_start_token_id]]),
            ).logits[0, 0]
        found.append(float(made[true] - made[false]))
    return np.array(found, np.float32)


@pytest.mark.parametrize(
    "changes",
    [{}, {"feed_forward_proj": "relu"}, {"tie_word_embeddings": False}, {"decoder_start_token_id": 7}],
    ids=str,
)
def test_scores_are_those_of_the_two_words(tmp_path: Path, changes: dict[str, Any]) -> None:
    source = save_monot5(tmp_path / "source", **changes)
    wanted = logits(source)
    assert wanted.std() > 0.05
    quick(source, tmp_path / "out", task=RERANKING, precisions=("fp32", "bf16"))
    for target in (None, "cpu", "portable"):
        with Reranker(tmp_path / "out", target=target, precision="fp32") as model:
            found = model.predict(PAIRS, activation="identity")
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(model.predict(PAIRS), 1 / (1 + np.exp(-wanted)), atol=1e-5)
            if target != "portable":
                alone = [model.predict([pair], activation="identity") for pair in PAIRS]
                np.testing.assert_array_equal(found, np.concatenate(alone))
    with Reranker(tmp_path / "out", precision="bf16") as model:
        assert np.corrcoef(model.predict(PAIRS, activation="identity"), wanted)[0, 1] > 0.99


def test_the_gate_compares_with_transformers_and_finds_another_decoder(tmp_path: Path) -> None:
    source = save_monot5(tmp_path / "source")
    made = export(str(source), ExportOptions(output=tmp_path / "out", task=RERANKING)).manifest
    assert made.parity["status"] == "passed"
    assert any("'▁true' less that of '▁false'" in note for note in made.notes)
    name = "decoder.block.1.layer.1.EncDecAttention.q.weight"
    change_tensors(source, lambda tensors: tensors.update({name: tensors[name] * 0.5}))
    with pytest.raises(ParityError, match="out of bounds"):
        check_again(tmp_path / "out", str(source), ExportOptions(), print)


def test_words_are_those_of_the_vocabulary(tmp_path: Path) -> None:
    source = save_monot5(tmp_path / "source", ("▁sim", "▁não", "▁yes", "▁no"))
    quick(source, tmp_path / "out", task=RERANKING)
    with Reranker(tmp_path / "out") as model:
        wanted = logits(source, ("▁sim", "▁não"))
        np.testing.assert_allclose(model.predict(PAIRS, activation="identity"), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stored", [False, True], ids=["one table", "a table of the words it answers with"])
def test_an_mt5_answers_with_its_own_words_and_table(tmp_path: Path, stored: bool) -> None:
    source = save_monot5(tmp_path / "source", ("▁true", "▁false", "▁yes", "▁no"), "MT5")
    if stored:  # as mT5 was trained, though transformers says of each that its tables are one
        other = (torch.randn(80, 24, generator=torch.Generator().manual_seed(3)) / 20).numpy()
        change_tensors(source, lambda tensors: tensors.update({"lm_head.weight": other}))
    wanted = logits(source, ("▁yes", "▁no"))
    assert wanted.std() > 0.05
    made = export(str(source), ExportOptions(output=tmp_path / "out", task=RERANKING)).manifest
    assert made.parity["status"] == "passed"
    for target in ("cpu", "portable"):
        with Reranker(tmp_path / "out", target=target) as model:
            found = model.predict(PAIRS, activation="identity")
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


def test_a_table_of_answers_that_is_stored_counts(tmp_path: Path) -> None:
    source = save_monot5(tmp_path / "source")
    other = (torch.randn(80, 24, generator=torch.Generator().manual_seed(3)) / 20).numpy()
    change_tensors(source, lambda tensors: tensors.update({"lm_head.weight": other}))
    quick(source, tmp_path / "out", task=RERANKING)
    with Reranker(tmp_path / "out") as model:
        np.testing.assert_allclose(model.predict(PAIRS, activation="identity"), logits(source), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_graphs_for_cards_give_the_same_logits(tmp_path: Path, precision: str) -> None:
    source = save_monot5(tmp_path / "source")
    checkpoint = tasks.load(source, "source", task=RERANKING)
    write(tasks.build(checkpoint, cuda.target(precision), cuda.OPSET).graph, tmp_path, "g.onnx", name="g", metadata={})
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    texts = [f"Query: {query} Document: {document} Relevant:" for query, document in PAIRS]
    rows = [np.array(ids) for ids in tokenizer(texts, truncation=True).input_ids]
    names = [entry.name for entry in onnx.load(str(tmp_path / "g.onnx")).graph.input]
    found = evaluate(tmp_path / "g.onnx", batching.packed_for_cuda(rows, names))
    np.testing.assert_allclose(found[:, 0], logits(source), atol=1e-5 if precision == "fp32" else 0.02)


def test_what_it_cannot_be_is_refused(tmp_path: Path) -> None:
    source = save_monot5(tmp_path / "source")
    with pytest.raises(UnsupportedCheckpointError, match="decoder's first word"):
        quick(source, tmp_path / "out", task=RERANKING, layout="hub")
    other = save_monot5(tmp_path / "other", ("▁house",))
    with pytest.raises(UnsupportedCheckpointError, match="▁true and ▁false"):
        quick(other, tmp_path / "out", task=RERANKING)
    change_json(source / "config.json", decoder_start_token_id=99)
    with pytest.raises(CheckpointError, match="decoder_start_token_id 99"):
        quick(source, tmp_path / "out", task=RERANKING)
