"""Shared by all tests: quiet, offline, one thread, and where real data lies."""

from __future__ import annotations

import os
from pathlib import Path

# Before torch and transformers are imported anywhere.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parents[1]

settings.register_profile("safeladder", deadline=None, max_examples=50, derandomize=bool(os.environ.get("CI")))
settings.load_profile("safeladder")


@pytest.fixture(scope="session")
def project() -> Path:
    """The project's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of public benchmark rows; the test is skipped where it is absent."""
    folder = Path(os.environ.get("SAFELADDER_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("no real data: set SAFELADDER_DATA to a folder of public benchmark rows")
    return folder
