"""Whether padding changes the states of a text's own tokens, and how far two runs of an encoder are apart.

Most encoders hide padding behind the attention mask. Where something else passes it on (a convolution over the
tokens, a landmark that averages over them, a neighbour's embedding), the vector of a text depends on how long its
neighbours in the batch are. Then only that of the text alone is the text's own. Knows arrays, neither torch nor ONNX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from fastembed_rt.run.batching import Ids, pad

from ..graph.graph import Graph, Value
from ..graph.target import Tokens, masked
from ..graph.weight import Floats

States = Callable[[Ids, Ids], Floats]  # input_ids, attention_mask (B, S) -> last_hidden_state (B, S, H)

ROUNDING = 1e-4  # of the largest state: far above what another order of sums makes, far below what padding makes
LENGTHS = (1, 2, 3, 5, 9, 18, 37)  # tokens of the texts that are tried, as far as there are positions
PADDINGS = (1, 4, 30)  # tokens behind them
LONG = 512  # tokens of one more text, for encoders that see blocks of tokens
SEED = 0
NOTE = (
    "padding changes the states of this model, in the reference by up to {change:.1g} of the largest; a vector is that "
    "of the text alone, and batches have texts of one length only"
)
REFUSAL = "padding_changes_the_vectors_of_this_model/run_texts_of_one_length_together"  # a node's name, in its error


def sample(limit: int, vocabulary: int, pad_token_id: int) -> list[Ids]:
    """Random texts of several lengths up to `limit`, without the pad token."""
    random = np.random.default_rng(SEED)
    lengths = sorted({min(length, limit) for length in (*LENGTHS, min(limit, LONG))})
    tokens = np.setdiff1d(np.arange(vocabulary), [pad_token_id])
    return [random.choice(tokens, length) for length in lengths]


def change_by_padding(states: States, rows: Sequence[Ids], pad_token_id: int, limit: int) -> float:
    """Largest change of a text's states when padding stands behind it, relative to the largest state of the text alone.

    Args:
        states: the encoder.
        rows: texts.
        pad_token_id: what fills up.
        limit: tokens that there are positions for, padding included.
    """
    changes = [0.0]
    for row in rows:
        expected = alone(states, row)
        for length in sorted({min(len(row) + padding, limit) for padding in PADDINGS} - {len(row)}):
            ids, mask = pad([row, np.resize(row, length)], pad_token_id)  # the other text sets the batch's length
            changes.append(difference(states(ids[:1], mask[:1])[0, : len(row)], expected))
    return max(changes)


def difference(states: Floats, expected: Floats) -> float:
    """Largest |states - expected| relative to the largest |expected|; infinite where one is not a number."""
    if states.shape != expected.shape or not (np.isfinite(states).all() and np.isfinite(expected).all()):
        return float("inf")
    return float(np.abs(states - expected).max() / max(float(np.abs(expected).max()), 1e-30))


def refuse_padding(graph: Graph, tokens: Tokens) -> Value:
    """input_ids (B, S) that only a batch without padding has: with any, the graph stops in the node `REFUSAL`.

    Whoever runs the graph, vectors that depend on the batch do not leave it without a word.
    """
    mask = masked(tokens).attention_mask
    shape = graph.node("Shape", mask, name="padding/shape")
    seen = graph.node("ReduceSum", mask, keepdims=0, name="padding/seen")
    places = graph.node("ReduceProd", shape, keepdims=0, name="padding/places")
    hidden = graph.node("Sub", places, seen, name="padding/hidden")
    wanted = graph.node("Add", shape, hidden, name="padding/wanted")  # another shape than there is if any are hidden
    return graph.node("Reshape", tokens.input_ids, wanted, name=REFUSAL)


def alone(states: States, row: Ids) -> Floats:
    """States (S, H) of one text, nothing beside it."""
    found: Floats = states(row[None], np.ones((1, len(row)), dtype=np.int64))[0]
    return found
