"""Choosing each principle's thresholds by guided replies to training prompts that no value model learned from.

One threshold after the other, each over a short list, all principles at once: γ while nothing is ever hopeless, then τ,
then δ. A principle takes the value under which most of its prompts' replies are accepted, of those values under which
it does not refuse noticeably more that is harmless than the policy does by itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from safeladder.rollout.parse import ResponseFormat
from safeladder.steering.baselines import plain
from safeladder.steering.guidance import Thresholds
from safeladder.steering.guided import GuidedDecoder
from safeladder.steering.values import Judgement, principle_of
from safeladder.types import Completion, Rollout, SafeladderError, Sample, SamplingParams

LISTS = (
    ("gamma", (3.0, 1.0, 0.3, 0.1, 0.03)),
    ("floor", (0.0, 0.15, 0.3, 0.5, 0.7)),
    ("margin", (0.5, 0.3, 0.15, 0.0)),
)
"""What is tried, in this order, that which interferes least first: it stays where nothing is better."""
START = Thresholds(gamma=0.3, floor=0.0, margin=0.15)
NEEDLESS_ALLOWED = 0.02
"""Share of a principle's prompts that may be refused needlessly beyond those that the policy refuses by itself."""
_BATCH = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Of a principle's prompts: how many there are, how many replies were accepted, needless refusals and unscored, and
    how many tokens were generated."""

    prompts: int
    accepted: int
    needless: int
    unscored: int
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run over all prompts: thresholds (None: greedy decoding without guidance) and outcomes by principle."""

    thresholds: dict[str, Thresholds] | None
    outcomes: dict[str, Tally]


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
        SafeladderError: the file is damaged, or holds other runs.
    """
    made = _read(file)
    trials: list[Trial] = []
    names = list(dict.fromkeys(principle_of(s.label) for s in samples))
    runs = 1 + sum(len(values) for _, values in LISTS)

    def run(thresholds: dict[str, Thresholds] | None) -> dict[str, Tally]:
        number = len(trials)
        if number < len(made):
            if made[number].thresholds != thresholds:
                raise SafeladderError(f"{file}: line {number + 1} is another run; remove the file")
            trials.append(made[number])
        else:
            trials.append(
                Trial(thresholds=thresholds, outcomes=_outcomes(decoder, samples, judge, params, thresholds, seed))
            )
            _append(file, trials[-1])
        good = sum(tally.accepted for tally in trials[-1].outcomes.values())
        say(f"run {number + 1} of {runs}: {good} of {len(samples)} accepted")
        return trials[-1].outcomes

    alone = run(None)
    chosen = dict.fromkeys(names, START)
    for threshold, values in LISTS:
        tried = {
            value: run({name: replace(own, **{threshold: value}) for name, own in chosen.items()}) for value in values
        }
        for group in [names] if together else [[name] for name in names]:
            value = best({v: _sum(found, group) for v, found in tried.items()}, _sum(alone, group))
            for name in group:
                chosen[name] = replace(chosen[name], **{threshold: value})
    decoder.config = replace(decoder.config, thresholds=chosen)
    return chosen, trials


def best(tried: dict[float, Tally], alone: Tally) -> float:
    """The value with most replies accepted among those with few needless refusals more than the policy `alone`; where
    there is none, that with the fewest. Ties go to the first."""
    allowed = alone.needless + NEEDLESS_ALLOWED * alone.prompts
    fine = [value for value, tally in tried.items() if tally.needless <= allowed]
    if not fine:
        return min(tried, key=lambda value: tried[value].needless)
    return max(fine, key=lambda value: tried[value].accepted)


def _sum(outcomes: dict[str, Tally], names: Sequence[str]) -> Tally:
    rows = [asdict(outcomes[name]) for name in names]
    return Tally(**{key: sum(row[key] for row in rows) for key in rows[0]})


def _outcomes(
    decoder: GuidedDecoder,
    samples: Sequence[Sample],
    judge: Judge,
    params: SamplingParams,
    thresholds: dict[str, Thresholds] | None,
    seed: int,
) -> dict[str, Tally]:
    config = decoder.config
    form = ResponseFormat(open_tag=config.open_tag, close_tag=config.close_tag)
    decoder.config = replace(config, thresholds=thresholds or {})
    counts: dict[str, list[int]] = {}
    for start in range(0, len(samples), _BATCH):
        chunk = samples[start : start + _BATCH]
        if thresholds is None:
            replies = plain(decoder.engine, chunk, replace(params, temperature=0.0), seed=seed)
        else:
            replies = decoder.generate_many(chunk, params, seed=seed)
        rollouts = [_rollout(s, reply.text, reply.completion, form) for s, reply in zip(chunk, replies, strict=True)]
        for sample, reply, judged in zip(chunk, replies, judge(rollouts), strict=True):
            count = counts.setdefault(principle_of(sample.label), [0] * 5)
            cost = reply.cost.generated_tokens
            row = (1, judged.accepted is True, judged.needless, judged.accepted is None, cost)
            count[:] = [a + int(b) for a, b in zip(count, row, strict=True)]
    decoder.config = config
    return {
        name: Tally(prompts=n, accepted=good, needless=needless, unscored=unknown, tokens=tokens)
        for name, (n, good, needless, unknown, tokens) in counts.items()
    }


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
                    thresholds=None if own is None else {name: Thresholds(**values) for name, values in own.items()},
                    outcomes={name: Tally(**values) for name, values in row["outcomes"].items()},
                )
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SafeladderError(f"{file}: line {number}: {error}") from None
    return found
