"""The procedural multimodal world that the laptop ladder trains and is measured on."""

from __future__ import annotations

from safeladder.world.families import (
    CAPABILITY,
    FAMILIES,
    KINDS,
    KNOWLEDGE,
    OVER_REFUSAL,
    PRETRAIN,
    READING,
    SAFETY,
    SEARCH,
    VALUE,
)
from safeladder.world.judge import LABELS, Verdict, judge, judge_search
from safeladder.world.searching import next_turn, wrong_read
from safeladder.world.teachers import STYLES, demonstrate
from safeladder.world.world import COLOUR_CLASSES, SIZE_CLASSES, SPLITS, WHAT_CLASSES, World, WorldConfig

__all__ = [
    "CAPABILITY",
    "COLOUR_CLASSES",
    "FAMILIES",
    "KINDS",
    "KNOWLEDGE",
    "LABELS",
    "OVER_REFUSAL",
    "PRETRAIN",
    "READING",
    "SAFETY",
    "SEARCH",
    "SIZE_CLASSES",
    "SPLITS",
    "STYLES",
    "VALUE",
    "WHAT_CLASSES",
    "Verdict",
    "World",
    "WorldConfig",
    "demonstrate",
    "judge",
    "judge_search",
    "next_turn",
    "wrong_read",
]
