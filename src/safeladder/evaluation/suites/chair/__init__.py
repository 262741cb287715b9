"""CHAIR: which objects does a caption name that are not in the picture?"""

from safeladder.evaluation.suites.chair.figures import figures
from safeladder.evaluation.suites.chair.reader import SUBSETS, WORLD_CAPTIONS, read
from safeladder.evaluation.suites.chair.verdicts import verifiers
from safeladder.evaluation.suites.suite import Suite

SUITE = Suite(
    name="chair",
    title="CHAIR: object hallucination in captions",
    paper="Rohrbach et al., Object Hallucination in Image Captioning, EMNLP 2018, arXiv 1809.02156",
    licence="yours to name: the pictures and object lists are your files; the world's are made here",
    axis="truthfulness",
    subsets=SUBSETS,
    folder="",
    read=read,
    verifiers=verifiers,
    figures=figures,
    max_new_tokens=512,
    sizes={"world": WORLD_CAPTIONS},
    notes=(
        "CHAIR depends on the pictures, on the token budget and on what is done with a sentence that was cut. The list "
        "of pictures has a digest in the note of the headline, the budget stands beside the figures, a cut sentence is "
        "left out: compare numbers only where all three agree.",
        "Objects are counted once a caption. A caption that names no object hallucinates none: read CHAIR beside "
        "recall and length.",
    ),
)
