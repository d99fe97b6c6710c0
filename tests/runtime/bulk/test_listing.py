"""Which files a directory or a pattern stands for: what cannot be looked at is named, and nothing is left out."""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fastembed_rt.bulk import inputs, listing
from fastembed_rt.errors import InvalidInputError

NAMES = ["a.txt", "B.txt", "[c].txt", "d.txt/e.txt", "deep/er/f.txt", "deep/g.txt", "deep/.h/i.txt", ".j.txt", "k.md"]
PATTERNS = ["*", "*.txt", "**/*.txt", "**", "deep/**/*.txt", "**/g.txt", "[ab].txt", "?.txt", "*/*/f.txt", ".*.txt"]


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in NAMES:
        (tmp_path / "corpus" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "corpus" / name).write_text(f"{name}\n")
    monkeypatch.chdir(tmp_path)
    return Path("corpus")


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


def names(given: str) -> list[str]:
    return [Path(source.name).as_posix() for source in inputs.find([given])]


@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("start", ["corpus/", "./corpus/", "corpus/../corpus/", "*/", "**/", ""])
def test_a_pattern_is_what_glob_makes_of_it(corpus: Path, start: str, pattern: str) -> None:
    pattern = start + pattern
    found = {Path(name) for name in glob.glob(pattern, recursive=True) if Path(name).is_file()}  # noqa: PTH207
    assert {Path(name) for name in listing.matching(pattern) if Path(name).is_file()} == found
    absolute = str(Path.cwd() / pattern)
    assert {Path(name).resolve() for name in listing.matching(absolute) if Path(name).is_file()} == {
        name.resolve() for name in found
    }


@pytest.mark.parametrize("given", ["corpus", "corpus/**/*.txt", "corpus/*/*/*.txt", "**/f.txt"])
def test_a_directory_that_cannot_be_read_is_named(corpus: Path, forbid: Callable[[Path], None], given: str) -> None:
    assert "corpus/deep/er/f.txt" in names(given)
    forbid(corpus / "deep" / "er")
    with pytest.raises(InvalidInputError, match=r"er cannot be read \(Permission denied\); its files would be missing"):
        names(given)


def test_a_hidden_directory_need_not_be_readable(corpus: Path, forbid: Callable[[Path], None]) -> None:
    forbid(corpus / "deep" / ".h")
    assert names("corpus") == names("corpus/**/*.txt") == sorted(f"corpus/{name}" for name in NAMES if _is_read(name))


def _is_read(name: str) -> bool:
    return name.endswith(".txt") and not any(part.startswith(".") for part in name.split("/"))


@pytest.mark.skipif(os.name == "nt", reason="links want rights there")
@pytest.mark.parametrize("given", ["corpus", "corpus/**/*.txt", "corpus/*.txt", "corpus/gone.txt"])
def test_a_link_to_nothing_is_no_input_that_may_be_missing(corpus: Path, given: str) -> None:
    (corpus / "gone.txt").symlink_to("nowhere.txt")
    with pytest.raises(InvalidInputError, match=r"gone\.txt (is gone, or links to nothing|does not exist)"):
        names(given)


@pytest.mark.skipif(os.name == "nt", reason="links want rights there")
def test_links_that_lead_around_give_each_file_once(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "l.txt").write_text("l\n")
    before = names("corpus/**/*.txt")
    for place in (corpus, corpus / "deep", tmp_path / "elsewhere"):
        (place / "around").symlink_to(corpus.resolve())
        (place / "back").symlink_to(place.resolve())
    assert names("corpus/**/*.txt") == before
    (corpus / "link").symlink_to(tmp_path / "elsewhere")
    assert names("corpus/**/*.txt") == sorted([*before, "corpus/link/l.txt"])
    assert names("corpus") == sorted(before)  # which follows no link


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
@pytest.mark.parametrize("given", ["corpus", "corpus/*.txt", "corpus/pipe.txt"])
def test_a_pipe_is_refused_which_could_not_be_read_twice(corpus: Path, given: str) -> None:
    os.mkfifo(corpus / "pipe.txt")
    with pytest.raises(InvalidInputError, match=r"pipe\.txt is a pipe or a device, which is read once"):
        names(given)
