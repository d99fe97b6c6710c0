"""Texts that came as token ids of the model's own tokenizer, through the same work as those that came as strings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from ..models.work import Prepared, Work
from ..text.tokenizer import TextTokenizer, Tokenized
from ..text.windows import Window
from .errors import ApiError

REFUSED = (
    "token ids are refused: those of another tokenizer would give wrong vectors without an error. Send strings "
    "(check_embedding_ctx_length=False in langchain-openai), or start the server with --accept-token-ids if they are "
    "of the model's own tokenizer"
)


def taking_ids(prepared: Prepared[Any]) -> Prepared[Any]:
    """The same for texts some of which are lists of ids.

    Raises:
        ApiError: a prompt stands in front, which ids have no room for.
    """
    if prepared.prompt:
        raise ApiError("Validation", "token ids take no prompt: send strings, or the prompt's ids in front")
    return replace(prepared, work=_WithIds(prepared.work, prepared.tokenizer))


class _WithIds:
    """Work whose texts may be lists of ids."""

    def __init__(self, work: Work[Any], tokenizer: TextTokenizer) -> None:
        self._work, self._tokenizer = work, tokenizer

    def tokenize(self, window: Window) -> Tokenized:
        """Rows of ids; strings are tokenized."""
        rows, truncated = [], 0
        for k, given in enumerate(window.texts, window.first):
            if isinstance(given, str):
                made = self._tokenizer([given], "", k)
                row, long = made.ids[0], bool(made.truncated)
            else:
                row, long = self._tokenizer.from_ids(given, k)
            rows.append(row)
            truncated += long
        return Tokenized(rows, np.arange(len(rows), dtype=np.int64), len(rows), truncated)

    def boundaries(self, tokenized: Tokenized) -> npt.NDArray[np.int64]:
        """As the work does."""
        return self._work.boundaries(tokenized)

    def finish(self, tokenized: Tokenized, results: npt.NDArray[Any]) -> Any:
        """As the work does."""
        return self._work.finish(tokenized, results)
