"""The export in one page: load -> build -> write -> verify -> a model directory, whole or not at all."""

from __future__ import annotations

import hashlib
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fastembed_rt import __version__
from fastembed_rt import manifest as contract
from fastembed_rt.hub.adapters import chosen
from fastembed_rt.hub.resolve import Located, resolve_checkpoint
from fastembed_rt.manifest import AdapterSource, Manifest, Refused, Source, record_file

from . import quantize, tasks, variants
from .adapters.routed import PLAIN
from .adapters.whole import placed, whole
from .checkpoint import copied_rows
from .checkpoint.read import Checkpoint, Overrides
from .directory import hub_layout, provenance, tool_files
from .directory.card import CARD_FILE, card
from .directory.encoders import prefixed, stored_once, with_parity
from .directory.whole import atomic_directory, check_apart, check_free
from .errors import CheckpointError, InvalidInputError, UnsupportedCheckpointError
from .gate import verify
from .gate.long_texts import Reach
from .gate.parity import INT8_MIN_COSINE
from .gate.refusals import Key, Refusals, left
from .graph.common import Common
from .graph.portable import DEFAULT_OPSET, MAX_OPSET, MIN_OPSET
from .tokenizer import padding_side, token_types, tokenizer_json


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What the user asks of an export; None leaves the checkpoint's word."""

    output: Path | None = None  # None: <name>-onnx in the current directory
    force: bool = False
    overrides: Overrides = field(default_factory=Overrides)
    opset: int = DEFAULT_OPSET
    task: str = "auto"  # embedding | reranking | sparse | late_interaction; auto: as the checkpoint says
    exporter: str = "auto"  # builder | optimum | auto
    targets: tuple[str, ...] = ("cpu",)  # cpu (with model.onnx, for any runtime) | cuda | tensorrt
    precisions: tuple[str, ...] | None = None  # the first is the directory's default; None: fp32, for GPUs alone fp16
    calibration: Path | None = None  # texts for int8 and fp8 instead of those that ship
    min_cosine: float = INT8_MIN_COSINE  # int8 is left out where a vector is below it
    verify: bool = True
    trust_remote_code: bool = False  # code of the checkpoint's own may be run, to compare with
    external_data: bool = False  # also for models under 2 GB
    layout: str = hub_layout.PLAIN  # hub: onnx/model.onnx too, for tools of the Hugging Face hub
    tokens: bool = False  # graphs of token states too, which share the weights
    show_progress: bool = False  # bars on stderr while int8 is calibrated and the reference computes
    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | None = None
    local_files_only: bool = False
    base: str | None = None  # of an adapter, against what it says itself
    adapter: str | None = None  # one of the checkpoint's adapters, or query=ONE,document=ANOTHER; see hub.adapters


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What came of it."""

    directory: Path
    manifest: Manifest
    seconds: float

    @property
    def refused(self) -> tuple[Refused, ...]:
        """Precisions that were asked for and are not there, since they did not pass."""
        return self.manifest.refused


def export(name: str, options: ExportOptions, say: Callable[[str], None] = lambda _: None) -> Exported:
    """Export the checkpoint `name`, a directory or a hub id, into a model directory.

    Precisions that do not pass are left out; the result and its manifest name them.

    Args:
        name: what to export.
        options: how.
        say: called with one line at each step.

    Raises:
        ModelNotFoundError: nothing under that name.
        InvalidInputError: options that are not possible, for any checkpoint or for this one.
        CheckpointError, UnsupportedCheckpointError: see their texts.
        OutputExistsError: the output is there and `force` is not given.
        ParityError: vectors differ from the reference, in every precision; nothing is written.
    """
    start = time.monotonic()
    if not MIN_OPSET <= options.opset <= MAX_OPSET:
        raise InvalidInputError(f"opset {options.opset} is not built; choose {MIN_OPSET} to {MAX_OPSET}")
    precisions = options.precisions or (variants.default_precision(options.targets),)
    variants.check(options.targets, precisions)
    hub_layout.check_options(options.layout, options.targets, precisions)
    if options.calibration is not None:
        if not {"int8", "fp8"} & set(precisions):
            raise InvalidInputError(
                "calibration texts are for precision int8 and fp8, which are not asked for; add one or drop them"
            )
        quantize.calibration_texts(options.calibration)  # here, before minutes of other work
    adapters = [part for named in chosen(options.adapter).values() for part in Path(named).parts]
    output = options.output or Path("-".join([_base_name(name), *adapters, "onnx"]))
    check_free(output, force=options.force)
    say(f"reading {name}")
    found = _find(name, options.revision, options, options.adapter)
    check_apart(found.path, output)
    if len(chosen(options.adapter)) > 1:
        tasks.check_roles(found.path, found.name, options.task)
    with whole(found, options.base, _finder(options), say, options.adapter) as located:
        checkpoint = tasks.load(
            located.path, located.name, located.revision, task=options.task, exporter=options.exporter
        )
        _check_merged(checkpoint, located)
        checkpoint = trusted(tasks.override(checkpoint, options.overrides), options.trust_remote_code)
        if options.tokens:
            tasks.token_states(checkpoint)  # here, before minutes of other work
        described = _write(checkpoint, output, options, precisions, Refusals(say))
    return Exported(directory=output, manifest=described, seconds=time.monotonic() - start)


def _check_merged(checkpoint: Checkpoint, located: Located) -> None:
    """Raise CheckpointError where adapters were put beside weights that were not read: the base alone would go out."""
    if any(one.adapter is not None for one in (checkpoint, *checkpoint.routes.values())):
        return
    if folders := placed(located.path):
        place = folders[0].parent.relative_to(located.path).as_posix()
        raise CheckpointError(f"{located.name}: the adapter is for a transformer in {place!r}, which is not read")


def _finder(options: ExportOptions) -> Callable[[str, str | None], Located]:
    """How a base is found: as what is exported is."""
    return lambda name, revision: _find(name, revision, options)


def _find(name: str, revision: str | None, options: ExportOptions, adapter: str | None = None) -> Located:
    return resolve_checkpoint(
        name,
        adapter=tuple(chosen(adapter).values()),
        revision=revision,
        token=options.token,
        cache_dir=options.cache_dir,
        local_files_only=options.local_files_only,
        code=options.trust_remote_code and options.verify,
    )


def _write(
    checkpoint: Checkpoint, output: Path, options: ExportOptions, precisions: tuple[str, ...], refusals: Refusals
) -> Manifest:
    """Make the directory, verified; its manifest."""
    # Graphs under the names that tools look for each stand alone.
    sharing = bool(checkpoint.routes) and options.layout == hub_layout.PLAIN
    common = defaultdict[Key, Common](Common) if sharing else None
    with atomic_directory(output, force=options.force) as work:
        described = _make(checkpoint, Place(work, work, common=common), options, precisions, refusals)
        for role, route in checkpoint.routes.items():
            if route.stored is checkpoint.stored:  # the same encoder, which cuts texts elsewhere
                alike = replace(described, max_length=route.max_length, routes={})
                described = replace(described, routes={**described.routes, role: alike})
                continue
            refusals.say(f"the encoder of {role} texts, route {route.route!r}")
            (work / role).mkdir()
            refusals.encoder = role
            beside = common is not None and _share_weights(checkpoint, route)
            place = Place(work / role, work, f"{role}.", common) if beside else Place(work / role, work / role)
            made = prefixed(_make(route, place, options, precisions, refusals), role, graphs=not beside)
            if made.dim != described.dim:
                raise UnsupportedCheckpointError(
                    f"route {route.route!r} gives vectors of {made.dim} numbers, route {checkpoint.route!r} of "
                    f"{described.dim}: they cannot be compared"
                )
            described = replace(described, routes={**described.routes, role: made})
        described = stored_once(left(work, described, refusals), work)
        described.write(work)
        described = _verified(work, described, checkpoint, options, refusals)
        described.write(work)
        (work / CARD_FILE).write_text(card(described), encoding="utf-8")
    return described


def trusted(checkpoint: Checkpoint, trust: bool) -> Checkpoint:
    """The checkpoint, all its encoders, with or without leave to run code of its own.

    Raises:
        UnsupportedCheckpointError: no leave, and code that may compute something else than what is built.
    """
    for encoder in () if trust else (checkpoint, *checkpoint.routes.values()):
        if (unlike := encoder.unlike_own_model) is not None:
            raise UnsupportedCheckpointError(
                f"{encoder.path}: config.json names code of the checkpoint's own for the model ({encoder.own_model}), "
                f"{unlike}; or --trust-remote-code, to compare transformers' {encoder.model_type} with that code"
            )
    routes = {role: replace(route, trusted=trust) for role, route in checkpoint.routes.items()}
    return replace(checkpoint, trusted=trust, routes=routes)


@dataclass(frozen=True)
class Place:
    """Where an encoder's files go."""

    work: Path  # tokenizer and settings
    graphs: Path
    prefix: str = ""  # of the graphs' names
    common: Mapping[Key, Common] | None = None  # what they share with other encoders' graphs


