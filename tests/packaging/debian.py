"""A wheel in a Debian that has nothing else: installed from PyPI's packages, vectors compared with those made here.

    PYTHONPATH=.:tests python tests/packaging/debian.py WHEEL MODEL_DIRECTORY [--suites trixie,bookworm]
        [--roots DIR] [--mirror URL] [--python /usr/bin/python3]

Needs root and debootstrap; a root that is there already is used again. `--python` names another interpreter inside the
root, for a Debian whose own is older than 3.11. Prints a line a suite; exit code 1 where target native does not run
there, or a vector has other bits than here. The interpreter that runs this has to have the runtime's packages.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import sys
from pathlib import Path

from debian_roots import prepared, run

CODE = """
import hashlib, json, platform, sys
from fastembed_rt import EmbeddingModel, native
import numpy, onnxruntime, tokenizers
texts = ["The cat sits on the mat.", "", "How do I install a wheel?", "word " * 300, "Grüße aus Köln 🙂"]
model = EmbeddingModel(sys.argv[1], precision="int8")
vectors = model.encode(texts)
print(json.dumps({
    "target": model.target, "kernels": native.kernels(), "why_not": native.why_not(), "shape": vectors.shape,
    "bits": hashlib.sha256(vectors.tobytes()).hexdigest(), "python": platform.python_version(),
    "libc": " ".join(platform.libc_ver()), "onnxruntime": onnxruntime.__version__, "numpy": numpy.__version__,
}))
"""


def encoded(root: Path, wheel: Path, model: Path, python: str) -> dict[str, object]:
    """Install the wheel in an environment of its own in `root`, and encode."""
    work = root / "wheel-test"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    shutil.copyfile(wheel, work / wheel.name)
    shutil.copytree(model, work / "model")
    inside = ["chroot", str(root)]
    environment = {
        "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "PIP_CERT": "/etc/ssl/certs/ca-certificates.crt",
        "HOME": "/root",
        **{key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")},
    }
    run([*inside, python, "-m", "venv", "/wheel-test/venv"], environment)
    installed = "/wheel-test/venv/bin/python"
    run([*inside, installed, "-m", "pip", "install", "-q", f"/wheel-test/{wheel.name}[cpu]"], environment)
    # onnxruntime opens the weights beside a graph through /proc/self/fd.
    run(["mount", "-t", "proc", "proc", str(root / "proc")])
    try:
        found = run([*inside, installed, "-c", CODE, "/wheel-test/model"], environment)
    finally:
        run(["umount", str(root / "proc")])
    result: dict[str, object] = json.loads(found.splitlines()[-1])
    return result


def main() -> int:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--suites", default="trixie,bookworm")
    parser.add_argument("--roots", type=Path, default=Path("/var/tmp"), help="folder of the roots, chroot-<suite>")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    parser.add_argument("--python", default="/usr/bin/python3")
    asked = parser.parse_args()
    here = json.loads(run([sys.executable, "-c", CODE, str(asked.model)]).splitlines()[-1])
    print(f"here      {here['target']} ({here['kernels']}), Python {platform.python_version()}, {here['libc']}")
    wrong = False
    for suite in asked.suites.split(","):
        root = asked.roots / f"chroot-{suite}"
        prepared(suite, root, asked.mirror)
        found = encoded(root, asked.wheel, asked.model, asked.python)
        same = found["bits"] == here["bits"] and found["shape"] == here["shape"]
        wrong |= not same or found["target"] != "native"
        print(
            f"{suite:9} {found['target']} ({found['kernels'] or found['why_not']}), Python {found['python']}, "
            f"{found['libc']}, onnxruntime {found['onnxruntime']}, numpy {found['numpy']}: "
            f"{'the same bits' if same else 'OTHER BITS'}",
            flush=True,
        )
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
