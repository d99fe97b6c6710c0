"""`embed --shards` on the command line: every kind of model, the vectors of `encode`, and options that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from bulk_jobs import table, vectors
from malloc_heaps import fresh
from task_models import TEXTS, Exported, Run

from fastembed_rt import EmbeddingModel, LateInteractionModel, SparseModel, cli


def test_vectors_are_those_of_encode(run_task: Run, task_models: dict[str, Exported]) -> None:
    code, _, said = run_task("embed", "dense", "texts.jsonl", "--shards", "out", "--part-rows", "2")
    assert code == 0, said
    last = said.splitlines()[-1]  # behind lines of progress, on a slow machine
    assert last.startswith("5 rows in out; this run: 5 of 5 rows, "), said
    code, printed, said = run_task("embed", "dense", "texts.jsonl", "--shards", "out", "--part-rows", "2", "--resume")
    assert (code, printed, said.splitlines()[-1]) == (0, "", "5 rows in out; nothing was left to do"), said
    with EmbeddingModel(task_models["dense"].directory, threads=2) as model:
        assert vectors(Path("out")).tobytes() == model.encode(TEXTS).tobytes()
        reference = task_models["dense"].reference.encode(TEXTS)
        np.testing.assert_allclose(vectors(Path("out")), reference, atol=1e-5)
        assert table(Path("out")).column("number").to_pylist() == [10, 11, 12, 13, 14]
        metadata = table(Path("out")).schema.metadata
        assert metadata[b"fastembed_rt.fingerprint"].decode() == model.fingerprint()


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["--role", "query"], {"prompt_name": "query"}),
        (["--prompt", "a: "], {"prompt": "a: "}),
        (["--output-precision", "ubinary"], {"precision": "ubinary"}),
        (["--truncate-dim", "8", "--output-precision", "float16"], {"truncate_dim": 8, "precision": "float16"}),
    ],
)
@pytest.mark.parametrize("part_format", ["parquet", "npy"])
def test_options_of_encode(
    run_task: Run, task_models: dict[str, Exported], words: list[str], options: dict[str, Any], part_format: str
) -> None:
    code, _, said = run_task("embed", "dense", "texts.jsonl", "--shards", "out", "--shard-format", part_format, *words)
    assert code == 0, said
    with EmbeddingModel(task_models["dense"].directory) as model:
        wanted = model.encode(TEXTS, **options)
    found = vectors(Path("out"))
    assert found.dtype == wanted.dtype
    assert found.tobytes() == wanted.tobytes()


def test_sparse_and_token_vectors(run_task: Run, task_models: dict[str, Exported]) -> None:
    for name, words in (("splade", []), ("colbert", []), ("dense", ["--tokens"])):
        code, _, said = run_task("embed", name, "texts.jsonl", "--shards", name, "--part-rows", "2", *words)
        assert code == 0, said
        again = run_task("embed", name, "texts.jsonl", "--shards", name, "--part-rows", "2", "--resume", *words)
        assert again[0] == 0
    with SparseModel(task_models["splade"].directory) as sparse:
        wanted = sparse.encode(TEXTS)
        found = table(Path("splade"))
        assert found.column("indices").to_pylist() == [vector.indices.tolist() for vector in wanted]
        assert found.column("values").to_pylist() == [vector.values.tolist() for vector in wanted]
    with LateInteractionModel(task_models["colbert"].directory) as late:
        found = table(Path("colbert")).column("token_embeddings").to_pylist()
        assert found == [vector.tolist() for vector in late.embed_documents(TEXTS)]
    with EmbeddingModel(task_models["dense"].directory) as dense:
        found = table(Path("dense"))
        states = dense.encode(TEXTS, output="tokens")
        assert found.column("token_embeddings").to_pylist() == [state.vectors.tolist() for state in states]
        assert found.column("offsets").to_pylist() == [state.offsets.tolist() for state in states]


def test_ranks_templates_and_a_merge_elsewhere(run_task: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for rank in "01":
        words = ["--template", "{number}: {text}", "--columns", "number", "--rank", rank, "--world", "2"]
        assert run_task("embed", "dense", "texts.jsonl", "--shards", f"out-{rank}", *words)[0] == 0
    capsys.readouterr()
    assert cli.main(["embed", "merge", "out-0", "out-1", "-o", "whole"]) == 0
    assert capsys.readouterr().err == "5 rows in 2 parts, whole\n"
    assert table(Path("whole")).column_names == ["number", "embedding"]
    assert table(Path("whole")).column("number").to_pylist() == [10, 11, 12, 13, 14]


def test_vectors_of_long_texts_are_those_of_encode(run_task: Run, task_models: dict[str, Exported]) -> None:
    texts = ["a dog runs " * 40_000, "short", "猫" * 20_000]
    Path("long.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    words = ["--columns", "none"]
    code, _, said = run_task("embed", "dense", "long.jsonl", "--shards", "out", *words)
    assert code == 0, said
    with EmbeddingModel(task_models["dense"].directory) as model:
        assert vectors(Path("out")).tobytes() == model.encode(texts).tobytes()


def test_a_job_has_few_heaps_and_no_pandas(task_models: dict[str, Exported], tmp_path: Path) -> None:
    texts = [f"a dog runs {k}" for k in range(600)]
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), tmp_path / "in.parquet", row_group_size=100)
    code = """
        import os, sys
        from malloc_heaps import heaps
        from fastembed_rt import cli
        from fastembed_rt.bulk import run
        found = []
        write = run.Run._write  # in the writer's thread, while those of the model and the reader are there
        run.Run._write = lambda *given: (write(*given), found.append(heaps()))
        options = ["--threads", "2", "--part-rows", "200", "-q"]
        assert cli.main(["embed", sys.argv[1], sys.argv[2], "--shards", sys.argv[3], *options]) == 0
        print(len(found), max(found) <= max(os.cpu_count() // 4, 1) + 1, "pandas" in sys.modules)
    """
    words = (str(task_models["dense"].directory), str(tmp_path / "in.parquet"), str(tmp_path / "out"))
    assert fresh(code, *words) == "3 True False\n"
    with EmbeddingModel(task_models["dense"].directory) as model:
        assert vectors(tmp_path / "out").tobytes() == model.encode(texts).tobytes()


def test_bad_texts_under_a_policy_of_lengths(run_task: Run, task_models: dict[str, Exported]) -> None:
    texts = ["a", "a dog " * 100, "b"]
    Path("in.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    words = ["--truncation", "error", "--on-error", "skip"]
    assert run_task("embed", "dense", "in.jsonl", "--shards", "out", *words)[0] == 0
    assert table(Path("out")).column("text").to_pylist() == ["a", "b"]
    (line,) = Path("out/_rejects.jsonl").read_text().splitlines()
    assert json.loads(line)["row"] == 2


def test_vectors_are_kept_for_later_runs(run_task: Run) -> None:
    words = ["--cache", "kept", "--metrics-file", "figures.json", "-q"]
    for target, share in (("one", 0.0), ("two", 1.0)):
        assert run_task("embed", "dense", "texts.jsonl", "--shards", target, *words)[0] == 0
        assert json.loads(Path("figures.json").read_text())["cache_share"] == share
    assert vectors(Path("one")).tobytes() == vectors(Path("two")).tobytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--shards", "out", "-o", "x.npy"], "--shards is instead of -o"),
        (["--shards", "out", "--append"], "goes on with --resume"),
        (["--shards", "out", "--resume", "--force"], "pass one of them"),
        (["--shards", "out", "--rank", "0"], "--rank and --world belong together"),
        (["--shards", "out", "--rank", "2", "--world", "2"], "--rank 2 is not one of 2"),
        (["--shards", "out", "--template", "{a}", "--column", "b"], "both say what the text is"),
        (["--shards", "out", "--delimiter", "ab"], "is not one character"),
        (["--shards", "out", "--column", "body"], "no column 'body'; it has 'number', 'text'"),
        (["--shards", "out", "--columns", "body"], "no column 'body'"),
        (["--shards", "out", "--columns", "number", "--shard-format", "npy"], "npy holds vectors alone"),
        (["--shards", "out", "--to", "duckdb://f/t", "--id-column", "key"], "no such column; there are number, text"),
    ],
)
def test_options_that_do_not_fit_are_refused_by_name(run_task: Run, words: list[str], said: str) -> None:
    code, _, err = run_task("embed", "dense", "texts.jsonl", *words)
    assert code == 2
    assert said in err
    assert not Path("out").exists()


def test_parts_do_not_lie_among_the_inputs(run_task: Run) -> None:
    code, _, said = run_task("embed", "dense", ".", "--shards", "out/parts")
    assert code == 2
    assert "--shards out/parts is inside the input ." in said


def test_a_job_reads_no_standard_input_and_npy_no_sparse_vectors(run_task: Run) -> None:
    assert "name files" in run_task("embed", "dense", "--shards", "out")[2]
    code, _, said = run_task("embed", "splade", "texts.jsonl", "--shards", "out", "--shard-format", "npy")
    assert code == 2
    assert "npy holds vectors of one length" in said
    for model, kind, words in (("splade", "sparse vectors", []), ("dense", "token vectors", ["--tokens"])):
        code, _, said = run_task("embed", model, "texts.jsonl", "--shards", "out", "--to", "duckdb://f/t", *words)
        assert (code, f"vectors of one length, and these are {kind}: write parts, without --to" in said) == (2, True)
    assert cli.main(["embed", "merge"]) == 2
