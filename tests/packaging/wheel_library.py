"""`make wheels-check`: the tests of what is in C with a wheel's library, whose bits are those of the one built here.

    python tests/packaging/wheel_library.py [WHEEL]

The wheel of this machine in dist/ unless one is named. Every output of every test of the operators is compared, on the
kernels of this processor. Exit code 1 where a test fails or a bit differs.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

import wheel_contents

from fastembed_rt import native
from fastembed_rt.native import build

ROOT = Path(__file__).parents[2]
TOKENIZERS = [f"tests/runtime/text/test_{name}.py" for name in ("wordpiece", "unigram", "normalized_unigram", "bpe")]


def outputs(library: Path, log: Path) -> set[str]:
    """Run the tests of what is in C with a library: the lines that native_outputs.py writes of them, in no order.

    Raises:
        SystemExit: one fails.
    """
    environment = {**os.environ, "FASTEMBED_RT_TEST_OPERATORS": str(library), "NATIVE_OUTPUTS": str(log)}
    environment["PYTHONPATH"] = os.pathsep.join(map(str, (ROOT, ROOT / "export", ROOT / "tests")))
    options = ["-q", "-p", "native_outputs", "-p", "no:cacheprovider", "-m", "not slow and not gpu"]
    limited = "tests/native/test_shared_files.py::test_without_room_each_has_its_own_and_it_is_said"
    options += ["--deselect", limited]  # it has no room for the log either
    command = [sys.executable, "-m", "pytest", *options, "tests/native", *TOKENIZERS]
    if subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode:
        sys.exit(f"the tests fail with {library}")
    return set(log.read_text(encoding="utf-8").splitlines())


def main() -> int:
    """Compare."""
    target = build.TARGETS[f"{sys.platform}-{platform.machine()}"]
    made = [Path(name) for name in sys.argv[1:]] or sorted((ROOT / "dist").glob(f"*-py3-none-{target.tags}.whl"))
    data = wheel_contents.library(made[-1]) if made else None
    if data is None:
        sys.exit(f"no wheel with a library for {target.tags} in dist: make wheels")
    with tempfile.TemporaryDirectory() as work:
        place = Path(work) / build.LIBRARY
        place.write_bytes(data)
        theirs = outputs(place, Path(work) / "wheel")
        ours = outputs(native.library(), Path(work) / "here")
    different = sorted(line.split()[0] for line in ours ^ theirs)
    print(f"{native.kernels()} kernels: {len(ours)} outputs, {len(different)} different {' '.join(different[:9])}")
    return int(bool(different) or not ours)


if __name__ == "__main__":
    sys.exit(main())
