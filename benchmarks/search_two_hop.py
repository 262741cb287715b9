"""One search against a scripted second one on real questions: how often five passages hold the answer.

    python benchmarks/search_two_hop.py [--data ../shared/data/search_qa] [--passages 5]

Both searchers use the same retriever and bring home the same number of passages; once with plain BM25, once with our
index, whose single search already looks twice (relevance feedback) and spreads its results over the question. A
question counts as answered when the words of its answer stand in one of them, in order, articles aside. Yes/no
questions are left out: their answer stands nowhere. The rules were chosen on the even questions of all three sets and
both retrievers.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from safeladder.search.index import build_index
from safeladder.search.index_retriever import IndexRetriever
from safeladder.search.retriever import Document, MemoryRetriever, Retriever
from safeladder.search.scripted import Gathered, one_shot, two_hop
from safeladder.search.words import words

_ARTICLES = {"a", "an", "the"}
_RESAMPLES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Questions:
    """A data set: (question, answer) pairs and the passages they are asked of."""

    name: str
    pairs: tuple[tuple[str, str], ...]
    pages: tuple[Document, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/search_qa"))
    parser.add_argument("--passages", type=int, default=5)
    options = parser.parse_args()
    results = []
    for questions in load(options.data):
        for name, retriever in (("plain BM25", MemoryRetriever(questions.pages)), ("our index", indexed(questions))):
            results.append(measure(questions, name, retriever, options.passages))
    print(table([*results, *(pooled(results, name) for name in ("plain BM25", "our index"))]))


def indexed(questions: Questions) -> Retriever:
    """The passages in an index on disk, which is gone afterwards (an open index needs no names for its files)."""
    with tempfile.TemporaryDirectory() as folder:
        corpus = Path(folder, "corpus.jsonl")
        lines = [json.dumps(asdict(page), ensure_ascii=False) for page in questions.pages]
        corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
        build_index(corpus, Path(folder, "index"))
        return IndexRetriever(Path(folder, "index"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Hits [n, 2] of one search and of two, in the questions' order, and means a question."""

    name: str
    retriever: str
    found: np.ndarray
    odd: np.ndarray
    possible: float
    """Share of questions whose answer stands in any passage at all."""
    searches: float
    reads: float


def measure(questions: Questions, name: str, retriever: Retriever, passages: int) -> Measured:
    """Run both searchers over a data set."""
    pairs = [(i, q, a) for i, (q, a) in enumerate(questions.pairs) if plain(a).strip() not in ("yes", "no")]
    texts = [plain(f"{page.title} {page.text}") for page in questions.pages]
    gathered: list[Gathered] = []
    found = []
    for _, question, answer in pairs:
        once, twice = (searcher(retriever, question, passages) for searcher in _SEARCHERS)
        gathered.append(twice)
        found.append([answered(answer, once.pages), answered(answer, twice.pages)])
    return Measured(
        name=questions.name,
        retriever=name,
        found=np.array(found, dtype=float),
        odd=np.array([bool(i % 2) for i, _, _ in pairs]),
        possible=float(np.mean([any(plain(answer) in text for text in texts) for _, _, answer in pairs])),
        searches=float(np.mean([len(g.queries) for g in gathered])),
        reads=float(np.mean([g.reads for g in gathered])),
    )


def pooled(results: Sequence[Measured], retriever: str) -> Measured:
    """All data sets as one."""
    parts = [r for r in results if r.retriever == retriever]
    sizes = np.array([len(r.odd) for r in parts])

    def mean(values: Sequence[float]) -> float:
        return float(np.average(values, weights=sizes))

    return Measured(
        name="together",
        retriever=retriever,
        found=np.concatenate([r.found for r in parts]),
        odd=np.concatenate([r.odd for r in parts]),
        possible=mean([r.possible for r in parts]),
        searches=mean([r.searches for r in parts]),
        reads=mean([r.reads for r in parts]),
    )


_SEARCHERS: tuple[Callable[[Retriever, str, int], Gathered], ...] = (one_shot, two_hop)


def plain(text: str) -> str:
    """Words without articles, a space on either side of each."""
    return f" {' '.join(word for word in words(text) if word not in _ARTICLES)} "


def answered(answer: str, pages: Sequence[Document]) -> bool:
    """Whether a page holds the answer's words in order."""
    return any(plain(answer) in plain(f"{page.title} {page.text}") for page in pages)


def table(results: Sequence[Measured]) -> str:
    """Answers found, % of questions; the difference with its paired bootstrap interval."""
    lines = [
        "| data | retriever | questions | n | in the corpus | one search | two hops | difference (95 % CI) | "
        "searches, reads |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for result in results:
        halves = (("all", np.ones(len(result.odd), bool)), ("even (chosen on)", ~result.odd), ("odd", result.odd))
        for half, chosen in halves:
            found = result.found[chosen]
            once, twice = found.mean(0)
            low, high = _interval(found[:, 1] - found[:, 0])
            extra = f"{result.possible:.1%} | " if half == "all" else " | "
            cost = f"{result.searches:.1f}, {result.reads:.1f}" if half == "all" else ""
            lines.append(
                f"| {result.name} | {result.retriever} | {half} | {len(found)} | {extra}{once:.1%} | {twice:.1%} | "
                f"{100 * (twice - once):+.1f} ({100 * low:+.1f} to {100 * high:+.1f}) | {cost} |"
            )
    return "\n".join(lines)


def _interval(differences: np.ndarray) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    means = rng.choice(differences, (_RESAMPLES, len(differences))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def load(folder: Path) -> list[Questions]:
    """Bamboogle, HotpotQA and the questions of IRCoT's prompts (three sources, one corpus)."""
    rows = [
        Questions(
            name=name,
            pairs=tuple((row["question"], row["answer"]) for row in _lines(folder / f"{file}.jsonl")),
            pages=tuple(Document(**row) for row in _lines(folder / f"{name.lower()}_passages.jsonl")),
        )
        for name, file in (("Bamboogle", "bamboogle"), ("HotpotQA", "hotpotqa_500"))
    ]
    return [*rows, ircot([folder / f"ircot_{part}.txt" for part in ("hotpotqa", "2wikimultihopqa", "musique")])]


def _lines(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ircot(files: Sequence[Path]) -> Questions:
    """Blocks of `Wikipedia Title: …` paragraphs, `Q: …` and `A: … answer is: …`."""
    pairs: list[tuple[str, str]] = []
    pages: dict[tuple[str, str], None] = {}
    for file in files:
        for block in re.split(r"^# METADATA: .*\n", file.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
            *paragraphs, last = re.split(r"\n\n(?=Wikipedia Title: |Q: )", block.strip())
            for paragraph in paragraphs:
                title, text = paragraph.removeprefix("Wikipedia Title: ").split("\n", 1)
                pages[title.strip(), text.strip()] = None
            question, reply = last.removeprefix("Q: ").split("\nA: ", 1)
            answer = re.search(r"answer is:?\s*(.*?)\.?\s*$", reply)
            if answer is None:
                raise ValueError(f"{file.name}: no answer in {reply!r}")
            pairs.append((question.strip(), answer[1]))
    documents = tuple(Document(id=str(i), title=title, text=text) for i, (title, text) in enumerate(pages))
    return Questions(name="IRCoT", pairs=tuple(pairs), pages=documents)


if __name__ == "__main__":
    main()
