"""What an index folder holds: tantivy's files, how text becomes terms, the pages, and the manifest.

Every term list is that of the title and the text together (`search/words.py`). Nothing is stemmed and no word is left
out, so that "The Who" can be found.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safeladder.atomic import write_json
from safeladder.search.extras import import_extra
from safeladder.search.retriever import Document
from safeladder.search.words import plain
from safeladder.types import SafeladderError

FORMAT = 1
"""Raised whenever an older index could no longer be read or would rank differently."""
TERMS = "terms"
PLACE = "place"
MANIFEST = "manifest.json"
PROGRESS = "progress.json"
ENTRIES = "ids.part"
POSTINGS = "postings"
"""The folder of tantivy's files inside an index."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Written last: a folder without it is an index that is not finished.

    `sha256` is that of the corpus file; `mean_length` counts terms a page.
    """

    format: int
    documents: int
    mean_length: float
    corpus: str
    corpus_bytes: int
    sha256: str
    tantivy: str


def new_schema() -> Any:
    """Terms with frequencies (no positions), and where the page is."""
    builder = import_extra("tantivy").SchemaBuilder()
    builder.add_text_field(TERMS, tokenizer_name=TERMS, index_option="freq")
    builder.add_integer_field(PLACE, fast=True)
    return builder.build()


def new_analyzer(*, stop_words: bool = True, stems: bool = False) -> Any:
    """From `plain` text to terms. `stop_words` False leaves out English ones, `stems` stems."""
    tantivy = import_extra("tantivy")
    builder = tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
    if not stop_words:
        builder = builder.filter(tantivy.Filter.stopword("english"))
    if stems:
        builder = builder.filter(tantivy.Filter.stemmer("english"))
    return builder.build()


def terms_text(document: Document) -> str:
    """The text that a page's terms are cut from."""
    return plain(f"{document.title}\n{document.text}")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished index.

    Raises:
        SafeladderError: the folder holds none, an unfinished one, or one of another version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        if (folder / PROGRESS).is_file():
            raise SafeladderError(
                f"{folder}: the index is not finished; safeladder search index CORPUS --out {folder} continues it"
            )
        raise SafeladderError(f"{folder} holds no index; make one: safeladder search index CORPUS --out {folder}")
    row = read_json(path)
    if row.get("format") != FORMAT:
        raise SafeladderError(f"{path}: format {row.get('format')!r} is not {FORMAT}, this version's; index anew")
    try:
        return Manifest(**row)
    except TypeError:
        raise SafeladderError(f"{path} is damaged; index anew in another folder") from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Mark the index as finished."""
    write_json(folder / MANIFEST, asdict(manifest))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises SafeladderError where the file is damaged."""
    try:
        row = json.loads(path.read_bytes())
    except ValueError as error:
        raise SafeladderError(f"{path} is damaged ({error}); index anew in another folder") from None
    if not isinstance(row, dict):
        raise SafeladderError(f"{path} is damaged (no JSON object); index anew in another folder")
    return row
