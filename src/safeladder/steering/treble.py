"""Treble Counterfactual (arXiv 2503.06169): three direct effects, removed from a vision-language model as it runs.

Written from the formulas. Vision and text should reach the answer through their fusion; what reaches it directly makes
a model name what usually goes with a picture or a question. Three directions stand for the direct parts:

- NV, vision tower: mean states over diffused copies of the picture - states of the picture;
- NT, language model: state of the last token after a truthful reply - after a hallucinated one, with the picture;
- NVT, language model: state of the last token without the picture - with an all-zeros picture in its place.

The order is the published one: NV is in place when NT is estimated, NV and NT when NVT is, and NVT is the second
wrapper around each MLP. Every direction can be left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from PIL import Image

from safeladder.models.pixels import load_rgb
from safeladder.models.policy import Policy
from safeladder.steering.directions import Direction, Directions, fingerprint
from safeladder.steering.estimating import Progress, Reading
from safeladder.steering.hooks import Steerer
from safeladder.steering.vti import (
    Demonstration,
    Settings,
    check,
    counting,
    language_direction,
    text_direction,
    vision_direction,
)
from safeladder.types import Message, Part, SafeladderError, Sample

EFFECTS = ("NV", "NT", "NVT")
"""In the order in which they are estimated and installed."""


def treble(
    policy: Policy,
    demonstrations: Sequence[Demonstration],
    settings: Settings,
    *,
    effects: Sequence[str] = EFFECTS,
    progress: Progress | None = None,
) -> Directions:
    """The chosen effects' directions; the policy is left as it was.

    Raises:
        SafeladderError: an unknown effect, fewer than 2 demonstrations, or one without exactly one picture.
    """
    if unknown := [name for name in effects if name not in EFFECTS]:
        raise SafeladderError(f"unknown effect {unknown[0]!r}; allowed: {', '.join(EFFECTS)}")
    check(demonstrations)
    tell = counting(progress, len(demonstrations) * len(effects))
    found: list[Direction] = []
    for name in (effect for effect in EFFECTS if effect in effects):
        with Steerer(policy.model, policy.family, found):
            if name == "NV":
                found.append(vision_direction(policy, demonstrations, settings, name=name, progress=tell))
            elif name == "NT":
                found.append(text_direction(policy, demonstrations, settings, name=name, progress=tell))
            else:
                pairs = [
                    (
                        Reading(sample=without_image(d.sample), said=d.truthful),
                        Reading(sample=with_zeros(policy, d.sample), said=d.truthful),
                    )
                    for d in demonstrations
                ]
                found.append(language_direction(policy, pairs, settings, name=name, progress=tell))
    about = {"method": "treble", "settings": asdict(settings)}
    return Directions(family=policy.family.name, model=fingerprint(policy.model), items=tuple(found), about=about)


def without_image(sample: Sample) -> Sample:
    """The same words without their pictures."""
    messages = (
        Message(role=m.role, parts=tuple(part for part in m.parts if part.text is not None)) for m in sample.messages
    )
    return replace(sample, id=f"{sample.id}#text", messages=tuple(messages))


def with_zeros(policy: Policy, sample: Sample) -> Sample:
    """The same words with pictures of the same size that are zero once normalised: the processor's mean colour.

    The colour is rounded to 8 bits a channel, as every picture's is.
    """
    settings = getattr(policy.processor, "image_processor", None)
    if settings is None:
        raise SafeladderError(f"the {policy.family.name} family sees no image")
    colour = tuple(round(255 * float(mean)) for mean in settings.image_mean)

    def blank(part: Part) -> Part:
        if part.image is None:
            return part
        height, width, _ = np.shape(load_rgb(part.image, f"sample {sample.id!r}"))
        return Part(image=Image.new("RGB", (width, height), colour))

    messages = (Message(role=m.role, parts=tuple(blank(part) for part in m.parts)) for m in sample.messages)
    return replace(sample, id=f"{sample.id}#zeros", messages=tuple(messages))
