"""`fastembed-rt info`: what a model directory holds, whether it is intact, and which variant loads here.

Loads no model. Without onnxruntime it answers all the same, and says what to install.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import files, manifest, native
from ..errors import FastembedRtError, IntegrityError
from ..machine import cpu_features, int8_kernels
from ..manifest import FileRecord, Manifest, Reranking, Variant
from ..precisions import listed
from ..system.sizes import readable
from ..system.terminal import columns
from ..vectors.fingerprint import fingerprint
from ..vectors.quantized import FLOAT32, form
from .arguments import add_model_arguments
from .export import plain_prompt
from .filled import aligned
from .opening import find

if TYPE_CHECKING:
    from ..run.providers import Choice

OK, ALTERED, MISSING, UNREADABLE, NOT_FETCHED = "ok", "ALTERED", "MISSING", "UNREADABLE", "not fetched"
SOUND = frozenset({OK, NOT_FETCHED})
MOST_ROWS = 3  # of a table in the parity report, whose worst row comes first; --json has all
MOST_PARITY = 5  # lines of the parity report
FIRST = ("worst_cosine",)  # names in it that say most
SAID_ABOVE = ("status", "reason", "variants")  # of it, in other lines
VARIANT_COLUMNS = ("file", "target", "precision", "opset", "size", "hash", "weights")


def add_parser(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Declare `info` and its options."""
    parser = subparsers.add_parser(
        "info",
        epilog="example: fastembed-rt info my-model",
        help="what a model directory holds, whether it is intact, which variant loads here",
        description="Describe a model directory and check every hash in it (of a hub repository, "
        "those that the cache holds). Exit code 3 when a file is missing or altered.",
    )
    add_model_arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of text")
    parser.set_defaults(run=run)


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Whether a variant loads with the provider and precision asked for, and why."""

    loads: bool
    why: str


def run(args: argparse.Namespace) -> int:
    """Print the facts; returns 3 when a file is not what the manifest says."""
    # The manifest is enough, and nothing is exported: looking must not cost gigabytes or minutes.
    directory = find(args, export=False)
    facts = manifest.read(directory)
    absent = MISSING if Path(args.model).is_dir() else NOT_FETCHED
    status = {record.file: file_status(directory, record, absent) for record in facts.files}
    choice = _choice(facts, args.provider, args.precision)
    loading: dict[str, Loading] = {}
    for encoder in (facts, *facts.routes.values()):
        provider = _choice(encoder, args.provider, args.precision).provider
        loading |= find_loading(encoder, provider=provider, precision=args.precision, status=status)
    sound = all(state in SOUND for state in status.values())
    if args.json:
        chosen = {"provider": choice.provider, "provider_choice": choice.why}
        described = {**as_json(directory, facts, status, loading), **chosen}
        print(json.dumps(described, indent=2, ensure_ascii=False))
    else:
        for line in as_text(directory, facts, status, loading):
            print(line)
        if choice.automatic:
            print(f"\nprovider {choice.provider}: {choice.why}")
    return 0 if sound else IntegrityError.exit_code


def file_status(directory: Path, record: FileRecord, absent: str = MISSING) -> str:
    """OK, ALTERED, UNREADABLE, or `absent`."""
    if not (directory / record.file).is_file():
        return absent
    try:
        files.check_file(directory, record)
    except IntegrityError as error:
        return UNREADABLE if isinstance(error.__cause__, OSError) else ALTERED
    except OSError:
        return UNREADABLE
    return OK


def find_loading(
    facts: Manifest, *, provider: str, precision: str | None, status: Mapping[str, str]
) -> dict[str, Loading]:
    """For each variant's graph file: does it load here, and why or why not. At most one loads."""
    if obstacle := _obstacle(provider):
        return {variant.graph.file: Loading(loads=False, why=obstacle) for variant in facts.variants}
    chosen = _choose(facts, provider, precision)
    loading = {}
    for variant in facts.variants:
        if chosen != variant:
            found = Loading(loads=False, why=_why_not(facts, variant, provider, chosen, precision))
        elif faults := _faults({r.file: status[r.file] for r in (*variant.files, facts.tokenizer)}):
            found = Loading(loads=False, why=f"would be taken, but {faults}")
        else:
            asked = "the default" if precision is None else f"precision {precision} asked for"
            found = Loading(loads=True, why=f"{asked}, provider {provider}")
        loading[variant.graph.file] = found
    return loading


