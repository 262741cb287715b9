"""`safeladder search index`, `query` and `serve`."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeladder.arguments import port, positive
from safeladder.types import SafeladderError

if TYPE_CHECKING:
    from safeladder.search.retriever import Retriever

PORT = 8765
_PLAIN_EVERY = 20.0
"""Seconds between lines of progress where the output is not a terminal."""


def add_parsers(actions: Any) -> None:
    """Add the three actions to the subparsers of `safeladder search`; each sets `run`, which takes the options."""
    index = actions.add_parser(
        "index",
        allow_abbrev=False,
        help="make an index of a corpus; the same command continues where it was stopped",
        epilog='A line of the corpus is {"id": ..., "title": ..., "text": ...}; see docs/search.md.',
    )
    index.add_argument("corpus", metavar="CORPUS.jsonl", help="one JSON object a page")
    index.add_argument("--out", required=True, metavar="DIR", help="folder of the index")
    index.set_defaults(run=run_index)

    query = actions.add_parser("query", allow_abbrev=False, help="search an index")
    query.add_argument("index", metavar="DIR", help="an index, or http://HOST:PORT of a server")
    query.add_argument("query", metavar="QUERY")
    query.add_argument("--k", type=positive, default=5, metavar="N", help="results (default: 5)")
    query.add_argument("--json", action="store_true", help="a list of {id, title, score}")
    _add_dense(query)
    query.set_defaults(run=run_query)

    serve = actions.add_parser(
        "serve",
        allow_abbrev=False,
        help="answer searches over HTTP (Search-R1's /retrieve; /search, /read, /health)",
    )
    serve.add_argument("index", metavar="DIR", help="folder of an index")
    serve.add_argument("--host", default="127.0.0.1", metavar="HOST", help="default: 127.0.0.1, this machine only")
    serve.add_argument("--port", type=port, default=PORT, metavar="N", help=f"0: any free one (default: {PORT})")
    serve.add_argument("--api-key", metavar="KEY", help="wanted of clients (better: SAFELADDER_SEARCH_KEY)")
    serve.add_argument(
        "--no-api-key", action="store_true", help="let everybody search who reaches a --host other than this machine"
    )
    serve.add_argument("--top-k", type=positive, metavar="N", help="most results of a query (default: 100)")
    serve.add_argument("--rate", type=positive, metavar="N", help="queries a second of one client (default: no limit)")
    serve.add_argument("--threads", type=positive, metavar="N", help="searches at the same time (default: one a core)")
    _add_dense(serve)
    serve.set_defaults(run=run_serve)


def run_index(options: argparse.Namespace) -> int:
    """Build the index and say what is in it; returns the exit code."""
    from safeladder.search.index import build_index

    corpus, out = Path(options.corpus), Path(options.out)
    with _Progress(corpus.name) as progress:
        manifest = build_index(corpus, out, progress=progress)
    print(f"{out}: {manifest.documents:,} pages, {manifest.mean_length:.1f} terms a page")
    return 0


def run_query(options: argparse.Namespace) -> int:
    """Search and print; returns the exit code."""
    from safeladder.search.retriever import RetrievalFault

    try:
        hits = _open(options).search(options.query, options.k)
    except RetrievalFault as fault:
        raise SafeladderError(str(fault)) from None
    if options.json:
        rows = [{"id": hit.id, "title": hit.title, "score": round(hit.score, 4)} for hit in hits]
        print(json.dumps(rows, ensure_ascii=False))
        return 0
    for rank, hit in enumerate(hits, start=1):
        print(f"{rank}. {hit.title or '(no title)'}  [{hit.id}]  {hit.score:.2f}\n   {' '.join(hit.abstract.split())}")
    if not hits:
        print("nothing found")
    return 0


def run_serve(options: argparse.Namespace) -> int:
    """Serve until interrupted; returns the exit code."""
    from safeladder.search.client import KEY_VARIABLE
    from safeladder.search.index_retriever import IndexRetriever
    from safeladder.search.server import listen, run
    from safeladder.search.service import Limits, create_app

    if options.api_key == "":  # what a variable that is not set expands to
        raise SafeladderError("--api-key: the key is empty")
    key = options.api_key or os.environ.get(KEY_VARIABLE) or None
    if key and options.no_api_key:
        raise SafeladderError(f"--no-api-key: an API key is set (--api-key or {KEY_VARIABLE})")
    chosen = {"top_k": options.top_k, "queries_a_second": options.rate, "threads": options.threads}
    limits = Limits(**{name: value for name, value in chosen.items() if value is not None})
    index = IndexRetriever(options.index)
    about = {"documents": index.manifest.documents, "corpus": index.manifest.corpus, "sha256": index.manifest.sha256}
    app = create_app(_reranked(index, options.dense), limits=limits, api_key=key, about=about)
    with listen(options.host, options.port, protected=bool(key or options.no_api_key)) as at:
        host = f"[{options.host}]" if ":" in options.host else options.host
        print(f"serving {index.manifest.documents:,} pages at http://{host}:{at.getsockname()[1]}", flush=True)
        run(app, at)
    return 0


def _open(options: argparse.Namespace) -> Retriever:
    from safeladder.search.client import open_retriever

    return _reranked(open_retriever(options.index), options.dense)


def _reranked(retriever: Retriever, encoder: str | None) -> Retriever:
    if encoder is None:
        return retriever
    from safeladder.search.dense import DenseReranker

    return DenseReranker(retriever, encoder)


def _add_dense(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dense", metavar="MODEL", help="re-rank with this text encoder (a local Hugging Face folder)")


class _Progress:
    """A bar on a terminal, a line now and then elsewhere."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._bar: Any = None
        self._task: Any = None
        self._last = time.monotonic()

    def __enter__(self) -> _Progress:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[pages]:,} pages"), console=Console(stderr=True))
            self._task = self._bar.add_task(self._name, total=None, pages=0)
            self._bar.start()
        return self

    def __call__(self, documents: int, read: int, total: int) -> None:
        if self._bar is not None:
            self._bar.update(self._task, completed=read, total=total, pages=documents)
        elif time.monotonic() - self._last > _PLAIN_EVERY:
            self._last = time.monotonic()
            print(f"{self._name}: {documents:,} pages, {100 * read / total:.0f} %", file=sys.stderr, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()
