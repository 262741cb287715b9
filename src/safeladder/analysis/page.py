"""Pieces of a self-contained HTML page. Everything that is not `Html` is escaped."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence

STYLE = """
:root { color-scheme: light dark; --page: #fff; --ink: #1c2430; --muted: #5a6470; --line: #d9dee5;
  --soft: #f4f6f9; --accent: #0072b2; --good: #00734f; --bad: #b3410b; }
@media (prefers-color-scheme: dark) { :root { --page: #171b21; --ink: #e6e9ee; --muted: #a3adb9; --line:
#343c47;
  --soft: #1f252d; --accent: #6cc0f0; --good: #3fd0a1; --bad: #ff9d5c; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 68rem; margin: 0 auto; padding: 2rem 1.25rem 5rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .6rem; padding-top: .8rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem; }
p { margin: .5rem 0; max-width: 48rem; }
.muted, figcaption, caption { color: var(--muted); font-size: .9rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: .9rem; margin:
1.2rem 0; } .card { background: var(--soft); border: 1px solid var(--line); border-radius: .6rem; padding:
.9rem 1rem; } .card .big { font-size: 1.3rem; white-space: nowrap; font-weight: 650; font-variant-numeric:
tabular-nums; } .scroll { overflow-x: auto; } table { border-collapse: collapse; margin: .8rem 0; font-size:
.92rem; font-variant-numeric: tabular-nums; } caption { text-align: left; padding-bottom: .4rem; } th, td {
text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
thead th { color: var(--muted); font-weight: 600; } tbody th { font-weight: 600; } td small { display: block;
color: var(--muted); white-space: nowrap; line-height: 1.35; } td ul { margin: 0; padding-left: 1.1rem; }
.good { color: var(--good); font-weight: 600; } .bad { color: var(--bad); font-weight: 600; } figure { margin:
1rem 0; } figure img { max-width: 100%; height: auto; border: 1px solid var(--line); border-radius: .5rem; }
img.item { image-rendering: pixelated; min-width: 7rem; max-width: 20rem; border: 1px solid var(--line); }
details { margin: .6rem 0; border: 1px solid var(--line); border-radius: .5rem; padding: .5rem .9rem; }
summary { cursor: pointer; font-weight: 600; } pre { white-space: pre-wrap; overflow-wrap: anywhere;
background: var(--soft); padding: .5rem .7rem; margin: .3rem 0;
  border-radius: .4rem; font-size: .85rem; }
nav a { margin-right: 1rem; } a { color: var(--accent); }
"""


class Html(str):
    """Text that is HTML already."""


def text(value: object) -> Html:
    """`value` as HTML: escaped, unless it is `Html`."""
    return value if isinstance(value, Html) else Html(html.escape(str(value), quote=True))


def tag(name: str, *children: object, **attributes: object) -> Html:
    """An element. Attributes are escaped; `class_` is written class, `aria_label` aria-label."""
    return Html(f"{void(name, **attributes)}{join(children)}</{name}>")


def void(name: str, **attributes: object) -> Html:
    """An element without content and end, such as an image."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(str(value), quote=True)}"'
        for key, value in attributes.items()
    )
    return Html(f"<{name}{written}>")


def join(parts: Iterable[object]) -> Html:
    """Parts one after the other."""
    return Html("".join(text(part) for part in parts))


def table(caption: str, head: Sequence[object], rows: Iterable[Sequence[object]]) -> Html:
    """A table whose first column names the rows; scrolls sideways on narrow screens."""
    body = [tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows]
    top = tag("thead", tag("tr", *(tag("th", cell, scope="col") for cell in head)))
    # A region that scrolls must be reachable by keyboard, and named.
    return tag(
        "div",
        tag("table", tag("caption", caption), top, tag("tbody", *body)),
        class_="scroll", tabindex=0, role="region", aria_label=caption,
    )  # fmt: skip


def figure(light: bytes, dark: bytes, alternative: str, caption: object) -> Html:
    """A picture with a version for dark pages, both embedded."""
    source = void("source", srcset=png_uri(dark), media="(prefers-color-scheme: dark)")
    # Figures have 150 pixels an inch; a page has 96. A little larger than that reads well.
    width = round(0.72 * int.from_bytes(light[16:20], "big"))
    image = void("img", src=png_uri(light), alt=alternative, width=width)
    return tag("figure", tag("picture", source, image), tag("figcaption", caption))


def section(identifier: str, title: str, *children: object) -> Html:
    """A section with a heading that can be linked to."""
    heading = f"{identifier}-title"
    return tag("section", tag("h2", title, id=heading), *children, id=identifier, aria_labelledby=heading)


def fold(summary: object, *children: object, is_open: bool = False) -> Html:
    """Content that opens on a click."""
    return Html(f"<details{' open' if is_open else ''}>{tag('summary', summary)}{join(children)}</details>")


def page(title: str, *children: object) -> str:
    """A whole document. It loads nothing and runs nothing, and says so to the browser."""
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{join(children)}\n</main>\n</body>\n</html>\n"
    )


def png_uri(data: bytes) -> str:
    """PNG bytes as a data URI."""
    return "data:image/png;base64," + base64.b64encode(data).decode()
