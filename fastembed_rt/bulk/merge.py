"""All ranks of a job joined: checked against each other and their hashes, then said to be complete.

Ranks that wrote into one directory are joined there; those of several directories are brought into another one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..errors import InvalidInputError
from . import job
from .job import Job, PartRecord, Progressed
from .store import Store


def merge(stores: Sequence[Store], target: Store | None = None) -> tuple[list[Job], list[list[PartRecord]]]:
    """Join the ranks that the stores hold, in the first of them or in `target`; what they are made of, in order.

    Raises:
        InvalidInputError: ranks that are missing, unfinished, there twice, damaged, or of different jobs.
    """
    where = stores[0] if target is None else target
    if len(stores) > 1 and target is None:
        raise InvalidInputError("ranks of several directories are joined in another one; name it with -o")
    if target is None:
        complete = job.Complete.read(where)
        if complete is not None:
            _check_sound(where, complete)
            where.remove_folder(job.WORK)
            return complete.jobs, complete.parts
    found: dict[int, tuple[Store, Job, list[PartRecord]]] = {}
    for store in stores:
        for rank, made, records in _ranks(store):
            if rank in found:
                raise InvalidInputError(
                    f"rank {rank} is in {found[rank][0].root} and in {store.root}; name one of them"
                )
            found[rank] = (store, made, records)
    if not found:
        raise InvalidInputError(f"{', '.join(store.root for store in stores)}: there is no job; see embed --shards")
    ordered = [found[rank] for rank in sorted(found)]
    first = ordered[0][1]
    if missing := [rank for rank in range(first.world) if rank not in found]:
        said = ", ".join(map(str, missing[:8])) + (", ..." if len(missing) > 8 else "")
        raise InvalidInputError(
            f"rank {said} of {first.world} is not there; run it with --rank {missing[0]} --world {first.world} --resume"
        )
    # Some ranks may have been resumed without their bad rows: theirs is the job of those that met none, too.
    most_decided = min((made for _, made, _ in ordered), key=lambda made: len(made.undecided))
    jobs = [replace(most_decided, rank=made.rank) for _, made, _ in ordered]
    for (store, made, _), whole in zip(ordered, jobs, strict=True):
        try:
            made.check_same(whole)
        except InvalidInputError as error:
            raise InvalidInputError(f"rank {made.rank} in {store.root} is of another job: {error}") from error
    if target is not None:
        _bring(ordered, target)
    parts = [records for _, _, records in ordered]
    job.finish(where, jobs, parts)
    return jobs, parts


def _ranks(store: Store) -> list[tuple[int, Job, list[PartRecord]]]:
    """Ranks of one store, each with all its parts, which are sound."""
    made = []
    for rank, world in job.rank_folders(store):
        progressed = Progressed(store, rank, world)
        begun = progressed.read_job()
        done = progressed.read_done()
        if begun is None or done is None:
            raise InvalidInputError(f"rank {rank} of {world} in {store.root} is not finished; run it with --resume")
        records = progressed.records()
        if sorted(records) != list(range(done)):
            raise InvalidInputError(f"rank {rank} in {store.root} lacks parts; run it with --resume")
        for number in range(done):
            if not progressed.is_sound(records[number]):
                raise InvalidInputError(
                    f"{records[number].name} in {store.root} is damaged; resume rank {rank}, which makes it anew"
                )
        made.append((rank, begun, [records[number] for number in range(done)]))
    return made


def _check_sound(store: Store, complete: job.Complete) -> None:
    for made in complete.jobs:
        if damaged := complete.damaged(store, made.rank):
            name = complete.parts[made.rank][damaged[0]].name
            raise InvalidInputError(
                f"{name} in {store.root} is damaged; run the job with --resume, which makes it anew"
            )


def _bring(ranks: Sequence[tuple[Store, Job, list[PartRecord]]], target: Store) -> None:
    """Copy parts and what is known of them; what is there already and sound stays."""
    job.check_no_strangers(target)
    for store, made, records in ranks:
        source = Progressed(store, made.rank, made.world)
        goal = Progressed(target, made.rank, made.world)
        goal.write_job(made)
        for record in records:
            if not record.has_file(target):
                target.write(record.file, store.read(record.file) or b"")
            if record.rejected:
                target.write(goal.rejects_name(record.number), store.read(source.rejects_name(record.number)) or b"")
            goal.write_record(record)
        goal.write_done(len(records))
