"""Samples to model inputs: chat template, placeholders, pixels, positions.

Prompts become ids exactly once, here. Each image part of a sample gives one placeholder in the rendered
template and, expanded, one id a vision feature; anything else is an error, never a silently dropped image.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from safeladder.models import pixels
from safeladder.models.families import Family, control_strings, tokenizer_of
from safeladder.types import Message, Part, SafeladderError, Sample


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """A prompt ready for the model: ids with expanded placeholders and the pixels they stand for.

    Attributes:
        prompt_ids: token ids, placeholders repeated once a vision feature, generation prompt included.
        pixel_values: float32, all images in reading order. Qwen2.5-VL: [patches, 1176];
            InternVL: [tiles, 3, height, width].
        image_grid_thw: int64 [images, 3], Qwen2.5-VL only: (1, patch rows, patch columns).
        video_pixel_values: float32 [patches, 1176], all videos in reading order.
        video_grid_thw: int64 [videos, 3]: (frame pairs, patch rows, patch columns).
    """

    prompt_ids: tuple[int, ...]
    pixel_values: Tensor | None = None
    image_grid_thw: Tensor | None = None
    video_pixel_values: Tensor | None = None
    video_grid_thw: Tensor | None = None


def encode_prompt(
    processor: Any,
    family: Family,
    sample: Sample,
    *,
    system_prompt: str | None = None,
    max_length: int | None = None,
) -> Encoded:
    """A sample's messages as model inputs, up to where the assistant's turn begins.

    Text in a message that spells a control token (a role tag, an image placeholder) is encoded as plain text:
    data cannot forge a turn or an image. Nothing is ever truncated, so no image span can be cut.

    Args:
        processor: from `build_processor`, `load_processor` or `AutoProcessor`.
        family: the model's family.
        sample: its messages are encoded; its demonstration and reference are not.
        system_prompt: put before messages that do not start with a system message.
        max_length: longest prompt allowed, in tokens.

    Raises:
        SafeladderError: missing or corrupt image; images or video for a family without; a chat template that
            is absent, fails or loses an image; a prompt longer than `max_length`.
    """
    where = f"sample {sample.id!r}"
    if sample.images and not family.supports_images:
        raise SafeladderError(f"{where} has images, but the {family.name} family takes text only")
    if sample.videos and not family.supports_video:
        raise SafeladderError(f"{where} has video, but the {family.name} family takes none")
    ids = _template_ids(processor, family, sample, system_prompt, where)
    images = [pixels.encode_image(processor, family, image, where) for image in sample.images]
    videos = [pixels.encode_video(processor, video, where) for video in sample.videos]
    tokenizer = tokenizer_of(processor)
    ids = _expand(ids, tokenizer, family.image_token, [v.features for v in images], family.image_wrap, "image", where)
    ids = _expand(ids, tokenizer, family.video_token, [v.features for v in videos], None, "video", where)
    if max_length is not None and len(ids) > max_length:
        raise SafeladderError(f"{where}: the prompt has {len(ids)} tokens, at most {max_length} are allowed")
    return Encoded(
        prompt_ids=tuple(ids),
        pixel_values=_joined([v.values for v in images]),
        image_grid_thw=_grids(images),
        video_pixel_values=_joined([v.values for v in videos]),
        video_grid_thw=_grids(videos),
    )


def _template_ids(processor: Any, family: Family, sample: Sample, system_prompt: str | None, where: str) -> list[int]:
    """The rendered chat template as ids, one placeholder a visual."""
    tokenizer = tokenizer_of(processor)
    template = getattr(processor, "chat_template", None) or tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    if not template:
        raise SafeladderError(f"{where}: the {family.name} checkpoint has no chat template")
    control = _control_pattern(tokenizer, family)
    text = "".join(m.text for m in sample.messages) + (system_prompt or "")
    cut = None
    if control.search(text):
        cut = "\ue000"  # a private-use character; longer where the text has it
        while cut in text:
            cut += "\ue000"

    def plain(piece: str) -> str:
        # A token cut in two is never recognised: its halves are encoded apart.
        return piece if cut is None else control.sub(lambda m: f"{m[0][0]}{cut}{m[0][1:]}", piece)

    chat: list[dict[str, Any]] = []
    if system_prompt is not None and (not sample.messages or sample.messages[0].role != "system"):
        chat.append({"role": "system", "content": plain(system_prompt)})
    chat.extend({"role": m.role, "content": _content(m, plain)} for m in sample.messages)
    try:
        rendered = tokenizer.apply_chat_template(
            chat, chat_template=template, tokenize=False, add_generation_prompt=True
        )
    except Exception as error:  # templates raise whatever they like: jinja errors, TypeError, KeyError
        raise SafeladderError(f"{where}: the chat template fails ({error})".splitlines()[0]) from None
    pieces = [rendered] if cut is None else rendered.split(cut)
    return [i for piece in pieces for i in token_ids(tokenizer, piece)]


def token_ids(tokenizer: Any, text: str) -> list[int]:
    """What `tokenizer.encode(text, add_special_tokens=False)` gives, in half the time with a fast tokenizer."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    # Truncation and padding may be stored with a tokenizer; only the wrapping overrules them.
    if backend is None or backend.truncation is not None or backend.padding is not None:
        return tokenizer.encode(text, add_special_tokens=False)
    return backend.encode(text, add_special_tokens=False).ids


