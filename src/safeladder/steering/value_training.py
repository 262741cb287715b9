"""Training principled value models on Monte-Carlo step values.

The value of a prefix is the share of the policy's own continuations of it that the verifiers of the prompt's principle
accept (as Math-Shepherd, arXiv 2312.08935, estimates the worth of a step). Three sources give outcomes: whole replies,
each of which is one outcome of every prefix it went through; a few more rollouts from prefixes on the way; and proposed
steps put after prefixes of the reasoning. The loss is binary cross-entropy, every outcome counted once.
"""

from __future__ import annotations

import itertools
import json
import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from safeladder.rollout.collect import Format
from safeladder.rollout.parse import ResponseFormat
from safeladder.rollout.prefix import PrefixEngine
from safeladder.steering.guidance import GuidanceConfig
from safeladder.steering.guidance_steps import Proposer, step_ends
from safeladder.steering.value_heads import ValueHeads, describe
from safeladder.steering.values import Judgement, principle_of
from safeladder.types import GenerationRequest, Rollout, SafeladderError, Sample, SamplingParams, StopReason
from safeladder.verifiers import Router

Verdicts = Callable[[Sequence[Rollout]], list[Judgement]]
"""What to make of each finished reply."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcomes:
    """Of all rollouts from one prefix: how many were `accepted`, of how many that could be judged (`n`), and how many
    could not. `ids` are the reply's tokens so far, the last `step` of them its last step."""

    ids: tuple[int, ...]
    step: int
    accepted: int
    n: int
    unscored: int = 0

    @property
    def value(self) -> float:
        """The Monte-Carlo value; n must be above 0."""
        return self.accepted / self.n


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptOutcomes:
    """One prompt's prefixes and what became of them."""

    sample_id: str
    principle: str
    label: str
    prefixes: tuple[Outcomes, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "sample_id": self.sample_id,
            "principle": self.principle,
            "label": self.label,
            "prefixes": [[list(p.ids), p.step, p.accepted, p.n, p.unscored] for p in self.prefixes],
        }

    @classmethod
    def of_json(cls, row: Mapping[str, Any]) -> PromptOutcomes:
        return cls(
            sample_id=row["sample_id"],
            principle=row["principle"],
            label=row["label"],
            prefixes=tuple(
                Outcomes(ids=tuple(ids), step=step, accepted=good, n=n, unscored=unscored)
                for ids, step, good, n, unscored in row["prefixes"]
            ),
        )


def verdicts_of(routers: Mapping[str, Router]) -> Verdicts:
    """Acceptance by the verifiers of a sample's label: `routers["world"]` judges items of the world, `routers["rules"]`
    every other. Of a label's row the format verifier is left out: what does not parse is not accepted anyway.

    Raises (when called): SafeladderError on a label that has no row.
    """

    def judge(rollouts: Sequence[Rollout]) -> list[Judgement]:
        found = [Judgement(None)] * len(rollouts)
        for name, router in routers.items():
            places = [i for i, r in enumerate(rollouts) if (r.sample.source == "world") == (name == "world")]
            judged, _ = router.judge([rollouts[i] for i in places])
            for i, rollout in zip(places, judged, strict=True):
                found[i] = Judgement.of([s for verifier, s in rollout.scores.items() if verifier != "format"])
        return found

    return judge


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many rollouts.

    Attributes:
        replies: whole replies a prompt.
        branches: prefixes a prompt from which more are rolled out, and `branch_rollouts` from each.
        proposed: prefixes a prompt after which every proposed step is tried, the empty one among them. A proposed
            answer costs no rollout: what it is worth is known at once, after a look-alike as after the real thing.
        max_new_tokens: of a reply.
        batch: prompts rolled out, and stored, together.
    """

    replies: int = 8
    branches: int = 2
    branch_rollouts: int = 2
    proposed: int = 4
    max_new_tokens: int = 112
    batch: int = 32


_Prefix = tuple[tuple[int, ...], int]
"""Token ids of a reply so far, and how many of them are its last step's."""


class _Tallies:
    """Outcomes of the prefixes of several samples' replies."""

    def __init__(self, samples: Sequence[Sample], decode: Callable[[Sequence[int]], str], form: Format) -> None:
        self.samples, self.decode, self.form = samples, decode, form
        self.trees: list[dict[_Prefix, list[int]]] = [defaultdict(lambda: [0, 0, 0]) for _ in samples]
        self._pending: list[tuple[int, Rollout, list[_Prefix]]] = []

    def add(self, number: int, ids: tuple[int, ...], reason: StopReason, prefixes: list[_Prefix]) -> None:
        """A reply to sample `number`, which went through `prefixes`."""
        text = self.decode(ids)
        rollout = Rollout.of_text(self.samples[number], text, self.form.parse(text, reason), reason)
        self._pending.append((number, rollout, prefixes))

    def judge(self, judge: Verdicts) -> None:
        """Judge the replies added since, and book each verdict on its prefixes."""
        for (number, _, prefixes), verdict in zip(self._pending, judge([r for _, r, _ in self._pending]), strict=True):
            for prefix in prefixes:
                tally = self.trees[number][prefix]
                tally[0] += verdict.accepted is True
                tally[1] += verdict.accepted is not None
                tally[2] += verdict.accepted is None
        self._pending = []


