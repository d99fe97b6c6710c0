"""Files of rows in every format, and what is read of them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

from fastembed_rt.bulk import inputs, readers
from fastembed_rt.bulk.columns import Template
from fastembed_rt.bulk.readers import Dialect
from fastembed_rt.bulk.rows import Skip
from fastembed_rt.bulk.streams import Meter

TEXTS = ["a dog", "", 'says "no", then', "über 猫 🐈", " two  spaces ", "line\nbreak", "x" * 3000]
LINES = [text for text in TEXTS if "\n" not in text]
TEXT = Template("text", plain=True)


def rows_of(
    files: Sequence[Path | str], *, rank: int = 0, world: int = 1, skip: int = 0, chosen: Any = None, **dialect: Any
) -> list[Any]:
    """All rows as objects, faults as their reasons."""
    sources = inputs.find(map(str, files))
    plan = readers.plan(sources, TEXT, chosen, Dialect(**dialect))
    found: list[Any] = []
    pieces = inputs.share(sources, rank, world)
    for block in readers.read(pieces, plan, Dialect(**dialect), Skip(skip), Meter()):
        rows = block.table.to_pylist()
        for k, reason in block.faults.items():
            rows[k] = reason
        found += rows
    return found


def texts_of(*files: Path | str, **options: Any) -> list[str]:
    return [row["text"] for row in rows_of(files, **options)]


def write(path: Path, texts: Sequence[str]) -> Path:
    """A file of the format that its name says, with an id for each text where the format has room."""
    rows = [{"id": k, "text": text} for k, text in enumerate(texts)]
    kind = path.suffix
    content = io.BytesIO()
    if kind == ".txt":
        content.write("".join(text + "\n" for text in texts).encode())
    elif kind == ".jsonl":
        content.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    elif kind == ".json":
        content.write(json.dumps(rows, indent=2).encode())
    elif kind in (".csv", ".tsv"):
        sheet = io.StringIO(newline="")
        writer = csv.DictWriter(sheet, ["id", "text"], delimiter="," if kind == ".csv" else "\t")
        writer.writeheader()
        writer.writerows(rows)
        content.write(sheet.getvalue().encode())
    elif kind == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), content, row_group_size=2)
    elif kind == ".arrow":
        made = pyarrow.Table.from_pylist(rows)
        with pyarrow.ipc.new_file(content, made.schema) as writer:
            writer.write_table(made, max_chunksize=3)
    path.write_bytes(content.getvalue())
    return path
