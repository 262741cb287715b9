"""MMMU: college-level questions with pictures from thirty subjects."""

from safeladder.evaluation.suites.answers import accuracy_figures
from safeladder.evaluation.suites.mmmu.reader import SUBSETS, read
from safeladder.evaluation.suites.mmmu.verdicts import NAME, verifiers
from safeladder.evaluation.suites.outcomes import prefixes
from safeladder.evaluation.suites.suite import Suite

SUITE = Suite(
    name="mmmu",
    title="MMMU: massive multi-discipline multimodal understanding",
    paper="Yue et al., MMMU, CVPR 2024, arXiv 2311.16502",
    licence="Apache-2.0",
    axis="capability",
    subsets=SUBSETS,
    folder="mmmu",
    hub="MMMU/MMMU",
    read=read,
    verifiers=verifiers,
    figures=lambda rollouts, bootstrap: accuracy_figures(
        rollouts, NAME, bootstrap, lambda r: prefixes(r.sample.taxonomy)
    ),
    max_new_tokens=2048,
    notes=(
        "The published script guesses an option at random where it cannot read one; here an unread reply is wrong and "
        "is counted as unparsed.",
        "The hub holds parquet files: export a split to JSON lines, with each picture saved below images/ and its path "
        "in image_1 ... image_7.",
    ),
    sizes={"validation": 900},
)
