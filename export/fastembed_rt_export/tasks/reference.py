"""The library that exports are compared with: whether it is here, and in which version."""

from __future__ import annotations

from importlib import metadata

from ..errors import MissingDependencyError
from ..verify import can_verify


def require_reference() -> None:
    """Raise MissingDependencyError unless torch and sentence-transformers are installed; quieten their bars."""
    missing = can_verify()
    if missing is not None:
        raise MissingDependencyError(f"{missing}; pip install 'fastembed-rt[verify]' to compare with the reference")
    from transformers.utils import logging

    logging.disable_progress_bar()  # the export says its own steps


def versions() -> str:
    """What the reference was."""
    names = ("sentence-transformers", "transformers", "torch")
    return ", ".join(f"{name} {metadata.version(name)}" for name in names) + ", float32 on CPU"
