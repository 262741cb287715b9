"""What each rung trains and is measured on: the procedural world, the user's files, or both."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from safeladder.config import SEARCH_LABEL, ColdStart, Recipe, RlRung, SftRung, Supervised
from safeladder.data.curation import Check, consistency_check, reasoning_check
from safeladder.data.samples import read_samples
from safeladder.data.splits import split_by_group
from safeladder.rollout.parse import ResponseFormat
from safeladder.search.environment import NOTICES
from safeladder.types import Response, SafeladderError, Sample
from safeladder.verifiers import ReasoningHeuristic, RewardRecipe, available
from safeladder.world import CAPABILITY, KINDS, KNOWLEDGE, SAFETY, SEARCH, VALUE, World, WorldConfig, judge
from safeladder.world.teachers import demonstrate

_EVALUATED = ((CAPABILITY, 0.4), (SAFETY, 0.3), (VALUE, 0.1), (KNOWLEDGE, 0.2))
"""The kinds of each principle and their share of the evaluation set."""

_SAFETY_LABELS = ("safety", "jailbreak")


class LadderData:
    """All samples of a run. The world's are drawn from (seed, rung); files are split by group once.

    Raises:
        SafeladderError: a malformed file, or a label that no reward recipe of the run knows.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.format = ResponseFormat(open_tag=recipe.data.open_tag, close_tag=recipe.data.close_tag)
        self.world: World | None = None
        if recipe.data.world is not None:
            settings = recipe.data.world
            self.world = World(
                WorldConfig(
                    seed=recipe.seed,
                    grid=settings.grid,
                    difficulty=settings.difficulty,
                    chinese_share=settings.chinese_share,
                )
            )
        self.train_files: list[Sample] = []
        self.held_out_files: list[Sample] = []
        if recipe.data.files:
            # All files at once: a prompt that stands in two of them belongs to one side.
            rows = [sample for path in recipe.data.files for sample in self._read(path)]
            _require_distinct(rows)
            self.train_files, self.held_out_files = split_by_group(rows, recipe.data.held_out_share)

    def _read(self, path: str) -> list[Sample]:
        verifiers = available(world=self.world is not None)
        requires: dict[str, frozenset[str]] = {}
        labels: set[str] | None = None
        for rung in self.recipe.rungs.values():
            if not isinstance(rung, RlRung):
                continue
            table = RewardRecipe.load(rung.rewards, verifiers, ())  # every row must have its verifiers
            labels = set(table.rows) if labels is None else labels & set(table.rows)
            for label, needs in table.requires(verifiers).items():
                requires[label] = requires.get(label, frozenset()) | needs
        return read_samples(path, labels=labels, format=self.format, requires=requires)

    def texts(self) -> list[str]:
        """A corpus for the tokenizer of a model that is trained from scratch."""
        # Whether or not the recipe searches: a base that is cached must not depend on later rungs.
        texts = [*self.world.texts(), *NOTICES] if self.world is not None else []
        for sample in self.train_files:
            texts += [m.text for m in sample.messages]
            if sample.response is not None:
                texts.append(self.format.render(sample.response))
        return texts

    def prompts(self, rung: str, count: int, mix: Mapping[str, float], *, search: bool = False) -> list[Sample]:
        """Training prompts of a rung or stage.

        `mix` may name world kinds (with weights) and labels of file rows (which then limit the rows). Only with
        `search` are there samples to be searched for.
        """
        kinds = {name: weight for name, weight in mix.items() if name in (*KINDS, *SEARCH)}
        labels = mix.keys() - kinds.keys()
        drawn = [s for s in self.train_files if not labels or s.label in labels]
        if self.world is not None and (kinds or not mix):
            every = _alike(SEARCH) if search else _even()
            drawn += self.world.samples("train", count, kinds or every, start=_offset(rung))
        return [s for s in drawn if search or s.label != SEARCH_LABEL]

    def demonstrations(self, name: str, rung: SftRung | ColdStart) -> Sequence[Sample]:
        """Training samples with responses: the files' own, and the world's by the rung's teacher styles.

        Samples to be searched for have none: their script needs an environment.
        """
        own = [s for s in self.train_files if s.response is not None]
        if self.world is None:
            if not own:
                raise SafeladderError(f"rung {name}: no row of the data files has an assistant message to learn from")
            return own
        return _Demonstrated(self.world, rung, f"{self.recipe.seed}/{name}", own, _offset(name))

    def reasoning_checks(self) -> list[Check]:
        """What curation asks of the reasoning: exact on world items, refusal rules on the files' safety rows."""
        rules = reasoning_check(ReasoningHeuristic(), 0.5, self.format)

        def check(rows: Sequence[Sample]) -> list[str | None]:
            reasons: list[str | None] = [None] * len(rows)
            world = [i for i, row in enumerate(rows) if row.source == "world"]
            files = [i for i, row in enumerate(rows) if row.source != "world" and row.label in _SAFETY_LABELS]
            for chosen, one in ((world, consistency_check(judge)), (files, rules)):
                for i, reason in zip(chosen, one([rows[i] for i in chosen]), strict=True):
                    reasons[i] = reason
            return reasons

        return [check]

    def held_out(self) -> list[Sample]:
        """The evaluation set: held-out world items, evenly over the kinds of each principle, and held-out rows."""
        samples = [s for s in self.held_out_files if s.label != SEARCH_LABEL]
        if self.world is not None:
            for kinds, share in _EVALUATED:
                count = round(share * self.recipe.evaluation.samples)
                samples += self.world.samples("heldout", count, _alike(kinds))
        if not samples:
            raise SafeladderError("nothing is held out for evaluation: raise data.held_out_share or add rows")
        return samples

    def held_out_searches(self) -> list[Sample]:
        """What search rungs are measured on: held-out questions of the world, evenly over the kinds, and rows."""
        samples = [s for s in self.held_out_files if s.label == SEARCH_LABEL]
        if self.world is not None:
            samples += self.world.samples("heldout", self.recipe.evaluation.search_samples, _alike(SEARCH))
        if not samples:
            raise SafeladderError(
                f"no row of label {SEARCH_LABEL!r} is held out: raise data.held_out_share or add rows"
            )
        return samples


