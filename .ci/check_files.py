"""Refuses large files, credentials and paths of somebody's machine. `check_files.py FILE...`"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from pathlib import Path

MAX_BYTES = 500_000
# Parts are joined so that this file does not find itself.
FORBIDDEN = {
    "private key": r"-----BEGIN [A-Z ]*PRIVATE" + " KEY-----",
    "AWS key": r"\bAKIA[0-9A-Z]{16}\b",
    "GitHub token": r"\bgh[pousr]_[A-Za-z0-9]{36}\b",
    "Hugging Face token": r"\bhf_[A-Za-z0-9]{30,}\b",
    "OpenAI or Anthropic key": r"\bsk-[A-Za-z0-9_-]{20,}",
    "key or password": r"(?i)(?:api_?key|secret|passwd|password|token)['\"]?\s*[:=]\s*['\"][\w\-]{16,}['\"]",
    "W&B key": r"(?i)wandb.{0,40}\b[0-9a-f]{40}\b",
    "machine path": r"(?<![\w.$}~-])/(?:home|root|work|farm|mnt|Users|scratch|cpfs|tmp)/[\w.-]+",
    "private address": r"\b(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d{1,3}){2,3}\b",
    "package index": r"(?i)(?:--(?:extra-)?index-url|--find-links)\s+\S",
}


def problems(files: Iterable[Path]) -> list[str]:
    """`FILE:LINE: what` for everything refused."""
    found = []
    for file in files:
        if file.stat().st_size > MAX_BYTES:
            found.append(f"{file}: larger than {MAX_BYTES // 1000} KB")
            continue
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue  # a picture
        for number, line in enumerate(lines, 1):
            found += [f"{file}:{number}: {what}" for what, rule in FORBIDDEN.items() if re.search(rule, line)]
    return found


if __name__ == "__main__":
    refused = problems(Path(name) for name in sys.argv[1:])
    print("\n".join(refused))
    sys.exit(bool(refused))
