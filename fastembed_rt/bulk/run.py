"""A rank's run: the parts that are missing are read, encoded and written, one after the other; then what says so.

A reader's thread is ahead of the model and a writer's behind it. Resumed, the parts that are there are read again in a
third thread and compared with their hashes, while the missing ones are made; a damaged one is made anew. That begins
when the model has its first texts: what is done already holds up nothing.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

from ..errors import InvalidInputError, OutputExistsError
from . import columns, formats, inputs, job, queries, readers
from .ahead import Ahead, Behind
from .databases import DATABASES
from .encoder import Arrays, Encoder, Encoding, Vectors
from .job import Job, PartRecord, Progressed
from .outcome import FAIL, NULL, SKIP, outcome, room
from .parts import ROWS, Part, parts
from .progress import Watch
from .readers import Dialect
from .rows import Skip
from .sinks import Sink
from .sinks.one_thread import InOneThread
from .store import Store, digest


@dataclass(frozen=True, kw_only=True)
class Options:
    """What a job is asked for; all of it decides the contents of the parts."""

    template: columns.Template
    chosen: tuple[str, ...] | None = None  # columns to carry along; None: all
    dialect: Dialect = field(default_factory=Dialect)
    format: str = "parquet"
    part_rows: int = ROWS
    on_error: str = FAIL
    on_null: str = "error"
    rank: int = 0
    world: int = 1

    def described(self) -> dict[str, Any]:
        """For the job's file; names are those of the command line."""
        return {
            "column" if self.template.plain else "template": self.template.pattern,
            "columns": None if self.chosen is None else list(self.chosen),
            "encoding": self.dialect.encoding,
            "decode_errors": self.dialect.decode_errors,
            "delimiter": self.dialect.delimiter,
            "quote": self.dialect.quote,
            "sql": self.dialect.sql,
            "shard_format": self.format,
            "part_rows": self.part_rows,
            "on_error": self.on_error,
            "on_null": self.on_null,
        }


@dataclass(frozen=True)
class Prepared:
    """A job before its model is there: what it reads, and what it would be."""

    options: Options
    sources: list[inputs.Source]
    pieces: list[inputs.Piece]
    plan: columns.Plan
    identities: list[dict[str, Any]]
    stamps: list[tuple[tuple[str, int, int], ...]]

    def check_unchanged(self, advice: str) -> None:
        """Raise InvalidInputError where an input was written to since it was looked at."""
        for source, before, now in zip(self.sources, self.stamps, inputs.stamps(self.sources), strict=True):
            if before == now:
                continue
            # A query reads a database as it was when it began: what its rows are not made of may change meanwhile.
            if source.format not in DATABASES or not self._has_the_same_rows(source):
                raise InvalidInputError(f"input {source.name} changed while it was read; {advice}")

    def _has_the_same_rows(self, source: inputs.Source) -> bool:
        known = self.identities[self.sources.index(source)]
        return _identities([source], self.options) == [known]

    def job(self, fingerprint: str, more: dict[str, Any]) -> Job:
        """With the model's fingerprint, and options that only the model's side knows."""
        return Job(
            fingerprint=fingerprint,
            inputs=self.identities,
            options={**self.options.described(), **more},
            columns=self.plan.described,
            rank=self.options.rank,
            world=self.options.world,
        )


def prepare(sources: list[inputs.Source], options: Options) -> Prepared:
    """Look at the inputs; costs a look at each file, up to 256 MiB of all, and each database's query.

    Raises:
        InvalidInputError: inputs that cannot be read, or have not what the options name.
    """
    if not 0 <= options.rank < options.world:
        raise InvalidInputError(f"--rank {options.rank} is not one of {options.world}; ranks are counted from 0")
    plan = readers.plan(sources, options.template, options.chosen, options.dialect)
    if options.format in ("npy", "npz"):
        if options.on_error == SKIP or options.on_null in (SKIP, NULL):
            raise InvalidInputError(
                f"{options.format} holds vectors alone, so that a row left out would move all others; write parquet"
            )
        if options.on_error == NULL:
            raise InvalidInputError(f"{options.format} has no null; write parquet, or take --on-null zero")
    stamps = inputs.stamps(sources)
    pieces = inputs.share(sources, options.rank, options.world)
    return Prepared(options, sources, pieces, plan, _identities(sources, options), stamps)


def _identities(sources: list[inputs.Source], options: Options) -> list[dict[str, Any]]:
    return inputs.identities(sources, partial(queries.digest, sql=options.dialect.sql), shared=options.world > 1)


