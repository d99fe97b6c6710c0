"""`embed` with models whose vectors are sparse or one a token, beside sentence-transformers."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from task_models import PROMPTS, TEXTS, Exported, Run, rows
from tolerances import REFERENCE, close

from fastembed_rt import cli, manifest


def weights(model: Exported, role: str | None = None) -> Any:
    """(n, words) of sentence-transformers."""
    encode = model.reference.encode if role is None else getattr(model.reference, f"encode_{role}")
    return encode(TEXTS, convert_to_sparse_tensor=False).numpy()


@pytest.mark.parametrize("role", [None, "query", "document"])
def test_sparse_vectors_as_json(task_models: dict[str, Exported], run_task: Run, role: str | None) -> None:
    code, out, err = run_task("embed", "splade", "texts.jsonl", *(["--role", role] if role else []))
    assert code == 0
    wanted = weights(task_models["splade"], role)
    for row, dense, text in zip(rows(out), wanted, TEXTS, strict=True):
        assert row["text"] == text
        assert row["indices"] == sorted(row["indices"])
        found = np.zeros_like(dense)
        found[row["indices"]] = row["values"]
        close(found, dense, REFERENCE)
        assert not np.any(np.array(row["values"]) == 0)
    assert f"weights of {wanted.shape[1]} words" in err
    name = role or "document"  # the default prompt's
    assert f"prompt {name!r} {PROMPTS[name]!r}" in err


def test_sparse_vectors_as_scipy_reads_them(task_models: dict[str, Exported], run_task: Run) -> None:
    sparse = pytest.importorskip("scipy.sparse")
    assert run_task("embed", "splade", "texts.jsonl", "-o", "out.npz")[0] == 0
    found = sparse.load_npz("out.npz")
    wanted = weights(task_models["splade"])
    assert found.shape == wanted.shape
    close(found.toarray(), wanted, REFERENCE)
    with np.load("out.npz") as arrays:
        assert arrays["indices"].dtype == np.int32
        assert arrays["indptr"].tolist() == np.cumsum([0, *(wanted != 0).sum(axis=1)]).tolist()
        assert str(arrays["fingerprint"]).endswith(f"dim{wanted.shape[1]}-raw-float32")


def test_the_same_vectors_give_the_same_npz_to_the_byte(run_task: Run) -> None:
    for name in ("one.npz", "two.npz"):
        assert run_task("embed", "splade", "texts.jsonl", "-o", name)[0] == 0
    assert Path("one.npz").read_bytes() == Path("two.npz").read_bytes()


@pytest.mark.parametrize("numbers", [4_000_000, 20])
def test_sparse_vectors_in_parquet(
    task_models: dict[str, Exported], run_task: Run, monkeypatch: pytest.MonkeyPatch, numbers: int
) -> None:
    """`numbers`: of a row group, so that there is one, or one for every two texts."""
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("fastembed_rt.cli.writers.PARQUET_NUMBERS", numbers)
    options = ["--id-column", "number", "--max-active-dims", "7"]
    assert run_task("embed", "splade", "texts.jsonl", "-o", "out.parquet", *options)[0] == 0
    table = parquet.read_table("out.parquet")
    assert str(table.schema.field("indices").type) == "list<element: int32>"
    assert str(table.schema.field("values").type) == "list<element: float>"
    assert table["id"].to_pylist() == [10, 11, 12, 13, 14]
    assert (parquet.ParquetFile("out.parquet").num_row_groups > 1) == (numbers == 20)
    for row, dense in zip(table.to_pylist(), weights(task_models["splade"]), strict=True):
        heaviest = np.sort(np.argsort(-dense, kind="stable")[:7])
        assert row["indices"] == heaviest.tolist()
        close(np.array(row["values"], np.float32), dense[heaviest], REFERENCE)
    assert table.schema.metadata[b"fastembed_rt.fingerprint"].endswith(b"-top7")


@pytest.mark.parametrize("role", [None, "query", "document"])
def test_token_vectors_of_late_interaction(task_models: dict[str, Exported], run_task: Run, role: str | None) -> None:
    """Documents unless queries are asked for."""
    options = ["--role", role] if role else []
    code, out, err = run_task("embed", "colbert", "texts.jsonl", *options)
    assert code == 0
    encode = getattr(task_models["colbert"].reference, f"encode_{role or 'document'}")
    wanted = [np.asarray(vectors) for vectors in encode(TEXTS)]
    for row, vectors in zip(rows(out), wanted, strict=True):
        close(np.array(row["token_embeddings"], np.float32).reshape(-1, 8), vectors, REFERENCE)
        assert "offsets" not in row
    assert f"as {'queries' if role == 'query' else 'documents'}, dim 8, {sum(map(len, wanted))} token vectors" in err
    assert run_task("embed", "colbert", "texts.jsonl", "-o", "out.npz", *options)[0] == 0
    with np.load("out.npz") as arrays:
        assert set(arrays) == {"token_embeddings", "lengths", "fingerprint"}
        assert arrays["lengths"].tolist() == [len(vectors) for vectors in wanted]
        close(arrays["token_embeddings"], np.concatenate(wanted), REFERENCE)


@pytest.mark.parametrize(
    ("role", "facts"),
    [
        ("document", {"document_skiplist": (7,)}),
        ("query", {"query_skiplist": (7,)}),
        ("query", {"expansion_length": 5, "expansion_fixed": False}),
        ("query", {"expansion_token_id": 7}),
        ("query", {"attend_to_expansion": True}),
    ],
    ids=str,
)
def test_token_vectors_that_the_manifest_alone_makes_others_are_not_appended(
    task_models: dict[str, Exported],
    run_task: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    role: str,
    facts: dict[str, Any],
) -> None:
    other = Path(shutil.copytree(task_models["colbert"].directory, tmp_path / "other"))
    described = manifest.read(other)
    assert described.late_interaction is not None
    replace(described, late_interaction=replace(described.late_interaction, **facts)).write(other)
    words = ["texts.jsonl", "--role", role, "-o", "out.jsonl"]
    assert run_task("embed", "colbert", *words)[0] == 0
    assert cli.main(["embed", str(other), *words, "--append"]) == 2
    assert "holds vectors of" in capsys.readouterr().err
    assert run_task("embed", "colbert", *words, "--append")[0] == 0


def test_token_vectors_of_dense_models_with_offsets(task_models: dict[str, Exported], run_task: Run) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    reference = task_models["dense"].reference
    wanted = [states.numpy() for states in reference.encode(TEXTS, output_value="token_embeddings")]
    offsets = [
        [list(span) for span in reference.tokenizer(text, return_offsets_mapping=True)["offset_mapping"]]
        for text in TEXTS
    ]
    code, out, _ = run_task("embed", "dense", "texts.jsonl", "--tokens")
    assert code == 0
    for row, states, spans in zip(rows(out), wanted, offsets, strict=True):
        close(np.array(row["token_embeddings"], np.float32), states, REFERENCE)
        assert row["offsets"] == spans
    assert run_task("embed", "dense", "texts.jsonl", "--tokens", "-o", "out.parquet")[0] == 0
    table = parquet.read_table("out.parquet")
    width = wanted[0].shape[1]
    assert str(table.schema.field("token_embeddings").type) == (
        f"list<element: fixed_size_list<element: float>[{width}]>"
    )
    for row, states, spans in zip(table.to_pylist(), wanted, offsets, strict=True):
        close(np.array(row["token_embeddings"], np.float32), states, REFERENCE)
        assert row["offsets"] == spans
    assert run_task("embed", "dense", "texts.jsonl", "--tokens", "-o", "out.npz")[0] == 0
    with np.load("out.npz") as arrays:
        close(arrays["token_embeddings"], np.concatenate(wanted), REFERENCE)
        assert arrays["offsets"].tolist() == [span for spans in offsets for span in spans]
        assert arrays["lengths"].tolist() == list(map(len, wanted))


@pytest.mark.parametrize("role", ["query", "document"])
def test_a_role_puts_the_prompt_of_dense_models_in_front(
    task_models: dict[str, Exported], run_task: Run, role: str
) -> None:
    code, out, err = run_task("embed", "dense", "texts.jsonl", "--role", role)
    assert code == 0
    wanted = getattr(task_models["dense"].reference, f"encode_{role}")(TEXTS)
    close(np.array([row["embedding"] for row in rows(out)], np.float32), wanted, REFERENCE)
    assert f"prompt {role!r} {PROMPTS[role]!r}" in err


@pytest.mark.parametrize("ending", ["npz", "jsonl", "parquet"])
@pytest.mark.parametrize("name", ["splade", "colbert"])
def test_no_text_at_all_is_an_output_without_rows(run_task: Run, name: str, ending: str) -> None:
    Path("none.txt").write_text("")
    assert run_task("embed", name, "none.txt", "-o", f"out.{ending}")[0] == 0
    if ending == "npz":
        with np.load("out.npz") as arrays:
            assert len(arrays["lengths" if name == "colbert" else "data"]) == 0
    elif ending == "parquet":
        assert pytest.importorskip("pyarrow.parquet").read_table("out.parquet").num_rows == 0


def test_rows_are_added_to_sparse_vectors_of_the_same_kind_alone(run_task: Run) -> None:
    add = ["embed", "splade", "texts.jsonl", "--append", "-o", "out.jsonl"]
    for _ in range(2):
        assert run_task(*add)[0] == 0
    lines = Path("out.jsonl").read_text(encoding="utf-8").splitlines()
    assert lines[: len(TEXTS)] == lines[len(TEXTS) :]
    code, _, err = run_task(*add, "--max-active-dims", "5")
    assert code == 2
    assert "-top5; write another file" in err
    assert run_task("embed", "splade", "texts.jsonl", "--append", "-o", "out.npz")[:2] == (2, "")


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("splade", "-o x.npy", "npy holds vectors of one length; sparse vectors go into npz, jsonl or parquet"),
        ("colbert", "-o x.npy", "npy holds vectors of one length; token vectors go into npz, jsonl or parquet"),
        ("dense", "--tokens -o x.npy", "token vectors go into npz, jsonl or parquet"),
        ("dense", "-o x.npz", "vectors of one length go into npy, jsonl or parquet"),
        ("splade", "--id-column number -o x.npz", "npz holds vectors only"),
        ("splade", "--truncate-dim 4", "--truncate-dim is not for sparse vectors"),
        ("colbert", "--no-normalize", "--no-normalize is not for token vectors"),
        ("dense", "--tokens --output-precision binary", "--output-precision is not for token vectors"),
        ("splade", "--tokens", "--tokens is not for sparse vectors"),
        ("splade", "--route query", "--route is not for sparse vectors"),
        ("dense", "--max-active-dims 5", "--max-active-dims is not for vectors of one length"),
        ("colbert", "--truncation chunk", "truncation 'chunk' is not for token vectors"),
        ("reranker", "", "scores pairs of texts and has no vectors; use fastembed-rt rerank"),
        ("dense", "--role query --route query", "not allowed with argument"),
    ],
)
def test_what_vectors_cannot_have_is_refused_in_a_sentence(run_task: Run, name: str, options: str, said: str) -> None:
    code, out, err = run_task("embed", name, "texts.jsonl", *options.split())
    assert (code, out) == (2, "")
    assert said in err.splitlines()[-1]
    assert not list(Path().glob("x.*"))


def test_tokens_of_an_export_without_them_name_the_remedy(
    model_dir: Path, run_task: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["embed", str(model_dir), "texts.jsonl", "--tokens", "-o", "out.npz"]) == 3
    assert "export it with: fastembed-rt export --tokens" in capsys.readouterr().err
    assert not Path("out.npz").exists()
