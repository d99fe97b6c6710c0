"""What saves work: equal texts, vectors that are remembered or kept between runs, texts that are cut."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
from bulk_jobs import Counting, encoder, execute, expected, vectors, write_jsonl
from exports import contents

from fastembed_rt.bulk import progress
from fastembed_rt.bulk.cache import Cache
from fastembed_rt.bulk.encoder import Remembered
from fastembed_rt.errors import InvalidInputError


def test_equal_texts_are_encoded_once(tmp_path: Path) -> None:
    texts = [f"text {k % 6}" for k in range(40)]
    counting = Counting()
    watch = progress.Watch()
    execute([write_jsonl(tmp_path / "in.jsonl", texts)], tmp_path / "out", counting=counting, watch=watch)
    assert counting.texts == texts[:6]
    assert (watch.counts.duplicates, watch.figures()["duplicate_share"]) == (34, 34 / 40)
    assert vectors(tmp_path / "out").tobytes() == expected(texts).tobytes()
    every = Counting()
    execute([tmp_path / "in.jsonl"], tmp_path / "all", counting=every, dedupe=False)
    assert every.texts == texts
    assert contents(tmp_path / "all") == contents(tmp_path / "out")


def test_where_neighbours_matter_parts_share_nothing(tmp_path: Path) -> None:
    """A resumed run would else have other neighbours than the first one had."""
    counting = Counting()
    model = encoder(counting, invariant=False)
    execute([write_jsonl(tmp_path / "in.jsonl", ["a", "a", "b", "c", "a", "d"])], tmp_path / "out", model=model)
    assert counting.texts == ["a", "b", "c", "a", "d"]


def test_few_vectors_are_remembered() -> None:
    remembered = Remembered(2, np.float32, size=3 * 208)
    for k in range(5):
        remembered.put(bytes([k]), np.full(2, k))
    assert [remembered.get(bytes([k])) is not None for k in range(5)] == [False, False, True, True, True]
    assert remembered.get(b"\x03").tolist() == [3.0, 3.0]


def test_vectors_are_kept_between_runs_by_fingerprint(tmp_path: Path) -> None:
    def run(texts: list[str], fingerprint: str = "a-model") -> list[str]:
        counting = Counting()
        cache = Cache(tmp_path / "cache", fingerprint, 4, np.float32)
        model = encoder(counting, fingerprint=fingerprint)
        execute(
            [write_jsonl(tmp_path / "in.jsonl", texts)],
            tmp_path / "out",
            model=model,
            cache=cache,
            force=True,
            resume=False,
        )
        cache.close()
        assert vectors(tmp_path / "out").tobytes() == expected(texts).tobytes()
        return counting.texts

    assert run(["a", "b", "ü"]) == ["a", "b", "ü"]
    assert run(["b", "c", "ü"]) == ["c"]
    assert run(["a", "c"]) == []
    assert run(["a"], "another") == ["a"]
    for path in (tmp_path / "cache").glob("*.sqlite"):
        with sqlite3.connect(path) as connection:
            connection.execute("UPDATE vectors SET vector = zeroblob(length(vector))")
        connection.close()
    assert run(["a", "b"]) == ["a", "b"]  # damaged ones are missing
    assert run(["a", "b"]) == []


def test_a_cache_that_is_no_database_is_refused(tmp_path: Path) -> None:
    Cache(tmp_path, "f", 4, np.float32).close()
    (path,) = tmp_path.glob("*.sqlite")
    path.write_bytes(b"nothing" * 1000)
    with pytest.raises(InvalidInputError, match=r"--cache .*name another directory, or remove"):
        Cache(tmp_path, "f", 4, np.float32)


def test_a_cache_that_is_damaged_later_is_named_with_what_to_do(tmp_path: Path) -> None:
    texts = [f"text {k}" for k in range(2000)]
    cache = Cache(tmp_path, "f", 4, np.float32)
    cache.put(texts, list(expected(texts)))
    cache.close()
    (path,) = tmp_path.glob("*.sqlite")
    content = bytearray(path.read_bytes())
    content[len(content) // 4 :] = b"\xff" * (len(content) - len(content) // 4)  # the beginning is as it was
    path.write_bytes(content)
    damaged = Cache(tmp_path, "f", 4, np.float32)
    told = rf"--cache {tmp_path}: .*name another directory, or remove {path.name}"
    with pytest.raises(InvalidInputError, match=told):
        execute([write_jsonl(tmp_path / "in.jsonl", texts)], tmp_path / "out", cache=damaged)
    damaged.close()
