"""Files in chunks that a model takes whole, and a folder of them that is searched."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastembed_rt import EmbeddingModel
from fastembed_rt.errors import InvalidInputError
from fastembed_rt.integrations.mcp.folder import Folder
from fastembed_rt.search.chunks import Chunker


def test_a_chunk_says_its_lines(model: EmbeddingModel, tmp_path: Path) -> None:
    text = "\n\n".join(f"the dog runs to the house {k}.\nthe cat sleeps." for k in range(30))
    (tmp_path / "long.md").write_text(f"\n{text}\n", encoding="utf-8")
    (tmp_path / "blank.md").write_text(" \n\n \n", encoding="utf-8")
    lines = f"\n{text}\n".split("\n")
    found = Folder(tmp_path, model).search("a dog", 100)
    assert found.files == 2
    assert len(found.hits) > 5
    for hit in found.hits:
        assert hit.text in "\n".join(lines[hit.first_line - 1 : hit.last_line])
        assert hit.text.split("\n")[0] in lines[hit.first_line - 1]
        assert hit.text.split("\n")[-1] in lines[hit.last_line - 1]


def test_chunks_are_whole_for_the_model(model: EmbeddingModel, tmp_path: Path) -> None:
    before = model.stats.truncated
    (tmp_path / "long.md").write_text("the dog and the cat run to the house. " * 40, encoding="utf-8")
    found = Folder(tmp_path, model).search("a dog", 100)
    assert len(found.hits) > 20
    assert model.stats.truncated == before


def test_the_order_is_that_of_the_models_similarity(model: EmbeddingModel, tmp_path: Path) -> None:
    texts = ["a dog runs", "the house is red", "a cat sleeps", "light over the river"]
    for k, text in enumerate(texts):
        (tmp_path / f"{k}.txt").write_text(text, encoding="utf-8")
    found = Folder(tmp_path, model).search("where is the dog ?", 3)
    scores = model.similarity(model.encode_document(texts), model.encode_query("where is the dog ?")[None])[:, 0]
    order = np.argsort(-scores, kind="stable")[:3]
    assert [hit.text for hit in found.hits] == [texts[k] for k in order]
    np.testing.assert_allclose([hit.score for hit in found.hits], scores[order], rtol=0, atol=1e-6)
    assert (found.files, found.left_out, found.scored_by) == (4, 0, "vectors")


def test_links_that_lead_in_a_circle_are_left_out(model: EmbeddingModel, tmp_path: Path) -> None:
    (tmp_path / "dogs.md").write_text("a dog runs", encoding="utf-8")
    (tmp_path / "circle.md").symlink_to("circle.md")
    (tmp_path / "one.md").symlink_to("two.md")
    (tmp_path / "two.md").symlink_to("one.md")
    (tmp_path / "again.md").symlink_to("dogs.md")
    assert [hit.path for hit in Folder(tmp_path, model).search("a dog", 5).hits] == ["again.md", "dogs.md"]
    with pytest.raises(InvalidInputError, match="is no folder"):
        Folder(tmp_path / "circle.md", model)


@pytest.mark.parametrize("where", ["cutting", "encoding"])
def test_a_file_that_the_model_does_not_take_is_counted_and_the_others_are_found(
    larger: EmbeddingModel, tmp_path: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if where == "encoding":  # as a token that comes of a cut alone
        monkeypatch.setattr(Chunker, "__call__", lambda self, text, *, code=False: [(0, len(text))])
    (tmp_path / "dogs.txt").write_text("a dog runs", encoding="utf-8")
    (tmp_path / "odd.txt").write_text("a dog word250 runs", encoding="utf-8")
    folder = Folder(tmp_path, larger)
    for _ in range(2):
        found = folder.search("a dog", 5)
        assert ([hit.path for hit in found.hits], found.files, found.left_out) == (["dogs.txt"], 1, 1)
    (tmp_path / "odd.txt").write_text("a cat", encoding="utf-8")
    found = folder.search("a dog", 5)
    assert (found.files, found.left_out) == (2, 0)
    (tmp_path / "odd.txt").unlink()
    assert folder.search("a dog", 5).files == 1


def test_a_folder_that_cannot_be_listed_is_counted_and_the_other_files_are_found(
    model: EmbeddingModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("dogs.txt", "deep/cats.txt"):
        (tmp_path / name).write_text("a dog runs", encoding="utf-8")
    scan = os.scandir

    def scandir(path: Any = ".") -> Any:
        if Path(path).name == "deep":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", scandir)
    found = Folder(tmp_path, model).search("a dog", 5)
    assert ([hit.path for hit in found.hits], found.left_out) == (["dogs.txt"], 1)
