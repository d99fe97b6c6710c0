"""deploy/Dockerfile without a builder: its steps in a Debian root, its server started as its user, a model mounted.

    PYTHONPATH=.:tests python tests/packaging/image.py MODEL_DIRECTORY [--suite bookworm] [--roots DIR] [--mirror URL]
        [--port 18080]

Needs root and debootstrap; a root that is there already is used again. What is not shown: the base image (Debian's own
Python stands for it), layers, and the stage that exports a checkpoint. Exit code 1 where a step fails, the health check
does not pass, a vector has other bits than here, or the server does not end with 0 at the image's signal.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from debian_roots import prepared, run

PROJECT = Path(__file__).parents[2]
STAGES = ("install", "with-nothing")  # what the default image is made of
TEXTS = ["The cat sits on the mat.", "Grüße aus Köln 🙂", "word " * 300]
START_SECONDS = 120.0


@dataclass
class Image:
    """What the stages say."""

    steps: list[str] = field(default_factory=list)  # of RUN
    environment: dict[str, str] = field(default_factory=dict)
    user: str = "0:0"
    entry: list[str] = field(default_factory=list)
    healthy: list[str] = field(default_factory=list)
    stop: signal.Signals = signal.SIGTERM


def read(text: str) -> Image:
    """The stages of STAGES, with the defaults of their arguments."""
    image, stage, arguments = Image(), "", {}
    for line in re.sub(r"\\\n", " ", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            stage = rest.split(" AS ")[1]
        elif stage not in STAGES:
            continue
        elif word == "ARG":
            name, _, value = rest.partition("=")
            arguments[name] = value
        elif word == "ENV":
            pairs = dict(pair.split("=", 1) for pair in shlex.split(rest))
            image.environment |= {key: value.replace("$PATH", "/usr/sbin:/usr/bin") for key, value in pairs.items()}
        elif word == "RUN":
            image.steps.append(" ".join(f"export {k}={shlex.quote(v)};" for k, v in arguments.items()) + rest)
        elif word == "USER":
            image.user = rest
        elif word == "ENTRYPOINT":
            image.entry = json.loads(rest)
        elif word == "HEALTHCHECK":
            image.healthy = json.loads(rest[rest.index("CMD ") + 4 :])
        elif word == "STOPSIGNAL":
            image.stop = signal.Signals[rest]
    return image


@contextmanager
def mounted(kind: list[str], place: Path) -> Iterator[None]:
    """Something at a place of the root."""
    place.mkdir(exist_ok=True)
    run(["mount", *kind, str(place)])
    try:
        yield
    finally:
        run(["umount", str(place)])


def build(image: Image, root: Path) -> None:
    """The files of the project, then each RUN."""
    for old in (root / "source", root / "opt" / "fastembed-rt"):
        shutil.rmtree(old, ignore_errors=True)
    (root / "source").mkdir()
    files = subprocess.run(["git", "archive", "HEAD"], cwd=PROJECT, capture_output=True, check=True).stdout
    subprocess.run(["tar", "-x", "-C", str(root / "source")], input=files, check=True)
    subprocess.run(["chroot", str(root), "userdel", "embeddings"], capture_output=True, check=False)
    (root / "usr" / "bin" / "python").unlink(missing_ok=True)
    (root / "usr" / "bin" / "python").symlink_to("python3")  # as the base image has it
    proxies = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    around = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PIP_CERT": "/etc/ssl/certs/ca-certificates.crt", **proxies}
    for step in image.steps:
        run(["chroot", str(root), "sh", "-ec", step], {**around, **image.environment, "PATH": around["PATH"]})
        print(f"did: {step[step.index(';') + 1 :].strip()[:90]}", flush=True)


def served(image: Image, root: Path, model: Path, port: int) -> list[str]:
    """What is wrong with the running image."""
    inside = ["chroot", f"--userspec={image.user}", str(root)]
    environment = {**image.environment, "PORT": str(port)}
    with ExitStack() as stack:
        stack.enter_context(mounted(["-t", "proc", "proc"], root / "proc"))
        stack.enter_context(mounted(["--bind", "-o", "ro", str(model)], root / "model"))
        process = subprocess.Popen([*inside, *image.entry], env=environment)
        try:
            until = time.monotonic() + START_SECONDS
            while subprocess.run(
                [*inside, *image.healthy], env=environment, capture_output=True, check=False
            ).returncode:
                if process.poll() is not None or time.monotonic() > until:
                    return [f"the health check does not pass; the server's exit code is {process.poll()}"]
                time.sleep(0.5)
            wrong = (
                [] if vectors(port).tobytes() == expected(model).tobytes() else ["vectors have other bits than here"]
            )
            process.send_signal(image.stop)
            code = process.wait(60)
            return wrong + ([f"{image.stop.name} ended it with {code}"] if code else [])
        finally:
            process.kill()
            process.wait()


def vectors(port: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """(3, dim) of the running image."""
    body = json.dumps({"input": TEXTS, "encoding_format": "base64", "model": "model"}).encode()
    asked = urllib.request.Request(f"http://127.0.0.1:{port}/v1/embeddings", body, {"content-type": "application/json"})
    with urllib.request.urlopen(asked, timeout=60) as answer:
        rows = json.load(answer)["data"]
    return np.stack([np.frombuffer(base64.b64decode(row["embedding"]), np.float32) for row in rows])


def expected(model: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """(3, dim) by the library as it is here."""
    from fastembed_rt import EmbeddingModel

    with EmbeddingModel(model) as loaded:
        return np.asarray(loaded.encode(TEXTS), np.float32)


def main() -> int:
    """Build, serve, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--suite", default="bookworm")
    parser.add_argument("--roots", type=Path, default=Path("/var/tmp"), help="folder of the roots, chroot-<suite>")
    parser.add_argument("--mirror", default="http://deb.debian.org/debian")
    parser.add_argument("--port", type=int, default=18080)
    asked = parser.parse_args()
    image = read((PROJECT / "deploy" / "Dockerfile").read_text(encoding="utf-8"))
    root = asked.roots / f"chroot-{asked.suite}"
    prepared(asked.suite, root, asked.mirror)
    build(image, root)
    wrong = served(image, root, asked.model.resolve(), asked.port)
    print("\n".join(wrong) or f"{asked.suite}: healthy as user {image.user}, the same bits as here, ended with 0")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
