"""What a training loop writes while it runs: metrics, sampled rollouts, progress, checkpoints."""

from __future__ import annotations

import json
import math
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from safeladder.atomic import write_text
from safeladder.training.checkpoint import load_state, save_state
from safeladder.training.parallel import Parallel


class Progress(Protocol):
    """Where a loop reports how far it is."""

    def update(self, done: int, total: int, note: str) -> None: ...


class Silent:
    """A progress that shows nothing (other processes, tests)."""

    def update(self, done: int, total: int, note: str) -> None:
        return None


@dataclass(slots=True)
class RungRun:
    """One rung's place in a run folder."""

    folder: Path
    """The run folder."""
    rung: str
    parallel: Parallel
    progress: Progress
    seed: int
    on_save: Callable[[], None] = lambda: None
    """Called after every checkpoint, on the main process."""

    @property
    def state_folder(self) -> Path:
        return self.folder / "state" / self.rung

    def phase(self, name: str) -> RungRun:
        """A part of the rung that trains by itself: it has its own state, and its log rows are of `RUNG.NAME`."""
        return replace(self, rung=f"{self.rung}.{name}")

    def log_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line to metrics.jsonl. JSON has no NaN or infinity: such a value is written as null."""
        finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        self._append("metrics.jsonl", [{"rung": self.rung, "step": step, **finite}])

    def log_rollouts(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Append sampled rollouts to rollouts.jsonl."""
        self._append("rollouts.jsonl", rows)

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Checkpoint (main process only; `state` must be complete there)."""
        if self.parallel.is_main:
            save_state(self.state_folder, step, state)
            self.on_save()

    def discard(self) -> None:
        """Remove the trainer state of the rung and its phases: what is finished is never resumed."""
        if self.parallel.is_main:
            for folder in (self.state_folder, *self.state_folder.parent.glob(f"{self.rung}.*")):
                shutil.rmtree(folder, ignore_errors=True)

    def resume(self) -> dict[str, Any] | None:
        """The newest checkpoint of this rung, and log files cut back to it."""
        state = load_state(self.state_folder)
        if self.parallel.is_main:
            self._cut_logs(0 if state is None else int(state["step"]))
        self.parallel.barrier()
        return state

    def forget_evaluation(self) -> None:
        """Drop what a measurement of the trained rung that was cut short left in the logs."""
        if self.parallel.is_main:
            self._cut_logs(sys.maxsize)

    def _append(self, name: str, rows: Iterable[Mapping[str, Any]]) -> None:
        if not self.parallel.is_main:
            return
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows)

    def _cut_logs(self, step: int) -> None:
        """Drop lines of this rung after `step`: they will be written again, identically."""
        for name in ("metrics.jsonl", "rollouts.jsonl"):
            path = self.folder / name
            if not path.is_file():
                continue
            kept = []
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue  # cut short by the kill
                if row.get("rung") != self.rung or (row.get("step") is not None and row["step"] <= step):
                    kept.append(line + "\n")
            write_text(path, "".join(kept))
