"""Images of requests: only inline, only common still formats, sizes checked before a pixel is made."""

from __future__ import annotations

import base64
import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from safeladder.serving.images import read_image
from safeladder.types import SafeladderError


def url_of(raw: bytes, kind: str = "png") -> str:
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def read(url: str, *, max_bytes: int = 10**6, max_pixels: int = 10**6) -> Image.Image:
    return read_image(url, max_bytes=max_bytes, max_pixels=max_pixels, where="messages.0.content.1")


NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8))
RED = Image.new("RGB", (4, 3), (255, 0, 0))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF"])
def test_common_formats_come_out_pixel_for_pixel(kind: str):
    found = read(url_of(encoded(RED, kind), kind.lower()))
    assert (found.mode, found.size, found.getpixel((0, 0))) == ("RGB", (4, 3), (255, 0, 0))


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_lossy_formats_are_read(kind: str):
    assert read(url_of(encoded(RED, kind), kind.lower())).size == (4, 3)


def test_what_the_address_says_of_the_format_does_not_matter():
    assert read(url_of(encoded(RED), "jpeg")).getpixel((0, 0)) == (255, 0, 0)
    assert read(url_of(encoded(RED)).replace("data:", "DATA:")).size == (4, 3)


def test_sixteen_bit_greys_keep_their_shades():
    # 257 steps of 16 bits to one of 8: 0, 1, 25700 / 257 = 100, 65535 / 257 = 255
    deep = Image.fromarray(np.array([[0, 257, 25700, 65535]], dtype=np.uint16))
    found = read(url_of(encoded(deep)))
    assert [found.getpixel((x, 0)) for x in range(4)] == [(v, v, v) for v in (0, 1, 100, 255)]
    clear = read(url_of(encoded(deep, transparency=25700)))
    assert [clear.getpixel((x, 0))[0] for x in range(4)] == [0, 1, 255, 255]


def test_transparency_lies_over_white():
    clear = Image.new("RGBA", (2, 2), (0, 0, 0, 0))
    assert read(url_of(encoded(clear))).getpixel((0, 0)) == (255, 255, 255)
    palette = RED.convert("P")
    assert read(url_of(encoded(palette, transparency=palette.getpixel((0, 0))))).getpixel((0, 0)) == (255, 255, 255)
    grey = Image.new("LA", (1, 1), (0, 255))
    assert read(url_of(encoded(grey))).getpixel((0, 0)) == (0, 0, 0)


def test_a_photo_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held sideways
    assert read(url_of(encoded(RED, "JPEG", exif=exif))).size == (3, 4)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1/x.png", "no address is fetched"),
        ("https://example.org/x.png", "no address is fetched"),
        ("file:///etc/passwd", "no address is fetched"),
        ("//host/x", "no address is fetched"),
        ("", "no address is fetched"),
        ("data:image/png,abc", "must look like"),
        ("data:", "must look like"),
        ("data:image/png;base64,@@@@", "not valid base64"),
        ("data:image/png;base64,QUJ", "not valid base64"),
        ("data:image/png;base64,", "empty"),
        ("data:image/png;base64,QUJD", "not an image"),
        (url_of(b"<svg xmlns='http://www.w3.org/2000/svg'/>", "svg+xml"), "not an image"),
        (url_of(encoded(NOISE)[:-200]), "damaged"),
        (url_of(encoded(NOISE, "JPEG")[:-100], "jpeg"), "damaged"),
        (url_of(encoded(RED, "TIFF"), "tiff"), "not an image"),
    ],
)
def test_everything_else_is_refused_with_the_reason(url: str, reason: str):
    with pytest.raises(SafeladderError, match=rf"messages\.0\.content\.1: .*{reason}") as caught:
        read(url)
    assert "\n" not in str(caught.value)


def test_a_bomb_is_refused_by_its_header():
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    # 50,000 by 50,000 pixels are 7.5 GB; the file has a few bytes.
    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(SafeladderError, match="more than 1000000 pixels"):
        read(url_of(bomb))


def test_bounds_are_those_that_were_given():
    exact = Image.new("RGB", (10, 10))
    assert read(url_of(encoded(exact)), max_pixels=100).size == (10, 10)
    with pytest.raises(SafeladderError, match="10 by 10 is more than 99 pixels"):
        read(url_of(encoded(exact)), max_pixels=99)
    with pytest.raises(SafeladderError, match="more than 40 bytes"):
        read(url_of(encoded(exact)), max_bytes=40)
    assert read(url_of(encoded(Image.new("L", (200, 1))))).size == (200, 1)
    with pytest.raises(SafeladderError, match="too elongated"):
        read(url_of(encoded(Image.new("L", (201, 1)))))


def test_animations_are_refused():
    frames = [Image.new("L", (2, 2), k * 80) for k in range(3)]
    for kind in ("GIF", "WEBP"):
        moving = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        with pytest.raises(SafeladderError, match="animation"):
            read(url_of(moving, kind.lower()))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_damaged_file_is_an_image_or_a_refusal_and_nothing_else(data: st.DataObject):
    kind = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "WEBP"]))
    raw = bytearray(encoded(NOISE, kind))
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    raw = raw[: data.draw(st.integers(1, len(raw)))]
    try:
        found = read(url_of(bytes(raw)), max_pixels=10_000)
    except SafeladderError:
        return
    assert found.mode == "RGB"
    assert found.width * found.height <= 10_000
