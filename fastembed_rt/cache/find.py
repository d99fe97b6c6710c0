"""From the name of a checkpoint to a model directory: the one in the cache, or one that is exported into it now."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from time import time

from ..errors import CheckpointError, InvalidInputError, ModelNotFoundError
from ..hub.adapters import chosen
from ..hub.client import Repository
from ..hub.resolve import ADAPTER, ANCHORS, Located, local_directory, located, no_directory, resolve_checkpoint
from ..manifest import MANIFEST_FILE, TASKS
from ..system import leftovers, locks
from ..system.paths import as_text
from ..system.progress import Steps, watched
from ..system.user_cache import VARIABLE
from . import entries, exporting
from .bases import Base, base_of, bases
from .contents import fingerprint, recalled, remember
from .wanted import Hub, Wanted

COMMIT = re.compile(r"[0-9a-f]{40}")
# What a system says of a directory that is not to be written to, or has no room.
UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True)
class _Checkpoint:
    """A checkpoint before it is fetched or read."""

    name: str  # what a manifest calls it
    identity: str  # of its contents: a commit, or a hash
    path: str | None
    fetch: Callable[[Sequence[str]], Located]  # with these adapters of several
    changed: Callable[[], bool] = lambda: False  # since
    opened: Callable[[], None] = lambda: None  # to be called when there is an export of it


def model_directory(
    name: str | os.PathLike[str],
    choose: Callable[[], Wanted],
    hub: Hub,
    *,
    task: str | None = None,
    export: bool = True,
    ready: Callable[[], None] = lambda: None,
    show_progress: bool | None = None,
) -> Path | None:
    """The model directory of a checkpoint, exported if that was not done yet; None for a name that is of none.

    That is a model directory, or a hub repository that holds one: open it by its name.

    Args:
        name: a directory or a hub repository.
        choose: says what shall come of the checkpoint; not asked for a directory that is a model's.
        hub: how the hub is asked.
        task: of the class that opens it; None takes what the checkpoint is for.
        export: False: who only looks gets what is there, whatever its options; nothing is an error.
        ready: called before an export; raises where what comes of it would not run here.
        show_progress: lines on stderr while it is exported; None: where that is a terminal.

    Raises:
        ModelNotFoundError: nothing under that name; with `export` False, no export of it.
        MissingDependencyError: it has to be exported, and the extra is not installed.
        InvalidInputError: a checkpoint for another task, options that are not possible, a cache that cannot be written.
        CheckpointError, UnsupportedCheckpointError, ParityError: see fastembed_rt_export.pipeline.export.
        FastembedRtError: of `ready`.
    """
    checkpoint = _checkpoint(name, choose, hub, task)
    if checkpoint is None:
        return None
    wanted = choose()
    found = _exported(checkpoint.name, checkpoint.identity, wanted, task)
    if found is None and not export:
        found = _any(checkpoint, task)
    if found is None and not export:
        raise ModelNotFoundError(
            f"{os.fspath(name)} is a checkpoint, and no export of it is in the cache {entries.folder()}; "
            f"make a model directory with: fastembed-rt export {os.fspath(name)}"
        )
    if found is None:
        ready()
        exporting.require(name)
        stem = _stem(checkpoint.name, checkpoint.identity, wanted)
        found = _made(checkpoint, stem, wanted, hub, task, watched() if show_progress is None else show_progress)
    if export:
        entries.touch(found)
        checkpoint.opened()
    return found / entries.MODEL


def _checkpoint(
    name: str | os.PathLike[str],
    choose: Callable[[], Wanted],
    hub: Hub,
    task: str | None,
    above: frozenset[Base] = frozenset(),
) -> _Checkpoint | None:
    """A checkpoint with the bases of its adapters; None for a model, and for one of those `above`, whose base it is.

    An adapter that was saved beside its base may name itself. What is no such one is for the export to refuse.
    """
    local = local_directory(name, hub.revision)
    here = Base(str(name), hub.revision) if local is None else Base(os.path.realpath(local), None)
    if here in above:
        return None
    if local is not None:
        found, named = _in_directory(local), bases(local)
    else:
        found, named = _on_hub(str(name), choose, hub, task)
    return found if found is None else _on_bases(found, named, choose, hub, above | {here})


def _on_bases(
    made: _Checkpoint, named: Sequence[Base], choose: Callable[[], Wanted], hub: Hub, above: frozenset[Base]
) -> _Checkpoint:
    """A checkpoint with the adapters' bases: it is another where one of them is."""
    parts = [made]
    for base in named:
        try:
            found = _checkpoint(base.name, choose, replace(hub, revision=base.revision), None, above)
        except ModelNotFoundError:  # which the export says better
            continue
        parts += [found] if found is not None else []
    if len(parts) == 1:
        return made

    def opened() -> None:
        for part in parts:
            part.opened()

    return replace(
        made,
        identity=hashlib.sha256(" ".join(part.identity for part in parts).encode()).hexdigest(),
        changed=lambda: any(part.changed() for part in parts),
        opened=opened,
    )