def _choice(facts: Manifest, provider: str, precision: str | None) -> Choice:
    """The provider asked for, or what "auto" would take; without onnxruntime, the CPU's, and the page says why."""
    from ..models.opening import choose_provider
    from ..run.providers import AUTO, Choice

    try:
        return choose_provider(facts, provider, precision)
    except ImportError as error:
        return Choice("cpu" if provider == AUTO else provider, str(error))


def _obstacle(provider: str) -> str | None:
    """Why nothing at all loads with this provider, if so."""
    from ..run.session import available_providers, provider_row

    row = provider_row(provider)
    try:
        available = available_providers()
    except ImportError as error:  # not installed, or a shared library it needs is not there
        return str(error)
    if row.onnxruntime_name in available:
        return None
    return f"{provider} is not in this onnxruntime ({', '.join(available)}); install {row.package}"


def _choose(facts: Manifest, provider: str, precision: str | None) -> Variant | str:
    """The variant that the runtime would take, or its reason for taking none."""
    from ..run.session import choose_variant

    try:
        return choose_variant(facts, provider=provider, precision=precision)
    except FastembedRtError as error:
        return str(error)


def _why_not(facts: Manifest, variant: Variant, provider: str, chosen: Variant | str, precision: str | None) -> str:
    from ..run.providers import PROVIDERS

    if variant.target not in PROVIDERS[provider].targets:
        return (
            f"for provider {listed((name for name, row in PROVIDERS.items() if variant.target in row.targets), 'or')}"
        )
    # The runtime is asked again with this variant's precision: this page must not tell rules of its own.
    if precision != variant.precision:
        chosen = _choose(facts, provider, variant.precision)
    if isinstance(chosen, str):
        return chosen
    if chosen == variant:
        return f"loads with --precision {variant.precision}"
    return f"for {variant.precision} with provider {provider}, {chosen.graph.file} is taken"


def _faults(status: Mapping[str, str]) -> str:
    return ", ".join(f"{file} is {state}" for file, state in status.items() if state not in SOUND)


def as_json(
    directory: Path, facts: Manifest, status: Mapping[str, str], loading: Mapping[str, Loading]
) -> dict[str, Any]:
    """The facts for programs: the manifest as it is, and what was found about its files."""
    return {
        "path": str(directory),
        "ok": all(state in SOUND for state in status.values()),
        "loads": next((file for file, found in loading.items() if found.loads), None),
        "files": dict(status),
        "variants": {
            variant.graph.file: {
                "loads": loading[variant.graph.file].loads,
                "why": loading[variant.graph.file].why,
                "fingerprint": _fingerprint(facts_of, variant),
            }
            for facts_of, variant in _variants(facts)
        },
        "int8": _int8_here(facts),
        "manifest": json.loads(facts.to_json()),
    }


def as_text(
    directory: Path, facts: Manifest, status: Mapping[str, str], loading: Mapping[str, Loading]
) -> Iterator[str]:
    """The facts for people, line by line."""
    rows = [("model", str(directory)), *_fact_rows(facts)]
    tokenizer = facts.tokenizer
    rows.append(("tokenizer", f"{tokenizer.file}, {readable(tokenizer.size)}, {status[tokenizer.file]}"))
    names = {v.graph.file: _fingerprint(of, v) for of, v in _variants(facts) if loading[v.graph.file].loads}
    rows += [("fingerprint", name) for name in names.values() if name is not None]
    if any(variant.precision == "int8" for _, variant in _variants(facts)):
        rows.append(("int8 here", _int8_here(facts)))
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        yield f"{name.ljust(width)}  {value}"
    yield ""
    yield from _variant_table(facts, status, loading)
    # Contents once: a graph that refers to weights inside another graph's file does not bring them again, and a second
    # name of a file is no second file.
    sizes = {record.sha256: record.size for record in facts.files}
    yield f"   {len(facts.files)} files, {readable(sum(sizes.values()))}"
    yield from _parity(facts)
    if facts.notes:
        yield ""
        yield from (f"note: {note}" for note in facts.notes)
    closed = {file: state for file, state in status.items() if state == UNREADABLE}
    if closed:
        yield ""
        yield f"cannot be read: {', '.join(closed)}; see who may read the files (ls -l), whose hashes are not compared"
    if faults := _faults({file: state for file, state in status.items() if file not in closed}):
        yield ""
        yield f"damaged: {faults}; restore the files or export the model again"


