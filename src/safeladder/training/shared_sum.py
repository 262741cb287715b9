"""Sums of tensors over the processes of one machine, through memory that they share.

gloo sends tensors through sockets also where the other process is on the same machine: a sum of five megabytes takes
as long as a tenth of a laptop's training step. Written to shared memory and added up there it takes a quarter of that.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_MEMORY = Path("/dev/shm")


class SharedSum:
    """Room for one float32 tensor of `size` elements a process, twice.

    A sum uses one half and the next the other: when a process writes to a half again, all have met in between, and
    so have read what was there.

    Args:
        gather: collective; every process's item, by rank.
        meet: collective; returns once every process has called it.

    Raises:
        OSError: there is no such memory, or no room in it, in some process; raised in every process.
    """

    def __init__(self, rank: int, gather: Callable[[Any], list[Any]], meet: Callable[[], None], size: int) -> None:
        count = len(gather(None))
        path = gather(_reserved(2 * count * size * 4) if rank == 0 else None)[0]
        halves: Tensor | None = None
        if path is not None:
            with contextlib.suppress(OSError, RuntimeError):
                halves = torch.from_file(path, shared=True, size=2 * count * size).view(2, count, size)
        found = gather(halves is not None)
        if rank == 0 and path is not None:
            os.unlink(path)
        if halves is None or not all(found):
            raise OSError("no memory to share")
        self._halves, self._rank, self._meet, self._next, self.size = halves, rank, meet, 0, size

    def add_up(self, tensor: Tensor) -> None:
        """Sum over processes, in place, in the order of their ranks: the same bits in every process."""
        rows = self._halves[self._next][:, : tensor.numel()]
        self._next = 1 - self._next
        flat = tensor.view(-1)
        rows[self._rank].copy_(flat)
        self._meet()
        torch.add(rows[0], rows[1], out=flat)
        for row in rows[2:]:
            flat.add_(row)


def _reserved(size: int) -> str | None:
    """A new file of `size` bytes in memory; None where there is no room."""
    try:
        handle, path = tempfile.mkstemp(prefix="safeladder-", dir=_MEMORY)
    except OSError:
        return None
    try:
        os.posix_fallocate(handle, 0, size)  # a write that finds no room later would kill the process
        return path
    except OSError:
        os.unlink(path)
        return None
    finally:
        os.close(handle)
