"""Running graphs of the tensorrt target: an engine for each range of lengths, built once, kept, and never rebuilt.

TensorRT compiles a graph for shapes it is told beforehand; a shape outside makes onnxruntime compile again, for
minutes, in the middle of traffic. So lengths are in buckets with a profile each, batches are split to fit, longer texts
are refused, and all engines are there and have run once before a model is loaded.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..errors import InvalidInputError, ProviderUnavailableError, first_line
from ..files import ModelFiles
from ..manifest import Variant, sha256_file
from ..system import user_cache
from ..system.progress import progress
from . import nvidia, session
from .batching import Feeds
from .contract import Facts, GraphSession, Output
from .providers import load_onnxruntime, require_provider
from .session import OUTPUT

EDGES = (32, 128, 512, 2048, 8192)  # tokens: buckets end here, and at the longest text
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
    return user_cache.folder("tensorrt")


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
            InvalidInputError: the directory cannot be written, or the disk is full.
        """
        if self._whole():
            try:
                return load(self.directory)
            except ProviderUnavailableError:
                pass  # engines that TensorRT refuses; if it is not that, the build says so
        with self._kept_or_told():
            self._set_aside()
            self.directory.parent.mkdir(parents=True, exist_ok=True)
            # Other processes may build the same engines: each in a directory of its own, and the first is kept.
            name = f".{self.directory.name}."
            work = Path(tempfile.mkdtemp(prefix=name, suffix=".partial", dir=self.directory.parent))
        try:
            made = load(work)
            with self._kept_or_told():
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

    @contextmanager
    def _kept_or_told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InvalidInputError(
                f"engines cannot be kept in {self.directory.parent} ({error.strerror}); set {user_cache.VARIABLE} to a "
                "directory that can be written and has room"
            ) from error

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
        for earlier in self.directory.parent.glob(f"{self.directory.name}.*.damaged"):
            shutil.rmtree(earlier, ignore_errors=True)  # one to look at is enough
        aside = Path(tempfile.mkdtemp(prefix=f"{self.directory.name}.", suffix=".damaged", dir=self.directory.parent))
        try:
            self.directory.rename(aside / self.directory.name)
        except FileNotFoundError:  # another process did it
            aside.rmdir()


def load(
    files: ModelFiles,
    variant: Variant,
    *,
    provider: str,
    threads: int,
    output: str = OUTPUT,
    device: int = 0,
    longest: int = 512,
    batch_tokens: int = 16384,
) -> TensorrtSession:
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
        ProviderUnavailableError: TensorRT or a GPU is missing, or it cannot build the graph.
    """
    require_provider(provider)
    wanted = profiles(longest, batch_tokens)
    options = {"provider": provider, "threads": threads, "output": output, "device": device}

    def engines(cache: Path) -> list[GraphSession]:
        made: list[GraphSession] = []
        fresh = not any(cache.iterdir())  # a bar where there are minutes to wait
        with progress(len(wanted), fresh, "engine", "TensorRT") as bar:
            for profile in wanted:
                engine = open_engine(files, variant, profile, cache, options)
                warm_up(engine, profile)
                made.append(engine)
                bar.update(1)
        return made

    cache = EngineCache(cache_root() / cache_key(variant, wanted, versions(device)))
    return TensorrtSession(list(zip(wanted, cache.open(engines), strict=True)))


def open_engine(
    files: ModelFiles, variant: Variant, profile: Profile, cache: Path, options: Mapping[str, Any]
) -> GraphSession:
    """The session of one engine; options as for `session.load`."""
    settings = engine_settings(variant, profile, cache)
    return session.load(files, variant, settings=settings, **options)


def engine_settings(variant: Variant, profile: Profile, cache: Path) -> dict[str, str]:
    """Options of the provider for one engine, which is kept in `cache`."""
    return {
        "trt_fp16_enable": "1" if variant.precision == "fp16" else "0",
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": str(cache),
        "trt_engine_cache_prefix": f"tokens{profile.longest}",
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": str(cache),
        **profile.settings(variant.inputs),
    }


class TensorrtSession:
    """A graph on one GPU as several engines, each for a range of lengths: a GraphSession made of sessions."""

    def __init__(self, buckets: Sequence[tuple[Profile, GraphSession]]) -> None:
        """The engines, those for short texts first."""
        self._buckets = buckets
        self.facts = Facts(buckets[0][1].facts.inputs, takes_all=True)

    @property
    def handles(self) -> tuple[object, ...]:
        """The objects behind onnxruntime's Python sessions."""
        return tuple(handle for _, engine in self._buckets for handle in engine.handles)

    def run(self, feeds: Feeds) -> Output:
        """The output for one batch, for vectors (B, dim), in as many runs as its engine needs."""
        count, tokens = feeds["input_ids"].shape
        fitting = [entry for entry in self._buckets if tokens <= entry[0].longest]
        if not fitting:
            raise InvalidInputError(
                f"a text of {tokens} tokens does not fit the engines, which take {self._buckets[-1][0].longest}; "
                "load the model with a larger max_length"
            )
        profile, engine = fitting[0]
        parts = [
            engine.run({name: array[start : start + profile.texts] for name, array in feeds.items()})
            for start in range(0, count, profile.texts)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Close each."""
        for _, engine in self._buckets:
            engine.close()


def warm_up(engine: GraphSession, profile: Profile) -> None:
    """Run both ends of a profile, as an engine that does not build or load shows only then.

    Raises:
        ProviderUnavailableError: it does not run.
    """
    for shape in ((1, profile.shortest), (profile.texts, profile.longest)):
        feeds = {name: np.ones(shape, np.int64) for name in engine.facts.inputs}
        feeds["token_type_ids"] = np.zeros(shape, np.int64)
        try:
            engine.run({name: feeds[name] for name in engine.facts.inputs})
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