def _variants(facts: Manifest) -> Iterator[tuple[Manifest, Variant]]:
    """Every variant with the encoder that it is one of: the model's, and those of its routes."""
    for encoder in (facts, *facts.routes.values()):
        yield from ((encoder, variant) for variant in encoder.variants)


def _fingerprint(facts: Manifest, variant: Variant) -> str | None:
    """Of the vectors that plain `encode` gives, or `encode_document` alone; scores, which nobody stores, have none."""
    if facts.reranking is not None:
        return None
    from . import provenance  # only here: other commands start without it

    prompt = facts.prompts[facts.default_prompt_name] if facts.default_prompt_name is not None else ""
    if facts.sparse is not None:
        most = facts.sparse.max_active_dims
        return provenance.of_words(facts, variant, prompt=prompt, max_length=facts.max_length, most=most)
    if facts.late_interaction is not None:
        from ..models.prompts import DOCUMENT_PROMPTS  # only here: models are not needed to start

        prompt = next((facts.prompts[name] for name in DOCUMENT_PROMPTS if name in facts.prompts), "")
        length, role = facts.late_interaction.document_length, provenance.DOCUMENTS
        return provenance.of_late_interaction(facts, variant, prompt=prompt, length=length, role=role)
    return fingerprint(
        facts,
        variant,
        form(FLOAT32, facts.dim),
        prompt=prompt,
        normalize=facts.normalize,
        max_length=facts.max_length,
        chunked=False,
    )


def _fact_rows(facts: Manifest) -> Iterator[tuple[str, str]]:
    source = facts.source
    yield "source", source.checkpoint + (f" at {source.revision}" if source.revision else ", a local directory")
    yield "model type", source.model_type
    if facts.task != manifest.EMBEDDING:
        yield "task", f"{facts.task}, opened by fastembed_rt.{manifest.CLASSES[facts.task]}"
    yield from _scores(facts.reranking) if facts.reranking is not None else _vectors(facts)
    yield from _lengths(facts)
    if facts.late_interaction is not None:
        yield "similarity", facts.late_interaction.similarity
    elif facts.reranking is None:
        yield "similarity", facts.similarity
    for name, prompt in facts.prompts.items():
        default = " (default)" if name == facts.default_prompt_name else ""
        yield "prompt", f"{name}{default}: {_quote(prompt)}"
    if not facts.prompts:
        yield "prompt", "none"
    elif facts.task == manifest.EMBEDDING:
        yield "plain encode", plain_prompt(facts)
    if facts.modules:
        yield "modules", " -> ".join(facts.modules)
    for role, route in facts.routes.items():
        yield "route", f"{role} texts: {' -> '.join(route.modules)}, at most {route.max_length} tokens"
    for name, value in facts.overrides.items():
        yield "override", f"{name} = {_quote(value)}"
    reason = facts.parity.get("reason")
    yield "parity", str(facts.parity.get("status", manifest.NOT_VERIFIED)) + (f" ({reason})" if reason else "")
    for refused in facts.refused:
        yield "left out", str(refused)
    if facts.created_by:
        yield "created by", facts.created_by


def _int8_here(facts: Manifest) -> str:
    """Which instructions INT8 runs on: those of our own operators where a graph has them, and onnxruntime's."""
    stock = int8_kernels(cpu_features())[1]
    if not any((variant.target, variant.precision) == ("native", "int8") for variant in facts.variants):
        return stock
    kernels = native.kernels()
    own = f"{kernels} kernels" if kernels else f"not here: {native.why_not()}"
    return f"target native: {own}; target cpu: {stock}"


def _lengths(facts: Manifest) -> Iterator[tuple[str, str]]:
    about, room = facts.late_interaction, facts.max_positions
    raised = f", can be raised to {room}"
    if about is None:
        yield "max length", f"{facts.max_length} tokens" + (raised if room > facts.max_length else "")
        return
    filled = f", filled up to {about.expansion_length}" if about.expansion_length else ""
    yield "query length", f"{about.query_length} tokens{filled}" + (raised if room > about.query_length else "")
    yield "document length", f"{about.document_length} tokens" + (raised if room > about.document_length else "")
    for name, skipped in (("queries", about.query_skiplist), ("documents", about.document_skiplist)):
        if skipped:
            yield "skipped", f"of {name}: {len(skipped)} kinds of token, which have no vector"


