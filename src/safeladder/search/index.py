"""Building an index on disk from a corpus: streamed, with progress, and resumable after a kill at any moment.

tantivy commits atomically but does not say where in the corpus it was. So before a commit the position is written down
beside the number of pages that the commit will hold; after a crash the number of pages in the index tells which of the
last two positions is true.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from safeladder.atomic import write_json
from safeladder.search.corpus import read_corpus
from safeladder.search.extras import import_extra
from safeladder.search.index_format import (
    ENTRIES,
    FORMAT,
    MANIFEST,
    PLACE,
    POSTINGS,
    PROGRESS,
    TERMS,
    Manifest,
    new_analyzer,
    new_schema,
    read_json,
    read_manifest,
    terms_text,
    write_manifest,
)
from safeladder.search.pages import ENTRY_BYTES, PAGES, PageFile, RepeatedId, pack_entry, pack_page, sort_ids
from safeladder.search.retriever import Document
from safeladder.types import SafeladderError

COMMIT_EVERY = 1_000_000
"""Pages between commits: what a kill can cost."""
COMMIT_BYTES = 2**28
"""Bytes of pages between commits. tantivy lets 10,000 pages wait for its threads, however long they are; a commit
waits until they are done, so that no more than this can be waiting."""
BYTES_A_THREAD = 128_000_000
"""tantivy's buffer for one indexing thread."""
MOST_THREADS = 4
_REPORT_EVERY = 10_000
_CHUNK = 2**20
_PROBES = 1000

Progress = Callable[[int, int, int], None]
"""Told the pages indexed so far, the bytes read and the bytes of the corpus."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A position in the corpus: that many pages, bytes and lines lie before it; `sha256` is of those bytes.

    `page_bytes` is the length that `pages.bin` has there.
    """

    documents: int
    page_bytes: int
    offset: int
    lines: int
    sha256: str


def build_index(
    corpus: Path, out: Path, *, progress: Progress | None = None, commit_every: int = COMMIT_EVERY
) -> Manifest:
    """Index `corpus` (JSONL, see `search/corpus.py`) into the folder `out`, or finish what was begun there.

    Memory: `BYTES_A_THREAD` for each of up to `MOST_THREADS` threads, and where pages are long the `COMMIT_BYTES` that
    may wait for them; no more with a larger corpus.
    An index of the same corpus that is already finished is left as it is.

    Raises:
        SafeladderError: a malformed line or a repeated id; `out` holds something else, or an index of another corpus;
            the corpus changed since the index was begun; another process is indexing into `out`.
    """
    if not corpus.is_file():
        raise SafeladderError(f"corpus {corpus} not found (or not a file)")
    report = progress or (lambda documents, read, total: None)
    if (out / MANIFEST).is_file():
        return _finished(corpus, out)
    _prepare(corpus, out)
    index = _open(out)
    with corpus.open("rb") as file:
        start = _checkpoint(out, index.searcher().num_docs)
        end = _add_pages(index, file, start, out, report, commit_every)
    if not end.documents:
        raise SafeladderError(f"{corpus} holds no pages")
    _sort_ids(corpus, out)
    index.reload()
    manifest = Manifest(
        format=FORMAT,
        documents=end.documents,
        mean_length=_mean_length(index, out),
        corpus=corpus.name,
        corpus_bytes=end.offset,
        sha256=end.sha256,
        tantivy=import_extra("tantivy").__version__,
    )
    write_manifest(out, manifest)
    for name in (PROGRESS, ENTRIES):
        (out / name).unlink()
    return manifest


def _finished(corpus: Path, out: Path) -> Manifest:
    manifest = read_manifest(out)
    size = corpus.stat().st_size
    if size != manifest.corpus_bytes or _sha256(corpus) != manifest.sha256:
        raise SafeladderError(f"{out} holds an index of another corpus ({manifest.corpus}); choose another --out")
    return manifest


