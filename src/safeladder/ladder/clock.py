"""How long a run has taken, over all its sessions."""

from __future__ import annotations

import json
import time
from pathlib import Path

from safeladder.atomic import write_text


class Clock:
    """Adds up seconds in a file, so that a run that was broken off and resumed counts all of its time.

    What a session did after its last `keep` is lost with it, as its work is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: float = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else 0.0
        """Seconds up to the last `keep`, of this session and all before it."""
        self._since = time.perf_counter()

    def keep(self) -> None:
        """Count the time since the last call, or since this session began."""
        now = time.perf_counter()
        self.kept += now - self._since
        self._since = now
        write_text(self.path, json.dumps(self.kept))