def check(store: Store, wanted: Job, *, resume: bool, force: bool) -> None:
    """Raise unless a run may begin or go on in this store; changes nothing.

    Raises:
        OutputExistsError: the store has something else, or a job while neither resume nor force was asked for.
        InvalidInputError: another job than the one that is there.
    """
    if force:
        job.check_no_strangers(store, lambda rank: wanted.world == 1 or rank == wanted.rank)
    else:
        job.check_no_strangers(store)
        there = Progressed(store, wanted.rank, wanted.world).read_job()
        complete = job.Complete.read(store)
        if complete is not None:
            ranks = {found.rank: found for found in complete.jobs}
            there = ranks.get(wanted.rank, complete.jobs[0])
        others = [world for _, world in job.rank_folders(store) if world != wanted.world]
        if others and there is None:
            raise InvalidInputError(f"{store.root} holds a job of {others[0]} ranks, not {wanted.world}; {job.CHANGED}")
        if there is not None and not resume:
            raise OutputExistsError(f"{store.root} holds a job already; --resume goes on with it, --force begins again")
        if there is not None:
            there.check_same(wanted)


def begin(store: Store, wanted: Job, *, force: bool) -> Progressed:
    """The rank's folder, with the job written into it; what a dead run left unfinished is gone. To be called locked."""
    progressed = Progressed(store, wanted.rank, wanted.world)
    if force:
        job.clear(store, wanted.rank, wanted.world)
    store.remove_unfinished("", "" if wanted.world == 1 else f"part-{wanted.rank:05d}-")
    store.remove_unfinished(progressed.folder)
    if progressed.read_job() != wanted and job.Complete.read(store) is None:
        progressed.write_job(wanted)
    return progressed


class Run:
    """One rank's run over a store."""

    def __init__(
        self,
        prepared: Prepared,
        encoder: Encoder,
        progressed: Progressed,
        *,
        dedupe: bool = True,
        cache: Vectors | None = None,
        watch: Watch | None = None,
        sink: Sink | None = None,
    ) -> None:
        self.watch = watch or Watch()
        self._prepared, self._encoder, self._progressed = prepared, encoder, progressed
        self._store = progressed.store
        self._options = prepared.options
        self._sink = sink
        self._encoding = Encoding(encoder, dedupe, cache, self.watch.counts)
        formats.check_names(prepared.plan.carried, encoder.layout)
        self._format = formats.FORMATS[self._options.format]
        # A store of somebody else's may keep the rows that it was given.
        self._arrays = Arrays(encoder.width, encoder.dtype) if encoder.width and sink is None else None
        self.watch.total_bytes = sum(piece.stop - piece.start for piece in prepared.pieces)
        self.watch.total_rows = readers.total_rows(prepared.pieces)

    def __call__(self) -> dict[int, PartRecord]:
        """Make what is missing; all parts of the rank, by number.

        Raises:
            InvalidInputError: a row without a vector under on_error="fail", or an input that changed meanwhile.
        """
        records = self._progressed.records()
        suspects = dict(records)
        while True:
            checking = _Checking(self._progressed, suspects)
            try:
                made = self._pass(records, checking)
            except BaseException:
                checking.give_up()
                raise
            damaged = checking.wait()
            if not damaged:
                break
            for number in damaged:
                del made[number]
                self._progressed.remove_record(number)
            records, suspects = made, {}
        self._prepared.check_unchanged(job.CHANGED)
        self._progressed.write_done(len(made))
        return made

    def _pass(self, records: dict[int, PartRecord], checking: _Checking) -> dict[int, PartRecord]:
        """Once over the inputs, from the first part that is missing on; then, or beside it, the checking begins."""
        first = next(number for number in range(len(records) + 1) if number not in records)
        start = records[first - 1].stop if first else 0
        self.watch.rows_there = sum(record.stop - record.start for record in records.values())
        made = dict(records)
        done = self._progressed.read_done()
        if done is not None and first >= done:
            return made
        self._store.remove(self._progressed.name(job.DONE))
        reader = Ahead(lambda: self._read(first, start))
        writer = Behind()
        last = first
        try:
            for part in reader:
                checking.begin()
                last = part.number + 1
                there = made.get(part.number)
                if there is not None:
                    if (there.start, there.stop) != (part.start, part.stop):
                        raise InvalidInputError(
                            f"part {part.number} has rows {there.start} to {there.stop}, and the inputs give "
                            f"{part.start} to {part.stop}; {job.CHANGED}"
                        )
                    continue
                writer.put(self._encoded(part, made))
                del part, there
            writer.finish()
        finally:
            reader.stop()
            writer.stop()
        for number in [number for number in made if number >= last]:
            raise InvalidInputError(f"part {number} has rows beyond the end of the inputs; {job.CHANGED}")
        return made

    def _read(self, first: int, start: int) -> Iterator[Part]:
        prepared = self._prepared
        blocks = readers.read(prepared.pieces, prepared.plan, self._options.dialect, Skip(start), self.watch.meter)
        for part in parts(blocks, prepared.plan, self._options.part_rows, first, start):
            self.watch.rows_read = part.stop
            yield part

    def _encoded(self, part: Part, made: dict[int, PartRecord]) -> Callable[[], None]:
        """What writes a part, whose rows have their vectors."""
        options, encoding = self._options, self._encoding
        rows = len(part.texts)
        found = room(encoding, rows) if self._arrays is None else self._arrays.take(rows)
        sorted_out = outcome(part, encoding, found, on_error=options.on_error, on_null=options.on_null)
        content = sorted_out.all_vectors(encoding) if self._format.arrays else sorted_out.with_vectors(encoding)

        def write() -> None:
            try:
                self._write(part, content, sorted_out.rejects, made)
            finally:
                if self._arrays is not None:
                    self._arrays.give_back(found)

        return write

    def _write(self, part: Part, content: Any, rejects: list[dict[str, Any]], made: dict[int, PartRecord]) -> None:
        """In this order: the part, its rejects, the record that says that both are there."""
        name, there = "", digest(b"")
        if self._sink is not None:
            self._sink.write(part.number, content)
        else:
            name = f"part-{self._options.rank:05d}-{part.number:06d}.{self._format.ending}"
            there = self._store.write(name, lambda stream: self._format.write(content, self._encoder.layout, stream))
        rejected = b""
        if rejects:
            rejected = job.reject_lines(rejects)
            self._store.write(self._progressed.rejects_name(part.number), rejected)
        record = PartRecord(
            number=part.number,
            file=name,
            start=part.start,
            stop=part.stop,
            rows=len(content),
            size=there.size,
            sha256=there.sha256,
            rejected=len(rejects),
            rejects_sha256=digest(rejected).sha256 if rejects else "",
        )
        self._progressed.write_record(record)
        made[part.number] = record
        self.watch.bytes_written += there.size
        self.watch.parts += 1


