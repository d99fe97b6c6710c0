"""The parts that hold everything against everything: contenders, ratios to every other, conditions, versions."""

from __future__ import annotations

from statistics import median
from typing import Any

from .figures import Record, cold, disturbance, latency, latency_ratio, least_cosines, peak_rss, ratio, speed
from .records import failed, label, names, one_call, title, workloads
from .sections import Part, Table, grid, ours, rate, words


def conditions(record: Record) -> Part:
    """Machine, settings, texts and the command."""
    machine, settings = record["machine"], record["settings"]
    source = record.get("model", {}).get("source", {})
    quota = machine.get("quota")
    rows = [
        ("processor", f"{machine['cpu']}, {machine['cpus']} CPUs" + (f", quota {quota:g} CPUs" if quota else "")),
        ("instruction sets", ", ".join(machine.get("instruction_sets") or ["not known"])),
        ("memory", f"{machine['memory'] / 2**30:.1f} GiB" if machine.get("memory") else "not known"),
        ("system", ", ".join(_system(machine))),
        ("each contender", f"{settings['threads']} threads, texts cut at {settings['max_length']} tokens"),
        (
            "rounds",
            f"{settings['rounds']} interleaved, {settings.get('cold_rounds', 0)} cold starts"
            + (" (interrupted)" if record.get("interrupted") else ""),
        ),
        (
            "model",
            ", ".join(str(source[key])[:16] for key in ("model_type", "checkpoint", "sha256") if source.get(key)),
        ),
        ("measured", f"{record['started']} to {record.get('ended', 'an interrupt')}"),
        ("code", record.get("commit") or "not under git"),
        ("command", record.get("command", "not recorded")),
    ]
    if record["loads"]:
        before = [row["before"][0] for row in record["loads"] if row["before"]]
        after = [row["after"][0] for row in record["loads"] if row["after"]]
        if before and after:
            rows.append(("load, 1 minute", f"{median(before):.2f} before a round, {median(after):.2f} after (medians)"))
    rows.append(("other work", disturbance(record) or "disturbed no sample"))
    texts = Table(
        head=["workload", record["unit"], f"tokens a {record['unit'][:-1]}", "SHA-256 of the texts"],
        body=[
            [
                f"{name}: {row['title']}",
                f"{row['texts']:,}",
                words(row["tokens"] / row["texts"] if row.get("tokens") else None),
                row["sha256"][:16],
            ]
            for name, row in record["workloads"].items()
        ],
    )
    return Part(title="Conditions", tables=[Table(head=["what", "how"], body=[list(row) for row in rows]), texts])


def contenders(record: Record) -> Part:
    """Speed, latency, start, memory, disk and fidelity of each, and what failed."""
    timed, unit, one = workloads(record, "texts"), record["unit"], one_call(record)
    head = ["contender", *(f"{name}, {unit}/s" for name in timed), f"{one} p50, ms", "p95", "p99", "cold start, s"]
    head += ["peak RSS, MB", "packages + model, MB", "cosine mean / p1 / worst"]
    body = []
    for name in names(record):
        row = record["contenders"][name]
        found = least_cosines(record, name)
        body.append(
            [
                title(record, name),
                *(rate(speed(record, name, workload)) for workload in timed),
                *(words(latency(record, name, share), 2, 1e3) for share in (0.5, 0.95, 0.99)),
                words(cold(record, name), 2),
                words(peak_rss(record, name), 0, 1e-6),
                f"{words(row.get('package_bytes'), 0, 1e-6)} + {words(row.get('model_bytes'), 0, 1e-6)}",
                " / ".join(f"{found[key]:.4f}" for key in ("mean", "p1", "min")) if found else "-",
            ]
        )
    for name in failed(record):
        row = record["contenders"][name]
        body.append([title(record, name), *["-"] * (len(head) - 2), row["status"]])
    reasons = [
        f"{title(record, name)}: {record['contenders'][name]['status']}: {record['contenders'][name]['reason']}"
        for name in failed(record)
    ]
    reasons += [
        f"{title(record, name)}, {part}: {reason}"
        for name, row in record["contenders"].items()
        for part, reason in row.get("failed_parts", {}).items()
    ]
    tables = [Table(head=head, body=body, strong=ours(record, [*names(record), *failed(record)]))]
    if any(record["workloads"][name].get("tokens") for name in timed):
        tables.append(grid(record, "tokens/s", timed, {name: _token_speeds(record, name) for name in names(record)}))
    moved = {name: found for name in names(record) if (found := record["contenders"][name].get("invariance"))}
    if moved:
        head = ["same text, other company", "alone, not in the batch", "batch in another order"]
        body = [
            [title(record, name), f"{found['alone']:.1e}", f"{found['order']:.1e}"] for name, found in moved.items()
        ]
        tables.append(Table(head=head, body=body, strong=ours(record, moved)))
    return Part(
        title="Contenders",
        note="Medians over rounds. Cosine: to the first contender's vectors, each figure of the workload where it is "
        "least. "
        "Other company: largest difference of an element of a text's vector when it is encoded alone, or with the "
        "batch in another order.",
        tables=tables,
        lines=reasons,
    )


