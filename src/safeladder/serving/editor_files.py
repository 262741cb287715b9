"""The files of the editor page, and the routes that serve them: `/editor` and `/editor/NAME`.

The page is plain HTML, CSS and JavaScript modules; nothing is built and nothing is loaded from another host. Browsers
are told so: no inline script or style runs, no form leaves, no other page may frame this one, and text can not be made
into markup (Trusted Types).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import PurePosixPath
from typing import Any

from safeladder.search.extras import import_extra

PAGE = "index.html"
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "object-src 'none'; require-trusted-types-for 'script'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Sent with every file."""
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True)
class EditorFile:
    """One file as it is sent; `etag` names its content."""

    name: str
    content: bytes
    media_type: str
    etag: str


@cache
def editor_files() -> dict[str, EditorFile]:
    """Name to file, of everything the page is made of."""
    found = {}
    for item in sorted(resources.files("safeladder.serving").joinpath("editor").iterdir(), key=lambda item: item.name):
        media_type = _TYPES.get(PurePosixPath(item.name).suffix)
        if media_type is not None:
            content = item.read_bytes()
            etag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
            found[item.name] = EditorFile(item.name, content, media_type, etag)
    return found


def add_editor(app: Any) -> None:
    """Serve the page at `/editor` of a FastAPI application, without a key: the page asks for it and sends it along.

    The routes are not part of the application's schema.
    """
    fastapi = import_extra("fastapi", "serve")
    files = editor_files()

    async def send(request: Any) -> Any:
        file = files.get(request.path_params.get("name", PAGE))
        if file is None:
            return fastapi.Response("no such file\n", 404, HEADERS, "text/plain")
        headers = {**HEADERS, "ETag": file.etag}
        if request.headers.get("if-none-match") == file.etag:
            return fastapi.Response(status_code=304, headers=headers)
        return fastapi.Response(file.content, 200, headers, file.media_type)

    for path in ("/editor", "/editor/{name}"):
        app.add_route(path, send, methods=["GET"], include_in_schema=False)
