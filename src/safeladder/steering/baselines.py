"""What guided decoding is measured against: plain and best-of-N decoding, and a beam over steps, by the same values."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from safeladder.steering.guidance import Cost, GuidanceConfig
from safeladder.steering.guidance_steps import step_ends
from safeladder.steering.guided import GuidedDecoder
from safeladder.steering.routing import Router
from safeladder.steering.values import Query, ValueModel, score_all
from safeladder.types import Completion, Engine, GenerationRequest, Sample, SamplingParams, StopReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """A reply, what it says and what it cost."""

    completion: Completion
    text: str
    cost: Cost


def plain(engine: Engine, samples: Sequence[Sample], params: SamplingParams, *, seed: int) -> list[Decoded]:
    """One reply a sample, sampled as `params` say."""
    return [group[0] for group in _whole(engine, samples, replace(params, n=1), seed)]


def best_of_n(
    engine: Engine,
    samples: Sequence[Sample],
    params: SamplingParams,
    values: Sequence[ValueModel],
    router: Router,
    *,
    n: int,
    config: GuidanceConfig | None = None,
    seed: int,
) -> list[Decoded]:
    """Of `n` whole replies the one whose w·v + γ·mean log p is highest, γ as `config` says; the cost is that of all."""
    config = config or GuidanceConfig()
    started, before = time.perf_counter(), getattr(engine, "positions", None)
    groups = _whole(engine, samples, replace(params, n=n), seed)
    weights = router.route(samples)
    # A whole reply is worth what its last step is, after all before it.
    last = [
        [_last_step(engine, s, decoded.completion.token_ids) for decoded in group]
        for s, group in zip(samples, groups, strict=True)
    ]
    flat = [query for group in last for query in group]
    found = {model.name: iter(score_all(model, flat)) for model in values}
    columns = {name: [[next(rows)[0] for _ in group] for group in last] for name, rows in found.items()}
    seconds = (time.perf_counter() - started) / max(1, len(samples))
    positions = None if before is None else round((getattr(engine, "positions", 0) - before) / max(1, len(samples)))
    chosen = []
    for i, (group, w) in enumerate(zip(groups, weights, strict=True)):
        scores = []
        gamma = config.at(w).gamma
        for j, decoded in enumerate(group):
            value = sum(w.get(name, 0.0) * column[i][j] for name, column in columns.items())
            logprobs = decoded.completion.logprobs
            # A reply that was cut can never count as finished, whatever its value.
            whole = decoded.completion.stop_reason is StopReason.EOS
            scores.append((whole, value + gamma * sum(logprobs) / len(logprobs)))
        best = group[max(range(n), key=scores.__getitem__)]
        cost = Cost(
            generated_tokens=sum(d.cost.generated_tokens for d in group),
            proposed_tokens=0,
            positions=positions,
            calls=1,
            seconds=seconds,
        )
        chosen.append(replace(best, cost=cost))
    return chosen


@dataclass(slots=True)
class _Partial:
    ids: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    value: float = 0.0
    reason: StopReason = StopReason.STOP

    @property
    def ended(self) -> bool:
        return self.reason in (StopReason.EOS, StopReason.ERROR)


def beam(decoder: GuidedDecoder, sample: Sample, params: SamplingParams, *, width: int, seed: int) -> Decoded:
    """A beam over steps: of `width` partial replies, each continued by the decoder's k candidate steps, the `width` of
    the highest w·v go on; the best ended one is the reply. Floor, backtracking and proposals have no part in it.
    """
    engine = decoder.engine
    started, before = time.perf_counter(), getattr(engine, "positions", None)
    prompt = engine.prompt_ids(sample)
    (weights,) = decoder.router.route([sample])
    gamma = decoder.config.at(weights).gamma
    beams = [_Partial()]
    generated = calls = 0
    while any(not b.ended and len(b.ids) < params.max_new_tokens for b in beams):
        grown = [b for b in beams if b.ended or len(b.ids) >= params.max_new_tokens]
        live = [b for b in beams if not b.ended and len(b.ids) < params.max_new_tokens]
        for number, partial in enumerate(live):
            context, room = (*prompt, *partial.ids), params.max_new_tokens - len(partial.ids)
            steps, tokens = decoder.next_steps(sample, context, room, seed=seed + 7919 * calls + number)
            generated += tokens
            candidates = tuple(step.token_ids for step in steps)
            query = [Query(sample, context, candidates)]
            columns = {model.name: score_all(model, query)[0] for model in decoder.values}
            for j, step in enumerate(steps):
                value = sum(weights.get(name, 0.0) * column[j] for name, column in columns.items())
                mean = sum(step.logprobs) / max(1, len(step.logprobs))
                grown.append(
                    _Partial(
                        (*partial.ids, *step.token_ids),
                        (*partial.logprobs, *step.logprobs),
                        value + gamma * mean,
                        step.stop_reason,
                    )
                )
        calls += 1
        beams = sorted(grown, key=lambda b: b.value, reverse=True)[:width]
    best = max(beams, key=lambda b: (b.ended, b.value))
    reason = best.reason if best.ended else StopReason.LENGTH
    return Decoded(
        completion=Completion(token_ids=best.ids, logprobs=best.logprobs, stop_reason=reason),
        text=engine.decode(best.ids),
        cost=Cost(
            generated_tokens=generated,
            proposed_tokens=0,
            positions=None if before is None else getattr(engine, "positions", 0) - before,
            calls=calls,
            seconds=time.perf_counter() - started,
        ),
    )


def _last_step(engine: Engine, sample: Sample, ids: tuple[int, ...]) -> Query:
    at = ([0, *step_ends(engine.decode, ids)])[-2]
    return Query(sample, (*engine.prompt_ids(sample), *ids[:at]), (ids[at:],))


def _whole(engine: Engine, samples: Sequence[Sample], params: SamplingParams, seed: int) -> list[list[Decoded]]:
    started, before = time.perf_counter(), getattr(engine, "positions", None)
    requests = [GenerationRequest(sample=s, prompt_ids=engine.prompt_ids(s)) for s in samples]
    groups = engine.generate(requests, params, seed=seed)
    share = max(1, len(samples))
    seconds = (time.perf_counter() - started) / share
    positions = None if before is None else round((getattr(engine, "positions", 0) - before) / share)
    return [
        [
            Decoded(
                completion=completion,
                text=engine.decode(completion.token_ids),
                cost=Cost(
                    generated_tokens=len(completion.token_ids),
                    proposed_tokens=0,
                    positions=positions,
                    calls=1,
                    seconds=seconds,
                ),
            )
            for completion in group
        ]
        for group in groups
    ]
