"""Choosing each principle's thresholds by guided replies to training prompts that no value model learned from.

One threshold after the other, each from a short list: δ, then κ, γ and τ. A principle takes the value under which most
replies to its prompts are accepted, of those under which it does not refuse more that is harmless than the policy does
by itself; of equals that which interferes least. Where all of that gains nothing, the policy is left alone.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from safeladder.rollout.parse import ResponseFormat
from safeladder.steering.baselines import plain
from safeladder.steering.guidance import Thresholds
from safeladder.steering.guided import GuidedDecoder
from safeladder.steering.values import Judgement, principle_of
from safeladder.types import Completion, Rollout, SafeladderError, Sample, SamplingParams

LISTS = (
    ("margin", (1.0, 0.3, 0.15, 0.0)),
    ("enough", (0.0, 0.15, 0.3, 0.5, 0.7, 1.0)),
    ("gamma", (3.0, 1.0, 0.3)),
    ("floor", (0.0, 0.15, 0.3, 0.5)),
)
"""What is tried, in this order, that which interferes least first."""
START = Thresholds(gamma=1.0, enough=0.3, floor=0.3, margin=1.0)
"""Full guidance without proposed steps: each threshold is judged where the others do not stand in its way."""
ALONE = Thresholds(gamma=3.0, enough=0.0, floor=0.0, margin=1.0)
"""Greedy decoding."""
_BATCH = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Of replies: what became of each, in order (`+` accepted, `-` not, `?` unscored), how many were needless refusals,
    and how many tokens were generated for them."""

    replies: str
    needless: int
    tokens: int

    @property
    def prompts(self) -> int:
        return len(self.replies)

    @property
    def accepted(self) -> int:
        return self.replies.count("+")

    @property
    def unscored(self) -> int:
        return self.replies.count("?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run over the prompts of some principles under their thresholds (None: greedy decoding without guidance)."""

    principles: tuple[str, ...]
    thresholds: Thresholds | None
    outcomes: Tally

    def counts(self) -> dict[str, Any]:
        """For a model card: everything but what became of each single reply."""
        found = self.outcomes
        return {
            "principles": self.principles,
            "thresholds": None if self.thresholds is None else asdict(self.thresholds),
            "prompts": found.prompts,
            "accepted": found.accepted,
            "needless": found.needless,
            "unscored": found.unscored,
            "tokens": found.tokens,
        }


Judge = Callable[[Sequence[Rollout]], list[Judgement]]


def choose(
    decoder: GuidedDecoder,
    samples: Sequence[Sample],
    judge: Judge,
    params: SamplingParams,
    file: Path,
    *,
    seed: int,
    together: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[dict[str, Thresholds], list[Trial]]:
    """The thresholds by principle, and every run that was made. A principle without prompts keeps the defaults.

    Runs are appended to `file` as they are made; those that it holds are not made again.

    Args:
        decoder: its config's thresholds are replaced by the chosen ones.
        together: choose one threshold for all principles, by all prompts: for routing that does not tell them apart.

    Raises:
        SafeladderError: the file is damaged.
    """
    made, trials = _read(file), list[Trial]()
    groups = [[name] for name in dict.fromkeys(principle_of(s.label) for s in samples)]
    groups = [[name for group in groups for name in group]] if together else groups

    def run(group: Sequence[str], own: Thresholds | None) -> Tally:
        """Outcomes of a group's prompts; no run is made twice."""
        known = next((t for t in trials if (t.principles, t.thresholds) == (tuple(group), own)), None)
        if known is None:
            known = next((t for t in made if (t.principles, t.thresholds) == (tuple(group), own)), None)
            if known is None:
                asked = [s for s in samples if principle_of(s.label) in group]
                found = _outcomes(decoder, asked, judge, params, own, seed)
                known = Trial(principles=tuple(group), thresholds=own, outcomes=found)
                _append(file, known)
            trials.append(known)
            found = known.outcomes
            say(f"{' '.join(group)}, {own or 'no guidance'}: {found.accepted} of {found.prompts} accepted")
        return known.outcomes

    chosen: dict[str, Thresholds] = {}
    for group in groups:
        alone, own = run(group, None), START
        for threshold, values in LISTS:
            options = [replace(own, **{threshold: value}) for value in values]
            own = best({option: run(group, option) for option in options}, alone)
        if not gains(run(group, own), alone):
            own = ALONE
        chosen.update(dict.fromkeys(group, own))
    decoder.config = replace(decoder.config, thresholds=chosen)
    return chosen, trials


def best(tried: Mapping[Thresholds, Tally], alone: Tally) -> Thresholds:
    """The one with most accepted replies, the first of equals, among those with few needless refusals; where there are
    none, the first with the fewest. Few is, where refusals may be proposed, no more than of the policy `alone`, and one
    more where all steps are the policy's own: a single reply is no evidence."""
    fine = {own: tally for own, tally in tried.items() if tally.needless <= alone.needless + (own.margin >= 1)}
    if not fine:
        return min(tried, key=lambda own: tried[own].needless)
    return max(fine, key=lambda own: fine[own].accepted)


def gains(guided: Tally, alone: Tally) -> bool:
    """Whether guided replies are accepted more often by more than one standard error of the difference, as in McNemar's
    test: the root of how many prompts only one of the two has right. A single reply is never enough."""
    differing = sum((a == "+") != (b == "+") for a, b in zip(guided.replies, alone.replies, strict=True))
    return guided.accepted - alone.accepted > math.sqrt(differing)


def _outcomes(
    decoder: GuidedDecoder,
    samples: Sequence[Sample],
    judge: Judge,
    params: SamplingParams,
    own: Thresholds | None,
    seed: int,
) -> Tally:
    config, names = decoder.config, [model.name for model in decoder.values]
    form = ResponseFormat(open_tag=config.open_tag, close_tag=config.close_tag)
    decoder.config = replace(config, thresholds={} if own is None else dict.fromkeys(names, own))
    judged: list[Judgement] = []
    tokens = 0
    for start in range(0, len(samples), _BATCH):
        chunk = samples[start : start + _BATCH]
        if own is None:
            replies = plain(decoder.engine, chunk, replace(params, temperature=0.0), seed=seed)
        else:
            replies = decoder.generate_many(chunk, params, seed=seed)
        judged += judge([_rollout(s, r.text, r.completion, form) for s, r in zip(chunk, replies, strict=True)])
        tokens += sum(reply.cost.generated_tokens for reply in replies)
    decoder.config = config
    return Tally(
        replies="".join({True: "+", False: "-", None: "?"}[found.accepted] for found in judged),
        needless=sum(found.needless for found in judged),
        tokens=tokens,
    )


def _rollout(sample: Sample, text: str, completion: Completion, form: ResponseFormat) -> Rollout:
    return Rollout.of_text(sample, text, form.parse(text, completion.stop_reason), completion.stop_reason)


def _append(file: Path, trial: Trial) -> None:
    with open(file, "a", encoding="utf-8") as out:
        out.write(json.dumps(asdict(trial)) + "\n")
        out.flush()
        os.fsync(out.fileno())


def _read(file: Path) -> list[Trial]:
    """The runs that were made; a last line that a kill cut short is dropped, from the file too."""
    if not file.is_file():
        return []
    data = file.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with open(file, "r+b") as out:
            out.truncate(len(whole))
    found = []
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            row = json.loads(line)
            own = row["thresholds"]
            found.append(
                Trial(
                    principles=tuple(row["principles"]),
                    thresholds=None if own is None else Thresholds(**own),
                    outcomes=Tally(**row["outcomes"]),
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SafeladderError(f"{file}: line {number}: {error}") from None
    return found
