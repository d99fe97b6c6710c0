"""From a record to tables in Markdown: rates, waits, shares of the card, and the aims."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median
from typing import Any

import numpy as np

from .candidates import BY_HAND, REFERENCE
from .profiling import table
from .shapes import SHAPES

Record = dict[str, Any]
# Shape, length, what, and how it stands to the reference or the card: aims of the project, not promises.
AIMS = (
    ("base", 128, "texts/s to sentence-transformers fp16", 3.0),
    ("base", 128, "one text, p50, to sentence-transformers fp16", 0.35),
    ("base", 128, "share of the matrix peak", 0.68),
    ("large", 512, "share of the matrix peak", 0.71),
)
# Of one contender's engine alone, of the matrix peak in 16 bits.
FP8, FP8_AIMS = "rt-cuda-fp8", (("base", 128, 0.81), ("large", 512, 0.91))
# Texts/s of ours to the better batch of the reference, by mix of lengths; seconds of a short text; texts/s of CALLERS.
MIX_AIMS = {"short": 9.0, "mixed": 8.0, "long": 6.0}
ONE_TEXT = (("p50", 0.35e-3), ("p99", 0.6e-3))
CALLERS = 20_000


def summarize(record: Record) -> None:
    """Add what follows from the samples to each row, in place."""
    peak = max(entry["operations_per_second"] for entry in record["peaks"]["matrix"].values())
    bandwidth = record["peaks"]["copy"]["bytes_per_second"]
    for name, found in record["shapes"].items():
        for row in found.get("mixes", ()):
            row["texts_per_second"] = row["texts"] / median(row["seconds"])
        if name not in SHAPES:  # real weights, of which operations are not counted
            continue
        shape = SHAPES[name]
        for row in found.get("throughput", ()):
            rate = row["texts"] / median(row["seconds"])
            row["texts_per_second"] = rate
            row["tokens_per_second"] = rate * row["length"]
            row["matrix_share"] = rate * shape.operations(row["length"]) / peak
        for row in found.get("engines", ()):
            row["matrix_share"] = row["operations_per_second"] / peak
        for row in found.get("latency", ()):
            row["p50"], row["p99"] = (float(value) for value in np.percentile(row["seconds"], [50, 99]))
            read = shape.weights * record["contenders"][row["contender"]]["bytes_per_weight"]
            row["bandwidth_share"] = read / row["p50"] / bandwidth
    record["aims"] = [*aims(record), *aims_of_parts(record)]


def aims(record: Record) -> Iterator[dict[str, Any]]:
    """How this package's best contender stands to each aim that the record can tell of."""
    for name, length, what, aim in AIMS:
        found = record["shapes"].get(name)
        if found is None:
            continue
        rows = [row for row in found.get("latency" if "p50" in what else "throughput", ()) if row["length"] == length]
        ours = [row for row in rows if record["contenders"][row["contender"]]["ours"]]
        theirs = [row for row in rows if row["contender"] == REFERENCE]
        if not ours or not theirs:
            continue
        if "p50" in what:
            value = min(row["p50"] for row in ours) / min(row["p50"] for row in theirs)
            yield {"shape": name, "length": length, "what": what, "aim": aim, "value": value, "met": value <= aim}
            continue
        best = max(ours, key=lambda row: row["texts_per_second"])
        other = max(row["texts_per_second"] for row in theirs)
        value = best["texts_per_second"] / other
        if "peak" in what:  # of the engine alone, where that was measured
            alone = [
                row["matrix_share"]
                for row in found.get("engines", ())
                if row["length"] == length and row["contender"] not in (FP8, *BY_HAND)
            ]
            value = max([best["matrix_share"], *alone])
        yield {"shape": name, "length": length, "what": what, "aim": aim, "value": value, "met": value >= aim}


def aims_of_parts(record: Record) -> Iterator[dict[str, Any]]:
    """The same of FP8, of mixed lengths, and of short texts one at a time."""

    def told(shape: str, length: Any, what: str, aim: float, value: float, *, least: bool = True) -> dict[str, Any]:
        met = value >= aim if least else value <= aim
        return {"shape": shape, "length": length, "what": what, "aim": aim, "value": value, "met": met}

    for name, length, aim in FP8_AIMS:
        rows = record["shapes"].get(name, {}).get("engines", ())
        for row in rows:
            if row["contender"] == FP8 and row["length"] == length:
                yield told(name, length, "share of the matrix peak in 16 bits, FP8", aim, row["matrix_share"])
    for name, found in record["shapes"].items():
        for mix, aim in MIX_AIMS.items():
            rows = [row for row in found.get("mixes", ()) if row["mix"] == mix]
            ours = [row["texts_per_second"] for row in rows if record["contenders"][row["contender"]]["ours"]]
            theirs = [row["texts_per_second"] for row in rows if row["contender"] == REFERENCE]
            if ours and theirs:
                yield told(name, mix, "texts/s to sentence-transformers' best batch", aim, max(ours) / max(theirs))
    found = record["shapes"].get("minilm", {})
    waits = [row for row in found.get("latency", ()) if record["contenders"][row["contender"]]["ours"]]
    shortest = min((row["length"] for row in waits), default=0)
    for key, aim in ONE_TEXT:
        values = [row[key] for row in waits if row["length"] == shortest]
        if values:
            yield told("minilm", shortest, f"one text, {key}, ms", aim * 1e3, min(values) * 1e3, least=False)
    rates = [rate for who, rate in found.get("callers", {}).items() if record["contenders"][who]["ours"]]
    if rates:
        yield told("minilm", shortest, "short texts/s of 16 callers", CALLERS, max(rates))


