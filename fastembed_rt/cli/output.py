"""The one file that `embed -o` writes: checked before a model loads, with its fingerprint, complete or as it was."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from ..manifest import Manifest
from . import provenance, requests, writers

if TYPE_CHECKING:
    from .opening import Model
    from .requests import Request


class Output:
    """Where vectors go, and what has to fit for that."""

    def __init__(self, args: argparse.Namespace, output_format: str) -> None:
        """Look at what is there; looks at no model.

        Raises:
            InvalidInputError, OutputExistsError: rows that cannot go there, or options that do not fit one another.
        """
        self._args, self._format = args, output_format
        self._stored = requests.stored_as(args)
        self._before = provenance.check_append(args.output, output_format) if args.append else None
        writers.check_target(args.output, force=args.force or args.append)
        provenance.check_beside(args.output, output_format, force=args.force)

    def options(self, described: Manifest) -> dict[str, Any]:
        """Of the class that opens the model; raises where its vectors do not fit the format."""
        made = requests.options(self._args, described)
        writers.check_layout(self._format, requests.layout_of(self._args, described))
        return made

    def asked(self, model: Model) -> Request:
        """What is asked of the model; raises where its vectors do not belong behind those that are there."""
        found = requests.request(model, self._args, self._stored)
        if self._before is not None:
            provenance.check_same(self._args.output, self._before, found.fingerprint)
            provenance.check_end(self._args.output, self._format, found.layout)
        return found

    @contextmanager
    def opened(self, fingerprint: str) -> Iterator[BinaryIO]:
        """The stream for the rows, which are there when the block ends, and so is their fingerprint."""
        args = self._args
        with writers.open_target(args.output, self._format, force=args.force, append=args.append) as stream:
            yield stream
            if self._before is None:
                provenance.forget(args.output, self._format)
        provenance.remember(args.output, self._format, fingerprint)
