"""`python -m fastembed_rt.native.ptx`: the .cu files of src/cuda -> .ptx beside them, with nvcc; both are checked in.

PTX for the oldest card, which the driver of every later one turns into its own code. Its version is set back to the
oldest that has all that is used, so that drivers older than the nvcc at hand read it; ptxas says whether it has. No
product and sum become one instruction but where the source says so: which do would be left to the driver, and a row's
bits with it.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

FOLDER = Path(__file__).parent / "src" / "cuda"
SHARED = FOLDER / "device.cuh"  # what they include
CHECKED = ("75", "80", "86", "89", "90", "100", "120")  # what ptxas makes code for


class Kind(NamedTuple):
    """What the kernels of a file need."""

    oldest: str = "75"  # compute capability: Turing
    version: str = "6.3"  # of PTX: the first with sm_75


SOURCES = {  # by the name of the file
    "kernels": Kind(),
    "gated": Kind(),
    "heads": Kind(),
    "attention": Kind("80", "7.0"),  # products of 16 x 8 x 16, copies that go on
    "fp8": Kind("89", "8.1"),  # rounding to e4m3, which Hopper has from PTX 7.8 on and Ada from 8.1
}


def source(name: str) -> Path:
    """The file that is compiled."""
    return FOLDER / f"{name}.cu"


def output(name: str) -> Path:
    """What is made of it."""
    return FOLDER / f"{name}.ptx"


def source_hash(name: str) -> str:
    """What the first line of the PTX has to say."""
    return hashlib.sha256(source(name).read_bytes() + SHARED.read_bytes()).hexdigest()


def make(name: str, said: Callable[[str], object] = lambda _: None) -> str:
    """The text of a file's PTX; `said` gets what ptxas says of registers.

    Raises:
        subprocess.CalledProcessError, FileNotFoundError: nvcc or ptxas fails, or is not there.
    """
    kind = SOURCES[name]
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / f"{name}.ptx"
        flags = ["-ptx", f"-arch=compute_{kind.oldest}", "-O3", "-fmad=false"]
        subprocess.run(["nvcc", *flags, "-o", file, source(name)], check=True)
        text = re.sub(r"(?m)^\.version .*$", f".version {kind.version}", file.read_text(encoding="ascii"))
        # nvcc names what is static by a hash of the file's path.
        text = re.sub(r"_INTERNAL_[0-9a-f]{8}_", "_INTERNAL_", text)
        text = re.sub(rf"_{name}_cu_[0-9a-f]{{8}}", f"_{name}_cu", text)
        lines = [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]
        text = "\n".join(line for line in lines if line and not line.startswith("//")) + "\n"
        file.write_text(text, encoding="ascii")
        for capability in CHECKED:
            if int(capability) >= int(kind.oldest):
                command = ["ptxas", "-v", f"-arch=sm_{capability}", "-o", "/dev/null", str(file)]
                said(subprocess.run(command, check=True, stderr=subprocess.PIPE, text=True).stderr)
    return f"// Made of {name}.cu (sha256 {source_hash(name)}) by python -m fastembed_rt.native.ptx\n{text}"


if __name__ == "__main__":
    for name in SOURCES:
        report: list[str] = []
        output(name).write_text(make(name, report.append), encoding="ascii")
        # Of each kernel on each card: registers a thread, and what does not find room in them.
        found = re.findall(
            r"function '(\w+)' for '(\w+)'.*?(\d+) bytes spill stores.*?Used (\d+) registers", "".join(report), re.S
        )
        for kernel, card, spilled, registers in found:
            print(f"{kernel} {card}: {registers} registers, {spilled} bytes spilled", file=sys.stderr)
        print(output(name), f"{output(name).stat().st_size} bytes", file=sys.stderr)
