"""The index on disk: built, killed and continued, refused where it must be, and searched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable
from pathlib import Path

import pytest

from safeladder.search import index as building
from safeladder.search import index_retriever
from safeladder.search.bm25 import idf, saturation
from safeladder.search.index import build_index
from safeladder.search.index_format import new_analyzer
from safeladder.search.index_retriever import IndexRetriever
from safeladder.search.ranking import STEMMED
from safeladder.search.retriever import Document, MemoryRetriever, RetrievalFault, Retriever
from safeladder.types import SafeladderError

CITIES = [
    {
        "id": "1",
        "title": "Citibank",
        "text": "Citibank is a bank. It was founded in 1812 as the City Bank of New York.",
    },
    {
        "id": "2",
        "title": "James Madison",
        "text": "James Madison was president of the United States from 1809 to 1817.",
    },
    {"id": "3", "title": "The Who", "text": "The Who are a band."},
    {"id": "4", "title": "北京大学", "text": "北京大学是一所位于北京的大学。"},
    {"id": "5", "title": "上海", "text": "上海是一座城市。"},
    {"id": "6", "title": "Café", "text": "A café in Zürich."},
]


def write(path: Path, rows: Iterable[dict]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def numbered(count: int) -> list[dict]:
    """Pages of different lengths, so that no two have the same score."""
    return [
        {"id": f"p{i}", "title": f"Page {i}", "text": f"word{i} shared word{i % 7} {'x ' * (i % 37)}".strip()}
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def cities(tmp_path_factory) -> IndexRetriever:
    folder = tmp_path_factory.mktemp("cities")
    build_index(write(folder / "cities.jsonl", CITIES), folder / "index")
    return IndexRetriever(folder / "index")


def titles(retriever: Retriever, query: str, k: int = 3) -> list[str]:
    return [hit.title for hit in retriever.search(query, k)]


# Building


def test_the_manifest_says_what_is_in_the_index(tmp_path):
    corpus = write(tmp_path / "cities.jsonl", CITIES)
    seen = []
    manifest = build_index(corpus, tmp_path / "out", progress=lambda *numbers: seen.append(numbers))
    size = corpus.stat().st_size
    assert (manifest.documents, manifest.corpus, manifest.corpus_bytes) == (6, "cities.jsonl", size)
    lengths = [len(new_analyzer().analyze(building.terms_text(Document(**row)))) for row in CITIES]
    assert manifest.mean_length == pytest.approx(sum(lengths) / 6, rel=1e-6)
    assert seen[0] == (0, 0, size)
    assert seen[-1] == (6, size, size)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "ids.bin", "manifest.json", "pages.bin", "places.bin", "postings",
    }  # fmt: skip


def test_a_finished_index_is_left_alone_and_one_of_another_corpus_refused(tmp_path):
    corpus = write(tmp_path / "a.jsonl", CITIES)
    manifest = build_index(corpus, tmp_path / "out")
    before = (tmp_path / "out" / "manifest.json").stat().st_mtime_ns
    assert build_index(corpus, tmp_path / "out") == manifest
    assert (tmp_path / "out" / "manifest.json").stat().st_mtime_ns == before
    other = write(tmp_path / "b.jsonl", CITIES[:3])
    with pytest.raises(SafeladderError, match=r"holds an index of another corpus \(a.jsonl\)"):
        build_index(other, tmp_path / "out")


def test_mistakes_are_one_line(tmp_path):
    out = tmp_path / "out"
    with pytest.raises(SafeladderError, match="not found"):
        build_index(tmp_path / "none.jsonl", out)
    with pytest.raises(SafeladderError, match="is empty"):
        build_index(write(tmp_path / "empty.jsonl", []), out)
    assert not out.exists()
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.tex").write_text("…")
    with pytest.raises(SafeladderError, match="is not empty and holds no index"):
        build_index(write(tmp_path / "a.jsonl", CITIES), full)
    with pytest.raises(SafeladderError, match="not a folder"):
        build_index(tmp_path / "a.jsonl", full / "thesis.tex")
    (tmp_path / "blank.jsonl").write_text("\n\n")
    with pytest.raises(SafeladderError, match="holds no pages"):
        build_index(tmp_path / "blank.jsonl", out)


def test_a_repeated_id_is_named_with_both_lines(tmp_path):
    corpus = write(tmp_path / "a.jsonl", [*CITIES, CITIES[1]])
    with pytest.raises(SafeladderError, match=r"a.jsonl, line 7: the id '2' already stands in line 2"):
        build_index(corpus, tmp_path / "out")
    with pytest.raises(SafeladderError, match="is not finished"):
        IndexRetriever(tmp_path / "out")


def test_a_malformed_line_stops_the_build_and_mending_it_continues_it(tmp_path):
    rows = numbered(30)
    corpus = write(tmp_path / "a.jsonl", rows)
    good = corpus.read_bytes()
    lines = good.splitlines(keepends=True)
    corpus.write_bytes(b"".join([*lines[:25], b"oops\n", *lines[26:]]))
    with pytest.raises(SafeladderError, match=r"a.jsonl, line 26: not JSON"):
        build_index(corpus, tmp_path / "out", commit_every=10)
    corpus.write_bytes(good)
    starts = []
    manifest = build_index(corpus, tmp_path / "out", commit_every=10, progress=lambda n, *_: starts.append(n))
    assert starts[0] == 20, "it went on after the last commit"
    assert manifest.documents == 30
    retriever = IndexRetriever(tmp_path / "out")
    assert all(retriever.read(row["id"]) == Document(**row) for row in rows)
    assert retriever.search("word29", 5)[0].id == "p29"


def test_a_changed_corpus_is_not_continued(tmp_path):
    corpus = write(tmp_path / "a.jsonl", numbered(30))
    text = corpus.read_text()
    corpus.write_text(text + "oops\n")
    with pytest.raises(SafeladderError, match="line 31"):
        build_index(corpus, tmp_path / "out", commit_every=10)
    corpus.write_text(text.replace("Page 3", "Page X"))
    with pytest.raises(SafeladderError, match="has changed since"):
        build_index(corpus, tmp_path / "out")


KILLED = """
import os, signal, sys
from pathlib import Path
from safeladder.search import index
commits, when = 0, sys.argv[3]
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
class Writer:
    def __init__(self, writer): self.writer = writer
    def add_document(self, row): self.writer.add_document(row)
    def wait_merging_threads(self): self.writer.wait_merging_threads()
    def commit(self):
        global commits
        commits += 1
        if commits == 3 and when == "before": kill()
        self.writer.commit()
        if commits == 3 and when == "after": kill()
