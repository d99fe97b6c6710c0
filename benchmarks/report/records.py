"""Read a record of any format into the newest form. Knows files and keys; draws and judges nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import BenchmarkError
from .figures import Record

FILE = "record.json"
REFERENCE = "st-torch"  # the contender that every vector and ratio is held against
FORMATS = (1, 2)
# What the first format always has, and what the second adds; parts that were not asked for may be missing.
NEEDED = ("machine", "settings", "started", "workloads", "contenders", "samples", "latencies", "cold")
LISTS = ("batches", "scaling", "concurrent", "loads")


def path_of(given: Path) -> Path:
    """The record that a folder or a file name stands for."""
    return given / FILE if given.is_dir() else given


def read(given: Path) -> Record:
    """A record, by its folder or its file, with everything that later formats added filled in.

    Raises:
        BenchmarkError: no such file, not a record, or a format that this code does not know.
    """
    path = path_of(given)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BenchmarkError(f"cannot read {path}: {error.strerror}. Name a result's folder or its {FILE}") from None
    except ValueError as error:
        raise BenchmarkError(f"{path} is not JSON: {error}") from None
    if not isinstance(record, dict) or record.get("format") not in FORMATS:
        found = record.get("format") if isinstance(record, dict) else None
        raise BenchmarkError(f"{path} has format {found}; this code reads {' and '.join(map(str, FORMATS))}")
    missing = [key for key in NEEDED if key not in record]
    if missing:
        raise BenchmarkError(f"{path} is not a whole record: it has no {', '.join(missing)}")
    return complete(record)


def complete(record: Record) -> Record:
    """Fill in what is absent, in place: readers then need not ask."""
    for key in LISTS:
        record.setdefault(key, [])
    record.setdefault("kind", "embedding")
    record.setdefault("unit", "texts")
    record["quality"] = {"tasks": [], "skipped": [], **(record.get("quality") or {})}
    record["limits"] = {"shares": {}, "operators": {}, **(record.get("limits") or {})}
    for workload in record["workloads"].values():
        workload.setdefault("group", "texts")
        workload.setdefault("length", None)
    for name, row in record["contenders"].items():
        row.setdefault("ours", name.startswith("rt-"))
        row["precision"] = row.get("precision") or _precision(name, row)
    return record


def workloads(record: Record, group: str) -> list[str]:
    """Names of one group's workloads; lengths in rising order."""
    names = [name for name, row in record["workloads"].items() if row["group"] == group]
    return sorted(names, key=lambda name: record["workloads"][name]["length"] or 0)


def one_call(record: Record) -> str:
    """What a call of the part `latency` has."""
    return "one request" if record.get("unit") == "pairs" else "one text"


def names(record: Record, *, ours: bool | None = None) -> list[str]:
    """Contenders that were compared, in the record's order: all, or only this project's, or only the others."""
    return [
        name
        for name, row in record["contenders"].items()
        if row["status"] == "ok" and (ours is None or row["ours"] == ours)
    ]


def failed(record: Record) -> list[str]:
    """Contenders that were not, or not to the end."""
    return [name for name, row in record["contenders"].items() if row["status"] != "ok"]


def title(record: Record, name: str) -> str:
    """A contender's full name."""
    return str(record["contenders"].get(name, {}).get("title", name))


def label(record: Record, name: str) -> str:
    """A short name for plots: without brackets, "ST" for sentence-transformers, no remark that tells nobody apart."""
    full = title(record, name).split(" (")[0]
    heads = [title(record, other).split(" (")[0].split(",")[0] for other in record["contenders"]]
    head = full.split(",")[0]
    if heads.count(head) == 1:
        return head
    return full.replace("sentence-transformers, ", "ST ")


def _precision(name: str, row: dict[str, Any]) -> str:
    facts = (row.get("load") or {}).get("facts", {})
    if "int8" in name:
        return "int8"
    told = (facts.get("precision"), facts.get("dtype"), facts.get("INFERENCE_PRECISION_HINT"))
    return "bf16" if any("bf" in str(word) for word in told) else "fp32"
