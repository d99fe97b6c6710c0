"""`rerank` and `similar` with models of every task, beside sentence-transformers."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from task_models import QUERY, TEXTS, Exported, Run, rows


def reference_scores(model: Exported, name: str) -> Any:
    """(n,) of the query and each text, as sentence-transformers ranks them."""
    if name == "reranker":
        reference = model.reference
        return reference.predict([(QUERY, text) for text in TEXTS], batch_size=1)
    query, documents = model.reference.encode_query([QUERY]), model.reference.encode_document(TEXTS)
    scores = model.reference.similarity(query, documents)
    return np.asarray(scores)[0]


MEASURES = {
    "dense": "cosine of vectors",
    "splade": "dot of sparse vectors",
    "colbert": "maxsim of token vectors",
    "reranker": "cross-encoder scores",
}


@pytest.mark.parametrize("name", MEASURES)
def test_texts_are_ranked_as_sentence_transformers_does(
    task_models: dict[str, Exported], run_task: Run, name: str
) -> None:
    wanted = reference_scores(task_models[name], name)
    code, out, err = run_task("rerank", name, QUERY, "texts.jsonl", "--json", "--id-column", "number")
    assert code == 0
    found = rows(out)
    order = [row["index"] for row in found]
    assert sorted(order) == list(range(len(TEXTS)))
    assert [row["text"] for row in found] == [TEXTS[k] for k in order]
    assert [row["id"] for row in found] == [10 + k for k in order]
    np.testing.assert_allclose([row["score"] for row in found], wanted[order], rtol=1e-4, atol=1e-4)
    assert [row["score"] for row in found] == sorted((row["score"] for row in found), reverse=True)
    assert f"{len(TEXTS)} texts ranked by {MEASURES[name]}" in err


def test_a_table_for_people_and_the_best_alone(run_task: Run) -> None:
    code, out, _ = run_task("rerank", "reranker", QUERY, "texts.jsonl", "-q")
    assert code == 0
    header, *lines = out.splitlines()
    assert header.split() == ["score", "index", "text"]
    assert len(lines) == len(TEXTS)
    best = run_task("rerank", "reranker", QUERY, "texts.jsonl", "-q", "--top-k", "2", "--id-column", "number")[
        1
    ].splitlines()
    assert best[0].split() == ["score", "index", "id", "text"]
    assert [line.split()[:2] for line in best[1:]] == [line.split()[:2] for line in lines[:2]]


def test_texts_that_would_move_the_cursor_stay_on_their_line(run_task: Run) -> None:
    Path("odd.jsonl").write_text(json.dumps("one\ntwo\x1b[2J\tthree \u202e"), encoding="utf-8")
    assert run_task("rerank", "splade", QUERY, "odd.jsonl", "-q")[1].splitlines()[1].endswith(" 0  one two [2J three")


def test_equal_scores_keep_their_order(run_task: Run) -> None:
    Path("same.txt").write_text("a dog\n" * 5, encoding="utf-8")
    for options in ([], ["-k", "3"]):
        out = run_task("rerank", "splade", QUERY, "same.txt", "--json", *options)[1]
        assert [row["index"] for row in rows(out)] == [0, 1, 2, 3, 4][: 3 if options else 5]


def test_a_ranking_goes_into_a_file_from_a_pipe(run_task: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    shown = rows(run_task("rerank", "colbert", QUERY, "texts.jsonl", "--json", "-q")[1])
    for target in ("out.jsonl.gz", "out.parquet"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("\n".join(TEXTS).encode())))
        code, out, err = run_task("rerank", "colbert", QUERY, "-", "-o", target)
        assert (code, out) == (0, "")
        assert err.endswith(f", {target}\n")
        assert run_task("rerank", "colbert", QUERY, "texts.jsonl", "-o", target)[0] == 2  # it is there
    table = parquet.read_table("out.parquet")
    assert table.column_names == ["text", "index", "score"]
    for row, wanted in zip(table.to_pylist(), shown, strict=True):
        assert row == {**wanted, "score": np.float32(wanted["score"])}


def test_prompts_stand_before_query_and_texts(task_models: dict[str, Exported], run_task: Run) -> None:
    prompts = ["--query-prompt", "new ", "--document-prompt", "the old "]
    found = rows(run_task("rerank", "dense", QUERY, "texts.jsonl", "--json", *prompts)[1])
    reference = task_models["dense"].reference
    query, documents = reference.encode([QUERY], prompt="new "), reference.encode(TEXTS, prompt="the old ")
    wanted = reference.similarity(query, documents).numpy()[0]
    np.testing.assert_allclose([row["score"] for row in found], [wanted[row["index"]] for row in found], atol=1e-5)
    found = rows(run_task("rerank", "reranker", QUERY, "texts.jsonl", "--json", "--query-prompt", "new ")[1])
    wanted = task_models["reranker"].reference.predict([(f"new {QUERY}", text) for text in TEXTS])
    np.testing.assert_allclose([row["score"] for row in found], [wanted[row["index"]] for row in found], atol=1e-4)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("labels", "", "gives 3 scores a pair (LABEL_0, LABEL_1, LABEL_2), so it has no order of relevance"),
        ("reranker", "--document-prompt x", "--document-prompt is for models with vectors"),
        ("dense", "-o x.npy", "npy holds vectors of one length; scores go into jsonl or parquet"),
        ("dense", "-o x.txt", "does not tell its format"),
        ("dense", "--column body", "no key 'body'"),
        ("dense", "--top-k 0", "'0' is not a positive integer"),
        ("dense", "nowhere.txt", "nowhere.txt does not exist"),
        ("dense", "--json --output-format parquet", "not allowed with argument"),
    ],
)
def test_what_cannot_be_ranked_is_refused_in_a_sentence(run_task: Run, name: str, options: str, said: str) -> None:
    code, out, err = run_task("rerank", name, QUERY, "texts.jsonl", *options.split())
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]


# --- similar ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*MEASURES, "labels"])
def test_pairs_have_the_scores_of_sentence_transformers(
    task_models: dict[str, Exported], run_task: Run, name: str
) -> None:
    pairs = [(QUERY, "the house is red"), ("new", "a cat, new")]
    left, right = zip(*pairs, strict=True)
    if name in ("reranker", "labels"):
        wanted = task_models[name].reference.predict(pairs, batch_size=1).reshape(2, -1)
    else:
        reference = task_models[name].reference
        queries = reference.encode_query if name == "colbert" else reference.encode
        documents = reference.encode_document if name == "colbert" else reference.encode
        scores = reference.similarity(queries(list(left)), documents(list(right)))
        wanted = np.diag(np.asarray(scores))[:, None]
    code, out, err = run_task("similar", name, "--file", "pairs.csv", "--columns", "a", "b")
    assert code == 0
    lines = out.splitlines()
    if name == "labels":
        assert lines.pop(0).split("\t") == ["LABEL_0", "LABEL_1", "LABEL_2"]
    found = np.array([line.split("\t") for line in lines], float)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
    assert MEASURES.get(name, "cross-encoder scores") in err
    code, out, err = run_task("similar", name, *pairs[0], "--json", "-q")
    (row,) = rows(out)
    assert (code, err, row["text1"], row["text2"]) == (0, "", *pairs[0])
    alone = list(row["scores"].values()) if name == "labels" else [row["score"]]
    np.testing.assert_allclose(alone, wanted[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("options", [["--prompt", "the new "], ["--prompt", ""], ["--prompt-name", "query"]])
def test_a_prompt_stands_before_each_text_and_before_the_first_of_a_reranker(
    task_models: dict[str, Exported], run_task: Run, name: str, options: list[str]
) -> None:
    pair = (QUERY, "the house is red")
    reference = task_models[name].reference
    prompt: dict[str, Any] = {options[0].removeprefix("--").replace("-", "_"): options[1]}
    if name == "reranker":
        wanted = reference.predict([pair], **prompt)[0]
    elif name == "colbert":
        sides = reference.encode_query([pair[0]], **prompt), reference.encode_document([pair[1]], **prompt)
        wanted = reference.similarity(*sides)[0][0]
    else:
        first, second = (reference.encode([text], **prompt) for text in pair)
        wanted = reference.similarity(first, second)[0][0]
    code, out, said = run_task("similar", name, *pair, *options)
    assert code == 0, said
    assert float(out) == pytest.approx(float(wanted), rel=1e-4, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "pass both, or --file FILE"),
        (["a"], "pass both, or --file FILE"),
        (["a", "b", "--file", "pairs.csv"], "not both"),
        (["--file", "pairs.csv"], "no column 'text1'; it has 'a', 'b': pass --columns"),
        (["--file", "texts.jsonl", "--columns", "text", "body"], "no key 'body'"),
        (["--file", "texts.jsonl", "--columns", "text", "number"], "the text is of type int"),
        (["--file", "none.txt"], "pairs need jsonl, csv or parquet"),
        (["a", "b", "--prompt-name", "nobody"], "has no prompt 'nobody'; it has document, query; pass --prompt TEXT"),
    ],
)
def test_what_is_no_pair_is_refused_in_a_sentence(run_task: Run, options: list[str], said: str) -> None:
    Path("none.txt").write_text("a\n", encoding="utf-8")
    code, out, err = run_task("similar", "dense", *options)
    assert (code, out) == (2, "")
    assert err.count("\n") == 1
    assert said in err


def test_pairs_come_from_parquet_and_json_too(run_task: Run) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    table = pyarrow.table({"text1": ["a dog", "new"], "text2": ["a cat", "old"], "other": [1, 2]})
    pytest.importorskip("pyarrow.parquet").write_table(table, "pairs.parquet")
    Path("pairs.jsonl").write_text("\n".join(map(json.dumps, table.to_pylist())), encoding="utf-8")
    outs = [run_task("similar", "dense", "--file", name)[1] for name in ("pairs.parquet", "pairs.jsonl")]
    assert (
        outs[0]
        == outs[1]
        == "".join(run_task("similar", "dense", *pair)[1] for pair in (("a dog", "a cat"), ("new", "old")))
    )