open_writer = index._writer
index._writer = lambda *given: Writer(open_writer(*given))
if when == "table": index.sort_ids = lambda *given: kill()
if when == "manifest": index.write_manifest = lambda *given: kill()
index.build_index(Path(sys.argv[1]), Path(sys.argv[2]), commit_every=10)
"""


@pytest.mark.parametrize(("when", "kept"), [("before", 20), ("after", 30), ("table", 36), ("manifest", 36)])
def test_killed_at_any_moment_it_continues(tmp_path, when, kept):
    rows = numbered(36)
    corpus = write(tmp_path / "a.jsonl", rows)
    done = subprocess.run([sys.executable, "-c", KILLED, corpus, tmp_path / "out", when], check=False)
    assert done.returncode == -signal.SIGKILL
    with pytest.raises(SafeladderError, match="not finished"):
        IndexRetriever(tmp_path / "out")
    starts = []
    manifest = build_index(corpus, tmp_path / "out", commit_every=10, progress=lambda n, *_: starts.append(n))
    assert starts[0] == kept
    unbroken = build_index(corpus, tmp_path / "unbroken")
    assert manifest == unbroken
    ours, theirs = IndexRetriever(tmp_path / "out"), IndexRetriever(tmp_path / "unbroken")
    for query in ("shared", "word3", "page 35"):
        assert ours.search(query, 5) == theirs.search(query, 5)
    assert all(ours.read(row["id"]) == Document(**row) for row in rows)


def test_two_builds_in_one_folder(tmp_path):
    corpus = write(tmp_path / "a.jsonl", numbered(5))
    building._prepare(corpus, tmp_path / "out")
    writer = building._writer(building._open(tmp_path / "out"), tmp_path / "out")
    with pytest.raises(SafeladderError, match="another process is indexing"):
        build_index(corpus, tmp_path / "out")
    del writer
    assert build_index(corpus, tmp_path / "out").documents == 5


@pytest.mark.parametrize("damage", ["manifest.json", "pages.bin", "ids.bin", "postings"])
def test_a_damaged_index_is_told_from_a_sound_one(tmp_path, damage):
    build_index(write(tmp_path / "a.jsonl", CITIES), tmp_path / "out")
    victim = tmp_path / "out" / damage
    if victim.is_dir():
        for file in victim.iterdir():
            file.unlink()
    elif damage == "manifest.json":
        victim.write_text("{")
    else:
        victim.unlink()
    with pytest.raises(SafeladderError, match="damaged"):
        IndexRetriever(tmp_path / "out")


def test_no_index_and_an_index_of_another_version(tmp_path):
    with pytest.raises(SafeladderError, match="holds no index; make one: safeladder search index"):
        IndexRetriever(tmp_path)
    build_index(write(tmp_path / "a.jsonl", CITIES), tmp_path / "out")
    manifest = tmp_path / "out" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 0'))
    with pytest.raises(SafeladderError, match="format 0 is not 1"):
        IndexRetriever(tmp_path / "out")


# Searching


def test_what_is_found(cities):
    assert titles(cities, "In what year was Citibank founded?", 1) == ["Citibank"]
    assert titles(cities, "cafe zurich", 1) == ["Café"]
    assert titles(cities, "北京大学在哪里", 1) == ["北京大学"]
    assert titles(cities, "zebra") == titles(cities, "") == titles(cities, "?!") == titles(cities, "bank", 0) == []


def test_a_query_of_stop_words_alone_is_still_a_query(cities):
    assert titles(cities, "The Who", 1) == ["The Who"]


def test_feedback_finds_the_second_hop(tmp_path):
    """The question's words are all on the first page; the president shares only "1812" with it."""
    rows = [
        {"id": "bank", "title": "Citibank", "text": "Citibank was founded in 1812."},
        {"id": "war", "title": "War of 1812", "text": "In 1812 a war began."},
        *({"id": f"n{i}", "title": f"Town {i}", "text": f"A town of no note {i}."} for i in range(20)),
    ]
    build_index(write(tmp_path / "a.jsonl", rows), tmp_path / "out")
    assert [hit.id for hit in IndexRetriever(tmp_path / "out").search("Citibank", 2)] == ["bank", "war"]


