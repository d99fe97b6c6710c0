"""Packed weights of our own operators in a folder that the environment names, so that processes have them once."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from .. import native
from ..errors import InvalidInputError

VARIABLE = "FASTEMBED_RT_SHARED_WEIGHTS"  # environment: the folder


def share() -> None:
    """Have weights that are packed from now on lie there, or, where it names none, in memory of this process.

    Raises:
        InvalidInputError: it is no folder, others may write to it, or this is not Linux.
    """
    folder = os.environ.get(VARIABLE, "")
    why = _why_not(folder) if folder else None
    if why is None and not native.share_packed(folder):
        why = "a name that is too long"
    if why is not None:
        raise InvalidInputError(f"{VARIABLE} is {folder}, {why}")


def report() -> None:
    """Say in the log that weights which were to lie there do not."""
    folder = os.environ.get(VARIABLE)
    if folder and (layers := native.unshared()):
        import logging  # when there is something to say

        logging.getLogger("fastembed_rt").warning(
            "%d layers are in memory of this process alone: %s has no room for them, its file system no files "
            "without names, or something else has their names; make it larger, or name another in %s",
            layers,
            folder,
            VARIABLE,
        )


def _why_not(folder: str) -> str | None:
    if sys.platform != "linux":
        return "and weights are shared on Linux alone"
    try:
        about = Path(folder).stat()
    except OSError as error:
        return f"which cannot be opened ({error.strerror}); make the folder first"
    if not stat.S_ISDIR(about.st_mode):
        return "which is no folder"
    if about.st_uid != os.geteuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "which others may write to; make one that is yours alone (mkdir -m 700)"
    return None
