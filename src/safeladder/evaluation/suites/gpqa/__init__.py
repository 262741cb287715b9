"""GPQA (arXiv 2311.12022): graduate-level questions in biology, physics and chemistry, four options each."""

from __future__ import annotations

from collections.abc import Sequence

from safeladder.evaluation.metrics import Bootstrap
from safeladder.evaluation.suites.answers import ReadAnswer, accuracy_figures, same_as_reference
from safeladder.evaluation.suites.gpqa.reader import SUBSETS, read
from safeladder.evaluation.suites.outcomes import prefixes
from safeladder.evaluation.suites.suite import Figure, Suite
from safeladder.types import Rollout, Sample, Verifier
from safeladder.verifiers.choices import chosen, letters_for
from safeladder.verifiers.judges import JudgeModel

VERIFIER = "gpqa-letter"


def verifiers(judge: JudgeModel | None) -> Sequence[Verifier]:
    """The letter by rule; a judge is never asked."""
    return [ReadAnswer(VERIFIER, _letter, same_as_reference)]


def figures(rollouts: Sequence[Rollout], bootstrap: Bootstrap) -> list[Figure]:
    """Accuracy by domain and subdomain; an unread answer is wrong, and counted."""
    return accuracy_figures(rollouts, VERIFIER, bootstrap, lambda r: prefixes(r.sample.taxonomy))


def _letter(sample: Sample, answer: str) -> str | None:
    options = sample.meta["options"]
    return chosen(answer, letters_for(len(options)), options)


SUITE = Suite(
    name="gpqa",
    title="GPQA",
    paper="Rein et al., GPQA: A Graduate-Level Google-Proof Q&A Benchmark, 2023, arXiv 2311.12022",
    licence="CC-BY-4.0",
    axis="capability",
    subsets=SUBSETS,
    folder="gpqa",
    hub="Idavidrein/gpqa",
    read=read,
    verifiers=verifiers,
    figures=figures,
    max_new_tokens=4096,
    sizes={"diamond": 198, "main": 448, "extended": 546},
    notes=("options are shuffled by a fixed seed and the record's id; chance is 25 %",),
)
