"""A real browser for tests: the system's Chromium, driven by Playwright; what a page must never do is noted."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, ImageDraw

CHROMIUM = Path(os.environ.get("SAFELADDER_CHROMIUM", "/usr/bin/chromium"))


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """A headless browser; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright (the dev extra)")
    if not CHROMIUM.exists():
        pytest.skip(f"no browser: {CHROMIUM} does not exist (set SAFELADDER_CHROMIUM)")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


class Watched:
    """A page, the addresses it asked for, and what it complained about (errors, blocked by its policy)."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._console)
        page.on("dialog", lambda dialog: (self.complaints.append("a dialog opened"), dialog.dismiss()))

    def misdeeds(self, url: str) -> list[str]:
        """What the page complained about, and whom it asked but `url`."""
        return self.complaints + [asked for asked in self.asked if not asked.startswith(url)]

    def _console(self, message: Any) -> None:
        # A refused request is reported by the browser itself; the page shows it, and the test asked for it.
        if message.type in ("error", "warning") and "Failed to load resource" not in message.text:
            self.complaints.append(message.text)


def picture(size: int = 96, *, noise: bool = False) -> bytes:
    """A PNG: shapes on white; with `noise` one that hardly compresses."""
    image = Image.effect_noise((size, size), 120) if noise else Image.new("RGB", (size, size), "white")
    if not noise:
        draw = ImageDraw.Draw(image)
        third = size // 3
        draw.ellipse((4, 4, third, third), fill="red")
        draw.ellipse((size - third, 8, size - 4, 4 + third), fill="red")
        draw.rectangle((third, size - third, 2 * third, size - 4), fill="blue")
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()