def _make(
    checkpoint: Checkpoint,
    place: Place,
    options: ExportOptions,
    precisions: tuple[str, ...],
    refusals: Refusals,
) -> Manifest:
    """Write tokenizer and graphs of one encoder; its manifest, not yet compared."""
    work = place.work
    table = tasks.is_table(checkpoint)  # one graph serves all
    hub = options.layout == hub_layout.HUB
    if hub:
        hub_layout.check(checkpoint)
    tokenizer_json.refuse_code(checkpoint)
    tokenizer = tokenizer_json.load(checkpoint)
    if tokenizer.copied:
        checkpoint = copied_rows.add(checkpoint, tokenizer.copied)
    token_types.refuse_others(checkpoint, tokenizer.text)
    padding_side.refuse_shifted(checkpoint)
    (work / contract.TOKENIZER_FILE).write_text(tokenizer.text, encoding="utf-8", newline="")
    made = variants.make(
        lambda target, opset: tasks.build(checkpoint, target, opset),
        place.graphs,
        variants.Wanted(
            targets=("cpu",) if table else options.targets,
            precisions=("fp32",) if table else precisions,
            opset=options.opset,
            external_data=options.external_data,
            cpu=not (checkpoint.architecture.traced or table),
            name=checkpoint.model_type,
            metadata=_metadata(checkpoint),
            max_length=checkpoint.max_length,
            calibration=options.calibration,
            min_cosine=options.min_cosine,
            task=tasks.quantizing(checkpoint),
            reach=Reach.of(checkpoint, checkpoint.max_length),
            tokens=tasks.token_states(checkpoint) if options.tokens else None,
            show_progress=options.show_progress,
            tokenizer=work / contract.TOKENIZER_FILE,
            prefix=place.prefix,
            common=place.common,
            **({"finish": hub_layout.with_states} if hub else {}),
        ),
        refusals,
    )
    beside = tool_files.write(checkpoint, work, tokenizer, weights=hub)
    if hub and (work / variants.MODEL_FILE).exists():  # else it was refused
        beside += hub_layout.link(work)
    return replace(_describe(checkpoint, work, tokenizer, made), tool_files=beside)


