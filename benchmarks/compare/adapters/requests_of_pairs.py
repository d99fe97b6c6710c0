"""What adapters of rerankers share: a text is a request, a question and the passages to be put in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Any

Request = Sequence[Any]  # a question, and a list of passages
FIRST = ["How long does it take until there is a score?", ["It takes a second.", "There is none."]]


def of_pairs(
    score: Callable[[list[tuple[str, str]]], Any], count_tokens: Callable[[list[tuple[str, str]]], list[int]]
) -> dict[str, Any]:
    """What a reranker gives `Loaded`, of functions that take pairs."""
    return {
        "encode": lambda requests: by_request(score(flat(requests)), requests),
        "count_tokens": token_counter(count_tokens),
        **FORM,
    }


def flat(requests: Sequence[Request]) -> list[tuple[str, str]]:
    """All pairs of all requests, in order."""
    return [(question, passage) for question, passages in requests for passage in passages]


def by_request(scores: Any, requests: Sequence[Request]) -> list[Any]:
    """Scores of all pairs, parted again: an array for each request."""
    ends = [0]
    for _, passages in requests:
        ends.append(ends[-1] + len(passages))
    return [scores[begin:end] for begin, end in pairwise(ends)]


def count(requests: Sequence[Request]) -> int:
    """Pairs of all requests."""
    return sum(len(passages) for _, passages in requests)


def rows(scores: Sequence[Any]) -> Iterator[Any]:
    """Scores of each request less their mean: the cosine of two such rows is the correlation of the scores."""
    import numpy as np

    for row in scores:
        numbers = np.asarray(row, dtype=np.float64)
        yield numbers - numbers.mean()


def token_counter(count_tokens: Callable[[list[tuple[str, str]]], list[int]]) -> Callable[[list[Request]], list[int]]:
    """Function from requests to the tokens of all their pairs, of one that counts those of pairs."""

    def of_requests(requests: list[Request]) -> list[int]:
        return [sum(count_tokens([(question, passage) for passage in passages])) for question, passages in requests]

    return of_requests


# How answers are compared and counted, in the words of `Loaded`.
FORM: dict[str, Any] = {"rows": rows, "count": count, "first": FIRST}