def markdown(record: Record) -> Iterator[str]:
    """Lines of a report."""
    machine = record["machine"]
    yield f"# {machine['device']}, {record['started'][:10]}"
    yield ""
    if record["dry_run"]:
        yield "**A dry run on CPUs: it shows that the code runs, and no speed of a GPU.**"
        yield ""
    yield ", ".join(f"{name} {version}" for name, version in record["versions"].items() if version)
    yield ""
    for entry in record.get("doctor", ()):
        yield f"- doctor, {entry['level']}: {entry['check']}: {entry['what']}"
    if record.get("tests"):
        yield f"- pytest -m gpu: {record['tests']['said']}"
        yield from (f"  - {line}" for line in record["tests"]["failed"])
    for kind, entry in record["peaks"]["matrix"].items():
        yield f"- matrix products, {kind}: {entry['operations_per_second'] / 1e12:.1f} TFLOP/s"
    yield f"- copying memory: {record['peaks']['copy']['bytes_per_second'] / 1e9:.0f} GB/s"
    for name, found in record["shapes"].items():
        yield ""
        yield f"## {name}: {SHAPES[name].layers} layers of {SHAPES[name].hidden}" if name in SHAPES else f"## {name}"
        yield ""
        yield from _table(
            ("texts as they come", "lengths", "texts together", "texts/s"),
            (
                (
                    *(row["contender"], row["mix"]),
                    str(row["batch"] or "its own choice"),
                    f"{row['texts_per_second']:,.0f}",
                )
                for row in found.get("mixes", ())
            ),
        )
        yield from _table(
            ("", "cosine to torch fp32, mean", "least", "least, centred"),
            (
                (contender, f"{c['mean']:.6f}", f"{c['min']:.6f}", f"{c['centred_min']:.6f}")
                for contender, c in found.get("fidelity", {}).items()
            ),
        )
        yield from _table(
            ("engine alone", "target", "batch", "ms", "TFLOP/s", "of the matrix peak"),
            (
                (
                    *(row["contender"], row["target"], f"{row['texts']} x {row['length']}"),
                    f"{median(row['seconds']) * 1e3:.2f}",
                    f"{row['operations_per_second'] / 1e12:.1f}",
                    f"{row['matrix_share']:.1%}",
                )
                for row in found.get("engines", ())
            ),
        )
        for row in found.get("kernels", ()):
            what = f"{row['contender']}, {row['texts']} x {row['length']}: {row['batch_seconds'] * 1e3:.2f} ms"
            yield from _table((f"{what}, kernels", "of the time", "calls", "us each"), iter(table(row)))
        yield from _table(
            (
                "loaded",
                "",
                "target",
                "s",
                "s to the first vector",
                "batch tokens",
                "in flight",
                "captured to",
                "shapes",
            ),
            (
                (
                    *(row["contender"], row["load"], row["target"]),
                    *(f"{row['loaded']:.2f}", f"{row['first_vector']:.2f}"),
                    *(str((row["plan"] or {}).get(key, "")) for key in ("batch_tokens", "flights", "captured_tokens")),
                    ", ".join(f"{texts} x {tokens}" for texts, tokens in row["captured"] or ()),
                )
                for row in found.get("loads", ())
            ),
        )
        yield from _table(
            ("", "texts with the same bits alone and in a batch", "short texts/s of 16 callers"),
            (
                (
                    *(contender, f"{entry['equal']} of {entry['of']}"),
                    f"{found['callers'][contender]:,.0f}" if contender in found.get("callers", {}) else "",
                )
                for contender, entry in found.get("bits", {}).items()
            ),
        )
        yield from _table(
            ("", "tokens a text", "batch", "texts/s", "tokens/s", "of the matrix peak"),
            (
                (
                    row["contender"],
                    str(row["length"]),
                    str(row["batch"]),
                    f"{row['texts_per_second']:,.0f}",
                    f"{row['tokens_per_second']:,.0f}",
                    f"{row['matrix_share']:.1%}",
                )
                for row in found.get("throughput", ())
            ),
        )
        yield from _table(
            ("one text", "tokens", "p50 ms", "p99 ms", "weights read, of the bandwidth"),
            (
                (
                    row["contender"],
                    str(row["length"]),
                    f"{row['p50'] * 1e3:.3f}",
                    f"{row['p99'] * 1e3:.3f}",
                    f"{row['bandwidth_share']:.1%}",
                )
                for row in found.get("latency", ())
            ),
        )
    for failure in record["failures"]:
        yield f"- failed: {failure}"
    for left in record.get("left", ()):
        yield f"- left for the next run with the same --out: {left}"
    if record["aims"]:
        yield "## Aims"
        yield ""
        yield from _table(
            ("shape", "length", "what", "aim", "measured", "met"),
            (
                (
                    a["shape"],
                    str(a["length"]),
                    a["what"],
                    str(a["aim"]),
                    f"{a['value']:.2f}",
                    "yes" if a["met"] else "no",
                )
                for a in record["aims"]
            ),
        )


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    if lines:
        yield from ("| " + " | ".join(head) + " |", "|" + " --- |" * len(head), *lines, "")