def check_again(directory: Path, name: str, options: ExportOptions, say: Callable[[str], None]) -> Manifest:
    """Verify a model directory against the checkpoint `name`; its manifest with the new report.

    Raises:
        ParityError, MissingDependencyError: see verify.verify.
    """
    described = contract.read(directory)
    revision = options.revision or (described.source.revision if name == described.source.checkpoint else None)
    adapter = options.adapter or _adapters_of(described)
    found = _find(name, revision, options, adapter)
    with whole(found, options.base, _finder(options), say, adapter) as located:
        checkpoint = tasks.load(located.path, located.name, located.revision, task=described.task)
        _check_merged(checkpoint, located)
        said: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in described.overrides.items()}
        checkpoint = trusted(tasks.override(checkpoint, Overrides(**said)), options.trust_remote_code)
        if _fingerprint(checkpoint) != described.source.sha256:
            say(f"note: the weights of {name} are not those that {directory} was exported from")
        report = tasks.verify(
            directory, checkpoint, say, min_cosine=options.min_cosine, show_progress=options.show_progress
        )
        return with_parity(described, report)


def _adapters_of(described: Manifest) -> str | None:
    """The adapters of several that were merged, as --adapter names them."""
    own = described.source.adapter
    routes = {role: route.source.adapter for role, route in described.routes.items()}
    folders = {role: one.folder for role, one in {PLAIN: own, **routes}.items() if one is not None and one.folder}
    if not folders or not routes:
        return folders.get(PLAIN)
    return ",".join(f"{role}={folder}" for role, folder in folders.items())


def _verified(
    work: Path, described: Manifest, checkpoint: Checkpoint, options: ExportOptions, refusals: Refusals
) -> Manifest:
    """The manifest with the parity report, without what did not pass.

    Raises:
        ParityError: nothing that was compared has passed.
    """
    missing = (verify.can_verify() or verify.own_code(checkpoint)) if options.verify else "not asked for"
    missing = missing or verify.nothing_runs(described)
    if missing is not None:
        refusals.say(f"parity: {contract.NOT_VERIFIED} ({missing})")
        return with_parity(described, {"status": contract.NOT_VERIFIED, "reason": missing})
    refusals.encoder = ""  # the report names files
    before = len(refusals.errors)
    report = tasks.verify(
        work,
        checkpoint,
        refusals.say,
        min_cosine=options.min_cosine,
        refuse=refusals.variant,
        show_progress=options.show_progress,
    )
    verified = with_parity(left(work, described, refusals), report)
    if len(refusals.errors) > before and not verified.parity["variants"]:
        raise refusals.nothing_left()  # what does not run here has not passed either
    return verified


