"""MMHal-Bench: open questions about pictures, graded for hallucination."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from safeladder.data.rows import Row, read_rows, require_subset, require_unique
from safeladder.evaluation.metrics import Bootstrap
from safeladder.evaluation.suites.images import ask, image_part
from safeladder.evaluation.suites.outcomes import figures_by, score_of, values_of
from safeladder.evaluation.suites.suite import Figure, Suite
from safeladder.types import Rollout, SafeladderError, Sample, Score, StopReason, Verifier
from safeladder.verifiers.judges import JudgeModel
from safeladder.verifiers.judges.mmhal import FAITHFUL_FROM, GRADES, MmhalGrader

SUBSETS = {"test": "96 questions on 96 pictures"}
TYPES = ("attribute", "adversarial", "comparison", "counting", "relation", "environment", "holistic", "other")
"""The published scripts take the type for the row's number modulo 8, in this order."""


def read(folder: Path, subset: str) -> list[Sample]:
    """The rows of `response_template.json`; a picture lies in `images/` under the last part of its address.

    Raises:
        SafeladderError: a malformed row, a missing picture, or a type that is not the one of the row's place.
    """
    require_subset("mmhal", subset, SUBSETS)
    path = folder / "response_template.json"
    samples = []
    for place, row in enumerate(read_rows(path)):
        kind = row.one_of("question_type", TYPES)
        if kind != TYPES[place % len(TYPES)]:
            raise row.error(
                f"question_type {kind!r} at a place of {TYPES[place % len(TYPES)]!r}: the order has changed"
            )
        samples.append(
            Sample(
                id=f"mmhal-{place}",
                messages=ask(row.text("question"), image_part(folder / "images", _file_name(row), row)),
                label="general",
                reference=row.text("gt_answer"),
                taxonomy=(kind,),
                source="mmhal",
                group_id=f"mmhal-{_file_name(row)}",
                meta={"contents": ", ".join(row.texts("image_content"))},
            )
        )
    return require_unique(samples, path)


def verifiers(judge: JudgeModel | None) -> Sequence[Verifier]:
    """The grader; no rule can tell a hallucination."""
    if judge is None:
        raise SafeladderError("mmhal has no offline judge; name a judge with --judge")
    return [MmhalGrader(judge)]


def figures(rollouts: Sequence[Rollout], bootstrap: Bootstrap) -> list[Figure]:
    """Hallucination rate, P(grade < 3), and mean grade / 6, by type; then the rate as the published script counts."""
    by_type = (bootstrap, lambda r: [r.sample.taxonomy])
    rates = values_of(rollouts, MmhalGrader.name, _hallucinated)
    grades = values_of(rollouts, MmhalGrader.name, lambda score: score.value if score.label in GRADES else None)
    published = [_as_published(rollout) for rollout in rollouts]
    return [
        *figures_by("hallucination rate", rollouts, rates, *by_type, better="lower", note="grade below 3"),
        *figures_by("grade", rollouts, grades, *by_type, note="of 6, as a share"),
        *figures_by(
            "hallucination rate (as published)", rollouts, published, bootstrap, lambda r: [], better="lower",
            note="an unread verdict is the worst grade",
        ),
    ]  # fmt: skip


def _hallucinated(score: Score) -> float | None:
    """A cut or empty answer has no grade."""
    return float(int(score.label) < FAITHFUL_FROM) if score.label in GRADES else None


def _as_published(rollout: Rollout) -> float | None:
    score = score_of(rollout, MmhalGrader.name)
    if score is None or rollout.stop_reason is StopReason.ERROR:
        return None
    return _hallucinated(score) if score.label in GRADES else 1.0


def _file_name(row: Row) -> str:
    name = PurePosixPath(urlsplit(row.word("image_src")).path).name
    if not name:
        raise row.error("image_src names no file")
    return name


SUITE = Suite(
    name="mmhal",
    title="MMHal-Bench",
    paper="Sun et al., Aligning Large Multimodal Models with Factually Augmented RLHF, 2023, arXiv 2309.14525",
    licence="see the card of the data set",
    axis="truthfulness",
    subsets=SUBSETS,
    folder="mmhal",
    hub="Shengcao1006/MMHal-Bench",
    read=read,
    verifiers=verifiers,
    figures=figures,
    max_new_tokens=512,
    sizes={"test": 96},
    notes=(
        "The published judge is GPT-4 with the authors' prompt and examples; ours has another prompt, and another "
        "judge gives other grades.",
    ),
)
