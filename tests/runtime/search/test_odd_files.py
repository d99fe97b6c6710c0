"""Files and folders that cannot be read, or not as they claim, and vectors that are no numbers: each is named."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError
from fastembed_rt.search import Built, Index, build, files
from fastembed_rt.search.codes import NotFiniteError, best, coded

TEXT = "a dog runs ."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("deep/er/cats.txt", "deep/houses.txt", "deeper.txt", "dogs.txt"):
        (tmp_path / "notes" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "notes" / name).write_text(TEXT + name.partition(".")[0].replace("/", " "), encoding="utf-8")
    return tmp_path / "notes"


@pytest.fixture
def make(folder: Path, model: EmbeddingModel, model_dir: Path) -> Callable[[], Built]:
    return lambda: build(folder, model, opened_from=str(model_dir))


@pytest.fixture
def forbid(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], None]:
    """Take the right to list a directory, also from root."""

    def forbid(directory: Path) -> None:
        scan = os.scandir

        def scandir(path: Any = ".") -> Any:
            if Path(path) == directory:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return scan(path)

        monkeypatch.setattr(os, "scandir", scandir)

    return forbid


def test_a_folder_that_cannot_be_read_is_named_and_keeps_what_it_has(
    folder: Path, make: Callable[[], Built], model: EmbeddingModel, forbid: Callable[[Path], None]
) -> None:
    make()
    forbid(folder / "deep")
    (folder / "dogs.txt").write_text("new light", encoding="utf-8")
    done = make()
    assert done.skipped == {"deep/": "Permission denied"}
    assert (done.changed, done.removed) == (["dogs.txt"], [])
    with Index(folder, model) as index:
        assert set(index.files) == {"deep/er/cats.txt", "deep/houses.txt", "deeper.txt", "dogs.txt"}


def test_a_file_that_cannot_be_read_keeps_what_it_has_and_one_that_is_gone_does_not(
    folder: Path, make: Callable[[], Built], model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    read = Path.read_bytes

    def read_bytes(path: Path) -> bytes:
        if path.name == "dogs.txt":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        if path.name == "deeper.txt":
            raise FileNotFoundError(errno.ENOENT, "No such file or directory", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", read_bytes)
    done = make()
    assert done.skipped == {"dogs.txt": "Permission denied", "deeper.txt": "No such file or directory"}
    assert done.removed == ["deeper.txt"]
    with Index(folder, model) as index:
        assert set(index.files) == {"deep/er/cats.txt", "deep/houses.txt", "dogs.txt"}


def test_a_folder_that_cannot_be_listed_at_all_is_an_error(
    folder: Path, make: Callable[[], Built], forbid: Callable[[Path], None]
) -> None:
    forbid(folder)
    with pytest.raises(InvalidInputError, match=r"notes cannot be read \(Permission denied\)"):
        make()


@pytest.mark.parametrize("content", ["<![foo[bar]]> hello", "<p>a</p><![foo ", "a <![& b"])
def test_html_that_the_parser_gives_up_is_named_and_no_other_file_left_out(
    folder: Path, make: Callable[[], Built], content: str
) -> None:
    (folder / "odd.html").write_text(content, encoding="utf-8")
    done = make()
    assert len(done.added) + len(done.skipped) == 5
    for name, why in done.skipped.items():
        assert (name, why.partition(" (")[0]) == ("odd.html", "not HTML that Python's parser reads")


@pytest.mark.skipif(os.name == "nt", reason="names of files are UTF-16 there")
@pytest.mark.parametrize("name", [b"caf\xe9.txt", rb"caf\xe9.txt", "café.txt".encode()])
def test_a_file_is_as_it_was_whatever_its_name(
    folder: Path, make: Callable[[], Built], model: EmbeddingModel, name: bytes
) -> None:
    path = folder / os.fsdecode(name)
    path.write_text(TEXT, encoding="utf-8")
    (stored,) = (file for file in make().added if file.startswith("caf"))
    with Index(folder, model) as index:
        assert not index.is_stale(stored)
        path.write_text("new light", encoding="utf-8")
        assert index.is_stale(stored)


# Vectors that are not finite.


@pytest.fixture
def broken(model: EmbeddingModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddingModel]:
    """Gives NaN for every text with a cat in it."""

    def odd(encode: Callable[..., Any]) -> Callable[..., Any]:
        def found(texts: list[str], **options: Any) -> Any:
            vectors = encode(texts, **options).copy()
            vectors[["cats" in text for text in texts]] = np.nan
            return vectors

        return found

    for name in ("encode_document", "encode_query"):
        model.__dict__[name] = odd(getattr(model, name))
    yield model
    del model.__dict__["encode_document"], model.__dict__["encode_query"]


def test_a_file_with_a_vector_that_is_not_finite_is_named_and_all_others_answer(
    folder: Path, broken: EmbeddingModel, model_dir: Path
) -> None:
    done = build(folder, broken, opened_from=str(model_dir))
    assert done.skipped == {
        "deep/er/cats.txt": "a vector of its text is not finite; take another precision of the model"
    }
    assert done.encoded == done.chunks == 3
    with Index(folder, broken) as index:
        assert len(index.search("which dog ?", 1)) == 1
        with pytest.raises(InvalidInputError, match="the query's vector is not finite"):
            index.search("which cats ?")


def test_what_is_no_number_has_no_code_and_is_the_worst_score() -> None:
    assert best(np.array([1, np.nan, 3, np.nan, 2], np.float32), 1).tolist() == [2]
    assert best(np.array([1, np.nan, 3, np.nan, 2], np.float32), 5).tolist() == [2, 4, 0, 1, 3]
    for odd in (np.nan, np.inf, -np.inf):
        with pytest.raises(NotFiniteError):
            coded(np.array([[1, odd]], np.float32))


# Places.


def test_places_are_counted_as_people_do() -> None:
    text = "\none\n\ntwo\fthree\n"
    places = [1, 6, 10]
    assert list(files.lines_of("a.txt", text, places)) == ["line 2", "line 4", "line 4"]
    assert list(files.lines_of("a.PDF", text, places)) == ["page 1", "page 1", "page 2"]
    assert list(files.lines_of("a.html", text, places)) == ["character 1", "character 6", "character 10"]


def test_lines_of_a_long_file_are_counted_once() -> None:
    """From its beginning for each of the places, it would take minutes."""
    text = "a line\n" * 1_000_000
    places = range(0, len(text), 70)
    start = time.perf_counter()
    found = list(files.lines_of("a.txt", text, places))
    assert time.perf_counter() - start < 5
    assert found[-1] == f"line {10 * (len(places) - 1) + 1}"
