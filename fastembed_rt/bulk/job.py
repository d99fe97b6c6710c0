"""A job's own files: what it is made of, which of its parts are there, and that all of them are.

    part-00000-000000.parquet      rank and number; also the others
    _embed/00000-of-00001/         gone when all is done
        job.json                   inputs, options, fingerprint: what a resumed run must have in common with it
        part-000000.json           a part's rows, size and hash; written when the part is there for good
        rejects-000000.jsonl       rows of the part without a vector
        done.json                  how many parts there are
    _rejects.jsonl                 those of all parts
    _manifest.json                 all of the above in one
    _SUCCESS                       last

Names that begin with `_` or `.` are no data for readers of Parquet folders (Spark, pyarrow, DuckDB's globs).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import InvalidInputError, OutputExistsError
from .store import UNFINISHED, Digest, Store, digest

VERSION = 1
WORK = "_embed"
MANIFEST, SUCCESS, REJECTS = "_manifest.json", "_SUCCESS", "_rejects.jsonl"
JOB, DONE, LOCK = "job.json", "done.json", "lock"
PART = re.compile(r"part-(\d{5})-\d{6}\.(parquet|arrow|npy)")
# How bad rows are taken. Under these values a run ends at the first, so that no part that is there was made by them.
STRICT = {"on_error": "fail", "on_null": "error"}
CHANGED = "begin again with --force, or name another directory"


@dataclass(frozen=True, kw_only=True)
class Job:
    """What decides the contents of a job's parts."""

    fingerprint: str
    inputs: list[dict[str, Any]]  # in order, each with what tells it from others: see inputs.identity
    options: dict[str, Any]
    columns: list[list[str]]  # names and types of those carried along
    rank: int = 0
    world: int = 1

    @property
    def name(self) -> str:
        """A short name of the job, whatever rank this is, and however it takes bad rows."""
        options = {key: value for key, value in self.options.items() if key not in STRICT}
        body = {**asdict(self), "rank": 0, "options": options}
        return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:16]

    @property
    def undecided(self) -> frozenset[str]:
        """Options that no part was made by: bad rows, which would have ended the run, may be taken otherwise now."""
        if self.options.get("on_error") != STRICT["on_error"]:
            return frozenset()  # a row without a text was one of the bad rows then
        return frozenset(name for name, value in STRICT.items() if self.options.get(name) == value)

    def check_same(self, other: Job) -> None:
        """Raise InvalidInputError, with the names of what differs, unless a run of `other` may go on with this."""
        if (self.rank, self.world) != (other.rank, other.world):
            raise InvalidInputError(f"the job is rank {self.rank} of {self.world}, not {other.rank} of {other.world}")
        if self.fingerprint != other.fingerprint:
            raise InvalidInputError(
                f"the model changed: the parts have vectors of {self.fingerprint}, these would be {other.fingerprint}; "
                + CHANGED
            )
        for name in sorted({*self.options, *other.options}):
            old, new = self.options.get(name), other.options.get(name)
            if old != new and name not in self.undecided:
                option = "--" + name.replace("_", "-")
                raise InvalidInputError(f"{option} changed: it was {_said(old)}, now it is {_said(new)}; {CHANGED}")
        self._check_inputs(other)
        if self.columns != other.columns:
            raise InvalidInputError(f"the columns changed from {self.columns} to {other.columns}; {CHANGED}")

    def _check_inputs(self, other: Job) -> None:
        if [entry["name"] for entry in self.inputs] != [entry["name"] for entry in other.inputs]:
            before, now = ({entry["name"] for entry in job.inputs} for job in (self, other))
            differing = sorted(before ^ now)[:3]
            what = f"{', '.join(differing)} " + ("is new" if differing[0] in now else "is gone") if differing else ""
            raise InvalidInputError(f"the inputs changed: {what or 'they come in another order'}; {CHANGED}")
        for old, new in zip(self.inputs, other.inputs, strict=True):
            if old != new:
                facts = [key for key in {**old, **new} if old.get(key) != new.get(key)]
                raise InvalidInputError(f"input {old['name']} changed since ({', '.join(facts)}); {CHANGED}")


