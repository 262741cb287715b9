"""What directions are fitted on and effects are measured on: rows of a JSONL file, or items of the built-in world."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image

from safeladder.models.pixels import load_rgb
from safeladder.steering.effects import Contrast
from safeladder.steering.estimating import Reading
from safeladder.steering.vti import Demonstration
from safeladder.types import Message, Part, SafeladderError, Sample
from safeladder.world import World, WorldConfig
from safeladder.world.families import presence

WORLD = "world"
Row = TypeVar("Row")


def demonstrations(source: str, n: int, seed: int) -> list[Demonstration]:
    """Pictures with a truthful and a hallucinated reply, for Treble and VTI.

    Rows of a file: ``{"id", "image", "question", "positive", "negative"}``: the truthful and the hallucinated reply;
    image paths are relative to the file. Of the world: scenes of the training split in which an object lacks its
    partner; the truthful reply denies the partner.

    Raises:
        SafeladderError: a file or row that does not hold this, with its line.
    """
    if source != WORLD:
        return _read(source, _demonstration)[:n]
    found: list[Demonstration] = []
    start = 0
    while len(found) < n:
        for sample in presence.presence_items("train", n, seed=seed, together=0.5, start=start):
            present = sample.meta["present"]
            lone = [x for x in present if presence.PARTNER[x] not in present]
            if lone and len(found) < n:
                asked = presence.PARTNER[lone[0]]
                item = presence.about(sample, lone[0], asked)
                found.append(Demonstration(sample=item, truthful=f" {asked} no", hallucinated=f" {asked} yes"))
        start += n
    return found


def pairs(source: str, n: int, seed: int) -> list[tuple[Reading, Reading]]:
    """Pairs of inputs for a direction of one's own, from the second (negative) to the first (positive).

    Rows of a file: as for `demonstrations` (two replies to one question, the image optional), or without "question":
    "positive" and "negative" are prompts. Of the world: harmful requests against their harmless look-alikes, the
    training split: the direction of refusal.
    """
    if source != WORLD:
        return _read(source, _pair)[:n]
    world = World(WorldConfig(seed=seed, chinese_share=0.0))
    return [
        tuple(Reading(sample=world.item(kind, "train", index)) for kind in ("text_harmful", "text_lookalike"))
        for index in range(n)
    ]  # type: ignore[return-value]


def contrasts(source: str, n: int, seed: int) -> list[Contrast]:
    """Questions with their references, for `effects.measure`.

    Rows of a file: ``{"id", "image", "question", "answers", "outcome", "reference_question", "reference_image"}``;
    without a reference image a black one stands in. Of the world: held-out scenes that lack the partner of an object
    that is there; the outcome is that the partner is said to be there. The reference is an empty scene and the mention
    of another object.
    """
    if source != WORLD:
        return _read(source, _contrast)[:n]
    found: list[Contrast] = []
    for item in presence.pope_items("adversarial", n, _PARTNERS_TOGETHER, seed=seed):
        if item.reference is None or not item.reference.endswith(" no"):
            continue
        name = item.meta["asked"][0]
        answers = (f" {name} yes", f" {name} no")
        found.append(Contrast(factual=item, reference=presence.blanked(item), answers=answers, outcome=answers[0]))
    return found


_PARTNERS_TOGETHER = presence.Statistics(count={}, together=dict.fromkeys(presence.PARTNER.items(), 1))


def _read(source: str, convert: Callable[[Mapping[str, Any], Path, str], Row]) -> list[Row]:
    path = Path(source)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise SafeladderError(f"{path} cannot be read ({reason}); --data takes world or a JSONL file") from None
    found = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            row = json.loads(line)
        except ValueError:
            raise SafeladderError(f"{where}: not JSON") from None
        if not isinstance(row, dict):
            raise SafeladderError(f"{where}: not a JSON object")
        found.append(convert(row, path.parent, where))
    if not found:
        raise SafeladderError(f"{path} has no rows")
    return found


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise SafeladderError(f"{where}: {key!r} must be a text (got {value!r:.40})")
    return value


def _sample(row: Mapping[str, Any], folder: Path, where: str, question: str, image: str | None) -> Sample:
    parts = [Part(text=question)]
    if image is not None:
        path = folder / image
        if not path.is_file():
            raise SafeladderError(f"{where}: image {image} does not exist")
        parts.insert(0, Part(image=str(path)))
    name = row.get("id")
    if not isinstance(name, str) or not name:
        raise SafeladderError(f"{where}: 'id' must be a text (got {name!r:.40})")
    return Sample(id=name, messages=(Message(role="user", parts=tuple(parts)),), label="direction")


def _image(row: Mapping[str, Any], where: str, key: str = "image") -> str | None:
    return None if row.get(key) is None else _text(row, key, where)


def _demonstration(row: Mapping[str, Any], folder: Path, where: str) -> Demonstration:
    sample = _sample(row, folder, where, _text(row, "question", where), _text(row, "image", where))
    return Demonstration(
        sample=sample, truthful=_text(row, "positive", where), hallucinated=_text(row, "negative", where)
    )


def _pair(row: Mapping[str, Any], folder: Path, where: str) -> tuple[Reading, Reading]:
    positive, negative = _text(row, "positive", where), _text(row, "negative", where)
    image = _image(row, where)
    if row.get("question") is None:
        first, second = (_sample(row, folder, where, text, image) for text in (positive, negative))
        return Reading(sample=first), Reading(sample=second)
    sample = _sample(row, folder, where, _text(row, "question", where), image)
    return Reading(sample=sample, said=positive), Reading(sample=sample, said=negative)


def _contrast(row: Mapping[str, Any], folder: Path, where: str) -> Contrast:

    factual = _sample(row, folder, where, _text(row, "question", where), _text(row, "image", where))
    wording, picture = _text(row, "reference_question", where), _image(row, where, "reference_image")
    reference = replace(_sample(row, folder, where, wording, picture), id=f"{factual.id}#reference")
    if picture is None:
        height, width, _ = load_rgb(factual.images[0], where).shape
        black = Part(image=Image.new("RGB", (width, height)))
        reference = replace(reference, messages=(Message(role="user", parts=(black, Part(text=wording))),))
    answers = row.get("answers")
    if not isinstance(answers, list) or not all(isinstance(a, str) and a for a in answers):
        raise SafeladderError(f"{where}: 'answers' must be a list of texts")
    try:
        return Contrast(
            factual=factual, reference=reference, answers=tuple(answers), outcome=_text(row, "outcome", where)
        )
    except SafeladderError as error:
        raise SafeladderError(f"{where}: {error}") from None
