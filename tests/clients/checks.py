"""What a call of a client must give: the models' own vectors and scores, or an error with the server's words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

SCORE_TOLERANCE = 1e-6  # of scores in float32 between batches of other shapes
Check = Callable[[Any, "Expected"], None]


@dataclass(frozen=True)
class Expected:
    """The case, and what the models themselves make of it."""

    texts: list[str]
    names: list[str]  # of the models
    dimensions: int
    encoded: Any  # (n, dim) float32
    queries: Any
    documents: Any
    unnormalized: Any  # near
    shorter: Any
    scores: Any  # (n,) of the reranker
    ubinary: Any
    sparse: Any  # vectors of the sparse model
    max_length: int  # of the encoder


def vectors(kind: str = "encoded", count: int | None = None, times: int = 1) -> Check:
    """Exactly the model's, `count` first of them; numbers of JSON are those of float32."""

    def check(gave: Any, expected: Expected) -> None:
        wanted = np.concatenate([getattr(expected, kind)[:count]] * times)
        np.testing.assert_array_equal(np.array(gave, dtype=np.float32), wanted)

    return check


def sparse(count: int | None = None) -> Check:
    """Exactly the model's indices and values, `count` first of the vectors."""

    def check(gave: Any, expected: Expected) -> None:
        wanted = expected.sparse[:count]
        assert len(gave) == len(wanted)
        for (indices, values), vector in zip(gave, wanted, strict=True):
            assert indices == vector.indices.tolist()
            np.testing.assert_array_equal(np.array(values, dtype=np.float32), vector.values)

    return check


def ubinary(gave: Any, expected: Expected) -> None:
    np.testing.assert_array_equal(gave, expected.ubinary)


def unnormalized(gave: Any, expected: Expected) -> None:
    """As the checkpoint has them, near a reference in torch."""
    np.testing.assert_allclose(gave, expected.unnormalized, rtol=0, atol=2e-5)
    assert np.abs(np.linalg.norm(gave, axis=1) - 1).min() > 0.1


def cosines(gave: Any, expected: Expected) -> None:
    wanted = expected.encoded[1:] @ expected.encoded[0]
    np.testing.assert_allclose(gave, wanted, rtol=0, atol=1e-6)


def ranked(count: int | None = None) -> Check:
    """Places by falling score, the best `count`, with the reranker's scores."""

    def check(gave: Any, expected: Expected) -> None:
        order = np.argsort(-expected.scores, kind="stable")[:count]
        assert [place for place, _ in gave] == order.tolist()
        np.testing.assert_allclose([score for _, score in gave], expected.scores[order], rtol=0, atol=SCORE_TOLERANCE)

    return check


def order(gave: Any, expected: Expected) -> None:
    assert gave == np.argsort(-expected.scores, kind="stable").tolist()


def texts_in_order(gave: Any, expected: Expected) -> None:
    assert gave == [expected.texts[k] for k in np.argsort(-expected.scores, kind="stable")]


def one_vector(gave: Any, expected: Expected) -> None:
    """Of a text in parts, which the client has averaged."""
    assert np.shape(gave) == (1, expected.encoded.shape[1])
    assert 0 < np.linalg.norm(gave) <= 1


def limit(gave: Any, expected: Expected) -> None:
    assert gave == expected.max_length


def second_text(gave: Any, expected: Expected) -> None:
    assert gave == [expected.texts[1]]


def model_names(gave: Any, expected: Expected) -> None:
    assert gave == expected.names


def equals(wanted: Any) -> Check:
    def check(gave: Any, expected: Expected) -> None:
        assert gave == wanted

    return check


@dataclass(frozen=True)
class Raises:
    """A class of the client's, the status, words of the server in what it says."""

    kind: str
    status: int | None
    said: str = ""

    def check(self, told: Mapping[str, Any]) -> None:
        assert "raised" in told, f"gave {str(told.get('gave'))[:200]}"
        assert self.kind in told["raised"], told
        assert told["status"] == self.status, told
        assert self.said in told["said"], told


UNKNOWN, MANY, KEYS, IDS, LONG, RANGES = (
    "no model has this name",
    "max_client_batch_size is",
    "one of the server's keys",
    "check_embedding_ctx_length",
    "the model's context length",
    "needs ranges of the numbers",
)
