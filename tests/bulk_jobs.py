"""Jobs in parts around an encoder whose vectors tell their texts apart, and what a directory of parts holds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fastembed_rt.bulk import inputs, job, run
from fastembed_rt.bulk.columns import Template
from fastembed_rt.bulk.encoder import Encoder
from fastembed_rt.bulk.job import PartRecord
from fastembed_rt.bulk.progress import Watch
from fastembed_rt.bulk.run import Options
from fastembed_rt.bulk.store import Store, open_store
from fastembed_rt.cli.layouts import Dense
from fastembed_rt.errors import InvalidInputError

WIDTH = 4
TEXTS = [f"text {k % 7} {k}" for k in range(30)]
BAD, ODD = "refused by the model", "not finite"


def vector_of(text: str) -> npt.NDArray[np.float32]:
    """(WIDTH,) float32 that only this text has."""
    if text == ODD:
        return np.full(WIDTH, np.nan, np.float32)
    digest = np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32)
    return (digest[:WIDTH] / 2**32).astype(np.float32)


class Counting:
    """An encoder's `encode` that keeps the texts that it was given."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, texts: list[str], out: Any = None) -> tuple[Any, Sequence[int]]:
        for k, text in enumerate(texts):
            if text == BAD:
                raise InvalidInputError(f"text {k} is {BAD}")
        self.texts += texts
        vectors: list[Any] = [vector_of(text) for text in texts]
        if out is not None:
            out[:] = vectors
        return vectors, [len(text.split()) for text in texts]


def encoder(counting: Counting | None = None, **changes: Any) -> Encoder:
    made: dict[str, Any] = {
        "encode": counting or Counting(),
        "layout": Dense(WIDTH),
        "fingerprint": "a-model",
        "width": WIDTH,
        **changes,
    }
    return Encoder(**made)


def options(**changes: Any) -> Options:
    return Options(**{"template": Template("text", plain=True), "part_rows": 4, **changes})


def execute(
    files: Sequence[Path | str],
    target: Path | str | Store,
    *,
    counting: Counting | None = None,
    model: Encoder | None = None,
    resume: bool = True,
    force: bool = False,
    more: dict[str, Any] | None = None,
    watch: Watch | None = None,
    dedupe: bool = True,
    cache: Any = None,
    sink: Any = None,
    **changes: Any,
) -> dict[int, PartRecord]:
    """A job over files, whole or resumed."""
    prepared = run.prepare(inputs.find(map(str, files)), options(**changes))
    store = open_store(str(target)) if isinstance(target, (str, Path)) else target
    made = model or encoder(counting)
    return run.execute(
        store,
        prepared,
        made,
        more or {},
        resume=resume,
        force=force,
        watch=watch,
        dedupe=dedupe,
        cache=cache,
        sink=sink,
    )


def table(directory: Path) -> Any:
    """All Parquet or Arrow parts as one table, in the order of their names."""
    import pyarrow
    from pyarrow import parquet

    def read(path: Path) -> Any:
        return parquet.read_table(path) if path.suffix == ".parquet" else pyarrow.ipc.open_file(path).read_all()

    return pyarrow.concat_tables([read(path) for path in sorted(directory.glob("part-*"))])


def rejects(directory: Path) -> list[dict[str, Any]]:
    """What is said of the rows without a vector."""
    return [json.loads(line) for line in (directory / job.REJECTS).read_text(encoding="utf-8").splitlines()]


def vectors(directory: Path) -> npt.NDArray[np.float32]:
    """(n, width) of all parts."""
    if any(directory.glob("part-*.npy")):
        return np.concatenate([np.load(path, mmap_mode="r") for path in sorted(directory.glob("part-*.npy"))])
    column = table(directory).column("embedding").combine_chunks()
    return np.asarray(column.flatten()).reshape(len(column), -1)


def expected(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    return np.stack([vector_of(text) for text in texts])


def write_jsonl(path: Path, texts: Sequence[Any], **columns: Sequence[Any]) -> Path:
    """Objects with a number and a text, one a line."""
    rows = [
        {"id": k, "text": text, **{name: values[k] for name, values in columns.items()}} for k, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
