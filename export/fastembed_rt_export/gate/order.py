"""The gate's order, for every task: our tokens, the reference's, a word where they differ, then what becomes of them.

Cases are calls as users make them (encode, encode_query, encode_document, predict): with the prompt that each takes by
itself, with every named one, and with texts at and beyond the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from fastembed_rt.manifest import Manifest
from fastembed_rt.models.base import LoadedModel
from fastembed_rt.models.prompts import DOCUMENT_PROMPTS, QUERY_PROMPTS
from fastembed_rt.system.progress import progress

from ..static import UNLIMITED
from ..tokenizer import phobert
from .long_texts import EXACT, FAR_MORE, LENGTH, LONGEST, ONE_MORE, SHORT, AtLimit, Reach, at_limit, between, filled
from .parity import NO_PROMPT, Case, ask, groups, parity_texts
from .reference import REFERENCE_BATCH, versions, word_of
from .tokens import Row, check, comparable, fed, fed_to_reference

ENCODE = "encode"
ROLES = {"query": ("encode_query", QUERY_PROMPTS), "document": ("encode_document", DOCUMENT_PROMPTS)}
PROMPT_TEXTS = 24  # with another prompt than all texts have, these many texts of all kinds become vectors
SAME_TEXTS = 8  # with the same prompt through another call, these many
ALONE_TEXTS = 16  # these are also encoded one by one: neighbours must not matter


@dataclass(frozen=True)
class Prepared:
    """Cases of one encoder and our tokens of each."""

    cases: list[Case]
    rows: list[Row]

    @classmethod
    def of(cls, model: LoadedModel, cases: list[Case]) -> Prepared:
        """With the tokens that `model` would feed its graph."""
        return cls(cases, fed(model, cases))

    @property
    def compared(self) -> int:
        """Cases whose outputs are to be compared."""
        return sum(not case.tokens_only for case in self.cases)


@dataclass(frozen=True)
class Known:
    """What the reference gave for the cases whose outputs are compared, and what the report says of its calls."""

    cases: list[Case]
    expected: list[Any]
    alone: list[int]  # numbers of the cases that are computed one by one as well
    calls: dict[str, Any]


def text_cases(model: Any, calls: Sequence[str], reach: Reach) -> list[Case]:
    """Cases of single texts: all by the first of `calls`, some by the others and under every prompt, the limit by all.

    `reach` says how long the texts are whose vectors are compared.
    """
    texts, limit, longest = parity_texts(), model.max_length, reach.longest
    chosen = {case.id for case in texts[:: max(len(texts) // PROMPT_TEXTS, 1)]}
    few = {case.id for case in [case for case in texts if len(case.text) < SHORT][:: len(texts) // SAME_TEXTS]}
    prompts = {name: text for name, text in model.prompts.items() if text}
    counts = np.minimum(model.count_tokens([case.text for case in texts]), limit)
    asked: list[tuple[str, str | None, str]] = [(call, None, prompt_of(model, call)) for call in calls]
    first = asked[0][2]
    if first:
        asked.append((calls[0], NO_PROMPT, ""))
    asked += [(calls[0], name, text) for name, text in prompts.items()]
    cases: list[Case] = []
    edges: dict[str, AtLimit] = {}  # by what stands in front
    for call, name, text in asked:
        whole = not cases
        vectors = chosen if text != first else few
        made = [
            (case, (whole or case.id in vectors) and count <= longest)
            for case, count in zip(texts, counts, strict=True)
            if whole or case.id in chosen | few
        ]
        counted = partial(model.count_tokens, prompt=text)
        if whole:
            made += [(case, True) for case in between(reach, counted)]
        if limit < UNLIMITED:
            if text not in edges:
                edges[text] = at_limit(limit, counted)
            compared = limit <= longest and (whole or (text != first and limit <= SHORT))
            made += [(Case(EXACT, edges[text].exact, kind=LENGTH), compared)]
            made += [(Case(ONE_MORE, edges[text].one_more, kind=LENGTH), False)]
            made += [(Case(FAR_MORE, edges[text].far_more, kind=LENGTH), False)]
            if whole and limit > longest:
                made.append((Case(LONGEST, filled(longest, counted), kind=LENGTH), True))
        cases += [replace(case, call=call, prompt_name=name, tokens_only=not compared) for case, compared in made]
    return cases


def prompt_of(model: Any, call: str) -> str:
    """What a call puts in front by itself."""
    for own, names in ROLES.values():
        if call == own:
            return next((model.prompts[name] for name in names if name in model.prompts), "")
    return str(model.prompts[model.default_prompt_name]) if model.default_prompt_name else ""


def ask_reference(
    model: Any,
    directory: Path,
    described: Manifest,
    prepared: Prepared,
    options: dict[str, Any],
    given: Any = None,
    *,
    show_progress: bool = False,
) -> Known:
    """Compare tokens, then compute.

    Args:
        model: the reference.
        directory: model directory, for its vocabulary.
        described: of the encoder.
        prepared: its cases with our tokens.
        options: of the reference's calls.
        given: more options, of the calls that compute alone.
        show_progress: a bar over the tokens that it computes.

    Raises:
        ParityError: tokens that differ.
    """
    import torch

    cases, ours, texts = prepared.cases, prepared.rows, {case.id for case in parity_texts()}
    theirs = fed_to_reference(model, cases, **options)
    unscored = None if described.reranking is None else described.reranking.unscored
    if unscored is not None:
        theirs = [None if row is None else row.without_end(unscored) for row in theirs]
    if all(row is None for case, row in zip(cases, theirs, strict=True) if case.call == cases[0].call):
        # Its Router asks for a role with every text: all texts are those of the roles.
        cases = [replace(case, tokens_only=case.tokens_only and case.id not in texts) for case in cases]
    kept = comparable(cases, ours, theirs, described.max_positions)
    vocabulary = Tokenizer.from_file(str(directory / described.tokenizer.file))
    if type(tokenizer := getattr(model, "tokenizer", None)).__name__ in phobert.CLASSES:
        ours = [replace(row, ids=phobert.as_there(row.ids, vocabulary, tokenizer)) for row in ours]
    check(
        [cases[k] for k in kept],
        [ours[k] for k in kept],
        [theirs[k] for k in kept],
        vocabulary.id_to_token,
        word_of(model),
        versions(),
    )
    # A text without a single token has nothing of its own there: a neighbour's padding decides, or the model fails.
    wanted = [k for k in kept if ours[k].ids and not cases[k].tokens_only]
    # Where padding changes vectors, those of texts alone; in a table it takes a written padding token out of a text.
    table = described.sparse is not None and described.sparse.table
    size = REFERENCE_BATCH if described.padding and not table else 1
    lengths = [len(ours[k].ids) for k in wanted]
    with torch.inference_mode(), progress(sum(lengths), show_progress, unit="token", what="reference") as bar:
        computing = {"batch_size": size, **options, **(given or {})}
        expected = _by_batches(model, [cases[k] for k in wanted], lengths, bar.update, computing)
    alone = [k for k in range(0, len(wanted), max(len(wanted) // ALONE_TEXTS, 1)) if len(ours[wanted[k]].ids) <= SHORT]
    return Known([cases[k] for k in wanted], expected, alone, _calls(cases, ours, theirs, kept, wanted))


def _by_batches(
    model: Any, cases: Sequence[Case], lengths: Sequence[int], done: Callable[[int], None], options: Mapping[str, Any]
) -> list[Any]:
    """What the reference gives for each case: long ones first, as it sorts them itself, and some at a time.

    `done` is told the tokens of each step, of the `lengths` that cases have.
    """
    out: list[Any] = [None] * len(cases)
    for group in groups(cases):
        rows = sorted(group, key=lambda k: -lengths[k])
        for part in (rows[first : first + REFERENCE_BATCH] for first in range(0, len(rows), REFERENCE_BATCH)):
            for k, one in zip(part, ask(model, [cases[k] for k in part], **options), strict=True):
                out[k] = one
            done(sum(lengths[k] for k in part))
    return out


def _calls(
    cases: Sequence[Case], ours: Sequence[Row], theirs: Sequence[Row | None], kept: list[int], wanted: list[int]
) -> dict[str, Any]:
    """Of each call: how many texts, where they are cut, how long the longest is whose vectors are compared."""
    calls: dict[str, Any] = {}
    for call in dict.fromkeys(case.call for case in cases):
        mine = [k for k in range(len(cases)) if cases[k].call == call]
        if all(theirs[k] is None for k in mine):
            calls[call] = {"not_compared": "the reference has no route for it"}
            continue
        beyond = [row for k in mine if k not in kept and (row := theirs[k]) is not None]
        known: dict[str, Any] = {
            "tokenized": len([k for k in mine if k in kept]),
            "compared": len([k for k in mine if k in wanted]),
            "prompts": list(dict.fromkeys(cases[k].prompt_name for k in mine if cases[k].prompt_name)),
            "longest_tokenized": max(len(ours[k].ids) for k in mine),
            "longest_compared": max((len(ours[k].ids) for k in mine if k in wanted), default=0),
        }
        if any(cases[k].id == LONGEST for k in mine):
            known["beyond_budget"] = True
        if beyond:
            known["reference_cuts_at"] = max(len(row.ids) for row in beyond)
        calls[call] = known
    return calls