class _Checking:
    """Compares parts that an earlier run wrote with their hashes, in a thread of its own once it is to begin."""

    def __init__(self, progressed: Progressed, records: dict[int, PartRecord]) -> None:
        self._progressed, self._records = progressed, records
        self._damaged: list[int] = []
        self._error: BaseException | None = None
        self._given_up = False
        self._thread: threading.Thread | None = None

    def begin(self) -> None:
        """Start, unless it did."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._check, name="fastembed_rt_checker", daemon=True)
            self._thread.start()

    def _check(self) -> None:
        try:
            for number, record in sorted(self._records.items()):
                if self._given_up:
                    return
                if not self._progressed.is_sound(record):
                    self._damaged.append(number)
        except BaseException as error:  # noqa: BLE001 - the run gets it
            self._error = error

    def give_up(self) -> None:
        """Nobody wants to know."""
        self._given_up = True

    def wait(self) -> list[int]:
        """Numbers of those that are missing or not what they were."""
        self.begin()
        cast("threading.Thread", self._thread).join()
        if self._error is not None:
            raise self._error
        return self._damaged


def execute(
    store: Store,
    prepared: Prepared,
    encoder: Encoder,
    more: dict[str, Any],
    *,
    resume: bool,
    force: bool,
    dedupe: bool = True,
    cache: Vectors | None = None,
    watch: Watch | None = None,
    sink: Callable[[Job, Any], Sink] | None = None,
) -> dict[int, PartRecord]:
    """One rank's job from its beginning, or from where it was left, to its end; that of a single rank is then finished.

    Raises:
        OutputExistsError, InvalidInputError: see `check` and `Run`; or another process works on the same rank.
    """
    wanted = prepared.job(encoder.fingerprint, more)
    progressed = Progressed(store, wanted.rank, wanted.world)
    check(store, wanted, resume=resume, force=force)  # what is refused leaves no lock behind
    with store.lock(progressed.name(job.LOCK)) as held:
        if not held:
            raise InvalidInputError(f"another process works on rank {wanted.rank} in {store.root}; wait for it")
        check(store, wanted, resume=resume, force=force)
        begin(store, wanted, force=force)
        complete = job.Complete.read(store)
        if complete is not None:
            damaged = complete.damaged(store, wanted.rank)
            if not damaged:
                store.remove_folder(job.WORK)  # of a run that was stopped after its last step
                return {record.number: record for record in complete.parts[wanted.rank]}
            complete.reopen(store)
            for number in damaged:
                progressed.remove_record(number)
        with contextlib.ExitStack() as stack:
            opened = None
            if sink is not None:
                schema = formats.schema(prepared.plan.carried_schema, encoder.layout)
                opened = InOneThread(partial(sink, wanted, schema))
                stack.callback(opened.close)
            made = Run(prepared, encoder, progressed, dedupe=dedupe, cache=cache, watch=watch, sink=opened)()
        if wanted.world == 1:
            job.finish(store, [wanted], [[made[number] for number in sorted(made)]])
        return made