def test_pages_come_back_as_they_were(cities):
    assert [cities.read(row["id"]) for row in CITIES] == [Document(**row) for row in CITIES]
    assert cities.read("7") is None
    assert cities.read("\ud800") is None
    assert isinstance(cities, Retriever)


@pytest.mark.parametrize(
    "query", ["\ud800 bank", "\x00", "a" * 10_000, "word " * 10_000, '"( OR title:* ^~', "🏦" * 99]
)
def test_any_text_is_a_query(cities, query):
    assert len(cities.search(query, 5)) <= 5


def test_scores_fall_and_more_results_only_add(cities):
    hits = cities.search("the city bank of the united states", 5)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert cities.search("the city bank of the united states", 2) == hits[:2]


def test_the_score_is_bm25(cities):
    """One page, one term that is a form of nothing else: exact and stemmed parts are the same."""
    (hit,) = cities.search("citibank", 1)
    length = len(new_analyzer().analyze(building.terms_text(Document(**CITIES[0]))))
    own = idf(6, 1) * saturation(2, length, cities.manifest.mean_length)
    assert 0 < STEMMED < 1
    assert hit.score > own, "what feedback adds comes on top"
    assert MemoryRetriever(Document(**row) for row in CITIES).search("citibank", 1)[0].score == pytest.approx(
        own, rel=1e-6
    )


def test_common_terms_propose_no_candidates_but_count(tmp_path, monkeypatch):
    monkeypatch.setattr(index_retriever, "POSTINGS_FLOOR", 0)
    rows = [
        {"id": str(i), "title": "", "text": f"common {'frequent' if i % 2 else ''} rare{i // 4}"} for i in range(40)
    ]
    build_index(write(tmp_path / "a.jsonl", rows), tmp_path / "out")
    retriever = IndexRetriever(tmp_path / "out")
    # Postings: rare3 4, frequent 20, common 40; the two rarest always propose.
    assert list(retriever._proposing({"common": 1.0, "frequent": 1.0, "rare3": 1.0, "nowhere": 1.0})) == [
        "rare3",
        "frequent",
    ]
    assert {hit.id for hit in retriever.search("common frequent rare3", 2)} == {"13", "15"}


def test_threads_may_share_it(cities):
    expected = {query: cities.search(query, 3) for query in ("city bank", "president madison", "北京", "the band")}
    wrong = []

    def ask() -> None:
        for _ in range(30):
            wrong.extend(query for query, hits in expected.items() if cities.search(query, 3) != hits)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_an_index_that_breaks_while_it_is_used_is_a_fault(tmp_path):
    build_index(write(tmp_path / "a.jsonl", CITIES), tmp_path / "out")
    retriever = IndexRetriever(tmp_path / "out")
    os.truncate(tmp_path / "out" / "pages.bin", 10)
    with pytest.raises(RetrievalFault, match="cannot be read"):
        retriever.search("bank", 3)
    with pytest.raises(RetrievalFault, match="cannot be read"):
        retriever.read("6")