def _content(message: Message, plain: Callable[[str], str]) -> str | list[dict[str, str]]:
    # Text-only messages go in as strings: text-only templates accept nothing else.
    if all(part.text is not None for part in message.parts):
        return plain(message.text)
    content: list[dict[str, str]] = []
    # Neighbouring texts are joined first, or a control token could hide across their seam.
    for kind, parts in groupby(message.parts, key=_kind):
        if kind == "text":
            content.append({"type": "text", "text": plain("".join(part.text or "" for part in parts))})
        else:
            content.extend({"type": kind} for _ in parts)
    return content


def _kind(part: Part) -> str:
    return "text" if part.text is not None else "image" if part.image is not None else "video"


@lru_cache(maxsize=8)
def _control_pattern(tokenizer: Any, family: Family) -> re.Pattern[str]:
    tokens = sorted((t for t in control_strings(tokenizer, family) if len(t) > 1), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, tokens)))


def _expand(
    ids: list[int],
    tokenizer: Any,
    token: str | None,
    features: Sequence[int],
    wrap: tuple[str, str] | None,
    kind: str,
    where: str,
) -> list[int]:
    """Repeat the k-th placeholder `features[k]` times; as many placeholders as visuals, or an error."""
    if token is None:
        return ids
    placeholder = tokenizer.convert_tokens_to_ids(token)
    found = ids.count(placeholder)
    if found != len(features):
        raise SafeladderError(f"{where} has {len(features)} {kind}s, but its prompt has {found} {kind} placeholders")
    if not features:
        return ids
    before, after = ((tokenizer.convert_tokens_to_ids(t),) for t in wrap) if wrap else ((), ())
    counts = iter(features)
    expanded: list[int] = []
    for token_id in ids:
        if token_id == placeholder:
            expanded.extend((*before, *[placeholder] * next(counts), *after))
        else:
            expanded.append(token_id)
    return expanded


def _joined(values: Sequence[np.ndarray]) -> Tensor | None:
    if not values:
        return None
    return torch.from_numpy(values[0] if len(values) == 1 else np.concatenate(values))


def _grids(visuals: Sequence[pixels.Visual]) -> Tensor | None:
    grids = [visual.grid for visual in visuals if visual.grid is not None]
    return torch.tensor(grids, dtype=torch.int64) if grids else None


def positions(
    family: Family,
    prompt_ids: Sequence[int],
    image_grid_thw: Tensor | None,
    video_grid_thw: Tensor | None,
    config: Any,
) -> Tensor:
    """Rotary position ids of a prompt; the next token's position is `positions(...).max() + 1`.

    For Qwen2.5-VL these are the (time, height, width) positions of its `get_rope_index`, with one second
    between frame pairs (Qwen2.5-VL, arXiv 2502.13923, section 2.1.2). Other families count 0, 1, 2, ...

    Args:
        family, config: the model's.
        prompt_ids: ids with expanded placeholders.
        image_grid_thw, video_grid_thw: [visuals, 3] or None, as in `Encoded`.

    Returns:
        int64 [3, len(prompt_ids)] or [1, len(prompt_ids)].

    Raises:
        SafeladderError: the placeholders do not match the grids.
    """
    if family.rope_dimensions == 1:
        return torch.arange(len(prompt_ids)).unsqueeze(0)
    merge = config.vision_config.spatial_merge_size
    grids = {
        family.image_token_id(config): (iter([] if image_grid_thw is None else image_grid_thw.tolist()), 1),
        family.video_token_id(config): (
            iter([] if video_grid_thw is None else video_grid_thw.tolist()),
            config.vision_config.tokens_per_second,
        ),
    }
    place = np.empty((3, len(prompt_ids)), dtype=np.int64)
    index = following = 0
    while index < len(prompt_ids):
        text = next((i for i in range(index, len(prompt_ids)) if prompt_ids[i] in grids), len(prompt_ids)) - index
        place[:, index : index + text] = np.arange(following, following + text)
        index, following = index + text, following + text
        if index == len(prompt_ids):
            break
        token_id = prompt_ids[index]
        remaining, interval = grids[token_id]
        grid = next(remaining, None)
        time, rows, columns = (0, 0, 0) if grid is None else (grid[0], grid[1] // merge, grid[2] // merge)
        count = time * rows * columns
        if (
            not count
            or any(i != token_id for i in prompt_ids[index : index + count])
            or (index + count > len(prompt_ids))
        ):
            raise SafeladderError("image or video placeholders in the prompt do not match the vision grids")
        offsets = np.indices((time, rows, columns)).reshape(3, -1)
        offsets[0] *= int(interval)
        place[:, index : index + count] = offsets + following
        index, following = index + count, following + max(rows, columns)
    if any(next(remaining, None) is not None for remaining, _ in grids.values()):
        raise SafeladderError("the prompt has fewer image or video placeholders than there are vision grids")
    return torch.from_numpy(place)
