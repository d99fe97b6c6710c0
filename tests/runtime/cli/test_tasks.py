"""`bench` and `info` of models of every task."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from task_models import TEXTS, Run


@pytest.mark.parametrize(("name", "unit"), [("reranker", "pairs"), ("splade", "texts"), ("colbert", "texts")])
def test_bench_measures_what_the_task_is_about(run_task: Run, name: str, unit: str) -> None:
    code, out, _ = run_task("bench", name, "--seconds", "0.3", "--json", "--texts", "texts.jsonl")
    assert code == 0
    report = json.loads(out)
    (result,) = report["results"]
    assert result["unit"] == unit
    for row in result["lengths"].values():
        assert row["tokens_per_second"] == pytest.approx(row[f"{unit}_per_second"] * row["mean_tokens"])
        assert row[f"one_{unit[:-1]}"]["calls"] >= 1
    assert sum(row[unit] for row in result["lengths"].values()) == len([text for text in TEXTS if text])


def test_bench_of_a_reranker_shows_pairs(run_task: Run) -> None:
    out = run_task("bench", "reranker", "--seconds", "0.2", "--texts", "texts.jsonl")[1]
    assert ", 1 score a pair, max length 40\n" in out
    assert "pairs/s" in out
    assert "texts" not in out


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("reranker", ["opened by fastembed_rt.Reranker", "labels 1: "]),
        ("splade", ["opened by fastembed_rt.SparseModel", "words", "similarity dot"]),
        (
            "colbert",
            [
                "dim 8, a vector a token",
                "query length 12 tokens, filled up to 12",
                "similarity maxsim",
                "document length",
            ],
        ),
        ("dense", ["token vectors dim 24; embed --tokens"]),
    ],
)
def test_info_says_what_a_model_of_the_task_has(run_task: Run, name: str, said: list[str]) -> None:
    code, out, _ = run_task("info", name)
    assert code == 0
    shown = " ".join(out.split())
    for words in said:
        assert words in shown


@pytest.mark.parametrize("name", ["splade", "colbert"])
def test_info_has_the_fingerprint_of_what_embed_writes(run_task: Run, name: str) -> None:
    assert run_task("embed", name, "texts.jsonl", "-o", "out.jsonl")[0] == 0
    wanted = json.loads(Path("out.jsonl.json").read_text(encoding="utf-8"))["fingerprint"]
    assert f"fingerprint {wanted}" in " ".join(run_task("info", name)[1].split())
