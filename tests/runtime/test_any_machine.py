"""The helpers that let tests pass on any machine: tolerances that follow lengths, signals as at a terminal."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from signals import of_a_terminal
from tolerances import REORDERED, close

ROW = np.full(25, 1.0, np.float32)  # of length five


def test_a_difference_counts_by_the_length_of_its_vector() -> None:
    off = ROW.copy()
    off[3] += np.float32(2e-6)
    close(off, ROW, REORDERED)
    close(off[None] / 5, ROW[None] / 5, REORDERED)
    with pytest.raises(AssertionError, match=r"rows differ by 2\.\d+e-06 of their length, 1e-06 is allowed"):
        close([ROW / 5, (ROW + (off - ROW) * 5) / 5], [ROW / 5, ROW / 5], REORDERED)


def test_rows_shorter_than_one_are_not_held_to_less_than_their_models_states() -> None:
    close(ROW * 1e-9, ROW * 0, REORDERED)
    with pytest.raises(AssertionError):
        close(ROW * 2e-6, ROW * 0, REORDERED)


@pytest.mark.parametrize("found", [ROW * np.nan, ROW[:-1], ROW[None], np.float32(1)], ids=["nan", "cut", "rows", "one"])
def test_what_is_no_number_or_has_another_shape_is_never_close(found: Any) -> None:
    with pytest.raises(AssertionError):
        close(found, ROW, of=1e9)


INTERRUPTED = """
import os, signal
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""
# As `nohup` and `&` start a program, and what a test in it starts in turn.
IGNORING = """
import signal, subprocess, sys
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.path.insert(0, sys.argv[1])
from signals import of_a_terminal
with of_a_terminal():
    print(subprocess.run([sys.executable, "-c", sys.argv[2]], capture_output=True, text=True).stdout.strip())
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        print("here too")
print(signal.getsignal(signal.SIGINT) is signal.SIG_IGN)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_a_program_that_was_started_with_interrupts_ignored_can_be_interrupted_in_a_test() -> None:
    command = [sys.executable, "-c", IGNORING, str(Path(__file__).parents[1]), INTERRUPTED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split("\n") == ["interrupted", "here too", "True", ""], done.stderr


def test_handlers_are_as_they_were_afterwards() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with of_a_terminal():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert signal.getsignal(signal.SIGTERM) is before
