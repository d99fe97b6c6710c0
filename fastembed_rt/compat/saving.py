"""Model directories written for a model that is loaded: copied with what was changed since, or sent to the hub."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from ..errors import InvalidInputError
from ..manifest import Manifest

CARD = "README.md"


def save(source: Path, described: Manifest, path: str, *, card: bool = True, now: Manifest | None = None) -> None:
    """Copy a model directory to `path`, which may be there, and write what was changed into its manifest.

    Args:
        source: the directory that the model was loaded from.
        described: its manifest.
        path: where to; made if it is not there.
        card: whether README.md goes along.
        now: the manifest as it should be there; None leaves it as it is.

    Raises:
        InvalidInputError: `path` is a file.
    """
    target = Path(path)
    if target.is_file():
        raise InvalidInputError(f"{path} is a file; give a directory")
    if not target.exists() or not target.samefile(source):
        ignored = None if card else shutil.ignore_patterns(CARD)
        shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)
    if now is not None and now != described:
        now.write(target)


def push(
    save_to: Any,
    repo_id: str,
    *,
    token: str | None = None,
    private: bool | None = None,
    commit_message: str | None = None,
    local_model_path: str | None = None,
    exist_ok: bool = False,
    replace_model_card: bool = False,
    revision: str | None = None,
    create_pr: bool = False,
) -> tuple[str, str]:
    """Upload a model directory to the hub: the repository's full name, and the URL of the commit or pull request.

    Args:
        save_to: writes the directory into a path.
        repo_id: the repository, made if it is not there.
        token: of the hub; None takes the one that is logged in.
        private: whether a new repository is.
        commit_message: None makes one.
        local_model_path: another directory to send instead.
        exist_ok: whether the repository may be there.
        replace_model_card: whether README.md takes the place of one that is there.
        revision: the branch, made if it is not there.
        create_pr: a pull request instead of a commit.
    """
    from huggingface_hub import HfApi

    hub = HfApi(token=token)
    repository = hub.create_repo(repo_id=repo_id, private=private, repo_type=None, exist_ok=exist_ok or create_pr)
    name = repository.repo_id
    if revision is not None:
        hub.create_branch(repo_id=name, branch=revision, exist_ok=True)
    with tempfile.TemporaryDirectory() as made:
        folder = local_model_path
        if folder is None:
            folder = made
            save_to(made)
            if not replace_model_card and _has_card(hub, name, revision):
                Path(made, CARD).unlink(missing_ok=True)
        commit = hub.upload_folder(
            repo_id=name,
            folder_path=folder,
            commit_message=commit_message or "Add new fastembed-rt model",
            create_pr=create_pr,
            revision=revision,
        )
    return name, str(commit.pr_url if create_pr else commit.commit_url)


def _has_card(hub: Any, name: str, revision: str | None) -> bool:
    """Whether a repository has a card; one that cannot be asked may have one, which nothing overwrites."""
    try:
        return bool(hub.file_exists(name, CARD, revision=revision))
    except OSError:  # what huggingface_hub raises without a connection
        return True
