"""What `embed` knows of an output beyond its vectors: the fingerprint beside it, and whether more rows fit behind it.

A .npy file has no room for metadata and a line of JSON belongs to its text, so both get a small file of JSON under
their name with `.json` behind it. Parquet and .npz files hold their fingerprint inside.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np

from ..errors import InvalidInputError, OutputExistsError
from ..manifest import Manifest, Variant
from ..vectors.fingerprint import digest, fingerprint
from ..vectors.quantized import FLOAT32, form
from . import compressed
from .layouts import NPY_HEADER_BYTES, Dense, Layout
from .writers import STDOUT

KEY = "fingerprint"
QUERIES, DOCUMENTS = "queries", "documents"
BESIDE = ("npy", "jsonl")  # formats with a file beside them, and those that can grow


def of_tokens(dense: str, width: int) -> str:
    """Fingerprint of a dense model's token states, from that of its vectors."""
    return f"{dense}-tokens{width}"


def of_words(described: Manifest, variant: Variant, *, prompt: str, max_length: int, most: int | None) -> str:
    """Fingerprint of sparse vectors, of which the `most` heaviest words are kept."""
    return _of_raw(described, variant, prompt, max_length) + ("" if most is None else f"-top{most}")


def of_late_interaction(described: Manifest, variant: Variant, *, prompt: str, length: int, role: str) -> str:
    """Fingerprint of the token vectors of QUERIES or DOCUMENTS.

    Which tokens have one, and what queries are filled up with, the manifest alone says.
    """
    about = described.late_interaction
    assert about is not None
    facts: list[object] = [about.document_skiplist]
    if role == QUERIES:
        facts = [about.query_skiplist, about.filled_to(length), about.expansion_token_id, about.attend_to_expansion]
    return f"{_of_raw(described, variant, prompt, length)}-{role}.{digest(json.dumps(facts).encode(), 8)}"


def _of_raw(described: Manifest, variant: Variant, prompt: str, max_length: int) -> str:
    return fingerprint(
        described,
        variant,
        form(FLOAT32, described.dim),
        prompt=prompt,
        normalize=described.normalize,
        max_length=max_length,
        chunked=False,
    )


def beside(target: str) -> Path:
    """The file that holds the fingerprint of `target`; of a link's target where it is a link."""
    path = Path(target).resolve()
    return path.with_name(f"{path.name}.json")


def check_beside(target: str, output_format: str, *, force: bool) -> None:
    """Raise OutputExistsError where the fingerprint would overwrite a file that is no such thing."""
    note = beside(target)
    if output_format in BESIDE and target != STDOUT and not force and note.exists() and _read(note) is None:
        raise OutputExistsError(f"{note} exists already and is no fingerprint of {target}; pass --force to replace it")


def check_append(target: str, output_format: str) -> str | None:
    """Fingerprint of the output that is there, None where there is none yet; costs nothing.

    Raises:
        InvalidInputError: an output that cannot grow, or does not say what is in it.
    """
    if target == STDOUT:
        raise InvalidInputError("--append is for a file; name one with -o")
    if output_format not in BESIDE:
        raise InvalidInputError(
            f"{output_format} files end with an index of what is in them and cannot grow; write another file beside it"
            + (", readers take a folder of them as one table" if output_format == "parquet" else "")
        )
    if compressed.split(target)[1]:
        raise InvalidInputError(f"{target} is compressed and cannot grow; write another file beside it")
    if not Path(target).exists():
        return None
    found = _read(beside(target))
    if found is None:
        raise InvalidInputError(
            f"{target} does not say what made it: {beside(target).name} is missing or damaged; write another file"
        )
    return found


def _read(note: Path) -> str | None:
    try:
        body = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    found = body.get(KEY) if isinstance(body, dict) else None
    return found if isinstance(found, str) else None


def check_same(target: str, found: str | None, wanted: str) -> None:
    """Raise InvalidInputError, with both fingerprints, unless vectors of `wanted` belong behind those of `found`."""
    if found is not None and found != wanted:
        raise InvalidInputError(f"{target} holds vectors of {found}, these would be {wanted}; write another file")


def check_end(target: str, output_format: str, layout: Layout) -> None:
    """Raise InvalidInputError unless the file is whole, so that a row can follow its last one."""
    with Path(target).open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        if output_format == "jsonl":
            stream.seek(max(size - 1, 0))
            whole = size == 0 or stream.read(1) == b"\n"
        else:
            assert isinstance(layout, Dense)
            stream.seek(0)
            try:
                magic = np.lib.format.read_magic(stream)
                (rows, *numbers), fortran, found = np.lib.format.read_array_header_1_0(stream)
            except (ValueError, TypeError) as error:
                raise InvalidInputError(f"{target} is not a .npy file that embed wrote ({error})") from error
            ours = magic == (1, 0) and stream.tell() == NPY_HEADER_BYTES and not fortran
            fits = found == layout.dtype and tuple(numbers) == (layout.width,)
            whole = ours and fits and size == NPY_HEADER_BYTES + rows * layout.width * layout.dtype.itemsize
    if not whole:
        raise InvalidInputError(f"{target} is not as embed wrote it, another tool changed it; write another file")


def forget(target: str, output_format: str) -> None:
    """Take away what an earlier output under this name said of itself, before another one takes its place."""
    if output_format in BESIDE and target != STDOUT:
        beside(target).unlink(missing_ok=True)


def remember(target: str, output_format: str, fingerprint: str) -> None:
    """Write the fingerprint beside an output that has no room for it."""
    if output_format in BESIDE and target != STDOUT:
        beside(target).write_text(json.dumps({KEY: fingerprint}) + "\n", encoding="utf-8")
