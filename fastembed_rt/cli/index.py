"""`fastembed-rt index`: the files of a folder as chunks and vectors, which `search` looks through."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import InvalidInputError
from ..manifest import EMBEDDING, Manifest
from ..system.paths import expanded
from ..system.sizes import readable
from .arguments import add_variant_options, place, positive
from .filled import HelpFormatter
from .opening import open_model
from .progress import Progress

if TYPE_CHECKING:
    from ..search import Built

EPILOG = """\
example: fastembed-rt index build notes --model my-model
         fastembed-rt search "how do I renew my passport?" --folder notes

txt, md, py, html and pdf files (pdf: fastembed-rt[pdf]) are cut into chunks that the model reads whole. The index is
one Parquet file, FOLDER/.fastembed-rt/index.parquet (fastembed-rt[parquet]), which appears when it is complete. Built
again, it encodes the files whose contents are new and forgets those that are gone. Hidden files are left out, links to
directories not followed.
"""


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `index` and its options."""
    parser = subparsers.add_parser(
        "index",
        help="the files of a folder as vectors, for search: build, and build again what changed",
        description="Build the index of a folder, bring it up to date, or show what is in it.",
        epilog=EPILOG,
        formatter_class=HelpFormatter,
    )
    parser.add_argument("action", choices=("build", "info"), metavar="build|info", help="make it; show what it has")
    parser.add_argument("folder", type=place, metavar="FOLDER", help="the folder with the files")
    parser.add_argument("--model", help="directory or checkpoint of a sentence encoder (default: the index's)")
    add_variant_options(parser)
    parser.add_argument(
        "--chunk-tokens",
        type=positive,
        metavar="N",
        help="most tokens of a chunk (default: 256, or what the model takes)",
    )
    parser.add_argument("--rebuild", action="store_true", help="as if there were no index yet")
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all CPUs that this process may use")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Build or show; returns 0, or raises."""
    return run_info(args) if args.action == "info" else run_build(args)


def run_build(args: argparse.Namespace) -> int:
    """Build, and say what that did."""
    from .. import search  # only here: other commands start without it

    folder = Path(args.folder)
    if not folder.is_dir():
        raise InvalidInputError(f"{folder} is not a directory")
    if args.rebuild and args.model is None:
        raise InvalidInputError("--rebuild needs the model: pass --model MODEL")
    recall(args, folder)
    start = time.perf_counter()
    with open_model(args, encoder) as model, Progress(quiet=args.quiet, unit="files") as progress:
        done = search.build(
            folder,
            model,  # type: ignore[arg-type]  # of the task that `encoder` asks for
            opened_from=anywhere(args.model),
            chunk_tokens=args.chunk_tokens,
            rebuild=args.rebuild,
            step=progress.step,
        )
    if args.json:
        print(json.dumps({**asdict(done), "path": str(done.path)}, ensure_ascii=False))
    elif not args.quiet:
        for name, why in done.skipped.items():
            print(f"skipped: {name}: {why}", file=sys.stderr)
        print(", ".join(_summary(done, time.perf_counter() - start)), file=sys.stderr)
    return 0


def run_info(args: argparse.Namespace) -> int:
    """Print what the index says of itself."""
    from ..search import store
    from ..search.index import UNFINISHED

    stored = store.Stored(store.place(Path(args.folder)))
    try:
        facts = {**asdict(stored.settings), "files": len(stored.files), "chunks": len(stored)}
        facts["complete"] = stored.complete
    finally:
        stored.close()
    size = stored.path.stat().st_size
    if args.json:
        print(json.dumps({"path": str(stored.path), "bytes": size, **facts}, ensure_ascii=False))
        return 0
    print(f"{stored.path}: {facts['files']} files, {facts['chunks']} chunks, {readable(size)}")
    if not facts["complete"]:
        print(f"{UNFINISHED} {args.folder}")
    for name in ("model", "checkpoint", "precision", "documents", "questions", "chunk_tokens", "similarity"):
        print(f"{name.replace('_', ' ')}: {facts[name]}")
    return 0


def recall(args: argparse.Namespace, folder: Path) -> None:
    """Take what is not given from the index: the model and its precision.

    Raises:
        InvalidInputError: no model is given, and there is no index.
    """
    from ..search import store

    path = store.place(folder)
    if args.model is None:
        stored = store.Stored(path)
        args.model = stored.settings.model
        args.precision = args.precision or stored.settings.precision
        stored.close()


def encoder(described: Manifest) -> dict[str, Any]:
    """Refuse models of other tasks before they load; no options of their own."""
    if described.task != EMBEDDING:
        raise InvalidInputError(f"an index holds vectors of a sentence encoder, and this model is for {described.task}")
    return {}


def anywhere(model: str) -> str:
    """A directory by its whole path: the index is asked from elsewhere too."""
    path = expanded(model)
    return str(path.resolve()) if path.is_dir() else model


def _summary(done: Built, seconds: float) -> Iterator[str]:
    yield f"{done.kept + len(done.added) + len(done.changed)} files"
    for name in ("added", "changed", "removed", "skipped"):
        if count := len(getattr(done, name)):
            yield f"{count} {name}"
    yield f"{done.chunks} chunks"
    yield f"{done.encoded} encoded"
    yield f"{seconds:.1f} s"
    yield str(done.path)
