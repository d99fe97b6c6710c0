"""Exports without their check, and what a directory holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastembed_rt import manifest
from fastembed_rt_export.pipeline import ExportOptions, export


def contents(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def quick(checkpoint: Path, output: Path, **options: Any) -> manifest.Manifest:
    return export(str(checkpoint), ExportOptions(output=output, verify=False, **options)).manifest
