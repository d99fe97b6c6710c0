"""Pairs as one text each, by a chat template in parts; and the template's end, which a cut must not take away.

As sentence-transformers does it: the whole text is cut, then the tokens that end every text of this template are
written over the last ones of what was cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from ..errors import InvalidInputError
from ..manifest import ChatTemplate
from ..records import record
from .pairs import Pair

Ids = npt.NDArray[np.int64]
# Texts that share no token at their ends: what two pairs of them have in common there is the template's.
FILLERS = ("0", "1 2 3 4")


@record(frozen=True)
class Chat:
    """A template that pairs go through."""

    template: ChatTemplate

    def check_prompt(self, prompt: str) -> None:
        """Raise InvalidInputError for a prompt where the template takes none."""
        if prompt and self.template.prompted is None:
            raise InvalidInputError(
                "this reranker's chat template takes no system message, so there is no place for a prompt; pass "
                "prompt=''"
            )

    def render(self, pair: Pair, prompt: str = "") -> str:
        """The text of a query and a document; an empty prompt is none.

        Raises:
            InvalidInputError: see `check_prompt`.
        """
        self.check_prompt(prompt)
        parts = self.template.prompted if prompt else self.template.plain
        assert parts is not None
        given = {None: "", "query": pair[0], "document": pair[1], "prompt": prompt}
        return "".join(part.text + (given[part.slot].strip() if part.strip else given[part.slot]) for part in parts)

    def with_end(self, rows: list[Ids], max_length: int, prompt: str, ids_of: Callable[[str], Sequence[int]]) -> None:
        """Write the template's end over the last tokens of rows that have max_length.

        Args:
            rows: token ids of rendered pairs, which change in place.
            max_length: tokens at which they were cut.
            prompt: of all of them.
            ids_of: all token ids of a text.
        """
        full = [k for k, row in enumerate(rows) if len(row) >= max_length] if self.template.restore_end else []
        if not full:
            return
        end = self._end(prompt, ids_of)
        for k in full:
            if keep := min(len(end), len(rows[k])):
                rows[k] = np.concatenate((rows[k][: len(rows[k]) - keep], end[-keep:]))

    def _end(self, prompt: str, ids_of: Callable[[str], Sequence[int]]) -> Ids:
        """Tokens at the end of every text with this prompt; none where nothing of the pair stands in it."""
        one, other = (list(ids_of(self.render((filler, filler), prompt))) for filler in FILLERS)
        shorter = min(len(one), len(other))
        count = next((k for k in range(shorter) if one[-1 - k] != other[-1 - k]), shorter)
        return np.array(one[len(one) - count :] if count < shorter else [], dtype=np.int64)
