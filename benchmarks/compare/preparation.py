"""What a contender needs before it can start: its converted model, made once and kept, and its command line."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from . import environments
from .contenders import ENVIRONMENTS, Contender
from .environments import PROJECT, ROOT, python
from .processes import Process

# Each library reads its own; explicit options in the adapters say the same where there are any.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
# Which instructions libraries take: what of them is set counts for all, and is recorded.
INSTRUCTION_VARIABLES = (
    "FASTEMBED_RT_KERNELS",
    "CT2_FORCE_CPU_ISA",
    "ONEDNN_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
    "ATEN_CPU_CAPABILITY",
)
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
# onnxruntime's wheels may report what they run; this project turns that off by itself, so nobody shall have it on.
TELEMETRY = {"ORT_DISABLE_TELEMETRY": "1"}
ADAPTERS = Path(__file__).parent / "adapters"
IMPORTS = re.compile(r"^ *from benchmarks\.compare\.adapters\.(\w+) import ", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """The model and the budget that all contenders of a run share."""

    checkpoint: Path
    model_dir: Path
    calibration: Path
    max_length: int
    threads: int
    cpus: Sequence[int]
    logs: Path
    timeout: float
    root: Path = field(default=ROOT)

    def folder(self, contender: Contender) -> Path:
        """Where a contender's converted model is: another model, row or adapter, another folder."""
        digest = hashlib.sha256(self._checkpoint_digest.encode())
        if contender.precision is not None:  # it takes the graph too
            digest.update(self._graph_digest.encode())
        digest.update(json.dumps([*ENVIRONMENTS[preparing(contender)].steps, dict(contender.options)]).encode())
        for source in sources(contender.adapter):
            digest.update(source.read_bytes())
        return self.root / "models" / f"{contender.name}-{digest.hexdigest()[:16]}"

    def prepare(self, contender: Contender) -> None:
        """Convert the model unless that was done before.

        Raises:
            ContenderError: the conversion failed, or the environment for it could not be made.
        """
        folder = self.folder(contender)
        if folder.is_dir():
            return
        environments.ensure(ENVIRONMENTS[preparing(contender)], self.root)
        folder.parent.mkdir(parents=True, exist_ok=True)
        part = Path(tempfile.mkdtemp(prefix=f".{contender.name}-", dir=folder.parent))
        process = self.start(contender, "prepare", part)
        try:
            process.answer("prepare", timeout=self.timeout)
            part.rename(folder)
        except OSError:
            if not folder.is_dir():  # another run may have made it meanwhile
                raise
        finally:
            process.kill()
            shutil.rmtree(part, ignore_errors=True)

    def start(self, contender: Contender, mode: str, folder: Path | None = None) -> Process:
        """A process of the contender's own environment, in one of the modes that every adapter has."""
        options = {
            "checkpoint": str(self.checkpoint),
            "model_dir": str(self.model_dir),
            "prepared": str(folder or self.folder(contender)),
            "calibration": str(self.calibration),
            "max_length": self.max_length,
            "threads": self.threads,
            "cpus": list(self.cpus),
            "own": dict(contender.options),
        }
        environment = preparing(contender) if mode == "prepare" else contender.environment
        interpreter = python(ENVIRONMENTS[environment], self.root)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        return Process(
            [str(interpreter), "-m", f"benchmarks.compare.adapters.{contender.adapter}", mode, json.dumps(options)],
            log=self.logs / f"{contender.name}.log",
            cwd=PROJECT,
            environment={**kept, **variables(self.threads)},
        )

    @cached_property
    def _checkpoint_digest(self) -> str:
        """Of everything that a conversion of the checkpoint reads."""
        files = [
            path for path in sorted(self.checkpoint.rglob("*")) if path.suffix in (".safetensors", ".json", ".txt")
        ]
        hashes = [_sha256(path) for path in (*files, self.model_dir / "tokenizer.json", self.calibration)]
        return json.dumps([self.max_length, *hashes])

    @cached_property
    def _graph_digest(self) -> str:
        """Of the model directory's graphs and weights."""
        files = [path for path in sorted(self.model_dir.iterdir()) if path.is_file() and path.suffix != ".md"]
        return json.dumps([_sha256(path) for path in files if path.suffix != ".json"])


def sources(adapter: str, folder: Path = ADAPTERS) -> list[Path]:
    """Files that a conversion is written in: the adapter's, and those beside it that it imports.

    `server` is not among them: it calls conversions and is no part of any.
    """
    found = {"server": Path(), adapter: folder / f"{adapter}.py"}
    pending = [adapter]
    while pending:
        for name in IMPORTS.findall(found[pending.pop()].read_text(encoding="utf-8")):
            if name not in found:
                found[name] = folder / f"{name}.py"
                pending.append(name)
    return [found[name] for name in sorted(found.keys() - {"server"})]


def variables(threads: int) -> dict[str, str]:
    """What is set in the environment of every contender alike, and who ran it chose of instruction sets."""
    chosen = {name: os.environ[name] for name in INSTRUCTION_VARIABLES if name in os.environ}
    return {**OFFLINE, **TELEMETRY, **dict.fromkeys(THREAD_VARIABLES, str(threads)), **chosen}


def preparing(contender: Contender) -> str:
    """Environment in which its model is converted."""
    return contender.converter or contender.environment


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
