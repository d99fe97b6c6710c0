"""A contender for tests: the real server around an encoder of a few lines, in this interpreter's own environment.

Its behaviour is options.own["behaviour"]; what it was asked goes to options.own["journal"], one line each.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from benchmarks.compare.adapters import requests_of_pairs
from benchmarks.compare.adapters.server import Adapter, Loaded, Options, main

DIM = 4


def load(options: Options) -> Loaded:
    import numpy as np

    behaviour, name = options.own.get("behaviour", ""), options.own["name"]
    calls = 0
    busy = threading.Lock()

    def encode(texts: list[str]) -> object:
        if behaviour != "one-caller":
            return answer(texts)
        if not busy.acquire(blocking=False):
            raise RuntimeError("already borrowed")
        with contextlib.closing(SimpleNamespace(close=busy.release)):
            time.sleep(0.001)
            return answer(texts)

    def answer(texts: list[str]) -> object:
        nonlocal calls
        calls += 1
        with Path(options.own["journal"]).open("a", encoding="utf-8") as journal:
            journal.write(f"{name} {len(texts)}\n")
        print("a library that writes to stdout")
        if calls > int(options.own.get("good_calls", "0")):
            if behaviour == "hang":
                time.sleep(600)
            if behaviour == "crash":
                print("ERROR: the library said this before it died", file=sys.stderr, flush=True)
                os._exit(3)
            if behaviour == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            if behaviour == "raise":
                raise RuntimeError("no such operator\nand a second line")
        vectors = np.array([[len(text), 1, 2, 3] for text in texts], dtype=np.float32)
        if behaviour == "neighbours":
            vectors[:, 1] += len(texts) / 1000
        return -vectors if behaviour == "wrong" else vectors

    def count_tokens(texts: list[str]) -> list[int]:
        most = 2 if behaviour == "cuts" else 1000
        counts = [min(most, len(text.split()) + 2) for text in texts]  # with two special tokens
        return [count - (count == 16) for count in counts] if behaviour == "miscounts" else counts

    if behaviour == "strays":  # a thread set on a CPU that the process was not given
        begun = threading.Event()

        def stray() -> None:
            os.sched_setaffinity(0, [int(options.own["cpu"])])  # this thread's alone
            begun.set()
            time.sleep(600)

        threading.Thread(target=stray, daemon=True).start()
        begun.wait()
    if behaviour == "refuse":
        raise OSError("no weights")
    if options.own.get("task") == "reranking":
        return requests(encode)
    if options.own.get("task") == "late_interaction":
        return tokens(encode, count_tokens)
    return Loaded(encode=encode, count_tokens=count_tokens, files=[Path(__file__)], facts={"fake": True})


def requests(encode: Any) -> Loaded:
    """A reranker that scores a passage by its length."""

    def scores(asked: list[Any]) -> list[Any]:
        return [encode(passages)[:, 0] for _, passages in asked]

    return Loaded(
        encode=scores,
        count_tokens=requests_of_pairs.token_counter(lambda pairs: [len(" ".join(pair).split()) for pair in pairs]),
        files=[Path(__file__)],
        **requests_of_pairs.FORM,
    )


def tokens(encode: Any, count_tokens: Any) -> Loaded:
    """As many vectors for a text as it has tokens; a single one is asked for as a query."""

    def vectors(texts: list[str]) -> list[Any]:
        return [encode([text] * count) for text, count in zip(texts, count_tokens(texts), strict=True)]

    return Loaded(
        encode=vectors,
        count_tokens=count_tokens,
        files=[Path(__file__)],
        rows=lambda texts: (found.ravel() for found in texts),
        single=lambda texts: encode(["query"]),
    )


if __name__ == "__main__":
    main(Adapter(packages=("numpy", "never-heard-of-it"), modules=("json",), load=load))
