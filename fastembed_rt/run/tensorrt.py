"""Running graphs of the tensorrt target: an engine for each range of lengths, built once, kept, and never rebuilt.

TensorRT compiles a graph for shapes it is told beforehand; a shape outside makes onnxruntime compile again, for
minutes, in the middle of traffic. So lengths are in buckets with a profile each, batches are split to fit, longer texts
are refused, and all engines are there and have run once before a model is loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError, ProviderUnavailableError, first_line
from ..files import ModelFiles
from ..manifest import Variant, sha256_file
from ..system.progress import progress
from . import nvidia
from .contract import GraphSession
from .providers import load_onnxruntime, require_provider
from .session import OUTPUT, Session

EDGES = (32, 128, 512, 2048, 8192)  # tokens: buckets end here, and at the longest text
CACHE_VARIABLE = "FASTEMBED_RT_CACHE"
SUMS = "sums.json"  # of the files of a finished cache, by name
T = TypeVar("T")


@dataclass(frozen=True)
class Profile:
    """Shapes that an engine takes: 1 to `texts` rows of `shortest` to `longest` tokens."""

    shortest: int
    longest: int
    texts: int

    def settings(self, inputs: tuple[str, ...]) -> dict[str, str]:
        """Options of the provider; every input is (texts, tokens)."""
        shapes = {
            "min": (1, self.shortest),
            "opt": (self.texts, self.longest),  # what bulk runs, and single texts gain little from
            "max": (self.texts, self.longest),
        }
        return {
            f"trt_profile_{name}_shapes": ",".join(f"{entry}:{rows}x{tokens}" for entry in inputs)
            for name, (rows, tokens) in shapes.items()
        }


def profiles(longest: int, batch_tokens: int) -> tuple[Profile, ...]:
    """Buckets up to the longest text; each as many texts as fill a batch."""
    ends = [edge for edge in EDGES if edge < longest] + [longest]
    starts = [1, *(end + 1 for end in ends[:-1])]
    return tuple(Profile(start, end, max(batch_tokens // end, 1)) for start, end in zip(starts, ends, strict=True))


def cache_root() -> Path:
    """Where engines are kept: FASTEMBED_RT_CACHE, else the user's cache directory."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given) / "tensorrt"
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home())
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "fastembed-rt" / "tensorrt"