def _describe(
    checkpoint: Checkpoint,
    work: Path,
    tokenizer: tokenizer_json.TokenizerFile,
    made: variants.Made,
) -> Manifest:
    notes = checkpoint.notes
    strange = [name for name in made.beside if not _known_beside(checkpoint, name)]
    if strange:
        notes = (*notes, f"tensors beside the encoder left out: {', '.join(strange[:8])}")
    if tokenizer.rows is not None:
        notes = (*notes, f"the tokenizer has ids beyond the {tokenizer.rows} rows of the word table: an error in texts")
    notes = (*notes, *tokenizer.notes, *checkpoint.remarks)
    if tokenizer.bare and checkpoint.task == contract.EMBEDDING and (theirs := checkpoint.of_nothing) is not None:
        notes = (
            *notes,
            "the tokenizer adds no special tokens, and a text without any token has the zero vector here; in "
            f"sentence-transformers it has {theirs}, which is not compared",
        )
    padding_changes = checkpoint.architecture.padding_changes()
    if padding_changes is not None:
        notes = (*notes, padding_changes)
    facts = dict(tasks.facts(checkpoint, work))
    if (late := facts.get("late_interaction")) is not None:
        facts["late_interaction"] = replace(late, reach=made.reach)
    of_card: list[str] = []
    named, languages = provenance.license_and_languages(checkpoint.root, of_card)
    notes = (*notes, *of_card)
    return Manifest(
        source=Source(
            checkpoint=checkpoint.name,
            revision=checkpoint.revision,
            model_type=checkpoint.model_type,
            sha256=_fingerprint(checkpoint),
            license=named,
            languages=languages,
            adapter=_adapter(checkpoint),
        ),
        **facts,
        route=checkpoint.route,
        dim=made.dim,
        pooling=checkpoint.pooling,
        normalize=checkpoint.normalize,
        max_length=checkpoint.max_length,
        truncation_side=tokenizer.truncation_side,
        max_positions=checkpoint.architecture.positions(checkpoint.config),
        include_prompt=checkpoint.include_prompt,
        prompts=checkpoint.prompts,
        default_prompt_name=checkpoint.default_prompt_name,
        similarity=checkpoint.similarity,
        pad_token_id=tokenizer.pad_token_id,
        vocabulary=tokenizer.rows,
        padding=padding_changes is None,
        modules=checkpoint.modules,
        tokenizer=record_file(work, contract.TOKENIZER_FILE),
        variants=made.variants,
        default_variant=made.variants[0].graph.file,
        overrides=checkpoint.overrides,
        notes=notes,
        created_by=f"fastembed-rt {__version__}",
    )


def _known_beside(checkpoint: Checkpoint, name: str) -> bool:
    known = checkpoint.architecture.heads
    return name.startswith(known) or name.removeprefix(checkpoint.architecture.prefix).startswith(known)


def _base_name(name: str) -> str:
    """Last part of a hub id or of a directory, `.` and `..` included; a link has its own name."""
    return Path(os.path.abspath(name) if Path(name).is_dir() else name).name  # noqa: PTH100  resolve follows links


def _fingerprint(checkpoint: Checkpoint) -> str:
    """SHA-256 over the weight files, the modules' included."""
    files = {*checkpoint.weight_files, *(file for route in checkpoint.routes.values() for file in route.weight_files)}
    return _hashed(files)


def _share_weights(one: Checkpoint, other: Checkpoint) -> bool:
    """Whether some file of weights is in both, such as that of a transformer behind different heads."""
    mine, theirs = ({_hashed([file]) for file in encoder.weight_files} for encoder in (one, other))
    return not mine.isdisjoint(theirs)


def _adapter(checkpoint: Checkpoint) -> AdapterSource | None:
    """What the manifest tells of a merged adapter."""
    merged = checkpoint.adapter
    if merged is None:
        return None
    return AdapterSource(
        method="lora",
        sha256=_hashed(merged.files),
        settings_sha256=_hashed([merged.settings]),
        base=merged.base,
        base_revision=merged.base_revision,
        base_sha256=_hashed(merged.base_files),
        folder=merged.chosen,
    )


def _hashed(files: Iterable[Path]) -> str:
    """SHA-256 over files' contents, in name order."""
    digest = hashlib.sha256()
    for file in sorted(files):
        with file.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _metadata(checkpoint: Checkpoint) -> dict[str, str]:
    """What each graph says of itself; not the checkpoint's name: from any folder it gives the same files."""
    return {
        "pooling": "+".join(checkpoint.pooling),
        "normalize": str(checkpoint.normalize).lower(),
        "max_length": str(checkpoint.max_length),
    }
