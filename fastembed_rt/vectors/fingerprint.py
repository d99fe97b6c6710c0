"""A short name for everything that decides a vector, so that vectors of two kinds never meet in one file.

Two runs with the same fingerprint give comparable vectors. It reads
`9c1f0e22ab47-cpu.int8-prompt.1a2b3c4d-len256-dim384-unit-float32`: model files, variant, prompt, limit, length,
unit or raw, precision (with the ranges' hash for int8 and uint8). The limit is `len256left` where texts lose their
beginning.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping

from ..errors import InvalidInputError
from ..manifest import TRUNCATION_SIDES, Manifest, Variant
from .quantized import Form

# Of a manifest: what is for readers, and what files and other encoders have a hash of their own for.
_WITHOUT_EFFECT = (
    *("source", "modules", "tool_files", "overrides", "notes", "parity", "refused", "created_by"),
    *("tokenizer", "variants", "default_variant", "route", "routes"),
)


def fingerprint(
    described: Manifest, variant: Variant, form: Form, *, prompt: str, normalize: bool, max_length: int, chunked: bool
) -> str:
    """Fingerprint of vectors made by `variant`.

    Args:
        described: the model.
        variant: the graph that runs.
        form: precision and length of the vectors.
        prompt: text in front; "" for none.
        normalize: whether the vectors have unit length.
        max_length: tokens after which texts are cut.
        chunked: whether longer texts are encoded in pieces instead.

    Raises:
        InvalidInputError: int8 or uint8 without ranges, whose vectors are not comparable between calls.
    """
    if form.needs_ranges:
        raise InvalidInputError(f"{form.precision} vectors have no fingerprint without ranges; pass ranges=")
    side = described.truncation_side  # no file has it
    parts = [
        of_files(described, variant),
        f"prompt.{digest(prompt.encode(), 8)}" if prompt else "noprompt",
        f"len{max_length}{'' if side == TRUNCATION_SIDES[0] else side}{'chunks' if chunked else ''}",
        f"dim{form.dim}",
        "unit" if normalize else "raw",
        form.precision if form.ranges is None else f"{form.precision}.{digest(form.ranges.tobytes(), 8)}",
    ]
    return "-".join(parts)


def of_files(described: Manifest, variant: Variant) -> str:
    """The first two parts: what runs of one encoder, by the contents of its files."""
    # Not the checkpoint's hash: another calibration or pooling gives other vectors.
    files = {record.sha256 for record in (*variant.files, described.tokenizer)}
    return f"{digest(chr(10).join(sorted(files)).encode(), 12)}-{variant.target}.{variant.precision}"


def of_model(encoders: Mapping[str, tuple[Manifest, Variant]]) -> str:
    """All that decides a model's results: `of_files` of the first encoder, then a hash of what each role has.

    Args:
        encoders: by role, "" for all texts.
    """
    told = {}
    for role, (described, variant) in encoders.items():
        said = {each.name: getattr(described, each.name) for each in dataclasses.fields(described)}
        facts = {name: value for name, value in said.items() if name not in _WITHOUT_EFFECT}
        graphs = (variant,) if variant.tokens is None else (variant, variant.tokens)
        files = [record.sha256 for graph in graphs for record in graph.files]
        told[role] = [files, described.tokenizer.sha256, facts]
    content = json.dumps(told, sort_keys=True, default=dataclasses.asdict).encode()
    return f"{of_files(*next(iter(encoders.values())))}-{digest(content, 12)}"


def digest(content: bytes, letters: int) -> str:
    """The first `letters` of a SHA-256 in hexadecimal."""
    return hashlib.sha256(content).hexdigest()[:letters]
