"""Manifests of directories with several encoders: files of each in a folder, what a report says of each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from fastembed_rt.manifest import FileRecord, Manifest, TokenGraph, Variant

T = TypeVar("T", TokenGraph, Variant)


def prefixed(described: Manifest, folder: str) -> Manifest:
    """The manifest of an encoder whose files lie in a folder of the model directory."""

    def placed(record: FileRecord) -> FileRecord:
        return replace(record, file=f"{folder}/{record.file}")

    def moved(graph: T) -> T:
        return replace(graph, graph=placed(graph.graph), weights=tuple(map(placed, graph.weights)))

    return replace(
        described,
        tokenizer=placed(described.tokenizer),
        tool_files=tuple(map(placed, described.tool_files)),
        variants=tuple(
            replace(moved(variant), tokens=None if variant.tokens is None else moved(variant.tokens))
            for variant in described.variants
        ),
        default_variant=f"{folder}/{described.default_variant}",
    )


def with_parity(described: Manifest, report: Mapping[str, Any]) -> Manifest:
    """The manifest with a parity report of the variants that it has, and the routes' with what is theirs of it."""

    def own(*encoders: Manifest) -> Mapping[str, Any]:
        files = {variant.graph.file for encoder in encoders for variant in encoder.variants}
        by_file = {key: report[key] for key in ("variants", "not_compared") if key in report}
        theirs = {key: {f: entry for f, entry in found.items() if f in files} for key, found in by_file.items()}
        return {**report, **theirs}

    routes = {role: replace(route, parity=own(route)) for role, route in described.routes.items()}
    return replace(described, parity=own(described, *described.routes.values()), routes=routes)
