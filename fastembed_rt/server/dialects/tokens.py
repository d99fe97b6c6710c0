"""text-embeddings-inference's /tokenize and /decode: what tokens a text has, and what text tokens are.

Both make far more of a body than it holds. So it is written in pieces, by threads that look between two of them whether
it is still wanted, and none is made for more tokens than the queue takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ...text.tokenizer import TextTokenizer
from ...text.windows import estimate
from ..aside import Check
from ..exchange import Exchange, checked
from ..inputs import Given
from ..limits import check_tokens
from ..routes import Route
from ..writing import dumped
from . import tei_bodies as bodies
from .tei import GROUP, not_empty, posted

AT_ONCE = 4096  # tokens that are made and written between two looks
Ids = npt.NDArray[np.int64]


async def tokenize(exchange: Exchange, value: Any) -> bytes:
    """Tokens of texts, uncut, with the places in UTF-8 where they begin and end."""
    body = checked(bodies.TOKENIZE, value)
    given: Given = body["inputs"]
    not_empty(given.texts, "inputs")
    served = exchange.find(body)
    exchange.check_count(len(given.texts))
    prepared = await served.prepared(prompt_name=exchange.options(body)["prompt_name"])
    tokenizer, prompt, texts = prepared.tokenizer, prepared.prompt, given.texts
    limits = exchange.app.limits

    def work(check: Check) -> bytes:
        written: list[bytes] = []
        tokens = 0
        for some in _groups(texts):
            check()
            for text, (ids, places, special) in zip(some, tokenizer.whole(some, prompt, len(written)), strict=True):
                tokens += len(ids)
                check_tokens(tokens, limits)  # letters of some scripts have more of them than was estimated
                shown = np.ones(len(ids), bool) if body["add_special_tokens"] else ~special
                found = ids[shown], places[shown], special[shown]
                written.append(b"[" + b",".join(_pieces(tokenizer, prompt + text, *found, check)) + b"]")
        return b"[" + b",".join(written) + b"]"

    return await exchange.aside(work, prepared, texts=len(texts), tokens=sum(map(estimate, texts)))


def _groups(texts: Sequence[str]) -> Iterator[list[str]]:
    """Texts that are tokenized together: the tokenizer's own records of tokens are large."""
    group: list[str] = []
    tokens = 0
    for text in texts:
        group.append(text)
        tokens += estimate(text)
        if tokens >= AT_ONCE:
            yield group
            group, tokens = [], 0
    if group:
        yield group


def _pieces(
    tokenizer: TextTokenizer, text: str, ids: Ids, places: Ids, special: npt.NDArray[np.bool_], check: Check
) -> Iterator[bytes]:
    """Tokens of a text as JSON, without the list's brackets; `places` (tokens, 2) are of characters."""
    in_bytes = _in_utf8(text, places)
    for start in range(0, len(ids), AT_ONCE):
        check()
        some = slice(start, start + AT_ONCE)
        rows: list[dict[str, Any]] = []
        columns = (column[some].tolist() for column in (ids, places, in_bytes, special))
        for number, (first, last), (begin, end), is_special in zip(*columns, strict=True):
            if is_special:
                (word,) = tokenizer.tokens([number])
                rows.append({"id": number, "text": word, "special": True, "start": None, "stop": None})
            else:
                place = {"text": text[first:last], "special": False, "start": begin, "stop": end}
                rows.append({"id": number, **place})
        yield dumped(rows)[1:-1]


def _in_utf8(text: str, places: Ids) -> Ids:
    """Places of characters as those of bytes."""
    if text.isascii():
        return places
    letters = np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
    widths = 1 + (letters >= 0x80) + (letters >= 0x800) + (letters >= 0x10000)
    begins: Ids = np.concatenate([[0], np.cumsum(widths)])
    return begins[places]


async def decode(exchange: Exchange, value: Any) -> bytes:
    """Texts of token ids."""
    body = checked(bodies.DECODE, value)
    rows: list[list[int]] = body["ids"]
    not_empty(rows, "ids")
    served = exchange.find(body)
    exchange.check_count(len(rows))
    prepared = await served.prepared()
    skip = body["skip_special_tokens"]

    def work(check: Check) -> bytes:
        written: list[bytes] = []
        for row in rows:
            check()
            written.append(dumped(prepared.tokenizer.decode(row, skip_special_tokens=skip)))
        return b"[" + b",".join(written) + b"]"

    return await exchange.aside(work, prepared, texts=len(rows), tokens=sum(map(len, rows)))


def routes() -> list[Route]:
    """Of the two."""
    return [
        Route(method="POST", path=path, handler=posted(answer), body=body, answer=shape, group=GROUP, says=says)
        for path, answer, body, shape, says in (
            ("/tokenize", tokenize, bodies.TOKENIZE, bodies.LISTED, "Tokens of texts"),
            ("/decode", decode, bodies.DECODE, bodies.TEXTS, "Texts of token ids"),
        )
    ]
