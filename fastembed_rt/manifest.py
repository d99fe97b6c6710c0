"""The contract of a model directory: what manifest.json holds, read and written in one place.

Knows files, hashes and facts; loads no model. The export stage writes it, the runtime trusts nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from .errors import IntegrityError, ModelFormatError, ModelNotFoundError

FORMAT = "fastembed-rt"
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
NOT_VERIFIED = "not verified"


@dataclass(frozen=True, kw_only=True)
class FileRecord:
    """One file of the directory with its size in bytes and its SHA-256."""

    file: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        check_file_name(self.file)


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One graph: made for a target (portable, cpu, cuda, tensorrt) in a precision (fp32, fp16, int8)."""

    graph: FileRecord
    weights: tuple[FileRecord, ...] = ()  # external data, when the graph does not hold its weights
    target: str
    precision: str
    opset: int
    inputs: tuple[str, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)  # what the variant's maker measured and chose

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """The graph and the weights it refers to."""
        return (self.graph, *self.weights)


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where the vectors come from."""

    checkpoint: str  # hub id, or the name of a local directory
    revision: str | None = None
    model_type: str
    sha256: str  # over the weight files' contents, in name order


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Everything the runtime needs to know about a model; checked at birth."""

    source: Source
    dim: int
    pooling: tuple[str, ...]
    normalize: bool
    max_length: int  # tokens, special tokens included; longer texts are cut
    max_positions: int  # tokens the model has positions for: max_length can be raised up to it
    include_prompt: bool = True  # False: prompt tokens are left out of the pooling
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str = "cosine"  # cosine | dot | euclidean | manhattan
    pad_token_id: int = 0
    modules: tuple[str, ...] = ()  # the chain fused into the graph, for people to read
    tokenizer: FileRecord
    variants: tuple[Variant, ...]
    default_variant: str  # file name of the variant that loads when no precision is asked for
    overrides: Mapping[str, Any] = field(default_factory=dict)  # what the exporter was told against the checkpoint
    notes: tuple[str, ...] = ()  # what a reader should know: tensors left out, limits capped
    parity: Mapping[str, Any] = field(default_factory=lambda: {"status": NOT_VERIFIED})
    created_by: str = ""

    def __post_init__(self) -> None:
        if self.dim < 1 or not 1 <= self.max_length <= self.max_positions:
            raise ModelFormatError(
                f"dim {self.dim}, max_length {self.max_length}, max_positions {self.max_positions} do not fit together"
            )
        if not self.variants:
            raise ModelFormatError("a model directory needs at least one variant")
        names = [variant.graph.file for variant in self.variants]
        if self.default_variant not in names:
            raise ModelFormatError(f"default variant {self.default_variant!r} is not one of {', '.join(names)}")
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            raise ModelFormatError(
                f"default prompt {self.default_prompt_name!r} is not one of {sorted(self.prompts) or 'no prompts'}"
            )

    @property
    def default(self) -> Variant:
        """The variant that loads when no precision is asked for."""
        return next(v for v in self.variants if v.graph.file == self.default_variant)

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """Every file with a hash, each once."""
        records = {self.tokenizer.file: self.tokenizer}
        for variant in self.variants:
            records.update({record.file: record for record in variant.files})
        return tuple(records.values())

    def to_json(self) -> str:
        """The text of manifest.json."""
        body = {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        return json.dumps(body, indent=2, ensure_ascii=False) + "\n"

    def write(self, directory: Path) -> None:
        """Write manifest.json into `directory`."""
        (directory / MANIFEST_FILE).write_text(self.to_json(), encoding="utf-8")


def check_file_name(name: str) -> None:
    """Raise ModelFormatError unless `name` is a relative path that stays inside its directory."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    escapes = ".." in posix.parts or ".." in windows.parts
    if not name or "\0" in name or posix.is_absolute() or windows.drive or windows.root or escapes:
        raise ModelFormatError(f"file name {name!r} in the manifest leaves the model directory; refusing to read it")


def parse(text: str, where: str = MANIFEST_FILE) -> Manifest:
    """Manifest from the text of manifest.json.

    Raises:
        ModelFormatError: not JSON, not ours, another format version, a missing or malformed field.
    """
    try:
        body = json.loads(text)
    except ValueError as error:
        raise ModelFormatError(f"{where} is not JSON ({error}); export the model again") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ModelFormatError(
            f"{where} is not a fastembed-rt manifest; export the checkpoint with fastembed-rt export"
        )
    version = body.get("format_version")
    if version != FORMAT_VERSION:
        raise ModelFormatError(
            f"{where} has format version {version!r}, this fastembed-rt reads {FORMAT_VERSION}; "
            "export the model again or install the fastembed-rt that wrote it"
        )
    known = {f.name for f in dataclasses.fields(Manifest)}
    try:
        return Manifest(
            **{
                **{key: value for key, value in body.items() if key in known},
                "source": Source(**body["source"]),
                "tokenizer": FileRecord(**body["tokenizer"]),
                "variants": tuple(_variant(item) for item in body["variants"]),
                "pooling": tuple(body["pooling"]),
                "modules": tuple(body.get("modules", ())),
                "notes": tuple(body.get("notes", ())),
            }
        )
    except KeyError as error:
        raise ModelFormatError(f"{where} lacks the field {error}; export the model again") from error
    except (TypeError, AttributeError) as error:
        raise ModelFormatError(f"{where} is malformed ({error}); export the model again") from error


def _variant(item: dict[str, Any]) -> Variant:
    return Variant(
        **{
            **item,
            "graph": FileRecord(**item["graph"]),
            "weights": tuple(FileRecord(**record) for record in item.get("weights", ())),
            "inputs": tuple(item["inputs"]),
        }
    )


def read(directory: Path) -> Manifest:
    """Manifest of a model directory; the files' hashes are checked by `check_file`, when they are read.

    Raises:
        ModelNotFoundError: no such directory, or no manifest in it.
        ModelFormatError: see `parse`.
    """
    path = directory / MANIFEST_FILE
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelNotFoundError(
            f"{directory} holds no {MANIFEST_FILE}; make a model directory with: fastembed-rt export {directory}"
        ) from error
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise ModelFormatError(f"{path} is not a text file ({error}); export the model again") from error
    return parse(text, str(path))


def sha256_file(path: Path) -> str:
    """SHA-256 of a file's contents in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def record_file(directory: Path, name: str) -> FileRecord:
    """FileRecord of a file as it is now."""
    path = directory / name
    return FileRecord(file=name, size=path.stat().st_size, sha256=sha256_file(path))


def check_file(directory: Path, record: FileRecord) -> None:
    """Raise IntegrityError unless the file is there with the recorded size and hash."""
    path = directory / record.file
    again = "restore the file or export the model again"
    try:
        size = path.stat().st_size
    except OSError as error:
        raise IntegrityError(f"{path} is missing ({error.strerror}); {again}") from error
    if size != record.size:
        raise IntegrityError(f"{path} has {size} bytes, the manifest says {record.size}; {again}")
    digest = sha256_file(path)
    if digest != record.sha256:
        raise IntegrityError(f"{path} has SHA-256 {digest[:12]}…, the manifest says {record.sha256[:12]}…; {again}")
