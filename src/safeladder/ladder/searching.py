"""What a search rung needs beside the ladder: where it searches, how it is rolled out, and what it first imitates."""

from __future__ import annotations

import random
from collections.abc import Sequence

from safeladder.config import SEARCH_LABEL, ColdStart, SearchRung
from safeladder.models.policy import Policy
from safeladder.rollout.conduct import Conduct
from safeladder.search.environment import SearchEnvironment, play
from safeladder.search.retriever import Document, MemoryRetriever, Retriever
from safeladder.search.settings import FirstSentences, SearchSettings
from safeladder.search.trace import STOPS, SearchFormat, encode_episode, parse_turn
from safeladder.training.auxiliary import level_place
from safeladder.training.sft import Demonstration, Encode
from safeladder.types import SafeladderError, Sample, SamplingParams
from safeladder.world import World, judge_search, next_turn, wrong_read


def retriever(rung: SearchRung, world: World | None, split: str) -> Retriever:
    """The rung's corpus, or the world's pages of a split."""
    if rung.corpus is not None:
        from safeladder.search.client import open_retriever

        return open_retriever(rung.corpus)
    assert world is not None, "checked before anything starts"
    return FirstSentences(MemoryRetriever(Document(**page) for page in world.pages(split)))


def settings_of(rung: SearchRung) -> SearchSettings:
    """What is kept with the rung's checkpoint, so that it searches later as it did in training."""
    return SearchSettings(
        top_k=rung.top_k,
        max_turns=rung.max_turns,
        turn_tokens=rung.turn_tokens,
        observation_tokens=rung.observation_tokens,
        episode_tokens=rung.episode_tokens,
        missing_words=rung.missing_words,
        first_sentences=rung.corpus is None,
        instructions=rung.instructions,
    )


def environment(rung: SearchRung, source: Retriever, policy: Policy) -> SearchEnvironment:
    """What answers the policy.

    Raises:
        SafeladderError: observations too short to say anything, or episodes longer than the model's context.
    """
    context = policy.family.text_model(policy.model).config.max_position_embeddings
    if rung.longest_reply > context:
        raise SafeladderError(
            f"an episode may take {rung.longest_reply} tokens (episode_tokens + observation_tokens + two turns), "
            f"the model has {context} positions for it and its prompt; lower episode_tokens"
        )
    return SearchEnvironment(
        source,
        policy.tokenizer,
        top_k=rung.top_k,
        observation_tokens=rung.observation_tokens,
        max_turns=rung.max_turns,
        max_tokens=rung.episode_tokens,
        missing_words=rung.missing_words,
    )


def conduct(rung: SearchRung, place: SearchEnvironment, *, temperature: float, n: int = 1) -> Conduct:
    """How a question is searched for."""
    return Conduct(
        params=SamplingParams(max_new_tokens=rung.turn_tokens, temperature=temperature, n=n, stop=STOPS),
        format=SearchFormat(),
        environment=place,
        max_turns=rung.max_turns,
    )


def instruct(rung: SearchRung, sample: Sample) -> Sample:
    """A sample to be searched for, with the rung's instructions as its system message; any other as it is."""
    return settings_of(rung).instruct(sample) if sample.label == SEARCH_LABEL else sample


class Instructed(Sequence[Sample]):
    """Samples, each with the rung's instructions once it is looked at."""

    def __init__(self, rung: SearchRung, samples: Sequence[Sample]) -> None:
        self.rung, self.samples = rung, samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, number):
        if isinstance(number, slice):
            return Instructed(self.rung, self.samples[number])
        return instruct(self.rung, self.samples[number])


def encode_search(policy: Policy, place: SearchEnvironment, settings: ColdStart, seed: str, plain: Encode) -> Encode:
    """Scripted searches played through the environment; samples of other labels by `plain`."""

    def encode(sample: Sample) -> Demonstration:
        if sample.label != SEARCH_LABEL:
            return plain(sample)
        rng = random.Random(f"{seed}/{sample.id}")
        tokenizer = policy.tokenizer
        astray: list[str] = []

        def speak(heard: Sequence[str]) -> str:
            wrong = wrong_read(sample, heard, rng) if rng.random() < settings.astray else None
            astray.extend([wrong] if wrong else [])
            return wrong or next_turn(sample, heard, rng, settings.confidence)

        episode = play(place, tokenizer, sample, speak)
        ids, mask = encode_episode(tokenizer, episode)
        mask = list(mask)
        for number, part in enumerate(episode):
            if part in astray:
                start, end = (len(encode_episode(tokenizer, episode[:n])[0]) - 1 for n in (number, number + 1))
                mask[start:end] = [0] * (end - start)
        if not settings.brier_weight:
            return Demonstration(token_ids=ids, mask=mask)
        last = str(episode[-1])
        before, _ = encode_episode(tokenizer, episode[:-1])
        stands = len(before) - 1 + level_place(tokenizer, last)  # the end token is in both
        return Demonstration(token_ids=ids, mask=mask, stated=(stands, judge_search(sample, parse_turn(last).argument)))

    return encode
