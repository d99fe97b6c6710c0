"""How contenders are driven, over stand-ins for their libraries: nothing of a budget lies idle, nothing exceeds it."""

from __future__ import annotations

import base64
import json
import sys
import threading
import zlib
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from fake_runs import word_tokenizer

from benchmarks.compare.adapters import ctranslate2, fastembed, llama_cpp, onnxruntime_threads
from benchmarks.compare.adapters.server import Options
from fastembed_rt.cli.peak import PROBES

SECONDS = 20  # until a meeting that does not come about fails


@pytest.fixture
def options(tmp_path: Path) -> Options:
    """Two threads, a model directory of two dimensions, texts of as many tokens as words and two more."""
    word_tokenizer().save(str(tmp_path / "tokenizer.json"))
    manifest = {"pooling": ["mean"], "dim": 2, "normalize": False}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    return Options(
        checkpoint="",
        model_dir=str(tmp_path),
        prepared=str(tmp_path),
        calibration="",
        max_length=64,
        threads=2,
        cpus=[],
        own={"compute_type": "int8", "batch_size": "4"},
    )


def texts(lengths: Sequence[int]) -> list[str]:
    return [" ".join(["word"] * (length - 2)) for length in lengths]


class Replicas:
    """ctranslate2.Encoder: remembers what it is given, and lets calls meet if it is told to."""

    made: list[Replicas]

    def __init__(self, path: str, **told: Any) -> None:
        self.told = told
        self.batches: list[list[int]] = []
        self.num_encoders, self.compute_type = told["inter_threads"], told["compute_type"]
        self.meeting: threading.Barrier | None = None
        Replicas.made.append(self)

    def forward_batch(self, rows: list[list[int]]) -> Any:
        self.batches.append([len(row) for row in rows])
        if self.meeting is not None:
            self.meeting.wait(SECONDS)
        states = np.zeros((len(rows), max(map(len, rows)), 2), np.float32)
        for place, row in enumerate(rows):
            states[place, : len(row)] = (len(row), 1)
            states[place, len(row) :] = 1000  # what padding has must not be pooled
        return SimpleNamespace(last_hidden_state=states)


def test_ctranslate2_has_a_replica_a_thread_and_batches_that_run_at_once(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Replicas, "made", [], raising=False)
    monkeypatch.setitem(sys.modules, "ctranslate2", SimpleNamespace(Encoder=Replicas))
    encode = ctranslate2.load(options).encode
    (encoder,) = Replicas.made
    assert (encoder.told["inter_threads"], encoder.told["intra_threads"]) == (2, 1)
    lengths = [4, 60, 8, 30, 5, 60, 7, 33] * 20
    vectors = encode(texts(lengths))
    np.testing.assert_array_equal(vectors, [[length, 1] for length in lengths])
    assert max(map(sum, encoder.batches)) <= ctranslate2.BATCH_TOKENS <= 512
    assert all(max(batch) - min(batch) <= 30 for batch in encoder.batches)  # of like length
    encoder.meeting = threading.Barrier(2)  # broken, and an error, unless two batches are there at once
    np.testing.assert_array_equal(encode(texts([6, 6, 6, 6])), [[6, 1]] * 4)


def test_llama_cpp_has_all_threads_at_a_text_that_comes_alone_and_one_each_at_several(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    used: list[tuple[int, list[int]]] = []
    meeting: threading.Barrier | None = None

    class Context:
        causal, described = False, "a model"

        def __init__(self, model: Any, *, threads: int, tokens: int, texts: int) -> None:
            self.threads, self.inside = threads, threading.Lock()

        def embed(self, rows: Sequence[Sequence[int]], out: Any, places: Sequence[int]) -> None:
            assert self.inside.acquire(blocking=False), "two callers in one context"
            used.append((self.threads, [len(row) for row in rows]))
            if meeting is not None:
                meeting.wait(SECONDS)
            for row, place in zip(rows, places, strict=True):
                out[place] = (len(row), self.threads)
            self.inside.release()

    monkeypatch.setitem(sys.modules, "llama_cpp", MagicMock())
    monkeypatch.setattr(llama_cpp, "CALLBACKS", [])
    monkeypatch.setattr(llama_cpp, "Context", Context)
    split: Any = lambda rows: [[1] * (len(row.split()) + 2) for row in rows]  # noqa: E731
    monkeypatch.setattr(llama_cpp, "own_tokenizer", lambda model, most: split)
    encode = llama_cpp.load(options).encode
    assert encode(texts([9])).tolist() == [[9, 2]]
    assert encode(texts([9, 5, 7])).tolist() == [[9, 1], [5, 1], [7, 1]]
    used.clear()

    meeting = threading.Barrier(2)  # broken, and an error, unless two calls are at work at once
    answers: list[Any] = [None, None]

    def call(number: int) -> None:
        answers[number] = [encode(texts([4 + number])).tolist() for _ in range(3)]

    callers = [threading.Thread(target=call, args=(number,)) for number in range(2)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(2 * SECONDS)
    assert [[row[0][0] for row in found or []] for found in answers] == [[4, 4, 4], [5, 5, 5]]
    assert sorted(threads for threads, _ in used)[:3] == [1, 1, 1]


def test_fastembed_gets_texts_of_like_length_in_small_batches_and_gives_them_back_in_order(
    options: Options, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[list[int]] = []

    class TextEmbedding:
        add_custom_model = staticmethod(lambda **told: None)

        def __init__(self, *words: Any, **told: Any) -> None:
            self.model = MagicMock()

        def embed(self, documents: list[str], batch_size: int = 256) -> Any:
            for first in range(0, len(documents), batch_size):
                batches.append([len(text.split()) for text in documents[first : first + batch_size]])
                yield from (np.array([length, 1], np.float32) for length in batches[-1])

    for name in ("fastembed", "fastembed.common", "fastembed.common.model_description"):
        monkeypatch.setitem(sys.modules, name, MagicMock(TextEmbedding=TextEmbedding))
    lengths = [4, 60, 8, 30, 5, 60, 7, 33] * 20
    vectors = fastembed.load(options).encode(texts([length + 2 for length in lengths]))
    np.testing.assert_array_equal(vectors[:, 0], lengths)
    assert max(map(len, batches)) <= 8
    padded = sum(max(batch) * len(batch) for batch in batches)
    assert padded < 1.05 * sum(lengths)


def test_a_session_without_a_number_of_threads_gets_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession
    monkeypatch.setattr(session, "__init__", session.__init__)  # restored afterwards
    graph = zlib.decompress(base64.b85decode(PROBES["MatMul"]))
    onnxruntime_threads.bound(3)
    own = onnxruntime.SessionOptions()
    own.intra_op_num_threads = 2
    made = [session(graph), session(graph, onnxruntime.SessionOptions()), session(graph, sess_options=own)]
    assert [row.get_session_options().intra_op_num_threads for row in made] == [3, 3, 2]
