"""What the server counts, as Prometheus text (exposition format 0.0.4). Counters and histograms start at zero."""

from __future__ import annotations

import bisect
import threading
from collections.abc import Callable, Sequence

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds of a histogram's buckets; one more takes the rest."""

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """Counters, histograms and gauges by name and labels. Any thread may count.

    Every name is declared first, with the help line that scrapers show; an undeclared one is a KeyError.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._help: dict[str, tuple[str, str]] = {}
        self._counters: dict[str, dict[Labels, float]] = {}
        self._histograms: dict[str, dict[Labels, list[float]]] = {}
        self._gauges: dict[str, Callable[[], float]] = {}

    def counter(self, name: str, about: str) -> None:
        """Declare a number that only grows."""
        self._help[name] = ("counter", about)
        self._counters[name] = {}

    def histogram(self, name: str, about: str) -> None:
        """Declare durations in seconds."""
        self._help[name] = ("histogram", about)
        self._histograms[name] = {}

    def gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """Declare a number that is read when it is asked for."""
        self._help[name] = ("gauge", about)
        self._gauges[name] = read

    def count(self, name: str, by: float = 1, **labels: str) -> None:
        """Add to a counter."""
        key = tuple(sorted(labels.items()))
        with self._lock:
            rows = self._counters[name]
            rows[key] = rows.get(key, 0) + by

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """Add one duration to a histogram."""
        key = tuple(sorted(labels.items()))
        with self._lock:
            row = self._histograms[name].setdefault(key, [0.0] * (len(SECONDS) + 2))
            row[bisect.bisect_left(SECONDS, seconds)] += 1
            row[-1] += seconds

    def render(self) -> str:
        """The text that a scraper reads."""
        with self._lock:
            counters = {name: dict(rows) for name, rows in self._counters.items()}
            histograms = {
                name: {key: list(row) for key, row in rows.items()} for name, rows in self._histograms.items()
            }
        lines: list[str] = []
        for name, (kind, about) in self._help.items():
            lines += [f"# HELP {name} {about}", f"# TYPE {name} {kind}"]
            if kind == "counter":
                lines += [f"{name}{_labels(key)} {_number(n)}" for key, n in sorted(counters[name].items())]
            elif kind == "gauge":
                lines.append(f"{name} {_number(self._gauges[name]())}")
            else:
                for key, row in sorted(histograms[name].items()):
                    lines += _histogram(name, key, row)
        return "\n".join(lines) + "\n"


def _histogram(name: str, key: Labels, row: Sequence[float]) -> list[str]:
    """Buckets are cumulative: each counts all durations up to its bound."""
    lines, so_far = [], 0.0
    for bound, n in zip((*map(str, SECONDS), "+Inf"), row, strict=False):
        so_far += n
        lines.append(f"{name}_bucket{_labels((*key, ('le', bound)))} {_number(so_far)}")
    return [*lines, f"{name}_sum{_labels(key)} {_number(row[-1])}", f"{name}_count{_labels(key)} {_number(so_far)}"]


def _labels(key: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in key) + "}" if key else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
