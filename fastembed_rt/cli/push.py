"""`fastembed-rt push`: a model directory to the Hugging Face hub."""

from __future__ import annotations

import argparse
import sys

from ..system.progress import watched
from .arguments import path


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `push` to the command line."""
    parser = subparsers.add_parser(
        "push",
        help="upload a model directory to the Hugging Face hub",
        description="Upload a model directory to the Hugging Face hub in one commit: what its manifest names, the "
        "manifest and the model card, after checking every hash. Files of a directory that was there before and is "
        "replaced are deleted; others stay. Models open under the repository's name, EmbeddingModel('org/name').",
    )
    parser.add_argument("directory", type=path, metavar="DIR", help="model directory")
    parser.add_argument("repository", metavar="REPO", help="org/name; made where it is missing")
    parser.add_argument("--private", action="store_true", help="make a private repository")
    parser.add_argument("--revision", help="branch, made where it is missing (default: main)")
    parser.add_argument("--token", help="hub token with leave to write (default: that of `hf auth login`, or HF_TOKEN)")
    parser.add_argument("--message", help="of the commit")
    parser.add_argument("-q", "--quiet", action="store_true", help="only errors")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Push, and print the commit's address."""
    from ..hub.push import push

    done = push(
        args.directory,
        args.repository,
        private=args.private,
        revision=args.revision,
        token=args.token,
        message=args.message,
        show_progress=watched() and not args.quiet,
    )
    if not args.quiet:
        gone = f", {len(done.deleted)} of an earlier directory deleted" if done.deleted else ""
        print(f"{len(done.files)} files pushed{gone}", file=sys.stderr)
        print(done.url)
    return 0
