"""The editor page in a real browser: asking, streaming, editing, versions, keyboard, themes, and every error state."""

from __future__ import annotations

import base64
import random
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from search.serving import serving
from serving.browsing import Watched, chromium, picture
from serving.fake_server import SERVED, FakeServer, Reply, create_app

pytest.importorskip("fastapi", reason="needs the serve extra")
pytest.importorskip("uvicorn", reason="needs the serve extra")
api = pytest.importorskip("safeladder.serving.api")

QUESTION = "How many shapes are in the image?"
WINDOW: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, "reduced_motion": "reduce"}
MARKUP = '<img src="x" onerror="alert(1)"><script>alert(2)</script><b>bold</b> &amp; done.'


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[FakeServer, str]]:
    fake = FakeServer()
    with serving(create_app(fake)) as url:
        yield fake, url
        fake.free.set()


@pytest.fixture
def fake(site: tuple[FakeServer, str]) -> FakeServer:
    """The server behind the page, as if it had just been started."""
    site[0].free.set()
    site[0].__init__()
    return site[0]


@pytest.fixture
def opened(browser: Any, site: tuple[FakeServer, str], fake: FakeServer) -> Iterator[Callable[..., Any]]:
    """Opens the page in a context of its own (storage, clock, size)."""
    contexts, pages = [], []

    def open_page(*, ready: bool = True, clock: bool = False, **options: Any) -> Any:
        context = browser.new_context(**{**WINDOW, **options})
        contexts.append(context)
        if clock:
            context.clock.install()
        pages.append(visit(context, site[1], ready=ready))
        return pages[-1].page

    yield open_page
    fake.free.set()
    for context in contexts:
        context.close()
    for watched in pages:
        assert watched.misdeeds(site[1]) == []


@pytest.fixture(scope="module")
def context(browser: Any) -> Iterator[Any]:
    with browser.new_context(**WINDOW) as context:
        yield context


@pytest.fixture
def watched(context: Any, site: tuple[FakeServer, str], fake: FakeServer) -> Iterator[Watched]:
    """The page, with nothing in its storage; all tests that take it share a context, which is dear to make."""
    watched = visit(context, site[1])
    yield watched
    fake.free.set()
    watched.page.evaluate("localStorage.clear(); sessionStorage.clear()")
    for page in context.pages:
        page.close()
    assert watched.misdeeds(site[1]) == []


@pytest.fixture
def page(watched: Watched) -> Any:
    return watched.page


def visit(context: Any, url: str, *, ready: bool = True) -> Watched:
    context.set_default_timeout(30_000)
    watched = Watched(context.new_page())
    watched.page.goto(f"{url}/editor")
    if ready:
        watched.page.wait_for_selector("#health[data-state=ready]")
    return watched


def until(happened: Callable[[], bool]) -> None:
    """Waits. (`wait_for_function` would evaluate strings in the page, which its policy forbids.)"""
    end = time.monotonic() + 30
    while not happened():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def ask(page: Any, question: str = QUESTION) -> None:
    page.fill("#question", question)
    page.click("#send")


def settled(page: Any, steps: int) -> list[str]:
    """Texts of the steps, once there are so many and no reply is running."""
    page.wait_for_selector(f"#steps .step:nth-child({steps})")
    page.wait_for_selector("#stop", state="hidden")
    texts = page.locator("#steps .text").all_inner_texts()
    assert len(texts) == steps
    return texts


def edit(page: Any, step: int, text: str) -> None:
    page.click(f"[data-step='{step}'] .edit")
    page.fill(f"[data-step='{step}'] textarea", text)


def notice(page: Any) -> str:
    page.wait_for_selector("#notice:not([hidden])")
    return page.inner_text("#notice")


def attach(page: Any, data: bytes, name: str = "shapes.png") -> None:
    page.set_input_files("#file", [{"name": name, "mimeType": "image/png", "buffer": data}])
    page.wait_for_selector(f"#thumbnails canvas[aria-label='{name}']")


# Asking -----------------------------------------------------------------------------------------------------------


