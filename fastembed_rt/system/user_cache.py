"""The directory for what can be made again: exports of checkpoints, TensorRT's engines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "FASTEMBED_RT_CACHE"


def folder(kind: str) -> Path:
    """Where files of one kind are kept: in FASTEMBED_RT_CACHE, else in the user's cache directory; may not be there.

    The user's is XDG_CACHE_HOME or ~/.cache, on Windows LOCALAPPDATA, and `fastembed-rt` in there.
    """
    given = os.environ.get(VARIABLE)
    if given:
        return Path(given) / kind
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home())
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fastembed-rt" / kind
