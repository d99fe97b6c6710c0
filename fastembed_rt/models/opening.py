"""A model directory found, read and chosen from: the keywords that all tasks share, and what they open."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field, fields, replace
from pathlib import Path
from typing import Any, TypedDict, TypeVar

from .. import manifest
from ..errors import FastembedRtError, InvalidInputError
from ..files import ModelFiles
from ..hub import resolve
from ..manifest import CLASSES, ROLES, FileRecord, Manifest, TokenGraph, Variant
from ..records import record
from ..run.providers import Choice, choose
from ..run.session import choose_variant
from ..vectors.fingerprint import of_model
from .answers import COMPAT, FASTEMBED, LOADING, answer
from .options import check_device_ids, flag, positive, seconds

F = TypeVar("F", bound=Callable[..., None])
MOST_THREADS = 4096  # beyond any machine: a typing error, not a wish


class LoadOptions(TypedDict, total=False):
    """Where a model comes from and how it runs; `ARGUMENTS` explains each, `Source` has the defaults."""

    provider: str
    precision: str | None
    target: str | None
    threads: int | None
    device_ids: Sequence[int] | None
    max_batch_tokens: int | None
    max_wait: float
    check_hashes: bool
    revision: str | None
    token: str | bool | None
    cache_dir: str | os.PathLike[str] | None
    local_files_only: bool


@record(frozen=True, kw_only=True)
class Source:
    """Those options as a caller gave them, with defaults for the others."""

    path_or_name: str | os.PathLike[str]
    provider: str = "cpu"
    precision: str | None = None
    target: str | None = None
    threads: int | None = None
    device_ids: Sequence[int] | None = None
    max_batch_tokens: int | None = None
    max_wait: float = 0.0
    check_hashes: bool = True
    revision: str | None = None
    token: str | bool | None = field(default=None, repr=False)
    cache_dir: str | os.PathLike[str] | None = None
    local_files_only: bool = False
    route: str | None = None  # "query" or "document": the encoder of those texts, where they have one of their own

    def __post_init__(self) -> None:
        """All that is known to be wrong without a model: an export before it may take minutes."""
        flag("check_hashes", self.check_hashes)
        flag("local_files_only", self.local_files_only)
        positive("threads", self.threads, 1, MOST_THREADS)
        positive("max_batch_tokens", self.max_batch_tokens, 1)
        seconds("max_wait", self.max_wait)
        check_device_ids(self.device_ids)


def check_loading(path_or_name: str | os.PathLike[str], options: Mapping[str, Any]) -> None:
    """Raise for options of a constructor that no model can have, as `Source` does; it looks for nothing."""
    Source(path_or_name=path_or_name, **{key: options[key] for key in LoadOptions.__annotations__ if key in options})


# In the docstring of every constructor, in place of the line that begins with `**options`.
ARGUMENTS = """\
            provider: cpu, cuda, tensorrt, openvino, coreml or directml. It runs, or an error says why not: there is no
                fallback. "auto" takes cuda where it runs, else cpu, and says so in `provider_choice`.
            precision: fp32, fp16, bf16, fp8 or int8; None takes the directory's default variant.
            target: which of the precision's graphs; None takes the one that is fastest under the provider.
            threads: None takes what the process may use: affinity and container quota, not the host's cores.
            device_ids: numbers of the GPUs that work, one process each; None takes the first. With provider="cpu", as
                many processes as there are numbers.
            max_batch_tokens: bound on the tokens of a batch, padding included, and so on memory; None takes what suits
                provider and model: mostly 512 on CPUs, 16,384 on GPUs.
            max_wait: seconds that a small call waits for calls of other threads to run with it. At 0 nothing waits, and
                what arrives while another call runs is still gathered into one batch.
            check_hashes: compare the files with the manifest's SHA-256 before the first result.
            revision: branch, tag or commit on the hub.
            token: hub token; None takes the one that is logged in.
            cache_dir: where hub files are kept; None takes huggingface_hub's own.
            local_files_only: do not ask the hub, take what is in the cache.

        Raises:
            ModelNotFoundError: neither a directory nor a hub repository.
            ModelFormatError, IntegrityError: a directory that cannot be read, or was altered.
            ProviderUnavailableError: the provider does not run here.
            MissingDependencyError: no onnxruntime.
            InvalidInputError: a model of another task; an option that the model cannot have.