def ratios(record: Record) -> Part:
    """How many times better each of ours is than every other."""
    timed = workloads(record, "texts")
    tables = []
    for mine in names(record, ours=True):
        body = []
        for other in [name for name in names(record) if name != mine]:
            pairs = [ratio(record, mine, other, workload) for workload in timed]
            pairs += [latency_ratio(record, other, mine, share) for share in (0.5, 0.99)]
            cells = [f"{found[0]:.2f} ({found[1]:.2f} to {found[2]:.2f})" if found else "-" for found in pairs]
            for own, theirs in (
                (cold(record, mine), cold(record, other)),
                (peak_rss(record, mine), peak_rss(record, other)),
            ):
                cells.append(words(theirs / own if own and theirs else None, 2))
            body.append([label(record, other), *cells])
        head = [f"{label(record, mine)} over", *(f"{name}, {record['unit']}/s" for name in timed)]
        tables.append(Table(head=[*head, f"{one_call(record)} p50", "p99", "cold start", "peak RSS"], body=body))
    return Part(
        title="Ratios",
        note="Above 1 is better for fastembed-rt in every column. "
        f"{record['unit'].capitalize()}/s, p50 and p99: median of the rounds' ratios (least to largest); "
        "cold start and memory: the other's median over ours.",
        tables=tables,
        missing="" if tables else "none of this project's rows was measured",
    )


def versions(record: Record) -> Part:
    """What was installed, to the last package."""
    body, lines = [], {}
    for name, row in record["contenders"].items():
        load, environment = row.get("load") or {}, row.get("environment") or {}
        body.append(
            [
                title(record, name),
                ", ".join(f"{key} {value}" for key, value in load.get("versions", {}).items()) or "-",
                ", ".join(f"{key}: {_flat(value)}" for key, value in load.get("facts", {}).items()) or "-",
            ]
        )
        if environment.get("freeze"):
            lines[environment["name"]] = f"{environment['name']}: {' '.join(environment['freeze'])}"
    return Part(
        title="Versions",
        note="What each contender said of itself, and every package of its environment.",
        tables=[Table(head=["contender", "versions", "settings"], body=body)],
        lines=list(lines.values()),
    )


def _token_speeds(record: Record, name: str) -> list[float | None]:
    """Tokens a second by workload of the group "texts"."""
    found = []
    for workload in workloads(record, "texts"):
        facts, fast = record["workloads"][workload], speed(record, name, workload)
        found.append(fast * facts["tokens"] / facts["texts"] if fast and facts.get("tokens") else None)
    return found


def _system(machine: dict[str, Any]) -> list[str]:
    python = f"Python {machine['python']}" if machine.get("python") else ""
    return [str(word) for word in (machine.get("system"), machine.get("libc"), python) if word]


def _flat(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
