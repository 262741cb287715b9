"""A contact sheet: samples of every kind with their gold response or search, for a person to look at."""

from __future__ import annotations

import base64
import html
import io
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from safeladder.atomic import write_bytes
from safeladder.types import SafeladderError, Sample
from safeladder.world.families import KINDS, SEARCH
from safeladder.world.judge import judge
from safeladder.world.searching import rehearse
from safeladder.world.teachers import demonstrate
from safeladder.world.world import World

_CJK_FONTS = (
    "NotoSansCJK-Regular.ttc",
    "wqy-zenhei.ttc",
    "msyh.ttc",
    "simhei.ttf",
    "PingFang.ttc",
    "Arial Unicode.ttf",
)
_PICTURE = 168
_TRACE = 340
_WIDTH = 460
_STYLE = """body{font:14px/1.4 system-ui,sans-serif;margin:2em;background:#fafafa;color:#222}
section{display:grid;grid-template-columns:repeat(auto-fill,minmax(300px,1fr));gap:12px}
article{background:#fff;border:1px solid #ddd;border-radius:6px;padding:10px}
img{image-rendering:pixelated;border:1px solid #bbb;margin-right:6px;width:140px}
.q{font-weight:600}.r{color:#666;white-space:pre-line}.bad{color:#b00}small{color:#777}"""


@dataclass(frozen=True)
class _Card:
    """`told` is question, reasoning (or the whole search) and answer; `verdict` says what the answer is worth."""

    sample: Sample
    told: tuple[str, str, str]
    verdict: str
    good: bool

    @property
    def pictures(self) -> list[Image.Image]:
        """The picture, or one frame of each scene."""
        frames = [f for video in self.sample.videos for f in video[::2]] or list(self.sample.images)
        return [f for f in frames if isinstance(f, Image.Image)]

    @property
    def facts(self) -> str:
        flags = [flag for flag in ("hard", "compositional") if self.sample.meta[flag]]
        return " · ".join([self.sample.label, self.sample.language, *self.sample.taxonomy[2:], *flags])


def _cards(world: World, per_kind: int, split: str) -> dict[str, list[_Card]]:
    pages = world.pages(split)
    return {
        kind: [
            _searched(sample, pages) if kind in SEARCH else _answered(sample)
            for sample in (world.item(kind, split, index) for index in range(per_kind))
        ]
        for kind in (*KINDS, *SEARCH)
    }


def _answered(sample: Sample) -> _Card:
    gold = demonstrate(sample, "careful", random.Random(0))
    verdict = judge(sample, gold)
    return _Card(sample, (sample.question, gold.reasoning or "", gold.answer), verdict.label, verdict.correct)


def _searched(sample: Sample, pages: Sequence[dict[str, str]]) -> _Card:
    turns = [text for _, text in rehearse(sample, pages, random.Random(0))]
    truth = sample.meta["truth"]
    if truth["answerable"]:
        verdict = "the pages state it"
    else:
        verdict = f"missing: {truth['missing']}" if truth["missing"] else f"disputed; true is {sample.reference}"
    return _Card(sample, (sample.question, "\n".join(turns[:-1]), turns[-1]), verdict, True)


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def _html(cards: dict[str, list[_Card]], split: str) -> bytes:
    out = [f"<!doctype html><meta charset=utf-8><title>World: {split}</title><style>{_STYLE}</style>"]
    out.append(f"<h1>World, {split} split</h1>")
    for kind, row in cards.items():
        out.append(f"<h2>{kind}</h2><section>")
        for card in row:
            pictures = "".join(f'<img alt="" src="{_data_url(p)}">' for p in card.pictures)
            mark = "" if card.good else " class=bad"
            question, reasoning, answer = map(html.escape, card.told)
            out.append(
                f"<article>{pictures}<p class=q>{question}</p><p class=r>{reasoning}</p><p>{answer}</p>"
                f"<small{mark}>{html.escape(card.verdict)}</small><br>"
                f"<small>{html.escape(card.facts)}</small></article>"
            )
        out.append("</section>")
    return "".join(out).encode()


