"""Samples to JSONL files that `safeladder.data.samples.read_samples` gives back."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from safeladder.atomic import new_file
from safeladder.data.samples import IMAGE_MARKER
from safeladder.types import Part, SafeladderError, Sample

if TYPE_CHECKING:
    from PIL.Image import Image


def write_samples(path: str | os.PathLike[str], samples: Sequence[Sample]) -> None:
    """Write samples so that `read_samples` gives them back. Atomic; images in memory are embedded as PNG.

    Image paths are written relative to the file's folder.

    Raises:
        SafeladderError: a text holds the image marker (it could not be told from an image), or `meta` is not
            JSON.
    """
    file = Path(path)
    root = Path(os.path.abspath(file.parent))
    with new_file(file) as temporary, temporary.open("w", encoding="utf-8") as out:
        for sample in samples:
            try:
                out.write(json.dumps(_to_row(sample, root), ensure_ascii=False, allow_nan=False) + "\n")
            except (TypeError, ValueError) as error:
                raise SafeladderError(f"sample {sample.id!r} cannot be written as JSON: {error}") from None


def _to_row(sample: Sample, root: Path) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [
        {"role": message.role, "content": [_to_part(part, root) for part in message.parts]}
        for message in sample.messages
    ]
    if sample.response is not None:
        reply: dict[str, Any] = {"role": "assistant", "content": sample.response.answer}
        if sample.response.reasoning is not None:
            reply["reasoning_content"] = sample.response.reasoning
        messages.append(reply)
    row: dict[str, Any] = {"id": sample.id, "label": sample.label, "messages": messages}
    optional = {
        "reference": sample.reference,
        "taxonomy": list(sample.taxonomy),
        "source": sample.source,
        "group_id": sample.group_id if sample.group_id != sample.id else "",
        "language": sample.language,
        "meta": dict(sample.meta),
    }
    return row | {key: value for key, value in optional.items() if value not in (None, "", [], {})}


def _to_part(part: Part, root: Path) -> dict[str, Any]:
    if part.text is not None:
        if IMAGE_MARKER in part.text:
            raise SafeladderError(f"a text with a literal {IMAGE_MARKER} cannot be written")
        return {"type": "text", "text": part.text}
    if part.video is not None:
        return {"type": "video", "video": [_to_address(frame, root) for frame in part.video]}
    return {"type": "image", "image": _to_address(cast("Image | str", part.image), root)}


def _to_address(image: Image | str, root: Path) -> str:
    if isinstance(image, str):
        return os.path.relpath(image, root)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
