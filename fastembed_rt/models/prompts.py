"""Texts that stand in front of others: a model's own by name, a call's, and those of a role."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import InvalidInputError, InvalidTypeError, UnknownPromptError
from ..manifest import Manifest
from ..text.inputs import check_unicode, plain
from .options import checked_prompts

QUERY_PROMPTS = ("query",)
DOCUMENT_PROMPTS = ("document", "passage", "corpus")  # the order in which sentence-transformers looks
OF_ROLES = {"query": QUERY_PROMPTS, "document": DOCUMENT_PROMPTS}
ROLE_PROMPTS = {"query": QUERY_PROMPTS, "document": DOCUMENT_PROMPTS}


class Prompts:
    """A model's prompts by name, and the one that stands in front when none is named."""

    def __init__(self, described: Manifest, prompts: object, default: str | None) -> None:
        """The manifest's, or the caller's instead.

        Raises:
            InvalidInputError: prompts that are not texts by name, a default that is not one of them.
        """
        self.by_name = dict(described.prompts) if prompts is None else checked_prompts(prompts)  # type: ignore[arg-type]
        self.default = described.default_prompt_name if default is None and prompts is None else default
        if self.default is not None:
            self.text(self.default, None)

    def text(self, name: str | None, text: str | None) -> str:
        """The prompt of a call that named one, gave one, or did neither.

        Raises:
            InvalidInputError: both at once; UnknownPromptError: a name that the model does not have.
        """
        if text is not None:
            if name is not None:
                raise InvalidInputError(f"prompt and prompt_name {name!r} are both given; pass one of them")
            if not isinstance(text, str):
                raise InvalidTypeError(f"prompt is {type(text).__name__}, expected str")
            text = plain(text)
            check_unicode(text, "prompt")
            return text
        name = name if name is not None else self.default
        if name is None:
            return ""
        if not isinstance(name, str) or name not in self.by_name:
            known = f"it has {', '.join(sorted(self.by_name))}" if self.by_name else "it has none"
            raise UnknownPromptError(f"the model has no prompt {name!r}; {known}")
        return self.by_name[name]

    def for_role(self, names: Sequence[str], options: dict[str, Any]) -> dict[str, Any]:
        """A call's options with the first of the prompts `names` that there is, unless they have one already."""
        return of_role(names, self.by_name, options)


def check_role(role: str) -> None:
    """Raise InvalidInputError for a role that no text has."""
    if role not in OF_ROLES:
        raise InvalidInputError(f"role {role!r} is not known; known: {', '.join(OF_ROLES)}")


def of_role(names: Sequence[str], by_name: Mapping[str, str], options: dict[str, Any]) -> dict[str, Any]:
    """A call's options with the first of the prompts `names` that there is, unless they have one already.

    Without such a prompt: none at all, not the default one, which is for plain `encode`.
    """
    if options.get("prompt_name") is not None or options.get("prompt") is not None:
        return options
    found = next((name for name in names if name in by_name), None)
    return {**options, **({"prompt_name": found} if found else {"prompt": ""})}
