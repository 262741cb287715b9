"""A `ContinuousEngine` as one caller sees it: with the caller's steering, and cancelled as a whole."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from safeladder.rollout.continuous import ContinuousEngine
from safeladder.rollout.decoder import MlpEdit
from safeladder.rollout.tickets import Ticket, VisionEdit
from safeladder.types import Completion, GenerationRequest, Sample, SamplingParams


class Lane:
    """`Engine`: what runs in it is steered by its edits only.

    `cancel`, from any thread, ends all that runs in it with `CancelledError`, and so all that comes after.
    """

    def __init__(
        self, engine: ContinuousEngine, *, edit: MlpEdit | None = None, vision_edit: VisionEdit | None = None
    ) -> None:
        self.engine, self.edit, self.vision_edit = engine, edit, vision_edit
        self._lock = threading.Lock()
        self._tickets: list[Ticket] = []
        self._cancelled = False

    @property
    def context_length(self) -> int:
        return self.engine.context_length

    def prompt_ids(self, sample: Sample) -> tuple[int, ...]:
        return self.engine.prompt_ids(sample)

    def decode(self, token_ids: Sequence[int]) -> str:
        return self.engine.decode(token_ids)

    def load_weights(self, weights: Mapping[str, Any]) -> None:
        self.engine.load_weights(weights)

    def generate(
        self, requests: Sequence[GenerationRequest], params: SamplingParams, *, seed: int
    ) -> list[list[Completion]]:
        tickets = self.engine.submit_all(requests, params, seed=seed, edit=self.edit, vision_edit=self.vision_edit)
        with self._lock:
            self._tickets += tickets
            cancelled = self._cancelled
        try:
            if cancelled:
                self.cancel()
            return [ticket.result() for ticket in tickets]
        finally:
            for ticket in tickets:
                ticket.cancel()
            with self._lock:
                self._tickets = [ticket for ticket in self._tickets if not ticket.future.done()]

    def cancel(self) -> None:
        """End all that runs in this lane."""
        with self._lock:
            self._cancelled = True
            tickets = list(self._tickets)
        for ticket in tickets:
            ticket.cancel()