def cache_key(variant: Variant, wanted: tuple[Profile, ...], versions: Mapping[str, str]) -> str:
    """A name for engines: they fit one graph, one set of shapes, one GPU model, one TensorRT, one onnxruntime."""
    facts = {
        "graph": [record.sha256 for record in variant.files],
        "profiles": [[entry.shortest, entry.longest, entry.texts] for entry in wanted],
        **versions,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def versions(device: int) -> dict[str, str]:
    """What engines depend on beside graph and shapes."""
    return {
        "onnxruntime": str(load_onnxruntime().__version__),
        "tensorrt": _tensorrt_version(),
        "gpu": nvidia.device_name(device),
    }


class EngineCache:
    """A directory of engines that appears whole or not at all, and whose damage costs a build, no failure."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def open(self, load: Callable[[Path], T]) -> T:
        """What `load` makes of the directory: with the engines that are there, else of an empty one, which is kept.

        Engines that are altered, or that `load` fails with, are set aside and built again.

        Raises:
            InvalidInputError: the directory cannot be written.
        """
        if self._whole():
            try:
                return load(self.directory)
            except ProviderUnavailableError:
                pass  # engines that TensorRT refuses; if it is not that, the build says so
        try:
            self._set_aside()
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            # Other processes may build the same engines: each in a directory of its own, and the first is kept.
            name = f".{self.directory.name}."
            work = Path(tempfile.mkdtemp(prefix=name, suffix=".partial", dir=self.directory.parent))
        except OSError as error:
            raise InvalidInputError(
                f"engines cannot be kept in {self.directory.parent} ({error.strerror}); set {CACHE_VARIABLE} to a "
                "directory that can be written"
            ) from error
        try:
            made = load(work)
            sums = {file.name: sha256_file(file) for file in sorted(work.iterdir())}
            (work / SUMS).write_text(json.dumps(sums, indent=1), encoding="utf-8")
            try:
                work.rename(self.directory)
            except OSError:
                if not self.directory.is_dir():
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return made

    def _whole(self) -> bool:
        """Whether all files are there and are what they were."""
        try:
            sums = json.loads((self.directory / SUMS).read_text(encoding="utf-8"))
            return bool(sums) and all(sha256_file(self.directory / name) == digest for name, digest in sums.items())
        except (OSError, ValueError, AttributeError):
            return False

    def _set_aside(self) -> None:
        if not self.directory.exists():
            return
        aside = Path(tempfile.mkdtemp(prefix=f"{self.directory.name}.", suffix=".damaged", dir=self.directory.parent))
        try:
            self.directory.rename(aside / self.directory.name)
        except FileNotFoundError:  # another process did it
            aside.rmdir()


class _Bucket(Session):
    """One engine."""

    def __init__(self, files: ModelFiles, variant: Variant, *, profile: Profile, cache: Path, **options: Any) -> None:
        self.profile = profile
        self._cache = cache
        super().__init__(files, variant, **options)

    def _settings(self, variant: Variant, device: int) -> dict[str, str]:
        return {
            "device_id": str(device),
            "trt_fp16_enable": "1" if variant.precision == "fp16" else "0",
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(self._cache),
            "trt_engine_cache_prefix": f"tokens{self.profile.longest}",
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(self._cache),
            **self.profile.settings(variant.inputs),
        }


class TensorrtSession:
    """A graph of the tensorrt target on one GPU, as several engines: a GraphSession made of sessions."""

    shared = True
    own_operators = False

    def __init__(
        self,
        files: ModelFiles,
        variant: Variant,
        *,
        provider: str,
        threads: int,
        output: str = OUTPUT,
        device: int = 0,
        longest: int = 512,
        batch_tokens: int = 16384,
    ) -> None:
        """Build the engines, or take them from the cache, and run each once.

        Args:
            files: the model's.
            variant: of the tensorrt target.
            provider: tensorrt.
            threads: for what is left to the CPU, which is nothing.
            output: its name.
            device: number of the GPU.
            longest: tokens of the longest text there will be.
            batch_tokens: bound on the padded tokens of a batch.

        Raises:
            ProviderUnavailableError: TensorRT or a GPU is nvidia, or it cannot build the graph.
        """
        require_provider(provider)
        options = {"provider": provider, "threads": threads, "output": output, "device": device}
        wanted = profiles(longest, batch_tokens)

        def load(cache: Path) -> list[GraphSession]:
            made: list[GraphSession] = []
            fresh = not any(cache.iterdir())  # a bar where there are minutes to wait
            with progress(len(wanted), fresh, "engine", "TensorRT") as bar:
                for profile in wanted:
                    session = open_bucket(files, variant, profile, cache, options)
                    warm_up(session, profile)
                    made.append(session)
                    bar.update(1)
            return made

        cache = EngineCache(cache_root() / cache_key(variant, wanted, versions(device)))
        self._buckets = list(zip(wanted, cache.open(load), strict=True))
        self.inputs: tuple[str, ...] = self._buckets[0][1].inputs

    @property
    def native(self) -> Any:
        """The objects behind onnxruntime's Python sessions."""
        return tuple(session.native for _, session in self._buckets)

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float32]:
        """The output for one batch, in as many runs as its engine needs."""
        count, tokens = feeds["input_ids"].shape
        fitting = [entry for entry in self._buckets if tokens <= entry[0].longest]
        if not fitting:
            raise InvalidInputError(
                f"a text of {tokens} tokens does not fit the engines, which take {self._buckets[-1][0].longest}; "
                "load the model with a larger max_length"
            )
        profile, session = fitting[0]
        parts = [
            session.run({name: array[start : start + profile.texts] for name, array in feeds.items()})
            for start in range(0, count, profile.texts)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)


def open_bucket(
    files: ModelFiles, variant: Variant, profile: Profile, cache: Path, options: Mapping[str, Any]
) -> GraphSession:
    """The session of one profile."""
    return _Bucket(files, variant, profile=profile, cache=cache, **options)


def warm_up(session: GraphSession, profile: Profile) -> None:
    """Run both ends of a profile, as an engine that does not build or load shows only then.

    Raises:
        ProviderUnavailableError: it does not run.
    """
    for shape in ((1, profile.shortest), (profile.texts, profile.longest)):
        feeds = {name: np.ones(shape, np.int64) for name in session.inputs}
        feeds["token_type_ids"] = np.zeros(shape, np.int64)
        try:
            session.run({name: feeds[name] for name in session.inputs})
        except Exception as error:  # onnxruntime raises its own kinds, all plain Exceptions
            raise ProviderUnavailableError(f"provider 'tensorrt' did not run {profile}: {first_line(error)}") from error


def _tensorrt_version() -> str:
    """As the library says, "10.13.2"; its major where it does not say."""
    name = f"nvinfer_{nvidia.TENSORRT}.dll" if sys.platform == "win32" else f"libnvinfer.so.{nvidia.TENSORRT}"
    try:
        number = int(ctypes.CDLL(name).getInferLibVersion())
    except (OSError, AttributeError):
        return str(nvidia.TENSORRT)
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"