def _vectors(facts: Manifest) -> Iterator[tuple[str, str]]:
    if facts.late_interaction is not None:
        yield "dim", f"{facts.dim}, a vector a token"
        yield "normalize", "yes" if facts.normalize else "no"
        return
    most = facts.sparse.max_active_dims if facts.sparse is not None else None
    kept = "" if most is None else f", the {most} heaviest are kept"
    yield "dim", f"{facts.dim} words{kept}" if facts.sparse is not None else str(facts.dim)
    states = sorted({variant.tokens.dim for variant in facts.variants if variant.tokens is not None})
    if states:
        yield "token vectors", f"dim {', '.join(map(str, states))}; embed --tokens"
    yield (
        "pooling",
        ", ".join(facts.pooling) + ("" if facts.include_prompt else ", without the prompt's tokens"),
    )
    yield "normalize", "yes" if facts.normalize else "no"


def _scores(facts: Reranking) -> Iterator[tuple[str, str]]:
    yield "labels", f"{len(facts.labels)}: {', '.join(facts.labels)}"
    yield "activation", facts.activation
    if facts.chat is not None:
        for name, parts in (("chat template", facts.chat.plain), ("with a prompt", facts.chat.prompted)):
            if parts is not None:
                yield name, _quote("".join(part.text if part.slot is None else f"{{{part.slot}}}" for part in parts))


def _variant_table(facts: Manifest, status: Mapping[str, str], loading: Mapping[str, Loading]) -> Iterator[str]:
    reasons = {found.why for found in loading.values()}
    # One reason for all of them, such as no onnxruntime, is said once below.
    shared = reasons.pop() if len(reasons) == 1 and not any(found.loads for found in loading.values()) else ""
    graphs = {variant.graph.file for _, variant in _variants(facts)}
    table: list[tuple[str, ...]] = [("", *VARIANT_COLUMNS, "")]
    for _, variant in _variants(facts):
        found = loading[variant.graph.file]
        cells = (
            variant.graph.file,
            variant.target,
            variant.precision,
            str(variant.opset),
            readable(variant.graph.size),
            status[variant.graph.file],
            ", ".join(_weights(record, graphs, status) for record in variant.weights) or "inside",
        )
        why = f"loads here: {found.why}" if found.loads else found.why
        table.append(("*" if found.loads else "", *cells, "" if shared else why))
    yield from aligned(table, columns(sys.stdout))
    if not any(found.loads for found in loading.values()):
        yield "no variant loads here" + (f": {shared}" if shared else " with these options")


def _weights(record: FileRecord, graphs: Collection[str], status: Mapping[str, str]) -> str:
    """A file with a graph's weights; its size too, unless it is a graph and has a line of its own."""
    size = "" if record.file in graphs else f"{readable(record.size)} "
    return f"{record.file} {size}{status[record.file]}"


def _parity(facts: Manifest) -> Iterator[str]:
    """What the comparison found, behind the graphs: the worst first, the rest of many figures counted."""
    graphs = facts.parity.get("variants")
    graphs = graphs if isinstance(graphs, Mapping) else {}
    found = [
        *_flatten({key: value for key, value in facts.parity.items() if key not in ("status", "reason", "variants")})
    ]
    found.sort(key=lambda entry: not entry[0].rpartition(".")[2].startswith(FIRST))
    if not found and not graphs:
        return
    yield ""
    for file, figures in graphs.items():
        kinds = figures.get("kinds") or ()
        worst = "; worst kinds: " + ", ".join(map(_kind, kinds[:MOST_ROWS])) if kinds else ""
        about = {key: value for key, value in figures.items() if isinstance(value, (int, float))}
        yield f"parity: {file}: {', '.join(f'{key} {_quote(value)}' for key, value in about.items())}{worst}"
    yield from (f"parity: {name} {value}" for name, value in found[:MOST_PARITY])
    if len(found) > MOST_PARITY:
        yield f"parity: {len(found) - MOST_PARITY} more with --json"


def _kind(row: Mapping[str, Any]) -> str:
    """One kind of text: how many there are, and how far the worst is."""
    least = {key: value for key, value in row.items() if key.startswith(("min", "max"))}
    return f"{row.get('kind')} ({row.get('n')}) " + ", ".join(f"{value:.6g}" for value in least.values())


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        elif isinstance(value, Sequence) and value and all(isinstance(item, Mapping) for item in value):
            for item in value[:MOST_ROWS]:
                yield prefix + name, ", ".join(f"{key} {_quote(entry)}" for key, entry in item.items())
        else:
            yield prefix + name, _quote(value)


def _quote(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)  # shows leading spaces, and disarms control characters
