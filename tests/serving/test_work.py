"""A request's way through the server: what is held is let go, however it ends."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, cast

import pytest

from safeladder.serving.limits import Limits
from safeladder.serving.work import Desk, Work


class _Slow:
    """Replies that take their time to give up."""

    async def close(self) -> None:
        await asyncio.sleep(60)

    def chunks(self) -> None:
        return None


class _Record:
    def note(self, status: int) -> None:
        """Nothing is kept."""


async def _leave_while_being_given_up() -> None:
    desk = Desk(Limits())
    with contextlib.ExitStack() as held:
        held.enter_context(desk.place())
        work = Work(cast(Any, _Slow()), cast(Any, _Record()), 0.0, held.pop_all())
    assert desk.busy == 1
    closing = asyncio.create_task(work.close())
    await asyncio.sleep(0)
    closing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert desk.busy == 0


def test_the_place_of_a_reader_who_leaves_twice_is_free_again():
    asyncio.run(_leave_while_being_given_up())
