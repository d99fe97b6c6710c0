"""What a benchmark run can fail with: one line each, that says what came and what was possible."""

from __future__ import annotations


class BenchmarkError(Exception):
    """The run as a whole cannot go on: a wrong argument, missing data."""


class ContenderError(Exception):
    """One contender failed, hung or died; it becomes a row that says so and the run goes on."""
