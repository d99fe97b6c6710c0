"""The engine without a server: `encode` of many short texts, and of one text a call. JSON lines in and out."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from fastembed_rt import EmbeddingModel


def main() -> None:
    told = json.loads(sys.argv[1])
    texts = json.loads(Path(told["file"]).read_text(encoding="utf-8"))["texts"]
    model = EmbeddingModel(told["model"], precision=told["precision"], threads=told["threads"])
    model.encode(texts[:64])
    for line in sys.stdin:
        seconds = json.loads(line)["seconds"]
        began, done = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            model.encode(texts)
            done += len(texts)
        rate = done / (time.perf_counter() - began)
        single: list[float] = []
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            sent = time.perf_counter()
            model.encode(texts[len(single) % len(texts)])
            single.append(time.perf_counter() - sent)
        print(json.dumps({"rate": rate, "seconds": sorted(single)}), flush=True)


if __name__ == "__main__":
    main()
