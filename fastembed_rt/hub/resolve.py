"""Names to local paths: a directory is taken as it is, anything else is fetched from the Hugging Face hub.

Decides which files a runtime or an export needs; how they come here is hub_client's business.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath, PureWindowsPath

from .. import manifest
from ..errors import (
    CheckpointError,
    IntegrityError,
    InvalidInputError,
    InvalidTypeError,
    ModelFormatError,
    ModelNotFoundError,
)
from ..manifest import MANIFEST_FILE, Manifest
from ..records import record
from ..system.paths import as_text, expanded
from .client import Repository

# Files whose absence changes vectors without breaking anything: pooling, prompts, lengths. They are asked for
# by name, so that the cache also remembers that a repository has none, and an offline export can tell.
DECISIVE_FILES = (
    "modules.json",
    "config.json",
    "config_sentence_transformers.json",
    "sentence_bert_config.json",
)
COLBERT = "artifact.metadata"  # lengths, markers and masks of Stanford's ColBERT, which has no modules.json
# Configuration, vocabularies, sentencepiece models, chat templates; and vocabularies under other names.
TEXT_FILES = ("*.json", "*.txt", "*.model", "*.jinja", "*vocab*", "tokenizer.model*", "*.tiktoken", "*.codes")
CHAT_TEMPLATES = "additional_chat_templates"  # folder beside a tokenizer: a template by name in each file of it
CARD = "README.md"
CODE = ".py"
ADAPTER = "adapter_config.json"
ADAPTERS = "adapters"  # folder in which some checkpoints have theirs, each in one of its name
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")  # the first that is there is taken
ANCHORS = ("modules.json", "config.json", ADAPTER)  # a checkpoint has one of them at least
# The hub's cache: models--org--name/snapshots/commit.
CACHED = re.compile(r".*/models--(?P<name>[^/]+)/snapshots/(?P<commit>[0-9a-f]{40})")
# Names that training scripts give to any checkpoint.
GENERIC = re.compile(
    r"(best[-_]?|final[-_]?|last[-_]?|trained[-_]?)*(model|checkpoint|ckpt|output|out|export|epoch)?"
    r"([-_]?(best|final|last|\d+))?|0_Transformer",
    re.IGNORECASE,
)
INDEX = ".index.json"  # after a weight file's name: the list of its shards
WEIGHTS = ("model.safetensors", "pytorch_model.bin")  # the first that is there, whole or sharded, is taken


@record(frozen=True, kw_only=True)
class Located:
    """A checkpoint on this disk."""

    path: Path
    name: str  # hub id, or a local directory's base name: what a manifest may tell the world
    revision: str | None  # commit of the hub repository; None: a local directory
    adapters: tuple[str, ...] = ()  # folders of the hub repository with adapters, which were not fetched


def resolve_model(
    name: str | os.PathLike[str],
    *,
    files: Callable[[Manifest], Iterable[str]],
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """Directory of a model: a local one, or a snapshot with manifest.json and what `files(manifest)` names.

    All files of a snapshot come from one commit.

    Raises:
        ModelNotFoundError: no such directory, and no such repository or revision; no access; not cached and offline.
        ModelFormatError: the repository's manifest.json cannot be read.
        IntegrityError: the repository lacks a file that its manifest names.
        InvalidInputError: a revision of a local directory; token=True without a stored token.
    """
    local = local_directory(name, revision)
    if local is not None:
        return local
    repository = Repository(str(name), revision, token, cache_dir, local_files_only)
    with no_directory(str(name)):
        path = repository.fetch(MANIFEST_FILE)
    if path is None:
        raise ModelNotFoundError(
            f"hub repository '{name}' has no {MANIFEST_FILE}, so it is not a fastembed-rt model directory; "
            f"make one with: fastembed-rt export {name}"
        )
    snapshot = path.parent
    try:
        facts = manifest.parse(path.read_text(encoding="utf-8"), f"{name}/{MANIFEST_FILE}")
    except UnicodeDecodeError as error:
        raise ModelFormatError(
            f"{name}/{MANIFEST_FILE} is not a text file ({error}); export the model again"
        ) from error
    for file in dict.fromkeys(files(facts)):
        if repository.fetch(file, snapshot.name) is None:
            raise IntegrityError(
                f"hub repository '{name}' at {snapshot.name[:12]} lacks {file}, which its manifest names; "
                "upload the whole model directory again"
            )
    return snapshot


def resolve_checkpoint(
    name: str | os.PathLike[str],
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    adapter: str | Sequence[str] = (),
    code: bool = False,
) -> Located:
    """A checkpoint to export: a local directory, or a snapshot with what an export reads and nothing else.

    Configuration, tokenizer, the modules that modules.json names, one set of weights (safetensors if any); what lies in
    the folder or folders `adapter`, which may be in ADAPTERS; and with `code` the Python files that config.json names,
    also those of other repositories.

    Raises:
        ModelNotFoundError: no such directory, repository or revision; no access; not cached and offline.
        CheckpointError: the repository holds no encoder, no weights, or not all shards of them.
        InvalidInputError: a revision of a local directory; token=True without a stored token.
    """
    adapters = [adapter] if isinstance(adapter, str) else [*adapter]
    for folder in adapters:
        _check_folder(folder)
    local = local_directory(name, revision)
    if local is not None:
        whole = (*WEIGHTS, *(file + INDEX for file in WEIGHTS), ADAPTER)
        if (local / MANIFEST_FILE).is_file() and not any((local / file).is_file() for file in whole):
            raise CheckpointError(f"{local} is a model directory already; export takes the checkpoint that it is from")
        return located(local)
    repository = Repository(str(name), revision, token, cache_dir, local_files_only)
    with no_directory(str(name)):
        snapshot = _snapshot(repository, adapters)
    if snapshot is None:
        raise CheckpointError(
            f"hub repository '{name}' has neither modules.json nor config.json, so it holds no encoder "
            "to export; check the name"
        )
    _fetch_decisive(repository, snapshot)
    names = repository.listing(snapshot)
    if CARD in names:  # license and languages, which the export's card repeats
        repository.fetch(CARD, snapshot.name)
    directories: list[str] = []
    folders = {_parent(file) for file in names if file.endswith(f"/{ADAPTER}")}
    ways = [(str(PurePosixPath(folder)), str(PurePosixPath(ADAPTERS, folder))) for folder in adapters]
    chosen = [deeper if deeper in folders and plain not in folders else plain for plain, deeper in ways]
    found = list(dict.fromkeys(["", *_module_directories(snapshot, str(name)), *chosen]))
    while found:
        for file in names:
            if any(is_text(file, directory) for directory in found):
                repository.fetch(file, snapshot.name)
        directories += found
        deeper = [place for directory in found for place in _route_directories(snapshot, directory)]
        found = [place for place in dict.fromkeys(deeper) if place not in directories]
    if code:
        _fetch_code(repository, names, snapshot, directories)
    # Weights come last, the encoder's own at the very end: an interrupted snapshot shows it by lacking them.
    weights = [
        file
        for directory in reversed(directories)
        for file in (
            *_adapter_weights(names, directory),
            *_weight_files(repository, names, snapshot, directory),
        )
    ]
    if not weights:
        raise CheckpointError(
            f"'{name}' at {snapshot.name[:12]} has no {' and no '.join(WEIGHTS)} "
            f"among its files ({', '.join(sorted(names))}); "
            "merge an adapter or convert to safetensors first, or download again if the cache is incomplete"
        )
    missing = sorted(set(weights).difference(names))
    if missing:
        raise CheckpointError(
            f"'{name}' at {snapshot.name[:12]} lacks {', '.join(missing)}, named by its weight index; "
            "take a revision that is complete, or download again if the cache is incomplete"
        )
    for file in weights:
        repository.fetch(file, snapshot.name)
    beside = [_parent(file) for file in names if file.endswith(f"/{ADAPTER}") and _parent(file) not in directories]
    return Located(path=snapshot, name=str(name), revision=snapshot.name, adapters=tuple(sorted(beside)))


def is_text(file: str, directory: str) -> bool:
    """Whether a file is of a module in that directory ("": the root), and neither its weights nor code.

    `file` is its path from the root on.
    """
    parent, _, name = file.rpartition("/")
    if parent == (f"{directory}/{CHAT_TEMPLATES}" if directory else CHAT_TEMPLATES):
        return name.endswith(".jinja")
    return parent == directory and not name.endswith(INDEX) and any(fnmatchcase(name, kind) for kind in TEXT_FILES)


def local_directory(name: str | os.PathLike[str], revision: str | None) -> Path | None:
    """The directory of that name; None when the name can only be a hub repository."""
    if not isinstance(name, (str, os.PathLike)):
        raise InvalidTypeError(
            f"the model is {type(name).__name__}, expected a str or a path: a directory, or a hub repository (org/name)"
        )
    text = os.fspath(name)
    if not text.strip():
        raise ModelNotFoundError("the model name is empty; give a directory or a hub repository (org/name)")
    try:
        path = expanded(text)
        is_directory, is_file = path.is_dir(), path.is_file()
    except OSError:  # a name too long for the file system
        path, is_directory, is_file = Path(text), False, False
    if is_directory and revision is not None:
        raise InvalidInputError(
            f"revision '{revision}' was given, but {path} is a directory here; leave the revision out, "
            "or run from a place without that directory to get the hub repository"
        )
    if is_directory:
        return path
    if is_file:
        raise ModelNotFoundError(f"{path} is a file; give the directory that holds it")
    windows = PureWindowsPath(text)
    looks_like_path = (
        not isinstance(name, str)
        or text.startswith((".", "/", "~"))
        or text.endswith("/")
        or text.count("/") > 1
        or "\\" in text
        or bool(windows.drive)
    )
    if looks_like_path:
        raise ModelNotFoundError(
            f"directory {text} does not exist (from {Path.cwd()}){did_you_mean(path)}; check the path, or give a hub "
            "repository as org/name"
        )
    return None


@contextmanager
def no_directory(name: str) -> Iterator[None]:
    """Say beside the hub's answer that there is no directory of that name here: the name may be a mistyped path."""
    try:
        yield
    except ModelNotFoundError as error:
        here = f"there is no directory {name!r} here{did_you_mean(Path(name))}"
        raise ModelNotFoundError(f"{here}; as a hub repository: {error}") from error


