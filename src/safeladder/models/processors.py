"""Processors: build, save, load.

No torchvision is needed: where it is missing, image-only subclasses of the official processors stand in,
video frames take the path of `pixels`, and what is saved is what the official classes read.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import AutoProcessor, AutoTokenizer, InternVLProcessor, Qwen2_5_VLProcessor
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.processing_utils import ProcessorMixin
from transformers.utils.import_utils import is_torchvision_available

from safeladder.models.families import Family, family_of
from safeladder.models.pixels import video_size
from safeladder.types import SafeladderError

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""What InternVL3 normalises with."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json")


class ImageOnlyQwenProcessor(Qwen2_5_VLProcessor):
    """The Qwen2.5-VL processor without its video half, which needs torchvision."""

    video_size: Mapping[str, int] | None = None
    """Pixel limits of a video frame; those of images where None."""

    def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kwargs) -> None:
        super().__init__(image_processor, tokenizer, None, chat_template=chat_template, **kwargs)


class ImageOnlyInternVLProcessor(InternVLProcessor):
    """The InternVL processor without its video half, which needs torchvision."""

    def __init__(
        self, image_processor=None, tokenizer=None, image_seq_length: int = 256, chat_template=None, **kwargs
    ) -> None:
        super().__init__(image_processor, tokenizer, None, image_seq_length, chat_template, **kwargs)


_NORMALISATION = ("image_mean", "image_std")
_IMAGE_ONLY = {
    "Qwen2_5_VLProcessor": (
        ImageOnlyQwenProcessor,
        Qwen2VLImageProcessorPil,
        "Qwen2VLImageProcessor",
        "Qwen2VLVideoProcessor",
        ("patch_size", "merge_size", "temporal_patch_size", *_NORMALISATION),
    ),
    "InternVLProcessor": (
        ImageOnlyInternVLProcessor,
        GotOcr2ImageProcessorPil,
        "GotOcr2ImageProcessor",
        "InternVLVideoProcessor",
        _NORMALISATION,
    ),
}
"""Official processor -> image-only processor, PIL image processor, names of the official image and video
processors, and the settings that a video processor shares with its image processor."""


def build_processor(tokenizer: Any, family: Family, *, max_pixels: int, config: Any) -> Any:
    """A processor for a model that has none yet.

    Args:
        tokenizer: with the family's special tokens and chat template.
        family: the model's family; a text-only family's processor is its tokenizer.
        max_pixels: largest image kept at native resolution; larger ones are scaled down (Qwen2.5-VL) or cut
            into at most as many tiles (InternVL).
        config: the model's config, which fixes patch and tile sizes.
    """
    if family.processor_class is None:
        return tokenizer
    image_only, image_processor, *_ = _IMAGE_ONLY[family.processor_class]
    vision = config.vision_config
    if family.name == "internvl":
        height, width = vision.image_size
        return image_only(
            image_processor(
                size={"height": height, "width": width},
                crop_to_patches=True,
                max_patches=max(1, max_pixels // (height * width)),
                image_mean=_IMAGENET_MEAN,
                image_std=_IMAGENET_STD,
            ),
            tokenizer,
            image_seq_length=config.image_seq_length,
            chat_template=tokenizer.chat_template,
        )
    factor = vision.patch_size * vision.spatial_merge_size
    return image_only(
        image_processor(
            size={"shortest_edge": factor * factor, "longest_edge": max_pixels},
            patch_size=vision.patch_size,
            merge_size=vision.spatial_merge_size,
            temporal_patch_size=vision.temporal_patch_size,
        ),
        tokenizer,
        chat_template=tokenizer.chat_template,
    )


def save_processor(processor: Any, path: str | os.PathLike[str]) -> None:
    """Write a processor so that plain `AutoProcessor` reads it wherever torchvision is installed.

    The image-only classes are written under their official names, with the video settings they stand in for.
    """
    folder = Path(path)
    processor.save_pretrained(folder)
    official = next((name for name, (own, *_) in _IMAGE_ONLY.items() if isinstance(processor, own)), None)
    if official is None:
        return
    _, _, image_name, video_name, shared = _IMAGE_ONLY[official]
    settings = _read_json(folder / "processor_config.json")
    settings["processor_class"] = official
    settings["image_processor"]["image_processor_type"] = image_name
    # The official processors cannot be built without a video half.
    settings["video_processor"] = {
        "video_processor_type": video_name,
        "size": dict(video_size(processor)),
        **{key: settings["image_processor"][key] for key in shared},
    }
    _write_json(folder / "processor_config.json", settings)
    tokenizer_config = _read_json(folder / "tokenizer_config.json")
    _write_json(folder / "tokenizer_config.json", tokenizer_config | {"processor_class": official})


def load_processor(path: str | os.PathLike[str], *, trust_remote_code: bool = False) -> Any:
    """The processor (for text-only families, the tokenizer) of a local checkpoint. Never asks the network.

    Raises:
        SafeladderError: files are missing or unreadable, or the family is unknown.
    """
    folder = Path(path)
    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": trust_remote_code}
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        # transformers would go on with an empty vocabulary
        raise SafeladderError(f"{folder} has no tokenizer ({', '.join(_TOKENIZER_FILES)})")
    try:
        family = family_of(_read_json(folder / "config.json").get("model_type", ""))
        if family.processor_class is None:
            return AutoTokenizer.from_pretrained(folder, **options)
        if is_torchvision_available():
            return AutoProcessor.from_pretrained(folder, **options)
        image_only, image_processor, *_ = _IMAGE_ONLY[family.processor_class]
        tokenizer = AutoTokenizer.from_pretrained(folder, **options)
        settings, _ = ProcessorMixin.get_processor_dict(folder, local_files_only=True)
        extra = {k: settings[k] for k in ("image_seq_length",) if k in settings and family.name == "internvl"}
        processor = image_only(
            image_processor.from_pretrained(folder, local_files_only=True),
            tokenizer,
            chat_template=settings.get("chat_template") or tokenizer.chat_template,
            **extra,
        )
        if family.supports_video:
            processor.video_size = settings.get("video_processor", {}).get("size")
        return processor
    except (OSError, ValueError, KeyError, AttributeError) as error:
        cause = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SafeladderError(f"cannot load the processor of {folder}: {cause}") from None


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
