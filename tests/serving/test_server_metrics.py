"""What scrapers read."""

from __future__ import annotations

import threading

import pytest

from safeladder.serving.metrics import SECONDS, Metrics


def test_the_text_is_prometheus_text():
    metrics = Metrics()
    metrics.counter("asked_total", "Requests")
    metrics.histogram("took_seconds", "Time")
    metrics.gauge("busy", "Now", lambda: 3)
    metrics.count("asked_total", status="200", path='a"b\\c')
    metrics.count("asked_total", 2, status="200", path='a"b\\c')
    metrics.count("asked_total", status="400", path="x")
    lines = metrics.render().splitlines()
    assert lines[:4] == [
        "# HELP asked_total Requests",
        "# TYPE asked_total counter",
        r'asked_total{path="a\"b\\c",status="200"} 3',
        'asked_total{path="x",status="400"} 1',
    ]
    assert lines[-1] == "busy 3"
    assert metrics.render().endswith("\n")


def test_buckets_are_cumulative_and_a_bound_counts_itself():
    metrics = Metrics()
    metrics.histogram("took_seconds", "Time")
    for seconds in (0.01, 0.02, 0.02, 1000.0):
        metrics.observe("took_seconds", seconds)
    lines = metrics.render().splitlines()[2:]
    # 0.01 is in the bucket of 0.01; two of 0.02 in that of 0.025; 1000 in +Inf only.
    assert lines[0] == 'took_seconds_bucket{le="0.01"} 1'
    assert lines[1] == 'took_seconds_bucket{le="0.025"} 3'
    assert lines[len(SECONDS) - 1] == 'took_seconds_bucket{le="300.0"} 3'
    assert lines[len(SECONDS)] == 'took_seconds_bucket{le="+Inf"} 4'
    assert lines[-2:] == ["took_seconds_sum 1000.05", "took_seconds_count 4"]


def test_threads_lose_no_count_and_undeclared_names_are_errors():
    metrics = Metrics()
    metrics.counter("n_total", "N")
    threads = [threading.Thread(target=lambda: [metrics.count("n_total") for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "n_total 2000" in metrics.render()
    with pytest.raises(KeyError):
        metrics.count("other_total")