def did_you_mean(path: Path) -> str:
    """ ", did you mean 'my-model'?" where directories of a similar name lie beside `path`, else ""."""
    known = path
    for parent in path.parents:  # a mistake in the middle of the path: mend the first part that is not there
        if parent.is_dir():
            break
        known = parent
    try:
        names = [entry.name for entry in os.scandir(known.parent) if entry.is_dir()]
    except OSError:
        return ""
    import difflib  # only for mistakes

    near = difflib.get_close_matches(known.name, names, n=3, cutoff=0.7)
    beside = [known.parent / name / path.relative_to(known) for name in near]
    meant = [repr(str(other)) for other in beside if other.is_dir()]
    return f" (did you mean {' or '.join(meant)}?)" if meant else ""


def located(directory: Path) -> Located:
    """A local checkpoint under a name that says which it is.

    A snapshot of the hub's cache has its repository's name. `model` or `checkpoint-500` are told apart by the
    directory that they lie in, unless that is somebody's home.
    """
    place = directory.resolve()
    if match := CACHED.fullmatch(place.as_posix()):
        return Located(path=directory, name=match["name"].replace("--", "/"), revision=match["commit"])
    name = place.name or "checkpoint"
    of_a_user = place.parent == expanded("~") or place.parent.parent.name in ("home", "Users")
    if GENERIC.fullmatch(name) and len(place.parts) > 3 and not of_a_user:
        name = f"{place.parent.name}/{name}"
    return Located(path=directory, name=as_text(name), revision=None)


