"""What a sample says and shows: its language, its words, and a key for its images. Pure functions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from safeladder.types import SafeladderError, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

Language = Literal["en", "zh"]

_CJK = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]")
_ENGLISH_WORD = re.compile(r"[A-Za-z]+(?:'[A-Za-z]+)?")
_ASCII_WORD = re.compile(r"[a-z0-9_]+")
_WORD = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff]|[^\W\u3400-\u4dbf\u4e00-\u9fff]+")


def zh_ratio(text: str) -> float | None:
    """CJK characters over CJK characters plus English words; None where the text has neither.

    Source: the language rule of the released SafeWork-R1 reward code.
    """
    chinese = 0 if text.isascii() else len(_CJK.findall(text))
    if not chinese:
        return 0.0 if _ENGLISH_WORD.search(text) else None
    english = len(_ENGLISH_WORD.findall(text))
    return chinese / (chinese + english)


def language_of(text: str) -> Language | None:
    """The language by `zh_ratio`: zh above 0.5, else en; None for text without letters, such as a number."""
    ratio = zh_ratio(text)
    if ratio is None:
        return None
    return "zh" if ratio > 0.5 else "en"


def words(text: str) -> list[str]:
    """Lower-case words; every CJK character is a word of its own, punctuation is dropped."""
    return (_ASCII_WORD if text.isascii() else _WORD).findall(text.lower())


def images_key(sample: Sample) -> bytes:
    """A digest of the pixels or files of all the sample's images and video frames, empty where it has none.

    Raises:
        SafeladderError: an image file cannot be read.
    """
    shown: list[Image | str] = [*sample.images, *(frame for video in sample.videos for frame in video)]
    return b"".join(map(_image_key, shown))


def content_key(sample: Sample) -> bytes:
    """A digest of everything the policy is asked and shown: equal keys mean the same prompt.

    Case, spacing and punctuation do not count, except where the text has no word at all.
    """
    digest = hashlib.blake2b(digest_size=16)
    for message in sample.messages:
        text = " ".join(words(message.text)) or message.text.strip()
        digest.update(f"{message.role}\x1f{text}\x1e".encode("utf-8", "surrogatepass"))
    digest.update(images_key(sample))
    return digest.digest()


def unit_interval(parts: Sequence[str]) -> float:
    """A number in [0, 1) that depends on `parts` alone, the same in every process."""
    text = "\x1f".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") / 2**64


def _image_key(image: Image | str) -> bytes:
    if isinstance(image, str):
        return _file_key(image)
    digest = hashlib.blake2b(f"{image.mode} {image.size}".encode(), digest_size=16)
    digest.update(image.tobytes())
    return digest.digest()


@lru_cache(maxsize=65_536)
def _file_key(path: str) -> bytes:
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=16).digest()
    except (OSError, ValueError) as error:
        raise SafeladderError(f"image {path!r} cannot be read: {error}") from None
