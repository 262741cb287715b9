from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from safeladder.types import Message, Part, Response, Sample


@pytest.fixture
def png(tmp_path: Path) -> Path:
    """A small real image."""
    from PIL import Image

    path = tmp_path / "cat.png"
    Image.new("RGB", (8, 6), (10, 200, 30)).save(path)
    return path


@pytest.fixture
def demo() -> Callable[..., Sample]:
    """A demonstration with a text prompt."""

    def make(
        id: str,
        question: str = "How many eggs are left after breakfast today?",
        reasoning: str | None = "there were ten eggs and they ate five of them",
        answer: str = "There are 5.",
        label: str = "gsm8k_rule",
        reference: str | None = "5",
        images: tuple[Any, ...] = (),
        **fields: Any,
    ) -> Sample:
        parts = (*(Part(image=image) for image in images), Part(text=question))
        return Sample(
            id=id,
            messages=(Message(role="user", parts=parts),),
            label=label,
            reference=reference,
            response=Response(answer=answer, reasoning=reasoning),
            **fields,
        )

    return make
