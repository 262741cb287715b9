"""Sums through shared memory: the same bits in every process, whoever is slow, and an error where there is no room."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from safeladder.training import shared_sum
from safeladder.training.shared_sum import SharedSum

pytestmark = pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no /dev/shm on this system")


class Ranks:
    """Threads in place of processes."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._barrier = threading.Barrier(count, timeout=20)
        self._items: list[Any] = [None] * count

    def gather_of(self, rank: int):
        def gather(item: Any) -> list[Any]:
            self._items[rank] = item
            self._barrier.wait()
            found = list(self._items)
            self._barrier.wait()
            return found

        return gather

    def run(self, work) -> list[Any]:
        with ThreadPoolExecutor(self.count) as pool:
            futures = [pool.submit(work, rank, self.gather_of(rank), self._barrier.wait) for rank in range(self.count)]
            return [future.result() for future in futures]


@pytest.mark.parametrize("count", [2, 3])
def test_every_process_gets_the_same_sums(count):
    before = set(Path("/dev/shm").glob("safeladder-*"))
    # The sum of ranks' rows in their order; sizes vary, as gradients and updates do.
    rows = [
        [torch.randn(size, generator=torch.Generator().manual_seed(97 * step + r)) for r in range(count)]
        for step, size in enumerate([7, 1, 5, 7, 7, 2] * 5)
    ]

    def work(rank, gather, meet):
        shared = SharedSum(rank, gather, meet, 7)
        found = []
        for step, parts in enumerate(rows):
            mine = parts[rank].clone()
            if step % count == rank:
                time.sleep(0.002)  # a slow one must not have its numbers overwritten
            shared.add_up(mine)
            found.append(mine)
        return found

    for found in Ranks(count).run(work):
        for parts, total in zip(rows, found, strict=True):
            expected = parts[0] + parts[1]
            for part in parts[2:]:
                expected = expected + part
            assert torch.equal(total, expected)
    assert set(Path("/dev/shm").glob("safeladder-*")) <= before, "the memory has no name that could be left behind"


def test_a_matrix_is_summed_in_place():
    def work(rank, gather, meet):
        matrix = torch.full((2, 3), float(rank + 1))
        SharedSum(rank, gather, meet, 6).add_up(matrix)
        return matrix.tolist()

    assert Ranks(2).run(work) == [[[3.0] * 3] * 2] * 2


def test_no_room_is_an_error_everywhere(monkeypatch):
    monkeypatch.setattr(shared_sum, "_reserved", lambda size: None)

    def work(rank, gather, meet):
        with pytest.raises(OSError, match="no memory to share"):
            SharedSum(rank, gather, meet, 4)
        return True

    assert Ranks(2).run(work) == [True, True]


def test_a_size_that_does_not_fit_is_not_reserved():
    assert shared_sum._reserved(1 << 50) is None
