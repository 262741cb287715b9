"""The editor page's files: how they are served, what they may not hold, and whether its colours can be read."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from safeladder.serving.editor_files import HEADERS, add_editor, editor_files

FILES = editor_files()
HTML = FILES["index.html"].content.decode()
CSS = FILES["editor.css"].content.decode()
SCRIPTS = {name: file.content.decode() for name, file in FILES.items() if name.endswith(".js")}
DOCS = Path(__file__).resolve().parents[2] / "docs" / "editor.md"


class Page(HTMLParser):
    """All elements of the page with their attributes, and the text inside of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = [("html", {})]
        self.inline: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        if data.strip() and self.elements[-1][0] in ("script", "style"):
            self.inline.append(data)


PAGE = Page(HTML)


@pytest.fixture(scope="module")
def client():
    fastapi = pytest.importorskip("fastapi", reason="needs the serve extra")
    pytest.importorskip("httpx", reason="needs httpx")
    testclient = pytest.importorskip("fastapi.testclient")
    app = fastapi.FastAPI()
    add_editor(app)
    assert app.openapi()["paths"] == {}
    return testclient.TestClient(app)


def test_the_page_and_all_that_it_names_are_served(client):
    page = client.get("/editor")
    assert page.status_code == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    named = {attributes.get("src") or attributes.get("href") for _, attributes in PAGE.elements}
    files = {name for name in named if name and not name.startswith("#")}
    assert files == {"editor/icon.svg", "editor/editor.css", "editor/theme.js", "editor/editor.js"}
    imported = {f"editor/{name}" for text in SCRIPTS.values() for name in re.findall(r'from "\./([\w.]+)"', text)}
    assert imported > {"editor/api.js"}
    for name in files | imported:
        reply = client.get(f"/{name}")
        assert reply.status_code == 200, name
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "javascript" in reply.headers["content-type"] or not name.endswith(".js")


def test_every_file_is_part_of_the_page():
    imported = {name for text in SCRIPTS.values() for name in re.findall(r'from "\./([\w.]+)"', text)}
    assert set(FILES) == imported | {"index.html", "editor.css", "editor.js", "theme.js", "icon.svg"}


@pytest.mark.parametrize("path", ["/editor/none.js", "/editor/..%2Feditor_files.py", "/editor/a/b"])
def test_nothing_else_is_served(client, path: str):
    assert client.get(path).status_code == 404


def test_every_reply_carries_the_policy(client):
    for path in ("/editor", "/editor/editor.js", "/editor/none.js"):
        headers = client.get(path).headers
        for name, value in HEADERS.items():
            assert headers[name] == value
    policy = HEADERS["Content-Security-Policy"]
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy


def test_an_unchanged_file_is_not_sent_again(client):
    etag = client.get("/editor/editor.js").headers["etag"]
    again = client.get("/editor/editor.js", headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert client.get("/editor/editor.js", headers={"If-None-Match": '"other"'}).status_code == 200


def test_nothing_is_inline_and_nothing_comes_from_elsewhere():
    assert PAGE.inline == []
    for tag, attributes in PAGE.elements:
        assert tag != "style"
        assert "style" not in attributes, tag
        assert not [name for name in attributes if name.startswith("on")], tag
    for name, file in FILES.items():
        addresses = re.findall(
            r"(?:https?:)?//\w[^\s\"')]*", re.sub(r"^\s*//.*$", "", file.content.decode(), flags=re.M)
        )
        assert [a for a in addresses if a != "http://www.w3.org/2000/svg"] == [], name


def test_no_script_makes_markup_or_code_of_text():
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|srcdoc"
    for name, text in SCRIPTS.items():
        assert not re.search(forbidden, text), name


def test_ids_are_unique_and_every_id_that_scripts_use_exists():
    ids = [attributes["id"] for _, attributes in PAGE.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    used = {name for text in SCRIPTS.values() for name in re.findall(r'\$\("([\w-]+)"\)', text)}
    assert used - set(ids) == set()
    assert len(used) > 40
    pointed = [
        a[name] for _, a in PAGE.elements for name in ("for", "aria-labelledby", "aria-describedby") if name in a
    ]
    assert set(pointed) - set(ids) == set()


def test_every_field_has_a_label():
    labelled = {attributes["for"] for tag, attributes in PAGE.elements if tag == "label" and "for" in attributes}
    inside = [PAGE.elements[i - 1][0] == "label" for i in range(len(PAGE.elements))]
    for (tag, attributes), wrapped in zip(PAGE.elements, inside, strict=True):
        if tag in ("input", "textarea", "select"):
            assert wrapped or attributes["id"] in labelled, attributes


def test_shortcuts_of_the_help_are_documented():
    shown = re.search(r'<dl class="keys">(.*?)</dl>', HTML, re.DOTALL)
    assert shown
    keys = set(re.findall(r"<kbd>(.*?)</kbd>", shown[1]))
    documented = set(re.findall(r"<kbd>(.*?)</kbd>", DOCS.read_text(encoding="utf-8")))
    assert len(keys) > 8
    assert keys <= documented


# Contrast: WCAG 2.2, success criteria 1.4.3 (text, 4.5) and 1.4.11 (borders of controls, focus, 3). ---------------

COLOURS = {
    name: {"light": light, "dark": dark}
    for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", CSS)
}
TEXT = {
    ("ink", "muted", "accent", "bad", "warn", "good"): ("page", "panel"),
    ("ink", "muted"): ("sunk", "accent-soft", "warn-soft", "bad-soft"),
    ("accent",): ("accent-soft",),
    ("good",): ("good-soft",),
    ("bad",): ("bad-soft",),
    ("warn",): ("warn-soft",),
    ("on-accent",): ("accent",),
}
PAIRS = [
    *((t, b, 4.5) for texts, grounds in TEXT.items() for t, b in itertools.product(texts, grounds)),
    *((t, b, 3.0) for t, b in itertools.product(("edge", "accent", "bad"), ("page", "panel"))),
]


def luminance(colour: str) -> float:
    """Relative luminance of `#rrggbb` (WCAG 2.2)."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_itself():
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)  # (1 + 0.05) / (0 + 0.05)
    # 0x76/255 = 0.46275 -> ((0.46275 + 0.055) / 1.055) ** 2.4 = 0.18116 -> 1.05 / 0.23116
    assert contrast("#767676", "#ffffff") == pytest.approx(4.542, abs=1e-3)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("front", "ground", "needed"), PAIRS)
def test_colours_can_be_told_apart(front: str, ground: str, needed: float, theme: str):
    assert contrast(COLOURS[front][theme], COLOURS[ground][theme]) >= needed


def test_every_colour_is_one_of_the_named_ones():
    body = re.sub(r":root \{.*?\n\}", "", CSS, count=1, flags=re.DOTALL)
    assert re.findall(r"#[0-9a-fA-F]{3,8}\b(?![^{]*\{)", body) == []
    assert set(re.findall(r"var\(--([\w-]+)", CSS)) <= COLOURS.keys() | {"mono", "round", "value", "depth"}