@dataclass(frozen=True, kw_only=True)
class PartRecord:
    """A part that is there: rows [start, stop) of its rank's input, and what its files hold."""

    number: int
    file: str  # "" where the rows went into a database
    start: int
    stop: int
    rows: int  # in the file; fewer than were read where some were skipped
    size: int
    sha256: str
    rejected: int = 0
    rejects_sha256: str = ""

    @property
    def name(self) -> str:
        """Of the part in messages."""
        return self.file or f"part {self.number}"

    @property
    def digest(self) -> Digest:
        """Of the part's file."""
        return Digest(self.size, self.sha256)

    def has_file(self, store: Store) -> bool:
        """Whether a part's file is what was written; rows that went into a database have none."""
        return not self.file or store.digest(self.file) == self.digest

    def has_rejects(self, content: bytes | None) -> bool:
        """Whether these are its rows without a vector."""
        return not self.rejected or (content is not None and digest(content).sha256 == self.rejects_sha256)


class Progressed:
    """A rank's folder below `_embed`."""

    def __init__(self, store: Store, rank: int, world: int) -> None:
        self.store, self.rank, self.world = store, rank, world
        self.folder = f"{WORK}/{rank:05d}-of-{world:05d}"

    def name(self, file: str) -> str:
        """Of one of the rank's own files."""
        return f"{self.folder}/{file}"

    def read_job(self) -> Job | None:
        """What was begun, None where nothing was."""
        found = _json(self.store, self.name(JOB))
        return None if found is None else _job(found, self.name(JOB))

    def write_job(self, job: Job) -> None:
        """Begin."""
        self.store.write(self.name(JOB), _bytes({"version": VERSION, **asdict(job)}))

    def records(self) -> dict[int, PartRecord]:
        """Parts that are there, by number."""
        found = {}
        for name in self.store.names(self.folder):
            if name.startswith("part-") and name.endswith(".json"):
                record = PartRecord(**(_json(self.store, self.name(name)) or {}))
                found[record.number] = record
        return found

    def write_record(self, record: PartRecord) -> None:
        """Say that a part is there; it is, and for good."""
        self.store.write(self.name(f"part-{record.number:06d}.json"), _bytes(asdict(record)))

    def remove_record(self, number: int) -> None:
        """A part is not what its record says."""
        self.store.remove(self.name(f"part-{number:06d}.json"))

    def rejects_name(self, number: int) -> str:
        """The file with a part's rows that got no vector."""
        return self.name(f"rejects-{number:06d}.jsonl")

    def is_sound(self, record: PartRecord) -> bool:
        """Whether a part's files are what was written."""
        rejects = self.store.read(self.rejects_name(record.number)) if record.rejected else b""
        return record.has_file(self.store) and record.has_rejects(rejects)

    def write_done(self, parts: int) -> None:
        """All parts of the rank are there."""
        self.store.write(self.name(DONE), _bytes({"parts": parts}))

    def read_done(self) -> int | None:
        """How many parts there are, None while not all of them are."""
        found = _json(self.store, self.name(DONE))
        return None if found is None else int(found["parts"])


@dataclass(frozen=True)
class Complete:
    """A finished job: those of all ranks, with their parts in order."""

    jobs: list[Job]
    parts: list[list[PartRecord]]

    @classmethod
    def read(cls, store: Store) -> Complete | None:
        """What `_manifest.json` says, None unless there is a `_SUCCESS` beside it."""
        if store.read(SUCCESS) is None:
            return None
        found = _json(store, MANIFEST)
        if found is None:
            raise InvalidInputError(f"{store.root} has {SUCCESS} and no {MANIFEST}, so its parts cannot be checked")
        ranks = found["ranks"]
        jobs = [_job({"version": found["version"], **found["job"], "rank": k}, MANIFEST) for k in range(len(ranks))]
        return cls(jobs, [[PartRecord(**record) for record in rank] for rank in ranks])

    def reopen(self, store: Store) -> None:
        """Make the ranks' folders again, with all their records; then take `_SUCCESS` away."""
        for job, records in zip(self.jobs, self.parts, strict=True):
            progressed = Progressed(store, job.rank, job.world)
            for number, content in self.rejects_by_part(store, job.rank).items():
                store.write(progressed.rejects_name(number), content)
            for record in records:
                progressed.write_record(record)
            progressed.write_done(len(records))
            progressed.write_job(job)
        store.remove(SUCCESS)

    def damaged(self, store: Store, rank: int) -> list[int]:
        """Numbers of a rank's parts that are missing or not what they were."""
        rejects = self.rejects_by_part(store, rank)
        return [
            record.number
            for record in self.parts[rank]
            if not (record.has_file(store) and record.has_rejects(rejects.get(record.number)))
        ]

    def rejects_by_part(self, store: Store, rank: int) -> dict[int, bytes]:
        """Each part's share of `_rejects.jsonl`."""
        lines = (store.read(REJECTS) or b"").splitlines(keepends=True)
        found, at = {}, 0
        for number, records in enumerate(self.parts):
            for record in records:
                if record.rejected and number == rank:
                    found[record.number] = b"".join(lines[at : at + record.rejected])
                at += record.rejected
        return found


