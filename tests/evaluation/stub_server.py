"""A live OpenAI-compatible endpoint on loopback whose replies are a function of the request."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = Callable[[dict[str, Any]], "str | int | dict[str, Any]"]


class Stub:
    """What was asked, and where: `requests` in order of arrival."""

    def __init__(self, answer: Answer, model: str) -> None:
        self.requests: list[dict[str, Any]] = []
        self.url = ""
        self.answer, self.model = answer, model

    @property
    def questions(self) -> list[str]:
        return [question_of(request) for request in self.requests]


def question_of(request: dict[str, Any]) -> str:
    content = request["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def choice(text: str, finish: str | None = "stop", **message: Any) -> dict[str, Any]:
    """A whole reply; `message` holds further fields such as reasoning_content."""
    return {
        "choices": [
            {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text, **message}}
        ],
        "usage": {
            "prompt_tokens": 3,
            "completion_tokens": (said := max(1, len(text.split()))),
            "total_tokens": 3 + said,
        },
    }


@contextmanager
def serving(answer: Answer, model: str = "stub-model") -> Iterator[Stub]:
    """Serve until the block ends. `answer` gives a text, a status code, or a whole reply."""
    stub = Stub(answer, model)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._send(200, {"object": "list", "data": [{"id": model, "object": "model"}]})

        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            stub.requests.append(request)
            found = stub.answer(request)
            if isinstance(found, int):
                self._send(found, {"error": {"message": "no"}})
            else:
                body = choice(found) if isinstance(found, str) else found
                self._send(200, {"id": "x", "object": "chat.completion", "model": request["model"], **body})

        def _send(self, status: int, body: dict[str, Any]) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    stub.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield stub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
