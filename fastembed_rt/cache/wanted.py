"""What is wanted of an export: all that changes what comes of a checkpoint, and so part of the entry's name."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from .. import manifest
from ..errors import InvalidInputError
from ..manifest import sha256_file

LETTERS = 16  # of a key's hash, in names of directories


@dataclass(frozen=True, kw_only=True)
class Hub:
    """How the hub is asked, as for models."""

    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Options of an export; None leaves the checkpoint's word, or the export's default."""

    precision: str
    target: str = "cpu"  # of the export: cpu, cuda or tensorrt
    pooling: str | None = None  # several joined by +
    normalize: bool | None = None
    adapter: str | None = None  # of a checkpoint that holds several; see hub.adapters
    tokens: bool = False
    calibration: str | os.PathLike[str] | None = None  # a file or directory of texts
    min_cosine: float | None = None
    exporter: str = "auto"
    trust_remote_code: bool = False
    verify: bool = True

    def key(self, checkpoint: str, version: str) -> str:
        """A short hash of a checkpoint's identity with these options and the version that exports.

        Raises:
            InvalidInputError: calibration texts that cannot be read.
        """
        texts = None if self.calibration is None else _texts(Path(self.calibration))
        said = {
            "checkpoint": checkpoint,
            "version": version,
            "manifest": manifest.FORMAT_VERSION,
            **asdict(replace(self, calibration=texts)),
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:LETTERS]


def _texts(place: Path) -> str:
    """SHA-256 of a file of texts, or of those in a directory."""
    try:
        if not place.is_dir():
            return sha256_file(place)
        files = sorted(file for file in place.iterdir() if file.suffix in (".txt", ".jsonl"))
        return hashlib.sha256("".join(sha256_file(file) for file in files).encode()).hexdigest()
    except OSError as error:
        raise InvalidInputError(f"calibration texts {place} cannot be read ({error.strerror})") from error
