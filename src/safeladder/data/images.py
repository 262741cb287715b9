"""Checks that an image can be decoded in full, before anything is trained on it."""

from __future__ import annotations

import base64
import binascii
import io
import os
import warnings
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from safeladder.types import SafeladderError


def check_image(path: str | os.PathLike[str]) -> str | None:
    """Why the file is not a usable image, or None where it is.

    The file is verified and then decoded (a truncated JPEG passes PIL's `verify`, not its decoder; the
    decoder works at reduced size where the format allows it).
    """
    if not Path(path).is_file():
        return f"image {str(path)!r} not found"
    return _cause(repr(str(path)), path)


def decode_data_uri(uri: str) -> Image.Image:
    """The image in a ``data:image/...;base64,...`` address.

    Raises:
        SafeladderError: not base64, or not a complete image.
    """
    head, comma, body = uri.partition(",")
    if not comma or not head.startswith("data:image/") or not head.endswith(";base64"):
        raise SafeladderError("a data: image must look like data:image/png;base64,...")
    try:
        raw = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise SafeladderError("a data: image is not valid base64") from None
    cause = _cause("in a data: address", io.BytesIO(raw))
    if cause is not None:
        raise SafeladderError(cause)
    image = Image.open(io.BytesIO(raw))
    image.load()
    return image


def _cause(name: str, file: str | os.PathLike[str] | io.BytesIO) -> str | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as image:
                image.verify()
            if isinstance(file, io.BytesIO):
                file.seek(0)
            with Image.open(file) as image:
                image.draft("RGB", (64, 64))
                image.load()
    except UnidentifiedImageError:
        return f"image {name} is not an image file"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return f"image {name} has more than {Image.MAX_IMAGE_PIXELS} pixels"
    except Exception as error:  # PIL's decoders raise many kinds on damaged files (OSError, SyntaxError, struct.error)
        return f"image {name} is corrupt ({' '.join(str(error).split()) or type(error).__name__})"
    return None
