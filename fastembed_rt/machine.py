"""The machine as this process sees it: CPUs it may use, CPU quota, memory limit, instruction sets.

Standard library only and nothing is read at import. Every reader takes the root of the file system, so that a
container can be described by a directory; what an operating system does not tell is None, never a guess.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from .records import record

ROOT = Path("/")


def is_built_whole() -> bool:
    """Whether this is a program that PyInstaller, cx_Freeze or Nuitka built: there is no Python to be started again."""
    return bool(getattr(sys, "frozen", False) or getattr(globals().get("__compiled__"), "standalone", False))


# The instruction sets that decide how fast INT8 and fp32 products run; other flags tell us nothing.
INSTRUCTION_SETS = frozenset(
    {
        "avx2",
        "fma",
        "avx512f",
        "avx512_vnni",
        "avx_vnni",
        "amx_int8",
        "avx512_bf16",
        "asimd",
        "asimddp",
        "i8mm",
    }
)

# cgroup v1 writes "no memory limit" as LONG_MAX rounded down to a page; no machine has an exbibyte.
UNLIMITED_BYTES = 1 << 60


@record(frozen=True, kw_only=True)
class Cpu:
    """What the CPU calls itself and can do; `"avx2" in cpu` asks for one instruction set."""

    vendor: str
    model: str
    instruction_sets: frozenset[str]  # of INSTRUCTION_SETS, those that every core has
    known: bool  # False: this system does not list instruction sets, their absence means nothing

    def __contains__(self, instruction_set: object) -> bool:
        return instruction_set in self.instruction_sets


def int8_kernels(cpu: Cpu) -> tuple[bool, str]:
    """Whether INT8 runs at this processor's full speed, and with which instructions it runs."""
    # onnxruntime takes the first of these that the processor has.
    for name, title in (("amx_int8", "AMX"), ("avx512_vnni", "AVX512-VNNI"), ("avx_vnni", "AVX-VNNI")):
        if name in cpu:
            return True, f"full speed with {title}"
    if "asimddp" in cpu:
        return True, "full speed with ARM dot products"
    if not cpu.known:
        return False, "this system lists no instruction sets"
    if "avx2" in cpu:
        return False, "AVX2 without VNNI: INT8 runs right but slower"
    return False, "no AVX2, VNNI or ARM dot products: INT8 is slow"


@record(frozen=True, kw_only=True)
class Machine:
    """Facts about the resources of this process."""

    cpus: int  # logical CPUs of the host
    affinity: int | None  # CPUs the scheduler may put this process on
    quota: float | None  # CPUs' worth of time that the cgroups grant
    memory_limit: int | None  # bytes that the cgroups grant
    memory: int | None  # bytes of the host
    cpu: Cpu

    @property
    def threads(self) -> int:
        """Threads that can really run at once; at least 1."""
        return _granted(self.cpus, self.affinity, self.quota)


def available_threads(root: Path = ROOT) -> int:
    """Threads this process can really run at once: the least of CPU affinity, cgroup quota and CPU count."""
    # Alone: every model asks, and what names the processor takes long where there are many, or starts a process.
    return _granted(os.cpu_count() or 1, cpu_affinity(), cpu_quota(root))


def _granted(cpus: int, affinity: int | None, quota: float | None) -> int:
    """Threads that can really run at once; at least 1.

    A quota is rounded down: one thread too many and the kernel stops all of them, in the middle of a batch, for the
    rest of the period.
    """
    granted = cpus if affinity is None else min(cpus, affinity)
    if quota is not None:
        granted = min(granted, int(quota))
    return max(1, granted)


def describe(root: Path = ROOT) -> Machine:
    """Everything this module knows, read now: limits of a container can change while a process lives."""
    return Machine(
        cpus=os.cpu_count() or 1,
        affinity=cpu_affinity(),
        quota=cpu_quota(root),
        memory_limit=memory_limit(root),
        memory=host_memory(),
        cpu=cpu_features(root),
    )


def cpu_affinity() -> int | None:
    """CPUs the scheduler may put this process on; None on systems without that notion (macOS, Windows)."""
    if not hasattr(os, "sched_getaffinity"):
        return None
    try:
        return len(os.sched_getaffinity(0))
    except OSError:  # some sandboxes forbid the call
        return None


def host_memory() -> int | None:
    """Bytes of memory in the host; None where POSIX sysconf does not tell."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def cpu_quota(root: Path = ROOT) -> float | None:
    """CPUs' worth of time that the cgroups grant (1.5: three seconds of work in two); None: no limit."""
    quotas: list[float] = []
    for directory in _cgroup_directories(root, "cpu"):
        words = _read(directory / "cpu.max").split()  # v2: "150000 100000" or "max 100000"
        if not words:
            words = [_read(directory / "cpu.cfs_quota_us"), _read(directory / "cpu.cfs_period_us")]
        quota, period = (_positive(words[0]), _positive(words[1])) if len(words) == 2 else (None, None)
        if quota is not None and period is not None:
            quotas.append(quota / period)
    return min(quotas, default=None)