def _check_folder(adapter: str) -> None:
    try:
        manifest.check_file_name(adapter)
    except ModelFormatError:
        raise InvalidInputError(f"adapter {adapter!r} is no folder of the checkpoint") from None


def _snapshot(repository: Repository, adapters: Sequence[str]) -> Path | None:
    """Where a repository's files go, known by one that checkpoints have; None where it has none."""
    for file in ANCHORS:
        if (found := repository.fetch(file)) is not None:
            return found.parent
    for adapter in adapters:
        if (inner := repository.fetch(f"{adapter}/{ADAPTER}")) is not None:
            return inner.parents[len(PurePosixPath(adapter).parts)]
    return None


def _module_directories(snapshot: Path, name: str) -> list[str]:
    """Sub-directories of the modules that modules.json names, in their order."""
    path = snapshot / "modules.json"
    if not path.is_file():
        return []
    try:
        return [str(PurePosixPath(module["path"])) for module in json.loads(path.read_bytes()) if module["path"]]
    except (ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"modules.json of '{name}' is not the list of modules that sentence-transformers writes "
            f"({type(error).__name__}: {error}); repair it or export a local copy"
        ) from error


def _route_directories(snapshot: Path, directory: str) -> list[str]:
    """Sub-directories of the modules of a Router (formerly Asym) in a directory; what is wrong the export says."""
    for name in ("router_config.json", "config.json"):
        try:
            structure = json.loads((snapshot / directory / name).read_bytes())["structure"]
            modules = [module for route in structure.values() for module in route]
            return [
                str(PurePosixPath(directory, module)) for module in modules if ".." not in PurePosixPath(module).parts
            ]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            continue
    return []


