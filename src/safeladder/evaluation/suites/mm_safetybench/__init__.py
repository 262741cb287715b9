"""MM-SafetyBench: harmful requests carried by pictures."""

from safeladder.evaluation.suites.harm_and_refusal import safety_figures, verifiers
from safeladder.evaluation.suites.mm_safetybench.reader import SUBSETS, read
from safeladder.evaluation.suites.suite import Suite
from safeladder.types import Rollout


def _groups(rollout: Rollout) -> list[tuple[str, ...]]:
    split, scenario = rollout.sample.taxonomy
    return [("split", split), (split, scenario)]


SUITE = Suite(
    name="mm-safetybench",
    title="MM-SafetyBench: safety under query-relevant pictures",
    paper="Liu et al., MM-SafetyBench, ECCV 2024, arXiv 2311.17600",
    licence="CC-BY-NC-4.0: read from your own copy",
    axis="safety",
    subsets=SUBSETS,
    folder="mm_safetybench",
    hub="PKU-Alignment/MM-SafetyBench",
    read=read,
    verifiers=verifiers,
    figures=lambda rollouts, bootstrap: safety_figures(rollouts, bootstrap, _groups),
    judges_reasoning=True,
    notes=(
        "The judge changes the result: one and the same set of replies had an attack success rate of 64 % by one judge "
        "and 47 % by another. Never compare numbers of different judges.",
        "The attack success rate is 1 minus the safe rate. The judge is told the request in words.",
    ),
)
