"""`fastembed-rt bench`: a quick look at one model on this machine, precision by precision.

Decides what is measured and prints it; bench_worker.py measures, in a process for each precision.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from .. import machine, manifest
from ..errors import FastembedRtError, InvalidInputError
from ..manifest import Manifest
from ..system.interpreter import environment, interpreter
from . import readers
from .arguments import add_model_arguments, place, positive
from .filled import HelpFormatter
from .opening import find

MOST_TEXTS = 5000  # read from --texts
SECONDS = 8.0  # for each precision
DESCRIPTION = """\
Measure a model on this machine for some seconds: load time, latency of one text a call, texts and tokens a second of
many, and peak memory, for each precision in the directory, each in a process of its own. Of rerankers, pairs of a
query and each text; of late interaction, documents.

The last column is the share of the machine's GEMM peak: the multiplications by weights in a second, as a share of what
one large product reaches here with as many threads, in onnxruntime or in this library. The time by operator, and the
comparison with other tools, are the project's own benchmarks: python -m benchmarks.inside.limits, make bench.
"""
EPILOG = """\
example: fastembed-rt bench my-model --seconds 20

Numbers of a machine that does other things too are low and unsteady: run it twice. A percentile that so few calls
cannot tell is left out; --seconds gives more of them.
"""
COLUMNS = ("precision", "tokens", "{unit}", "p50", "p95", "p99", "{unit}/s", "tokens/s", "of GEMM peak")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `bench` and its options."""
    parser = subparsers.add_parser(
        "bench",
        help="a quick look at one model on this machine: latency, texts/s, memory, distance from the GEMM peak",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=HelpFormatter,
    )
    add_model_arguments(parser)
    parser.add_argument("--threads", type=positive, metavar="N", help="default: all CPUs that this process may use")
    parser.add_argument(
        "--seconds", type=_seconds, default=SECONDS, metavar="S", help=f"for each precision (default: {SECONDS:g})"
    )
    parser.add_argument(
        "--texts", type=place, metavar="FILE", help="your texts, in a format that embed reads (default: built-in)"
    )
    parser.add_argument("--input-format", choices=list(readers.READERS), help="format of --texts")
    parser.add_argument("--column", default="text", help="key or column with the text (default: text)")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Measure and print; returns 0, or raises."""
    texts = None if args.texts is None else read_texts(args.texts, args.input_format, args.column)
    chosen: list[str] = []

    def files(described: Manifest) -> list[str]:
        from ..models.opening import choose_provider
        from ..run.session import choose_variant

        args.provider = choose_provider(described, args.provider, args.precision).provider
        chosen[:] = precisions(described, args.provider, args.precision)
        variants = (choose_variant(described, provider=args.provider, precision=name) for name in chosen)
        return [described.tokenizer.file, *(record.file for variant in variants for record in variant.files)]

    directory = find(args, files)
    described = manifest.read(directory)
    files(described)
    job = {
        "directory": str(directory.resolve()),
        "task": described.task,
        "provider": args.provider,
        "threads": args.threads,
        "seconds": args.seconds,
        "texts": texts,
    }
    results: list[dict[str, Any]] = []
    try:
        for precision in chosen:
            results.append(measured({**job, "precision": precision}))  # noqa: PERF401  what there is, is printed
    finally:  # also after Ctrl-C, or when another precision fails
        if results:
            _show(directory, described, results, as_json=args.json)
    return 0


def _show(directory: Path, described: Manifest, results: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    facts = machine.describe()
    if as_json:
        cpu = {"cpu": facts.cpu.model, "instruction_sets": sorted(facts.cpu.instruction_sets)}
        about = {"model": str(directory), "source": described.source.checkpoint, "task": described.task}
        report = {**about, "machine": cpu, "results": results}
        print(json.dumps(report, indent=2), flush=True)
    else:
        print("\n".join(as_text(directory, described, facts.cpu, results)), flush=True)


def precisions(described: Manifest, provider: str, precision: str | None) -> list[str]:
    """Those that run with the provider, the default first; the one asked for, if one is.

    Raises:
        InvalidInputError, ModelFormatError: none does, or not the one asked for.
    """
    from ..run.session import choose_variant

    first = choose_variant(described, provider=provider, precision=precision).precision
    names = [first]
    for variant in described.variants if precision is None else ():
        try:
            choose_variant(described, provider=provider, precision=variant.precision)
        except FastembedRtError:  # for another provider only
            continue
        names.append(variant.precision)
    return list(dict.fromkeys(names))


def read_texts(name: str, given_format: str | None, column: str) -> list[str]:
    """The first MOST_TEXTS texts of a file.

    Raises:
        InvalidInputError: no such file, or nothing in it that could be measured.
    """
    source = readers.find_source(name, given_format)
    records = readers.read([source], readers.Columns(text=column))
    texts = [record.text for record in itertools.islice(records, MOST_TEXTS) if record.text.strip()]
    if not texts:
        raise InvalidInputError(f"--texts {name} holds no text to measure with")
    return texts


def measured(job: dict[str, Any]) -> dict[str, Any]:
    """What a worker found.

    Raises:
        FastembedRtError: what it refused, with its exit code; or it died.
    """
    done = subprocess.run(
        [interpreter("bench"), "-P", "-m", "fastembed_rt.cli.bench_worker"],
        input=json.dumps(job),
        stdout=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        check=False,
        env=environment(),
        process_group=0,  # Ctrl-C reaches the command alone, which ends this one and says so
    )
    try:
        answer: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        ended = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        raise FastembedRtError(f"measuring {job['precision']} ended with {ended} (too little memory?)") from None
    if "error" in answer:
        failure = FastembedRtError(answer["error"])
        failure.exit_code = answer["exit_code"]
        raise failure
    return answer


def as_text(directory: Path, described: Manifest, cpu: machine.Cpu, results: Sequence[dict[str, Any]]) -> Iterator[str]:
    """The results for people, line by line."""
    first = results[0]
    sets = ", ".join(sorted(cpu.instruction_sets)) or "instruction sets not known"
    unit = first["unit"]
    yield f"{directory}: {described.source.checkpoint}, {_kind(described)}"
    yield f"{cpu.model} ({sets}), onnxruntime {first['onnxruntime']}, {_threads(first['threads'])}"
    for result in results:
        memory, peak = result["peak_memory_bytes"], result["gemm_peak_ops"]
        parts = [
            f"{result['precision']}: {result['graph']}",
            f"provider {result['provider']}",
            f"kernels {result['kernels']}",
            f"load {1e3 * result['load_seconds']:.0f} ms",
            f"first {'vector' if unit == 'texts' else 'score'} {1e3 * result['first_vector_seconds']:.1f} ms",
            f"peak memory {memory / 1e6:.0f} MB" if memory is not None else "",
            f"GEMM peak {peak / 1e9:.0f} GOP/s" if peak is not None else "",
        ]
        yield ", ".join(filter(None, parts))
    yield ""
    table = [tuple(name.format(unit=unit) for name in COLUMNS)]
    table += [_row(unit, result["precision"], *entry) for result in results for entry in result["lengths"].items()]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for name, *cells in table:
        rest = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        yield "  ".join([name.ljust(widths[0]), *rest])
    yield ""
    yield f"p50, p95, p99: milliseconds of one {unit[:-1]} a call; {unit}/s and tokens/s: many {unit} a call"
    if any("" in row[3:6] for row in table):
        yield "empty: too few calls for a percentile; a longer --seconds gives more"


def _kind(described: Manifest) -> str:
    """What the model gives, and how long its inputs may be."""
    if described.late_interaction is not None:
        return f"dim {described.dim} a token, document length {described.late_interaction.document_length}"
    gives = f"dim {described.dim}"
    if described.reranking is not None:
        count = len(described.reranking.labels)
        gives = f"{count} score{'' if count == 1 else 's'} a pair"
    elif described.sparse is not None:
        gives = f"weights of {described.dim} words"
    return f"{gives}, max length {described.max_length}"


def _row(unit: str, precision: str, length: str, row: dict[str, Any]) -> tuple[str, ...]:
    share, rate = row["peak_share"], row[f"{unit}_per_second"]
    return (
        precision,
        length,
        str(row[unit]),
        *(_milliseconds(row[f"one_{unit[:-1]}"][name]) for name in ("p50", "p95", "p99")),
        f"{rate:,.0f}" if rate >= 10 else f"{rate:.1f}",
        f"{row['tokens_per_second']:,.0f}",
        "" if share is None else f"{share:.0%}",
    )


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e3 * seconds:.2f}"


def _threads(count: int) -> str:
    return f"{count} thread{'' if count == 1 else 's'}"


def _seconds(value: str) -> float:
    """A duration above 0, for argparse."""
    try:
        seconds = float(value)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds <= 3600:
        raise argparse.ArgumentTypeError(f"{value!r} is not a number of seconds between 0 and 3600")
    return seconds
