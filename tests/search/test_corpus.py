"""Reading a corpus: both layouts, and one line for every mistake."""

from __future__ import annotations

import io
import json

import pytest

from safeladder.search import corpus
from safeladder.search.corpus import join_contents, read_corpus, split_contents
from safeladder.search.retriever import Document
from safeladder.types import SafeladderError

GOOD = {"id": "1", "title": "T", "text": "x"}


def read(*lines: bytes, first: int = 1):
    return list(read_corpus(io.BytesIO(b"\n".join(lines)), "corpus.jsonl", first=first))


def dump(**changes) -> bytes:
    return json.dumps(GOOD | changes).encode()


def test_both_layouts_and_blank_lines():
    pages = read(
        dump(),
        b"",
        b" \t",
        json.dumps({"id": 7, "contents": '"A title"\nIts text.\nMore.', "year": 1999}).encode(),
        dump(id="ä", title="two\nlines"),
    )
    assert pages == [
        (1, Document(id="1", title="T", text="x")),
        (4, Document(id="7", title="A title", text="Its text.\nMore.")),
        (5, Document(id="ä", title="two lines", text="x")),
    ]


def test_line_numbers_go_on_where_reading_goes_on():
    assert [number for number, _ in read(dump(), dump(id="2"), first=41)] == [41, 42]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not JSON in UTF-8"),
        (b"[1]", "a JSON object is needed, not list"),
        (b"null", "a JSON object is needed, not NoneType"),
        (b'{"id": "1", "title": "\xff", "text": ""}', "not JSON in UTF-8"),
        (b'{"id": "1", "title": "\\ud800", "text": ""}', "not JSON in UTF-8"),
        (b"[" * 100_000, "not JSON in UTF-8"),
        (b"\x1f\x8b\x08\x00", "the file is compressed; unpack it first"),
        (b'{"id": "1", "title": "T"}', 'no "text"; needed: id, title, text'),
        (b'{"id": "1", "text": "x"}', 'no "title"'),
        (dump(text=5), '"text" must be text, not int'),
        (dump(title=None), '"title" must be text, not NoneType'),
        (dump(title=" ", text="\n"), "title and text are both empty"),
        (dump(id=""), '"id" must be one line of text'),
        (dump(id="a\nb"), '"id" must be one line of text'),
        (dump(id=True), '"id" must be one line of text'),
        (dump(id=1.5), '"id" must be one line of text'),
        (b'{"title": "T", "text": "x"}', '"id" must be one line of text'),
        (dump(id="ä" * 300), '"id" is longer than 512 bytes'),
    ],
)
def test_a_mistake_is_one_line_with_file_line_and_cause(line: bytes, message: str):
    with pytest.raises(SafeladderError) as caught:
        read(dump(), b"", line)
    assert str(caught.value).startswith("corpus.jsonl, line 3: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_line_that_never_ends_is_not_read_into_memory(monkeypatch):
    monkeypatch.setattr(corpus, "LINE_BYTES", 1000)
    with pytest.raises(SafeladderError, match="line 1: longer than"):
        read(dump(text="x" * 2000))


@pytest.mark.parametrize(
    ("contents", "title", "text"),
    [
        ('"T"\nx', "T", "x"),
        ("T\nx\ny", "T", "x\ny"),
        ('"T"', "T", ""),
        ('""\nx', "", "x"),
        ('He said "no"\nx', 'He said "no"', "x"),
    ],
)
def test_contents(contents, title, text):
    assert split_contents(contents) == (title, text)


def test_contents_and_back():
    page = Document(id="1", title='A "quoted" title', text="Text.\nMore.")
    assert split_contents(join_contents(page)) == (page.title, page.text)
