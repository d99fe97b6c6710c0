"""Debian in a folder, made by debootstrap: for what has to run where nothing else is installed."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

PACKAGES = "python3,python3-venv,ca-certificates"


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """What a command prints.

    Raises:
        SystemExit: it failed; with its last words.
    """
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def prepared(suite: str, root: Path, mirror: str) -> None:
    """A Debian in `root`, with this machine's names and certificates, and Python."""
    if not (root / "usr" / "bin" / "python3").exists():
        run(["debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, str(root), mirror])
    for name in ("etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt"):
        if (Path("/") / name).exists():
            shutil.copyfile(Path("/") / name, root / name)
