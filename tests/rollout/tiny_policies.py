"""Tiny policies of every family whose weights matter: large, and with biases and norms that are not
neutral.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image

from safeladder.models.families import family_of
from safeladder.models.policy import Policy
from safeladder.models.tiny import build_tiny
from safeladder.types import GenerationRequest, Message, Part, Sample

TEXTS = [
    "how many red circles are there? 12",
    "what colour is the square? the square is blue",
    "红色的圆有几个",
    "<think>two circles, one square</think>3",
] * 20


@cache
def _built(name: str, seed: int) -> tuple[Any, Any]:
    return build_tiny(name, TEXTS, seed=seed, size="test", vocab_size=310)


def policy(name: str = "qwen2_5_vl", *, seed: int = 0, wrap: Callable[[Any, Any], Any] | None = None) -> Policy:
    """A policy of its own (tests may change it); `wrap` may put adapters around its model."""
    source, processor = _built(name, seed)
    model = type(source)(source.config)
    model.load_state_dict(source.state_dict())
    model.generation_config = source.generation_config
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in model.named_parameters():
            if value.ndim >= 2:
                value.mul_(1.0 if "embed_tokens" in key else 6.0)
            else:
                value.add_(0.2 * torch.randn(value.shape, generator=generator))
            assert value.isfinite().all(), key
    family = family_of(model.config)
    return Policy(wrap(model, family) if wrap else model, processor, family).eval()


def picture(seed: int = 0, size: int = 56) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    return Image.fromarray(values)


def ask(id: str, *content: Any) -> Sample:
    """A one-turn sample; strings are text, images are images, lists are videos."""
    parts = []
    for item in content:
        if isinstance(item, str):
            parts.append(Part(text=item))
        elif isinstance(item, list):
            parts.append(Part(video=item))
        else:
            parts.append(Part(image=item))
    return Sample(id=id, label="general", messages=(Message(role="user", parts=tuple(parts)),))


def questions(name: str) -> list[Sample]:
    """Prompts of different lengths and of every kind that the family takes."""
    found = [ask("t1", "how many red circles?"), ask("t2", "what colour is the square? the square is blue")]
    if name != "llama":
        found.append(ask("i1", picture(1), "how many red circles?"))
        found.append(ask("i2", picture(2), "what colour?", picture(3, 84 if name == "qwen2_5_vl" else 56)))
    if name == "qwen2_5_vl":
        found.append(ask("v1", [picture(k) for k in range(4)], "how many circles?"))
    return found


def requests(engine: Any, samples: Sequence[Sample]) -> list[GenerationRequest]:
    return [GenerationRequest(sample=s, prompt_ids=engine.prompt_ids(s)) for s in samples]