def _prefixes(decode: Callable[[Sequence[int]], str], ids: tuple[int, ...], start: int = 0) -> list[_Prefix]:
    """The prefixes of a reply that end with a step, of steps that begin at `start` or later."""
    ends = [start, *(start + end for end in step_ends(decode, ids[start:]))]
    return [(ids[:end], end - begin) for begin, end in itertools.pairwise(ends)]


def roll_out(
    engine: PrefixEngine,
    samples: Sequence[Sample],
    judge: Verdicts,
    config: GuidanceConfig,
    plan: Plan,
    *,
    seed: int,
) -> list[PromptOutcomes]:
    """The prefixes of the samples' replies with their outcomes, in order. Sample ids must differ."""
    tallies = _Tallies(samples, engine.decode, ResponseFormat(open_tag=config.open_tag, close_tag=config.close_tag))
    proposer = Proposer(config, engine.policy.tokenizer)
    prompts = [engine.prompt_ids(s) for s in samples]
    requests = [GenerationRequest(sample=s, prompt_ids=p) for s, p in zip(samples, prompts, strict=True)]
    whole = SamplingParams(max_new_tokens=plan.max_new_tokens, n=plan.replies)
    starts: list[tuple[int, _Prefix]] = []
    for number, replies in enumerate(engine.generate(requests, whole, seed=seed)):
        inner: dict[_Prefix, None] = {}
        for reply in replies:
            prefixes = _prefixes(engine.decode, reply.token_ids)
            tallies.add(number, reply.token_ids, reply.stop_reason, prefixes)
            inner.update(dict.fromkeys(prefixes[:-1]))
        rng = random.Random(f"{seed}/{samples[number].id}/prefixes")
        starts += [(number, prefix) for prefix in rng.sample(list(inner), min(plan.branches, len(inner)))]
        thinking = [ids for ids, _ in inner if config.close_tag not in engine.decode(ids)]
        tried = [(), *rng.sample(thinking, min(plan.proposed - 1, len(thinking)))][: plan.proposed]
        for ids in tried:
            for step in proposer.steps(samples[number].language, engine.decode(ids)):
                prefix = ((*ids, *step.token_ids), len(step.token_ids))
                if step.ends:
                    tallies.add(number, prefix[0], StopReason.EOS, [prefix])
                else:
                    starts.append((number, prefix))
    tallies.judge(judge)

    more = SamplingParams(max_new_tokens=plan.max_new_tokens, n=plan.branch_rollouts)
    requests = [GenerationRequest(sample=samples[at], prompt_ids=(*prompts[at], *ids)) for at, (ids, _) in starts]
    for (number, prefix), group in zip(starts, engine.generate(requests, more, seed=seed + 1), strict=True):
        begun = len(prefix[0])
        for rest in group:
            ids = (*prefix[0], *rest.token_ids)
            tallies.add(number, ids, rest.stop_reason, [prefix, *_prefixes(engine.decode, ids, begun)])
    tallies.judge(judge)
    return [
        PromptOutcomes(
            sample_id=s.id,
            principle=principle_of(s.label),
            label=s.label,
            prefixes=tuple(
                Outcomes(ids=ids, step=step, accepted=t[0], n=t[1], unscored=t[2]) for (ids, step), t in tree.items()
            ),
        )
        for s, tree in zip(samples, tallies.trees, strict=True)
    ]


def roll_out_all(
    engine: PrefixEngine,
    samples: Sequence[Sample],
    judge: Verdicts,
    config: GuidanceConfig,
    plan: Plan,
    file: Path,
    *,
    seed: int,
    say: Say,
) -> list[PromptOutcomes]:
    """`roll_out` batch by batch; each is appended to `file`, and what is in it already is not rolled out again.

    Raises:
        SafeladderError: the file holds other prompts, or is damaged before its last line.
    """
    found = list(read_outcomes(file)) if file.is_file() else []
    ids = [s.id for s in samples]
    if [row.sample_id for row in found] != ids[: len(found)]:
        raise SafeladderError(f"{file} holds rollouts of other prompts; remove it, or use another --out folder")
    for start in range(len(found), len(samples), plan.batch):
        chunk = samples[start : start + plan.batch]
        fresh = roll_out(engine, chunk, judge, config, plan, seed=seed)
        engine.forget()
        with open(file, "a", encoding="utf-8") as out:
            out.writelines(json.dumps(row.as_json()) + "\n" for row in fresh)
            out.flush()
            os.fsync(out.fileno())
        found += fresh
        say(f"rolled out {len(found)} of {len(samples)} prompts")
    return found