def finish(store: Store, jobs: list[Job], parts: list[list[PartRecord]]) -> None:
    """All parts of all ranks are there: write what says so, `_SUCCESS` last, and remove the ranks' folders."""
    rejects = [
        store.read(Progressed(store, job.rank, job.world).rejects_name(record.number)) or b""
        for job, records in zip(jobs, parts, strict=True)
        for record in records
        if record.rejected
    ]
    if rejects:
        store.write(REJECTS, b"".join(rejects))
    about = {key: value for key, value in asdict(jobs[0]).items() if key != "rank"}
    listed = [[asdict(record) for record in records] for records in parts]
    total = sum(record.rows for records in parts for record in records)
    rejected = sum(record.rejected for records in parts for record in records)
    body = {"version": VERSION, "rows": total, "rejected": rejected, "job": about, "ranks": listed}
    store.write(MANIFEST, _bytes(body))
    store.write(SUCCESS, b"")
    store.remove_folder(WORK)


def check_no_strangers(store: Store, cleared: Callable[[int], bool] = lambda rank: False) -> None:
    """Raise OutputExistsError where a directory has something that no job there has written.

    `cleared` says of which ranks a job that begins again removes all parts, whosesoever they are.
    """
    begun = {rank for rank, world in rank_folders(store) if Progressed(store, rank, world).read_job() is not None}
    finished = store.read(SUCCESS) is not None
    for name in store.names():
        part = PART.fullmatch(name)
        if name in (MANIFEST, SUCCESS, REJECTS) or UNFINISHED.fullmatch(name):
            continue
        if part is None or not (finished or int(part[1]) in begun or cleared(int(part[1]))):
            raise OutputExistsError(f"{store.root} holds {name}, which is of no job there; name an empty directory")


def clear(store: Store, rank: int, world: int) -> None:
    """Remove what a rank has written, what jobs of other numbers of ranks have, and what says that a job is done.

    Parts of this job's other ranks stay, and what is known of them: a finished job's goes back into their folders.
    """
    if world > 1:
        with contextlib.suppress(InvalidInputError):  # what is not known of any part is no loss
            complete = Complete.read(store)
            if complete is not None and len(complete.jobs) == world:
                complete.reopen(store)
    for name in (SUCCESS, MANIFEST, REJECTS):
        store.remove(name)
    folders = {(each, of): Progressed(store, each, of) for each, of in rank_folders(store)}
    others = {each for each, of in folders if of == world and each != rank}
    others = {each for each in others if folders[each, world].read_job() is not None}
    for name in store.names():
        part = PART.fullmatch(name)
        if part is not None and int(part[1]) not in others:
            store.remove(name)
    for (each, of), progressed in folders.items():
        if (each, of) == (rank, world):
            for name in store.names(progressed.folder):
                if name != LOCK:  # which whoever clears holds
                    store.remove(progressed.name(name))
        elif of != world:
            store.remove_folder(progressed.folder)


def reject_lines(rejects: list[dict[str, Any]]) -> bytes:
    """Rows without a vector, one a line."""
    return b"".join(
        json.dumps(entry, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n" for entry in rejects
    )


def rank_folders(store: Store) -> Iterator[tuple[int, int]]:
    """Ranks and worlds that have begun, by their folders."""
    for name in store.folders(WORK):
        rank, _, world = name.partition("-of-")
        if rank.isdecimal() and world.isdecimal():
            yield int(rank), int(world)


def _job(found: dict[str, Any], name: str) -> Job:
    found = dict(found)
    if found.pop("version", None) != VERSION:
        raise InvalidInputError(f"{name} is of another version of fastembed-rt; {CHANGED}")
    return Job(**found)


def _json(store: Store, name: str) -> Any:
    content = store.read(name)
    if content is None:
        return None
    try:
        return json.loads(content)
    except ValueError as error:
        raise InvalidInputError(f"{store.root}/{name} is damaged ({error}); {CHANGED}") from error


def _bytes(body: Any) -> bytes:
    try:
        return (json.dumps(body, ensure_ascii=False, indent=1) + "\n").encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8: escapes give it back
        return (json.dumps(body, indent=1) + "\n").encode()


def _said(value: Any) -> str:
    return "not given" if value is None else repr(value)
