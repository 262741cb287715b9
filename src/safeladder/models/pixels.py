"""Pixels to vision-tower inputs, in numpy.

The layouts and the arithmetic are those of the Hugging Face PIL image processors, value for value: an 8-bit
channel takes 256 values, so rescaling and normalising is one table look-up. Resizing is left to Hugging Face.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image, ImageOps
from transformers.image_transforms import convert_to_rgb
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from safeladder.models.families import Family
from safeladder.types import SafeladderError

_MAX_ASPECT = 200
"""Hugging Face refuses images more elongated than this."""


def load_rgb(image: Any, where: str) -> np.ndarray:
    """An image as uint8 RGB [height, width, 3]; transparency is laid over white, as Hugging Face does.

    Args:
        image: a PIL image, or the path of an image file (its EXIF orientation is applied).
        where: what the image belongs to, for the error message.

    Raises:
        SafeladderError: the file is missing or unreadable, or `image` is neither an image nor a path.
    """
    if isinstance(image, Image.Image):
        return _rgb(image, f"{where}: image in memory")
    if not isinstance(image, str | os.PathLike):
        raise SafeladderError(f"{where}: an image must be a PIL image or a path, not {type(image).__name__}")
    try:
        opened = Image.open(image)
    except FileNotFoundError:
        raise SafeladderError(f"{where}: image file {os.fspath(image)} does not exist") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SafeladderError(f"{where}: image file {os.fspath(image)} cannot be read ({_line(error)})") from None
    with opened:
        return _rgb(opened, f"{where}: image file {os.fspath(image)}", orient=True)


def _rgb(image: Image.Image, where: str, *, orient: bool = False) -> np.ndarray:
    try:
        upright = ImageOps.exif_transpose(image) if orient else image
        pixels = np.asarray(upright if upright.mode == "RGB" else convert_to_rgb(upright, return_numpy=True))
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError) as error:
        raise SafeladderError(f"{where} cannot be read ({_line(error)})") from None
    if 0 in pixels.shape:
        raise SafeladderError(f"{where} is empty")
    return pixels


def _line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def normalisation_table(image_processor: Any) -> np.ndarray:
    """float32 [3, 256]: what each 8-bit value of each channel becomes after rescaling and normalising."""
    return _table(
        float(image_processor.rescale_factor),
        tuple(image_processor.image_mean),
        tuple(image_processor.image_std),
    )


@lru_cache(maxsize=16)
def _table(scale: float, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    # Same order of operations and precisions as the Hugging Face PIL path, so that results are bit-equal.
    rescaled = (np.arange(256, dtype=np.float64) * scale).astype(np.float32)
    offsets, scales = np.array(mean, dtype=np.float32), np.array(std, dtype=np.float32)
    table = (rescaled[None, :] - offsets[:, None]) / scales[:, None]
    table.setflags(write=False)
    return table


def standard_arithmetic(image_processor: Any) -> bool:
    """Whether the processor resizes, rescales and normalises, so that the fast paths here stand in for it."""
    return bool(image_processor.do_resize and image_processor.do_rescale and image_processor.do_normalize)


def needs_no_resize(height: int, width: int, image_processor: Any) -> bool:
    """Whether Qwen2-VL's smart resize would leave the image as it is."""
    factor = image_processor.patch_size * image_processor.merge_size
    size = image_processor.size
    return (
        height % factor == 0
        and width % factor == 0
        and size["shortest_edge"] <= height * width <= size["longest_edge"]
        and max(height, width) <= _MAX_ASPECT * min(height, width)
    )


def patchify(frames: np.ndarray, table: np.ndarray, *, patch: int, merge: int, temporal: int) -> np.ndarray:
    """Normalised patches of an image or of video frames, in Qwen2-VL's order.

    Args:
        frames: uint8 [frames, height, width, 3], height and width multiples of patch x merge. A single frame
            (an image) fills the temporal patch by repetition; so does the last frame of an incomplete one.
        table: float32 [3, 256] from `normalisation_table`.
        patch, merge, temporal: patch side, spatial merge side and temporal patch size.

    Returns:
        float32 [frames/temporal x height/patch x width/patch, 3 x temporal x patch x patch]; patches that are
        merged into one token are neighbours.
    """
    shortage = -len(frames) % temporal
    still = len(frames) == 1
    if shortage and not still:
        frames = np.concatenate((frames, np.repeat(frames[-1:], shortage, axis=0)))
    count, height, width, channels = frames.shape
    depth = 1 if still else temporal
    rows, columns = height // patch, width // patch
    blocks = frames.reshape(
        count // depth, depth, rows // merge, merge, patch, columns // merge, merge, patch, channels
    )
    # time, block row, block column, row, column, channel, frame, y, x
    patches = blocks.transpose(0, 2, 5, 3, 6, 8, 1, 4, 7).reshape(-1, channels, depth, patch, patch)
    # One look-up for all channels: the table's rows lie one after another.
    rows_of_table = np.arange(channels).reshape(-1, 1, 1, 1) * table.shape[1]
    values = table.ravel().take(patches + rows_of_table)
    if still:
        values = np.broadcast_to(values, (len(values), channels, temporal, patch, patch))
    return values.reshape(len(values), -1)