def _stem(name: str, identity: str, wanted: Wanted) -> str:
    return entries.stem(name, wanted, wanted.key(f"{name} {identity}", _version()))


def _version() -> str:
    """Of what exports: another one may make other graphs."""
    # The package itself stands above this room; importlib.metadata would cost half of what a hit costs.
    return str(vars(sys.modules[__name__.partition(".")[0]])["__version__"])


def _exported(name: str, identity: str, wanted: Wanted, task: str | None) -> Path | None:
    """The entry of a checkpoint; one that was compared will do for those who do not ask for that."""
    ways = [wanted] if wanted.verify else [replace(wanted, verify=True), wanted]
    found = (_there(_stem(name, identity, way), task) for way in ways)
    return next((place for place in found if place is not None), None)


def _any(checkpoint: _Checkpoint, task: str | None) -> Path | None:
    """The entry of a checkpoint that was used last, whatever its options: for those who only look."""
    alike = [
        entry
        for entry in entries.entries()
        if (entry.origin.checkpoint, entry.origin.identity) == (checkpoint.name, checkpoint.identity)
        and task in (None, entry.task)
    ]
    return max(alike, key=lambda entry: entry.used).directory if alike else None


def _there(stem: str, task: str | None) -> Path | None:
    """The whole entry of a stem."""
    places = [entries.folder() / f"{stem}.{name}" for name in (TASKS if task is None else (task,))]
    return next((place for place in places if entries.whole(place) is not None), None)


def _made(checkpoint: _Checkpoint, stem: str, wanted: Wanted, hub: Hub, task: str | None, show_progress: bool) -> Path:
    """The entry, which this process exports if no other has done so meanwhile."""
    say = Steps(show=show_progress)
    try:
        entries.folder().mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(error) from error
    waiting = f"waiting for another process, which exports {checkpoint.name}"
    with locks.locked(entries.lock_of(stem), waiting=lambda: say(waiting)) as state:
        found = _there(stem, task)
        if found is not None:
            return found
        if state == locks.HELD:
            entries.remove_unfinished(stem)
        say(f"exporting {checkpoint.name} in {wanted.precision}, once, into {entries.folder()}")
        with ExitStack() as stack:
            with _written():  # before anything is fetched: the checkpoint may be gigabytes
                work = stack.enter_context(
                    leftovers.unfinished(lambda: entries.unfinished_name(stem), lambda work: work.mkdir())
                )
            source = checkpoint.fetch([*chosen(wanted.adapter).values()])
            with _written():
                made = exporting.export(
                    source, work / entries.MODEL, wanted, task, say, show_progress=show_progress, hub=hub
                )
                if checkpoint.changed():
                    raise CheckpointError(
                        f"{source.path} was changed while it was exported; load it when it is complete"
                    )
                destination = entries.folder() / f"{stem}.{made.task}"
                entries.put(work, destination, _origin(checkpoint, source, wanted))
        say(f"kept in {destination}")
        return destination


@contextmanager
def _written() -> Iterator[None]:
    """Raise InvalidInputError, with what to do, where the cache turns out to be read-only, full or another user's."""
    try:
        yield
    except OSError as error:
        # Without a name it is a file that was being written. What is read lies elsewhere, and has one.
        given = (error.filename, error.filename2)
        names = [Path(os.path.realpath(os.fsdecode(name))) for name in given if isinstance(name, (str, bytes))]
        ours = not names or any(name.is_relative_to(os.path.realpath(entries.folder())) for name in names)
        if error.errno not in UNWRITABLE or not ours:
            raise
        raise _unwritable(error) from error


def _unwritable(error: OSError) -> InvalidInputError:
    return InvalidInputError(
        f"exports cannot be kept in {entries.folder()} ({error.strerror}); set {VARIABLE} to a directory that can be "
        "written, or export with fastembed-rt export, and give that directory"
    )