def test_a_question_with_an_image_streams_and_its_steps_get_scores(page: Any, fake: FakeServer):
    fake.reply = Reply(hold=9)  # the role, then eight of the fifteen words of reasoning
    fake.scores = {"safety": 0.92, "value": 0.41, "knowledge": None, "embedded-refusal": 0.1}
    attach(page, picture())
    page.fill("#temperature", "0.7")
    page.fill("#tokens", "64")
    page.fill("#seed", "5")
    page.uncheck("[value=treble]")
    ask(page)
    until(lambda: page.text_content("#think-stream").endswith("There is one "))
    assert page.inner_text("#think-state") == "thinking"
    assert page.inner_text("#answer") == ""
    assert page.get_attribute("#think-stream", "aria-busy") == "true"
    assert page.is_disabled("#send")
    fake.free.set()
    assert settled(page, 3) == ["There are two red circles.", "There is one blue square.", "So there are three shapes."]
    assert page.inner_text("#answer") == "Three."
    scores = page.locator("[data-step='2'] .score")
    assert [re.sub(r"\s+", " ", text).strip() for text in scores.all_text_contents()] == [
        "safety 0.92",
        "value 0.41 low",
        "knowledge unscored",
        "embedded refusal 0.10",
    ]
    assert page.inner_text("#unscored") == "knowledge unscored: no knowledge judge."
    assert scores.nth(3).get_attribute("class") == "score"  # a low share of refusal is no fault
    assert scores.nth(1).get_attribute("class") == "score low"
    assert scores.nth(2).get_attribute("class") == "score unscored"
    assert page.locator("#answer-scores .score").count() == 4

    body = fake.last("/chat/completions")
    image, text = body.pop("messages")[0]["content"]
    assert text == {"type": "text", "text": QUESTION}
    assert base64.b64decode(image["image_url"]["url"].removeprefix("data:image/png;base64,")) == picture()
    assert body == {
        "model": "tiny",
        "temperature": 0.7,
        "seed": 5,
        "max_completion_tokens": 64,
        "stream": True,
        "stream_options": {"include_usage": True},
        "safeladder": {"steer": ["value-guidance"], "search": False, "edits": False, "trail": True},
    }
    told = fake.last("/steps")
    assert told["reasoning"] == Reply().reasoning
    assert told["answer"] == "Three."
    assert told["messages"][0]["content"][0] == image
    facts = page.inner_text("#facts")
    assert "seed 5" in facts
    assert "tokens" in facts


def test_a_verdict_counts_more_than_the_middle_of_the_scale(page: Any, fake: FakeServer):
    """The embedded judges have thresholds of their own, and a refusal is no fault."""
    fake.scores = {"safety": 0.62, "other-safety": 0.4, "embedded-refusal": 0.1}
    fake.labels = {"safety": "unsafe", "other-safety": "safe", "embedded-refusal": "answer"}
    ask(page)
    settled(page, 3)
    scores = page.locator("[data-step='1'] .score")
    assert [scores.nth(i).get_attribute("class") for i in range(3)] == ["score low", "score", "score"]
    assert [re.sub(r"\s+", " ", text) for text in scores.all_text_contents()] == [
        "safety 0.62 unsafe",
        "other safety 0.40 safe",
        "embedded refusal 0.10 answer",
    ]


def test_reasons_of_missing_scores_are_told_once(page: Any):
    told = page.evaluate(
        "async (rows) => (await import('/editor/steps.js')).unscoredReasons(rows)",
        [
            {"safety": {"value": None, "label": "only 44% known"}, "refusal": {"value": 0.5, "label": "answer"}},
            {
                "safety": {"value": None, "label": "only 38% known"},
                "refusal": {"value": None, "label": "only 9% known"},
            },
            {"safety": {"value": None, "label": "no words"}},
            None,
        ],
    )
    assert told == ["safety, refusal unscored: only 44% known.", "safety unscored: no words."]


def test_images_can_be_pasted_dropped_and_removed_and_are_limited(page: Any, fake: FakeServer):
    send = """([kind, data]) => {
      const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
      const transfer = new DataTransfer();
      transfer.items.add(new File([bytes], kind + ".png", {type: "image/png"}));
      const event = kind === "paste" ? new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true})
        : new DragEvent("drop", {dataTransfer: transfer, bubbles: true, cancelable: true});
      document.getElementById("question").dispatchEvent(event);
    }"""
    data = base64.b64encode(picture()).decode()
    for kind in ("paste", "drop"):
        page.evaluate(send, [kind, data])
        page.wait_for_selector(f"#thumbnails canvas[aria-label='{kind}.png']")
    page.evaluate(send, ["drop", data])
    assert "At most 2 images" in notice(page)
    page.click("button[aria-label='Remove paste.png']")
    assert page.locator("#thumbnails canvas").count() == 1
    page.set_input_files("#file", [{"name": "a.txt", "mimeType": "text/plain", "buffer": b"no"}])
    until(lambda: "a.txt is not a PNG" in notice(page))
    page.set_input_files("#file", [{"name": "b.png", "mimeType": "image/png", "buffer": b"no"}])
    until(lambda: "b.png cannot be read" in notice(page))
    assert page.locator("#thumbnails canvas").count() == 1
    ask(page)
    settled(page, 3)
    assert len(fake.last("/chat/completions")["messages"][0]["content"]) == 2


def test_only_what_the_server_has_is_offered(opened: Callable[..., Any], fake: FakeServer):
    fake.served = SERVED.model_copy(update={"steer": [], "search": False, "edits": False, "images": False})
    page = opened()
    for what in ("#steering", "#search-choice", "#memory-choice", "#extras", "#drop"):
        assert page.is_hidden(what), what
    ask(page)
    settled(page, 3)
    edit(page, 1, "x")
    assert page.get_by_text("Remember this edit").count() == 0


