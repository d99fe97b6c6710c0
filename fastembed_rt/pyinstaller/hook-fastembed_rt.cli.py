"""The commands, a module each, and what `embed --to` writes to: both imported by their names."""

from __future__ import annotations

from PyInstaller.utils.hooks import collect_submodules

hiddenimports = [*collect_submodules("fastembed_rt.cli"), *collect_submodules("fastembed_rt.bulk.sinks")]
