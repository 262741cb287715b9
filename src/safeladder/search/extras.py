"""The packages of the `search` extra, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any

from safeladder.types import SafeladderError


def import_extra(name: str, extra: str = "search") -> Any:
    """An optional package. Raises SafeladderError, naming the extra, where it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        raise SafeladderError(f"{name} is not installed: pip install 'safeladder[{extra}]'") from None