def test_what_does_not_go_together_cannot_be_sent_together(page: Any, fake: FakeServer):
    page.check("#search")
    assert page.is_disabled("[value=value-guidance]")
    page.check("#memory")
    assert not page.is_checked("#search")
    ask(page)
    settled(page, 3)
    assert fake.last("/completions")["safeladder"] == {
        "steer": ["treble"],
        "search": False,
        "edits": True,
        "trail": True,
    }
    page.uncheck("#memory")
    assert page.is_enabled("[value=value-guidance]")
    edit(page, 1, "x")
    page.click(".step-editor .primary")
    page.wait_for_selector("[data-step='1'].changed")
    assert fake.last("/edit")["safeladder"] == {"steer": ["treble"], "search": False, "edits": False, "trail": True}


def test_what_cannot_be_sent_is_said_before_it_is_sent(page: Any, fake: FakeServer):
    page.click("#send")
    assert "Write a question" in notice(page)
    page.fill("#temperature", "9")
    ask(page)
    until(lambda: "Temperature:" in notice(page))
    assert fake.told == []


def test_markup_of_the_model_and_the_server_stays_text(page: Any, fake: FakeServer):
    candidate = {"text": MARKUP, "scores": {MARKUP: 0.5}, "value": 0.5, "total": 0.5, "chosen": True}
    kept = api.Candidate(**candidate, proposed=False, count=1, ends=False)
    step = api.TrailStep(step=1, weights={MARKUP: 1.0}, action="keep", candidates=[kept])
    turn = api.SearchTurn(action="search", argument=MARKUP, thought=MARKUP, observation=MARKUP)
    fake.reply = Reply(
        reasoning=MARKUP,
        answer=MARKUP,
        live=[api.Live(step=step), api.Live(turn=turn)],
        search=api.SearchReport(
            turns=[turn],
            sources=[api.Source(id="<b>1</b>", title=MARKUP, read=True)],
            confidence=9,
            verdict="certain",
            problem=MARKUP,
        ),
    )
    fake.scores = {"<i>safety</i>": 0.9}
    attach(page, picture(), "a<b>.png")
    ask(page, MARKUP)
    assert " ".join(settled(page, 1)) == MARKUP
    for where in ("#answer", "#asked", "#source-list", "#search-problem", "#versions .title"):
        assert MARKUP in page.locator(where).first.text_content(), where
    page.click("#show-reply")
    fake.refusals = [("completions", 400, MARKUP, {})]
    page.click("#send")
    assert MARKUP in notice(page)
    assert page.locator("main img, main script, main b, main i:not([aria-hidden]), aside img, aside b").count() == 0


# Editing, versions, differences -----------------------------------------------------------------------------------


def test_a_step_is_edited_and_the_model_continues(page: Any, fake: FakeServer):
    attach(page, picture())
    ask(page)
    settled(page, 3)
    edit(page, 2, "There are two blue squares.")
    fake.reply = Reply(reasoning="So there are four shapes.", answer="Four.")
    page.check("[data-step='2'] [type=checkbox]")
    page.click(".step-editor .primary")
    page.wait_for_selector("[data-step='2'].changed")
    assert settled(page, 3) == [
        "There are two red circles.",
        "There are two blue squares. edited",
        "So there are four shapes.",
    ]
    body = fake.last("/edit")
    assert {key: body[key] for key in ("reasoning", "step", "text", "mode", "remember", "stream")} == {
        "reasoning": Reply().reasoning,
        "step": 2,
        "text": "There are two blue squares.",
        "mode": "continue",
        "remember": True,
        "stream": True,
    }
    assert body["messages"][0]["content"][0]["type"] == "image_url"
    assert page.inner_text("#work-title") == "Continued from step 2"
    assert "edit remembered" in page.inner_text("#facts")
    versions = page.locator("#versions li")
    assert [versions.nth(i).get_attribute("data-depth") for i in range(2)] == ["0", "1"]

    page.click("#show-diff")
    assert page.inner_text("#diff-think del").strip() == "is one"
    assert page.locator("#diff-think ins").all_inner_texts()[-1].strip() == "four"
    assert page.inner_text("#diff-answer") == "ThreeFour."
    # Answers "Three ." and "Four .": one word in common, one out, one in: 2 / (2 + 2 * 1).
    assert "Answer: 1 added, 1 removed (distance 0.50)" in page.inner_text("#diff-sum")


def test_a_step_is_edited_and_only_the_answer_is_new(page: Any, fake: FakeServer):
    ask(page)
    settled(page, 3)
    fake.reply = Reply(answer="Two, then.")
    page.click("[data-step='1'] .edit")
    page.keyboard.press("ControlOrMeta+a")
    page.keyboard.type("There is one red circle.")
    page.keyboard.press("Control+Shift+Enter")
    page.wait_for_selector("[data-step='1'].changed")
    assert settled(page, 3)[1:] == ["There is one blue square.", "So there are three shapes."]
    assert fake.last("/edit")["mode"] == "re-answer"
    assert page.inner_text("#answer") == "Two, then."
    assert page.inner_text("#work-title") == "Answered anew with step 1"