def _origin(checkpoint: _Checkpoint, source: Located, wanted: Wanted) -> entries.Origin:
    plain = {entry.name: entry.default for entry in fields(wanted)}
    beside = {key: value for key, value in asdict(wanted).items() if value != plain[key]}
    return entries.Origin(
        checkpoint=checkpoint.name,
        path=checkpoint.path,
        revision=source.revision,
        identity=checkpoint.identity,
        precision=beside.pop("precision"),
        target=wanted.target,
        options={key: value if isinstance(value, (bool, float)) else str(value) for key, value in beside.items()},
        created_by=f"fastembed-rt {_version()}",
        created=time(),
    )


def _in_directory(local: Path) -> _Checkpoint | None:
    """A checkpoint on this disk; None where the directory is a model's, or no checkpoint's either."""
    if (local / MANIFEST_FILE).is_file() or not any((local / file).is_file() for file in ANCHORS):
        return None
    source, memory = located(local), entries.folder() / entries.HASHES
    identity = fingerprint(local, memory)
    return _Checkpoint(
        name=source.name,
        identity=identity,
        path=as_text(os.path.realpath(local)),
        fetch=lambda adapters: resolve_checkpoint(local, adapter=adapters),
        changed=lambda: fingerprint(local, memory) != identity,
    )


def _on_hub(
    name: str, choose: Callable[[], Wanted], hub: Hub, task: str | None
) -> tuple[_Checkpoint | None, list[Base]]:
    """A checkpoint of the hub at the commit that its revision is now, and its bases; None for a model's repository.

    Where the hub cannot be asked, the commit that this cache or the hub's was last told.
    """
    repository = Repository(name, hub.revision, hub.token, hub.cache_dir, hub.local_files_only)
    exports = None  # where there is no home directory to keep them in, which a model's repository does not need
    with suppress(InvalidInputError):
        exports = entries.folder()
    note = None if exports is None else exports / entries.REFS / f"{_short(f'{name}@{hub.revision}')}.json"
    files: list[str] | None = None
    if hub.revision is not None and COMMIT.fullmatch(hub.revision):
        commit = hub.revision  # which never changes: nobody has to be asked
    else:
        with no_directory(name):
            head = repository.head()
        commit, files = head or (_last_known(repository, note) or str(_fetched(name, hub).revision), None)
    made = _Checkpoint(
        name=name,
        identity=commit,
        path=None,
        fetch=lambda adapters: _fetched(name, hub, commit, adapters, code=choose().trust_remote_code),
        opened=lambda: _note(note, commit) if files is not None and note is not None else None,
    )
    cached = Repository(name, commit, hub.token, hub.cache_dir, local_files_only=True)
    if files is not None:
        if MANIFEST_FILE in files:
            return None, []
        return made, _base_on_hub(repository, commit) if ADAPTER in files else []
    if known := _base_on_hub(cached, commit):
        return made, known
    if exports is not None and _exported(name, commit, choose(), task) is not None:  # without asking anybody
        return made, []
    with no_directory(name):
        if repository.has(MANIFEST_FILE, commit):
            return None, []
        return made, _base_on_hub(repository, commit)


def _base_on_hub(repository: Repository, commit: str) -> list[Base]:
    """The base of an adapter that is a repository of its own; none where there is no adapter, or nobody to ask."""
    if not repository.has(ADAPTER, commit):
        return []
    config = repository.fetch(ADAPTER, commit)
    found = None if config is None else base_of(config)
    return [] if found is None else [found]


def _fetched(
    name: str, hub: Hub, commit: str | None = None, adapters: Sequence[str] = (), *, code: bool = False
) -> Located:
    """The checkpoint on this disk, at that commit."""
    at = partial(
        resolve_checkpoint,
        name,
        adapter=adapters,
        token=hub.token,
        cache_dir=hub.cache_dir,
        local_files_only=hub.local_files_only,
        code=code,
    )
    # By its revision first, so that the hub's cache knows the name for the time without a connection.
    with suppress(*(() if commit is None else (ModelNotFoundError, CheckpointError))):
        found = at(revision=hub.revision)
        if commit in (None, found.revision):
            return found
    return at(revision=commit)


def _last_known(repository: Repository, note: Path | None) -> str | None:
    """The commit of the revision as this cache or the hub's was told last."""
    noted = None if note is None else _noted(note)
    told = [entry for entry in (noted, repository.cached_head()) if entry is not None]
    return max(told, key=lambda entry: entry[1])[0] if told else None


def _noted(note: Path) -> tuple[str, float] | None:
    commit = recalled(note).get("commit")
    try:
        return (commit, note.stat().st_mtime) if isinstance(commit, str) else None
    except OSError:
        return None


def _note(note: Path, commit: str) -> None:
    if recalled(note).get("commit") != commit:  # else its time is that of the change
        remember(note, {"commit": commit})


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
