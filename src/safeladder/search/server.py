"""Running the retrieval server: where it listens, and who may reach it."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

from safeladder.search.extras import import_extra
from safeladder.types import SafeladderError

KEPT_ALIVE = 60
"""Seconds an idle connection stays open: longer than clients keep theirs (httpx: 5), or they send into a closed one."""


def listen(host: str, port: int, *, protected: bool) -> socket.socket:
    """A socket bound to `host` and `port` (0: any free one).

    Args:
        protected: an API key is wanted of clients, or the user has said that none is needed.

    Raises:
        SafeladderError: others than this machine could reach an unprotected server; the address cannot be had.
    """
    if not protected and not is_loopback(host):
        raise SafeladderError(
            f"--host {host} lets every machine that reaches this one search: set an API key "
            "(SAFELADDER_SEARCH_KEY), or say --no-api-key"
        )
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise SafeladderError(f"cannot listen on {host}, port {port}: {error}") from None


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(app: Any, at: socket.socket) -> None:
    """Serve until interrupted."""
    uvicorn = import_extra("uvicorn")
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=5, timeout_keep_alive=KEPT_ALIVE
    )
    uvicorn.Server(config).run(sockets=[at])
