"""Manifests of directories with several encoders: where the files of each lie, what a report says of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from fastembed_rt.manifest import FileRecord, Manifest, TokenGraph, Variant

T = TypeVar("T", TokenGraph, Variant)
Contents = tuple[int, str]  # size and SHA-256


def prefixed(described: Manifest, folder: str, *, graphs: bool = True) -> Manifest:
    """The manifest of an encoder whose files lie in a folder of the model directory, all or all but the graphs."""

    def placed(record: FileRecord) -> FileRecord:
        return replace(record, file=f"{folder}/{record.file}")

    def moved(graph: T) -> T:
        if not graphs:
            return graph
        return replace(graph, graph=placed(graph.graph), weights=tuple(map(placed, graph.weights)))

    return replace(
        described,
        tokenizer=placed(described.tokenizer),
        tool_files=tuple(map(placed, described.tool_files)),
        variants=tuple(
            replace(moved(variant), tokens=None if variant.tokens is None else moved(variant.tokens))
            for variant in described.variants
        ),
        default_variant=f"{folder}/{described.default_variant}" if graphs else described.default_variant,
    )


def stored_once(described: Manifest, work: Path) -> Manifest:
    """The manifest with each graph and tokenizer that a route has in common with another encoder under one name.

    Copies that nobody refers to any more are removed from `work`. A graph with weights in other files is the same only
    if these are: their names are relative to its own folder.
    """
    first: dict[tuple[Contents, ...], tuple[FileRecord, ...]] = {}  # of the encoders before
    own: list[tuple[FileRecord, ...]] = []  # of this one, whose graphs for several targets keep their names

    def once(records: tuple[FileRecord, ...]) -> tuple[FileRecord, ...]:
        own.append(records)
        return first.get(_contents(records), records)

    def graph(found: T) -> T:
        one, *weights = once((found.graph, *found.weights))
        return replace(found, graph=one, weights=tuple(weights))

    def encoder(one: Manifest) -> Manifest:
        (tokenizer,) = once((one.tokenizer,))
        variants = []
        for variant in one.variants:
            tokens = None if variant.tokens is None else graph(variant.tokens)
            variants.append(replace(graph(variant), tokens=tokens))
        names = [variant.graph.file for variant in one.variants]
        default = variants[names.index(one.default_variant)].graph.file
        while own:
            records = own.pop()
            first.setdefault(_contents(records), records)
        return replace(one, tokenizer=tokenizer, variants=tuple(variants), default_variant=default)

    whole = encoder(described)
    whole = replace(whole, routes={role: encoder(route) for role, route in described.routes.items()})
    for name in {record.file for record in described.files} - {record.file for record in whole.files}:
        (work / name).unlink()
    return whole


def _contents(records: tuple[FileRecord, ...]) -> tuple[Contents, ...]:
    return tuple((record.size, record.sha256) for record in records)


def with_parity(described: Manifest, report: Mapping[str, Any]) -> Manifest:
    """The manifest with a parity report of the variants that it has, and the routes' with what is theirs of it."""

    def own(*encoders: Manifest) -> Mapping[str, Any]:
        files = {variant.graph.file for encoder in encoders for variant in encoder.variants}
        by_file = {key: report[key] for key in ("variants", "not_compared") if key in report}
        theirs = {key: {f: entry for f, entry in found.items() if f in files} for key, found in by_file.items()}
        return {**report, **theirs}

    routes = {role: replace(route, parity=own(route)) for role, route in described.routes.items()}
    return replace(described, parity=own(described, *described.routes.values()), routes=routes)
