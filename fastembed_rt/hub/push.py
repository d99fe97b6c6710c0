"""A model directory to a repository of the Hugging Face hub: what its manifest names and its card, in one commit."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from .. import manifest
from ..errors import ModelFormatError, ModelNotFoundError
from ..files import check_file
from ..manifest import MANIFEST_FILE, Manifest
from .client import Repository, huggingface_hub
from .resolve import CARD

MAIN = "main"


@dataclass(frozen=True, kw_only=True)
class Pushed:
    """What came of it."""

    url: str  # of the commit
    files: tuple[str, ...]
    deleted: tuple[str, ...]  # of an earlier directory, which this one does not have


def push(
    directory: Path,
    name: str,
    *,
    private: bool = False,
    revision: str | None = None,
    token: str | bool | None = None,
    message: str | None = None,
    show_progress: bool = False,
) -> Pushed:
    """Upload a model directory, whole or not at all; the repository and the branch are made where they are missing.

    Files whose contents are alike are sent once. Files in the repository that no manifest named stay.

    Args:
        directory: the model directory; every hash in it is checked before anything is sent.
        name: of the repository, org/name.
        private: of a repository that is made; one that is there stays as it is.
        revision: branch; None: main.
        token: as everywhere; it needs leave to write.
        message: of the commit.
        show_progress: bars of the upload on standard error.

    Raises:
        ModelNotFoundError: no model directory; no such name, no access, no connection; another push came in between.
        ModelFormatError, IntegrityError: the directory is damaged.
        InvalidInputError: token=True without a stored token, or one that is none; a card that the hub refuses.
            A note of any of them, or of an interrupt, says what was made and is left behind.
    """
    described = manifest.read(directory)
    for record in described.files:
        check_file(directory, record)
    names = [record.file for record in described.files]
    if (directory / CARD).is_file():
        names.append(CARD)
    hub = huggingface_hub()
    branch = revision or MAIN
    repository = Repository(name, revision, token, None, False, writing=True)
    if name.count("/") != 1:  # one without org would be made as another's, and then not be found
        raise ModelNotFoundError(f"{name!r} is no possible name of one (org/name); check the name")
    with _noted() as left, repository.explained("the upload"), _bars(hub, show=show_progress):
        api = hub.HfApi(token=token)
        # Told, not deleted: another may have put something there meanwhile, and nothing on the hub brings that back.
        advice = "was made for this and is left: push again, or delete it with: hf repos"
        if _is_new(hub, partial(api.create_repo, name, private=private)):
            left.append(f"the repository {name} {advice} delete {name}")
        if branch != MAIN and _is_new(hub, partial(api.create_branch, name, branch=branch)):
            left.append(f"the branch {branch} of {name} {advice} branch delete {name} {branch}")
        head = api.model_info(name, revision=branch)
        stale = _stale(api, name, head, {*names, MANIFEST_FILE})
        added = {file: hub.CommitOperationAdd(file, str(directory / file)) for file in (*names, MANIFEST_FILE)}
        # Second names of a file come after it, when the hub has their contents and asks for no more.
        first = {record.sha256: added[record.file] for record in reversed(described.files)}
        api.preupload_lfs_files(name, list(first.values()), revision=branch)
        made = api.create_commit(
            name,
            [*added.values(), *(hub.CommitOperationDelete(file) for file in stale)],
            commit_message=message or f"Upload {described.source.checkpoint} exported by {described.created_by}",
            revision=branch,
            parent_commit=head.sha,  # where what is stale was found: 412 if another commit has come since
        )
    return Pushed(url=str(made.commit_url), files=(*names, MANIFEST_FILE), deleted=tuple(stale))


def _is_new(hub: Any, make: Callable[..., Any]) -> bool:
    """Make what may be there already; whether it was missing."""
    try:
        make(exist_ok=False)
    except hub.errors.HfHubHTTPError:
        make(exist_ok=True)  # says why not, where it is not there
        return False
    return True


@contextlib.contextmanager
def _noted() -> Iterator[list[str]]:
    """Note the first line of a list on what ends the block."""
    lines: list[str] = []
    try:
        yield lines
    except BaseException as error:
        for line in lines[:1]:
            error.add_note(line)
        raise


@contextlib.contextmanager
def _bars(hub: Any, *, show: bool) -> Iterator[None]:
    """Show huggingface_hub's bars or none; it has one switch for a process."""
    before = hub.utils.are_progress_bars_disabled()
    if show or before:
        yield
        return
    hub.utils.disable_progress_bars()
    try:
        yield
    finally:
        hub.utils.enable_progress_bars()


def _stale(api: Any, name: str, head: Any, kept: set[str]) -> list[str]:
    """Files that the manifest of a commit names, and the directory does not have."""
    there = {str(file.rfilename) for file in head.siblings or ()}
    if MANIFEST_FILE not in there:
        return []
    try:
        before: Manifest = manifest.read(Path(api.hf_hub_download(name, MANIFEST_FILE, revision=head.sha)).parent)
    except ModelFormatError:  # of another program: none of its files are ours to delete
        return []
    return sorted({record.file for record in before.files} & there - kept)
