"""A contender that misbehaves is an answer, never the end of the run."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.compare.processes import LIVING, Process, kill_all
from benchmarks.errors import ContenderError

FAKE = Path(__file__).parent / "fake_contender.py"
TEXTS = ["one", "two words", "three words here"]
Start = Callable[..., Process]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    def begin(mode: str = "serve", cpus: Sequence[int] = (), **own: str) -> Process:
        options = {
            **dict.fromkeys(("checkpoint", "model_dir", "prepared", "calibration"), ""),
            "max_length": 16,
            "threads": 1,
            "cpus": list(cpus),
            "own": {"name": "fake", "journal": str(tmp_path / "journal"), **own},
        }
        return Process(
            [sys.executable, str(FAKE), mode, json.dumps(options)],
            log=tmp_path / "log",
            cwd=tmp_path,
            environment=os.environ,
        )

    yield begin
    kill_all()


@pytest.fixture
def texts(tmp_path: Path) -> str:
    file = tmp_path / "texts.json"
    file.write_text(json.dumps(TEXTS))
    return str(file)


def test_answers_come_back_whatever_the_library_prints(start: Start, texts: str, tmp_path: Path) -> None:
    process = start()
    loaded = process.ask("load", timeout=60)
    assert loaded["versions"]["never-heard-of-it"] == "not installed"
    assert loaded["bytes"] == FAKE.stat().st_size
    saved = tmp_path / "vectors.npy"
    seen = process.ask("encode", timeout=60, texts=texts, warm=2, save=str(saved))
    assert seen["texts"] == len(TEXTS)
    assert saved.is_file()
    assert process.ask("tokens", timeout=60, texts=texts)["counts"] == [3, 4, 5]
    assert len(process.ask("latencies", timeout=60, texts=texts)["seconds"]) == len(TEXTS)
    assert (tmp_path / "journal").read_text().split("\n")[:2] == ["fake 2", "fake 3"]
    (tmp_path / "journal").unlink()
    assert process.ask("batches", timeout=60, texts=texts, batch=2)["texts"] == len(TEXTS)
    assert (tmp_path / "journal").read_text().split("\n")[:2] == ["fake 2", "fake 1"]
    seen = process.ask("callers", timeout=60, texts=texts, callers=2)
    assert len(seen["seconds"]) == len(TEXTS)
    assert seen["wall"] >= max(seen["seconds"]) * 0.99


@pytest.mark.parametrize(
    ("behaviour", "says"),
    [
        ("hang", "encode: no answer within 1 s, killed"),
        ("crash", "encode: ended with exit code 3: ERROR: the library said this before it died"),
        ("killed", "encode: killed by SIGKILL (out of memory?)"),
        ("raise", "encode: RuntimeError: no such operator"),
    ],
)
def test_a_failure_says_what_happened(start: Start, texts: str, behaviour: str, says: str) -> None:
    process = start(behaviour=behaviour)
    process.ask("load", timeout=60)
    with pytest.raises(ContenderError) as caught:
        process.ask("encode", timeout=1 if behaviour == "hang" else 60, texts=texts)
    assert str(caught.value) == says


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs and affinity"
)
def test_a_library_whose_threads_leave_their_cpus_is_refused(start: Start, texts: str) -> None:
    first, second = sorted(os.sched_getaffinity(0))[:2]
    strays = start(cpus=[first], behaviour="strays", cpu=str(second))
    with pytest.raises(ContenderError, match=rf"1 of \d+ threads may run on CPU {second}, which this"):
        strays.ask("load", timeout=60)
    both = start(cpus=[first, second], behaviour="strays", cpu=str(second))
    both.ask("load", timeout=60)
    assert both.ask("encode", timeout=60, texts=texts)["texts"] == len(TEXTS)


def test_an_error_while_loading_names_the_step(start: Start) -> None:
    with pytest.raises(ContenderError, match="load: OSError: no weights"):
        start(behaviour="refuse").ask("load", timeout=60)


def test_a_cold_start_reports_moments_in_order(start: Start) -> None:
    process = start("cold")
    seen = process.answer("cold start", timeout=60)
    assert process.started < seen["began"] < seen["imported"] <= seen["loaded"] < seen["first"]


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")
def test_an_idle_process_is_stopped_and_can_be_killed(start: Start) -> None:
    process = start()
    process.ask("load", timeout=60)
    assert process.cpu_seconds() > 0
    process.stop()
    deadline = time.monotonic() + 10
    while _state(process.pid) != "T" and time.monotonic() < deadline:
        time.sleep(0.01)
    assert _state(process.pid) == "T"
    process.ask("usage", timeout=60)  # asking wakes it up
    process.stop()
    process.kill()
    assert process not in LIVING
    assert not Path(f"/proc/{process.pid}").exists()


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
