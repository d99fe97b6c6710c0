"""MTEB: prompts by task beside sentence-transformers' wrapper, and three local tasks, fp32 and INT8 beside torch.

FASTEMBED_RT_CHECKPOINT is a checkpoint, FASTEMBED_RT_EXPORTED its export in fp32 and int8, FASTEMBED_RT_DATA the texts.
FASTEMBED_RT_TABLE names a file for the scores.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import pytest
import torch
from conftest import NEAR, Case
from datasets import Dataset, DatasetDict
from mteb._create_dataloaders import create_dataloader
from mteb.abstasks.pair_classification import AbsTaskPairClassification
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.sts import AbsTaskSTS
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import CrossEncoderProtocol, EncoderProtocol, SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError
from fastembed_rt.integrations.mteb import FastEmbedRtCrossEncoder, FastEmbedRtEncoder

FACTS: dict[str, Any] = {
    "description": "local data",
    "dataset": {"path": "local", "revision": "1"},
    "category": "t2t",
    "eval_splits": ["test"],
    "eval_langs": ["eng-Latn"],
    "modalities": ["text"],
}
ROWS = 250  # of STS-B, questions of XQuAD
ROUNDING = 2e-4  # of a task's score, between fp32 here and on torch
INT8 = 0.01  # and of INT8


def pairs() -> list[tuple[str, str, float]]:
    file = Path(os.environ["FASTEMBED_RT_DATA"]) / "stsb" / "stsb-en-dev.csv"
    with file.open(encoding="utf-8", newline="") as lines:
        return [(left, right, float(score)) for left, right, score in csv.reader(lines)][:ROWS]


class Similarity(AbsTaskSTS):
    metadata = TaskMetadata(type="STS", name="LocalSTS", main_score="cosine_spearman", **FACTS)
    min_score, max_score = 0, 5

    def load_data(self, **_: Any) -> None:
        columns = dict(zip(("sentence1", "sentence2", "score"), map(list, zip(*pairs(), strict=True)), strict=True))
        self.dataset = DatasetDict({"test": Dataset.from_dict(columns)})
        self.data_loaded = True


class Paraphrases(AbsTaskPairClassification):
    """Pairs that say the same (from 4 on) or something else (up to 2)."""

    metadata = TaskMetadata(type="PairClassification", name="LocalPairs", main_score="max_ap", **FACTS)

    def load_data(self, **_: Any) -> None:
        clear = [(left, right, int(score >= 4)) for left, right, score in pairs() if score >= 4 or score <= 2]
        columns = dict(zip(("sentence1", "sentence2", "labels"), map(list, zip(*clear, strict=True)), strict=True))
        self.dataset = DatasetDict({"test": Dataset.from_dict(columns)})
        self.data_loaded = True


class Questions(AbsTaskRetrieval):
    metadata = TaskMetadata(type="Retrieval", name="LocalRetrieval", main_score="ndcg_at_10", **FACTS)

    def load_data(self, **_: Any) -> None:
        place = Path(os.environ["FASTEMBED_RT_DATA"]) / "retrieval" / "xquad-en"

        def rows(name: str) -> list[dict[str, str]]:
            lines = (place / name).read_text(encoding="utf-8").splitlines()
            return [{"id": entry["_id"], "text": entry["text"]} for entry in map(json.loads, lines)]

        queries = rows("queries.jsonl")[:ROWS]
        judged: dict[str, dict[str, int]] = {entry["id"]: {} for entry in queries}
        for line in (place / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
            query, document, _ = line.split("\t")
            if query in judged:
                judged[query][document] = 1
        split = RetrievalSplitData(
            queries=Dataset.from_list(queries),
            corpus=Dataset.from_list(rows("corpus.jsonl")),
            relevant_docs=judged,
            top_ranked=None,
        )
        self.dataset = {"default": {"test": split}}
        self.data_loaded = True


TASKS = (Similarity, Paraphrases, Questions)


@pytest.fixture(scope="module")
def torch_scores() -> dict[str, float]:
    model = SentenceTransformer(os.environ["FASTEMBED_RT_CHECKPOINT"], device="cpu", local_files_only=True)
    return scores(SentenceTransformerEncoderWrapper(model))


def scores(model: Any) -> dict[str, float]:
    """The main score of each task."""
    found = {}
    for task in TASKS:
        made = task()
        result = mteb.evaluate(model, made, cache=None, show_progress_bar=False)
        found[made.metadata.name] = result.task_results[0].get_score()
    return found


@pytest.mark.parametrize(("precision", "most"), [("fp32", ROUNDING), ("int8", INT8)])
def test_tasks_score_as_on_torch(torch_scores: dict[str, float], precision: str, most: float) -> None:
    model = FastEmbedRtEncoder(os.environ["FASTEMBED_RT_EXPORTED"], precision=precision, device="cpu")
    assert model.model.precision == precision
    found = scores(model)
    if table := os.environ.get("FASTEMBED_RT_TABLE"):
        with Path(table).open("a", encoding="utf-8") as file:
            file.writelines(f"{precision}\t{name}\t{torch_scores[name]:.5f}\t{found[name]:.5f}\n" for name in found)
    assert found == pytest.approx(torch_scores, abs=most)
    assert all(0.5 < score < 1 for score in found.values())


def loader(texts: list[str], metadata: Any) -> Any:
    return create_dataloader(Dataset.from_dict({"text": texts}), task_metadata=metadata, batch_size=3)


@pytest.mark.parametrize("prompt_type", [None, PromptType.query, PromptType.document])
@pytest.mark.parametrize(
    "prompts", [None, {"STS": "a "}, {"LocalSTS-query": "the ", "query": "a "}, {"document": "light "}]
)
def test_prompts_are_chosen_as_for_sentence_transformers(
    case: Case, prompts: dict[str, str] | None, prompt_type: PromptType | None
) -> None:
    reference = SentenceTransformer(case.dense.removesuffix("-onnx"), device="cpu", local_files_only=True)
    theirs = SentenceTransformerEncoderWrapper(reference, model_prompts=prompts)
    ours = FastEmbedRtEncoder(case.dense, model_prompts=prompts)
    for task in (Similarity, Questions):
        options = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default", "batch_size": 2}
        wanted, found = (
            side.encode(loader(case.texts, task.metadata), prompt_type=prompt_type, **options)
            for side in (theirs, ours)
        )
        np.testing.assert_allclose(found, wanted, rtol=0, atol=NEAR)
    np.testing.assert_allclose(ours.similarity(found, found), theirs.similarity(wanted, wanted), rtol=0, atol=1e-4)
    pairwise = theirs.similarity_pairwise(torch.tensor(wanted), torch.tensor(wanted[::-1].copy()))
    np.testing.assert_allclose(ours.similarity_pairwise(found, found[::-1]), pairwise, rtol=0, atol=1e-4)


def test_what_mteb_knows_of_the_model(case: Case) -> None:
    ours = FastEmbedRtEncoder(case.model)
    assert isinstance(ours, EncoderProtocol)
    meta = ours.mteb_model_meta
    assert meta.name.startswith("fastembed-rt/") and meta.name.endswith("-fp32")
    assert meta.revision.startswith(f"{case.model.fingerprint()}-prompts.")
    assert meta.embed_dim == case.model.dim
    assert meta.similarity_fn_name.value == case.model.manifest.similarity
    assert ours.model is case.model
    short = FastEmbedRtEncoder(case.dense, truncate_dim=8).mteb_model_meta
    assert short.revision != meta.revision and short.embed_dim == 8
    with pytest.raises(InvalidInputError, match="device 'tpu'"):
        FastEmbedRtEncoder(case.dense, device="tpu")
    assert EmbeddingModel(case.dense).dim == meta.embed_dim


def test_results_of_two_options_are_kept_apart(case: Case, tmp_path: Path) -> None:
    class Small(Similarity):
        def load_data(self, **_: Any) -> None:
            columns = {"sentence1": case.texts[:7], "sentence2": case.texts[1:], "score": [3, 1, 4, 1.5, 5, 2, 0]}
            self.dataset = DatasetDict({"test": Dataset.from_dict(columns)})
            self.data_loaded = True

    cache = mteb.ResultCache(tmp_path)
    whole, short = FastEmbedRtEncoder(case.dense), FastEmbedRtEncoder(case.dense, truncate_dim=4)
    found = [
        mteb.evaluate(model, Small(), cache=cache, show_progress_bar=False).task_results[0].get_score()
        for model in (whole, short, whole)
    ]
    assert found[0] == pytest.approx(found[2], abs=1e-5)  # the third is read from the cache, rounded
    assert abs(found[0] - found[1]) > 0.01
    assert len(list(tmp_path.rglob("LocalSTS.json"))) == 2


def test_results_with_two_sets_of_prompts_are_two_rows(case: Case) -> None:
    given: list[dict[str, Any]] = [
        {},
        {"model_prompts": case.prompts},  # which take the place of a default one
        {"model_prompts": {"query": "A: "}},
        {"model_prompts": {"query": "B: "}},
        {"prompts": {"document": "A: "}},
        {"prompts": {"document": "B: "}},
    ]
    made = [FastEmbedRtEncoder(case.dense, **options).mteb_model_meta.revision for options in given]
    assert len(set(made)) == len(given)
    assert FastEmbedRtEncoder(case.dense, threads=1).mteb_model_meta.revision == made[0]
    options: tuple[dict[str, Any], ...] = ({}, {"max_length": 9}, {"prompts": {"q": "A: "}, "default_prompt_name": "q"})
    scores = [FastEmbedRtCrossEncoder(case.reranker, **each).mteb_model_meta.revision for each in options]
    assert len(set(scores)) == 3
    assert FastEmbedRtCrossEncoder(case.reranker, threads=1).mteb_model_meta.revision == scores[0]


def test_a_cross_encoder(case: Case) -> None:
    ours = FastEmbedRtCrossEncoder(case.reranker)
    assert isinstance(ours, CrossEncoderProtocol)
    assert ours.mteb_model_meta.is_cross_encoder
    metadata = Questions.metadata
    sides = (loader([case.query] * 8, metadata), loader(case.texts, metadata))
    found = ours.predict(*sides, task_metadata=metadata, hf_split="test", hf_subset="default", batch_size=4)
    np.testing.assert_array_equal(found, case.scores)
