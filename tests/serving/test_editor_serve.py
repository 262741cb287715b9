"""The editor page against `safeladder serve` itself, over a tiny checkpoint that was taught two trains of thought."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from serving.browsing import Watched, chromium, picture
from serving.taught import FOUR, QUESTION, THREE, teach

pytest.importorskip("fastapi", reason="needs the serve extra")
pytest.importorskip("uvicorn", reason="needs the serve extra")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def server(browser: Any, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The server's process and its address; there is a browser, or the test has been skipped."""
    command = [sys.executable, "-m", "safeladder", "serve", str(teach(tmp_path / "taught")), "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [*command, "--memory", str(tmp_path / "edits.jsonl")],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    ) as process:
        try:
            assert process.stdout
            said = process.stdout.readline()
            found = re.search(r"(http://127\.0\.0\.1:\d+)/v1 \(editor: /editor\)", said)
            assert found, said + process.stdout.read()
            yield process, found[1]
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(20)


def settled(page: Any, *steps: str) -> None:
    """Waits until the reply has ended and its steps are scored, and compares them."""
    page.wait_for_selector(f"#steps .step:nth-child({len(steps)}) .score")
    page.wait_for_selector("#stop", state="hidden")
    assert [text.removesuffix(" edited") for text in page.locator("#steps .text").all_inner_texts()] == list(steps)


@pytest.mark.slow
def test_ask_edit_continue_answer_anew_and_find_the_server_gone(browser: Any, server: tuple[Any, str]):
    process, url = server
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(30_000)
    watched = Watched(page)
    page.goto(f"{url}/editor")
    page.wait_for_selector("#health[data-state=ready]")
    assert page.input_value("#model") == "taught"
    assert page.is_hidden("#steering")
    assert page.is_hidden("#search-choice")

    page.set_input_files("#file", [{"name": "shapes.png", "mimeType": "image/png", "buffer": picture()}])
    page.fill("#question", QUESTION)
    page.keyboard.press("Control+Enter")
    red, blue, so = (f"{text}." for text in THREE.reasoning.rstrip(".").split(". "))
    settled(page, red, blue, so)
    assert page.inner_text("#answer") == THREE.answer
    assert page.is_hidden("#answer-none")
    first = page.locator("#steps .score").all_inner_texts()

    other = FOUR.reasoning.split(". ")[1] + "."
    page.click("[data-step='2'] .edit")
    page.fill("[data-step='2'] textarea", other)
    page.check("[data-step='2'] [type=checkbox]")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("[data-step='2'].changed")
    settled(page, red, other, FOUR.reasoning.split(". ")[2])
    assert page.inner_text("#answer") == FOUR.answer
    assert "edit remembered" in page.inner_text("#facts")
    assert len(first) == page.locator("#steps .score").count()

    page.click("[data-step='2'] .edit")
    page.fill("[data-step='2'] textarea", blue)
    page.keyboard.press("Control+Shift+Enter")
    until_title(page, "Answered anew with step 2")
    settled(page, red, blue, FOUR.reasoning.split(". ")[2])

    page.click("#show-diff")
    assert page.locator("#diff-think del").first.inner_text().strip() == "are two"
    assert [page.locator("#versions li").nth(i).get_attribute("data-depth") for i in range(3)] == ["0", "1", "2"]
    assert watched.misdeeds(url) == []

    process.send_signal(signal.SIGTERM)
    process.wait(20)
    page.click("#send")
    page.wait_for_selector("#notice[data-kind=gone]:not([hidden])")
    assert "The server does not answer." in page.inner_text("#notice")
    assert page.locator("#versions li").count() == 3


def until_title(page: Any, title: str) -> None:
    page.locator("#work-title", has_text=title).wait_for()