def _prepare(corpus: Path, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise SafeladderError(f"--out: {out} is not a folder")
    if (out / PROGRESS).is_file():
        return
    if out.is_dir() and any(out.iterdir()):
        raise SafeladderError(f"{out} is not empty and holds no index; choose another --out")
    if not corpus.stat().st_size:
        raise SafeladderError(f"{corpus} is empty")
    out.mkdir(parents=True, exist_ok=True)
    _write_checkpoints(
        out, [Checkpoint(documents=0, page_bytes=0, offset=0, lines=0, sha256=hashlib.sha256().hexdigest())]
    )


def _open(out: Path) -> Any:
    folder = out / POSTINGS
    folder.mkdir(exist_ok=True)
    index = import_extra("tantivy").Index(new_schema(), path=str(folder), reuse=True)
    index.register_tokenizer(TERMS, new_analyzer())
    return index


def _writer(index: Any, out: Path) -> Any:
    threads = min(MOST_THREADS, os.cpu_count() or 1)
    try:
        return index.writer(heap_size=threads * BYTES_A_THREAD, num_threads=threads)
    except ValueError as error:
        if "lock" not in str(error).lower():
            raise
        raise SafeladderError(f"{out}: another process is indexing into this folder") from None


def _write_checkpoints(out: Path, checkpoints: list[Checkpoint]) -> None:
    write_json(out / PROGRESS, {"format": FORMAT, "checkpoints": [asdict(c) for c in checkpoints]})


def _checkpoint(out: Path, documents: int) -> Checkpoint:
    row = read_json(out / PROGRESS)
    if row.get("format") != FORMAT:
        raise SafeladderError(f"{out} was begun by another version; index into another folder")
    for checkpoint in (Checkpoint(**c) for c in row["checkpoints"]):
        if checkpoint.documents == documents:
            return checkpoint
    raise SafeladderError(f"{out} is damaged: {documents} pages fit none of its positions; index into another folder")


class _Corpus:
    """The corpus file with its position and the hash of everything before it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.offset = 0
        self.sha256 = hashlib.sha256()

    def readline(self, limit: int, /) -> bytes:
        return self._took(self._file.readline(limit))

    def skip(self, size: int) -> None:
        """Read `size` bytes for the hash alone."""
        while self.offset < size and self._took(self._file.read(min(size - self.offset, _CHUNK))):
            pass

    def _took(self, data: bytes) -> bytes:
        self.offset += len(data)
        self.sha256.update(data)
        return data


class _Build:
    """One run of the indexing loop: tantivy's writer, the two files beside it, the last checkpoint."""

    def __init__(self, index: Any, out: Path, start: Checkpoint, pages: IO[bytes], entries: IO[bytes]) -> None:
        self._out = out
        self._writer = _writer(index, out)
        self._row = import_extra("tantivy").Document
        self._pages, self._entries = pages, entries
        # What an unfinished run wrote after its last commit.
        pages.truncate(start.page_bytes)
        entries.truncate(start.documents * ENTRY_BYTES)
        self.documents, self.place = start.documents, start.page_bytes
        self.last = start

    def add(self, document: Document) -> None:
        row = self._row()
        row.add_text(TERMS, terms_text(document))
        row.add_integer(PLACE, self.place)
        self._writer.add_document(row)
        self._entries.write(pack_entry(document.id, self.place))
        self.place += self._pages.write(pack_page(document))
        self.documents += 1

    def commit(self, corpus: _Corpus, lines: int) -> None:
        for file in (self._pages, self._entries):
            file.flush()
            os.fsync(file.fileno())
        here = Checkpoint(
            documents=self.documents,
            page_bytes=self.place,
            offset=corpus.offset,
            lines=lines,
            sha256=corpus.sha256.hexdigest(),
        )
        _write_checkpoints(self._out, [self.last, here])
        self._writer.commit()
        self.last = here

    def finish(self) -> None:
        self._writer.wait_merging_threads()


def _add_pages(
    index: Any, file: IO[bytes], start: Checkpoint, out: Path, report: Progress, commit_every: int
) -> Checkpoint:
    total = os.fstat(file.fileno()).st_size
    corpus = _Corpus(file)
    corpus.skip(start.offset)
    if corpus.sha256.hexdigest() != start.sha256:
        raise SafeladderError(f"{file.name} has changed since {out} was begun; index into another folder")
    report(start.documents, corpus.offset, total)
    with (out / PAGES).open("ab") as pages, (out / ENTRIES).open("ab") as entries:
        build = _Build(index, out, start, pages, entries)
        line = start.lines
        for line, document in read_corpus(corpus, Path(file.name).name, first=start.lines + 1):
            build.add(document)
            if build.documents % _REPORT_EVERY == 0:
                report(build.documents, corpus.offset, total)
            if build.documents % commit_every == 0 or build.place - build.last.page_bytes >= COMMIT_BYTES:
                build.commit(corpus, line)
        build.commit(corpus, line)
        build.finish()
    report(build.documents, corpus.offset, total)
    return build.last


def _sort_ids(corpus: Path, out: Path) -> None:
    try:
        sort_ids(out, out / ENTRIES)
    except RepeatedId as repeated:
        (id,) = repeated.args
        with corpus.open("rb") as file:
            lines = [line for line, document in read_corpus(file, corpus.name) if document.id == id]
        raise SafeladderError(
            f"{corpus.name}, line {lines[1]}: the id {id!r} already stands in line {lines[0]}; an id must be unique"
        ) from None


def _mean_length(index: Any, out: Path) -> float:
    """The mean number of terms a page, out of tantivy's own explanation of a score."""
    tantivy = import_extra("tantivy")
    searcher, analyzer, pages = index.searcher(), new_analyzer(), PageFile(out)
    for _, address in searcher.search(tantivy.Query.all_query(), _PROBES, count=False).hits:
        (place,) = searcher.fast_field_values(PLACE, [address])
        for term in analyzer.analyze(terms_text(pages.at(place))):
            query = tantivy.Query.term_query(index.schema, TERMS, term, "freq")
            return _explained(json.loads(query.explain(searcher, address).to_json()), "avgdl")
    raise SafeladderError(f"none of the first {_PROBES} pages holds a word")


def _explained(explanation: dict[str, Any], name: str) -> float:
    """The value of the first detail whose description begins with `name`."""
    found = [explanation]
    for detail in found:
        if detail["description"].startswith(name):
            return float(detail["value"])
        found += detail.get("details", [])
    raise ValueError(f"tantivy's explanation has no {name}")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