def read_outcomes(file: Path) -> Iterator[PromptOutcomes]:
    """The rows of a file of outcomes; a last line that was cut short by a kill is dropped, from the file too.

    Raises:
        SafeladderError: any other line is damaged.
    """
    data = file.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with open(file, "r+b") as out:
            out.truncate(len(whole))
    for number, line in enumerate(whole.splitlines(), start=1):
        try:
            yield PromptOutcomes.of_json(json.loads(line))
        except (ValueError, KeyError, TypeError) as error:
            raise SafeladderError(f"{file}: line {number}: {error}") from None


@dataclass(frozen=True, slots=True)
class Examples:
    """Steps with at least one outcome: what heads read [n, 3 hidden] (`describe`), column of the principle [n],
    accepted and judged outcomes [n]; `prompt` and `label` say whose they are; `unscored` outcomes were left out."""

    described: Tensor
    column: Tensor
    accepted: Tensor
    n: Tensor
    prompt: tuple[str, ...]
    label: tuple[str, ...]
    unscored: int


def examples(
    engine: PrefixEngine,
    samples: Sequence[Sample],
    outcomes: Sequence[PromptOutcomes],
    principles: Sequence[str],
    *,
    batch: int = 32,
    say: Say = lambda _: None,
) -> Examples:
    """The hidden states of every step that has an outcome.

    Raises:
        SafeladderError: there is none.
    """
    described, column, good, count, who, labels = [], [], [], [], [], []
    for start in range(0, len(samples), batch):
        rows = []
        for sample, row in zip(samples[start : start + batch], outcomes[start : start + batch], strict=True):
            rows += [(sample, row, prefix) for prefix in row.prefixes if prefix.n]
        # Short ones first, so that longer ones go on from what is kept.
        rows.sort(key=lambda entry: len(entry[2].ids))
        asked = [GenerationRequest(sample=s, prompt_ids=(*engine.prompt_ids(s), *p.ids)) for s, _, p in rows]
        first = {s.id: GenerationRequest(sample=s, prompt_ids=engine.prompt_ids(s)) for s, _, _ in rows}
        prompts = dict(zip(first, engine.passes(list(first.values())), strict=True))
        steps = engine.passes(asked, [p.step for _, _, p in rows])
        for (sample, row, prefix), step in zip(rows, steps, strict=True):
            described.append(describe(prompts[sample.id].states[-1], step.states))
            column.append(list(principles).index(row.principle))
            good.append(prefix.accepted)
            count.append(prefix.n)
            who.append(sample.id)
            labels.append(row.label)
        engine.forget()
        say(f"states of {min(start + batch, len(samples))} of {len(samples)} prompts")
    if not described:
        raise SafeladderError("no rollout could be judged: there is nothing to train value models on")
    return Examples(
        torch.stack(described),
        torch.tensor(column),
        torch.tensor(good, dtype=torch.float32),
        torch.tensor(count, dtype=torch.float32),
        tuple(who),
        tuple(labels),
        sum(p.unscored for row in outcomes for p in row.prefixes),
    )


def train_heads(
    data: Examples,
    principles: Sequence[str],
    *,
    seed: int,
    epochs: int = 15,
    batch: int = 256,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.05,
    say: Say = lambda _: None,
) -> ValueHeads:
    """Heads that minimise the mean binary cross-entropy of all outcomes, and a router that names the principle.

    Each head learns from its own principle's prompts alone; what it says of others is what routing is there for.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        size, width = data.described.shape
        heads = ValueHeads(width // 3, principles)
        heads.mean.copy_(data.described.mean(dim=0))
        heads.scale.copy_(data.described.std(dim=0, correction=0).clamp(min=1e-6))
        total = epochs * -(-size // batch)
        optimizer = torch.optim.AdamW(heads.parameters(), lr=learning_rate, weight_decay=weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, total_steps=total, pct_start=0.1)
        heads.train()
        for epoch in range(epochs):
            losses = 0.0
            for rows in torch.randperm(size).split(batch):
                values, routes = heads(data.described[rows])
                logits = values.gather(1, data.column[rows].unsqueeze(1)).squeeze(1)
                n = data.n[rows]
                each = torch.nn.functional.binary_cross_entropy_with_logits(
                    logits, data.accepted[rows] / n, weight=n, reduction="sum"
                )
                routing = torch.nn.functional.cross_entropy(routes, data.column[rows])
                loss = each / n.sum() + routing
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                losses += float(each.detach())
            say(f"epoch {epoch + 1} of {epochs}: loss {losses / float(data.n.sum()):.4f}")
    return heads.eval()
