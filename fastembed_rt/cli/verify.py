"""`fastembed-rt verify`: a model directory beside its checkpoint, text by text or pair by pair."""

from __future__ import annotations

import argparse
from pathlib import Path

from .. import manifest
from ..errors import InvalidInputError, MissingDependencyError, ModelNotFoundError
from ..hub.resolve import did_you_mean
from ..manifest import replace_text
from ..system.progress import Steps, watched
from .arguments import add_hub_options, min_cosine, path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `verify` to the command line."""
    parser = subparsers.add_parser(
        "verify",
        help="compare a model directory with its checkpoint",
        description="Compare a model directory with its checkpoint in sentence-transformers on torch: the tokens of "
        "each text or pair first, then vectors, scores or weights.",
    )
    parser.add_argument("directory", type=path, help="model directory")
    parser.add_argument("--against", metavar="CHECKPOINT", help="hub id or directory (default: the manifest's source)")
    parser.add_argument("--write", action="store_true", help="put the report into the manifest and the model card")
    parser.add_argument(
        "--min-cosine", type=min_cosine, help="floor for int8 variants, of rerankers a correlation (default: 0.98)"
    )
    parser.add_argument(
        "--trust-remote-code",
        action="store_true",
        help="compare with code of the checkpoint's own, if it has some: runs it",
    )
    add_hub_options(parser)
    parser.add_argument("-q", "--quiet", action="store_true", help="only errors")
    parser.set_defaults(run=run)


def _source(directory: Path) -> str:
    """The checkpoint that a model directory says it is from, where that can be had.

    Raises:
        InvalidInputError: it is from a directory of somebody's, which the hub does not know and need not hear of.
    """
    source = manifest.read(directory).source
    if source.revision is None:
        raise InvalidInputError(
            f"this model was exported from a local directory named {source.checkpoint!r}; pass --against PATH"
        )
    return source.checkpoint


def run(args: argparse.Namespace) -> int:
    """Verify and print the report; ParityError makes the exit code 4."""
    try:
        from fastembed_rt_export.directory.card import CARD_FILE, card, prompts_line
        from fastembed_rt_export.gate.parity import INT8_MIN_COSINE
        from fastembed_rt_export.gate.report import describe, details
        from fastembed_rt_export.pipeline import ExportOptions, check_again
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"{error.name} is not installed; pip install 'fastembed-rt[verify,export]'"
        ) from error
    options = ExportOptions(
        min_cosine=INT8_MIN_COSINE if args.min_cosine is None else args.min_cosine,
        trust_remote_code=args.trust_remote_code,
        revision=args.revision,
        token=args.token,
        cache_dir=args.cache_dir,
        local_files_only=args.local_files_only,
        show_progress=not args.quiet and watched(),
    )
    if not args.directory.exists():
        near = did_you_mean(args.directory)
        raise ModelNotFoundError(f"model directory {args.directory} does not exist{near}; check the path")
    name = args.against or _source(args.directory)
    checked = check_again(args.directory, name, options, Steps(show=not args.quiet))
    if args.write:
        checked.write(args.directory)
        replace_text(args.directory / CARD_FILE, card(checked))
    if not args.quiet:
        prompts = [line for line in (prompts_line(checked),) if line]
        print("\n  ".join([f"parity: {describe(checked.parity)}", *details(checked.parity), *prompts]))
    return 0
