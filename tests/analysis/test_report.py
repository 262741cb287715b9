"""The page: complete, self-contained, and safe to open whatever the model wrote."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path

import pytest
import synthetic

from safeladder.analysis.examples import choose_examples
from safeladder.analysis.report import write_report
from safeladder.rollout.record import rollout_row
from safeladder.types import SafeladderError

HOSTILE = """</pre><script src="https://a.example/x.js">f(1)</script><img src=http://a.example onerror="x">&"'"""
VOID = {"meta", "img", "source", "br"}


class Page(HTMLParser):
    """What a browser would see: elements, their attributes and the text; complains where tags do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open, f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    synthetic.write_run(folder, question=HOSTILE)
    assert write_report(folder) == folder / "report.html"
    return folder


@pytest.fixture(scope="module")
def page(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def test_the_page_loads_nothing_from_anywhere(page: Page) -> None:
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "object", "embed", "base", "form")
        for name, value in attributes.items():
            assert not name.startswith("on"), f"{tag} {name}"
            if name in ("src", "srcset"):
                assert value.startswith("data:image/png;base64,")
            if name == "href":
                assert value.startswith("#")
    policy = next(a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'")


def test_style_sheets_load_nothing(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    (style,) = re.findall(r"<style>(.*?)</style>", text, flags=re.DOTALL)
    assert "url(" not in style and "@import" not in style and "http" not in style


def test_what_the_model_wrote_is_shown_as_text(page: Page) -> None:
    assert HOSTILE in "".join(page.text)


def test_light_and_dark(page: Page) -> None:
    dark = [a for t, a in page.elements if t == "source"]
    assert dark and all(a["media"] == "(prefers-color-scheme: dark)" for a in dark)
    assert "prefers-color-scheme: dark" in "".join(page.text)


def test_tables_and_pictures_are_accessible(page: Page) -> None:
    tags = [t for t, _ in page.elements]
    assert tags.count("table") == tags.count("caption") == tags.count("thead") > 5
    assert all(a.get("scope") in ("row", "col") for t, a in page.elements if t == "th")
    assert all(a.get("alt") for t, a in page.elements if t == "img")
    assert next(a for t, a in page.elements if t == "html")["lang"] == "en"
    links = {a["href"] for t, a in page.elements if t == "a"}
    assert links <= {f"#{a['id']}" for _, a in page.elements if "id" in a}


@pytest.mark.parametrize(
    "words",
    [
        "62.0 % → 96.0 %",  # headline
        "relative change in % = 100 x (last - base) / base",  # its formula (N02)
        "+54.8 % relative",
        "Where the gain comes from",
        "no relative change: the first value is 0",
        "58.0 to 66.0 %",  # an interval
        "n = 800",
        "safety rose from 0.620 to 0.950",  # the gate's reason
        "safety-only",  # ablation
        "pass@8",
        "visual_risky",  # kinds
        "3 unscored",  # verifiers
        "nothing scored (12 unscored)",
        "truncated",
        "0123abc",  # git revision
        "logs/m3-rl.eval",
        "3.2e+12",
    ],
)
def test_everything_is_on_the_page(words: str, page: Page) -> None:
    assert words in "".join(page.text)


def test_N04_N05_both_axes_stand_side_by_side_with_seed_intervals_and_verifiers(page: Page) -> None:
    text = "".join(page.text)
    assert text.index("Safety") < text.index("Capability")
    for words in ("Seed 0", "95 % intervals", "Mean score of every verifier"):
        assert words in text


def test_the_figure_is_written_beside_the_page(folder: Path) -> None:
    data = (folder / "trajectory.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert (int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")) == (1200, 900)


def test_a_run_without_logs_still_gets_a_page(tmp_path: Path) -> None:
    synthetic.write_run(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "rollouts.jsonl").unlink()
    text = "".join(Page(write_report(tmp_path).read_text(encoding="utf-8")).text)
    assert "Every rung" in text and "Before and after" not in text


def test_a_wrong_report_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "report.json").write_text(json.dumps({"recipe": "laptop"}))
    with pytest.raises(SafeladderError, match=r"report\.seed must be present"):
        write_report(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_examples_show_the_same_item_at_every_rung_largest_change_first() -> None:
    def row(rung: str, kind: str, number: int, reward: float | None, step: int | None = None) -> dict:
        item = synthetic.sample(kind, number)
        return rollout_row(synthetic.rollout(item, "3", reward), rung=rung, step=step)

    rows = [
        row("base", "count", 0, 0.0), row("m3-rl", "count", 0, 0.2),
        row("base", "count", 1, 0.0), row("m3-rl", "count", 1, 1.0),
        row("base", "fact_never", 2, None), row("m3-rl", "fact_never", 2, 0.5),
        row("base", "count", 3, 0.0),  # never seen at the last rung
        row("base", "count", 4, 0.0, step=3), row("m3-rl", "count", 4, 1.0, step=3),  # training
        row("other", "count", 1, 1.0),
    ]  # fmt: skip
    chosen = choose_examples(rows, ["base", "cot-sft", "m3-rl"])
    assert [e.sample_id for e in chosen] == ["count-1", "fact_never-2", "count-0"]
    assert [r["rung"] for r in chosen[0].rows] == ["base", "m3-rl"]
    assert choose_examples(rows, []) == []
    assert len(choose_examples(rows, ["base", "m3-rl"], most=1)) == 1
