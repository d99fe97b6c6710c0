"""`make wheels`: a wheel for every row of build.TARGETS and the source archive, from this machine, each looked into.

    python tests/packaging/wheels.py [--out dist] [--only linux-x86_64,...]

Needs ziglang, build and hatchling in this interpreter's environment, and auditwheel for a second opinion about
those for glibc. Prints a line a wheel; exit code 1 where one is not what its tags say. A library for this machine is
loaded as well, and has to find itself right.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import wheel_contents

from fastembed_rt import native
from fastembed_rt.native import build

ROOT = Path(__file__).parents[2]


def make(kind: str, out: Path, target: str = "") -> Path:
    """A wheel for a target, or the source archive, in `out`; its path."""
    os.environ["FASTEMBED_RT_TARGET"] = target
    with tempfile.TemporaryDirectory() as work:
        made = wheel_contents.built(kind, Path(work))
        out.mkdir(parents=True, exist_ok=True)
        kept = out / made.name
        shutil.copyfile(made, kept)
    return kept


def loaded(data: bytes, directory: Path) -> Iterator[str]:
    """What is wrong with a library that is for this machine, when it is loaded."""
    place = directory / build.LIBRARY
    place.write_bytes(data)
    native.library = lambda: place
    if (reason := native.why_not()) is not None:
        yield f"it does not run here: {reason}"


def audited(wheel: Path, tags: str) -> Iterator[str]:
    """What auditwheel says otherwise about the system that a wheel needs."""
    command = [sys.executable, "-m", "auditwheel", "show", str(wheel)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = " ".join(done.stdout.split())
    found = re.search(r'consistent with the following platform tag: "(\w+)"', said)
    if done.returncode or found is None or found[1] not in tags:
        yield f"auditwheel says: {found[1] if found else (said or done.stderr.strip())[-300:]}"


def main() -> int:
    """Make and check them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--only", default=",".join(build.TARGETS), help="targets, separated by commas")
    asked = parser.parse_args()
    wrong = False
    archive = make("sdist", asked.out)
    print(f"{archive.stat().st_size / 1000:6.0f} kB  {archive.name}")
    for name in asked.only.split(","):
        target = build.TARGETS[name]
        wheel = make("wheel", asked.out, name)
        found = wheel_contents.complaints(wheel, target)
        library = wheel_contents.library(wheel)
        what = "no library: no kernels yet"
        if library is not None:
            what = f"library {len(library) / 1000:.0f} kB"
            if "manylinux" in target.tags:  # of musl's libc.so, auditwheel reads what glibc has of that name
                found += audited(wheel, target.tags)
            if name == f"{sys.platform}-{platform.machine()}":
                with tempfile.TemporaryDirectory() as work:
                    found += loaded(library, Path(work))
                what += f", runs here with {native.kernels()} kernels"
        print(f"{wheel.stat().st_size / 1000:6.0f} kB  {wheel.name}  ({what})", flush=True)
        for complaint in found:
            wrong = True
            print(f"           wrong: {complaint}")
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
