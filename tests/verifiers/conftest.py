from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from safeladder.rollout.parse import ResponseFormat
from safeladder.types import Message, Part, Rollout, Sample, StopReason

SYSTEM = "Think inside <think> </think> first, then answer."


@pytest.fixture
def rollout() -> Callable[..., Rollout]:
    """A rollout of `text` on a sample whose prompt contains the reasoning tags."""

    def make(
        text: str,
        *,
        question: str = "What is two and two?",
        label: str = "general_rule",
        reference: str | None = None,
        stop_reason: StopReason = StopReason.EOS,
        source: str = "",
        language: str = "en",
        tokens: int = 3,
        meta: dict[str, Any] | None = None,
    ) -> Rollout:
        sample = Sample(
            id="a",
            messages=(
                Message(role="system", parts=(Part(text=SYSTEM),)),
                Message(role="user", parts=(Part(text=question),)),
            ),
            label=label,
            reference=reference,
            source=source,
            language=language,
            meta=meta or {},
        )
        return Rollout(
            sample=sample,
            prompt_ids=(1, 2),
            token_ids=(5,) * tokens,
            logprobs=(-0.1,) * tokens,
            action_mask=(1,) * tokens,
            stop_reason=stop_reason,
            text=text,
            response=ResponseFormat().parse(text, stop_reason),
        )

    return make
