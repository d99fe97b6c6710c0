"""The contract of a model directory: what manifest.json holds, read and written in one place.

Knows files, hashes and facts; loads no model. The export stage writes it, the runtime trusts nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import types
import typing
from collections.abc import Hashable, Mapping
from dataclasses import field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from .errors import ModelFormatError, ModelNotFoundError
from .records import record

FORMAT = "fastembed-rt"
FORMAT_VERSION = 1
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.json"
NOT_VERIFIED = "not verified"
TRUNCATION_SIDES = ("right", "left")
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
EMBEDDING, RERANKING, SPARSE, LATE_INTERACTION = TASKS = ("embedding", "reranking", "sparse", "late_interaction")
# By task: the class that opens a directory, and what its graphs call their output.
CLASSES = dict(zip(TASKS, ("EmbeddingModel", "Reranker", "SparseModel", "LateInteractionModel"), strict=True))
OUTPUTS = dict(zip(TASKS, ("sentence_embedding", "logits", "sentence_embedding", "token_embeddings"), strict=True))
ROLES = ("query", "document")  # of texts, where they have encoders of their own
ACTIVATIONS = ("identity", "sigmoid")  # of a reranker's logits
SLOTS = ("query", "document", "prompt")  # of a chat template


@record(frozen=True, kw_only=True)
class FileRecord:
    """One file of the directory with its size in bytes and its SHA-256."""

    file: str
    size: int
    sha256: str

    def __post_init__(self) -> None:
        check_file_name(self.file)


@record(frozen=True, kw_only=True)
class TokenGraph:
    """The encoder of a variant alone: token states as output `token_embeddings`, (B, S, dim) or packed (T, dim)."""

    graph: FileRecord
    weights: tuple[FileRecord, ...] = ()  # those of the variant, mostly
    opset: int
    inputs: tuple[str, ...]
    dim: int  # of a token's state
    no_spans: str = ""  # why vectors of spans are no means of states; "" where they are

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """The graph and the weights it refers to."""
        return (self.graph, *self.weights)


@record(frozen=True, kw_only=True)
class Variant:
    """One graph: made for a target in a precision (fp32, fp16, bf16, fp8, int8).

    Targets: portable, cpu, native, cuda, cuda-native, tensorrt.
    """

    graph: FileRecord
    weights: tuple[FileRecord, ...] = ()  # external data, when the graph does not hold its weights
    target: str
    precision: str
    opset: int
    inputs: tuple[str, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)  # what the variant's maker measured and chose
    tokens: TokenGraph | None = None  # of an export with --tokens

    @property
    def files(self) -> tuple[FileRecord, ...]:
        """The graph and the weights it refers to."""
        return (self.graph, *self.weights)


@record(frozen=True, kw_only=True)
class Refused:
    """A precision that was asked for and is not there: its graph did not pass, or could not be made."""

    precision: str
    target: str  # of the export: cpu, cuda, tensorrt
    why: str

    def __str__(self) -> str:
        return f"{self.precision} for target {self.target}: {self.why}"


@record(frozen=True, kw_only=True)
class AdapterSource:
    """An adapter that was merged into its base at export."""

    method: str  # lora
    sha256: str  # over the contents of the files with its weights, in name order
    settings_sha256: str  # of its adapter_config.json
    base: str  # hub id, or the name of a local directory
    base_revision: str | None = None
    base_sha256: str  # over the base's weight files' contents, in name order
    folder: str | None = None  # of the checkpoint, where it was one of several


@record(frozen=True, kw_only=True)
class Source:
    """Where the vectors come from."""

    checkpoint: str  # hub id, or the name of a local directory
    revision: str | None = None
    model_type: str
    sha256: str  # over the weight files' contents, in name order
    license: str | None = None  # as the checkpoint's card says, under the hub's name for it
    languages: tuple[str, ...] = ()
    adapter: AdapterSource | None = None  # where the checkpoint is an adapter


@record(frozen=True, kw_only=True)
class TemplatePart:
    """A part of a chat template: text as it stands, or the place of a pair's query or document, or of the prompt."""

    text: str = ""
    slot: str | None = None  # one of SLOTS
    strip: bool = False  # without the white space around what stands in the slot

    def __post_init__(self) -> None:
        if self.slot is not None and self.slot not in SLOTS:
            raise ModelFormatError(
                f"a chat template has a place for {self.slot!r}; known: {', '.join(SLOTS)}; "
                "install a newer fastembed-rt"
            )


