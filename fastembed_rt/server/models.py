"""Models under their names, each with the queue of its engine; options of a request made to what a model does."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..manifest import LATE_INTERACTION, RERANKING
from ..models.base import LoadedModel
from ..models.travel import ticket
from ..models.work import Prepared
from ..run.contract import Runner
from ..system.threads import CLOSED
from .errors import ApiError
from .gather import Gatherer
from .jobs import Job
from .meters import Meters
from .token_ids import REFUSED, taking_ids

MOST_PREPARED = 256  # options of requests that are kept, resolved
ANY = "*"  # as an alias: the model that answers where a request's name is unknown


class Served:
    """A model that is served."""

    def __init__(self, name: str, model: Any, *, aliases: Iterable[str] = (), token_ids: bool = False) -> None:
        """`model` is loaded; `token_ids`: inputs may be ids of its own tokenizer."""
        self.name, self.model, self.token_ids = name, model, token_ids
        self.aliases = tuple(dict.fromkeys(aliases))
        self.provider = str(model.provider).encode()
        self.of_tokens = model.task == LATE_INTERACTION  # it gives a vector for each token
        self.meters = Meters(name, model.task, model.max_batch_tokens)
        self._prepared: dict[tuple[Any, ...], Prepared[Any]] = {}
        self._gatherers: dict[int, tuple[Runner, Gatherer]] = {}
        self._closed = False

    @cached_property
    def identity(self) -> str:
        """What decides its answers: the files of all roles, variant, prompts, lengths; a short name."""
        model = self.model
        settings = [sorted(model.prompts.items()), getattr(model, "default_prompt_name", None)]
        settings += [getattr(model, name, None) for name in ("max_length", "query_length", "document_length")]
        digest = hashlib.sha256(repr(settings).encode()).hexdigest()[:8]
        return f"{ticket(model).identity}-{digest}"

    @property
    def task(self) -> str:
        """Of the manifest: embedding, reranking, sparse or late_interaction."""
        return str(self.model.task)

    @property
    def token_width(self) -> int:
        """Numbers of a token's vector, where it gives those."""
        states = self.model.variant.tokens
        return int(self.model.manifest.dim if states is None else states.dim)

    async def prepared(self, *, ids: bool = False, **options: Any) -> Prepared[Any]:
        """What the model does under these options, those that are None left out; errors as its `prepare`'s.

        `ids`: some texts are lists of token ids.

        Raises:
            ApiError: token ids are refused here.
        """
        key = (ids, *options.items())  # a route has them in one order
        found = self._prepared.get(key)
        if found is None:
            if ids and not self.token_ids:
                raise ApiError("Validation", REFUSED)
            # Aside: it may load a session or a tokenizer.
            found = await asyncio.to_thread(self._prepare, options, ids)
            if options.get("prompt") is None:  # texts of clients, of any size
                if len(self._prepared) >= MOST_PREPARED:
                    self._prepared.clear()
                self._prepared[key] = found
        return found

    def _prepare(self, options: dict[str, Any], ids: bool) -> Prepared[Any]:
        given = {name: value for name, value in options.items() if value is not None}
        if self.task == RERANKING:
            given.pop("role", None)  # a pair has both
        name, prompts = given.get("prompt_name"), self.model.prompts
        if name is not None and name not in prompts:  # said without the name, which is the client's
            known = f"it has {', '.join(sorted(prompts))}" if prompts else "it has none"
            raise ApiError("Validation", f"the model has no prompt of this name; {known}", param="prompt_name")
        wanted, most = given.get("truncate_dim"), self.model.manifest.dim
        if wanted is not None and not 1 <= wanted <= most:  # said without our name for it
            raise ApiError("Validation", f"{wanted} dimensions: expected 1 to {most}", param="dimensions")
        found: Prepared[Any] = self.model.prepare(**given)
        return taking_ids(found) if ids else found

    def about(self) -> dict[str, Any]:
        """What /info says of it."""
        model, manifest = self.model, self.model.manifest
        max_length = getattr(model, "max_length", None) or model.document_length
        return {
            "model_id": manifest.source.checkpoint,
            "model_sha": manifest.source.revision,
            "model_dtype": model.precision,
            "served_model_name": self.name,
            "model_type": self._type(),
            "max_input_length": max_length,
            "max_batch_tokens": model.max_batch_tokens,
            "task": self.task,
            "aliases": list(self.aliases),
            "target": model.target,
            "provider": model.provider,
            "threads": model.threads,
            "prompts": sorted(model.prompts),
        }

    def _type(self) -> dict[str, Any]:
        """Under text-embeddings-inference's names."""
        if self.task == RERANKING:
            labels = dict(enumerate(self.model.labels))
            kind = "reranker" if len(labels) == 1 else "classifier"
            numbers = {label: k for k, label in labels.items()}
            return {kind: {"id2label": {str(k): label for k, label in labels.items()}, "label2id": numbers}}
        pooling = {"sparse": "splade", "late_interaction": "none"}.get(self.task, "+".join(self.model.manifest.pooling))
        return {"embedding": {"pooling": pooling}}

    def start(
        self,
        prepared: Prepared[Any],
        texts: Sequence[Any],
        tokens: int,
        deadline: float,
        lengths: list[int] | None = None,
    ) -> Job:
        """Texts on their way, about so many tokens; for event loops. `lengths` is given the tokens of each text."""
        job = Job(prepared, texts, deadline)
        job.lengths = lengths
        self._gatherer(prepared.runner).submit(job, tokens)
        return job

    def _gatherer(self, runner: Runner) -> Gatherer:
        found = self._gatherers.get(id(runner))
        if self._closed:
            raise InvalidInputError(CLOSED)
        if found is None:
            found = self._gatherers.setdefault(id(runner), (runner, Gatherer(runner, self.meters.batch)))
        return found[1]

    async def warm_up(self) -> None:
        """One short and one long request, so that the first client waits for no session to load."""
        text = ("a", "a") if self.task == RERANKING else "a"
        prepared = await self.prepared()
        deadline = time.monotonic() + 3600
        for count in (1, 2 * prepared.runner.side_by_side):
            jobs = [self.start(prepared, [text], 1 if count == 1 else 2**40, deadline) for _ in range(count)]
            await asyncio.gather(*(job.future for job in jobs))

    def close(self) -> None:
        """Let the threads of the queues go; the model is its owner's."""
        self._closed = True
        for _, gatherer in self._gatherers.values():
            gatherer.close()
        self._gatherers.clear()
        self._prepared.clear()


