"""Real runs of a real model that are killed, stopped, interrupted or run out of disk, and then resumed."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from bulk_jobs import table, vectors
from checkpoints import WORDS
from exports import contents
from signals import of_a_terminal

from fastembed_rt import EmbeddingModel, cli

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
ROWS, LONG_ROWS, KILLS = 3000, 20_000, 50
Start = Callable[..., "subprocess.Popen[bytes]"]


def write_rows(path: Path, count: int) -> list[str]:
    chance = random.Random(7)
    texts = [" ".join(chance.choices(WORDS, k=chance.randint(1, 14))) for _ in range(count)]
    path.write_text("".join(json.dumps({"id": k, "text": text}) + "\n" for k, text in enumerate(texts)))
    return texts


@pytest.fixture
def start(model_dir: Path) -> Iterator[Start]:
    """Starts an `embed` of in.jsonl in a folder."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(
        source: Path, target: Path, *words: str, preparing: Callable[[], None] | None = None
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "fastembed_rt", "embed", str(model_dir), str(source), "--shards", str(target)]
        with of_a_terminal():
            process = subprocess.Popen(
                [*command, "--resume", "--threads", "1", "--part-rows", "250", *words],
                stderr=subprocess.PIPE,
                preexec_fn=preparing,  # noqa: PLW1509
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()
        assert process.stderr is not None
        process.stderr.close()


def parts_of(target: Path) -> int:
    return len(list(target.glob("part-*")))


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)


def finish(process: subprocess.Popen[bytes]) -> None:
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_rows(folder / "in.jsonl", ROWS)
    return folder / "in.jsonl"


def texts_of(source: Path) -> list[str]:
    return [json.loads(line)["text"] for line in source.read_text().splitlines()]


def assert_whole(source: Path, target: Path, model: EmbeddingModel) -> None:
    """Every row once, in order, with the vector that `encode` gives, to the bit."""
    texts = texts_of(source)
    assert vectors(target).tobytes() == model.encode(texts).tobytes()
    if not any(target.glob("*.npy")):
        assert table(target).column("text").to_pylist() == texts
        assert table(target).column("id").to_pylist() == [*range(len(texts))]


@pytest.fixture(scope="module")
def whole(corpus: Path, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, bytes]]:
    made: dict[str, dict[str, bytes]] = {}

    def give(part_format: str) -> dict[str, bytes]:
        if part_format not in made:
            target = tmp_path_factory.mktemp("whole") / part_format
            words = [
                "--shards",
                str(target),
                "--shard-format",
                part_format,
                "--part-rows",
                "250",
                "--threads",
                "1",
                "-q",
            ]
            assert cli.main(["embed", str(model_dir), str(corpus), *words]) == 0
            made[part_format] = contents(target)
        return made[part_format]

    return give


@pytest.mark.parametrize("part_format", ["parquet", "npy"])
def test_a_killed_run_is_resumed_to_the_same_bytes(
    start: Start,
    corpus: Path,
    whole: Callable[[str], dict[str, bytes]],
    model: EmbeddingModel,
    tmp_path: Path,
    part_format: str,
) -> None:
    chance = random.Random(part_format)
    for least in (1, 5):
        process = start(corpus, tmp_path / "out", "--shard-format", part_format)
        wait_for(lambda least=least: parts_of(tmp_path / "out") >= least, process)  # type: ignore[misc]
        time.sleep(chance.random() * 0.1)
        process.kill()
        process.communicate()
    finish(start(corpus, tmp_path / "out", "--shard-format", part_format))
    assert contents(tmp_path / "out") == whole(part_format)
    assert_whole(corpus, tmp_path / "out", model)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, cli.INTERRUPTED), (signal.SIGTERM, cli.TERMINATED)])
def test_an_interrupted_run_leaves_nothing_half_done(
    start: Start, corpus: Path, whole: Callable[[str], dict[str, bytes]], tmp_path: Path, number: int, code: int
) -> None:
    process = start(corpus, tmp_path / "out")
    wait_for(lambda: parts_of(tmp_path / "out") >= 2, process)
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == code, said
    assert not list((tmp_path / "out").rglob("*.unfinished"))
    finish(start(corpus, tmp_path / "out"))
    assert contents(tmp_path / "out") == whole("parquet")


def test_two_ranks_at_once_of_which_one_stands_still_for_a_while(
    start: Start, corpus: Path, model: EmbeddingModel, tmp_path: Path
) -> None:
    ranks = [start(corpus, tmp_path / "out", "--rank", str(rank), "--world", "2") for rank in range(2)]
    wait_for(lambda: bool(list((tmp_path / "out").glob("part-00000-*"))), ranks[0])
    ranks[0].send_signal(signal.SIGSTOP)
    try:
        finish(ranks[1])
        held = start(corpus, tmp_path / "out", "--rank", "0", "--world", "2")
        _, said = held.communicate(timeout=60)
        if ranks[0].poll() is None and not (tmp_path / "out/_embed/00000-of-00002/done.json").exists():
            assert held.returncode == 2
            assert b"another process works on rank 0" in said
    finally:
        ranks[0].send_signal(signal.SIGCONT)
    finish(ranks[0])
    assert cli.main(["embed", "merge", str(tmp_path / "out"), "-q"]) == 0
    assert_whole(corpus, tmp_path / "out", model)


def test_a_limit_of_file_sizes_ends_a_run_that_is_resumed_without_it(
    start: Start, corpus: Path, whole: Callable[[str], dict[str, bytes]], tmp_path: Path
) -> None:
    """As a full disk does, within a write."""
    largest = max(len(content) for name, content in whole("parquet").items() if name.startswith("part-"))

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest - 1, largest - 1))

    process = start(corpus, tmp_path / "out", preparing=limit)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 1, said
    assert b"File too large" in said
    finish(start(corpus, tmp_path / "out"))
    assert contents(tmp_path / "out") == whole("parquet")


@pytest.mark.slow
@pytest.mark.parametrize("part_format", ["parquet", "arrow", "npy"])
def test_twenty_thousand_rows_are_killed_at_random_moments(
    start: Start, model: EmbeddingModel, tmp_path: Path, part_format: str
) -> None:
    """KILLS moments in all formats together, from the start of the process to its end."""
    source = tmp_path / "in.jsonl"
    write_rows(source, LONG_ROWS)
    words = ("--shard-format", part_format, "--part-rows", "1000")
    began = time.monotonic()
    finish(start(source, tmp_path / "whole", *words))
    seconds = time.monotonic() - began
    wanted = contents(tmp_path / "whole")
    assert_whole(source, tmp_path / "whole", model)
    chance = random.Random(part_format)
    seen = []
    for k in range(-(-KILLS // 3)):
        target = tmp_path / f"killed-{k}"
        process = start(source, target, *words)
        time.sleep(chance.random() * seconds)
        process.kill()
        process.communicate()
        seen.append(parts_of(target))
        finish(start(source, target, *words))
        assert contents(target) == wanted, (k, seen)
    assert len(set(seen)) > 3, seen  # the moments were not all alike
    np.testing.assert_equal(len(seen), -(-KILLS // 3))
    print(f"{part_format}: parts that were there when the run was killed: {seen}")