@record(frozen=True, kw_only=True)
class ChatTemplate:
    """How a pair becomes one text, which is cut as a whole; its end is written over the last tokens of what was cut."""

    plain: tuple[TemplatePart, ...]  # without a prompt
    prompted: tuple[TemplatePart, ...] | None = None  # with one; None: it takes none
    restore_end: bool = True


@record(frozen=True, kw_only=True)
class Reranking:
    """What a reranker's scores are."""

    labels: tuple[str, ...]  # one score each
    activation: str  # identity | sigmoid: from logits to scores
    chat: ChatTemplate | None = None  # None: a pair is two texts, as the tokenizer joins them
    score_tokens: tuple[int, ...] = ()  # ids of a word whose logit is the score, and of one whose logit is taken off
    unscored: int | None = None  # id of a token that is left out at the end of a pair, whoever put it there

    def __post_init__(self) -> None:
        if self.activation not in ACTIVATIONS:
            raise ModelFormatError(f"activation {self.activation!r} is not known; known: {', '.join(ACTIVATIONS)}")
        if not self.labels:
            raise ModelFormatError("a reranker without labels has no scores; export the model again")


@record(frozen=True, kw_only=True)
class Sparse:
    """What becomes of sparse vectors."""

    max_active_dims: int | None = None  # the largest so many are kept; None: all that are not zero
    table: bool = False  # a weight for each token, looked up: one graph, whatever precision the others run in

    def __post_init__(self) -> None:
        if self.max_active_dims is not None and self.max_active_dims < 1:
            raise ModelFormatError(f"max_active_dims {self.max_active_dims} is not possible; export the model again")


@record(frozen=True, kw_only=True)
class LateInteraction:
    """How texts become token vectors: lengths, expansion of queries, tokens that are not kept."""

    query_length: int  # tokens, special tokens included; longer texts are cut
    document_length: int
    expansion_length: int = 0  # queries are filled up to so many tokens; 0: they are not
    expansion_token_id: int = 0
    attend_to_expansion: bool = False  # whether the other tokens see those that fill up
    query_skiplist: tuple[int, ...] = ()  # tokens without a vector, by id
    document_skiplist: tuple[int, ...] = ()
    similarity: str = "maxsim"  # maxsim | meanmaxsim
    reach: int | None = None  # tokens before its own that a token sees, in the layer where it sees fewest; None: all
    # Whether all queries have one length, which query_length sets. None, of older exports: where the two are the same.
    expansion_fixed: bool | None = None

    @property
    def fixed(self) -> bool:
        """Whether all queries have one length."""
        same = 0 < self.expansion_length == self.query_length
        return same if self.expansion_fixed is None else self.expansion_fixed

    def filled_to(self, query_length: int) -> int:
        """Tokens that queries are filled up to where they are cut after `query_length`; 0: they are not."""
        return query_length if self.fixed else min(self.expansion_length, query_length)