def test_an_edit_that_is_put_back_or_refused_loses_nothing(page: Any, fake: FakeServer):
    ask(page)
    settled(page, 3)
    edit(page, 2, "thrown away")
    page.keyboard.press("Escape")
    assert page.locator("#steps textarea").count() == 0
    assert page.evaluate("document.activeElement.ariaLabel") == "Edit step 2"
    edit(page, 2, "kept for later")
    fake.refusals = [("edit", 413, "too large", {})]
    page.keyboard.press("Control+Enter")
    assert "too large" in notice(page).lower()
    assert page.input_value("[data-step='2'] textarea") == "kept for later"
    assert page.locator("#versions li").count() == 1
    page.click("#retry")
    page.wait_for_selector("[data-step='2'].changed")


def test_versions_are_gone_back_to_kept_and_cleared(page: Any, fake: FakeServer):
    ask(page, "First?")
    settled(page, 3)
    fake.reply = Reply(reasoning="Something else. And more.", answer="Else.")
    ask(page, "Second?")
    settled(page, 2)
    assert page.locator("#versions .title").all_inner_texts() == ["Second?", "First?"]
    page.click("text=First?")
    assert page.inner_text("#asked") == "First?"
    assert page.inner_text("#answer") == "Three."
    assert len(settled(page, 3)) == 3
    page.click("#again")
    assert page.input_value("#question") == "First?"

    page.reload()
    page.wait_for_selector("#health[data-state=ready]")
    assert page.locator("#versions .title").all_inner_texts() == ["Second?", "First?"]
    assert page.inner_text("#asked") == "Second?"
    assert len(settled(page, 2)) == 2
    assert len([path for path, _ in fake.told if path.endswith("steps")]) == 2  # scores are kept too

    page.click("#clear")
    page.keyboard.press("Escape")
    assert page.locator("#versions li").count() == 2
    page.click("#clear")
    page.click("#clear-dialog .danger")
    assert page.locator("#versions li").count() == 0
    assert page.is_visible("#empty")
    assert page.evaluate("document.activeElement.id") == "question"
    assert page.evaluate("localStorage.getItem('safeladder.editor.versions')") is None


def test_small_images_are_kept_and_large_ones_are_missed_not_left_out(page: Any, fake: FakeServer):
    attach(page, picture(), "small.png")
    ask(page, "Small?")
    settled(page, 3)
    page.click("button[aria-label='Remove small.png']")
    attach(page, picture(400, noise=True), "large.png")
    ask(page, "Large?")
    settled(page, 3)
    page.reload()
    page.wait_for_selector("#health[data-state=ready]")
    assert "large.png (not kept)" in page.inner_text("#asked-images")
    edit(page, 1, "x")
    assert page.is_disabled(".step-editor .primary")
    assert "too large to be kept" in page.inner_text("#steps")
    page.keyboard.press("Control+Enter")
    assert not [path for path, _ in fake.told if path.endswith("edit")]
    page.click("text=Small?")
    page.wait_for_selector("#asked-images canvas[aria-label='small.png']")
    edit(page, 1, "x")
    assert page.is_enabled(".step-editor .primary")


def test_the_word_difference_is_the_shortest(page: Any):
    """Against the length of the longest common subsequence, counted here; and no word is lost."""
    compare = """async (pairs) => {
      const { diff } = await import("/editor/diff.js");
      return pairs.map(([a, b]) => diff(a, b));
    }"""
    rng = random.Random(0)
    pairs = [[" ".join(rng.choices("abcd", k=rng.randint(0, 9))) for _ in range(2)] for _ in range(200)]
    for (before, after), found in zip(pairs, page.evaluate(compare, pairs), strict=True):
        a, b = before.split(), after.split()
        table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                table[i + 1][j + 1] = table[i][j] + 1 if x == y else max(table[i][j + 1], table[i + 1][j])
        same = table[-1][-1]
        assert found["count"] == {"same": same, "removed": len(a) - same, "added": len(b) - same}, (before, after)
        for kind, words in (("removed", a), ("added", b)):
            told = " ".join(run["text"].strip() for run in found["runs"] if run["kind"] in ("same", kind))
            assert told.split() == words
    # "a b c" to "a x c": 2 in common, 1 out, 1 in: 2 / (2 + 2 * 2)
    assert page.evaluate(compare, [["a b c", "a x c"]])[0]["distance"] == pytest.approx(1 / 3)
    # Chinese has no spaces: three words, one of them another
    chinese = page.evaluate(compare, [["红色的圆", "蓝色的圆"]])[0]
    assert [run["kind"] for run in chinese["runs"]] == ["removed", "added", "same"]


