"""Rows that join and leave: what a row wrote is what it sees, wherever its columns were moved."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.rollout.decoder import Decoder, KVCache
from safeladder.rollout.row_cache import RowCache


class Storage:
    """What of a decoder a row cache needs: two layers, one head, one number a position."""

    def new_cache(self, rows: int, capacity: int) -> KVCache:
        def make() -> list[torch.Tensor]:
            return [torch.full((rows, 1, capacity, 1), torch.nan) for _ in range(2)]

        return KVCache(keys=make(), values=make())


def row_cache() -> RowCache:
    return RowCache(cast(Decoder, cast(Any, Storage())))


def prefilled(rows: list[list[float]]) -> KVCache:
    width = max(map(len, rows))
    cache = Storage().new_cache(len(rows), width)
    for i, row in enumerate(rows):
        for layer in range(2):
            cache.keys[layer][i, 0, : len(row), 0] = torch.tensor(row) + layer / 4
            cache.values[layer][i, 0, : len(row), 0] = torch.tensor(row) + layer / 4 + 0.5
    cache.length = width
    return cache


def step(cache: RowCache, tokens: list[float]) -> list[list[float]]:
    """Write one number a row, as a decoder does; what each row sees afterwards (of layer 0's keys, all checked)."""
    view, visible = cache.next()
    for layer in range(2):
        view.keys[layer][:, 0, view.length, 0] = torch.tensor(tokens) + layer / 4
        view.values[layer][:, 0, view.length, 0] = torch.tensor(tokens) + layer / 4 + 0.5
    assert visible.shape == (len(tokens), 1, 1, view.length + 1)
    assert not any(store[:, :, : view.length + 1].isnan().any() for store in (*view.keys, *view.values))
    seen = []
    for row in range(len(tokens)):
        columns = visible[row, 0, 0].nonzero().squeeze(1)
        seen.append(view.keys[0][row, 0, columns, 0].tolist())
        for layer in range(2):
            keys, values = view.keys[layer][row, 0, columns, 0], view.values[layer][row, 0, columns, 0]
            assert torch.equal(keys, torch.tensor(seen[-1]) + layer / 4)
            assert torch.equal(values, keys + 0.5)
    return seen


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.sampled_from("jjlssssssss"), st.integers(1, 90), st.integers(0, 9)), max_size=70))
def test_every_row_sees_what_it_wrote_and_nothing_else(moves):
    cache, expected, written, longest = row_cache(), [], 0, 0
    for move, size, pick in moves:
        if move == "j":
            new = [[float(written + k + 1000 * i) for k in range(max(1, size - 7 * i))] for i in range(1 + pick % 3)]
            written += size
            sources = list(reversed(range(len(new))))
            cache.join(prefilled(new), sources, [len(new[i]) for i in sources])
            expected += [list(new[i]) for i in sources]
        elif move == "l" and expected:
            row = pick % len(expected)
            cache.leave(row)
            expected[row] = expected[-1]
            expected.pop()
        elif move == "s" and expected:
            for _ in range(1 + pick):
                tokens = [float(written + i) for i in range(len(expected))]
                written += len(tokens)
                for row, token in zip(expected, tokens, strict=True):
                    row.append(token)
                assert step(cache, tokens) == expected
        rows, columns = cache.capacity
        assert len(cache.starts) == len(expected) <= rows or not expected
        longest = max(longest, *map(len, expected), 0)
        assert columns <= max(64, 4 * longest), "storage is bounded by the longest row there was"


@pytest.mark.parametrize("gone", [0, 1])
def test_a_row_that_is_not_finite_leaves_nothing_behind(gone):
    """0 · NaN is NaN: what stands in columns that a row does not see still counts."""
    cache = row_cache()
    cache.join(prefilled([[1.0] * 9, [2.0] * 9]), [0, 1], [9, 9])
    step(cache, [3.0, 4.0])
    for store in (*cache._store.keys, *cache._store.values):
        store[gone] = torch.nan
    cache.leave(gone)
    cache.join(prefilled([[5.0] * 4]), [0], [4])
    assert step(cache, [6.0, 7.0])[1] == [5.0, 5.0, 5.0, 5.0, 7.0]


def test_storage_stays_bounded_while_rows_come_and_go_for_ever():
    cache = row_cache()
    cache.join(prefilled([[1.0, 2.0]]), [0], [2])
    for turn in range(50):
        cache.join(prefilled([[float(turn)] * 30]), [0], [30])
        for _ in range(10):
            step(cache, [3.0, 4.0])
        cache.leave(0)
    assert cache.capacity[1] <= 128, cache.capacity
    assert cache.capacity[0] <= 2


def test_storage_is_given_back_when_the_last_row_leaves():
    cache = row_cache()
    cache.join(prefilled([[1.0] * 9, [2.0]]), [0, 1], [9, 1])
    assert cache.capacity == (2, 64)
    cache.leave(1)
    cache.leave(0)
    assert (cache.capacity, cache.clock, cache.starts) == ((0, 0), 0, [])


def test_columns_that_nobody_uses_any_more_are_not_looked_at():
    cache = row_cache()
    cache.join(prefilled([[1.0] * 40, [2.0] * 3]), [0, 1], [40, 3])
    cache.leave(0)
    view, visible = cache.next()
    assert view.length == 3 and visible.shape[-1] == 4
    with pytest.raises(IndexError):
        cache.leave(1)
