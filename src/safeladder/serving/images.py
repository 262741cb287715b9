"""Images of a request: decoded from data addresses alone, checked before and after decoding. Nothing is ever fetched.

The size is read from the header first, so that a small file that unpacks into gigabytes (a decompression bomb) is
refused before a pixel is made; only common formats are opened, because every decoder is a surface of attack.
"""

from __future__ import annotations

import base64
import binascii
import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from safeladder.types import SafeladderError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
"""Of GIF and WEBP only still images are accepted."""
_SCHEME = "data:"
_ASPECT = 200
"""Longest to shortest side; image processors refuse more."""


def read_image(url: str, *, max_bytes: int, max_pixels: int, where: str = "image") -> Image.Image:
    """The RGB image in ``data:image/...;base64,...``, upright (its EXIF orientation applied), transparency over white.

    Args:
        max_bytes: of the file.
        max_pixels: width times height.
        where: for the message.

    Raises:
        SafeladderError: any other address, not base64, too large, not a still image of `FORMATS`, or damaged.
    """
    if not url[: len(_SCHEME)].lower() == _SCHEME:
        raise SafeladderError(f"{where}: images are sent inline (data:image/png;base64,...); no address is fetched")
    head, comma, body = url.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise SafeladderError(f"{where}: a data address must look like data:image/png;base64,...")
    if len(body) > 4 * (max_bytes // 3 + 1):
        raise SafeladderError(f"{where}: more than {max_bytes} bytes")
    try:
        raw = base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise SafeladderError(f"{where}: not valid base64") from None
    if not raw:
        raise SafeladderError(f"{where}: empty")
    try:
        with warnings.catch_warnings():
            # Its own, higher limit is not ours.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(io.BytesIO(raw), formats=FORMATS) as opened:
                _check(opened, max_pixels, where)
                opened.load()
                return _over_white(ImageOps.exif_transpose(opened))
    except SafeladderError:
        raise
    except UnidentifiedImageError:
        raise SafeladderError(f"{where}: not an image; formats: {', '.join(FORMATS)}") from None
    except Image.DecompressionBombError:
        raise SafeladderError(f"{where}: more than {max_pixels} pixels") from None
    except Exception as error:  # PIL's decoders raise many kinds on damaged files (OSError, SyntaxError, struct.error)
        raise SafeladderError(f"{where}: damaged ({type(error).__name__})") from None


def _check(image: Image.Image, max_pixels: int, where: str) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise SafeladderError(f"{where}: {width} by {height} is more than {max_pixels} pixels")
    if min(width, height) < 1 or max(width, height) > _ASPECT * min(width, height):
        raise SafeladderError(f"{where}: {width} by {height} is too elongated (at most {_ASPECT} to 1)")
    if getattr(image, "n_frames", 1) > 1:
        raise SafeladderError(f"{where}: an animation; send still images")


def _over_white(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):  # PIL would make white of all but the darkest 256 of its 65,536 greys
        values = np.asarray(image)
        grey = np.where(values == image.info.get("transparency"), 255, (values / 257).round())
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGB", "L") and "transparency" not in image.info:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    white = Image.new("RGBA", clear.size, "white")
    return Image.alpha_composite(white, clear).convert("RGB")
