"""`fastembed-rt cache`: exports that were made of checkpoints by their names; listed and cleared."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from ..cache import entries
from ..cache.entries import Cleared, Entry
from ..system.sizes import readable
from ..system.user_cache import VARIABLE

COLUMNS = ("checkpoint", "precision", "task", "size", "last use", "revision or directory")
SECONDS = (("day", 86400), ("hour", 3600), ("minute", 60))


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `cache` and what it does."""
    parser = subparsers.add_parser(
        "cache",
        help="exports of checkpoints that were opened by name: list, clear",
        description="Commands and from_checkpoint export a checkpoint once and keep the model directory. It is in "
        f"{VARIABLE}, else in the user's cache directory ($XDG_CACHE_HOME or ~/.cache, fastembed-rt in there). What is "
        "cleared is exported again when it is asked for. What another process is writing stays: exit code 1.",
    )
    parser.add_argument("action", choices=("list", "clear"), metavar="list|clear", help="show what is there; remove it")
    parser.add_argument(
        "names",
        nargs="*",
        default=[],
        metavar="NAME",
        help="a checkpoint's name or directory, or an entry's (default: all)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """List or clear."""
    return run_clear(args) if args.action == "clear" else run_list(args)


def run_list(args: argparse.Namespace) -> int:
    """Print the entries, the last used first."""
    found = sorted(entries.meant(args.names), key=lambda entry: -entry.used)
    writing = entries.writing()
    if args.json:
        body = {
            "directory": str(entries.folder()),
            "size": sum(entry.size for entry in found),
            "entries": list(map(_as_json, found)),
            "writing": writing,
        }
        print(json.dumps(body, indent=2, ensure_ascii=False))
        return 0
    for line in _table(found):
        print(line)
    total = readable(sum(entry.size for entry in found))
    print(f"{entries.folder()}: {_counted(len(found))}, {total}")
    for stem in writing:
        print(f"being written by another process: {stem}")
    return 0


def run_clear(args: argparse.Namespace) -> int:
    """Remove entries and say what that freed; returns 1 where one had to stay."""
    done = [one for one in entries.clear(args.names) if one.freed or one.left]
    left = [one for one in done if one.left]
    freed = sum(one.freed for one in done)
    if args.json:
        print(json.dumps({"freed": freed, "entries": list(map(asdict, done))}, indent=2, ensure_ascii=False))
    else:
        for line in _cleared(done):
            print(line)
        print(f"{readable(freed)} freed in {entries.folder()}")
        for one in left:
            print(f"left: {one.name}: {one.left}", file=sys.stderr)
    return 1 if left else 0


def _cleared(done: Sequence[Cleared]) -> Iterator[str]:
    for one in done:
        if one.freed:
            yield f"removed: {one.name}, {readable(one.freed)}"


def _as_json(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.directory.name,
        **asdict(entry.origin),
        "task": entry.task,
        "size": entry.size,
        "last_used": entry.used,
        "model": str(entry.model),
    }


def _table(found: Sequence[Entry]) -> Iterator[str]:
    now = datetime.now(UTC).timestamp()
    rows = [COLUMNS]
    for entry in found:
        origin = entry.origin
        options = ", ".join(f"{name}={value}" for name, value in origin.options.items())
        made = origin.precision + (f" for {origin.target}" if origin.target != "cpu" else "")
        where = (origin.revision or "")[:12] if origin.path is None else origin.path
        shown = f"{where} ({options})" if options else where
        rows.append((origin.checkpoint, made, entry.task, readable(entry.size), _ago(now - entry.used), shown))
    if len(rows) == 1:
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _ago(seconds: float) -> str:
    for unit, length in SECONDS:
        count = int(seconds // length)
        if count >= 1:
            return f"{count} {unit}{'' if count == 1 else 's'} ago"
    return "just now"


def _counted(count: int) -> str:
    return f"{count} export{'' if count == 1 else 's'}"
