"""Token ids before vectors: what a call feeds our graph beside what the reference's own call feeds its model.

Both are read where they are made, in the call that a user makes, so that limits, prompts, routes and lower-casing are
those of the call, and no model runs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from itertools import pairwise
from typing import Any

import numpy as np

from fastembed_rt.models.base import LoadedModel
from fastembed_rt.text.pairs import without_end

from ..errors import ParityError
from .parity import Case, groups

EXCERPT = 60  # characters of a text in a message
SAME_SINCE = (5, 16)  # of transformers 5: as tokenizer/rules.py has it
TOGETHER = 32  # texts that the reference pads to one length
Word = Callable[[int], str | None]


@dataclass(frozen=True)
class Row:
    """Tokens of a text, or pair, as they go into a model, padding left out."""

    ids: tuple[int, ...]
    seen: int  # how many of them the others see: all, but for those that fill a query up
    first: int | None = None  # of a pair: tokens of the first type; None where the model gets no types

    def without_end(self, token: int) -> Row:
        """A pair without this token at its end, which our runtime leaves out and the reference passes over."""
        ids = tuple(without_end(np.array(self.ids, np.int64), token).tolist())
        return Row(ids, len(ids), None if self.first is None else min(self.first, len(ids)))


class _TokensKnownError(Exception):
    """Ends a call when its tokens are known."""


def fed(model: LoadedModel, cases: Sequence[Case]) -> list[Row]:
    """What our runtime would feed its graph for each case."""
    rows: list[Row] = [Row((), 0)] * len(cases)
    for group in groups(cases):
        made: list[Row] = []

        def only_tokens(pieces: Iterator[Any], work: Any, made: list[Row] = made, **_: Any) -> Iterator[Any]:
            for piece in pieces:
                found = work.tokenize(piece)
                for k, ids in enumerate(found.ids):
                    seen = len(ids) if found.seen is None else int(found.seen[k])
                    first = None if found.first_segments is None else int(found.first_segments[k])
                    made.append(Row(tuple(ids.tolist()), seen, first))
            raise _TokensKnownError

        model._work = only_tokens  # type: ignore[method-assign]
        model._few = lambda *_: None  # type: ignore[method-assign]  # calls of a few texts go the same way
        try:
            with suppress(_TokensKnownError):
                getattr(model, cases[group[0]].call)([cases[k].inputs for k in group], **cases[group[0]].prompt)
        finally:
            del model._work, model._few
        for k, row in zip(group, made, strict=True):
            rows[k] = row
    return rows


class _Watched:
    """Stands in for a callable that makes features of inputs: keeps both of the call for all texts, and ends it there.

    Of other calls (for the length of a prompt alone) nothing is kept.
    """

    def __init__(self, made_by: Any) -> None:
        self.made_by = made_by
        self.number = 0
        self.inputs: list[Any] = []
        self.features: dict[str, Any] = {}

    def __call__(self, inputs: Any, *args: Any, **options: Any) -> Any:
        features = self.made_by(inputs, *args, **options)
        if len(inputs) == self.number:
            self.inputs, self.features = list(inputs), features
            raise _TokensKnownError
        return features

    def __getattr__(self, name: str) -> Any:
        return getattr(self.made_by, name)


def fed_to_reference(model: Any, cases: Sequence[Case], **options: Any) -> list[Row | None]:
    """What the reference feeds its model for each case; None where its Router has no route for the call.

    `model` is any of sentence-transformers'; `options` are what its calls get beside inputs and prompt.
    """
    # preprocess since version 6, tokenize before; cross-encoders called their tokenizer themselves.
    place = next((name for name in ("preprocess", "tokenize") if hasattr(type(model), name)), "tokenizer")
    watched, own = _Watched(getattr(model, place)), model.__dict__.get(place)
    rows: list[Row | None] = [None] * len(cases)
    setattr(model, place, watched)
    try:
        for group in groups(cases):
            if not _has_route(model, cases[group[0]].call, watched, options):
                continue
            # Alike in length, since a batch is padded to its longest.
            ordered = sorted(group, key=lambda k: len(cases[k].text) + len(cases[k].second or ""))
            for start in range(0, len(ordered), TOGETHER):
                part = ordered[start : start + TOGETHER]
                for k, row in zip(part, _read(model, watched, [cases[k] for k in part], options), strict=True):
                    rows[k] = row
    finally:
        if own is None and place != "tokenizer":
            delattr(model, place)
        else:
            setattr(model, place, watched.made_by)
    return rows


def _has_route(model: Any, call: str, watched: _Watched, options: dict[str, Any]) -> bool:
    """Whether a Router, if there is one, takes texts of this call: seen by a text that goes all the way through."""
    modules = model if hasattr(type(model), "__iter__") else ()
    if not any(hasattr(module, "sub_modules") for module in modules):
        return True
    watched.number = 0  # nothing is kept, nothing ended
    try:
        getattr(model, call)(["a"], **options)
    except ValueError as error:
        if "route" not in str(error).lower():
            raise
        return False
    return True


def _read(model: Any, watched: _Watched, cases: Sequence[Case], options: dict[str, Any]) -> list[Row]:
    # Two at least: a list of one text may be the prompt's, whose length the reference wants to know.
    inputs = [case.inputs for case in cases] * (2 if len(cases) == 1 else 1)
    watched.number = len(inputs)
    given = {"batch_size": len(inputs), **options, **cases[0].prompt}
    try:
        getattr(model, cases[0].call)(inputs, **given)
    except _TokensKnownError:
        pass
    else:
        raise ParityError(f"{type(model).__name__}.{cases[0].call} tokenizes in a way that cannot be compared")
    # Sorted by the reference, and until version 5 with the prompt in front, which is the same for all.
    keys = [_key(one) for one in watched.inputs]
    prompt = len(min(keys, key=len)) - len(min(map(_key, inputs), key=len))
    by_key = dict(zip((key[prompt:] for key in keys), _rows(watched.features), strict=True))
    return [by_key[_key(case.inputs)] for case in cases]


def _key(inputs: Any) -> str:
    return inputs if isinstance(inputs, str) else "\0\0".join(inputs)


def _rows(features: Any) -> list[Row]:
    ids = features["input_ids"]
    if "offsets" in features:  # a StaticEmbedding: all texts in one row
        edges = [*features["offsets"].tolist(), len(ids)]
        parts = [ids[start:end].tolist() for start, end in pairwise(edges)]
        return [Row(tuple(part), len(part)) for part in parts]
    mask = features["attention_mask"].bool()
    expanded = features.get("query_expansion_positions")
    kept = mask if expanded is None else mask | expanded
    types = features.get("token_type_ids")
    rows = []
    for k in range(len(ids)):
        first = None if types is None else int((types[k][kept[k]] == 0).sum())
        rows.append(Row(tuple(ids[k][kept[k]].tolist()), int(mask[k].sum()), first))
    return rows


def comparable(cases: Sequence[Case], ours: Sequence[Row], theirs: Sequence[Row | None], positions: int) -> list[int]:
    """Numbers of the cases that both sides can be asked for.

    Left out are calls that the reference has no route for, and texts that are cut here because the model has
    `positions` for no more tokens, while the reference goes beyond them or fails there.
    """
    return [
        k
        for k, row in enumerate(theirs)
        if row is not None and not (len(row.ids) > positions and len(ours[k].ids) == positions)
    ]


def check(
    cases: Sequence[Case],
    ours: Sequence[Row],
    theirs: Sequence[Row | None],
    our_word: Word,
    their_word: Word,
    reference: str,
) -> None:
    """Raise ParityError at tokens that differ; the message has the shortest text of which they do, and where.

    Tokens are counted from 0. Words are those of each side's own vocabulary.
    """
    differ = [k for k in range(len(cases)) if (row := theirs[k]) is not None and not _same(ours[k], row)]
    if not differ:
        return
    worst = min(differ, key=lambda k: (len(cases[k].text) + len(cases[k].second or ""), k))
    a, b = ours[worst], theirs[worst]
    assert b is not None
    case = cases[worst]
    found = f"tokenized differently: {_excerpt(case)} ({case}): {len(a.ids)} against {len(b.ids)} tokens"
    places = [k for k in range(max(len(a.ids), len(b.ids))) if a.ids[k : k + 1] != b.ids[k : k + 1]]
    if places:
        at = places[0]
        left, right = _at(a.ids, at, our_word), _at(b.ids, at, their_word)
        found += f", the first difference at token {at}: {left} against {right}"
    elif a.seen != b.seen:
        found += f", of which the others see {a.seen} against {b.seen}"
    else:
        found += f", of which {a.first} against {b.first} are of the first text"
    raise ParityError(f"{found}; {len(differ)} of {len(cases)} differ from {reference}{_older()}")


def _older() -> str:
    """What to do where the installed transformers sets tokenizers up in ways that no rules here follow."""
    version = metadata.version("transformers")
    found = re.match(r"5\.(\d+)", version)
    if found is not None and int(found[1]) < SAME_SINCE[1]:
        since = ".".join(map(str, SAME_SINCE))
        return f"; transformers {version} makes some tokenizers in other ways than {since} and later: update it"
    return ""


def _same(ours: Row, theirs: Row) -> bool:
    types = ours.first == theirs.first or ours.first is None or theirs.first is None
    return ours.ids == theirs.ids and ours.seen == theirs.seen and types


def _at(ids: tuple[int, ...], place: int, word: Word) -> str:
    if place >= len(ids):
        return "nothing"
    found = word(ids[place])
    return repr(found) if found is not None else f"token {ids[place]}"


def _excerpt(case: Case) -> str:
    text = case.text if case.second is None else f"{case.text} | {case.second}"
    return repr(text if len(text) <= EXCERPT else f"{text[:EXCERPT]}...")
