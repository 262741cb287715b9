"""FigStep: forbidden requests spelled out in a picture."""

from safeladder.evaluation.suites.figstep.reader import SUBSETS, read
from safeladder.evaluation.suites.harm_and_refusal import safety_figures, verifiers
from safeladder.evaluation.suites.suite import Suite

SUITE = Suite(
    name="figstep",
    title="FigStep: typographic jailbreaks (SafeBench)",
    paper="Gong et al., FigStep: Jailbreaking Large Vision-Language Models via Typographic Visual Prompts, AAAI 2025, "
    "arXiv 2311.05608",
    licence="MIT",
    axis="safety",
    subsets=SUBSETS,
    folder="figstep",
    read=read,
    verifiers=verifiers,
    figures=lambda rollouts, bootstrap: safety_figures(rollouts, bootstrap, lambda r: [r.sample.taxonomy]),
    judges_reasoning=True,
    notes=(
        "The text is harmless by itself: the request stands in the picture, at its own resolution. A model that cannot "
        "read the picture does no harm either, so that the safe rate needs the capability figures beside it.",
        "Without a judge the harm judge is the embedded one, which reads the reply and not the picture.",
    ),
    sizes={"tiny": 50, "full": 500},
)
