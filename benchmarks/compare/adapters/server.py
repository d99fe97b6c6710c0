"""The contender's side: what every adapter has in common. Standard library only, it runs in any environment.

`python -m benchmarks.compare.adapters.NAME MODE OPTIONS`, OPTIONS as JSON, in one of three modes:
  prepare  convert or quantize the checkpoint once, into the folder options.prepared
  cold     import, load, encode one text; print the moments at which each was done
  serve    answer commands: one JSON object a line on stdin, one on stdout
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.compare.adapters import affinity

FIRST_TEXT = "How long does it take until there is a vector?"


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the runner says about the model and the budget."""

    checkpoint: str  # sentence-transformers directory
    model_dir: str  # fastembed-rt model directory of the same checkpoint
    prepared: str  # folder of what `prepare` made
    calibration: str  # JSON list of texts
    max_length: int
    threads: int
    cpus: Sequence[int]  # CPUs that the process may use, as many as threads
    own: Mapping[str, str] = field(default_factory=dict)  # the contender's own options

    def manifest(self) -> dict[str, Any]:
        """Facts about the model: dim, pooling, normalize."""
        facts: dict[str, Any] = json.loads(Path(self.model_dir, "manifest.json").read_text(encoding="utf-8"))
        return facts


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A contender ready to work."""

    encode: Callable[[list[Any]], Any]  # n texts -> (n, dim) float32; rerankers: n requests, [query, passages] each
    count_tokens: Callable[[list[Any]], list[int]]  # after truncation, special tokens included
    files: Sequence[Path]  # what it needs on disk besides its packages
    facts: Mapping[str, Any] = field(default_factory=dict)  # what really runs, as the library itself says
    rows: Callable[[Any], Iterable[Any]] = (
        iter  # what `encode` gave -> a float32 array of numbers a text, to be compared
    )
    single: Callable[[list[Any]], Any] | None = None  # one text that is asked for; None: `encode`
    count: Callable[[list[Any]], int] = len  # how many texts, or pairs, a call has
    first: Any = FIRST_TEXT  # of a cold start


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """What is particular to a contender; modules are imported before `load`, so that the two can be timed apart."""

    packages: tuple[str, ...]  # whose versions matter
    modules: tuple[str, ...]
    load: Callable[[Options], Loaded]
    prepare: Callable[[Options, Path], None] | None = None


def main(adapter: Adapter) -> None:
    """Run one mode."""
    began = time.monotonic()  # one clock for all processes of a machine
    mode, options = sys.argv[1], Options(**json.loads(sys.argv[2]))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints goes to the log and leaves the answers alone
    if options.cpus and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, options.cpus)
    if mode == "prepare":
        if adapter.prepare is not None:
            adapter.prepare(options, Path(options.prepared))
        answer: dict[str, Any] = {"prepared": adapter.prepare is not None}
    elif mode == "cold":
        answer = _cold(adapter, options, began)
    else:
        _die_with_parent()
        _serve(adapter, options, answers)
        return
    answers.write(json.dumps(answer) + "\n")
    answers.close()


def _import(adapter: Adapter) -> None:
    for module in adapter.modules:
        importlib.import_module(module)


def _cold(adapter: Adapter, options: Options, began: float) -> dict[str, Any]:
    _import(adapter)
    imported = time.monotonic()
    loaded = adapter.load(options)
    ready = time.monotonic()
    loaded.encode([loaded.first])
    first = time.monotonic()
    return {"began": began, "imported": imported, "loaded": ready, "first": first, **usage()}


def _serve(adapter: Adapter, options: Options, answers: Any) -> None:
    server = _Server(adapter, options)
    for line in sys.stdin:
        command = json.loads(line)
        what = command.pop("do")
        if what == "quit":
            break
        try:
            answer = getattr(server, f"do_{what}")(**command)
        except Exception as error:  # noqa: BLE001  any failure of any library is an answer, the runner judges it
            import traceback

            traceback.print_exc()
            message = (str(error).strip().splitlines() or ["no message"])[0]
            answer = {"error": f"{type(error).__name__}: {message[:300]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    answers.close()
    # Libraries with threads may take long to say goodbye, or hang.
    os._exit(0)


class _Server:
    """State between commands: the loaded contender, texts read once."""

    def __init__(self, adapter: Adapter, options: Options) -> None:
        self.adapter = adapter
        self.options = options
        self.loaded: Loaded | None = None
        self.texts: dict[str, list[Any]] = {}

    def do_load(self) -> dict[str, Any]:
        start = time.perf_counter()
        _import(self.adapter)
        imported = time.perf_counter()
        self.loaded = loaded = self.adapter.load(self.options)
        ready = time.perf_counter()
        affinity.check(self.options.cpus)
        return {
            "import_seconds": imported - start,
            "load_seconds": ready - imported,
            "versions": {"python": sys.version.split()[0], **_versions(self.adapter.packages)},
            "facts": dict(loaded.facts),
            "bytes": sum(path.stat().st_size for path in loaded.files),
        }

    def do_encode(self, texts: str, warm: int = 0, save: str | None = None) -> dict[str, Any]:
        loaded, work = self._ready(), self._texts(texts)
        if warm:
            loaded.encode(work[:warm])
        start = time.perf_counter()
        vectors = loaded.encode(work)
        seconds = time.perf_counter() - start
        affinity.check(self.options.cpus)  # a library may start threads at its first call
        lengths = {} if save is None else {"lengths": _save(save, loaded.rows(vectors))}
        return {"seconds": seconds, "texts": loaded.count(work), **lengths}

    def do_latencies(self, texts: str, warm: int = 0, first: int = 0, step: int = 1) -> dict[str, Any]:
        """Seconds of each call of one text, of every `step`th text from the `first` on."""
        loaded, work = self._ready(), self._texts(texts)
        encode = loaded.single or loaded.encode
        for text in work[:warm]:
            encode([text])
        seconds = []
        for text in work[first::step]:
            start = time.perf_counter()
            encode([text])
            seconds.append(time.perf_counter() - start)
        return {"seconds": seconds}

    def do_batches(self, texts: str, batch: int, warm: int = 0) -> dict[str, Any]:
        """The texts `batch` a call, seconds for all calls."""
        loaded, work = self._ready(), self._texts(texts)
        calls = [work[first : first + batch] for first in range(0, len(work), batch)]
        if warm:
            loaded.encode(work[:warm])
        start = time.perf_counter()
        for call in calls:
            loaded.encode(call)
        return {"seconds": time.perf_counter() - start, "texts": loaded.count(work)}

    def do_callers(self, texts: str, callers: int, warm: int = 0, least: float = 0.0) -> dict[str, Any]:
        """That many threads for `least` seconds, each asking for one text after the other; none waits on purpose."""
        from benchmarks.compare.adapters import together  # here: a cold start must not pay for it

        loaded, work = self._ready(), self._texts(texts)
        for text in work[:warm]:
            loaded.encode([text])
        return together.callers(loaded.encode, work, callers, least)

    def do_invariance(self, texts: str) -> dict[str, Any]:
        """How far a text's vector is from the one it has among others, and from the one in another order."""
        from benchmarks.compare.adapters import together

        loaded, work = self._ready(), self._texts(texts)
        return together.invariance(lambda texts: loaded.rows(loaded.encode(texts)), work)

    def do_tokens(self, texts: str) -> dict[str, Any]:
        return {"counts": [int(count) for count in self._ready().count_tokens(self._texts(texts))]}

    def do_usage(self) -> dict[str, Any]:
        return usage()

    def _ready(self) -> Loaded:
        if self.loaded is None:
            raise RuntimeError("not loaded")
        return self.loaded

    def _texts(self, path: str) -> list[Any]:
        if path not in self.texts:
            self.texts[path] = json.loads(Path(path).read_text(encoding="utf-8"))
        return self.texts[path]


def _save(path: str, rows: Iterable[Any]) -> list[int]:
    """Write rows one after the other and return their lengths: all at once would count as the library's memory."""
    import numpy as np

    lengths = []
    with Path(path).open("wb") as file:
        for row in rows:
            numbers = np.ascontiguousarray(row, dtype=np.float32)
            file.write(numbers.tobytes())
            lengths.append(numbers.size)
    return lengths


def usage() -> dict[str, Any]:
    """Memory in bytes, now and at its peak, and threads of this process, from the kernel."""
    fields: dict[str, str] = {}
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            fields[name] = value.strip()
    except OSError:
        pass
    # VmHWM and not getrusage: ru_maxrss survives exec and would show the parent's memory.
    return {
        "rss": int(fields.get("VmRSS", "0").split()[0]) * 1024,
        "peak_rss": int(fields.get("VmHWM", "0").split()[0]) * 1024,
        "threads": int(fields.get("Threads", "0")),
    }


def _versions(packages: Sequence[str]) -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _die_with_parent() -> None:
    """Linux: a runner that is killed takes its contenders along, even those that are stopped."""
    if sys.platform != "linux":
        return
    import ctypes
    import signal

    pr_set_pdeathsig = 1  # linux/prctl.h
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