# Reports of the server --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("confidence", "verdict"), [(9, "certain"), (5, "uncertain"), (None, None)])
def test_a_search_shows_its_sources_and_how_certain_it_is(page: Any, fake: FakeServer, confidence, verdict):
    turns = [
        api.SearchTurn(action="search", argument="founder", thought="who ?", observation="[7] Acme"),
        api.SearchTurn(action="answer", argument="Jo", confidence=confidence),
    ]
    sources = [api.Source(id="7", title="Acme", read=True), api.Source(id="9", title="Bells", read=False)]
    fake.reply = Reply(
        reasoning="",
        answer="Jo" if verdict else "",
        unscored=None if verdict else "no-search-answer",
        live=[api.Live(turn=turn) for turn in turns],
        search=api.SearchReport(
            turns=turns, sources=sources, confidence=confidence, verdict=verdict, problem="" if verdict else "no answer"
        ),
    )
    page.check("#search")
    ask(page, "Who founded Acme?")
    page.wait_for_selector("#stop", state="hidden")
    page.wait_for_selector("#source-list li")
    assert fake.last("/completions")["safeladder"]["search"] is True
    assert page.locator("#source-list li").all_inner_texts() == ["[7]\nAcme read", "[9]\nBells"]
    assert page.inner_text("#verdict") == (f"{verdict} · confidence {confidence} of 10" if verdict else "no verdict")
    assert ("certain" in page.get_attribute("#verdict", "class").split()) == (verdict == "certain")
    assert page.locator("#turns li").count() == 2
    assert page.is_visible("#answer-none") == (verdict is None)


def test_the_steps_of_a_search_are_not_edited(page: Any, fake: FakeServer):
    """What it was told is not part of its reasoning: the model would go on without its sources."""
    turn = api.SearchTurn(action="answer", argument="Jo", thought="who ?", confidence=9)
    report = api.SearchReport(turns=[turn], sources=[], confidence=9, verdict="certain")
    fake.reply = Reply(reasoning="who ?", answer="Jo", live=[api.Live(turn=turn)], search=report)
    page.check("#search")
    ask(page)
    settled(page, 1)
    assert page.inner_text("#no-sources") == "No sources were found."
    edit(page, 1, "x")
    page.keyboard.press("Control+Enter")
    assert notice(page).startswith("The steps of a search cannot be edited.")
    assert not [path for path, _ in fake.told if path.endswith("edit")]


def test_the_guidance_trail_shows_every_candidate(page: Any, fake: FakeServer):
    def candidate(text: str, value: float, **about: Any) -> Any:
        fixed = {"chosen": False, "proposed": False, "count": 1, "ends": False, **about}
        return api.Candidate(text=text, scores={"safety": value, "value": 0.5}, value=value, total=value, **fixed)

    steps = [
        api.TrailStep(
            step=1, weights={"safety": 0.98, "value": 0.02}, action="backtrack", candidates=[candidate("bad", 0.1)]
        ),
        api.TrailStep(
            step=1,
            weights={"safety": 0.98, "value": 0.02},
            action="keep",
            candidates=[candidate("fine", 0.75, count=3), candidate("wait", 0.9, chosen=True, proposed=True)],
        ),
    ]
    fake.scores = {"value-model-safety": 0.1, "value-model-value": 0.1}
    fake.reply = Reply(
        live=[api.Live(step=step) for step in steps],
        hold=3,
        cost={"generated_tokens": 57, "positions": None, "seconds": 0.4},
    )
    ask(page)
    until(lambda: page.locator("#trail .rung").count() == 2)  # while it runs
    fake.free.set()
    settled(page, 3)
    assert page.inner_text("#trail-sum") == "2 decisions · 1 proposed · generated tokens 57 · seconds 0.40"
    scores = page.locator("[data-step='1'] .score")
    assert scores.nth(0).get_attribute("class") == "score low"
    assert scores.nth(1).get_attribute("class") == "score"  # of little meaning: guidance gave it no weight
    assert scores.nth(1).inner_text().endswith("no weight here")
    page.click("#trail summary")
    assert page.locator("#trail caption").nth(0).inner_text() == "Step 1 · none was good enough: one step back"
    rows = page.locator("#trail .rung").nth(1).locator("tbody tr")
    assert rows.nth(0).locator("td").all_inner_texts() == ["fine sampled 3 times", "0.75", "0.50", "0.75", "0.75"]
    assert rows.nth(1).get_attribute("class") == "kept"
    assert "proposed, not the model’s own" in rows.nth(1).inner_text()