@lru_cache(maxsize=4)
def _font(size: int) -> tuple[ImageFont.FreeTypeFont | ImageFont.ImageFont, bool]:
    """A font, and whether it has Chinese characters."""
    for name in _CJK_FONTS:
        try:
            return ImageFont.truetype(name, size), True
        except OSError:
            continue
    return ImageFont.load_default(size), False


def _wrap(text: str, draw: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    lines: list[str] = []
    for paragraph in text.splitlines() or [""]:
        lines.append("")
        for word in paragraph.split():
            longer = f"{lines[-1]} {word}".strip()
            if draw.textlength(longer, font=font) > _WIDTH - 20 and lines[-1]:
                lines.append(word)
            else:
                lines[-1] = longer
    return "\n".join(lines)


def _height(line: list[_Card]) -> int:
    """Room for a row of cards: pictures, then about seven lines of text, or a whole search."""
    searched = line[0].sample.meta["kind"] in SEARCH
    return 170 + (_PICTURE if any(card.pictures for card in line) else _TRACE if searched else 0)


def _draw_card(sheet: Image.Image, card: _Card, x: int, y: int, told: Sequence[str]) -> None:
    draw, font, small = ImageDraw.Draw(sheet), _font(14)[0], _font(11)[0]
    draw.text((x, y), f"{card.sample.meta['kind']} · {card.facts}", font=small, fill=(110, 110, 110))
    y += 18
    side = _PICTURE if len(card.pictures) < 3 else _PICTURE * 5 // 6
    for i, picture in enumerate(card.pictures):
        left = x + i * (side + 6)
        sheet.paste(picture.resize((side, side), Image.Resampling.NEAREST), (left, y))
        draw.rectangle((left, y, left + side, y + side), outline=(120, 120, 120))
    y += _PICTURE + 6 if card.pictures else 2
    for text, fill in zip(told, ((20, 20, 20), (110, 110, 110), (20, 90, 160)), strict=False):
        wrapped = _wrap(text, draw, font)
        draw.multiline_text((x, y), wrapped, font=font, fill=fill, spacing=3)
        y += 19 * (wrapped.count("\n") + 1) + 3
    mark = (0, 120, 0) if card.good else (180, 0, 0)
    draw.text((x, y), card.verdict, font=small, fill=mark)


def _png(cards: dict[str, list[_Card]], elsewhere: str) -> tuple[bytes, bool]:
    """The sheet, and whether every text could be written."""
    chinese, complete = _font(14)[1], True
    size = (_WIDTH * max(map(len, cards.values())), sum(map(_height, cards.values())))
    sheet = Image.new("RGB", size, (250, 250, 250))
    draw = ImageDraw.Draw(sheet)
    top = 0
    for line in cards.values():
        for column, card in enumerate(line):
            x, y, bottom = column * _WIDTH + 10, top + 6, top + _height(line) - 4
            draw.rectangle((x - 6, y - 2, x + _WIDTH - 16, bottom), fill="white", outline=(200, 200, 200))
            told: Sequence[str] = card.told
            if card.sample.language == "zh" and not chinese:
                told, complete = [f"(Chinese, no font for it here: see {elsewhere})"], False
            _draw_card(sheet, card, x, y, told)
        top += _height(line)
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue(), complete


def _write(path: Path, content: bytes) -> None:
    try:
        write_bytes(path, content)
    except OSError as error:
        raise SafeladderError(f"cannot write {path}: {error.strerror}") from None


def contact_sheet(world: World, path: Path, *, per_kind: int = 3, split: str = "train") -> None:
    """Write `per_kind` samples of every kind (picture, question, gold response or search, label, verdict on it).

    A path ending in .html gets one self-contained page; one in .png gets an image, and where no font for
    Chinese is installed an .html of the same name beside it.

    Errors: SafeladderError on another ending, an unknown split, `per_kind` below 1 or an unwritable path.
    """
    path = Path(path)
    if path.suffix not in (".html", ".png"):
        raise SafeladderError(f"contact sheet {path}: the name must end in .html or .png")
    if per_kind < 1:
        raise SafeladderError(f"contact sheet: per_kind is {per_kind}; it must be at least 1")
    cards = _cards(world, per_kind, split)
    page = path.with_suffix(".html")
    if path.suffix == ".png":
        sheet, complete = _png(cards, page.name)
        _write(path, sheet)
        if complete:
            return
    _write(page, _html(cards, split))