@record(frozen=True, kw_only=True)
class Manifest:
    """Everything the runtime needs to know about a model; checked at birth."""

    task: str = EMBEDDING  # one of TASKS; which class opens the directory
    source: Source
    dim: int
    pooling: tuple[str, ...]
    normalize: bool
    max_length: int  # tokens, special tokens included; longer texts are cut
    max_positions: int  # tokens the model has positions for: max_length can be raised up to it
    truncation_side: str = "right"  # where longer texts lose tokens: right (their end) | left (their beginning)
    include_prompt: bool = True  # False: prompt tokens are left out of the pooling
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None
    similarity: str = "cosine"  # cosine | dot | euclidean | manhattan
    pad_token_id: int = 0
    vocabulary: int | None = None  # rows of the word table, where the tokenizer has ids beyond them
    padding: bool = True  # False: padding changes vectors, so that only texts of one length share a batch
    modules: tuple[str, ...] = ()  # the chain fused into the graph, for people to read
    tokenizer: FileRecord
    variants: tuple[Variant, ...]
    default_variant: str  # file name of the variant that loads when no precision is asked for
    tool_files: tuple[FileRecord, ...] = ()  # settings, and graphs under other names, for tools that are not this one
    overrides: Mapping[str, Any] = field(default_factory=dict)  # what the exporter was told against the checkpoint
    notes: tuple[str, ...] = ()  # what a reader should know: tensors left out, limits capped
    parity: Mapping[str, Any] = field(default_factory=lambda: {"status": NOT_VERIFIED})
    refused: tuple[Refused, ...] = ()  # what was asked for and left out of all encoders
    created_by: str = ""
    route: str | None = None  # name of this encoder, where queries and documents have different ones
    routes: Mapping[str, Manifest] = field(default_factory=dict)  # by role, "query" or "document", those of the others
    reranking: Reranking | None = None  # where that is the task
    sparse: Sparse | None = None  # where that is the task
    late_interaction: LateInteraction | None = None  # where that is the task

    def __post_init__(self) -> None:
        if self.dim < 1 or not 1 <= self.max_length <= self.max_positions:
            raise ModelFormatError(
                f"dim {self.dim}, max_length {self.max_length}, max_positions {self.max_positions} do not fit together"
            )
        if self.similarity not in SIMILARITIES:
            raise ModelFormatError(f"similarity {self.similarity!r} is not known; known: {', '.join(SIMILARITIES)}")
        if self.truncation_side not in TRUNCATION_SIDES:
            raise ModelFormatError(
                f"truncation_side {self.truncation_side!r} is not known; known: {', '.join(TRUNCATION_SIDES)}"
            )
        self._check_task()
        self._check_routes()
        if not self.variants:
            raise ModelFormatError("a model directory needs at least one variant")
        names = [variant.graph.file for variant in self.variants]
        if self.default_variant not in names:
            raise ModelFormatError(f"default variant {self.default_variant!r} is not one of {', '.join(names)}")
        if self.default_prompt_name is not None and self.default_prompt_name not in self.prompts:
            raise ModelFormatError(
                f"default prompt {self.default_prompt_name!r} is not one of {sorted(self.prompts) or 'no prompts'}"
            )

    def _check_task(self) -> None:
        if self.task not in TASKS:
            raise ModelFormatError(
                f"task {self.task!r} is not known; known: {', '.join(TASKS)}; install a newer fastembed-rt"
            )
        given = {RERANKING: self.reranking, SPARSE: self.sparse, LATE_INTERACTION: self.late_interaction}
        for task, facts in given.items():
            if (self.task == task) != (facts is not None):
                raise ModelFormatError(f"task {self.task!r} and the facts for {task!r} do not fit; export again")
        if self.reranking is not None and len(self.reranking.labels) != self.dim:
            raise ModelFormatError(f"{len(self.reranking.labels)} labels and dim {self.dim} do not fit together")

    def _check_routes(self) -> None:
        for role, route in self.routes.items():
            if role not in ROLES or self.task not in (EMBEDDING, SPARSE) or route.routes:
                raise ModelFormatError(f"a route for {role!r} is not known; known: {', '.join(ROLES)}; export again")
            if (route.dim, route.task) != (self.dim, self.task):
                raise ModelFormatError(f"the route for {role!r} gives vectors of {route.dim} numbers, not {self.dim}")

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
            if variant.tokens is not None:
                records.update({record.file: record for record in variant.tokens.files})
        records.update({record.file: record for record in self.tool_files})
        for route in self.routes.values():
            records.update({record.file: record for record in route.files})
        return tuple(records.values())

    def to_json(self) -> str:
        """The text of manifest.json."""
        body = {"format": FORMAT, "format_version": FORMAT_VERSION, **dataclasses.asdict(self)}
        return json.dumps(body, indent=2, ensure_ascii=False) + "\n"

    def write(self, directory: Path) -> None:
        """Write manifest.json into `directory`; whoever reads meanwhile finds the old one or the new one, whole."""
        replace_text(directory / MANIFEST_FILE, self.to_json())


