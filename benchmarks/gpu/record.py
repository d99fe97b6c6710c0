"""The record of a run: begun, gone on with, written, and the machine that it is of."""

from __future__ import annotations

import json
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

from . import rates

VERSIONS = ("fastembed-rt", "onnxruntime-gpu", "onnxruntime", "torch", "transformers", "sentence-transformers", "numpy")


def begun(folder: Path, machine: dict[str, Any], versions: dict[str, str | None]) -> dict[str, Any] | None:
    """The record of an earlier run in this folder that this one goes on with.

    Raises:
        SystemExit: it is of another machine, or of other versions.
    """
    file = folder / "record.json"
    if not file.is_file():
        return None
    record: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    for what, now in (("machine", machine), ("versions", versions)):
        different = [key for key in now if record[what].get(key) != now[key]]
        if different:
            raise SystemExit(f"{file} is of other {what} ({', '.join(different)}); pass another --out")
    return record


def write(record: dict[str, Any], folder: Path) -> list[str]:
    """Put the record and its page into the folder; the page's lines."""
    rates.summarize(record)
    file = folder / "record.json"
    beside = file.with_suffix(".new")
    beside.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    beside.replace(file)
    lines = list(rates.markdown(record))
    (folder / "report.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return lines


def describe(device: str) -> dict[str, Any]:
    """The machine, as far as it decides times."""
    import torch

    from fastembed_rt import machine

    facts = machine.describe()
    found: dict[str, Any] = {
        "device": facts.cpu.model,
        "cpu": facts.cpu.model,
        "cpus": facts.threads,
        "python": platform.python_version(),
        "system": platform.platform(),
    }
    if device == "cuda":
        if not torch.cuda.is_available():
            raise SystemExit("torch sees no GPU; run fastembed-rt doctor, or pass --dry-run to try the code on CPUs")
        properties = torch.cuda.get_device_properties(0)
        query = ["nvidia-smi", "--query-gpu=driver_version,clocks.max.sm,power.limit", "--format=csv,noheader"]
        try:
            listed = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30).stdout.strip()
        except (OSError, subprocess.TimeoutExpired):
            listed = ""
        found |= {
            "device": properties.name,
            "memory": properties.total_memory,
            "multiprocessors": properties.multi_processor_count,
            "torch_cuda": torch.version.cuda,
            "driver, clock, power": listed,
        }
    return found


def versions() -> dict[str, str | None]:
    """Of what is measured."""
    return {name: _version(name) for name in VERSIONS}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def short(device: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", device.lower().replace("nvidia", "")).strip("-") or "device"