class Models:
    """All models that are served. The first of a task answers where a request names none."""

    def __init__(self, models: Sequence[Served]) -> None:
        self.all = list(models)
        self._of_tasks: dict[tuple[str, ...], list[Served]] = {}
        self._by_name: dict[str, Served] = {}
        for served in self.all:
            self._by_name.setdefault(served.name, served)
        for served in self.all:
            for alias in served.aliases:
                self._by_name.setdefault(alias, served)

    def take(self, others: Models) -> None:
        """Become what the others are; those who have been found stay with who has them."""
        self.all, self._by_name, self._of_tasks = others.all, others._by_name, others._of_tasks

    @property
    def names(self) -> list[str]:
        """Of the models, aliases left out."""
        return [served.name for served in self.all]

    def known(self, name: str) -> bool:
        """Whether a model has this name or alias."""
        return name in self._by_name

    def find(self, name: str | None, tasks: tuple[str, ...] = ()) -> Served:
        """The model of this name; without one the first of the first of these tasks that there is a model for.

        Raises:
            ApiError: there is none, or it is for another task.
        """
        fitting = self._of_tasks.get(tasks)
        if fitting is None:
            fitting = [served for task in tasks for served in self.all if served.task == task] if tasks else self.all
            self._of_tasks[tasks] = fitting  # of a route's own tasks: there are few
        if name is None:
            if not fitting:
                raise ApiError("Validation", f"no model here is for {' or '.join(tasks)}; models: {self._listed()}")
            return fitting[0]
        found = self._by_name.get(name) or self._by_name.get(ANY)
        if found is None:
            raise ApiError("NotFound", f"no model has this name; models: {self._listed()}", param="model")
        if found not in fitting:
            raise ApiError(
                "Validation", f"model {found.name} is for {found.task}, and this route for {' or '.join(tasks)}"
            )
        return found

    def _listed(self) -> str:
        return ", ".join(f"{served.name} ({served.task})" for served in self.all)


def named_models(models: Mapping[str, LoadedModel] | Sequence[LoadedModel] | LoadedModel, *, token_ids: bool) -> Models:
    """Loaded models under names: given, or those of their directories.

    Raises:
        InvalidInputError: two of them have one name.
    """
    if isinstance(models, LoadedModel):
        models = [models]
    named = [*models.items()] if isinstance(models, Mapping) else [(model.path.name, model) for model in models]
    names = [name for name, _ in named]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InvalidInputError(
            f"several models would answer to the name {twice[0]!r}, that of their directories; pass a dict of models "
            "by their names"
        )
    return Models([Served(name, model, aliases=own_names(model), token_ids=token_ids) for name, model in named])


def own_names(model: LoadedModel) -> list[str]:
    """What else a model is known as: its checkpoint's name on the hub, with and without the owner."""
    checkpoint = model.manifest.source.checkpoint
    return list(dict.fromkeys([checkpoint, checkpoint.rpartition("/")[2]]))


def joined(parts: Sequence[Any]) -> Any:
    """Results of a job's pieces in one: (n, ...) arrays, or lists."""
    if len(parts) == 1:
        return parts[0]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return list(itertools.chain.from_iterable(parts))
