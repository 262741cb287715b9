"""Rollouts as rows of `rollouts.jsonl`."""

from __future__ import annotations

import base64
import io
from typing import Any

from PIL import Image

from safeladder.types import Rollout, Sample

_LONGEST_SIDE = 320
"""Pixels; larger images are scaled down for the report."""


def rollout_row(rollout: Rollout, *, rung: str, step: int | None = None, with_image: bool = False) -> dict[str, Any]:
    """A rollout as JSON.

    Args:
        rung: where it was sampled.
        step: of training; None for evaluation.
        with_image: store the sample's images as one PNG data URI (evaluation examples; training rows do without).
    """
    sample, response = rollout.sample, rollout.response
    row: dict[str, Any] = {
        "rung": rung,
        "step": step,
        "sample_id": sample.id,
        "kind": str(sample.meta.get("kind", sample.label)),
        "label": sample.label,
        "language": sample.language,
        "question": sample.question,
        "text": rollout.text,
        "reasoning": response.reasoning if response else None,
        "answer": response.answer if response else None,
        "confidence": rollout.confidence,
        "stop_reason": str(rollout.stop_reason),
        "tokens": rollout.length,
        "reward": rollout.reward,
        "scores": {name: {"value": s.value, "label": s.label} for name, s in rollout.scores.items()},
    }
    if with_image and (image := data_uri(sample)):
        row["image"] = image
    return row


def data_uri(sample: Sample) -> str | None:
    """The sample's images and video frames side by side as a PNG data URI; None for text-only samples."""
    pictures = [*sample.images, *(frame for video in sample.videos for frame in video)]
    if not pictures:
        return None
    loaded = [_load(picture) for picture in pictures]
    gap = 4
    sheet = Image.new("RGB", (sum(i.width + gap for i in loaded) - gap, max(i.height for i in loaded)), "white")
    left = 0
    for image in loaded:
        sheet.paste(image, (left, 0))
        left += image.width + gap
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _load(picture: Image.Image | str) -> Image.Image:
    image = Image.open(picture) if isinstance(picture, str) else picture
    image = image.convert("RGB")
    if max(image.size) > _LONGEST_SIDE:
        image.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return image