def replace_text(path: Path, text: str) -> None:
    """Write a file beside the old one and rename it into its place."""
    work = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        work.write_text(text, encoding="utf-8")
        work.replace(path)
    finally:
        work.unlink(missing_ok=True)


def check_file_name(name: str) -> None:
    """Raise ModelFormatError unless `name` is a relative path that stays inside its directory."""
    posix, windows = PurePosixPath(name), PureWindowsPath(name)
    escapes = ".." in posix.parts or ".." in windows.parts
    odd = not name or "\0" in name or any("\ud800" <= letter <= "\udfff" for letter in name)
    if odd or posix.is_absolute() or windows.drive or windows.root or escapes:
        raise ModelFormatError(f"file name {name!r} in the manifest leaves the model directory; refusing to read it")


def parse(text: str, where: str = MANIFEST_FILE) -> Manifest:
    """Manifest from the text of manifest.json.

    Raises:
        ModelFormatError: not JSON, not ours, another format version, a missing or malformed field.
    """
    try:
        body = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelFormatError(f"{where} is not JSON ({error}); export the model again") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ModelFormatError(
            f"{where} is not a fastembed-rt manifest; export the checkpoint with fastembed-rt export"
        )
    version = body.get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        raise ModelFormatError(
            f"{where} has format version {version!r}, this fastembed-rt reads {FORMAT_VERSION}; "
            "export the model again or install the fastembed-rt that wrote it"
        )
    made = _record(Manifest, body, where)
    assert isinstance(made, Manifest)
    return made


def _record(kind: type[Any], body: object, where: str) -> Any:
    """Dataclass from a JSON object, every field checked against its annotation; unknown fields are a later writer's."""
    if not isinstance(body, dict):
        raise ModelFormatError(f"{where} is {type(body).__name__}, expected an object; export the model again")
    values = {}
    hints = _hints(typing.cast("Hashable", kind))
    for entry in dataclasses.fields(kind):
        if entry.name in body:
            values[entry.name] = _value(hints[entry.name], body[entry.name], f"{where}: {entry.name}")
        elif entry.default is dataclasses.MISSING and entry.default_factory is dataclasses.MISSING:
            raise ModelFormatError(f"{where} lacks the field {entry.name!r}; export the model again")
    return kind(**values)


@functools.cache
def _hints(kind: Hashable) -> dict[str, Any]:
    """Annotations of a record's fields: they are parsed anew at each call otherwise, for every file of a manifest."""
    return typing.get_type_hints(kind)


def _value(hint: Any, value: object, where: str) -> Any:
    """A JSON value as the annotation says: str, int, bool, X | None, tuple[X, ...], Mapping[str, X] or a record."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _value(arguments[0], value, where)
    if dataclasses.is_dataclass(hint):
        return _record(typing.cast("type[Any]", hint), value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_value(arguments[0], item, f"{where}[{index}]") for index, item in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        names = {key: key if key.isprintable() else repr(key) for key in value}  # an error is one line
        return {key: _value(arguments[1], item, f"{where}.{names[key]}") for key, item in value.items()}
    if origin is None and isinstance(value, hint) and (hint is bool or not isinstance(value, bool)):
        return value
    expected = "a list" if origin is tuple else "an object" if origin is Mapping else hint.__name__
    raise ModelFormatError(f"{where} is {str(value)[:40]!r}, expected {expected}; export the model again")


def read(directory: Path) -> Manifest:
    """Manifest of a model directory; the files' hashes are checked by files.py, when they are read.

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