def _fetch_decisive(repository: Repository, snapshot: Path) -> None:
    chained = repository.fetch(DECISIVE_FILES[0], snapshot.name) is not None
    for file in DECISIVE_FILES[1:] if chained else (*DECISIVE_FILES[1:], COLBERT):
        repository.fetch(file, snapshot.name)


def _fetch_code(repository: Repository, names: list[str], snapshot: Path, directories: list[str]) -> None:
    """Code of the checkpoint's own: beside config.json, or in other repositories that an auto_map names.

    Those go where transformers looks for them, which is told of no other cache.
    """
    for file in names:
        if file.endswith(CODE) and _parent(file) in directories:
            repository.fetch(file, snapshot.name)
    for name, module in dict.fromkeys(found for directory in directories for found in _elsewhere(snapshot / directory)):
        other = Repository(name, None, repository.token, None, repository.local_files_only)
        first = other.fetch(module)
        if first is None:
            raise CheckpointError(
                f"an auto_map of '{repository.name}' names code in {module} of '{name}', which has no such file"
            )
        for file in other.listing(first.parent):
            if file.endswith(CODE) and not _parent(file):
                other.fetch(file, first.parent.name)


def _elsewhere(directory: Path) -> Iterator[tuple[str, str]]:
    """Repositories with code for a transformer, and the file of each that is named: "org/name--module.Class"."""
    for file in ("config.json", "tokenizer_config.json"):
        try:
            said = json.loads((directory / file).read_bytes())["auto_map"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        for entry in said.values() if isinstance(said, dict) else [said]:
            for found in entry if isinstance(entry, list) else [entry]:
                name, mark, place = str(found).partition("--")
                if mark:
                    yield name, f"{place.partition('.')[0]}{CODE}"


def _adapter_weights(names: list[str], directory: str) -> list[str]:
    """The weights of an adapter in one directory."""
    front = f"{directory}/" if directory else ""
    if front + ADAPTER not in names:
        return []
    return [file for file in (front + name for name in ADAPTER_WEIGHTS) if file in names][:1]


def _weight_files(repository: Repository, names: list[str], snapshot: Path, directory: str) -> list[str]:
    """The weight files of one directory: safetensors if any, whole or the shards of its index."""
    for weights in (f"{directory}/{file}" if directory else file for file in WEIGHTS):
        if weights in names:
            return [weights]
        if weights + INDEX in names:
            index = repository.fetch(weights + INDEX, snapshot.name)
            try:
                shards = set(json.loads(index.read_bytes())["weight_map"].values()) if index else set()
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise CheckpointError(
                    f"{weights}{INDEX} of '{repository.name}' is not a weight index "
                    f"({type(error).__name__}: {error}); take a revision that is sound"
                ) from error
            return sorted(f"{directory}/{shard}" if directory else str(shard) for shard in shards)
    return []


def _parent(file: str) -> str:
    """Directory of a file of a repository; "" for the root."""
    return file.rpartition("/")[0]
