"""MathVista: mathematical reasoning about pictures."""

from safeladder.evaluation.suites.answers import accuracy_figures
from safeladder.evaluation.suites.mathvista.reader import SUBSETS, read
from safeladder.evaluation.suites.mathvista.verdicts import NAME, verifiers
from safeladder.evaluation.suites.suite import Suite
from safeladder.types import Rollout


def _groups(rollout: Rollout) -> list[tuple[str, ...]]:
    category, task = rollout.sample.taxonomy
    return [("category", category), ("task", task)]


SUITE = Suite(
    name="mathvista",
    title="MathVista: mathematical reasoning in visual contexts",
    paper="Lu et al., MathVista, ICLR 2024, arXiv 2310.02255",
    licence="CC-BY-SA-4.0",
    axis="capability",
    subsets=SUBSETS,
    folder="mathvista",
    hub="AI4Math/MathVista",
    read=read,
    verifiers=verifiers,
    figures=lambda rollouts, bootstrap: accuracy_figures(rollouts, NAME, bootstrap, _groups),
    max_new_tokens=2048,
    notes=("The paper has GPT-4 extract the answer; here it is read by rule, and an unread reply is wrong.",),
    sizes={"testmini": 1000},
)
