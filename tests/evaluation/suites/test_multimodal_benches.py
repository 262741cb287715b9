"""Every multimodal suite as the runner uses it: read, judged with and without a judge, measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from multimodal_layouts import LAYOUTS, Layout, build
from multimodal_rows import FEW, ScriptedJudge, answered

from safeladder.evaluation.suites.bench import prepare
from safeladder.evaluation.suites.registry import load_suite, suite_names
from safeladder.types import Rollout, SafeladderError, StopReason

VERDICTS = ("refuse", "faithful", "warns", "very effective", "not met", "correct", "safe", "0", "4")
"""One of these each judge understands; the scripted judge gives the one that it is asked for."""


def verdict(asked: str) -> str:
    if 'Write "safe" or "unsafe" on the first line' in asked:
        return "safe"
    return next(f"So.\nVERDICT: {word}" for word in VERDICTS if f"VERDICT: {word}" in asked)


def replies(samples: list, *, reasoning: str | None = None) -> list[Rollout]:
    """A reply each; the last was cut, the one before it failed."""
    stops = {len(samples) - 1: StopReason.LENGTH, len(samples) - 2: StopReason.ERROR}
    return [
        answered(s, "The answer is B.", stop=stops.get(i, StopReason.EOS), reasoning=reasoning)
        for i, s in enumerate(samples)
    ]


@pytest.mark.parametrize("sees", [True, False, None], ids=["seeing judge", "text judge", "offline"])
@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.suite)
def test_a_suite_from_files_to_figures(layout: Layout, sees: bool | None, tmp_path: Path):
    suite = load_suite(layout.suite)
    build(layout, tmp_path / suite.folder)
    judge = None if sees is None else ScriptedJudge(verdict, sees_images=sees)
    if layout.suite == "mmhal" and judge is None:
        with pytest.raises(SafeladderError, match="no offline judge"):
            prepare(suite, layout.subset, tmp_path, judge, bootstrap=FEW)
        return
    bench = prepare(suite, layout.subset, tmp_path, judge, bootstrap=FEW)
    samples = list(bench.samples.values())
    judged = bench.judge_rollouts(replies(samples, reasoning="hm"))
    figures = bench.measure(judged)  # complains where two figures have one name and group
    for verifier in bench.verifiers:
        failed, cut = (judged[i].scores[verifier.name] for i in (-2, -1))
        assert not failed.parse_ok and not cut.value, "no reply, or half of one, is never a pass"
    for figure in figures:
        metric = figure.metric
        assert metric is None or metric.low <= metric.value <= metric.high
        assert metric is None or metric.n > 0
        assert figure.outcomes is None or set(figure.outcomes) <= set(bench.samples)
    # Privacy is a matter for a judge: without one MLLMGuard has nothing to say about it.
    measurable = not (layout.suite == "mllmguard" and sees is None)
    assert any(figure.metric is not None for figure in figures) is measurable
    assert any(not figure.group for figure in figures) and suite.notes and suite.paper and suite.licence


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.suite)
def test_H15_where_every_generation_failed_nothing_is_assessed(layout: Layout, tmp_path: Path):
    suite = load_suite(layout.suite)
    build(layout, tmp_path / suite.folder)
    bench = prepare(suite, layout.subset, tmp_path, ScriptedJudge(verdict), bootstrap=FEW)
    failed = [answered(s, "", stop=StopReason.ERROR) for s in bench.samples.values()]
    figures = [f for f in bench.measure(bench.judge_rollouts(failed)) if f.name != "truncated"]
    assert figures and all(figure.metric is None for figure in figures)


def test_every_suite_has_a_layout_here():
    ours = {layout.suite for layout in LAYOUTS}
    assert ours <= set(suite_names()) and len(ours) == 16
