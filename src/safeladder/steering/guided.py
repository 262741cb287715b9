"""Step-level guided decoding: sample several next steps, value each, keep the best, go back where none is good enough.

    state = prompt + steps kept; w = route(prompt), weights that add up to 1; γ, κ, τ, δ = those of the principles, by w
    repeat: g = the most likely next step; where w·v[g] > κ: keep g and go on
            C = {g and k - 1 sampled next steps, duplicates dropped}
            v[c, m] = value model m of the state with c
            score(c) = w·v[c] + γ · mean log p(c);  b = argmax_c score(c)
            where w·v[b] < τ: sample more steps; then drop the last kept step and begin again, a few times at most; then
                let proposed steps p (a reminder, a safe ending) compete: score(p) = score(b) + w·(v[p] - v[b]) - δ
            keep argmax_c score(c)
    until the reply has ended

Proposed steps are configured, not sampled: they count as likely as the step that they would replace, and must be worth
δ more. `Trail` says where they entered and where they won.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from safeladder.rollout.local import LocalEngine
from safeladder.rollout.prefix import PrefixEngine
from safeladder.steering.guidance import Candidate, GuidanceConfig, GuidedResult, Thresholds, TrailStep
from safeladder.steering.guidance_steps import STOPS, NextStep, Proposer
from safeladder.steering.guided_reply import Reply, distinct, hopeless_of, open_steps
from safeladder.steering.routing import Router
from safeladder.steering.values import Query, ValueModel, score_all
from safeladder.types import (
    Completion,
    Engine,
    GenerationRequest,
    SafeladderError,
    Sample,
    SamplingParams,
    StopReason,
)

if TYPE_CHECKING:
    from safeladder.steering.value_heads import ValueHeads

OnStep = Callable[[TrailStep], None]


_EXTENSIONS = 4
"""A step that only seems to end (the point of a number, a list's bare mark) goes on this many times at most."""
_WIDENING = 15485863
"""Apart from the seeds of ordinary samples."""


@runtime_checkable
class Forgetful(Protocol):
    """A value model that remembers samples by id while a reply is decoded."""

    def forget(self) -> None: ...


class GuidedDecoder:
    """Guided decoding of single-turn replies on any engine. Several threads may call; they take turns.

    Args:
        engine: samples; a `rollout.prefix.PrefixEngine` runs no position twice.
        values: the value models; their names are those of the routing weights.
        router: chooses the weights by the prompt.
        config: how to decode.
        tokenizer: writes proposed steps; needed where the config has any.

    Raises:
        SafeladderError: the config proposes steps and there is no tokenizer.
    """

    def __init__(
        self,
        engine: Engine,
        values: Sequence[ValueModel],
        router: Router,
        config: GuidanceConfig | None = None,
        *,
        tokenizer: Any = None,
    ) -> None:
        self.engine, self.values, self.router = engine, tuple(values), router
        self.config = config or GuidanceConfig()
        if tokenizer is None and (self.config.reminders or self.config.completions):
            raise SafeladderError("proposed steps need the policy's tokenizer")
        self._proposer = None if tokenizer is None else Proposer(self.config, tokenizer)
        self._turn = threading.Lock()

    def generate(
        self, sample: Sample, params: SamplingParams, *, seed: int, on_step: OnStep | None = None
    ) -> GuidedResult:
        """One guided reply. Of `params` only `max_new_tokens` counts: it bounds the reply; a reply that reaches it ends
        with `StopReason.LENGTH`. The same seed gives the same reply. `on_step` hears of every decision at once.

        Raises:
            SafeladderError: the prompt and the budget exceed the model's context.
        """
        hear = None if on_step is None else lambda _, step: on_step(step)
        return self.generate_many([sample], params, seed=seed, on_step=hear)[0]

    def generate_many(
        self,
        samples: Sequence[Sample],
        params: SamplingParams,
        *,
        seed: int,
        on_step: Callable[[int, TrailStep], None] | None = None,
    ) -> list[GuidedResult]:
        """One guided reply a sample, in order, decoded side by side; each is what `generate` would give.

        Sample ids must differ. `on_step` is told the number of the sample with every decision.
        """
        with self._turn:
            started, before = time.perf_counter(), self._positions()
            weights = self.router.route(samples)
            replies = [
                Reply(s, self.engine.prompt_ids(s), w, self.config.at(w), params.max_new_tokens)
                for s, w in zip(samples, weights, strict=True)
            ]
            round_ = 0
            while live := [(i, r) for i, r in enumerate(replies) if not r.done]:
                decisions = self._round([r for _, r in live], seed + 7919 * round_)
                for (i, _), step in zip(live, decisions, strict=True):
                    if on_step is not None:
                        on_step(i, step)
                round_ += 1
            seconds = (time.perf_counter() - started) / max(1, len(samples))
            run = None if before is None else round((self._positions() - before) / max(1, len(samples)))
            results = [r.result(self.engine, seconds, run) for r in replies]
            self._forget()
            return results

    def next_steps(
        self, sample: Sample, context: Sequence[int], room: int, *, seed: int
    ) -> tuple[list[Completion], int]:
        """The distinct next steps after a context of at most `room` tokens, the likeliest first, and how many tokens
        were sampled for them."""
        reply = Reply(sample, tuple(context), {}, Thresholds(), room)
        (likeliest,), (others,) = self._likeliest([reply], seed), self._others([reply], seed)
        steps = distinct([*likeliest, *others])
        found = [Completion(token_ids=s.token_ids, logprobs=s.logprobs, stop_reason=s.reason) for s in steps]
        return found, reply.generated

    def _forget(self) -> None:
        """Another sample may come under the same id, and long-lived servers must not grow."""
        if isinstance(self.engine, PrefixEngine):
            self.engine.forget()
        for model in self.values:
            if isinstance(model, Forgetful):
                model.forget()

    def _positions(self) -> Any:
        return getattr(self.engine, "positions", None)

    def _round(self, replies: Sequence[Reply], seed: int) -> list[TrailStep]:
        """One decision of every reply; what is likeliest is kept at once where it is worth enough."""
        likeliest = self._likeliest(replies, seed)
        asked = [i for i, r in enumerate(replies) if r.own.enough < 1]
        judged = self._judge([replies[i] for i in asked], [likeliest[i] for i in asked])
        decisions: dict[int, TrailStep] = {}
        for i, found in zip(asked, judged, strict=True):
            fresh = open_steps(replies[i], likeliest[i]) == likeliest[i]
            if fresh and likeliest[i][0].reason is not StopReason.ERROR and found[0].value > replies[i].own.enough:
                decisions[i] = replies[i].keep_best(likeliest[i], found)
        rest = [i for i in range(len(replies)) if i not in decisions]
        if rest:
            others = self._others([replies[i] for i in rest], seed)
            steps = [distinct([*likeliest[i], *more]) for i, more in zip(rest, others, strict=True)]
            decisions.update(zip(rest, self._decide([replies[i] for i in rest], steps, seed + _WIDENING), strict=True))
        return [decisions[i] for i in range(len(replies))]

    def _likeliest(self, replies: Sequence[Reply], seed: int) -> list[list[NextStep]]:
        """The most likely next step of every reply."""
        return self._draw(replies, 0.0, 1, seed)

    def _others(self, replies: Sequence[Reply], seed: int) -> list[list[NextStep]]:
        """The distinct sampled ones."""
        return self._draw(replies, self.config.temperature, self.config.candidates - 1, seed)

    def _draw(self, replies: Sequence[Reply], temperature: float, n: int, seed: int) -> list[list[NextStep]]:
        """The distinct ones of `n` next steps of every reply."""
        if n == 0:
            return [[] for _ in replies]
        steps = self._continue(replies, [()] * len(replies), temperature, n, seed)
        for extension in range(1, _EXTENSIONS + 1):
            open_ = [(i, j) for i, group in enumerate(steps) for j, step in enumerate(group) if not step.whole]
            if not open_:
                break
            rest = self._continue(
                [replies[i] for i, _ in open_],
                [steps[i][j].token_ids for i, j in open_],
                temperature,
                1,
                seed + 104729 * extension,
            )
            for (i, j), (more,) in zip(open_, rest, strict=True):
                steps[i][j] = steps[i][j].joined(more, self.engine.decode)
        return [distinct(group) for group in steps]

    def _continue(
        self,
        replies: Sequence[Reply],
        begun: Sequence[tuple[int, ...]],
        temperature: float,
        n: int,
        seed: int,
    ) -> list[list[NextStep]]:
        """`n` continuations of every reply's context and what has `begun` after it, up to where a step may end."""
        found: list[list[NextStep]] = [[] for _ in replies]
        rooms = [min(self.config.step_tokens, r.room) - len(b) for r, b in zip(replies, begun, strict=True)]
        for room in sorted(set(rooms)):
            places = [i for i, other in enumerate(rooms) if other == room]
            if room < 1:  # the step has taken all it may
                for i in places:
                    found[i] = [NextStep((), (), "", StopReason.LENGTH, True)] * n
                continue
            requests = [
                GenerationRequest(sample=replies[i].sample, prompt_ids=(*replies[i].context, *begun[i])) for i in places
            ]
            params = SamplingParams(max_new_tokens=room, temperature=temperature, n=n, stop=STOPS)
            for i, completions in zip(places, self.engine.generate(requests, params, seed=seed), strict=True):
                for completion in completions:
                    replies[i].generated += len(completion.token_ids)
                    found[i].append(NextStep.of(completion, self.engine.decode))
            for reply in {id(replies[i]): replies[i] for i in places}.values():
                reply.calls += 1
        return found

    def _decide(self, replies: Sequence[Reply], sampled: Sequence[list[NextStep]], seed: int) -> list[TrailStep]:
        """Keep a step of every reply, or go back."""
        config = self.config
        steps = [open_steps(r, group) for r, group in zip(replies, sampled, strict=True)]
        judged = self._judge(replies, steps)
        hopeless = hopeless_of(replies, judged)
        if hopeless and config.widening:
            wider = self._draw([replies[i] for i in hopeless], config.temperature, config.widening, seed)
            for i, more in zip(hopeless, wider, strict=True):
                steps[i] = open_steps(replies[i], distinct([*steps[i], *more]))
            again = self._judge([replies[i] for i in hopeless], [steps[i] for i in hopeless])
            for i, found in zip(hopeless, again, strict=True):
                judged[i] = found
            hopeless = hopeless_of(replies, judged)
        proposing = []
        for i in hopeless:
            reply = replies[i]
            if reply.backtracks < config.backtracks:
                continue
            if self._proposer is not None and reply.proposals < config.proposals and reply.own.margin < 1:
                proposed = self._propose(reply)
                if proposed:
                    reply.proposals += 1
                    steps[i] = [*steps[i], *proposed]
                    proposing.append(i)
        if proposing:
            again = self._judge([replies[i] for i in proposing], [steps[i] for i in proposing])
            for i, found in zip(proposing, again, strict=True):
                judged[i] = found
        decisions = []
        for i, (reply, found) in enumerate(zip(replies, judged, strict=True)):
            if i in hopeless and reply.backtracks < config.backtracks:
                decisions.append(reply.go_back(steps[i], found))
            else:
                decisions.append(reply.keep_best(steps[i], found))
        return decisions

    def _propose(self, reply: Reply) -> list[NextStep]:
        assert self._proposer is not None
        said = self.engine.decode(reply.said)
        fitting = [p for p in self._proposer.steps(reply.sample.language, said) if len(p.token_ids) <= reply.room]
        if not fitting:
            return []
        reply.proposed_tokens += sum(len(p.token_ids) for p in fitting)
        logprobs: list[tuple[float, ...] | None] = [None] * len(fitting)
        if isinstance(self.engine, PrefixEngine):
            requests = [
                GenerationRequest(sample=reply.sample, prompt_ids=(*reply.context, *p.token_ids)) for p in fitting
            ]
            sizes = [len(p.token_ids) for p in fitting]
            logprobs = [found.logprobs for found in self.engine.passes(requests, sizes, logprobs=True)]
        return [
            NextStep(
                p.token_ids,
                (-math.inf,) * len(p.token_ids) if found is None else found,
                self.engine.decode(p.token_ids),
                StopReason.EOS if p.ends else StopReason.STOP,
                True,
                source="proposed",
                count=0,
            )
            for p, found in zip(fitting, logprobs, strict=True)
        ]

    def _judge(self, replies: Sequence[Reply], steps: Sequence[Sequence[NextStep]]) -> list[list[Candidate]]:
        queries = [
            Query(r.sample, r.context, tuple(s.token_ids for s in group))
            for r, group in zip(replies, steps, strict=True)
        ]
        columns = {model.name: score_all(model, queries) for model in self.values}
        judged = []
        for i, (reply, group) in enumerate(zip(replies, steps, strict=True)):
            own = reply.own
            likely = [own.gamma * (step.mean_logprob or 0.0) for step in group]
            rows = [{name: column[i][j] for name, column in columns.items()} for j in range(len(group))]
            worth = [sum(reply.weights.get(name, 0.0) * v for name, v in row.items()) for row in rows]
            # A proposed step is nothing the policy would say: its own likelihood would rule it out.
            _, as_likely = max((worth[j] + likely[j], likely[j]) for j, s in enumerate(group) if s.source == "sampled")
            found = []
            for j, step in enumerate(group):
                score = worth[j] + (likely[j] if step.source == "sampled" else as_likely - own.margin)
                found.append(
                    Candidate(
                        text=step.text,
                        token_ids=step.token_ids,
                        source=step.source,
                        count=step.count,
                        mean_logprob=step.mean_logprob,
                        values=rows[j],
                        value=worth[j],
                        score=score,
                        ends=step.reason is StopReason.EOS,
                    )
                )
            judged.append(found)
        return judged


@dataclass(frozen=True, slots=True)
class Guidance:
    """What `safeladder pvm train` wrote, read once for any number of decoders over the same model."""

    heads: ValueHeads
    config: GuidanceConfig

    @classmethod
    def load(cls, folder: str | Path, engine: LocalEngine) -> Guidance:
        """The guidance in `folder` (by default MODEL/steering/value-guidance), for an engine of the same model.

        Raises:
            SafeladderError: no such guidance, or one that was trained on another model.
        """
        from safeladder.steering.value_heads import ValueHeads, fingerprint

        heads, about = ValueHeads.load(folder)
        if about.get("model") != fingerprint(engine):
            raise SafeladderError(f"{folder}: these value models were trained on another model's states")
        return cls(heads, GuidanceConfig.of_json(about.get("config", {}), f"{folder}: config"))

    def over(self, engine: LocalEngine) -> GuidedDecoder:
        """A decoder with a memory of its own."""
        from safeladder.steering.value_heads import HeadScorer, HeadValues, LearnedRouter

        reader = engine if isinstance(engine, PrefixEngine) else PrefixEngine(engine)
        scorer = HeadScorer(reader, self.heads)
        values = [HeadValues(scorer, name) for name in self.heads.principles]
        return GuidedDecoder(reader, values, LearnedRouter(scorer), self.config, tokenizer=engine.policy.tokenizer)


def load_guidance(folder: str | Path, engine: LocalEngine) -> GuidedDecoder:
    """`Guidance.load`, and a decoder over the engine that it was loaded for. Raises as it does."""
    return Guidance.load(folder, engine).over(engine)
