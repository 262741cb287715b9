"""Samples: reading and writing them, splitting them, and curating demonstrations."""

from __future__ import annotations

from safeladder.data.curation import (
    CurationReport,
    consistency_check,
    curate,
    demonstration,
    only,
    reasoning_check,
)
from safeladder.data.samples import read_samples
from safeladder.data.splits import split_by_group
from safeladder.data.writing import write_samples

__all__ = [
    "CurationReport",
    "consistency_check",
    "curate",
    "demonstration",
    "only",
    "read_samples",
    "reasoning_check",
    "split_by_group",
    "write_samples",
]
