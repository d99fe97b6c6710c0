"""What this process may use, read from pretended machines: cgroups v1 and v2, nested limits, garbage."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

import fastembed_rt
from fastembed_rt.machine import Cpu, Machine, available_threads, cpu_features, cpu_quota, describe, memory_limit

V2_MOUNT = "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"
V1_MOUNTS = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
)
V1_OWN = "5:memory:/job\n3:cpu,cpuacct:/job\n1:name=systemd:/job\n"
GIB = 1 << 30

Files = Mapping[str, str | bytes]


def machine(root: Path, files: Files) -> Path:
    """`root` as the root of a file system with these files."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def v2(root: Path, own: str, files: Files) -> Path:
    cgroup = {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    return machine(root, {"proc/self/cgroup": f"0::{own}\n", "proc/self/mountinfo": V2_MOUNT, **cgroup})


def v1(root: Path, files: Files) -> Path:
    cgroup = {f"sys/fs/cgroup/{name}": content for name, content in files.items()}
    return machine(root, {"proc/self/cgroup": V1_OWN, "proc/self/mountinfo": V1_MOUNTS, **cgroup})


@pytest.fixture(autouse=True)
def eight_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host of 16 CPUs, 8 of them for this process."""
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)


# Quota


@pytest.mark.parametrize(
    ("content", "quota", "threads"),
    [
        ("200000 100000", 2.0, 2),
        ("250000 100000", 2.5, 2),  # rounded down: a third thread would be stopped half of the time
        ("50000 100000", 0.5, 1),
        ("1000 100000", 0.01, 1),
        ("50000 10000", 5.0, 5),
        ("800000 100000", 8.0, 8),
        ("1200000 100000", 12.0, 8),  # affinity is smaller
        ("max 100000", None, 8),
        ("max", None, 8),
    ],
)
def test_a_v2_quota_limits_the_threads(tmp_path: Path, content: str, quota: float | None, threads: int) -> None:
    root = v2(tmp_path, "/job", {"job/cpu.max": content + "\n"})
    assert cpu_quota(root) == quota
    assert available_threads(root) == threads


@pytest.mark.parametrize(
    ("quota_us", "period_us", "quota", "threads"),
    [
        ("200000", "100000", 2.0, 2),
        ("150000", "100000", 1.5, 1),
        ("-1", "100000", None, 8),
        ("2000000", "100000", 20.0, 8),
    ],
)
def test_a_v1_quota_limits_the_threads(
    tmp_path: Path, quota_us: str, period_us: str, quota: float | None, threads: int
) -> None:
    root = v1(
        tmp_path,
        {
            "cpu,cpuacct/job/cpu.cfs_quota_us": quota_us,
            "cpu,cpuacct/job/cpu.cfs_period_us": period_us,
        },
    )
    assert cpu_quota(root) == quota
    assert available_threads(root) == threads


@pytest.mark.parametrize(
    ("parent", "child", "quota"),
    [("100000", "400000", 1.0), ("400000", "100000", 1.0), ("max", "300000", 3.0), ("300000", "max", 3.0)],
)
def test_the_smallest_quota_on_the_way_up_binds(tmp_path: Path, parent: str, child: str, quota: float) -> None:
    root = v2(
        tmp_path,
        "/kubepods/pod/container",
        {"kubepods/cpu.max": f"{parent} 100000", "kubepods/pod/container/cpu.max": f"{child} 100000"},
    )
    assert cpu_quota(root) == quota


def test_a_quota_of_a_sibling_does_not_bind(tmp_path: Path) -> None:
    root = v2(tmp_path, "/a", {"a/cpu.max": "max 100000", "b/cpu.max": "100000 100000"})
    assert cpu_quota(root) is None


def test_a_v1_quota_of_a_parent_binds(tmp_path: Path) -> None:
    root = v1(
        tmp_path,
        {
            "cpu,cpuacct/job/cpu.cfs_quota_us": "-1",
            "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            "cpu,cpuacct/cpu.cfs_quota_us": "300000",
            "cpu,cpuacct/cpu.cfs_period_us": "100000",
        },
    )
    assert cpu_quota(root) == 3.0


def test_a_container_without_a_cgroup_namespace_finds_its_limit_at_the_mount(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/docker/abc\n",
            "proc/self/mountinfo": V2_MOUNT.replace(" / /sys", " /docker/abc /sys"),
            "sys/fs/cgroup/cpu.max": "200000 100000",
        },
    )
    assert cpu_quota(root) == 2.0


def test_a_path_outside_of_the_namespace_falls_back_to_the_mount(tmp_path: Path) -> None:
    root = v2(tmp_path, "/../../elsewhere", {"cpu.max": "200000 100000"})
    machine(tmp_path, {"sys/elsewhere/cpu.max": "100000 100000"})
    assert cpu_quota(root) == 2.0


def test_a_hybrid_machine_takes_the_controller_from_where_it_is(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": V1_OWN + "0::/job\n",
            "proc/self/mountinfo": V1_MOUNTS + "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "200000",
            "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000",
            "sys/fs/cgroup/unified/job/cgroup.procs": "1",
        },
    )
    assert cpu_quota(root) == 2.0


def test_a_path_of_one_hierarchy_is_not_looked_up_in_another(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "1:name=systemd:/job\n0::/\n",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/job/cpu.max": "200000 100000",
        },
    )
    assert cpu_quota(root) is None


def test_paths_with_colons_and_blanks_are_read(tmp_path: Path) -> None:
    root = machine(
        tmp_path,
        {
            "proc/self/cgroup": "0::/a:b c\n",
            "proc/self/mountinfo": V2_MOUNT.replace("/sys/fs/cgroup", "/my\\040cgroup"),
            "my cgroup/a:b c/cpu.max": "200000 100000",
        },
    )
    assert cpu_quota(root) == 2.0


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "garbage",
        "many 100000",
        "200000 0",
        "0 100000",
        "-200000 100000",
        "200000 100000 1",
        "²00000 100000",
        b"\xff\xfe\x00",
    ],
)
def test_a_quota_that_makes_no_sense_is_no_quota(tmp_path: Path, content: str | bytes) -> None:
    root = v2(tmp_path, "/job", {"job/cpu.max": content, "job/memory.max": content})
    assert cpu_quota(root) is None
    assert memory_limit(root) is None
    assert available_threads(root) == 8


@pytest.mark.parametrize("file", ["proc/self/cgroup", "proc/self/mountinfo", "proc/cpuinfo"])
@pytest.mark.parametrize("content", ["", "\n\n", "a b c", "::::", " - cgroup2 ", b"\xff\x00\xfe"])
def test_garbage_in_proc_is_no_limit(tmp_path: Path, file: str, content: str | bytes) -> None:
    root = v2(tmp_path, "/job", {})
    machine(root, {file: content})
    facts = describe(root)
    assert (facts.quota, facts.memory_limit, facts.threads) == (None, None, 8)
    assert facts.cpu.instruction_sets <= {"asimd"}


def test_a_directory_where_a_file_should_be_is_no_limit(tmp_path: Path) -> None:
    root = v2(tmp_path, "/job", {"job/cpu.max/oops": ""})
    assert cpu_quota(root) is None


def test_without_cgroups_the_affinity_counts(tmp_path: Path) -> None:
    assert available_threads(tmp_path) == 8


def test_without_affinity_the_cpus_of_the_host_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert describe(tmp_path).affinity is None
    assert available_threads(tmp_path) == 16


def test_a_forbidden_affinity_call_degrades_to_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(pid: int) -> set[int]:
        raise PermissionError("seccomp")

    monkeypatch.setattr(os, "sched_getaffinity", forbidden, raising=False)
    assert available_threads(tmp_path) == 16


def test_threads_are_counted_without_a_look_at_the_processors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastembed_rt.machine.cpu_features", lambda *_: pytest.fail("the processors were looked at"))
    assert available_threads(tmp_path) >= 1


def test_there_is_always_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_threads(tmp_path) == 1


# Memory


def test_the_smallest_memory_limit_on_the_way_up_binds(tmp_path: Path) -> None:
    root = v2(tmp_path, "/pod/job", {"pod/memory.max": str(2 * GIB), "pod/job/memory.max": str(4 * GIB)})
    assert memory_limit(root) == 2 * GIB


def test_a_v1_memory_limit_is_read(tmp_path: Path) -> None:
    assert memory_limit(v1(tmp_path, {"memory/job/memory.limit_in_bytes": f"{GIB}\n"})) == GIB


def test_the_v1_word_for_unlimited_is_no_limit(tmp_path: Path) -> None:
    root = v1(tmp_path, {"memory/job/memory.limit_in_bytes": "9223372036854771712"})
    assert memory_limit(root) is None


def test_no_memory_limit_is_none(tmp_path: Path) -> None:
    assert memory_limit(v2(tmp_path, "/job", {"job/memory.max": "max\n"})) is None


# CPU

ZEN4 = (
    "processor\t: 0\nvendor_id\t: AuthenticAMD\nmodel name\t: AMD EPYC 9554\n"
    "flags\t\t: fpu avx2 fma avx512f avx512_bf16 avx512_vnni\n\n"
)
GRAVITON3 = (
    "processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd asimddp i8mm bf16\n"
    "CPU implementer\t: 0x41\nCPU part\t: 0xd40\n\n"
)


def test_an_x86_cpu_is_named_with_the_instruction_sets_that_matter(tmp_path: Path) -> None:
    cpu = cpu_features(machine(tmp_path, {"proc/cpuinfo": ZEN4 + ZEN4.replace(": 0", ": 1")}))
    assert cpu == Cpu(
        vendor="AuthenticAMD",
        model="AMD EPYC 9554",
        instruction_sets=frozenset({"avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni"}),
        known=True,
    )
    assert "avx512_vnni" in cpu
    assert "avx_vnni" not in cpu


def test_an_arm_cpu_is_named_by_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    cpu = cpu_features(machine(tmp_path, {"proc/cpuinfo": GRAVITON3}))
    assert (cpu.vendor, cpu.model) == ("0x41", "aarch64 part 0xd40")
    assert cpu.instruction_sets == {"asimd", "asimddp", "i8mm"}


def test_only_what_every_core_has_counts(tmp_path: Path) -> None:
    little = GRAVITON3.replace(" i8mm", "")
    board = "Hardware\t: BCM2835\nRevision\t: c03111\n"
    cpu = cpu_features(machine(tmp_path, {"proc/cpuinfo": GRAVITON3 + little + board}))
    assert cpu.instruction_sets == {"asimd", "asimddp"}


@pytest.mark.parametrize(
    ("architecture", "instruction_sets"), [("arm64", {"asimd"}), ("x86_64", set()), ("AMD64", set())]
)
def test_without_proc_nothing_is_guessed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architecture: str, instruction_sets: set[str]
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: architecture)
    monkeypatch.setattr(platform, "processor", lambda: "")
    cpu = cpu_features(tmp_path)
    assert cpu == Cpu(vendor="", model=architecture, instruction_sets=frozenset(instruction_sets), known=False)


# All of it


def test_a_description_holds_every_fact(tmp_path: Path) -> None:
    root = v2(tmp_path, "/job", {"job/cpu.max": "350000 100000", "job/memory.max": str(GIB)})
    facts = describe(machine(root, {"proc/cpuinfo": ZEN4}))
    assert (facts.cpus, facts.affinity, facts.quota, facts.memory_limit) == (16, 8, 3.5, GIB)
    assert facts.threads == 3
    assert "avx512_vnni" in facts.cpu


def test_the_real_machine_can_be_described(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    facts = describe()
    assert isinstance(facts, Machine)
    assert 1 <= facts.threads <= (os.cpu_count() or 1)
    if sys.platform == "linux":
        assert facts.threads <= len(os.sched_getaffinity(0))
        assert facts.memory is not None and facts.memory > 0


def test_the_module_needs_the_standard_library_only() -> None:
    code = (
        "import sys; before = set(sys.modules); import fastembed_rt.machine;"
        "new = {name.partition('.')[0] for name in set(sys.modules) - before};"
        "print(sorted(new - set(sys.stdlib_module_names)))"
    )
    root = str(Path(fastembed_rt.__file__).parents[1])
    printed = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    assert printed.strip() == "['fastembed_rt']"
