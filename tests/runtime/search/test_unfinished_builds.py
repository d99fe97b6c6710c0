"""A build that is stopped, or goes on while somebody asks: what is there says so, and a whole index stays one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from fastembed_rt import EmbeddingModel, cli
from fastembed_rt.search import Built, Index, build, building, store

NAMES = [f"note-{k}.txt" for k in range(8)]
UNFINISHED = (
    "the build of this index was not finished, so that files may be missing; run: fastembed-rt index build notes"
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "notes").mkdir()
    for k, name in enumerate(NAMES):
        (tmp_path / "notes" / name).write_text(f"a dog runs . {'the house ' * k}", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(building, "TOGETHER", 1)
    monkeypatch.setattr(building, "COMMIT", 0.0)
    return Path("notes")


@pytest.fixture
def make(folder: Path, model: EmbeddingModel, model_dir: Path) -> Callable[..., Built]:
    """Builds the index; stopped after so many files if that is asked for."""

    def make(stop_after: int | None = None, **options: Any) -> Built:
        seen = 0

        def step() -> None:
            nonlocal seen
            if seen == stop_after:
                raise KeyboardInterrupt
            seen += 1

        return build(folder, model, opened_from=str(model_dir), step=step, **options)

    return make


def stopped(make: Callable[..., Built], after: int, **options: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(after, **options)


def test_an_index_says_that_its_build_was_not_finished_until_one_is(
    folder: Path, make: Callable[..., Built], model: EmbeddingModel, capsys: pytest.CaptureFixture[str]
) -> None:
    stopped(make, 3)
    with Index(folder, model) as index:
        assert not index.complete
        assert len(index.files) == 3
    assert cli.main(["search", "which dog ?", "--folder", "notes", "-q"]) == 0
    assert capsys.readouterr().err == f"{UNFINISHED}\n"
    assert cli.main(["index", "info", "notes"]) == 0
    assert UNFINISHED in capsys.readouterr().out.splitlines()
    cli.main(["index", "info", "notes", "--json"])
    assert json.loads(capsys.readouterr().out)["complete"] is False
    assert len(make().added) == len(NAMES) - 3
    with Index(folder, model) as index:
        assert index.complete
    cli.main(["search", "which dog ?", "--folder", "notes", "-q"])
    cli.main(["index", "info", "notes"])
    assert UNFINISHED not in "".join(capsys.readouterr())


def test_a_build_with_nothing_left_to_do_finishes_the_index(
    folder: Path, make: Callable[..., Built], model: EmbeddingModel
) -> None:
    stopped(make, 3)
    for name in NAMES[3:]:
        (folder / name).unlink()
    done = make()
    assert (done.kept, done.encoded) == (3, 0)
    with Index(folder, model) as index:
        assert index.complete


def test_an_index_is_whole_while_it_is_rebuilt_and_the_next_rebuild_goes_on(
    folder: Path, make: Callable[..., Built], model: EmbeddingModel
) -> None:
    make()
    before = store.place(folder).read_bytes()
    (folder / NAMES[7]).write_text("new light", encoding="utf-8")
    stopped(make, 3, rebuild=True)
    assert store.place(folder).read_bytes() == before
    stopped(make, 2, rebuild=True)
    assert store.place(folder).read_bytes() == before
    done = make(rebuild=True)
    assert (done.kept, len(done.added)) == (5, 3)
    assert not store.place(folder).with_name(store.REBUILDING).exists()
    rebuilt = store.place(folder).read_bytes()
    store.place(folder).unlink()
    make()
    assert store.place(folder).read_bytes() == rebuilt  # as if it had been built at once, to the bit


def test_a_rebuild_goes_on_only_from_what_has_its_own_settings(
    folder: Path, make: Callable[..., Built], model: EmbeddingModel
) -> None:
    make()
    stopped(make, 3, rebuild=True)
    done = make(rebuild=True, chunk_tokens=12)
    assert done.kept == 0
    with Index(folder, model) as index:
        assert (index.settings.chunk_tokens, index.complete) == (12, True)
    stopped(make, 3, rebuild=True)
    aside = store.place(folder).with_name(store.REBUILDING)
    aside.write_bytes(aside.read_bytes()[:100])
    assert make(rebuild=True).kept == 0


def test_the_place_of_the_model_is_kept_where_no_file_changed(
    folder: Path, make: Callable[..., Built], model: EmbeddingModel
) -> None:
    make()
    build(folder, model, opened_from="elsewhere")
    about = json.loads(pq.read_schema(store.place(folder)).metadata[store.KEY])
    assert about["settings"]["model"] == "elsewhere"
