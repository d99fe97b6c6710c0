"""`python -m fastembed_rt.native.ptx`: kernels.cu -> kernels.ptx, with nvcc; both are checked in.

PTX for the oldest card, which the driver of every later one turns into its own code. Its version is set back to the
oldest that has all that is used, so that drivers older than the nvcc at hand read it; ptxas says whether it has.
"""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).parent / "src" / "cuda" / "kernels.cu"
OUTPUT = SOURCE.with_suffix(".ptx")
OLDEST = "75"  # compute capability: Turing
VERSION = "6.3"  # of PTX: the first with sm_75
CHECKED = ("75", "80", "86", "89", "90", "100", "120")  # what ptxas makes code for


def source_hash() -> str:
    """What the first line of kernels.ptx has to say."""
    return hashlib.sha256(SOURCE.read_bytes()).hexdigest()


def make() -> str:
    """The text of kernels.ptx.

    Raises:
        subprocess.CalledProcessError, FileNotFoundError: nvcc or ptxas fails, or is not there.
    """
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "kernels.ptx"
        subprocess.run(["nvcc", "-ptx", f"-arch=compute_{OLDEST}", "-O3", "-o", file, SOURCE], check=True)
        text = re.sub(r"(?m)^\.version .*$", f".version {VERSION}", file.read_text(encoding="ascii"))
        # nvcc names what is static by a hash of the file's path.
        text = re.sub(r"_INTERNAL_[0-9a-f]{8}_", "_INTERNAL_", text)
        text = re.sub(r"_kernels_cu_[0-9a-f]{8}", "_kernels_cu", text)
        lines = [re.sub(r"\s+", " ", line).strip() for line in text.splitlines()]
        text = "\n".join(line for line in lines if line and not line.startswith("//")) + "\n"
        file.write_text(text, encoding="ascii")
        for capability in CHECKED:
            subprocess.run(["ptxas", f"-arch=sm_{capability}", "-o", "/dev/null", file], check=True)
    return f"// Made of kernels.cu (sha256 {source_hash()}) by python -m fastembed_rt.native.ptx\n{text}"


if __name__ == "__main__":
    OUTPUT.write_text(make(), encoding="ascii")
    print(OUTPUT, f"{OUTPUT.stat().st_size} bytes, code for sm_{', sm_'.join(CHECKED)}", file=sys.stderr)
