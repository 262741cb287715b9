"""Servers on loopback for the tests: ours in a thread of its own, and one that says what it is told."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from safeladder.search.extras import import_extra
from safeladder.search.retriever import Document
from safeladder.search.server import KEPT_ALIVE, listen

PAGES = [
    Document(id="1", title="Citibank", text="Citibank is a bank. It was founded in 1812 as the City Bank of New York."),
    Document(id="2", title="James Madison", text="James Madison was president of the United States from 1809 to 1817."),
    Document(id="3", title="北京大学", text="北京大学是一所位于北京的大学。"),
    Document(id="4", title='A "quoted" title', text="First line about yaks.\nSecond line."),
]


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The address of a real server of this application."""
    uvicorn = import_extra("uvicorn")
    with listen("127.0.0.1", 0, protected=False) as at:
        config = uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=5, timeout_keep_alive=KEPT_ALIVE)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [at]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.005)
            yield f"http://127.0.0.1:{at.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@dataclass
class Told:
    """What a scripted server was asked: method, path, headers in lower case and the parsed body."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any


Reply = tuple[int, bytes, dict[str, str]]


def answer(content: Any, status: int = 200, **headers: str) -> Reply:
    """A reply of JSON, or of bytes as they are."""
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return status, body, {name.replace("_", "-"): value for name, value in headers.items()}


@dataclass
class Scripted:
    """A server whose replies come from a function of the request."""

    url: str
    told: list[Told] = field(default_factory=list)


@contextlib.contextmanager
def scripted(reply: Callable[[Told], Reply | None]) -> Iterator[Scripted]:
    """Serve `reply(request)`; None closes the connection without one."""
    server: Scripted

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            size = int(self.headers.get("content-length") or 0)
            raw = self.rfile.read(size)
            told = Told(
                self.command,
                self.path,
                {name.lower(): value for name, value in self.headers.items()},
                json.loads(raw) if raw else None,
            )
            server.told.append(told)
            what = reply(told)
            if what is None:
                self.close_connection = True
                return
            status, body, headers = what
            with contextlib.suppress(OSError):
                self.send_response(status)
                for name, value in {"content-length": str(len(body)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

        do_GET = do_POST = handle_one

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        server = Scripted(f"http://127.0.0.1:{http.server_address[1]}")
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()
