"""Files in chunks that a model takes whole, and a folder of them that is searched."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fastembed_rt import EmbeddingModel
from fastembed_rt.integrations.mcp.chunks import chunks
from fastembed_rt.integrations.mcp.folder import Folder


def words(texts: list[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def test_paragraphs_are_packed_and_keep_their_lines() -> None:
    text = "one two\n\nthree\nfour five\n  \n\n\nsix seven eight nine\n\nten"
    found = chunks(text, 5, words)
    assert [(part.text, part.first_line, part.last_line) for part in found] == [
        ("one two\n\nthree\nfour five", 1, 4),
        ("six seven eight nine\n\nten", 8, 10),
    ]
    lines = text.split("\n")
    assert all(part.text == "\n".join(lines[part.first_line - 1 : part.last_line]) for part in found)


@pytest.mark.parametrize("text", ["", " \n\n \n", "\n"])
def test_blank_texts_have_no_chunks(text: str) -> None:
    assert chunks(text, 5, words) == []


@pytest.mark.parametrize("limit", [1, 3, 8])
def test_what_is_too_long_is_cut_and_nothing_is_lost(limit: int) -> None:
    sentences = [f"word{k} goes with{k} the rest{k}." for k in range(40)]
    text = " ".join(sentences[:20]) + "\n" + "\n".join(sentences[20:])
    found = chunks(text, limit, words)
    assert all(count <= limit for count in words([part.text for part in found]))
    assert " ".join(" ".join(part.text.split()) for part in found) == " ".join(text.split())
    assert [part.first_line for part in found] == sorted(part.first_line for part in found)


def test_one_long_word_is_cut_too() -> None:
    found = chunks("x" * 100, 10, lambda texts: [len(text) for text in texts])
    assert all(len(part.text) <= 10 for part in found) and "".join(part.text for part in found) == "x" * 100


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
