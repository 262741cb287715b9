"""Concurrent requests become batches; nobody gets another's reply."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from safeladder.evaluation.batching import Batcher


def gather(batcher: Batcher[int, int], requests: Sequence[int]) -> list[int]:
    async def run() -> list[int]:
        return await asyncio.gather(*map(batcher, requests))

    return asyncio.run(run())


@pytest.mark.parametrize("size", [1, 3, 7, 64])
def test_every_request_gets_its_own_reply(size: int) -> None:
    batches: list[list[int]] = []

    def work(requests: Sequence[int]) -> list[int]:
        batches.append(list(requests))
        return [10 * r for r in requests]

    assert gather(Batcher(work, size=size), range(20)) == [10 * r for r in range(20)]
    assert all(len(batch) <= size for batch in batches)
    assert len(batches) == -(-20 // size)


def test_requests_that_arrive_during_a_call_form_the_next_batch_in_a_worker_thread() -> None:
    batches: list[list[int]] = []
    threads: set[int] = set()

    def work(requests: Sequence[int]) -> list[int]:
        batches.append(list(requests))
        threads.add(threading.get_ident())
        time.sleep(0.05)
        return list(requests)

    async def run() -> None:
        batcher: Batcher[int, int] = Batcher(work, size=8)

        async def later(request: int) -> int:
            await asyncio.sleep(0.02)
            return await batcher(request)

        assert await asyncio.gather(batcher(0), *(later(i) for i in range(1, 6))) == list(range(6))

    asyncio.run(run())
    assert batches == [[0], [1, 2, 3, 4, 5]]
    assert threading.get_ident() not in threads


def test_an_error_reaches_its_batch_and_the_next_one_works() -> None:
    def work(requests: Sequence[int]) -> list[int]:
        if 0 in requests:
            raise MemoryError("too much")
        return list(requests)

    batcher: Batcher[int, int] = Batcher(work, size=2)

    async def run() -> list[object]:
        return await asyncio.gather(*map(batcher, [0, 1, 2, 3]), return_exceptions=True)

    first, second, third, fourth = asyncio.run(run())
    assert isinstance(first, MemoryError) and isinstance(second, MemoryError)
    assert (third, fourth) == (2, 3)


def test_a_missing_reply_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="2 requests gave 1 replies"):
        gather(Batcher(lambda requests: [0], size=4), [1, 2])


def test_the_batcher_survives_a_new_event_loop() -> None:
    batcher: Batcher[int, int] = Batcher(list, size=4)
    assert gather(batcher, [1, 2]) == gather(batcher, [1, 2]) == [1, 2]


def test_a_cancelled_request_is_left_out() -> None:
    seen: list[int] = []

    def work(requests: Sequence[int]) -> list[int]:
        seen.extend(requests)
        return list(requests)

    async def run() -> int:
        batcher: Batcher[int, int] = Batcher(work, size=4, window=0.02)
        gone = asyncio.create_task(batcher(1))
        stays = asyncio.create_task(batcher(2))
        await asyncio.sleep(0)
        gone.cancel()
        return await stays

    assert asyncio.run(run()) == 2
    assert seen == [2]


def test_an_empty_batch_size_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Batcher(list, size=0)