"""


def documented(init: F) -> F:
    """A constructor that takes LoadOptions as `**options`: `help()` shows each of them, a misspelt one is named."""
    own = inspect.signature(init)
    shared = [entry for entry in fields(Source) if entry.name in LoadOptions.__annotations__]
    parameters = [entry for entry in own.parameters.values() if entry.kind is not entry.VAR_KEYWORD]
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters += [inspect.Parameter(f.name, keyword, default=f.default, annotation=f.type) for f in shared]
    known = {entry.name for entry in parameters}

    @functools.wraps(init)
    def checked(self: Any, *arguments: Any, **options: Any) -> None:
        check_options(type(self), options, known)
        init(self, *arguments, **options)
        self._complete()

    vars(checked)["__signature__"] = own.replace(parameters=parameters)
    lines = (init.__doc__ or "").splitlines(keepends=True)
    checked.__doc__ = "".join(ARGUMENTS if line.lstrip().startswith("**options") else line for line in lines)
    return checked  # type: ignore[return-value]


def check_options(kind: type, options: Iterable[str], known: Iterable[str]) -> None:
    """Raise TypeError for keywords that the class of a model does not have, with what to write instead."""
    wrong = sorted(set(options) - set(known))
    if wrong:
        said = "; ".join(f"{name}: {answer(name, set(known) - {'self'}, LOADING)}" for name in wrong)
        raise TypeError(
            f"{kind.__name__} has no option {', '.join(map(repr, wrong))}; {said}. "
            f"To keep calls as they are: {COMPAT} or {FASTEMBED}"
        )


@record(frozen=True)
class Opened:
    """A model directory that has been read: its manifest, and its files as they were then."""

    path: Path  # absolute, links followed
    whole: Manifest  # of all routes
    files: ModelFiles


def opened(source: Source, task: str) -> Opened:
    """The directory, fetched from the hub if it is there, and every file that may be needed, held open.

    Raises:
        ModelNotFoundError, ModelFormatError, IntegrityError: no directory, or one that cannot be read.
        InvalidInputError: a model of another task; a variant that it does not have.
    """

    def records(described: Manifest) -> list[FileRecord]:
        check_task(described, task, str(source.path_or_name))  # before anything large is fetched
        found = of_route(described, source.route)
        wanted = [found] if source.route is not None else [found, *found.routes.values()]
        chosen = [chosen_variant(encoder, source) for encoder in wanted]
        graphs: list[Variant | TokenGraph] = [*chosen]
        graphs += [variant.tokens for variant in chosen if variant.tokens is not None]
        return [*(encoder.tokenizer for encoder in wanted), *(file for graph in graphs for file in graph.files)]

    def names(described: Manifest) -> Iterable[str]:
        return [record.file for record in records(described)]

    path = resolve.resolve_model(
        source.path_or_name,
        files=names,
        revision=source.revision,
        token=source.token,
        cache_dir=source.cache_dir,
        local_files_only=source.local_files_only,
    ).resolve()  # once: where the process goes, and where links lead later, is nothing to this model
    whole = manifest.read(path)
    return Opened(path, whole, ModelFiles(path, records(whole)))


def identity(whole: Manifest, source: Source) -> str:
    """A short name of what runs, which begins as the fingerprint of its vectors does."""
    first = of_route(whole, source.route)
    encoders = {"": first} if source.route is not None else {"": first, **first.routes}
    return of_model({role: (encoder, chosen_variant(encoder, source)) for role, encoder in encoders.items()})


def chosen_variant(described: Manifest, source: Source) -> Variant:
    """What runs of an encoder's variants."""
    if _is_table(described):
        return described.default
    provider, devices = chosen_provider(described, source).provider, check_device_ids(source.device_ids)
    return choose_variant(
        described, provider=provider, precision=source.precision, target=source.target, devices=devices
    )


def chosen_provider(described: Manifest, source: Source) -> Choice:
    """What it runs under."""
    if _is_table(described):  # a lookup is done before a GPU would have been asked
        return choose_provider(described, "cpu")
    devices = check_device_ids(source.device_ids)
    return choose_provider(described, source.provider, source.precision, source.target, devices)


def _is_table(described: Manifest) -> bool:
    return described.sparse is not None and described.sparse.table


def of_route(described: Manifest, role: str | None) -> Manifest:
    """What is said of the encoder for texts in this role, which is the only one of many models."""
    if role is None:
        return described
    if role not in ROLES:
        raise InvalidInputError(f"route {role!r} is not known; known: {', '.join(ROLES)}")
    if not described.routes:
        raise InvalidInputError(
            f"route {role!r} is for models with an encoder for each role, and this one has one for all texts; "
            "leave it out"
        )
    # On its own, also where it is the default one: its prompts and vectors are those of its role alone.
    return described.routes.get(role, replace(described, routes={}))


def choose_provider(
    described: Manifest,
    provider: str,
    precision: str | None = None,
    target: str | None = None,
    devices: Sequence[int] = (0,),
) -> Choice:
    """The provider asked for, or what "auto" takes for this model."""

    def unsuited(name: str) -> str | None:
        try:
            choose_variant(described, provider=name, precision=precision, target=target, devices=devices)
        except FastembedRtError as error:
            return str(error).partition(";")[0]
        return None

    return choose(provider, unsuited, devices)


def check_task(described: Manifest, wanted: str, where: str | Path) -> None:
    """Raise InvalidInputError where a model directory is for another class than the one that opens it."""
    if described.task != wanted:
        raise InvalidInputError(
            f"{where} holds a model for {described.task}; open it with fastembed_rt.{CLASSES[described.task]}, "
            f"not {CLASSES[wanted]}"
        )