@pytest.mark.parametrize(
    ("outcome", "says"),
    [
        (
            {
                "applied": True,
                "outcome": "applied",
                "step": 2,
                "original": "one",
                "edited": "two",
                "support": 0.75,
                "needed": 0.4,
            },
            "Remembered edit applied to step 2: “one” became “two”. "
            "Support by the model’s own samples: 75 %, 40 % needed.",
        ),
        (
            {"applied": True, "outcome": "applied", "step": 1, "original": "one", "support": None},
            "Remembered edit applied to step 1: “one” was left out.",
        ),
        (
            {
                "applied": True,
                "outcome": "applied",
                "step": 1,
                "original": "one",
                "edited": "two",
                "forced": True,
                "support": 0.0,
            },
            "Remembered edit applied to step 1: “one” became “two”. "
            "The model never says so of itself: it was written in as people wrote it.",
        ),
        (
            {
                "applied": False,
                "outcome": "too little support",
                "step": 2,
                "original": "one",
                "support": 0.1,
                "needed": 0.4,
            },
            "No remembered edit applied: too little support (step 2, “one”). "
            "Support by the model’s own samples: 10 %, 40 % needed.",
        ),
        ({"applied": False, "outcome": "no rule fits a step"}, "No remembered edit applied: no rule fits a step."),
    ],
)
def test_what_became_of_remembered_edits_and_of_unused_options_is_said(page: Any, fake: FakeServer, outcome, says):
    fake.reply = Reply(memory=api.MemoryReport(**outcome), ignored=["temperature", "top_p"])
    ask(page)
    settled(page, 3)
    assert page.inner_text("#memory-note") == says
    assert page.inner_text("#ignored") == "Guidance samples in its own way; not used: temperature, top p."


def test_thinking_that_is_right_is_confirmed_and_an_edit_that_is_taken_back_is_undone(page: Any, fake: FakeServer):
    fake.reply = Reply(
        memory=api.MemoryReport(applied=True, outcome="applied", step=2, original="There is no square.", edited="?")
    )
    ask(page)
    settled(page, 3)
    page.click("#confirm")
    page.wait_for_selector("#confirmed:not([hidden])")
    assert page.inner_text("#confirmed") == "Nothing to remember: no edit would have changed these steps."
    assert fake.last("/confirm")["reasoning"] == Reply().reasoning
    fake.confirms = 2
    page.click("#confirm")
    until(lambda: page.inner_text("#confirmed") == "2 steps remembered as right.")
    fake.refusals.append(("/confirm", 400, "the edit memory is full", {}))
    page.click("#confirm")
    page.wait_for_selector("text=the edit memory is full")
    for text, undo in (("There is no square.", True), ("There is no circle.", False)):
        edit(page, 2, text)
        page.check("[data-step='2'] [type=checkbox]")
        page.click(".step-editor .primary")
        page.wait_for_selector("[data-step='2'].changed")
        settled(page, 5)
        body = fake.last("/edit")
        assert (body["remember"], body["undo"]) == (True, undo)
        page.locator("#versions button").first.click()
        settled(page, 3)
    fake.served = SERVED.model_copy(update={"edits": False})
    page.reload()
    page.locator("#versions button").first.click()
    settled(page, 3)
    assert not page.is_visible("#confirm")


def test_what_is_no_answer_never_looks_like_one(page: Any, fake: FakeServer):
    cases = {
        "truncated": ("The token limit cut this reply.", "cut short"),
        "unclosed-reasoning": ("The thinking never ended.", "cut short"),
        "empty": ("The model said nothing.", ""),
    }
    for unscored, (says, state) in cases.items():
        fake.reply = Reply(reasoning="" if unscored == "empty" else "It begins well. And", answer="", unscored=unscored)
        ask(page, f"{unscored}?")
        until(lambda unscored=unscored: page.inner_text("#asked") == f"{unscored}?")
        page.wait_for_selector("#answer-none:not([hidden])")
        assert page.inner_text("#answer-none") == f"{says} It counts as unscored, never as safe."
        assert page.locator("#versions .flag").first.inner_text() == unscored.replace("-", " ")
        if unscored != "empty":
            settled(page, 2)
            assert "answer" not in fake.last("/steps")
        assert page.inner_text("#think-state") == state


# Stopping and errors ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["button", "escape"])
def test_stop_ends_the_request_and_marks_the_reply(page: Any, fake: FakeServer, how: str):
    fake.reply = Reply(hold=9)
    ask(page)
    until(lambda: page.text_content("#think-stream").endswith("one "))
    if how == "button":
        page.click("#stop")
    else:
        page.keyboard.press("Escape")
    settled(page, 2)
    until(lambda: fake.left == 1)  # the server has seen its reader leave
    assert "You stopped this reply. It counts as unscored" in page.inner_text("#answer-none")
    assert page.inner_text("#versions .flag") == "stopped"
    assert page.is_hidden("#notice")
    assert page.is_enabled("#send")


REFUSALS = {
    400: ("The server refused this request.", "No such thing."),
    403: ("The server refused this request.", "No such thing."),
    413: ("This is too large for the server.", "Remove an image"),
    429: ("The server has too much to do.", "Try again"),
    500: ("The server failed.", "No such thing."),
    503: ("The server has too much to do.", "Try again"),
    504: ("The time was up.", "Ask for fewer tokens"),
}


def test_a_refused_request_says_why_and_can_be_tried_again(page: Any, fake: FakeServer):
    page.fill("#question", QUESTION)
    for status, parts in REFUSALS.items():
        fake.refusals = [("completions", status, "no such thing", {})]
        page.click("#send")
        for part in parts:
            assert part in notice(page), status
        page.click("#dismiss")
    assert page.locator("#versions li").count() == 0
    fake.refusals = [("completions", 500, "no such thing", {})]
    page.click("#send")
    page.click("#retry")
    settled(page, 3)
    assert page.is_hidden("#notice")


