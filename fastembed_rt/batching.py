"""Batching: token ids in, batches of padded arrays out. Knows no tokenizer, no session.

Texts of like length go together, so that little is spent on padding; a batch is bounded by tokens, padding included, so
that memory is bounded too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]


def plan(lengths: npt.NDArray[np.int64], max_batch_tokens: int) -> list[npt.NDArray[np.int64]]:
    """Batches of row numbers, longest texts first; rows x longest row <= max_batch_tokens, but for a single row.

    Args:
        lengths: (n,) tokens of each row.
        max_batch_tokens: bound on the padded tokens of a batch.
    """
    order = np.argsort(-lengths, kind="stable")  # stable: same input, same batches, same bits
    batches = []
    start = 0
    while start < len(order):
        longest = max(int(lengths[order[start]]), 1)
        stop = start + max(max_batch_tokens // longest, 1)
        batches.append(order[start:stop])
        start = stop
    return batches


def pad(rows: Sequence[Ids], pad_token_id: int) -> tuple[Ids, Ids]:
    """Rows of any length -> input_ids (B, S), filled on the right, and attention_mask (B, S)."""
    lengths = np.array([len(row) for row in rows])
    longest = int(lengths.max())
    mask = np.arange(longest) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_token_id, dtype=np.int64)
    input_ids[mask] = np.concatenate(rows)
    return input_ids, mask.astype(np.int64)


def without_prompt(mask: Ids, prompt_tokens: int) -> Ids:
    """The mask with the first `prompt_tokens` of each row switched off: what is pooled when prompts are left out."""
    pooled = mask.copy()
    pooled[:, :prompt_tokens] = 0
    return pooled
