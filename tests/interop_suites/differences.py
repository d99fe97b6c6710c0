"""Foreign tests that do not apply to our classes, by what their names hold, and why."""

from __future__ import annotations

from collections.abc import Mapping

Outcomes = Mapping[str, Mapping[str, str]]
WEIGHTS = "needs real checkpoints or the hub: fails with the library's own classes on the stand-ins too"
# (part of the file's name, part of the test's name): why.
REASONS: dict[tuple[str, str], str] = {}


def sorted_out(file: str, theirs: Outcomes, ours: Outcomes) -> tuple[list[str], dict[str, str], dict[str, str]]:
    """Tests that passed; those that failed, with their error; those that do not apply, with the reason."""
    passed: list[str] = []
    failed: dict[str, str] = {}
    left: dict[str, str] = {}
    for test, result in ours.items():
        own = theirs.get(test, {"outcome": "failed", "why": "not there"})
        if own["outcome"] == "skipped":
            left[test] = f"skipped there: {own['why']}"
        elif own["outcome"] != "passed":
            left[test] = WEIGHTS
        elif result["outcome"] == "passed":
            passed.append(test)
        else:
            why = next((why for (place, name), why in REASONS.items() if place in file and name in test), None)
            if why is None:
                failed[test] = result["why"]
            else:
                left[test] = why
    return passed, failed, left
