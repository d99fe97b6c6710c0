"""A model's files on their way to machines that have neither its directory nor the hub.

Only what runs is packed: the manifest, the tokenizer, one variant's graph and weights. A machine unpacks it once, under
the hash of the archive; the model checks each file's own hash when it opens.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ..errors import InvalidInputError, ModelNotFoundError
from ..manifest import MANIFEST_FILE
from ..system.locks import locked
from .embed import Embed

MODEL = "model"  # the directory in the archive


@dataclass(frozen=True)
class Archive:
    """A packed model; it pickles as its bytes."""

    content: bytes  # a tar file
    key: str  # of the content

    def unpack(self) -> Path:
        """The model's directory on this machine, written by the first process that asks."""
        return unpacked(self.key, lambda: self)


def packed(embed: Embed) -> Archive:
    """What the model of an Embed needs, read from its directory here.

    Raises:
        ModelNotFoundError: there is none.
    """
    place = Path(embed._plan.ticket.path)
    if not place.is_dir():
        raise ModelNotFoundError(f"the model's directory {place} is gone, so that nothing can be sent")
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", dereference=True) as tar:  # links lead nowhere on another machine
        for name in sorted(embed._plan.files):
            tar.add(place / name, f"{MODEL}/{name}", filter=_bare)
    content = stream.getvalue()
    return Archive(content, hashlib.sha256(content).hexdigest()[:32])


def _bare(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """The same archive whoever packs it and when."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mtime, entry.mode = 0, 0o644
    return entry


def folder() -> Path:
    """Where models that were sent lie: `fastembed-rt-sent-USER` in the temporary directory, nobody else's.

    Raises:
        InvalidInputError: somebody else made it.
    """
    user = getattr(os, "getuid", lambda: "all")()
    found = Path(tempfile.gettempdir()) / f"fastembed-rt-sent-{user}"
    found.mkdir(mode=0o700, exist_ok=True)
    if hasattr(os, "getuid") and found.lstat().st_uid != user:
        raise InvalidInputError(f"{found} belongs to somebody else; set TMPDIR to a directory of your own")
    return found


def unpacked(key: str, read: Callable[[], Archive]) -> Path:
    """The directory of a model under the key of its archive; `read` gives that to the first who asks on a machine."""
    there = folder() / key
    if there.is_dir():
        return there / MODEL
    with locked(there.with_suffix(".lock")):
        if not there.is_dir():
            work = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=there.parent))
            try:
                with tarfile.open(fileobj=io.BytesIO(read().content)) as tar:
                    tar.extractall(work, filter="data")
                work.rename(there)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return there / MODEL


@dataclass(frozen=True)
class Sent:
    """For `find=`: a model that something else has unpacked on this machine."""

    key: str

    def __call__(self) -> Path:
        """Its directory.

        Raises:
            ModelNotFoundError: it is not there.
        """
        found = folder() / self.key / MODEL
        if not (found / MANIFEST_FILE).is_file():
            raise ModelNotFoundError(f"no model was sent to this machine as {found}; send it before the first batch")
        return found
