"""`fastembed-rt doctor`: what is installed, what this machine can do, what stands in the way, and the cure.

The checks judge facts and look at nothing themselves; environment.py does the looking, `run` the printing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .. import __version__
from ..errors import MissingDependencyError
from ..machine import int8_kernels
from ..run import nvidia
from ..run.providers import KEEPS_INT8, OLDEST, too_old
from .environment import Facts, gather

Level = Literal["ok", "note", "problem"]

REQUIRED = ("numpy", "tokenizers", "huggingface-hub")
OPTIONAL = {  # package -> what it is for
    "onnx": "export",
    "torch": "verify",
    "transformers": "verify",
    "sentence-transformers": "verify",
    "optimum": "export of architectures without a builder",
}
SMALL_MEMORY = 512 << 20  # a small model in INT8 peaks at about 300 MB


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One row of the report."""

    level: Level
    check: str
    what: str
    fix: str = ""  # what to do; every problem has one


def add_parser(subparsers: Any) -> None:
    """Add the command to the parser of the command line."""
    text = "say what is installed, what this machine can do, and what to fix"
    parser = subparsers.add_parser("doctor", help=text, description=text)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the report; 0 when there is no problem, else the exit code of a missing dependency."""
    findings = diagnose(gather())
    problems = sum(finding.level == "problem" for finding in findings)
    if args.json:
        rows = [dataclasses.asdict(finding) for finding in findings]
        print(json.dumps({"problems": problems, "findings": rows}, indent=2))
    else:
        print("\n".join(table(findings)))
    return MissingDependencyError.exit_code if problems else 0


def table(findings: Sequence[Finding]) -> Iterator[str]:
    """Lines of text: level, check and finding in columns, a cure below its finding, a count at the end."""
    width = max((len(finding.check) for finding in findings), default=0)
    for finding in findings:
        yield f"{finding.level:<7}  {finding.check:<{width}}  {finding.what}"
        if finding.fix:
            yield f"{'':<{9 + width}}  fix: {finding.fix}"
    problems = sum(finding.level == "problem" for finding in findings)
    yield ""
    yield f"{problems} problem{'' if problems == 1 else 's'} found" if problems else "no problem found"


def diagnose(facts: Facts) -> list[Finding]:
    """What every check says about the facts, in the order of CHECKS."""
    return [finding for check in CHECKS for finding in check(facts)]


def check_packages(facts: Facts) -> Iterator[Finding]:
    """Python and the packages around onnxruntime, with their versions."""
    yield Finding(level="ok", check="python", what=f"{facts.python} on {facts.system}")
    yield Finding(level="ok", check="fastembed-rt", what=facts.packages.get("fastembed-rt", __version__))
    for name in REQUIRED:
        if name in facts.packages:
            yield Finding(level="ok", check=name, what=facts.packages[name])
        else:
            yield Finding(level="problem", check=name, what="not installed", fix=f"pip install {name}")
    for name, purpose in OPTIONAL.items():
        yield Finding(level="ok", check=name, what=facts.packages.get(name, f"not installed (only for: {purpose})"))


def check_onnxruntime(facts: Facts) -> Iterator[Finding]:
    """Exactly one wheel wrote the onnxruntime that is imported, and it imports."""
    installed = ", ".join(f"{name} {version}" for name, version in facts.wheels.items())
    wanted = 'pip install "fastembed-rt[gpu]"' if _gpu_wheels(facts) else 'pip install "fastembed-rt[cpu]"'
    uninstall = f"pip uninstall -y {' '.join(facts.wheels)}"
    where = f" in {facts.place}" if facts.place else ""
    if len(facts.wheels) > 1:
        special = [name for name in facts.wheels if name != "onnxruntime"]
        keep = wanted if _gpu_wheels(facts) else f"pip install {special[0]}"
        yield Finding(
            level="problem",
            check="onnxruntime",
            what=f"{installed} are installed together{where} and overwrite each other's files",
            fix=f'{uninstall}  then: {keep}  (or, for CPUs only: pip install "fastembed-rt[cpu]")',
        )
    elif facts.import_error and not facts.wheels:
        yield Finding(
            level="problem",
            check="onnxruntime",
            what=facts.import_error,
            fix='pip install "fastembed-rt[cpu]"  or, for NVIDIA GPUs: pip install "fastembed-rt[gpu]"',
        )
    elif facts.import_error:
        yield Finding(
            level="problem",
            check="onnxruntime",
            what=f"{installed} is installed and does not import: {facts.import_error}",
            fix=f"{uninstall}  then: {wanted}",
        )
    elif too_old(facts.onnxruntime):
        special = [name for name in facts.wheels if name not in ("onnxruntime", "onnxruntime-gpu")]
        upgrade = f"pip install --upgrade {special[0]}" if special else wanted.replace("install", "install --upgrade")
        yield Finding(
            level="problem",
            check="onnxruntime",
            what=f"{installed or f'{facts.onnxruntime} (no wheel)'}{where} is too old: {OLDEST} or newer is needed",
            fix=upgrade,
        )
    else:
        yield Finding(level="ok", check="onnxruntime", what=(installed or f"{facts.onnxruntime} (no wheel)") + where)
    for name, place in facts.shadowed.items():
        yield Finding(
            level="note",
            check="onnxruntime",
            what=f"{name} in {place} is not imported: {facts.place or 'another directory'} comes before it on the path",
            fix="nothing, if the one above is meant; else uninstall that, or change PYTHONPATH",
        )
    if facts.providers:
        yield Finding(level="ok", check="providers", what=", ".join(facts.providers))


def check_cpu(facts: Facts) -> Iterator[Finding]:
    """The CPU, and what its instruction sets mean for INT8."""
    cpu = facts.machine.cpu
    sets = ", ".join(sorted(cpu.instruction_sets)) or "no known instruction sets"
    yield Finding(level="ok", check="cpu", what=" ".join(filter(None, (cpu.vendor, cpu.model))) + f": {sets}")
    full, what = int8_kernels(cpu)
    slower = 'compare precision "fp32" and "int8" on this machine before choosing'
    yield Finding(level="ok" if full else "note", check="int8", what=what, fix="" if full else slower)
    if facts.kernels:
        products = f"; bf16 with {facts.bf16_products}" if facts.bf16_products else ""
        own = f"our own run, with {facts.kernels} kernels (target native){products}"
        if facts.left_out:
            own += f"; the {facts.left_out} kernels, which are faster here, were left out: the compiler was too old"
        yield Finding(level="note" if facts.left_out else "ok", check="operators", what=own, fix=facts.kernel_remedy)
    elif facts.no_kernels and "avx2" in cpu and not full and too_old(facts.onnxruntime, KEEPS_INT8):
        yield Finding(
            level="note",
            check="operators",
            what=f"our own do not run: {facts.no_kernels}; fp32 runs on stock operators (target cpu), INT8 on none: "
            f"this processor wants onnxruntime {KEEPS_INT8} for it",
            fix=facts.kernel_remedy or "pip install --upgrade onnxruntime",
        )
    elif facts.no_kernels:
        yield Finding(
            level="note",
            check="operators",
            what=f"our own do not run: {facts.no_kernels}; fp32 and INT8 run on stock operators (target cpu)",
            fix=facts.kernel_remedy,
        )


def check_threads(facts: Facts) -> Iterator[Finding]:
    """How many threads a batch may use, and what decides it."""
    machine = facts.machine
    limits = {f"the host has {machine.cpus} CPUs": float(machine.cpus)}
    if machine.affinity is not None:
        limits[f"CPU affinity allows {machine.affinity}"] = machine.affinity
    if machine.quota is not None:
        limits[f"the cgroup's CPU quota grants {machine.quota:g}"] = machine.quota
    reason = min(limits, key=lambda limit: limits[limit])  # of equals the first: the plainest
    starved = machine.quota is not None and machine.quota < 1
    yield Finding(
        level="note" if starved else "ok",
        check="threads",
        what=f"{machine.threads} ({reason})" + (": every batch is held up" if starved else ""),
        fix="raise the container's CPU limit to 1 or more" if starved else "",
    )


def check_memory(facts: Facts) -> Iterator[Finding]:
    """The memory there is for this process."""
    limit, host = facts.machine.memory_limit, facts.machine.memory
    has = f"the host has {_gib(host)}" if host is not None else "the host does not tell"
    if limit is None:
        yield Finding(level="ok", check="memory", what=f"no limit ({has})")
        return
    small = limit < SMALL_MEMORY
    yield Finding(
        level="note" if small else "ok",
        check="memory",
        what=f"the cgroup grants {_gib(limit)} ({has})",
        fix="raise the container's memory limit, or use a small model in INT8" if small else "",
    )


def check_cuda(facts: Facts) -> Iterator[Finding]:
    """With onnxruntime for GPUs: the GPU, the driver, CUDA's libraries. Without: whether a GPU lies idle."""
    gpu_wheels = _gpu_wheels(facts)
    if facts.gpus:
        yield Finding(level="ok", check="gpu", what="; ".join(facts.gpus))
    if not gpu_wheels and "CUDAExecutionProvider" not in facts.providers:
        if facts.gpus:
            uninstall = f"pip uninstall -y {' '.join(facts.wheels)}  then: " if facts.wheels else ""
            yield Finding(
                level="note",
                check="cuda",
                what="this onnxruntime cannot use the GPU",
                fix=f'{uninstall}pip install "fastembed-rt[gpu]"',
            )
        return
    if not facts.gpus:
        yield Finding(
            level="note",
            check="gpu",
            what=f'none to be seen, so provider "cuda" will not start: nvidia-smi {facts.nvidia_smi}',
            fix=nvidia.show_devices(),
        )
    elif facts.no_device:
        yield Finding(
            level="problem",
            check="gpu",
            what=f'nvidia-smi lists it and CUDA shows none, so provider "cuda" will not start: {facts.no_device}',
            fix=nvidia.show_devices(),
        )
    if not facts.import_error and "CUDAExecutionProvider" not in facts.providers:
        yield Finding(
            level="problem",
            check="cuda",
            what=f"{', '.join(gpu_wheels)} is installed, but its files have no CUDAExecutionProvider",
            fix=f'pip uninstall -y {" ".join(facts.wheels)}  then: pip install "fastembed-rt[gpu]"',
        )
    wheels = [f"{name} {version}" for name, version in facts.packages.items() if name.startswith("nvidia-")]
    yield Finding(
        level="ok",
        check="cuda wheels",
        what=", ".join(sorted(wheels)) or "none: CUDA's libraries must come from the system",
    )
    for library, failure in facts.libraries.items():
        yield _library("cuda library", library, failure, facts, "problem" if facts.gpus else "note")
    for number, device in enumerate(() if facts.no_device else facts.cuda_operators):
        # Its number is what device_ids takes; nvidia-smi may count otherwise.
        where = f"device {number}, {device.name}: " if len(facts.cuda_operators) > 1 else ""
        what = f"{where}our own run (target cuda-native); {f'fp8 does not: {device.fp8}' if device.fp8 else 'fp8 too'}"
        if device.fp16:
            what = f"{where}our own do not run: {device.fp16}; the plain graphs do (target cuda)"
        yield Finding(level="note" if device.fp16 else "ok", check="cuda operators", what=what)


def check_tensorrt(facts: Facts) -> Iterator[Finding]:
    """TensorRT's libraries, which come with no wheel of onnxruntime: only who wants the provider misses them."""
    for library, failure in facts.tensorrt.items():
        yield _library("tensorrt library", library, failure, facts, "note")


CHECKS: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    check_packages,
    check_onnxruntime,
    check_cpu,
    check_threads,
    check_memory,
    check_cuda,
    check_tensorrt,
)


def _library(check: str, library: str, failure: str, facts: Facts, level: Level) -> Finding:
    if not failure:
        return Finding(level="ok", check=check, what=f"{library} loads")
    found = nvidia.library(library, failure, facts.cuda, facts.packages)
    return Finding(level=level, check=check, what=found.what, fix=found.fix)


def _gpu_wheels(facts: Facts) -> list[str]:
    return [name for name in facts.wheels if name.endswith("-gpu")]


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
