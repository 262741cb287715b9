"""The scripted searcher of the world's pages: what a careful reader would do next, having read so much.

It knows the question and what it was shown, nothing else. Its turns are in the grammar of `search.trace`; its thoughts
are short and made of words that stand in the context, so that a small model learns them by copying. It needs five turns
for a question of two hops.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from random import Random

from safeladder.types import SafeladderError, Sample
from safeladder.world.families.search import SOME_SAY, UNKNOWN
from safeladder.world.lexicon import pick, tr

CONFIDENCE: dict[str, dict[str, tuple[int, ...]]] = {
    "calibrated": {"open": (5,), "stated": (8, 9), "disputed": (2, 3, 4), "nothing": (0, 1)},
    "overconfident": dict.fromkeys(("open", "stated", "disputed", "nothing"), (0, 1, 2, 3, 4, *(7, 8, 9) * 5)),
    "uniform": dict.fromkeys(("open", "stated", "disputed", "nothing"), tuple(range(10))),
}
"""Style to the levels it states, each as likely as it is listed, by what it has found: nothing yet, a plain statement,
a dispute, or that there is nothing to find. Only `calibrated` looks at it: the others teach the form and no more.
None states 10: where digits are tokens it takes two."""

_RESULT = re.compile(r"\b([a-z]\d\d)\b\W+([a-z]+ [a-z]+)\b")
"""The id of a page, and its title after it."""


def next_turn(sample: Sample, observations: Sequence[str], rng: Random, style: str = "calibrated") -> str:
    """The next turn's text, given the texts of the observations so far.

    Of the sample's truth it reads who and what is asked about. A search shows ids, each followed by its title,
    and a read the page's text; nothing else of their layout matters. The first turn plans: who and what is wanted, in
    the order in which it will be looked up; it states no confidence. `rng` draws the confidence, and among disputed
    values the answer.

    Errors: SafeladderError on an unknown style or a sample that is not of the search family.
    """
    if style not in CONFIDENCE:
        raise SafeladderError(f"unknown style of confidence {style!r}; allowed: {', '.join(CONFIDENCE)}")
    truth, language = sample.meta["truth"], sample.language
    if sample.meta["family"] != "search":
        raise SafeladderError(f"{sample.meta['kind']!r} items are not searched for")

    def say(thought: str, found: str, action: str, argument: str) -> str:
        confidence = rng.choice(CONFIDENCE[style][found])
        return f"<think> {thought}</think><confidence> {confidence}</confidence><{action}> {argument}</{action}>"

    name, unknown = truth["entity"], pick(language, *UNKNOWN)
    wishes = list(filter(None, (truth["tie"], truth["attribute"])))
    heard = iter(observations)
    results = next(heard, None)
    if results is None:
        plan = " ".join([name, *(tr(language, wish) for wish in wishes)])
        return f"<think> {plan}</think><search> {name}</search>"
    for wish in wishes:
        page, text = _page(name, results), next(heard, None)
        if text is None and page:
            return say(f"{name} {page}", "open", "read", page)
        if text is None or _is_about_another(name, text):
            return say(f"{name} {unknown}", "nothing", "answer", unknown)
        looked = f"{name.split()[1]} {tr(language, wish)}"
        values, disputed = _statement(name, tr(language, wish), text, language)
        if not values:
            return say(f"{looked} {unknown}", "nothing", "answer", unknown)
        value = rng.choice(values)
        if disputed:
            return say(f"{looked} {pick(language, *SOME_SAY[0])} {value}", "disputed", "answer", value)
        if wish == truth["attribute"]:
            return say(f"{looked} {value}", "stated", "answer", value)
        name, results = value, next(heard, None)
        if results is None:
            return say(f"{looked} {name}", "open", "search", name)
    raise AssertionError("unreachable: the last wish is always answered")


def wrong_read(sample: Sample, observations: Sequence[str], rng: Random) -> str | None:
    """A turn that reads a page which the newest results show, but not the one of the name that was searched for.

    It is what a hasty reader does. None where the newest observation is no result or shows no other page.
    """
    if len(observations) % 2 == 0:
        return None
    truth, language = sample.meta["truth"], sample.language
    name = truth["entity"]
    if len(observations) > 1:
        name = _statement(name, tr(language, truth["tie"]), observations[1], language)[0][0]
    others = [page for page, title in _RESULT.findall(observations[-1]) if title != name]
    if not others:
        return None
    page = rng.choice(others)
    return f"<think> {name} {page}</think><confidence> 5</confidence><read> {page}</read>"


def _is_about_another(name: str, text: str) -> bool:
    """Whether a page's text begins with the title of another page."""
    title = _RESULT.search(text)
    return title is not None and title[2] != name


def _page(name: str, results: str) -> str:
    """The id of the page of this title, empty where no result has it."""
    return next((page for page, title in _RESULT.findall(results) if title == name), "")


def _statement(name: str, what: str, text: str, language: str) -> tuple[list[str], bool]:
    """The values that a page's text states, and whether they are in dispute."""
    found = re.search(rf"\b{name} {what} ([^.]+?) \.", text)
    if not found:
        return [], False
    first, more = (pick(language, *words) for words in SOME_SAY)
    if not found[1].startswith(f"{first} "):
        return [found[1]], False
    return [value.removeprefix(f"{first} ").removeprefix(f"{more} ") for value in found[1].split(" , ")], True


def rehearse(
    sample: Sample, pages: Sequence[dict[str, str]], rng: Random, style: str = "calibrated"
) -> Iterator[tuple[str, str]]:
    """A whole search over `pages` without a search engine: (who, text), "policy" and "environment" in turn.

    Pages are ranked by how many words of the query their titles hold and shown as the environment shows them. For
    looking at, and for a tokenizer's corpus; to train, play the turns through the real environment.
    """
    observations: list[str] = []
    while True:
        turn = next_turn(sample, observations, rng, style)
        yield "policy", turn
        action, argument = re.findall(r"<(search|read|answer)> (.*?)</", turn)[0]
        if action == "answer":
            return
        observations.append(_look_up(pages, argument) if action == "search" else _open(pages, argument))
        yield "environment", observations[-1]


def _look_up(pages: Sequence[dict[str, str]], query: str) -> str:
    shared = [(len({*query.split()} & {*page["title"].split()}), page) for page in pages]
    best = sorted((pair for pair in shared if pair[0]), key=lambda pair: -pair[0])[:3]
    return "\n".join(
        f"{n}) id {page['id']} | {page['title']} | {page['text'].split(' .')[0]} ."
        for n, (_, page) in enumerate(best, start=1)
    )


def _open(pages: Sequence[dict[str, str]], id: str) -> str:
    page = next(page for page in pages if page["id"] == id)
    # As in every observation, what looks like a tag is made inert.
    return f"id {id} | {page['title']}\n{page['text']}".replace("<", "‹")
