"""Progress of a run on the terminal: one bar a rung, time left, and a line of results after each."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from safeladder.analysis.results import RungResult
from safeladder.analysis.schema import COUNTS
from safeladder.config import Recipe

_PLAIN_EVERY = 20.0
"""Seconds between lines where the output is not a terminal."""


class Display:
    """Rich bars on a terminal, plain lines elsewhere, nothing on the other processes."""

    def __init__(self, recipe: Recipe, *, enabled: bool) -> None:
        self.enabled = enabled
        self.console = Console(file=sys.stderr, highlight=False)
        self.bars: Progress | None = None
        self.task: TaskID | None = None
        self.name = ""
        self._last_line = 0.0
        self._started = time.monotonic()
        if enabled:
            self.console.print(f"recipe {recipe.name}, seed {recipe.seed}: {' → '.join(recipe.rungs)}")

    def start(self, name: str) -> None:
        """A rung begins."""
        self.name = name
        self._last_line = time.monotonic()
        if self.enabled and self.console.is_terminal:
            self.bars = Progress(
                TextColumn("{task.description:>14}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=self.console,
                transient=True,
            )
            self.task = self.bars.add_task(name, total=None, note="preparing data")
            self.bars.start()

    def update(self, done: int, total: int, note: str) -> None:
        """`done` of `total` steps."""
        if self.bars is not None and self.task is not None:
            self.bars.update(self.task, completed=done, total=total, note=note)
        elif self.enabled and time.monotonic() - self._last_line > _PLAIN_EVERY:
            self._last_line = time.monotonic()
            self.console.print(f"{self.name}: step {done} of {total}, {note}")

    def note(self, name: str, text: str) -> None:
        """Something other than a step is going on."""
        if self.bars is not None and self.task is not None:
            self.bars.update(self.task, note=text)

    def finish(self, name: str, result: RungResult) -> None:
        """A rung is measured."""
        if self.bars is not None:
            self.bars.stop()
            self.bars = None
        if not self.enabled:
            return
        shown = ", ".join(
            f"{key.replace('_', ' ')} {metric['value']:.1f}"
            if key in COUNTS
            else f"{key.replace('_', ' ')} {100 * metric['value']:.1f} %"
            for key, metric in result.metrics.items()
            if key != "format"
        )
        self.console.print(
            f"{name}: {shown}; gate {result.gate} [{time.monotonic() - self._started:.0f} s]", markup=False
        )

    def done(self, folder: Path, rungs: Sequence[RungResult]) -> None:
        """The report is written."""
        self.console.print(f"report: {folder / 'report.html'}", markup=False)
