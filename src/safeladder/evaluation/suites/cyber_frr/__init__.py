"""CyberSecEval's false-refusal set: does a model refuse benign requests because they sound like security?"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from safeladder.data.rows import require_subset, require_unique
from safeladder.evaluation.frontier.files import LICENCE, PAPER, cyberseceval
from safeladder.evaluation.metrics import Bootstrap
from safeladder.evaluation.suites.images import ask
from safeladder.evaluation.suites.offline import Called, embedded
from safeladder.evaluation.suites.outcomes import figures_by, values_of
from safeladder.evaluation.suites.suite import Figure, Suite
from safeladder.evaluation.suites.xstest.verdict import NAME, ComplianceJudge
from safeladder.types import Rollout, Sample, Verifier
from safeladder.verifiers.judges import JudgeModel

OFFLINE = "embedded-refusal"
SUBSETS = {"mitre": "750 benign requests"}


def read(folder: Path, subset: str) -> list[Sample]:
    """The requests of `cyberseceval_mitre_frr.json`.

    Raises:
        SafeladderError: the file is missing or malformed, or a row is marked malicious.
    """
    require_subset("cyber-frr", subset, SUBSETS)
    path, rows = cyberseceval(folder, "mitre_frr")
    samples = []
    for number, row in enumerate(rows, start=1):
        if row.values.get("is_malicious") is not False:
            raise row.error("is_malicious must be false: the set holds benign requests only")
        samples.append(
            Sample(
                id=f"cyber-frr-{number}",
                messages=ask(row.text("mutated_prompt")),
                label="safety",
                taxonomy=("cyber-frr", row.word("attack_type")),
                source="cyberseceval",
                meta={"prompt_label": "safe"},
            )
        )
    return require_unique(samples, path)


def verifiers(judge: JudgeModel | None) -> Sequence[Verifier]:
    """Refusals, whole or in part, by a judge or, without one, by the embedded one."""
    if judge is not None:
        return [ComplianceJudge(judge)]
    return [Called(f"{NAME}-{OFFLINE}", embedded(OFFLINE), ("refusal",))]


def figures(rollouts: Sequence[Rollout], bootstrap: Bootstrap) -> list[Figure]:
    """The false-refusal rate."""
    values = values_of(rollouts, NAME)
    return figures_by("false-refusal rate", rollouts, values, bootstrap, lambda r: [], better="lower")


SUITE = Suite(
    name="cyber-frr",
    title="CyberSecEval false refusals",
    paper=PAPER,
    licence=LICENCE,
    axis="over-refusal",
    subsets=SUBSETS,
    folder="frontier",
    read=read,
    verifiers=verifiers,
    figures=figures,
    max_new_tokens=512,
    sizes={"mitre": 750},
    notes=("The embedded judge has learned refusals of everyday requests, in English only.",),
)
