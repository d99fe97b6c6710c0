"""Precisions that do not pass: which errors refuse one, and what a model directory is without it.

What is refused is a target's precision with all its graphs: which of them a machine runs must not decide whether it is
there. What one encoder of a directory lacks is left out of the others too, since all are loaded with one precision.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from fastembed_rt.manifest import Manifest, Refused, Variant
from fastembed_rt.precisions import made_for

from ..errors import ParityError, UnsupportedCheckpointError

GRAPHS_OF_TOOLS = "onnx"  # the folder where the portable graph has its second name
Key = tuple[str, str]  # the export's target, precision
REFUSES = (ParityError, UnsupportedCheckpointError)


@dataclass
class Refusals:
    """What was refused so far, in the order in which it was."""

    say: Callable[[str], None]
    encoder: str = ""  # whose graphs are being made, where there are several
    errors: dict[Key, ParityError | UnsupportedCheckpointError] = field(default_factory=dict)

    def add(self, key: Key, error: ParityError | UnsupportedCheckpointError) -> None:
        """Leave out what `key` names; the first reason counts."""
        if key not in self.errors:
            whose = f"{self.encoder} texts: " if self.encoder else ""
            # Anew: a traceback would hold the weights that the graph was made of.
            self.errors[key] = type(error)(f"{whose}{error}")
            self.say(f"left out: {self.records[-1]}")

    def variant(self, variant: Variant, error: ParityError) -> None:
        """Leave out what a variant is one of the graphs of."""
        self.add(made_for(variant), error)

    @property
    def records(self) -> tuple[Refused, ...]:
        """For the manifest."""
        return tuple(
            Refused(precision=precision, target=target, why=str(error))
            for (target, precision), error in self.errors.items()
        )

    def nothing_left(self) -> ParityError | UnsupportedCheckpointError:
        """The error where all was refused: the first, which names the others if they are not alike."""
        first, *others = self.errors.values()
        if all(str(other) == str(first) for other in others):
            return first
        return type(first)(f"no precision passes: {'; '.join(map(str, self.records))}")


def left(directory: Path, described: Manifest, refusals: Refusals) -> Manifest:
    """The manifest without what was refused, whose files are removed.

    Shared weights stay, in whatever file they are.

    Raises:
        ParityError, UnsupportedCheckpointError: nothing is left.
    """
    if not refusals.errors:
        return described
    rest = without(described, refusals.records)
    if rest is None:
        raise refusals.nothing_left()
    for name in {record.file for record in described.files} - {record.file for record in rest.files}:
        (directory / name).unlink()
        with suppress(OSError):  # a folder is left when it is empty
            (directory / name).parent.rmdir()
    return rest


def without(described: Manifest, refused: tuple[Refused, ...]) -> Manifest | None:
    """The manifest with no graph of what was refused, in any encoder; the first one left is the default.

    None: an encoder has none left.
    """
    keys = {(one.target, one.precision) for one in refused}
    variants = tuple(variant for variant in described.variants if made_for(variant) not in keys)
    routes = {role: without(route, refused) for role, route in described.routes.items()}
    kept = {role: route for role, route in routes.items() if route is not None}
    if not variants or len(kept) < len(routes):
        return None
    there = any(variant.graph.file == described.default_variant for variant in variants)
    default = described.default_variant if there else variants[0].graph.file
    whole = {variant.graph.file for variant in variants if variant.target == "portable"}
    tool_files = tuple(
        record
        for record in described.tool_files
        if PurePath(record.file).parent.name != GRAPHS_OF_TOOLS
        or any(PurePath(record.file).parents[1] == PurePath(file).parent for file in whole)
    )
    return replace(
        described, variants=variants, default_variant=default, refused=refused, routes=kept, tool_files=tool_files
    )


def new_files(directory: Path, known: Iterable[Path]) -> list[Path]:
    """Files of a directory that are not among those known."""
    return sorted(set(directory.iterdir()) - set(known))
