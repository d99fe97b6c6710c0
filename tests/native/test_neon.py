"""The Arm kernels on processors that qemu plays: right, with the bits of x86, and compiled to what was counted.

`make neon` runs this: FASTEMBED_RT_ZIG is a Python that has ziglang, which compiles; qemu-aarch64 is of the system.
What is run is fuzz/, with its own reference.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import arm_loops
import pytest

from fastembed_rt.native import build

ZIG = os.environ.get("FASTEMBED_RT_ZIG", "")
QEMU = shutil.which("qemu-aarch64")
pytestmark = [
    pytest.mark.skipif(not ZIG, reason="no cross compiler: FASTEMBED_RT_ZIG names a Python with ziglang (make neon)"),
    pytest.mark.skipif(not QEMU, reason="no qemu-aarch64: install qemu-user"),
    pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="compares with x86"),
]
ROOT, FUZZ = Path(__file__).parents[2], sorted((Path(__file__).parent / "fuzz").glob("*.c"))
WRAPPED = ("-Wl,--wrap=malloc,--wrap=calloc,--wrap=aligned_alloc",)
CASES = 5000
PROCESSORS = {"max": "neoni8mm", "cortex-a76": "neondotprod", "cortex-a72": "neon"}
COMPILE = """
import sys
from pathlib import Path
from fastembed_rt.native import build
directory, *fuzz = map(Path, sys.argv[1:])
target = build.TARGETS["linux-aarch64-musl"]  # whose C library can be linked into the program
objects = build.compiled(directory, extra=("-DPLAIN_SCRATCH",), others=fuzz, target=target)
build.link(directory / "fuzz", objects, {wrapped!r} + ("-static",), target)
"""


@pytest.fixture(scope="module")
def arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the program for Arm and its object files."""
    directory = tmp_path_factory.mktemp("arm")
    command = [ZIG, "-c", COMPILE.format(wrapped=WRAPPED), str(directory), *map(str, FUZZ)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory


def lines(command: list[str], out: Path) -> list[str]:
    """Run the program; a line for each sound case: number, operator, hash of the output's bits. And what it says."""
    done = subprocess.run([*command, "0", str(CASES), "1", str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [done.stdout, *out.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The lines of this machine's processor."""
    directory = tmp_path_factory.mktemp("here")
    program = directory / "fuzz"
    build.link(program, build.compiled(directory, others=FUZZ, extra=("-DPLAIN_SCRATCH",)), WRAPPED)
    _, *found = lines([str(program)], directory / "bits")
    operators = [line.split()[1] for line in found]
    assert all(operators.count(name) > 50 for name in set(operators))
    assert len(set(operators)) == 13
    hashes = {line.split()[2] for line in found}
    assert len(hashes) > 0.8 * len(found)  # outputs without rows are alike
    return found


@pytest.mark.parametrize("processor", PROCESSORS)
def test_every_output_is_right_and_has_the_bits_of_x86(
    processor: str, arm: Path, expected: list[str], tmp_path: Path
) -> None:
    said, *found = lines([str(QEMU), "-cpu", processor, str(arm / "fuzz")], tmp_path / "bits")
    assert f" of {PROCESSORS[processor]} kernels: {len(found)} sound ones as expected" in said
    assert found == expected


@pytest.mark.parametrize(
    ("kernels", "tile", "multiplies", "each"),
    [
        ("neoni8mm", "product_6x1", {"usmmla": 24}, 16.5),
        ("neondotprod", "product_6x1", {"sdot": 96}, 12.5),
        ("neon", "product_4x1", {"smlal": 128}, 3.1),
        ("neoni8mm", "score_6x1", {"smlal": 192}, 3.5),
        ("neondotprod", "mix_6x1", {"smlal": 192}, 3.5),
        ("neon", "score_4x1", {"smlal": 128}, 3.5),
    ],
)
def test_the_inner_loops_are_what_was_counted(
    kernels: str, tile: str, multiplies: dict[str, int], each: float, arm: Path
) -> None:
    """No accumulator leaves its register, and so many products an instruction, loads and all (docs/architecture.md)."""
    code = dict(arm_loops.functions((arm / f"kernels_{kernels}.o").read_bytes()))
    found = arm_loops.loop(code[tile])
    print(f"{kernels} {tile}: {found.macs} MACs in {found.instructions} instructions")
    assert found.multiplies == multiplies
    assert found.spills == 0
    assert found.macs / found.instructions > each
