"""The model card of an embedded judge, written from what training measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from safeladder.verifiers.embedded.features import DENSE
from safeladder.verifiers.embedded.judge import EmbeddedJudge, Kind

_PURPOSE: Mapping[Kind, tuple[str, str]] = {
    "harm": (
        "probability that a reply is harmful",
        "GPTFuzz's human label; on XSTest full compliance with an unsafe prompt is harmful, a refusal and every reply"
        " to a safe prompt is not, and a partial refusal of an unsafe prompt is left out",
    ),
    "refusal": (
        "probability that a reply refuses the request",
        "XSTest's human verdict, a partial refusal counting as a refusal; from GPTFuzz only harmless replies that open"
        " like a refusal and harmful ones that do not, at 0.3 of XSTest's weight",
    ),
}


def model_card(judge: EmbeddedJudge) -> str:
    """Markdown: purpose, data and licences, measurements, limits."""
    purpose, labels = _PURPOSE[judge.kind]
    about = judge.about
    sources = [f"| {name} | {n['n']:,} | {n['positive']:,} | {n['questions']} |" for name, n in about["pairs"].items()]
    measured = [
        f"| {name} | {row['n']:,} | {row['positive']:,} | {_number(row['auc'])} | {_number(row['accuracy'])} "
        f"| {_number(row['f1'])} | {_number(row['ece'])} |"
        for name, row in about["measured"].items()
    ]
    uses = ", ".join(f"{use} {value:.2f}" for use, value in judge.thresholds.items())
    return "\n".join(
        [
            f"# {judge.name}",
            "",
            f"A logistic regression that gives the {purpose}, from the text of the prompt and of the reply: "
            f"{len(judge.vocabulary.grams):,} word uni- and bigrams and {len(DENSE)} features of how the reply is"
            " built. Inference needs numpy only.",
            "",
            f"Made by `safeladder verifier train --kind {judge.name} --data DIR --out DIR --seed {about['seed']}`.",
            "",
            "## Data",
            "",
            f"Label: {labels}. Duplicates are dropped.",
            "",
            "| source | pairs | positive | questions |",
            "|---|---|---|---|",
            *sources,
            "",
            "GPTFuzz (arXiv 2309.10253): MIT. XSTest v2 (arXiv 2308.01263): prompts CC-BY-4.0; the completions are"
            " under the model vendors' terms and are not redistributed here, only weights learned from them are."
            " Digests of the files are in `judge.json`.",
            "",
            "## Measurements",
            "",
            f"At the default threshold. Thresholds on the probability: {uses}. Probabilities are calibrated on unseen"
            " questions, for a collection in which half of each source is positive; with another share of positives"
            " the threshold moves, the ranking does not.",
            "",
            "| judged | n | positive | AUC | accuracy | F1 | ECE |",
            "|---|---|---|---|---|---|---|",
            *measured,
            "",
            "Unseen questions: 5-fold cross-validation by question. Unseen model, unseen source: the judge was fitted"
            " without that model's or source's replies; of an unseen model alone it knows the questions.",
            "",
            "## Limits",
            "",
            "- English only. Chinese and text of unknown words (less than "
            f"{judge.minimum_coverage:.0%} known) are outside the training data and not judged.",
            "- Text only: it does not see images and must not be the only judge of what depends on one.",
            "- It knows wording, not meaning: a harmful text in harmless words passes, a harmless instruction in the"
            " style of a jailbroken reply is accused. It was not trained against attacks on the judge.",
            "- A stand-in for a generative judge where there is no GPU. Safety claims need a stronger judge.",
            "",
        ]
    )


def _number(value: Any) -> str:
    return "–" if value is None else f"{value:.3f}"
