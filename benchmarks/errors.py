"""What a benchmark run can fail with: one line each, that says what came and what was possible."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from fastembed_rt import FastembedRtError


class BenchmarkError(Exception):
    """The run as a whole cannot go on: a wrong argument, missing data."""


class ContenderError(Exception):
    """One contender failed, hung or died; it becomes a row that says so and the run goes on."""


def printed(result: Callable[[argparse.Namespace], str], args: argparse.Namespace) -> int:
    """Print what a command makes of its arguments: exit code 0, or 2 and one line where arguments or data are wrong."""
    try:
        print(result(args))
    except (BenchmarkError, FastembedRtError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0
