"""Hooks for PyInstaller, which finds them through the entry point `pyinstaller40` and asks for nothing.

It follows imports. What is opened or imported by a name that is put together, a hook has to say: a file a module.
"""

from __future__ import annotations

from pathlib import Path


def hook_dirs() -> list[str]:
    """Where the hooks are."""
    return [str(Path(__file__).parent)]
