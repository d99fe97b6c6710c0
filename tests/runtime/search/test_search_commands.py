"""`index build`, `index info` and `search` as they are typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cross_encoders import save_cross_encoder
from exports import quick

from fastembed_rt import EmbeddingModel, cli
from fastembed_rt.search import Index
from fastembed_rt.search.chunks import sentences

QUESTION = "which dog runs ?"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command where there is a folder notes with two files: (exit code, out, err)."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "dogs.txt").write_text("a dog runs quickly . the cat sleeps !\n\nnew light", encoding="utf-8")
    (tmp_path / "notes" / "houses.md").write_text("# the house\n\nthe house is red\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return cli.main([*map(str, words)]), *capsys.readouterr()

    return run


def test_from_a_folder_to_a_hit(run: Run, model_dir: Path, model: EmbeddingModel) -> None:
    code, out, err = run("index", "build", "notes", "--model", model_dir, "--threads", 1)
    assert (code, out) == (0, "")
    assert err.startswith("2 files, 2 added, ")
    with Index(Path("notes"), model) as index:
        wanted = index.search(QUESTION, 2)
        count = len(index)
    code, out, err = run("search", QUESTION, "--folder", "notes", "-k", 2)
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == f"{wanted[0].score:.3f}  {wanted[0].file}, {wanted[0].line}"
    marked = wanted[0].text[wanted[0].highlight[0] - wanted[0].start : wanted[0].highlight[1] - wanted[0].start]
    assert f"**{' '.join(marked.split())}**" in lines[1]
    assert len(lines) == 4
    assert err.startswith(f"{count} chunks of 2 files, ")
    (Path("notes") / wanted[0].file).write_text("changed", encoding="utf-8")
    (code, out, err) = run("search", QUESTION, "--folder", "notes", "-k", 1, "--json", "-q")
    (found,) = map(json.loads, out.splitlines())
    assert (found["score"], found["file"], found["stale"]) == (wanted[0].score, wanted[0].file, True)
    assert [found["start"], found["stop"], found["highlight"]] == [
        wanted[0].start,
        wanted[0].stop,
        list(wanted[0].highlight),
    ]
    assert err == ""
    assert "(the file has changed since)" in run("search", QUESTION, "--folder", "notes", "-k", 1)[1]
    done = json.loads(run("index", "build", "notes", "--json")[1])  # by the model of the index
    assert (done["changed"], done["kept"]) == ([wanted[0].file], 1)


@pytest.mark.parametrize(
    ("text", "letters", "around", "everything"),
    [
        ("the tree . a dog . the river", 7, "... tree . **a dog .** the ...", "the tree . **a dog .** the river"),
        ("東京。犬。川川川", 2, "... 京。 **犬。** 川川 ...", "東京。 **犬。** 川川川"),
    ],
    ids=["words", "no blanks"],
)
def test_what_is_shown_is_around_the_sentence_and_all_of_it_when_asked(
    run: Run, model_dir: Path, monkeypatch: pytest.MonkeyPatch, text: str, letters: int, around: str, everything: str
) -> None:
    monkeypatch.setattr("fastembed_rt.cli.search.AROUND", letters)
    monkeypatch.setattr("fastembed_rt.search.index.sentences", lambda text: sentences(text)[1:2])
    Path("notes", "houses.md").unlink()
    Path("notes", "dogs.txt").write_text(text, encoding="utf-8")
    run("index", "build", "notes", "--model", model_dir)
    words = ("search", QUESTION, "--folder", "notes", "-k", 1, "-q")
    shown, whole = (run(*words, *more)[1].splitlines()[1].strip() for more in ((), ("--whole",)))
    assert (shown, whole) == (around, everything)


def test_the_folder_is_this_one_unless_another_is_named(
    run: Run, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("index", "build", "notes", "--model", os.path.relpath(model_dir), "-q") == (0, "", "")
    monkeypatch.chdir(tmp_path / "notes")  # the model is found from there too
    code, out, _ = run("search", QUESTION)
    assert code == 0
    assert out


def test_info_says_what_made_it(run: Run, model_dir: Path, model: EmbeddingModel) -> None:
    run("index", "build", "notes", "--model", model_dir)
    code, out, _ = run("index", "info", "notes")
    assert code == 0
    assert "notes/.fastembed-rt/index.parquet: 2 files, " in out
    assert f"documents: {model.fingerprint(prompt_name='document', normalize=True)}\n" in out
    facts = json.loads(run("index", "info", "notes", "--json")[1])
    assert (facts["files"], facts["chunk_tokens"], facts["precision"]) == (2, 16, "fp32")


def test_a_reranker_by_name(run: Run, model_dir: Path, tmp_path: Path) -> None:
    quick(save_cross_encoder(tmp_path / "ranker"), tmp_path / "ranker-onnx")
    run("index", "build", "notes", "--model", model_dir)
    code, out, _ = run("search", QUESTION, "--folder", "notes", "--reranker", tmp_path / "ranker-onnx", "--json")
    assert code == 0
    found = [json.loads(line)["score"] for line in out.splitlines()]
    assert found == sorted(found, reverse=True)
    code, _, err = run("search", QUESTION, "--folder", "notes", "--reranker", model_dir)
    assert code == 2
    assert "--reranker is a reranker or a late-interaction model, not one for embedding" in err
    quick(save_cross_encoder(tmp_path / "labels", labels=3), tmp_path / "labels-onnx")
    code, _, err = run("search", QUESTION, "--folder", "notes", "--reranker", tmp_path / "labels-onnx")
    assert code == 2
    assert (
        "--reranker gives 3 scores a pair (LABEL_0, LABEL_1, LABEL_2), so it has no order of relevance; give one" in err
    )
    assert "predict" not in err


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("search x --folder notes", 2, "does not exist; make it with: fastembed-rt index build notes --model MODEL"),
        ("index build notes", 2, "does not exist; make it with: fastembed-rt index build notes --model MODEL"),
        ("search x --folder nowhere", 2, "nowhere is not a directory; give the folder whose files are searched"),
        ("index info nowhere", 2, "nowhere is not a directory; give the folder"),
        ("search '' --folder notes", 2, "the query is empty"),
        ("index build nowhere --model M", 2, "nowhere is not a directory"),
        ("index build notes --model M --rebuild --chunk-tokens 99", 2, "longer than what the model takes, 16"),
        ("index build notes --rebuild", 2, "--rebuild needs the model"),
        ("index build notes --model R", 2, "an index holds vectors of a sentence encoder"),
        ("index show notes", 2, "invalid choice: 'show'"),
    ],
)
def test_what_is_not_possible(
    run: Run, words: str, code: int, said: str, model_dir: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    names: dict[str, Any] = {"M": model_dir}
    if "R" in words.split():
        root = tmp_path_factory.mktemp("ranker")
        quick(save_cross_encoder(root / "ranker"), root / "onnx")
        names["R"] = root / "onnx"
    found = run(*("" if word == "''" else names.get(word, word) for word in words.split()))
    assert found[0] == code
    assert said in found[2]
    assert found[1] == ""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are Unicode whatever the locale")
def test_a_folder_whose_name_the_locale_cannot_write(run: Run, model_dir: Path, tmp_path: Path) -> None:
    """In a container without a locale Python has such names with surrogates, which pyarrow does not take."""
    (tmp_path / "notes").rename(tmp_path / "n\N{LATIN SMALL LETTER O WITH DIAERESIS}tes")
    plain = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    for words in (["index", "build", "--model", str(model_dir)], ["search", QUESTION, "--folder"], ["index", "info"]):
        command = [sys.executable, "-m", "fastembed_rt", *words, "n\u00f6tes"]
        done = subprocess.run(command, env={**os.environ, **plain}, capture_output=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
