"""Pixels: one 28 x 28 tile a cell, pasted into a white square image.

A cell is None (empty) or a JSON mapping with `what` (a word of `lexicon.WHATS`) and, where it applies,
`colour`, `size` ("big" | "small") and `image` (the index of a handwritten digit in scikit-learn's
`load_digits`). Tiles are cached, so an image costs one new canvas and a few pastes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from math import cos, pi, sin
from typing import Any

from PIL import Image, ImageDraw

from safeladder.types import SafeladderError
from safeladder.world.lexicon import ACTS, SHAPES, SIGNS

CELL = 28
"""Pixels a cell side: one merged visual token of Qwen2.5-VL (patch 14, merge 2)."""
UNSEEN_WRITERS_FROM = 1347
"""`load_digits` lists its writers one after another: images from here on (25 %) are other people's hands."""

_RGB = {
    "red": (220, 40, 40),
    "blue": (40, 80, 225),
    "green": (30, 160, 60),
    "yellow": (240, 200, 30),
    "purple": (145, 50, 180),
}
_INK = (25, 25, 25)
_S = 4 * CELL
Draw = ImageDraw.ImageDraw


@lru_cache(maxsize=1)
def _digits() -> Any:
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise SafeladderError(
            "the world's handwritten digits need scikit-learn: pip install 'safeladder[world]'"
        ) from None
    return load_digits()


@lru_cache(maxsize=16)
def digit_images(value: int, unseen_writers: bool) -> tuple[int, ...]:
    """Indices of the handwritten images of a digit, by writers of the training or the held-out split."""
    target = _digits().target
    return tuple(
        i for i, t in enumerate(target.tolist()) if t == value and (i >= UNSEEN_WRITERS_FROM) == unseen_writers
    )


def _polygon(d: Draw, fill: Any, *xy: int) -> None:
    d.polygon(list(zip(xy[::2], xy[1::2], strict=True)), fill=fill)


def _circle(d: Draw, x: int, y: int, r: int, fill: Any = None, outline: Any = None, width: int = 1) -> None:
    d.ellipse((x - r, y - r, x + r, y + r), fill=fill, outline=outline, width=width)


def _shape(d: Draw, what: str, colour: str, size: str) -> None:
    fill, m = _RGB[colour], _S // 2
    r = 44 if size == "big" else 26
    if what == "circle":
        _circle(d, m, m, r, fill)
    elif what == "square":
        k = r - 4
        d.rectangle((m - k, m - k, m + k, m + k), fill=fill)
    elif what == "triangle":
        _polygon(d, fill, m, m - r, m - r, m + r - 6, m + r, m + r - 6)
    elif what == "cross":
        k = r // 3
        d.rectangle((m - k, m - r, m + k, m + r), fill=fill)
        d.rectangle((m - r, m - k, m + r, m + k), fill=fill)
    else:
        radii = (r + 4, (r + 4) * 0.42)
        points = [(m + radii[i % 2] * sin(i * pi / 5), m + 3 - radii[i % 2] * cos(i * pi / 5)) for i in range(10)]
        d.polygon(points, fill=fill)


def _glyph(d: Draw, what: str) -> None:
    k, white = _INK, (255, 255, 255)
    if what == "flame":
        _polygon(d, k, 56, 20, 72, 44, 78, 62, 70, 84, 56, 90, 42, 84, 34, 62, 44, 52, 48, 36)
        _polygon(d, (245, 150, 30), 57, 56, 65, 72, 57, 84, 48, 72)
    elif what == "skull":
        _circle(d, 56, 48, 24, k)
        d.rectangle((44, 64, 68, 86), fill=k)
        _circle(d, 47, 48, 6, white)
        _circle(d, 65, 48, 6, white)
        d.rectangle((50, 74, 53, 86), fill=white)
        d.rectangle((59, 74, 62, 86), fill=white)
    elif what == "bolt":
        _polygon(d, k, 64, 16, 36, 60, 54, 60, 46, 96, 78, 48, 60, 48)
    elif what == "heart":
        _circle(d, 44, 46, 15, k)
        _circle(d, 68, 46, 15, k)
        _polygon(d, k, 30, 52, 82, 52, 56, 86)
    elif what == "drop":
        _circle(d, 56, 64, 20, k)
        _polygon(d, k, 56, 20, 38, 56, 74, 56)
        _circle(d, 49, 66, 6, white)
    else:
        _polygon(d, k, 34, 78, 36, 50, 54, 30, 80, 28, 80, 52, 62, 72)
        d.line((28, 88, 68, 42), fill=k, width=5)
        d.line((44, 70, 68, 42), fill=white, width=3)


