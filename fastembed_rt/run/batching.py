"""Batching: token ids in, batches of padded arrays out. Knows no tokenizer, no session.

Texts of like length go together, so that little is spent on padding; a batch is bounded by tokens, padding included, so
that memory is bounded too.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Ids = npt.NDArray[np.int64]
Feeds = dict[str, npt.NDArray[Any]]  # integers and bools, by name of the input
LANES = 16  # float32 in the widest vectors
PADDED = frozenset({"unpack", "pack", "token_mask", "pooling_mask"})  # inputs of packed graphs that have places (B, S)
_PLACES = np.arange(512)  # of a single text: all of them share it
_PLACES.flags.writeable = False
POSITIONS_AFTER_PAD = "position_ids_after_pad_"  # an input of cuda graphs, with the pad id behind it


def plan(lengths: Ids, max_batch_tokens: int, *, padded: bool = True, mixed_lengths: bool = True) -> list[Ids]:
    """Batches of row numbers, longest texts first; no batch has more tokens than the bound, but for a single row.

    Args:
        lengths: (n,) tokens of each row.
        max_batch_tokens: bound on the tokens of a batch.
        padded: rows count as long as the longest of their batch.
        mixed_lengths: False where padding changes what the graph gives: the rows of a batch have one length.
    """
    order = np.argsort(-lengths, kind="stable")  # stable: same input, same batches, same bits
    falling = -lengths[order]
    ends = np.cumsum(lengths[order])
    batches = []
    start = 0
    while start < len(order):
        if padded:
            stop = start + max_batch_tokens // max(int(lengths[order[start]]), 1)
        else:
            before = int(ends[start - 1]) if start else 0
            stop = int(np.searchsorted(ends, before + max_batch_tokens, side="right"))
        if not mixed_lengths:
            stop = min(stop, int(np.searchsorted(falling, falling[start], side="right")))
        stop = max(stop, start + 1)
        batches.append(order[start:stop])
        start = stop
    return batches


@dataclass(frozen=True)
class Limits:
    """What may be one batch."""

    tokens: int  # bound on them, but for a single row
    padded: bool = True  # rows count as long as the longest of their batch
    mixed_lengths: bool = True  # False: the rows of a batch have one length

    def is_one_batch(self, rows: Sequence[Ids]) -> bool:
        """Whether the rows, each (tokens,), are."""
        if not self.mixed_lengths and len({len(row) for row in rows}) > 1:
            return False
        lengths = map(len, rows)  # no array: single texts come this way
        tokens = len(rows) * max(lengths, default=0) if self.padded else sum(lengths)
        return tokens <= self.tokens

    def plan(self, lengths: Ids) -> list[Ids]:
        """Batches of row numbers for rows of these lengths (n,); see `plan`."""
        return plan(lengths, self.tokens, padded=self.padded, mixed_lengths=self.mixed_lengths)


def pad(rows: Sequence[Ids], pad_token_id: int) -> tuple[Ids, Ids]:
    """Rows of any length -> input_ids (B, S), filled on the right, and attention_mask (B, S)."""
    lengths = np.array([len(row) for row in rows])
    longest = int(lengths.max())
    mask = np.arange(longest) < lengths[:, None]
    input_ids = np.full(mask.shape, pad_token_id, dtype=np.int64)
    input_ids[mask] = np.concatenate(rows)
    return input_ids, mask.astype(np.int64)


def packed(rows: Sequence[Ids], inputs: Collection[str] = PADDED) -> Feeds:
    """Rows of any length -> the inputs of a packed graph: tokens one after the other, and where they stand in (B, S).

    S is rounded up to a multiple of 16: softmax sums a row in vector lanes, and a row that fills whole vectors is
    summed in the same order whatever its neighbours' lengths are. PADDED are made only where `inputs` has one of them.
    """
    if len(rows) == 1 and len(rows[0]) <= len(_PLACES):  # which a single text waits for
        made: Feeds = {
            "input_ids": rows[0],
            "position_ids": _PLACES[: len(rows[0])],
            "starts": np.array([0, len(rows[0])]),
        }
        starts, lengths = made["starts"][:1], made["starts"][1:]
    else:
        # Methods, not numpy's functions of the same names: a few calls that run together wait for these, too.
        lengths = np.array([len(row) for row in rows])
        boundaries = np.zeros(len(rows) + 1, np.int64)
        lengths.cumsum(out=boundaries[1:])
        starts = boundaries[:-1]
        made = {
            "input_ids": np.concatenate(rows),
            "position_ids": np.arange(boundaries[-1]) - starts.repeat(lengths),
            "starts": boundaries,
        }
    if not PADDED.isdisjoint(inputs):
        places = np.arange(-(-int(lengths.max()) // LANES) * LANES)
        mask = places < lengths[:, None]
        made["unpack"] = starts[:, None] + np.minimum(places, lengths[:, None] - 1)
        made["pack"] = np.flatnonzero(mask)
        made["token_mask"] = mask
    return made


def packed_for_cuda(rows: Sequence[Ids], inputs: Sequence[str], tokens: int = 0, longest: int = 0) -> Feeds:
    """Rows of any length -> everything that a graph of the cuda target may take; see graph/cuda.py for the shapes.

    S is rounded up to a multiple of 16, which the attention's kernels want of a bias.

    Args:
        rows: token ids, at least one in each.
        inputs: those of the graph; of the ones whose names have a pad id, only these are made.
        tokens: at least so many in `input_ids`, for graphs that are captured: what is filled up belongs to no text.
        longest: S at least.
    """
    lengths = np.array([len(row) for row in rows])
    boundaries = np.concatenate([[0], np.cumsum(lengths)])
    width = max(-(-int(lengths.max()) // LANES) * LANES, longest)
    places = np.arange(width)
    mask = places < lengths[:, None]
    total = max(int(boundaries[-1]), tokens)
    input_ids, position_ids = np.zeros(total, np.int64), np.zeros(total, np.int64)
    input_ids[: boundaries[-1]] = np.concatenate(rows)
    position_ids[: boundaries[-1]] = np.arange(boundaries[-1]) - np.repeat(boundaries[:-1], lengths)
    made: Feeds = {
        "input_ids": input_ids,
        "position_ids": position_ids,
        "token_offset": np.concatenate([np.flatnonzero(mask), np.flatnonzero(~mask)]).reshape(mask.shape),
        "cumulative_sequence_length": boundaries.astype(np.int32),
        "unpack": boundaries[:-1, None] + np.minimum(places, lengths[:, None] - 1),
        "places": places,
        "attention_mask": mask.astype(np.int64),
    }
    made["token_offset"] = made["token_offset"].astype(np.int32)
    for name in inputs:
        if name.startswith(POSITIONS_AFTER_PAD):
            made[name] = _after_pad(input_ids, boundaries, int(name.removeprefix(POSITIONS_AFTER_PAD)))
    return made


def _after_pad(input_ids: Ids, boundaries: Ids, pad: int) -> Ids:
    """Positions pad + 1, pad + 2, ... in each text; a token that is the pad id has `pad` and is not counted."""
    counts = np.concatenate([[0], np.cumsum(input_ids != pad)])
    before = np.zeros_like(input_ids)  # tokens counted before the text
    before[: boundaries[-1]] = np.repeat(counts[boundaries[:-1]], np.diff(boundaries))
    made: Ids = np.where(input_ids == pad, pad, counts[1:] - before + pad)
    made[boundaries[-1] :] = pad
    return made


def feeds(rows: Sequence[Ids], inputs: Sequence[str], pad_token_id: int, left_out: Ids) -> Feeds:
    """What a graph with these inputs takes for a batch: packed where it wants that, else padded.

    `left_out` (n,) is how many tokens at the beginning of each row are not pooled.
    """
    mask: npt.NDArray[Any] | None
    if "token_offset" in inputs:
        made = packed_for_cuda(rows, inputs)
        mask = made["attention_mask"].astype(bool)
    elif "position_ids" in inputs:
        whole = packed(rows, inputs)
        mask = whole.get("token_mask")
        made = {name: whole[name] for name in inputs if name in whole}
    else:
        input_ids, mask = pad(rows, pad_token_id)
        made = {"input_ids": input_ids, "attention_mask": mask}
    if mask is not None and "pooling_mask" in inputs:
        made["pooling_mask"] = without_prompt(mask.astype(np.int64), left_out)
    return made


def without_prompt(mask: Ids, prompt_tokens: int | Ids) -> Ids:
    """The mask with the first tokens of each row switched off: what is pooled when prompts are left out.

    Args:
        mask: (B, S) attention mask.
        prompt_tokens: how many of them, for all rows or (B,) for each.
    """
    pooled: Ids = mask * (np.arange(mask.shape[1]) >= np.reshape(prompt_tokens, (-1, 1)))
    return pooled