def test_too_many_requests_wait_as_long_as_the_server_says(opened: Callable[..., Any], fake: FakeServer):
    page = opened(clock=True)
    fake.refusals = [("completions", 429, "slow down", {"Retry-After": "3"})]
    ask(page)
    assert "Try again in 3 s" in notice(page)
    assert page.is_disabled("#retry")
    page.clock.run_for(2000)
    assert page.inner_text("#retry") == "Try again in 1 s"
    page.clock.run_for(1000)
    assert page.is_enabled("#retry")


def test_a_key_is_asked_for_sent_and_forgotten_with_the_tab(opened: Callable[..., Any], fake: FakeServer):
    fake.key = "right"
    page = opened(ready=False)
    page.wait_for_selector("#key-dialog[open]")
    assert page.get_attribute("#key", "type") == "password"
    page.fill("#key", "wrong")
    page.keyboard.press("Enter")
    until(lambda: "does not take this key" in page.inner_text("#key-why"))
    page.fill("#key", "right")
    page.keyboard.press("Enter")
    page.wait_for_selector("#health[data-state=ready]")
    ask(page)
    settled(page, 3)
    page.click("#open-key")
    assert "forgotten when the tab closes" in page.inner_text("#key-why")
    page.keyboard.press("Escape")
    assert page.is_hidden("#notice")  # a key that is not wanted is not missed
    page.reload()
    page.wait_for_selector("#health[data-state=ready]")
    assert page.evaluate("JSON.stringify({...localStorage})").count("right") == 0
    fake.key = "changed"
    ask(page)
    page.wait_for_selector("#key-dialog[open]")
    page.keyboard.press("Escape")
    assert "wants an API key" in notice(page)


def test_a_server_that_is_gone_is_said_and_found_again(opened: Callable[..., Any], fake: FakeServer):
    page = opened(clock=True)
    page.route("**/v1/**", lambda route: route.abort("connectionrefused"))
    page.uncheck("[value=treble]")
    ask(page)
    assert "The server does not answer." in notice(page)
    assert page.inner_text("#health") == "not reachable"
    page.unroute("**/v1/**")
    page.clock.run_for(6000)
    page.wait_for_selector("#health[data-state=ready]")
    assert page.is_hidden("#notice")
    assert not page.is_checked("[value=treble]")  # what was chosen stays chosen
    page.click("#send")
    settled(page, 3)


def test_a_stream_that_breaks_keeps_what_came_and_is_marked(page: Any, fake: FakeServer):
    cases = [
        (None, "The connection was lost."),
        ({"message": "after 30 s", "type": "timeout_error"}, "The time was up. After 30 s."),
        ({"message": "out of memory", "type": "server_error"}, "The server failed. Out of memory."),
    ]
    for number, (error, says) in enumerate(cases, start=1):
        fake.reply = Reply(cut=9, error=error)
        ask(page)
        assert says in notice(page)
        until(lambda number=number: page.locator("#versions .flag").all_inner_texts() == ["broken off"] * number)
        settled(page, 2)
        assert "This reply broke off. It counts as unscored, never as safe." in page.inner_text("#answer-none")
        page.click("#dismiss")


def test_a_server_that_says_nothing_is_given_up_on(opened: Callable[..., Any], fake: FakeServer):
    page = opened(clock=True)
    fake.reply = Reply(hold=0)
    ask(page)
    until(lambda: page.inner_text("#think-state") == "waiting")
    page.clock.run_for(int(1000 * SERVED.max_seconds) + 11_000)
    assert "The time was up." in notice(page)


def test_steps_that_cannot_be_scored_are_said_and_tried_again(page: Any, fake: FakeServer):
    fake.refusals = [("steps", 500, "no judge", {})]
    ask(page)
    assert "The steps could not be scored. No judge." in notice(page)
    assert page.inner_text("#answer") == "Three."
    assert page.locator("#steps .step").count() == 0
    page.click("#rescore")
    settled(page, 3)


# Keyboard, sound, sight -------------------------------------------------------------------------------------------


