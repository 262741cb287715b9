"""Keys and values of rows that come and go while a batch is decoded.

All rows share one clock: the next token of every row goes to column `clock`, and a row's own columns are the ones that
end there. Keys are stored rotated at their own positions, so a column has no meaning of its own and a row can be put
wherever it fits: newcomers are copied in to end at the clock, and when columns run out everything moves to the left.
Columns that a row does not see hold zeros or what some row had there, never anything that is not finite: attention
multiplies it by zero.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from safeladder.rollout.decoder import Decoder, KVCache

_FEWEST_COLUMNS = 64


class RowCache:
    """Keys and values of the rows of a batch. Storage grows as needed and is given back when the last row leaves.

    Attributes:
        starts: first column of each row; its length is the number of rows.
        clock: columns in use; the next tokens' keys and values go to column `clock`.
    """

    def __init__(self, decoder: Decoder) -> None:
        self._decoder = decoder
        self._store = decoder.new_cache(0, 0)
        self.starts: list[int] = []
        self.clock = 0

    @property
    def capacity(self) -> tuple[int, int]:
        """Rows and columns that storage has."""
        shape = self._store.keys[0].shape
        return shape[0], shape[2]

    def join(self, cache: KVCache, sources: Sequence[int], lengths: Sequence[int]) -> None:
        """Add rows: new row i is the first `lengths[i]` slots of row `sources[i]` of a prefilled cache."""
        span, longest = self._span(), max(lengths)
        rows, _ = self.capacity
        total = len(self.starts) + len(sources)
        if total > rows or longest > self.clock:
            self._move(max(rows, _power(total)), max(span, longest))
        first = len(self.starts)
        for into, outof in ((self._store.keys, cache.keys), (self._store.values, cache.values)):
            for store, filled in zip(into, outof, strict=True):
                store[first:total].zero_()
                for row, (source, length) in enumerate(zip(sources, lengths, strict=True), start=first):
                    store[row, :, self.clock - length : self.clock] = filled[source, :, :length]
        self.starts += [self.clock - length for length in lengths]

    def leave(self, row: int) -> None:
        """Take a row out; the last row takes its place."""
        last = len(self.starts) - 1
        if row != last:
            begin = self.starts[last]
            for store in (*self._store.keys, *self._store.values):
                store[row].zero_()  # who leaves may leave numbers behind that are not finite
                store[row, :, begin : self.clock] = store[last, :, begin : self.clock]
            self.starts[row] = begin
        self.starts.pop()
        if not self.starts:
            self.clear()

    def clear(self) -> None:
        """Take every row out."""
        self.starts.clear()
        self._store, self.clock = self._decoder.new_cache(0, 0), 0

    def next(self) -> tuple[KVCache, Tensor]:
        """A view of the rows for one token each, and what each sees: bool [rows, 1, 1, columns + 1].

        `Decoder.forward` writes through the view; the clock has moved on when this returns.
        """
        if self.clock == self.capacity[1]:
            self._move(self.capacity[0], self._span())
        rows, base = len(self.starts), min(self.starts)
        view = KVCache(
            keys=[k[:rows, :, base:] for k in self._store.keys],
            values=[v[:rows, :, base:] for v in self._store.values],
            length=self.clock - base,
        )
        self.clock += 1
        device = self._store.keys[0].device
        starts = torch.tensor(self.starts, device=device)
        visible = torch.arange(base, self.clock, device=device) >= starts.unsqueeze(1)
        return view, visible[:, None, None]

    def _span(self) -> int:
        """Columns from the first that any row uses to the clock."""
        return self.clock - min(self.starts) if self.starts else 0

    def _move(self, rows: int, clock: int) -> None:
        """Move what is in use to end at column `clock`, with as many columns again (at least) for what is to come."""
        span, count = self._span(), len(self.starts)
        columns = max(_FEWEST_COLUMNS, 2 * _power(clock))
        old, store = self._store, self._store
        if (rows, columns) != self.capacity:
            store = self._decoder.new_cache(rows, columns)
            for fresh in (*store.keys, *store.values):
                fresh.zero_()
        for before, after in ((old.keys, store.keys), (old.values, store.values)):
            for source, target in zip(before, after, strict=True):
                used = source[:count, :, self.clock - span : self.clock]
                # Within one storage the two places may overlap.
                target[:count, :, clock - span : clock] = used.clone() if source is target else used
        self.starts = [start + clock - self.clock for start in self.starts]
        self._store, self.clock = store, clock


def _power(n: int) -> int:
    """The smallest power of two that is at least `n`."""
    return 1 << max(0, n - 1).bit_length()