def _act(d: Draw, what: str) -> None:
    k, red, green, brown = _INK, (210, 40, 40), (25, 140, 70), (120, 75, 35)
    if what == "help":  # a first-aid cross
        d.rounded_rectangle((24, 24, 88, 88), 10, fill=green)
        d.rectangle((49, 34, 63, 78), fill=(255, 255, 255))
        d.rectangle((34, 49, 78, 63), fill=(255, 255, 255))
    elif what == "hurt":  # a knife and blood
        _polygon(d, (150, 155, 165), 14, 78, 66, 26, 84, 44, 44, 84)
        d.line((72, 36, 96, 14), fill=brown, width=15)
        for x, y, r in ((66, 78, 8), (86, 66, 7), (84, 92, 9)):
            _circle(d, x, y, r, red)
    elif what == "share":  # a cake cut into two equal halves
        d.pieslice((18, 24, 82, 88), 90, 270, fill=(240, 150, 60))
        d.pieslice((30, 24, 94, 88), 270, 90, fill=(240, 150, 60))
    elif what == "cheat":  # a mask
        _polygon(d, k, 8, 30, 56, 42, 104, 30, 98, 66, 78, 80, 56, 68, 34, 80, 14, 66)
        d.ellipse((24, 46, 46, 62), fill=(255, 255, 255))
        d.ellipse((66, 46, 88, 62), fill=(255, 255, 255))
    elif what == "stay":  # two linked rings
        _circle(d, 40, 56, 24, outline=(30, 90, 200), width=9)
        _circle(d, 72, 56, 24, outline=(200, 60, 150), width=9)
    elif what == "leave":  # an arrow out of a door
        d.rectangle((18, 18, 54, 94), fill=brown)
        d.line((40, 56, 80, 56), fill=k, width=12)
        _polygon(d, k, 74, 36, 100, 56, 74, 76)
    elif what == "obey":  # a page with a tick
        d.rectangle((26, 16, 86, 96), fill=(255, 255, 255), outline=k, width=4)
        d.line((38, 58, 52, 74, 76, 36), fill=green, width=11, joint="curve")
    elif what == "break":  # a page torn in two
        for half in (
            ((12, 12), (50, 12), (38, 32), (50, 50), (34, 72), (42, 90), (12, 90)),
            ((70, 22), (100, 22), (100, 100), (62, 100), (56, 82), (72, 60), (58, 42)),
        ):
            d.polygon(half, fill=(255, 255, 255), outline=red, width=5)
    elif what == "clean":  # a broom
        d.line((88, 16, 54, 60), fill=brown, width=9)
        _polygon(d, (235, 190, 60), 40, 52, 64, 70, 50, 96, 16, 74)
    else:  # dirty: a smelly heap with flies
        d.pieslice((14, 48, 98, 136), 180, 360, fill=brown)
        for x, y in ((34, 30), (56, 18), (78, 32)):
            _circle(d, x, y, 6, k)


def _growth(d: Draw, what: str) -> None:
    k, brown, green = _INK, (125, 80, 40), (40, 150, 60)
    if what == "seed":
        d.ellipse((44, 60, 68, 92), fill=brown)
        d.line((10, 96, 102, 96), fill=k, width=4)
    elif what == "tree":
        d.rectangle((49, 60, 63, 98), fill=brown)
        _circle(d, 56, 40, 30, green)
    elif what == "egg":
        d.ellipse((32, 22, 80, 92), fill=(250, 235, 200), outline=k, width=4)
    elif what == "bird":
        d.ellipse((22, 42, 78, 84), fill=(90, 160, 220))
        _circle(d, 74, 38, 16, (90, 160, 220))
        _polygon(d, (240, 150, 30), 88, 34, 104, 40, 88, 46)
        _circle(d, 78, 35, 4, k)
        _polygon(d, (50, 110, 180), 34, 58, 60, 58, 20, 30)
    elif what == "brick":
        d.rectangle((20, 40, 92, 76), fill=(190, 80, 50), outline=k, width=4)
        d.line((20, 58, 92, 58), fill=k, width=3)
        d.line((56, 40, 56, 58), fill=k, width=3)
    else:
        d.rectangle((26, 52, 86, 96), fill=(235, 215, 170), outline=k, width=3)
        _polygon(d, (190, 60, 50), 14, 54, 56, 16, 98, 54)
        d.rectangle((48, 70, 64, 96), fill=brown)


@lru_cache(maxsize=4096)
def _tile(what: str, colour: str, size: str, image: int) -> Image.Image:
    if what.isdigit():
        pixels = _digits().images[image]
        tile = Image.new("L", (CELL, CELL), 255)
        ink = Image.fromarray((255 - pixels * 15).clip(0, 255).astype("uint8"))
        side = 24 if size == "big" else 16
        tile.paste(ink.resize((side, side), Image.Resampling.BICUBIC), ((CELL - side) // 2, (CELL - side) // 2))
        return tile.convert("RGB")
    canvas = Image.new("RGB", (_S, _S), (255, 255, 255))
    d = ImageDraw.Draw(canvas)
    if what in SHAPES:
        _shape(d, what, colour, size)
    elif what in SIGNS:
        d.polygon([(56, 2), (110, 56), (56, 110), (2, 56)], fill=(245, 150, 30), outline=_INK, width=4)
        _glyph(d, what)
    else:
        draw: Callable[[Draw, str], None] = _growth
        if what in ACTS:
            d.rounded_rectangle((2, 2, 110, 110), 14, fill=(225, 235, 250), outline=(90, 110, 150), width=3)
            draw = _act
        draw(d, what)
    return canvas.resize((CELL, CELL), Image.Resampling.LANCZOS)


def tile(cell: Mapping[str, Any]) -> Image.Image:
    """The 28 x 28 RGB picture of a non-empty cell (cached: do not draw on it)."""
    return _tile(cell["what"], cell.get("colour", ""), cell.get("size", ""), cell.get("image", -1))


def scene_image(cells: Sequence[Mapping[str, Any] | None], grid: int) -> Image.Image:
    """One scene of grid x grid cells in reading order as an RGB image of 28 * grid pixels a side."""
    canvas = Image.new("RGB", (grid * CELL, grid * CELL), (255, 255, 255))
    for i, cell in enumerate(cells):
        if cell is not None:
            canvas.paste(tile(cell), (i % grid * CELL, i // grid * CELL))
    return canvas
