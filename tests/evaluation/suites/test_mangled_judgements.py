"""A thousand mangled replies for every judge of a suite: a verdict that the reply really gives, or unreadable.

The judges that rewards share with suites have theirs in tests/verifiers/test_judge_reading.py.
"""

from __future__ import annotations

import importlib
import pkgutil
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from multimodal_rows import ScriptedJudge, answered

from safeladder.evaluation.suites.flames.judging import FlamesJudge
from safeladder.evaluation.suites.mllmguard.verdicts import HallucinationJudge, SeverityJudge
from safeladder.evaluation.suites.mm_ifeval.verdicts import Instructions
from safeladder.evaluation.suites.mssbench.verdicts import LABELS, SituationJudge
from safeladder.evaluation.suites.prompt_injection import InjectionJudge
from safeladder.evaluation.suites.registry import load_suite, suite_names
from safeladder.evaluation.suites.siuo.verdicts import EFFECTIVENESS, EffectiveJudge, SafeJudge
from safeladder.evaluation.suites.truthfulqa.judging import TruthJudge
from safeladder.evaluation.suites.xstest.verdict import ComplianceJudge
from safeladder.types import Message, Part, Rollout, Sample
from safeladder.verifiers import judges
from safeladder.verifiers.judges import Judge, JudgeReply, Unreadable
from safeladder.verifiers.judges.mmhal import GRADES, MmhalGrader

REPLIES = 1_000
SHARED = {
    "FreeKnowledgeJudge", "GeneralJudge", "HarmJudge", "HavenGrader", "HelpfulJudge", "KnowledgeJudge", "SafetyJudge",
    "ValueJudge", "VisualFocusJudge", "VlsBenchJudge",
}  # fmt: skip
"""Judges whose parsers are mangled in tests/verifiers."""


@dataclass(frozen=True)
class Form:
    """How a judge's reply is written: its labels, on a verdict line or as the whole reply."""

    judge: type[Judge]
    labels: tuple[str, ...]
    by_line: bool = True


FORMS = [
    Form(SituationJudge, tuple(LABELS)),
    Form(SafeJudge, ("safe", "unsafe")),
    Form(EffectiveJudge, tuple(EFFECTIVENESS)),
    Form(SeverityJudge, ("0", "1", "2", "3")),
    Form(HallucinationJudge, ("faithful", "hallucinated")),
    Form(MmhalGrader, tuple(GRADES)),
    Form(FlamesJudge, ("1", "2", "3"), by_line=False),
    Form(ComplianceJudge, ("complies", "refuses", "partly"), by_line=False),
    Form(InjectionJudge, ("yes", "no"), by_line=False),
]
NOISE = (
    " not ", " un", "in", " or ", "\n", ". ", "?", "!", " no, ", "I cannot help with that. ", "<think>", "</think>",
    "**", " safe ", " unsafe ", "VERDICT: ", "VERDICT: safe\n", "VERDICT: 0\n", "yes", "no", "3", "0", "-1", "1.5",
    "1/3", "`", "不", "分", "\x00", "\u202e", "Label:", " very ", " partly ", "\nWait.",
)  # fmt: skip


def mangle(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 3)):
        place, kind = rng.randint(0, len(text)), rng.randrange(6)
        if kind == 0:
            text = text[:place] + rng.choice(NOISE) + text[place:]
        elif kind == 1:
            text = text[:place]
        elif kind == 2:
            text = text[place:]
        elif kind == 3 and text:
            place = min(place, len(text) - 1)
            text = text[:place] + chr(rng.randrange(32, 127)) + text[place + 1 :]
        elif kind == 4:
            text = text + rng.choice(NOISE) + text
        else:
            text = rng.choice([str.upper, str.swapcase, lambda s: s[::-1]])(text)
    return text


def plain(text: str) -> str:
    """Words of a text; markup, case and spacing aside. Written apart from the parsers."""
    return re.sub(r"[^a-z0-9?!~\u4e00-\u9fff\x00\u202e/+-]+|(?<=\d)\.(?!\d)", " ", text.lower()).strip()


def verdicts(text: str) -> set[str]:
    """What the verdict lines of a reply say."""
    found = set()
    for line in text.rpartition("</think>")[2].splitlines():
        told = re.match(r"\W*(?:final )?verdict\s*:(.*)", line, re.IGNORECASE)
        if told is not None:
            found.add(re.sub(r"^(?:(?:label|verdict) )+", "", plain(told[1])))
    return found