def resized(frames: Sequence[np.ndarray], height: int, width: int, resample: int) -> np.ndarray:
    """Frames, uint8 [height, width, 3] each, resized to one size by PIL's filter `resample` and stacked."""
    if frames[0].shape[:2] == (height, width):
        return np.stack(frames)
    scaled = [Image.fromarray(frame).resize((width, height), resample) for frame in frames]
    return np.stack([np.asarray(frame) for frame in scaled])


@dataclass(frozen=True, slots=True)
class Visual:
    """One image or video: float32 tower inputs, how many tokens they become, the grid where there is one."""

    values: np.ndarray
    features: int
    grid: tuple[int, int, int] | None = None


def encode_image(processor: Any, family: Family, image: Any, where: str) -> Visual:
    """One image (PIL or path) in the family's layout; errors start with `where`.

    An image that needs no resizing takes the table look-up, any other the processor's own resizing.

    Raises:
        SafeladderError: the image cannot be read, or its shape is refused.
    """
    frame = load_rgb(image, where)
    settings = processor.image_processor
    if family.name == "internvl":
        return _encode_tiles(processor, frame, where)
    height, width, _ = frame.shape
    if standard_arithmetic(settings) and needs_no_resize(height, width, settings):
        return _patches(frame[None], settings)
    batch = _hugging_face(settings, frame, where)
    rows, columns = (int(x) for x in batch["image_grid_thw"][0, 1:])
    features = rows * columns // settings.merge_size**2
    return Visual(np.asarray(batch["pixel_values"], dtype=np.float32), features, (1, rows, columns))


def _encode_tiles(processor: Any, frame: np.ndarray, where: str) -> Visual:
    settings = processor.image_processor
    tile = (settings.size["height"], settings.size["width"])
    if standard_arithmetic(settings) and frame.shape[:2] == tile:
        table = normalisation_table(settings)
        channels = np.stack([table[c][frame[..., c]] for c in range(3)])
        return Visual(channels[None], processor.image_seq_length)
    values = np.asarray(_hugging_face(settings, frame, where, crop_to_patches=True)["pixel_values"], np.float32)
    return Visual(values, len(values) * processor.image_seq_length)


def _hugging_face(image_processor: Any, frame: np.ndarray, where: str, **options: bool) -> Any:
    try:
        return image_processor(images=[frame], input_data_format="channels_last", return_tensors="np", **options)
    except ValueError as error:
        raise SafeladderError(f"{where}: an image of {frame.shape[1]}x{frame.shape[0]} is refused ({error})") from None


def encode_video(processor: Any, video: Sequence[Any], where: str) -> Visual:
    """A video's frames (PIL or paths, in order) as Qwen2-VL patches, two frames a temporal patch.

    Raises:
        SafeladderError: no frames, frames of different sizes, or a frame that cannot be read.
    """
    if not video:
        raise SafeladderError(f"{where}: a video has no frames")
    # A still picture is several frames of one object.
    read = {id(frame): load_rgb(frame, where) for frame in {id(frame): frame for frame in video}.values()}
    frames = [read[id(frame)] for frame in video]
    if len({frame.shape for frame in frames}) != 1:
        raise SafeladderError(f"{where}: the frames of a video differ in size")
    settings = processor.image_processor
    size = video_size(processor)
    factor = settings.patch_size * settings.merge_size
    height, width, _ = frames[0].shape
    try:
        target = smart_resize(height, width, factor, size["shortest_edge"], size["longest_edge"])
    except ValueError as error:
        raise SafeladderError(f"{where}: a video of {width}x{height} is refused ({error})") from None
    return _patches(resized(frames, *target, settings.resample), settings)


def _patches(frames: np.ndarray, settings: Any) -> Visual:
    """Frames that need no more resizing, as Qwen2-VL patches."""
    patch, merge, temporal = settings.patch_size, settings.merge_size, settings.temporal_patch_size
    table = normalisation_table(settings)
    values = patchify(frames, table, patch=patch, merge=merge, temporal=temporal)
    grid = (-(-len(frames) // temporal), frames.shape[1] // patch, frames.shape[2] // patch)
    return Visual(values, len(values) // merge**2, grid)


def video_size(processor: Any) -> Mapping[str, int]:
    """Pixel limits of a video frame: `shortest_edge` and `longest_edge`, both areas in pixels."""
    official = getattr(processor, "video_processor", None)
    own = getattr(processor, "video_size", None)
    return official.size if official is not None else own or processor.image_processor.size