class _Demonstrated(Sequence[Sample]):
    """World items with a teacher's response, made when they are looked at: pictures of a whole rung fill gigabytes."""

    def __init__(self, world: World, rung: Supervised, seed: str, own: Sequence[Sample], start: int) -> None:
        self.world, self.rung, self.seed, self.own = world, rung, seed, own
        every = _even() if isinstance(rung, SftRung) else _alike(SEARCH)
        self.drawn = world.draw("train", rung.samples, rung.mix or every, start=start)

    def __len__(self) -> int:
        return len(self.own) + len(self.drawn)

    def __getitem__(self, number):
        if isinstance(number, slice):
            return [self[i] for i in range(*number.indices(len(self)))]
        if number >= len(self) or number < -len(self):
            raise IndexError(number)
        number %= len(self)
        if number < len(self.own):
            return self.own[number]
        kind, index = self.drawn[number - len(self.own)]
        sample = self.world.item(kind, "train", index)
        if sample.label == SEARCH_LABEL:
            return replace(sample, id=f"{sample.id}-{number}")
        response = _teach(sample, self.rung, random.Random(f"{self.seed}/{number}/teacher"))
        return replace(sample, id=f"{sample.id}-{number}", response=response)


def _teach(sample: Sample, rung: Supervised, rng: random.Random) -> Response:
    styles = rung.kind_styles.get(sample.meta["kind"], rung.styles)
    if not styles:
        kind = sample.meta["kind"]
        raise SafeladderError(f"no teacher style for {kind!r} items: set the rung's styles, or its kind_styles.{kind}")
    names, weights = list(styles), list(styles.values())
    response = demonstrate(sample, rng.choices(names, weights)[0], rng)
    spoiled = isinstance(rung, SftRung) and rng.random() < rung.teacher_noise
    return _spoil(sample, response, rng) if spoiled else response


def _spoil(sample: Sample, response: Response, rng: random.Random) -> Response:
    """What careless annotators and generators leave in a data set: guesses, compliance, and broken forms."""
    ways: Sequence[Callable[[], Response]] = (
        lambda: demonstrate(sample, "guess", rng),
        lambda: demonstrate(sample, "comply", rng),
        lambda: Response(reasoning=None, answer=response.answer),
        lambda: Response(reasoning=response.reasoning, answer=""),
        lambda: Response(reasoning=f"{response.reasoning} " * 8, answer=response.answer),
    )
    return rng.choice(ways)()


def _require_distinct(samples: Sequence[Sample]) -> None:
    """Rows are known by their ids, also where several files are read."""
    seen: set[str] = set()
    for sample in samples:
        if sample.id in seen:
            raise SafeladderError(f"data.files: id {sample.id!r} occurs in more than one file; ids must be unique")
        seen.add(sample.id)


def _even() -> dict[str, float]:
    return _alike([kind for kinds, _ in _EVALUATED for kind in kinds])


def _alike(kinds: Sequence[str]) -> dict[str, float]:
    return dict.fromkeys(kinds, 1.0)


def _offset(name: str) -> int:
    """Rungs draw from different places of the endless item streams."""
    return random.Random(f"stream/{name}").randrange(1 << 20)
