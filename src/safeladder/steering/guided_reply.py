"""A reply while guided decoding makes it, and what becomes of the steps that are sampled for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

from safeladder.steering.guidance import Candidate, Cost, GuidedResult, Thresholds, TrailStep
from safeladder.steering.guidance_steps import NextStep
from safeladder.types import Completion, Engine, Sample, StopReason


def hopeless_of(replies: Sequence[Reply], judged: Sequence[Sequence[Candidate]]) -> list[int]:
    """The replies whose best step is worth less than their floor."""
    return [
        i
        for i, (reply, found) in enumerate(zip(replies, judged, strict=True))
        if max(found, key=lambda c: c.score).value < reply.own.floor
    ]


def distinct(steps: Sequence[NextStep]) -> list[NextStep]:
    """Equal steps as one that says how often it was sampled; the first of them stays."""
    counts: Counter[tuple[int, ...]] = Counter()
    for step in steps:
        counts[step.token_ids] += step.count
    unique = {step.token_ids: step for step in reversed(steps)}
    return [replace(unique[ids], count=n) for ids, n in counts.items()]


def open_steps(reply: Reply, steps: Sequence[NextStep]) -> list[NextStep]:
    """What was not rejected before, nor failed; where that leaves nothing, everything."""
    sound = [step for step in steps if step.reason is not StopReason.ERROR] or list(steps)
    return [step for step in sound if (reply.said, step.token_ids) not in reply.rejected] or sound


class Reply:
    """A reply that is being decoded."""

    def __init__(
        self, sample: Sample, prompt_ids: tuple[int, ...], weights: Mapping[str, float], own: Thresholds, budget: int
    ) -> None:
        self.sample, self.prompt_ids, self.weights, self.own, self.budget = sample, prompt_ids, weights, own, budget
        self.kept: list[NextStep] = []
        self.trail: list[TrailStep] = []
        self.rejected: set[tuple[tuple[int, ...], tuple[int, ...]]] = set()
        self.backtracks = self.proposals = self.generated = self.proposed_tokens = self.calls = 0

    @property
    def said(self) -> tuple[int, ...]:
        return tuple(token for step in self.kept for token in step.token_ids)

    @property
    def context(self) -> tuple[int, ...]:
        return (*self.prompt_ids, *self.said)

    @property
    def room(self) -> int:
        return self.budget - len(self.said)

    @property
    def done(self) -> bool:
        ended = bool(self.kept) and self.kept[-1].reason in (StopReason.EOS, StopReason.ERROR)
        return ended or self.room < 1

    def keep_best(self, steps: Sequence[NextStep], judged: Sequence[Candidate]) -> TrailStep:
        """Keep the step of the highest score; the decision is on the trail."""
        best = max(range(len(judged)), key=lambda j: judged[j].score)
        decision = self._decided("keep", best, judged)
        self.kept.append(steps[best])
        return decision

    def _decided(self, action: str, chosen: int | None, judged: Sequence[Candidate]) -> TrailStep:
        decision = TrailStep(
            depth=len(self.kept), action=action, chosen=chosen, weights=self.weights, candidates=tuple(judged)
        )
        self.trail.append(decision)
        return decision

    def go_back(self, steps: Sequence[NextStep], judged: Sequence[Candidate]) -> TrailStep:
        """Drop the last kept step; neither it nor what was found hopeless after it is taken again."""
        decision = self._decided("backtrack", None, judged)
        self.backtracks += 1
        self.rejected.update((self.said, step.token_ids) for step in steps)
        if self.kept:
            last = self.kept.pop()
            self.rejected.add((self.said, last.token_ids))
        return decision

    def result(self, engine: Engine, seconds: float, positions: int | None) -> GuidedResult:
        last = self.kept[-1].reason
        reason = last if last in (StopReason.EOS, StopReason.ERROR) else StopReason.LENGTH
        said = self.said
        return GuidedResult(
            completion=Completion(
                token_ids=said, logprobs=tuple(p for step in self.kept for p in step.logprobs), stop_reason=reason
            ),
            text=engine.decode(said),
            trail=tuple(self.trail),
            cost=Cost(
                generated_tokens=self.generated,
                proposed_tokens=self.proposed_tokens,
                positions=positions,
                calls=self.calls,
                seconds=seconds,
            ),
        )
