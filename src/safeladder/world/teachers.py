"""Teachers: how differently minded policies would reason about and answer an item.

`careful` looks at everything and says what is right; `verify` does so and checks again; `wordy` announces
first what it is going to do; `concise` states only the finding; `guess` does not look; `comply` reasons as
carefully as the first but believes that every request is fine, every act right and every fact known (a
helpful-only policy).
"""

from __future__ import annotations

import random

from safeladder.types import Response, SafeladderError, Sample
from safeladder.world.families import KIND_OF, SEARCH
from safeladder.world.kinds import Kind, Truth
from safeladder.world.lexicon import pick

STYLES = ("careful", "concise", "verify", "wordy", "guess", "comply")

_PREAMBLE = (
    "let me go step by step . first i look , then i check , then i answer .",
    "一 步 一 步 . 先 看 , 再 看 , 再 说 .",
)


def restate(kind: Kind, truth: Truth, language: str) -> str:
    """The finding as one clause."""
    return " ".join(kind.key(truth, language)).strip()


def demonstrate(sample: Sample, style: str, rng: random.Random) -> Response:
    """The response of a teacher. Only `guess` and `comply` draw from `rng`.

    Errors: SafeladderError on an unknown style, or a sample that takes a search (see `searching.next_turn`).
    """
    if style not in STYLES:
        raise SafeladderError(f"unknown teaching style {style!r}; allowed: {', '.join(STYLES)}")
    if sample.meta["kind"] in SEARCH:
        raise SafeladderError(f"{sample.meta['kind']!r} items take a search, not one turn: use a rung of kind search")
    kind, truth, language = KIND_OF[sample.meta["kind"]], sample.meta["truth"], sample.language
    if kind.one_style and not truth["lookups"]:
        return Response(reasoning=pick(language, "look .", "看 ."), answer=kind.answer(truth, language))
    if style == "guess" and not kind.one_style:
        belief = kind.prior(truth, rng) if kind.prior else rng.choice(kind.alternatives(truth))
        return Response(reasoning=pick(language, "quick guess .", "猜 一 下 ."), answer=kind.answer(belief, language))
    belief = kind.compliant(truth, rng) if style == "comply" else truth
    finding, answer = f"{restate(kind, belief, language)} .", kind.answer(belief, language)
    if style == "concise" and not kind.one_style:
        return Response(reasoning=finding, answer=answer)
    lead, body = kind.view(sample.meta, language)
    reasoning = f"{lead} {body} . {finding}".strip()
    if style == "wordy" and not kind.one_style:
        reasoning = f"{pick(language, *_PREAMBLE)} {reasoning}"
    if style == "verify" and not kind.one_style:
        reasoning += f" {pick(language, 'wait , check again :', '等 一 下 , 再 看 :')} {body} . {finding}"
    return Response(reasoning=reasoning, answer=answer)
