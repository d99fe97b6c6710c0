"""Commands on checkpoints: exported once, looked at without exporting; the cache listed and cleared."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import TEXTS, reference_vectors, save_sentence_transformers
from tolerances import close

from fastembed_rt import EmbeddingModel, cli
from fastembed_rt.cache import entries
from fastembed_rt.system import locks


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FASTEMBED_RT_CACHE", str(tmp_path / "kept"))
    return tmp_path / "kept" / "exports"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sentence_transformers(tmp_path_factory.mktemp("made") / "mine")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command: exit code, standard output, standard error."""

    def run(*words: object) -> tuple[int, str, str]:
        code = cli.main([str(word) for word in words])
        return code, *capsys.readouterr()

    return run


def export(checkpoint: Path, **options: Any) -> Path:
    with EmbeddingModel.from_checkpoint(checkpoint, verify=False, **options) as model:
        return model.path.parent


def test_embed_takes_a_checkpoint_and_says_on_no_terminal_what_it_does(
    checkpoint: Path, tmp_path: Path, run: Any, cache: Path
) -> None:
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps(text) for text in TEXTS))
    for _ in range(2):
        code, out, err = run("embed", checkpoint, tmp_path / "in.jsonl", "-o", tmp_path / "out.npy", "--force")
        assert (code, out, err.count("\n")) == (0, "", 1), err
        close(np.load(tmp_path / "out.npy"), reference_vectors(checkpoint))
    (entry,) = entries.entries()
    assert (entry.origin.checkpoint, entry.origin.options) == ("mine", {})


def test_bench_takes_a_checkpoint_in_a_precision(checkpoint: Path, run: Any) -> None:
    export(checkpoint, precision="fp32")
    code, out, err = run("bench", checkpoint, "--seconds", "0.1", "--json", "--threads", "1", "--precision", "fp32")
    assert code == 0, err
    assert [result["precision"] for result in json.loads(out)["results"]] == ["fp32"]


def test_info_looks_at_what_is_there_and_exports_nothing(checkpoint: Path, run: Any, cache: Path) -> None:
    code, out, err = run("info", checkpoint)
    assert (code, out) == (3, "")
    assert f"no export of it is in the cache {cache}; make a model directory with: fastembed-rt export" in err
    assert not list(cache.glob("*.lock"))
    place = export(checkpoint, pooling="cls")
    code, out, _ = run("info", checkpoint, "--json")
    assert code == 0
    assert json.loads(out)["manifest"]["pooling"] == ["cls"]
    assert str(place) in out


def test_list_says_what_there_is(checkpoint: Path, run: Any, cache: Path) -> None:
    assert run("cache", "list") == (0, f"{cache}: 0 exports, 0 B\n", "")
    place = export(checkpoint)
    export(checkpoint, pooling="cls", precision="int8")
    code, out, _ = run("cache", "list")
    assert code == 0
    first, second = (line.split("  ") for line in out.splitlines()[1:3])
    assert {first[0], second[0]} == {"mine"}
    assert {"int8", "just now"} <= {word.strip() for word in first}  # the last used
    assert f"{checkpoint} (pooling=cls, verify=False)" in out
    assert out.splitlines()[3].startswith(f"{cache}: 2 exports, ")
    body = json.loads(run("cache", "list", "--json", place.name)[1])
    (entry,) = body["entries"]
    files = [file for file in place.rglob("*") if file.is_file()]
    assert entry["size"] == body["size"] == sum(file.stat().st_size for file in files)
    assert entry["model"] == str(place / "model")
    assert (entry["precision"], entry["task"], entry["path"]) == ("fp32", "embedding", str(checkpoint))


def test_opening_an_export_is_a_use_and_looking_at_it_is_none(checkpoint: Path, run: Any) -> None:
    import os

    place = export(checkpoint)
    os.utime(place / "entry.json", (1e9, 1e9))
    run("info", checkpoint)
    assert entries.entries()[0].used == 1e9
    export(checkpoint)
    assert entries.entries()[0].used > 1e9


@pytest.mark.parametrize("name", ["mine", "path", "entry", "export's path"])
def test_clear_removes_what_is_named(checkpoint: Path, run: Any, cache: Path, tmp_path: Path, name: str) -> None:
    place = export(checkpoint)
    other = save_sentence_transformers(tmp_path / "another")
    export(other)
    named = {"mine": "mine", "path": checkpoint, "entry": place.name, "export's path": place}[name]
    size = entries.entries()[0].size
    code, out, err = run("cache", "clear", named)
    assert (code, err) == (0, "")
    assert out.startswith("removed: mine (fp32), ")
    assert " freed in " in out.splitlines()[-1]
    assert size > 0
    assert [entry.origin.checkpoint for entry in entries.entries()] == ["another"]
    assert not list(cache.glob(f"{place.name.rpartition('.')[0]}*"))


def test_clear_without_names_leaves_nothing(checkpoint: Path, run: Any, cache: Path) -> None:
    export(checkpoint)
    export(checkpoint, pooling="cls")
    sizes = [entry.size for entry in entries.entries()]
    code, out, _ = run("cache", "clear", "--json")
    assert code == 0
    assert json.loads(out)["freed"] == sum(sizes)
    assert list(cache.iterdir()) == []
    assert run("cache", "clear") == (0, f"0 B freed in {cache}\n", "")


def test_clear_leaves_what_is_being_written(checkpoint: Path, run: Any) -> None:
    export(checkpoint)
    (entry,) = entries.entries()
    with locks.locked(entries.lock_of(entry.stem)):
        code, out, err = run("cache", "clear")
        assert code == 1
        assert out.startswith("0 B freed in ")
        assert err == "left: mine (fp32): another process is writing it\n"
        assert run("cache", "list")[1].endswith(f"being written by another process: {entry.stem}\n")
        assert json.loads(run("cache", "list", "--json")[1])["writing"] == [entry.stem]
    assert entries.entries() == [entry]
    assert run("cache", "clear")[0] == 0


def test_a_name_that_is_not_there_is_said_and_nothing_is_cleared(checkpoint: Path, run: Any) -> None:
    export(checkpoint)
    for action in ("clear", "list"):
        code, out, err = run("cache", action, "mine", "nobody")
        assert (code, out) == (3, "")
        assert "nobody is not in the cache" in err
        assert "which has mine" in err
    assert len(entries.entries()) == 1


def test_files_of_others_in_the_cache_stay(checkpoint: Path, run: Any, cache: Path) -> None:
    export(checkpoint)
    (cache / "notes.txt").write_text("mine")
    (cache / "folder.embedding").mkdir()
    run("cache", "clear")
    assert sorted(path.name for path in cache.iterdir()) == ["folder.embedding", "notes.txt"]


def test_the_action_is_one_of_two(run: Any) -> None:
    assert run("cache", "empty")[0] == 2


def test_the_place_is_the_users_cache_directory_unless_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, run: Any
) -> None:
    monkeypatch.delenv("FASTEMBED_RT_CACHE")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "xdg"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    place = tmp_path / "xdg" / "fastembed-rt" / "exports"
    assert json.loads(run("cache", "list", "--json")[1]) == {
        "directory": str(place),
        "size": 0,
        "entries": [],
        "writing": [],
    }
    assert not place.exists()
