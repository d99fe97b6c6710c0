"""Exports without their check, and what a directory holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fastembed_rt import manifest
from fastembed_rt_export.gate import order
from fastembed_rt_export.gate.parity import parity_texts
from fastembed_rt_export.pipeline import ExportOptions, export
from fastembed_rt_export.tasks import late_parity, reranking_parity
from fastembed_rt_export.variants import wanted

SHARE = 8  # of the gate's texts, one of so many in a short one


def contents(directory: Path) -> dict[str, bytes]:
    return {str(file.relative_to(directory)): file.read_bytes() for file in directory.rglob("*") if file.is_file()}


def quick(checkpoint: Path, output: Path, **options: Any) -> manifest.Manifest:
    return export(str(checkpoint), ExportOptions(output=output, verify=False, **options)).manifest


def shorten_the_gate(monkeypatch: pytest.MonkeyPatch, share: int = SHARE) -> None:
    """Gates compare one of so many of their texts, of all kinds, and those at each limit that they make themselves."""
    few = parity_texts()[::share]
    for module in (order, wanted, late_parity, reranking_parity):
        monkeypatch.setattr(module, "parity_texts", lambda: list(few))
