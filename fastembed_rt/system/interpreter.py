"""Python for a process of our own."""

from __future__ import annotations

import os
import sys

from ..errors import FastembedRtError
from ..machine import is_built_whole


def interpreter(what: str) -> str:
    """Path of the interpreter that runs this, for `what`, which starts it again.

    Raises:
        FastembedRtError: this is a program that PyInstaller or the like built: started again it would be itself.
    """
    if is_built_whole():
        raise FastembedRtError(
            f"{what} starts Python in processes of its own, and a program that was built whole ({sys.executable}) "
            "has none to start; run it with an installed fastembed-rt"
        )
    return sys.executable


def environment() -> dict[str, str]:
    """For an interpreter that is to import what this one does; shiv and others change the path after the start.

    Without the first entry, the directory of the script or the working directory.
    """
    path = [os.environ.get("PYTHONPATH", ""), *(sys.path if sys.flags.safe_path else sys.path[1:])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
