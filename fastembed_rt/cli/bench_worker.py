"""One precision of a model, measured in a process of its own: so load time and peak memory are its alone.

`python -m fastembed_rt.cli.bench_worker` takes a job as JSON on standard input and prints what it found as JSON.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .. import native
from ..errors import FastembedRtError
from ..manifest import CLASSES, LATE_INTERACTION, RERANKING
from ..run import memory
from .peak import gemm_peak, products

if TYPE_CHECKING:
    from .opening import Model

BOUNDS = (16, 64, 256)  # tokens: where a bucket ends
MOST_TEXTS = 512  # of one call
SHARE_SINGLE = 0.4  # of a bucket's time, for one text a call
WARM = 3  # calls before any that is timed
PERCENTILES = (50, 95, 99)

WORDS = """
    the of and a to in is was for on as with by that from at his an were are which this be had also one has its or
    their first after new who they two her been other when time during there into all may more school years over only
    year most would world city some where between later three state such then national used made about many under part
    history river house water people night old light system company north music family group house power found early
""".split()
QUERY = "when did the first people come to the river"  # of a reranker's pairs
BUILT_IN_WORDS = (5, 8, 11, 25, 40, 90, 140, 250, 350)  # of a text, so that every bucket gets some


def built_in_texts() -> list[str]:
    """Texts of made-up English, the same on every machine."""
    draw = random.Random(0)
    return [" ".join(draw.choices(WORDS, k=count)) for count in BUILT_IN_WORDS for _ in range(12)]


def buckets(texts: Sequence[Any], tokens: Sequence[int]) -> dict[str, list[tuple[Any, int]]]:
    """Texts or pairs with their number of tokens, by name of a range of tokens; no range without one."""
    found: dict[str, list[tuple[Any, int]]] = {}
    starts = (1, *(bound + 1 for bound in BOUNDS))
    names = [*(f"{start}-{bound}" for start, bound in zip(starts, BOUNDS, strict=False)), f"{starts[-1]}+"]
    for text, count in sorted(zip(texts, tokens, strict=True), key=lambda pair: pair[1]):
        found.setdefault(names[sum(count > bound for bound in BOUNDS)], []).append((text, count))
    return found


def percentile(values: Sequence[float], share: int) -> float | None:
    """Nearest rank; None where there are too few values for any to lie beyond it."""
    if len(values) * (100 - share) < 100:
        return None
    return sorted(values)[-(-share * len(values) // 100) - 1]


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def repeated(calls: Iterator[Callable[[], object]], seconds: float) -> list[float]:
    """Seconds of each call, one at least, until the time is up."""
    samples: list[float] = []
    end = time.perf_counter() + seconds
    while not samples or time.perf_counter() < end:
        samples.append(timed(next(calls)))
    return samples


@dataclass(frozen=True)
class Subject:
    """A model as it is measured, whatever its task."""

    model: Model
    encode: Callable[[Any], object]  # one input, or a list of them
    max_length: int
    unit: str = "texts"  # what its inputs are

    @classmethod
    def of(cls, model: Any) -> Subject:
        """Vectors of plain texts, token vectors of documents, scores of pairs."""
        if model.task == RERANKING:
            return cls(model, model.predict, model.max_length, "pairs")
        if model.task == LATE_INTERACTION:
            return cls(model, model.encode_document, model.document_length)
        return cls(model, model.encode, model.max_length)

    def inputs(self, texts: Sequence[str]) -> list[Any]:
        """The texts, or each with a query."""
        return [(QUERY, text) for text in texts] if self.unit == "pairs" else list(texts)


def measure_bucket(subject: Subject, inputs: Sequence[tuple[Any, int]], seconds: float) -> dict[str, Any]:
    """Latency of one input a call, then inputs and tokens a second of many a call."""
    alone = itertools.cycle(entry for entry, _ in inputs)
    warm = [timed(lambda: subject.encode(next(alone))) for _ in range(WARM)]
    singles = repeated((partial(subject.encode, entry) for entry in alone), SHARE_SINGLE * seconds)
    # As many inputs as several calls in the time allow: a slow model must not take minutes.
    fitting = int((1 - SHARE_SINGLE) * seconds / 4 / min(*warm, *singles))
    chosen = list(itertools.islice(itertools.cycle(inputs), max(1, min(MOST_TEXTS, fitting))))
    many = [entry for entry, _ in chosen]
    if subject.model.threads > 1:
        subject.encode(many)  # the session for bulk loads with the first bulk call
    passes = repeated(itertools.repeat(partial(subject.encode, many)), (1 - SHARE_SINGLE) * seconds)
    best = len(chosen) / sorted(passes)[len(passes) // 2]
    mean_tokens = sum(count for _, count in chosen) / len(chosen)
    return {
        subject.unit: len(inputs),
        "mean_tokens": mean_tokens,
        f"one_{subject.unit[:-1]}": {
            "calls": len(singles),
            **{f"p{share}": percentile(singles, share) for share in PERCENTILES},
        },
        f"many_{subject.unit}": {"calls": len(passes), f"{subject.unit}_a_call": len(chosen)},
        f"{subject.unit}_per_second": best,
        "tokens_per_second": best * mean_tokens,
    }


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """Everything about one precision.

    Raises:
        FastembedRtError: the model does not load.
    """
    start = time.perf_counter()
    import fastembed_rt

    kind = getattr(fastembed_rt, CLASSES[job["task"]])
    from ..run.overflow import overflows
    from ..run.session import load_onnxruntime

    onnxruntime = load_onnxruntime()
    import tokenizers  # noqa: F401  imported here, so that `load` is the model's time alone

    imported = time.perf_counter()
    options = {key: job[key] for key in ("provider", "precision", "threads")}
    with kind(job["directory"], **options) as model:
        loaded = time.perf_counter()
        subject = Subject.of(model)
        subject.encode(subject.inputs(["the first text"])[0])
        first = time.perf_counter()
        inputs = subject.inputs(job["texts"] or built_in_texts())
        tokens = [min(count, subject.max_length) for count in model.count_tokens(inputs).tolist()]
        found = buckets(inputs, tokens)
        rows = {name: measure_bucket(subject, part, job["seconds"] / len(found)) for name, part in found.items()}
        resident = memory.peak()  # before the peak's own matrices
        on_cpu = model.provider == "cpu"
        path, variant, threads = model.path / model.variant.graph.file, model.variant, model.threads
    peak = gemm_peak(onnxruntime, variant.precision, threads) if on_cpu else None
    per_token = products(path)
    for row in rows.values():
        row["peak_share"] = None if peak is None else 2 * per_token * row["tokens_per_second"] / peak
    return {
        "unit": subject.unit,
        "precision": variant.precision,
        "graph": variant.graph.file,
        "target": variant.target,
        "provider": job["provider"],
        "threads": threads,
        "kernels": kernels(variant.target, variant.precision, onnxruntime, overflows) if on_cpu else job["provider"],
        "onnxruntime": onnxruntime.__version__,
        "import_seconds": imported - start,
        "load_seconds": loaded - imported,
        "first_vector_seconds": first - loaded,
        "peak_memory_bytes": resident,
        "gemm_peak_ops": peak,
        "multiply_adds_per_token": per_token,
        "lengths": rows,
    }


def kernels(target: str, precision: str, onnxruntime: Any, overflows: Callable[[Any], bool]) -> str:
    """Which products a graph for the CPU gets here: our own, or which of onnxruntime's."""
    if target == "native":
        return str(native.kernels())
    if precision != "int8":
        return "float"
    return "uint8 x uint8 (uint8 x int8 overflows here)" if overflows(onnxruntime) else "uint8 x int8"


def main() -> int:
    """Read the job, measure, print; an error is printed as JSON too, for the command to raise."""
    try:
        answer = measure(json.load(sys.stdin))
    except FastembedRtError as error:
        answer = {"error": str(error), "exit_code": error.exit_code}
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
