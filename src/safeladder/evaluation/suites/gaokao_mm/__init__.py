"""GAOKAO-MM: questions with pictures from the Chinese college entrance examination."""

from safeladder.evaluation.suites.gaokao_mm.figures import figures
from safeladder.evaluation.suites.gaokao_mm.reader import SUBSETS, read
from safeladder.evaluation.suites.gaokao_mm.verdicts import verifiers
from safeladder.evaluation.suites.suite import Suite

SUITE = Suite(
    name="gaokao-mm",
    title="GAOKAO-MM: a Chinese human-level benchmark for multimodal models",
    paper="Zong and Qiu, GAOKAO-MM, Findings of ACL 2024, arXiv 2402.15745",
    licence="as stated by its repository: read from your own copy",
    axis="capability",
    subsets=SUBSETS,
    folder="gaokao_mm",
    read=read,
    verifiers=verifiers,
    figures=figures,
    max_new_tokens=2048,
    notes=(
        "In physics and Chinese several letters may be right; a part of them without a wrong one earns half a point. "
        "The published script gives it only where those letters stand side by side in the key (AB or BD of ABD, not "
        "AD), and reads no letter after D.",
    ),
    sizes={"all": 646},
)