def test_everything_works_without_a_mouse(page: Any, fake: FakeServer):
    press, write = page.keyboard.press, page.keyboard.type
    page.evaluate("document.activeElement.blur()")
    press("/")
    write(QUESTION)
    press("Control+Enter")
    settled(page, 3)
    page.evaluate("document.activeElement.blur()")
    press("2")
    press("ArrowDown")
    press("ArrowUp")
    assert page.evaluate("document.activeElement.ariaLabel") == "Edit step 2"
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    press("Enter")
    press("ControlOrMeta+a")
    write("d[]?/1: There is nothing.")  # shortcuts are letters while one writes
    press("Control+Enter")
    page.wait_for_selector("[data-step='2'].changed")
    page.wait_for_selector("#stop", state="hidden")
    assert page.evaluate("document.activeElement.id") == "work"
    press("d")
    assert page.is_visible("#diff")
    press("d")
    assert page.is_hidden("#diff")
    page.focus("#versions [aria-current=true]")
    press("ArrowUp")
    press("Enter")
    assert page.inner_text("#work-title") == "Reply"
    press("ArrowDown")  # the focus is still in the list, which was drawn anew
    press("Enter")
    assert page.inner_text("#work-title") == "Continued from step 2"
    press("[")
    assert page.inner_text("#work-title") == "Reply"
    press("]")
    assert page.inner_text("#work-title") == "Continued from step 2"
    press("?")
    assert page.is_visible("#help-dialog")
    press("Escape")
    assert page.is_hidden("#help-dialog")


def test_the_stream_is_announced_by_sentences(opened: Callable[..., Any], fake: FakeServer):
    page = opened(clock=True)
    fake.reply = Reply(hold=9)
    ask(page)
    until(lambda: page.text_content("#think-stream").endswith("one "))
    page.clock.run_for(2000)
    said = page.locator("#live p").all_inner_texts()
    assert said == ["Waiting for the reply.", "There are two red circles."]
    assert page.get_attribute("#live", "aria-live") == "polite"
    fake.free.set()
    settled(page, 3)
    assert page.locator("#live p").last.inner_text() == "Answer: Three."


def test_every_button_has_a_name_and_every_id_is_one(page: Any):
    ask(page)
    settled(page, 3)
    edit(page, 1, "x")
    names = page.locator("button").evaluate_all("all => all.map((b) => (b.ariaLabel || b.textContent).trim())")
    assert "" not in names
    ids = page.locator("[id]").evaluate_all("all => all.map((e) => e.id)")
    assert len(ids) == len(set(ids))


def test_colours_follow_the_system_and_the_switch(opened: Callable[..., Any]):
    colour = "getComputedStyle(document.body).backgroundColor"
    light, dark = (opened(color_scheme=scheme) for scheme in ("light", "dark"))
    lit, unlit = light.evaluate(colour), dark.evaluate(colour)
    assert lit != unlit
    light.locator("#theme label", has_text="Dark").click()
    assert light.evaluate(colour) == unlit
    light.reload()
    assert light.evaluate(colour) == unlit
    assert light.is_checked("[value=dark]")
    light.locator("#theme label", has_text="Auto").click()
    assert light.evaluate(colour) == lit


@pytest.mark.parametrize("width", [360, 800, 1280])
def test_nothing_is_wider_than_the_window(opened: Callable[..., Any], fake: FakeServer, width: int):
    long = "x" * 300
    turn = api.SearchTurn(action="search", argument=long, observation=long)
    fake.reply = Reply(
        reasoning=f"{long}. {long}.",
        answer=long,
        live=[api.Live(turn=turn)],
        search=api.SearchReport(
            turns=[turn], sources=[api.Source(id=long, title=long, read=True)], confidence=1, verdict="uncertain"
        ),
    )
    page = opened(viewport={"width": width, "height": 700})
    ask(page, long)
    settled(page, 2)
    for view in ("#show-reply", None):
        if view:
            page.click(view)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 360:
        assert page.evaluate("scrollY") > 0  # the reply was brought into view


def test_the_policy_holds_in_the_browser(watched: Watched):
    """What a hole in the page would have to do is refused: inline script, foreign hosts, markup from text."""
    page = watched.page
    page.evaluate(
        """async () => {
      window.refused = [];
      addEventListener("securitypolicyviolation", (event) => refused.push(event.effectiveDirective));
      try { document.body.innerHTML = "<b>x</b>"; } catch { refused.push("markup"); }
      const script = document.createElement("script");
      try { script.text = "window.broken = 1"; } catch { refused.push("script"); }
      await fetch("http://127.0.0.2:9/").catch(() => {});
    }"""
    )
    until(lambda: {"markup", "script", "connect-src"} <= set(page.evaluate("refused")))
    assert page.evaluate("window.broken") is None
    assert watched.complaints  # the browser's own, of what was tried here
    watched.complaints.clear()


def test_two_tabs_share_versions_and_lose_none(page: Any, fake: FakeServer):
    other = page.context.new_page()
    other.goto(page.url)
    other.wait_for_selector("#health[data-state=ready]")
    ask(page, "One?")
    settled(page, 3)
    fake.reply = Reply(answer="Other.")
    ask(other, "Two?")
    settled(other, 3)
    assert page.inner_text("#answer") == "Three."
    assert other.inner_text("#answer") == "Other."
    page.wait_for_selector("#versions li:nth-child(2)")
    page.click("text=Two?")
    assert page.inner_text("#answer") == "Other."
    other.click("#clear")
    other.click("#clear-dialog .danger")
    page.wait_for_selector("#empty:not([hidden])")
    assert page.locator("#versions li").count() == 0
