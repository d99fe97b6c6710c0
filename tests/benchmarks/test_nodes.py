"""The job on paper: its arithmetic by hand, its failures, and the machine list that the page's numbers come from."""

from __future__ import annotations

import json
import re
import statistics
from pathlib import Path

import pytest

from benchmarks import nodes
from benchmarks.errors import BenchmarkError
from benchmarks.nodes import Cluster, Job, Machine, simulate

ROOT = Path(__file__).parents[2]
JOB = Job(texts=1_000_000, tokens=50, vector_bytes=1536, part=1000, failures=0)


def machines(count: int, **changes: float) -> Machine:
    given = {"cores": 10, "tokens_per_second_core": 5000, "network_gbit": 10, **changes}
    return Machine(name="a", count=count, **given)  # type: ignore[arg-type]


def cluster(*kinds: Machine, storage: float = 1000, start: float = 0) -> Cluster:
    return Cluster(kinds, storage, 0, start)


def test_equal_machines_share_the_texts() -> None:
    """1000 texts/s each."""
    for count, seconds in ((1, 1000), (4, 250), (10, 100)):
        found = simulate(cluster(machines(count)), JOB)
        assert found.seconds == pytest.approx(seconds)
        assert found.limits == {"compute": count}
        assert (found.failed, found.redone) == (0, 0)
    assert simulate(cluster(machines(4), start=60), JOB).seconds == pytest.approx(310)
    assert found.written_bytes == 1_000_000 * 1536
    assert found.read_bytes == pytest.approx(50e6 * nodes.BYTES_PER_TOKEN)


def test_a_slow_machine_does_fewer_parts_and_holds_nobody_up() -> None:
    found = simulate(cluster(machines(3), machines(1, cores=5)), JOB)
    assert found.seconds == pytest.approx(1_000_000 / 3500, rel=0.01)
    assert found.seconds - found.first_idle <= 2.0  # seconds of its last part


def test_what_holds_up_is_named() -> None:
    moved = 50 * nodes.BYTES_PER_TOKEN + 1536
    slow = simulate(cluster(machines(2, network_gbit=0.001)), JOB)
    assert slow.limits == {"network": 2}
    assert slow.seconds == pytest.approx(1_000_000 * moved / (2 * 0.001e9 / 8), rel=0.01)
    stored = simulate(cluster(machines(2), storage=0.001), JOB)
    assert stored.limits == {"storage": 2}
    assert stored.seconds == pytest.approx(1_000_000 * moved / (0.001e9 / 8), rel=0.01)


def test_failures_cost_the_part_that_was_begun_and_nothing_else() -> None:
    job = Job(texts=1_000_000, tokens=50, vector_bytes=1536, part=10_000, failures=10, again_seconds=30)
    calm, found = simulate(cluster(machines(4)), JOB), simulate(cluster(machines(4)), job)
    assert found.failed > 0
    assert 0 < found.redone < found.failed * job.part
    assert calm.seconds < found.seconds <= calm.seconds + found.failed * (30 + 10) + 10
    assert simulate(cluster(machines(4)), job) == found


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        '{"machines": [], "storage_gbit": 1, "model_megabytes": 1, "start_seconds": 1}',
        '{"machines": [{"a": 1}]}',
    ],
)
def test_what_is_no_machine_list(content: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "list.json"
    path.write_text(content)
    assert nodes.main([str(path)]) == 2
    assert "list.json" in capsys.readouterr().err
    with pytest.raises(BenchmarkError, match="not positive"):
        machines(0)
    with pytest.raises(BenchmarkError, match="have to be positive"):
        Job(texts=0, tokens=1, vector_bytes=1, part=1, failures=0)


def test_the_list_has_the_rate_of_the_record_that_it_names() -> None:
    said = json.loads((ROOT / "benchmarks/nodes.json").read_text())
    record = json.loads((ROOT / "benchmarks/results/2026-11-25-epyc-2-cores/record.json").read_text())
    assert "results/2026-11-25-epyc-2-cores" in said["source"]
    times = [
        sample["seconds"]
        for sample in record["samples"]
        if (sample["contender"], sample["workload"]) == ("rt-int8", "mixed")
    ]
    rate = record["workloads"]["mixed"]["tokens"] / statistics.median(times) / record["settings"]["threads"]
    assert said["machines"][0]["tokens_per_second_core"] == pytest.approx(rate, rel=1e-3)


def test_the_page_shows_what_the_command_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    page = (ROOT / "docs/scale.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\$ python -m benchmarks\.nodes (.+)\n((?:.+\n)+?)(?=\n|```)", page, re.MULTILINE)
    assert len(shown) == 2
    for command, printed in shown:
        assert nodes.main(command.split()) == 0
        assert capsys.readouterr().out == printed
