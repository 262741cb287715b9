from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from safeladder.models.families import family_of
from safeladder.models.processing import encode_prompt
from safeladder.models.tiny import build_tiny
from safeladder.types import Message, Part, Sample

TEXTS = [
    "how many red circles are there? 12",
    "what colour is the square? the square is blue",
    "红色的圆有几个",
    "<think>two circles, one square</think>3",
] * 20

FAMILY_NAMES = ("qwen2_5_vl", "internvl", "llama")


@pytest.fixture(scope="session")
def build() -> Callable[..., tuple[Any, Any]]:
    def make(name: str, seed: int = 0) -> tuple[Any, Any]:
        return build_tiny(name, TEXTS, seed=seed, size="test", vocab_size=310)

    return make


@pytest.fixture(scope="session")
def tiny(build: Callable[..., tuple[Any, Any]]) -> Callable[[str], tuple[Any, Any, Any]]:
    """Shared (model, processor, family) of each family; tests must not change them."""
    made: dict[str, tuple[Any, Any, Any]] = {}

    def get(name: str) -> tuple[Any, Any, Any]:
        if name not in made:
            made[name] = (*build(name), family_of(name))
        return made[name]

    return get


def picture(height: int = 56, width: int = 56, *, seed: int = 0, mode: str = "RGB") -> Image.Image:
    channels = {"RGB": (3,), "RGBA": (4,), "L": ()}[mode]
    values = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), dtype=np.uint8)
    return Image.fromarray(values)


def ask(*content: Any, id: str = "s") -> Sample:
    """A one-turn sample; strings are text, images are images, lists are videos."""
    parts = []
    for item in content:
        if isinstance(item, str):
            parts.append(Part(text=item))
        elif isinstance(item, Sequence):
            parts.append(Part(video=item))
        else:
            parts.append(Part(image=item))
    return Sample(id=id, label="general", messages=(Message(role="user", parts=tuple(parts)),))


def encode(processor: Any, family: Any, sample: Sample, **options: Any) -> Any:
    """`encode_prompt`; Any, since each test knows which tensors it has."""
    return encode_prompt(processor, family, sample, **options)


def question_for(name: str) -> Sample:
    return ask("how many red circles?") if name == "llama" else ask(picture(), "how many red circles?")
