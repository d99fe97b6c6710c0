"""A directory that appears whole or not at all."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from fastembed_rt.manifest import MANIFEST_FILE
from fastembed_rt.system import leftovers

from ..errors import OutputExistsError


@contextmanager
def atomic_directory(destination: Path, *, force: bool = False) -> Iterator[Path]:
    """Yield an empty directory that becomes `destination` when the block ends well, and vanishes when it does not.

    With `force`, what was there before stays until the new one is complete, and stays for good if that fails.

    Raises:
        OutputExistsError: `destination` is there and `force` is not given, or it is not a model directory.
    """
    destination = Path(os.path.abspath(destination))  # noqa: PTH100  not resolved: a link is refused
    clear_left_behind(destination)
    check_free(destination, force=force)
    made = [parent for parent in destination.parents if not parent.exists()]  # innermost first
    destination.parent.mkdir(parents=True, exist_ok=True)
    # In the same parent, so that the rename stays inside one file system.
    with leftovers.unfinished(
        lambda: _unused(destination, "partial"),
        lambda work: work.mkdir(mode=0o700),
    ) as work:
        try:
            yield work
            work.chmod(0o755 & ~_umask())
            _swap_in(work, destination, force=force)
        except BaseException:
            leftovers.remove(work)
            with suppress(OSError):  # somebody else's file in there meanwhile
                for parent in made:
                    parent.rmdir()
            raise


def clear_left_behind(destination: Path) -> None:
    """Remove what exports to `destination` left when they were killed; bring back what one had moved aside for it."""

    def named(suffix: str) -> re.Pattern[str]:
        return re.compile(rf"\.{re.escape(destination.name)}\.[a-z0-9_]{{8}}\.{suffix}")

    leftovers.remove_left_behind(destination.parent, named("partial"))
    with leftovers.left_behind(destination.parent, named("old")) as aside:
        for old in aside:
            # Killed between the two renames of a swap: this is the only copy of what was there.
            if not os.path.lexists(destination) and (old / MANIFEST_FILE).is_file():
                old.rename(destination)
            else:
                leftovers.remove(old)


def check_free(destination: Path, *, force: bool) -> None:
    """Raise OutputExistsError when `destination` cannot be written; asked early, before the work is done."""
    if destination.is_dir() and not destination.is_symlink():
        if not force and any(destination.iterdir()):
            raise OutputExistsError(f"{destination} exists; pass --force to replace it, or -o another directory")
        # Replacing deletes all of it: a mistyped -o must not cost a checkpoint or a home directory.
        if any(destination.iterdir()) and not (destination / MANIFEST_FILE).is_file():
            raise OutputExistsError(
                f"{destination} is not a model directory (no {MANIFEST_FILE}), so --force does not replace it; "
                "remove it yourself, or pass -o another directory"
            )
    elif destination.exists() or destination.is_symlink():
        raise OutputExistsError(f"{destination} is there and is not a directory; pass -o another directory")


def check_apart(source: Path, destination: Path) -> None:
    """Raise OutputExistsError where what is exported lies in a directory that --force would replace, and so delete."""
    if destination.is_dir() and Path(os.path.realpath(source)).is_relative_to(os.path.realpath(destination)):
        raise OutputExistsError(
            f"{source} lies inside {destination}, which --force replaces with all that is in it; "
            "pass -o another directory"
        )


def _swap_in(work: Path, destination: Path, *, force: bool) -> None:
    check_free(destination, force=force)  # it may have come into being meanwhile
    if not destination.exists():
        work.rename(destination)
        return
    with leftovers.held(destination):  # the directory, whatever its name is meanwhile
        old = _unused(destination, "old")
        destination.rename(old)
        try:
            work.rename(destination)
        except BaseException:
            old.rename(destination)
            raise
        shutil.rmtree(old, ignore_errors=True)


def _unused(destination: Path, suffix: str) -> Path:
    """A name beside `destination` that nothing has: on Windows a directory moves onto no other, also no empty one."""
    while True:
        path = destination.with_name(f".{destination.name}.{secrets.token_hex(4)}.{suffix}")
        if not os.path.lexists(path):
            return path


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
