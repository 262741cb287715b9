"""The screenshots of docs/editor.md, from the checkpoints of a run through `safeladder serve` in the system's Chromium.

    python docs/make_screenshots.py --run runs/demo --seed 0

A checkpoint with value guidance (made by `safeladder pvm train`) may be given for the picture of the trail:
`--guided runs/demo/checkpoints/base`.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

from safeladder.config import SearchRung, load_recipe
from safeladder.ladder.searching import WorldPages
from safeladder.search.retriever import Hit
from safeladder.search.server import listen, run
from safeladder.search.service import Limits, create_app
from safeladder.types import Sample
from safeladder.world import World, WorldConfig

OUT = Path(__file__).parent / "images"
CHROMIUM = "/usr/bin/chromium"
COLOURS = 256


@contextlib.contextmanager
def served(model: Path, *options: str) -> Iterator[str]:
    """The address of a server of this checkpoint."""
    command = [sys.executable, "-m", "safeladder", "serve", str(model), "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout
        said = process.stdout.readline()
        found = re.search(r"http://[^/]+", said)
        if not found:
            raise SystemExit(said + process.stdout.read())
        try:
            yield found[0]
        finally:
            process.terminate()


class AsTrained(WorldPages):
    """The world's pages, with no more results than the policy saw in training."""

    def __init__(self, world: World, most: int) -> None:
        super().__init__(world, "heldout")
        self.most = most

    def search(self, query: str, k: int) -> list[Hit]:
        return super().search(query, min(k, self.most))


@contextlib.contextmanager
def searchable(world: World, recipe: Path) -> Iterator[str]:
    """The address of a search server of the world's held-out pages, whose results look as they did in training."""
    rung = load_recipe(str(recipe)).rungs["search-rl"]
    assert isinstance(rung, SearchRung)
    app = create_app(AsTrained(world, rung.top_k), limits=Limits())
    with listen("127.0.0.1", 0, protected=False) as at:
        threading.Thread(target=run, args=(app, at), daemon=True).start()
        yield f"http://127.0.0.1:{at.getsockname()[1]}"


def save(page: Any, name: str) -> None:
    """A small PNG: few colours are enough for a page."""
    page.mouse.move(0, 0)
    image = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    image.quantize(COLOURS, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(
        OUT / f"{name}.png", optimize=True
    )
    print(OUT / f"{name}.png")


def ask(page: Any, sample: Sample) -> None:
    """Ask a question of the world, and wait for the scores of its steps."""
    for image in sample.images:
        data = io.BytesIO()
        assert isinstance(image, Image.Image)
        image.save(data, "PNG")
        page.set_input_files("#file", [{"name": "picture.png", "mimeType": "image/png", "buffer": data.getvalue()}])
        page.wait_for_selector("#thumbnails canvas")
    page.fill("#question", sample.question)
    page.click("#send")
    page.wait_for_selector("#steps .step, #answer-none:not([hidden])")
    page.wait_for_selector("#stop", state="hidden")
    page.wait_for_selector("#steps .score")


def edit(page: Any, old: str, new: str) -> None:
    """Replace words in the step that holds them, and continue."""
    step = page.locator(".step", has_text=old)
    text = step.locator(".text").inner_text()
    step.locator(".edit").click()
    area = page.locator(".step-editor textarea")
    area.fill(text.replace(old, new))
    area.press("Control+Enter")
    page.wait_for_selector(".step.changed .score")
    page.wait_for_selector("#stop", state="hidden")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True, metavar="DIR")
    parser.add_argument("--seed", type=int, default=0, help="of the run's world")
    parser.add_argument("--guided", type=Path, metavar="MODEL")
    options = parser.parse_args()
    world, checkpoints = World(WorldConfig(seed=options.seed)), options.run / "checkpoints"
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as scratch:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])

        def visit(url: str, **more: Any) -> Any:
            page = browser.new_page(**{"viewport": {"width": 1280, "height": 800}, "color_scheme": "light", **more})
            page.set_default_timeout(60_000)
            page.goto(f"{url}/editor")
            page.wait_for_selector("#health[data-state=ready]")
            return page

        with served(checkpoints / "m3-rl", "--memory", f"{scratch}/edits.jsonl") as url:
            page = visit(url)
            ask(page, world.item("digit_sum", "heldout", 1))
            edit(page, "digit 3", "digit 5")
            save(page, "editor-light")
            page.locator("#theme label", has_text="Dark").click()
            page.click("#show-diff")
            save(page, "editor-dark")
            page.set_viewport_size({"width": 360, "height": 740})
            page.click("#show-reply")
            page.locator("#version").scroll_into_view_if_needed()
            page.evaluate("document.getElementById('work').scrollIntoView()")
            save(page, "editor-narrow")

        with (
            searchable(world, options.run / "recipe.yaml") as pages,
            served(checkpoints / "search-rl", "--search", pages) as url,
        ):
            page = visit(url)
            page.check("#search")
            ask(page, world.item("search_two_hop", "heldout", 0))
            page.locator("#source-list").scroll_into_view_if_needed()
            save(page, "editor-search")

        if options.guided:
            with served(options.guided, "--steer", "value-guidance") as url:
                page = visit(url)
                ask(page, world.item("spatial", "heldout", 1))
                page.click("#trail summary")
                page.locator("#trail").scroll_into_view_if_needed()
                save(page, "editor-trail")


if __name__ == "__main__":
    main()