def memory_limit(root: Path = ROOT) -> int | None:
    """Bytes of memory this process's cgroups grant; None without a limit."""
    limits: list[int] = []
    for directory in _cgroup_directories(root, "memory"):
        for file in ("memory.max", "memory.limit_in_bytes"):
            limit = _positive(_read(directory / file))
            if limit is not None and limit < UNLIMITED_BYTES:
                limits.append(limit)
    return min(limits, default=None)


def cpu_features(root: Path = ROOT) -> Cpu:
    """Vendor, model and instruction sets, from /proc/cpuinfo where there is one."""
    cores = [_fields(block) for block in _read(root / "proc/cpuinfo").split("\n\n") if block.strip()]
    listed = [set(core.get("flags", core.get("Features", "")).split()) for core in cores]
    listed = [flags for flags in listed if flags]  # some kernels end with a block about the board
    if not listed:
        machine = platform.machine()
        baseline = {"asimd"} if machine.lower() in ("arm64", "aarch64") else set()  # AArch64 always has it
        return Cpu(
            vendor="",
            model=platform.processor() or machine,
            instruction_sets=frozenset(baseline),
            known=False,
        )
    first = cores[0]
    model = first.get("model name", "")
    if not model and "CPU part" in first:  # ARM gives numbers instead of a name
        model = f"{platform.machine()} part {first['CPU part']}"
    return Cpu(
        vendor=first.get("vendor_id") or first.get("CPU implementer", ""),
        model=model or platform.machine(),
        # Cores may differ (big.LITTLE) and threads move between them: only what every core has is safe.
        instruction_sets=frozenset(set.intersection(*listed) & INSTRUCTION_SETS),
        known=True,
    )


def _cgroup_directories(root: Path, controller: str) -> Iterator[Path]:
    """Directories of this process's cgroups, v1 and v2, each followed by its parents up to the mount.

    A limit of any ancestor binds too, so the caller takes the least.
    """
    own = list(_own_cgroups(root))
    for point, mount_root, controllers in _cgroup_mounts(root):
        if controllers and controller not in controllers:
            continue
        for path, path_controllers in own:
            same_hierarchy = controller in path_controllers if controllers else not path_controllers
            if not same_hierarchy:
                continue
            parts = _below(mount_root, path)
            for depth in range(len(parts), -1, -1):
                yield root.joinpath(*point, *parts[:depth])


def _own_cgroups(root: Path) -> Iterator[tuple[str, frozenset[str]]]:
    """Path and controllers of each line of /proc/self/cgroup; a v2 line has no controllers."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        fields = line.split(":", 2)  # hierarchy:controllers:path, and a path may hold colons
        if len(fields) == 3:
            yield fields[2], frozenset(filter(None, fields[1].split(",")))


def _cgroup_mounts(root: Path) -> Iterator[tuple[list[str], str, frozenset[str]]]:
    """Mount point, root inside the hierarchy, and controllers (v2: none) of each mounted cgroup hierarchy."""
    for line in _read(root / "proc/self/mountinfo").splitlines():
        mount, _, filesystem = line.partition(" - ")
        place, kind = mount.split(), filesystem.split()
        if len(place) < 5 or len(kind) < 3 or kind[0] not in ("cgroup", "cgroup2"):
            continue
        controllers = frozenset(kind[2].split(",")) if kind[0] == "cgroup" else frozenset[str]()
        yield _parts(_unescape(place[4])), _unescape(place[3]), controllers


def _below(mount_root: str, path: str) -> list[str]:
    """Path segments of a cgroup below its mount; none where a container sees its own cgroup as the mount."""
    base, own = _parts(mount_root), _parts(path)
    if ".." in own or own[: len(base)] != base:
        return []
    return own[len(base) :]


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _unescape(path: str) -> str:
    """Undo mountinfo's octal escapes of blank characters and backslashes."""
    for code in ("\\040", "\\011", "\\012", "\\134"):
        path = path.replace(code, chr(int(code[1:], 8)))
    return path


def _read(path: Path) -> str:
    """Contents of a kernel file; empty where it is missing or forbidden: both mean "nothing to learn"."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except (OSError, ValueError):
        return ""


def _fields(block: str) -> dict[str, str]:
    """The `name : value` lines of one /proc/cpuinfo block."""
    pairs = (line.partition(":") for line in block.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _positive(word: str) -> int | None:
    """A positive whole number; None for "max", -1, or anything else that sets no limit."""
    return int(word) if word.isascii() and word.isdigit() and int(word) > 0 else None
