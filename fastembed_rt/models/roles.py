"""Models that open others of their own directory when these are first needed: encoders for roles, other graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Self, TypeVar

from ..manifest import Manifest, Variant
from ..system.threads import Task, once
from .base import WithMaxLength
from .opening import Source, chosen_variant, of_route
from .options import positive
from .prompts import OF_ROLES, Prompts, check_role
from .shared import Arrival
from .stats import EncodeStats

# max_length, prompts and default_prompt_name as the user gave them; None: what each role says itself.
Given = tuple[int | None, Mapping[str, str] | None, str | None]
M = TypeVar("M", bound="WithRoles")


class WithRoles(WithMaxLength):
    """A model whose queries and documents may have an encoder each.

    What is assigned to it holds for all of them, what they did is in its `stats`, and they close with it.
    """

    _given: Given
    _others: dict[str, Task[WithRoles]]

    @property
    def given_max_length(self) -> int | None:
        """The limit that the user gave or assigned, which holds for all roles; None: each has its manifest's."""
        return self._given[0]

    def for_role(self, role: str) -> Self:
        """The encoder of texts in this role, "query" or "document": another model where they have one of their own."""
        if role not in self.manifest.routes:
            return self
        return self._other(type(self), role, replace(self._source, route=role))

    def _in_role(self, role: str, prompt_name: str | None, prompt: str | None) -> tuple[Self, dict[str, Any]]:
        """The encoder of a role, and the prompt of a call in it.

        Raises:
            InvalidInputError: a role that is not known.
        """
        check_role(role)
        return self.for_role(role), self._prompts.for_role(
            OF_ROLES[role], {"prompt_name": prompt_name, "prompt": prompt}
        )

    def _other(self, kind: type[M], name: str, source: Source) -> M:
        """Another model of the files that this one has opened, made when it is first asked for."""
        self._check_open()
        found = once(self._others, name, partial(self._made, kind, name, source))
        if self._closed:  # meanwhile
            found.close()
            self._check_open()
        return found  # type: ignore[return-value]

    def _made(self, kind: type[M], name: str, source: Source) -> M:
        made = kind.__new__(kind)
        max_length, prompts, default = self._given
        given = {"max_length": max_length, "prompts": prompts, "default_prompt_name": default, "given": None}
        shared = self._shared if self._is_same(kind, source) else self._shared.role(name)
        made._set_up(source, Arrival(self._opened, shared), **{**self._settings_now(), **given})
        made._complete()
        return made

    def _is_same(self, kind: type[WithRoles], source: Source) -> bool:
        """Whether the other runs the same graph on the same tokens: one engine does for both.

        Not under TensorRT, whose engines are built for lengths.
        """
        if kind is not type(self) or self.provider == "tensorrt":
            return False
        route = of_route(self._opened.whole, source.route)

        def run(described: Manifest, variant: Variant) -> tuple[object, ...]:
            facts = (described.pad_token_id, described.padding, described.vocabulary, described.truncation_side)
            prompts = (described.include_prompt, described.dim, described.task)
            return (*variant.files, described.tokenizer, *facts, *prompts)

        return run(route, chosen_variant(route, source)) == run(self.manifest, self.variant)

    def _loaded_others(self) -> list[WithRoles]:
        return [task.result() for task in list(self._others.values()) if task.finished and not task.failed()]

    def _limit(self, wanted: int) -> None:
        for other in self._loaded_others():  # first, so that what one of them refuses changes nothing
            positive("max_length", wanted, other.manifest.max_length, other.manifest.max_positions)
        super()._limit(wanted)
        self._given = (self._max_length, *self._given[1:])
        for other in self._loaded_others():
            other.max_length = self._max_length

    def _pass_on_prompts(self) -> None:
        prompts, default = self._prompts.by_name, self._prompts.default
        self._given = (self._given[0], prompts, default)
        for other in self._loaded_others():
            other._prompts = Prompts(other.manifest, prompts, default)

    @property
    def stats(self) -> EncodeStats:
        """Texts, tokens and truncated texts since the model was loaded, those of all its roles."""
        return sum((other.stats for other in self._loaded_others()), super().stats)

    def _texts_now(self) -> int:
        """As of one model: those of all its roles."""
        return super()._texts_now() + sum(other._texts_now() - other.stats.texts for other in self._loaded_others())

    def close(self) -> None:
        """Give the memory and the threads back; further use is an error."""
        super().close()
        for other in self._loaded_others():
            other.close()

    def after_fork(self) -> None:
        """In a child: what was being loaded never will be."""
        super().after_fork()
        self._others = {name: task for name, task in self._others.items() if task.finished}