def rollout() -> Rollout:
    meta = {"situation": "unsafe", "task": "privacy", "safety_warning": "it is high", "subset": "generation"}
    words = (Message(role="user", parts=(Part(text="May I?"),)),)
    return answered(Sample(id="1", messages=words, label="safety", taxonomy=("Safety",), meta=meta), "Yes.")


def concrete(base: type) -> Iterator[type]:
    for sub in base.__subclasses__():
        yield from concrete(sub)
        if not sub.__name__.startswith("_") and sub.__module__.startswith("safeladder."):
            yield sub


def test_every_judge_is_mangled_somewhere():
    for name in suite_names():
        load_suite(name)
    for module in pkgutil.iter_modules(judges.__path__):
        importlib.import_module(f"{judges.__name__}.{module.name}")
    known = {form.judge.__name__ for form in FORMS} | SHARED | {"TruthJudge"}
    assert {judge.__name__ for judge in concrete(Judge)} == known


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.judge.__name__)
def test_1000_mangled_replies_give_no_verdict_that_is_not_there(form: Form):
    rng = random.Random(f"mangled {form.judge.__name__}")
    judge, asked = form.judge(ScriptedJudge(str)), rollout()
    good = [f"It did so.\nVERDICT: {label}" if form.by_line else label for label in form.labels]
    values = {}
    for label, reply in zip(form.labels, good, strict=True):
        score = judge.verdict(asked, JudgeReply(text=reply))
        values[label] = (score.value, score.label)
    assert len(set(values.values())) == len(values)
    read = 0
    for _ in range(REPLIES):
        text = mangle(rng.choice(good), rng)
        try:
            score = judge.verdict(asked, JudgeReply(text=text))
        except Unreadable as trouble:
            assert str(trouble)
            continue
        read += 1
        (meant,) = [label for label, found in values.items() if found == (score.value, score.label)]
        if form.by_line:
            last = [line for line in text.splitlines() if plain(line)][-1]
            assert verdicts(text) == verdicts(last) == {meant}, repr(text)
        else:
            text = text.rpartition("</think>")[2]
            assert re.fullmatch(rf"(?:(?:label|verdict) )*{meant}分?(?: {meant})*", plain(text)), repr(text)
    assert 0 < read < REPLIES / 2, read


def test_1000_mangled_replies_about_truth():
    rng = random.Random("mangled truth")
    judge, asked = TruthJudge(ScriptedJudge(str)), rollout()
    words = ("yes", "no")
    good = [f"TRUTHFUL: {one}\nINFORMATIVE: {other}" for one in words for other in words]
    read = 0
    for _ in range(REPLIES):
        text = mangle(rng.choice(good), rng)
        try:
            score = judge.verdict(asked, JudgeReply(text=text))
        except Unreadable:
            continue
        read += 1
        told = re.sub(r"[?!~+/\x00\u202e-]", " ", text.rpartition("</think>")[2])
        lines = sorted(plain(line) for line in told.splitlines() if plain(line))
        answers = [words[int(not score.breakdown["informative"])], words[int(not score.value)]]
        assert lines == [f"informative {answers[0]}", f"truthful {answers[1]}"], repr(text)
    assert 0 < read < REPLIES / 2


def test_1000_mangled_replies_about_a_constraint():
    rng = random.Random("mangled constraints")
    meta: dict[str, Any] = {"constraints": [{"key": "tone", "words": "Be kind.", "checks": []}], "points": []}
    sample = Sample(
        id="1", messages=(Message(role="user", parts=(Part(text="Hm?"),)),), label="instruction", taxonomy=("C-Level",),
        meta=meta,
    )  # fmt: skip
    said: list[str] = []

    def reply(_: Any) -> str:
        said.append(mangle(f"So.\nVERDICT: {rng.choice(['met', 'not met'])}", rng))
        return said[-1]

    scores = Instructions(ScriptedJudge(reply)).score([answered(sample, "Dear you.")] * REPLIES)
    for text, score in zip(said, scores, strict=True):
        if score.value is not None:
            assert verdicts(text) == {"met" if score.value else "not met"}, repr(text)
    assert 0 < sum(score.value is not None for score in scores) < REPLIES / 2
    assert all(score.explanation for score in scores if not score.parse_ok)
