"""Embed: a model with the name of a column, in a form that engines can send to their workers and call there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

from ..errors import InvalidInputError
from ..models import travel
from ..models.base import LoadedModel
from ..text.inputs import counted
from ..text.windows import ERROR
from .batches import arrow_column, column_of, kind_of
from .granted import devices as granted_devices
from .granted import threads as granted_threads
from .outputs import Dense, Tokens
from .planned import Find, plan


class Embed:
    """A callable that takes a batch of rows and gives it back with a column of vectors, or of scores.

    It pickles to a few kilobytes: no weights. The model is opened at the first batch, once a process, however many
    copies come, and only if its files there are those that were here. Safe to use from several threads.

    Batches are a Table or RecordBatch of pyarrow, a DataFrame of pandas or polars, or a dict of columns (lists or
    arrays, as Ray and datasets have them); the same kind comes back, with what the other columns held. One without rows
    opens nothing.

    What `into` holds, by task and kind of batch:

    - embedding, (dim,) float32 a row: Arrow and polars fixed-size lists, pandas arrays as objects, dicts one (n, dim)
      array
    - sparse: a struct of `indices` and `values`; in pandas and dicts, dicts of these arrays
    - late interaction, and output="tokens": a list of vectors a row, (tokens, dim)
    - reranking: float32 scores; (labels,) a row where the model has several
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | LoadedModel,
        column: str | Sequence[str] = "text",
        into: str = "embedding",
        *,
        role: str | None = None,
        encode: Mapping[str, Any] | None = None,
        on_null: str = ERROR,
        lists: str | None = None,
        find: Find | None = None,
        **options: Any,
    ) -> None:
        """Read what the model's directory says of itself; its graph is loaded where batches come.

        Args:
            model: a model directory, a hub repository that holds one, or a model that is open.
            column: the texts; for rerankers a pair of columns, such as ("query", "text").
            into: the column that is added.
            role: "query" or "document", for `encode_query` and `encode_document`; None for `encode` (of
                late-interaction models: documents).
            encode: what else that method takes, such as {"prompt_name": "title", "precision": "float16"}; int8 and
                uint8 need ranges, since no batch knows the others.
            on_null: what a row without a text gives: "error"; "empty", the vector of the empty text; "zero", zeros.
            lists: "fixed" or "list", for Arrow's fixed-size or plain lists, in pandas too (as ArrowDtype); None is
                fixed-size in Arrow and polars, and objects in pandas.
            find: called in a worker to say where the model's directory is there; None: at the same path, else on the
                hub by name and commit.
            **options: of the model's constructor, such as precision="int8" or provider="cuda", unless `model` is open.
                threads: None takes what the engine grants the process: Ray's CPUs of the actor, Spark's of the task,
                the threads of a Dask worker, OMP_NUM_THREADS, else affinity and container quota.

        Raises:
            ModelNotFoundError, ModelFormatError, IntegrityError: no directory, or one that cannot be read.
            InvalidInputError: columns that do not fit the task, a role or option that the model does not have.
            TypeError: an option that does not exist, with what to write instead.
        """
        self._plan = plan(
            model,
            column,
            into,
            role=role,
            encode=encode or {},
            on_null=on_null,
            lists=lists,
            find=find,
            options=options,
        )
        # One that is open works for this process too, as it is; what is sent says how to open another like it.
        self._model: Any = model if isinstance(model, LoadedModel) and find is None else None

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of texts: one, or a pair's two."""
        return self._plan.columns

    @property
    def into(self) -> str:
        """The column that is added."""
        return self._plan.into

    @property
    def dim(self) -> int | None:
        """Numbers of a row's vector, or of a token's; None where a row has one score, or weights of words."""
        output = self._plan.output
        return output.width if isinstance(output, (Dense, Tokens)) else None

    @property
    def arrow_type(self) -> Any:
        """pyarrow's type of the column that is added."""
        import pyarrow

        return self._plan.output.type(pyarrow, fixed=self._plan.lists != "list")

    @property
    def threads(self) -> int | None:
        """Threads that were asked for; None: what the engine grants."""
        found: int | None = self._plan.ticket.options["threads"]
        return found

    @property
    def model(self) -> Any:
        """The model of this process, opened at its first use."""
        if self._model is None:
            given, find = self._plan.ticket, self._plan.find
            options = dict(given.options)
            if options["threads"] is None:
                options["threads"] = granted_threads()
            if options["device_ids"] is None and options["provider"] != "cpu":
                options["device_ids"] = granted_devices()
            place = given.path if find is None else os.fspath(find())
            # Equal tickets have one engine a process, which stays between two tasks of a worker.
            self._model = travel.arrive(replace(given, path=place, options=options))
        return self._model

    def replaced(self, *, threads: int | None = None, **changes: Any) -> Self:
        """A copy with other `threads`, `into`, `on_null`, `lists` or `find`."""
        made = object.__new__(type(self))
        vars(made).update(vars(self))
        made._plan, made._model = replace(self._plan, **changes), None
        if threads is not None:
            given = made._plan.ticket
            made._plan = replace(made._plan, ticket=replace(given, options={**given.options, "threads": threads}))
        return made

    def __call__(self, batch: Any) -> Any:
        """The batch with the column `into`; the batch that was given is not changed.

        Raises:
            InvalidTypeError: no batch, or a column that holds no texts; a null under on_null="error".
            InvalidInputError: no such column, or `into` is there already; other errors as of the model's method.
        """
        kind = kind_of(batch)
        if self.into in list(kind.names(batch)):
            raise InvalidInputError(f"a batch has a column {self.into!r} already; name another with into=")
        results = self.results(*(column_of(batch, kind, name) for name in self.columns))
        return kind.added(batch, self.into, self._plan.output, results, self._plan.lists)

    def over(self, batches: Iterable[Any]) -> Iterator[Any]:
        """Each batch with its column, for engines that call once a partition."""
        return map(self, batches)

    def results(self, *columns: Any) -> Any:
        """What the model gives for columns of texts: (n, dim), scores (n,), or a list with each row's result."""
        if not len(columns[0]):
            return self._plan.output.empty()
        call = getattr(self.model, self._plan.method)
        if len(columns) == 2:
            pairs = zip(*(counted(column)[1] for column in columns), strict=True)
            return call(list(pairs), **self._plan.encode)
        made = call(columns[0], on_null=self._plan.on_null, **self._plan.encode)
        if isinstance(self._plan.output, Tokens) and hasattr(made[0], "offsets"):
            return [tokens.vectors for tokens in made]
        return made

    def arrow(self, *columns: Any) -> Any:
        """The same as a column of pyarrow, of `arrow_type`."""
        return arrow_column(self._plan.output, self.results(*columns), fixed=self._plan.lists != "list")

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_model": None}  # the plan says how to open it

    def __repr__(self) -> str:
        given = self._plan.ticket
        return f"{type(self).__name__}({given.path!r}, {', '.join(self.columns)!r}, {self.into!r})"
