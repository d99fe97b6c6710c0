"""Batches hold every row once and stay within their budget; arrays hold the rows and nothing else."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastembed_rt.run import batching

Ids = npt.NDArray[np.int64]
lengths_of_rows = st.lists(st.integers(0, 600), max_size=60).map(lambda values: np.array(values, dtype=np.int64))
budgets = st.integers(1, 3000)
rows_of_ids = st.lists(
    st.lists(st.integers(0, 2**40), max_size=40).map(lambda ids: np.array(ids, dtype=np.int64)), min_size=1, max_size=12
)


@given(lengths_of_rows, budgets)
def test_every_row_is_in_exactly_one_batch(lengths: Ids, budget: int) -> None:
    batches = batching.plan(lengths, budget)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    assert all(len(batch) for batch in batches)


@given(lengths_of_rows, budgets)
def test_a_batch_stays_within_its_budget_unless_it_is_a_single_row(lengths: Ids, budget: int) -> None:
    for batch in batching.plan(lengths, budget):
        assert len(batch) == 1 or len(batch) * lengths[batch].max() <= budget


@given(lengths_of_rows, budgets)
def test_a_batch_is_as_full_as_its_budget_allows(lengths: Ids, budget: int) -> None:
    for batch in batching.plan(lengths, budget)[:-1]:
        assert (len(batch) + 1) * max(lengths[batch].max(), 1) > budget


@given(lengths_of_rows, budgets)
def test_rows_go_longest_first_and_equal_rows_keep_their_order(lengths: Ids, budget: int) -> None:
    order = [row for batch in batching.plan(lengths, budget) for row in batch.tolist()]
    assert order == sorted(range(len(lengths)), key=lambda row: (-lengths[row], row))


@given(lengths_of_rows, budgets)
def test_the_same_lengths_give_the_same_batches(lengths: Ids, budget: int) -> None:
    first, second = batching.plan(lengths, budget), batching.plan(lengths.copy(), budget)
    assert [batch.tolist() for batch in first] == [batch.tolist() for batch in second]


def test_no_rows_give_no_batches() -> None:
    assert batching.plan(np.array([], dtype=np.int64), 100) == []


@given(lengths_of_rows, budgets)
def test_without_padding_a_batch_is_as_full_as_its_rows_allow(lengths: Ids, budget: int) -> None:
    batches = batching.plan(lengths, budget, padded=False)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    assert all(len(batch) == 1 or lengths[batch].sum() <= budget for batch in batches)
    for batch, following in itertools.pairwise(batches):
        assert lengths[batch].sum() + lengths[following[0]] > budget


@given(lengths_of_rows, budgets)
def test_where_padding_changes_vectors_a_batch_has_one_length_and_is_as_full_as_it_may(
    lengths: Ids, budget: int
) -> None:
    batches = batching.plan(lengths, budget, mixed_lengths=False)
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    assert all(len(set(lengths[batch].tolist())) == 1 for batch in batches)
    assert all(len(batch) == 1 or lengths[batch].sum() <= budget for batch in batches)
    for batch, following in itertools.pairwise(batches):
        same = lengths[batch[0]] == lengths[following[0]]
        assert not same or (len(batch) + 1) * max(lengths[batch[0]], 1) > budget


@given(rows_of_ids, st.integers(0, 9))
def test_padded_rows_stand_on_the_left_and_the_mask_says_how_far(rows: list[Ids], pad_id: int) -> None:
    input_ids, mask = batching.pad(rows, pad_id)
    assert input_ids.shape == mask.shape == (len(rows), max(len(row) for row in rows))
    assert input_ids.dtype == mask.dtype == np.int64
    for row, ids, ones in zip(rows, input_ids, mask, strict=True):
        assert ids.tolist() == [*row.tolist(), *[pad_id] * (len(ids) - len(row))]
        assert ones.tolist() == [1] * len(row) + [0] * (len(ids) - len(row))


nonempty_rows = rows_of_ids.map(lambda rows: [np.append(row, 7) for row in rows])


@given(nonempty_rows)
def test_packed_tokens_unpack_into_padded_rows_and_back(rows: list[Ids]) -> None:
    feeds = batching.packed(rows)
    tokens, mask, unpack = feeds["input_ids"], feeds["token_mask"], feeds["unpack"]
    assert tokens.tolist() == [token for row in rows for token in row.tolist()]
    assert feeds["position_ids"].tolist() == [place for row in rows for place in range(len(row))]
    assert mask.dtype == np.bool_
    padded = tokens[unpack]
    assert padded.shape == mask.shape
    for row, ids, ones in zip(rows, padded, mask, strict=True):
        assert ids[: len(row)].tolist() == row.tolist()
        assert ones.tolist() == [True] * len(row) + [False] * (len(ids) - len(row))
    np.testing.assert_array_equal(padded.reshape(-1)[feeds["pack"]], tokens)


@pytest.mark.parametrize("length", [1, 16, 511, 512, 513, 2000])
def test_a_row_alone_is_packed_as_beside_others(length: int) -> None:
    row = np.arange(length)
    alone = batching.packed([row])
    beside = batching.packed([row, np.array([3])])
    for name in ("input_ids", "position_ids"):
        np.testing.assert_array_equal(alone[name], beside[name][:length])
    assert alone["starts"].tolist() == beside["starts"].tolist()[:2] == [0, length]
    for name in ("unpack", "token_mask"):
        np.testing.assert_array_equal(alone[name], beside[name][:1])
    assert {array.dtype for name, array in alone.items() if name != "token_mask"} == {np.dtype(np.int64)}


def test_places_of_padded_rows_are_made_only_for_graphs_that_take_them() -> None:
    rows = [np.arange(3), np.arange(5)]
    assert set(batching.packed(rows, ("input_ids", "position_ids", "starts"))) == {
        "input_ids",
        "position_ids",
        "starts",
    }
    left_out = np.array([1, 0])
    made = batching.feeds(rows, ("input_ids", "position_ids", "starts", "pooling_mask"), 0, left_out)
    assert made["pooling_mask"].tolist() == [[0, 1, 1] + [0] * 13, [1] * 5 + [0] * 11]


@given(nonempty_rows)
def test_packed_rows_are_as_wide_as_whole_vectors(rows: list[Ids]) -> None:
    width, longest = batching.packed(rows)["token_mask"].shape[1], max(len(row) for row in rows)
    assert width % batching.LANES == 0
    assert longest <= width < longest + batching.LANES


@pytest.mark.parametrize("prompt_tokens", [0, 1, 2, 5, 9])
def test_a_prompt_is_left_out_of_every_row(prompt_tokens: int) -> None:
    mask = np.array([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    before = mask.copy()
    wanted = [[int(place >= prompt_tokens and kept) for place, kept in enumerate(row)] for row in mask.tolist()]
    assert batching.without_prompt(mask, prompt_tokens).tolist() == wanted
    assert mask.tolist() == before.tolist()


def test_a_prompt_can_stand_in_some_rows_only() -> None:
    mask = np.array([[1, 1, 1, 0], [1, 1, 1, 1], [1, 0, 0, 0]])
    pooled = batching.without_prompt(mask, np.array([2, 0, 1]))
    assert pooled.tolist() == [[0, 0, 1, 0], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert pooled.dtype == np.int64
