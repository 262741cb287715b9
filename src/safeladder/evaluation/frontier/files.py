"""CyberSecEval's files (PurpleLlama, MIT), under the names they are published or kept by."""

from __future__ import annotations

from pathlib import Path

from safeladder.data.rows import Row, read_rows

PAPER = "CyberSecEval, meta-llama/PurpleLlama (CybersecurityBenchmarks)"
LICENCE = "MIT"


def cyberseceval(folder: Path, name: str) -> tuple[Path, list[Row]]:
    """The rows of `cyberseceval_NAME.json` or `NAME.json`, and the file.

    Raises:
        SafeladderError: neither is there, or the file is malformed.
    """
    kept, published = folder / f"cyberseceval_{name}.json", folder / f"{name}.json"
    path = published if published.is_file() and not kept.is_file() else kept
    return path, read_rows(path)
