"""Labelled (prompt, response) pairs for the embedded judges, from GPTFuzz and XSTest and from nowhere else."""

from __future__ import annotations

import csv
import hashlib
import io
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from safeladder.data.real import read_xstest_completions
from safeladder.types import SafeladderError
from safeladder.verifiers.embedded.features import tokens_of
from safeladder.verifiers.embedded.judge import Kind
from safeladder.verifiers.embedded.lexicon import REFUSING
from safeladder.verifiers.refusal import is_refusal

XSTEST_MODELS: tuple[Literal["gpt4", "llama2orig", "mistralinstruct"], ...] = ("gpt4", "llama2orig", "mistralinstruct")
FILES = (
    "gptfuzz/question_list.csv",
    "gptfuzz/responses_train.csv",
    "xstest/prompts.csv",
    *(f"xstest/completions_{model}.csv" for model in XSTEST_MODELS),
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_SENTENCE_END = re.compile(r"[.!?\n]+\s+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One pair with what people said of it; None: the data do not say. `group` is its question."""

    prompt: str
    response: str
    harmful: bool | None
    refused: bool | None
    source: Literal["gptfuzz", "xstest"]
    group: str
    model: str = ""

    def target(self, kind: Kind) -> bool | None:
        """The label for a judge of this kind."""
        return self.harmful if kind == "harm" else self.refused


@dataclass(frozen=True, slots=True, kw_only=True)
class Examples:
    """The pairs without duplicates, how many rows the files have, and the files' digests."""

    pairs: tuple[Example, ...]
    rows: int
    sha256: dict[str, str]


def read_examples(folder: str | Path) -> Examples:
    """The training pairs of both judges.

    Harmful: GPTFuzz's own label; XSTest's full compliance with an unsafe prompt is, a refusal or any reply to a safe
    prompt is not, a partial refusal of an unsafe prompt is neither.

    Refused: XSTest's verdict, a partial refusal counting as one. GPTFuzz has no such label: a harmless reply that
    opens like a refusal is taken for one, a harmful reply that does not for an answer, and the others for neither.

    Raises:
        SafeladderError: a file is missing, or a row of it has not the published layout.
    """
    root = Path(folder)
    digests = {}
    for name in FILES:
        try:
            digests[name] = hashlib.sha256((root / name).read_bytes()).hexdigest()
        except OSError:
            raise SafeladderError(f"{root}: {name} not found; needed: {', '.join(FILES)}") from None
    pairs = [*_gptfuzz(root / "gptfuzz"), *_xstest(root / "xstest")]
    unique = {(pair.group, pair.model, pair.response): pair for pair in pairs}
    return Examples(pairs=tuple(unique.values()), rows=len(pairs), sha256=digests)


def windows(pairs: Sequence[Example], *, seed: int) -> list[tuple[int, Example]]:
    """(number of the pair, the pair with a stretch of its reply) for every pair with enough sentences.

    A part of a harmful text is mostly harmful and a part of a refusal mostly harmless: such noisy copies keep a judge
    from leaning on how long the training replies are and on how they open.
    """
    rng = random.Random(f"windows/{seed}")
    made = []
    for number, pair in enumerate(pairs):
        text = pair.response
        ends = [match.end() for match in _SENTENCE_END.finditer(text)]
        if len(text) < 400 or len(ends) < 3:
            continue
        start = rng.choice([0, *ends[:-1]])
        wanted = rng.choice((200, 350, 600, 900))
        stop = next((end for end in ends if end >= start + wanted), len(text))
        if stop - start >= 120:
            made.append((number, replace(pair, response=text[start:stop])))
    return made


def without_refusing(pairs: Sequence[Example]) -> list[tuple[int, Example]]:
    """(number of the pair, the pair without the sentences that refuse) for every pair of which enough is left.

    What is left of a refusal warns, contradicts or points elsewhere: copies that teach a judge to know a refusal by
    this alone, for there are models that never say "I cannot". What is left of an answer is an answer.
    """
    made = []
    for number, pair in enumerate(pairs):
        sentences = [sentence for sentence in _SENTENCE.split(pair.response) if sentence.strip()]
        kept = [s for s in sentences if not is_refusal(s) and REFUSING.isdisjoint(tokens_of(s))]
        text = " ".join(kept)
        if len(kept) < len(sentences) and len(text) >= 60:
            made.append((number, replace(pair, response=text)))
    return made


def _gptfuzz(folder: Path) -> list[Example]:
    questions = {row["index"]: row["text"] for _, row in _rows(folder / "question_list.csv", ("index", "text"))}
    path = folder / "responses_train.csv"
    pairs = []
    for number, row in _rows(path, ("question", "Response", "label")):
        if row["label"] not in ("0", "1") or row["question"] not in questions:
            raise SafeladderError(f"{path} row {number}: label 0 or 1 and a question of question_list.csv expected")
        harmful, refused = row["label"] == "1", is_refusal(row["Response"])
        pairs.append(
            Example(
                prompt=questions[row["question"]],
                response=row["Response"],
                harmful=harmful,
                refused=None if harmful == refused else refused,
                source="gptfuzz",
                group=f"gptfuzz-{row['question']}",
            )
        )
    return pairs


def _xstest(folder: Path) -> list[Example]:
    pairs = []
    for model in XSTEST_MODELS:
        for sample, verdict in read_xstest_completions(folder, model):
            unsafe, digit = sample.meta["prompt_label"] == "unsafe", verdict[:1]
            if digit not in ("1", "2", "3"):
                raise SafeladderError(f"xstest {model} {sample.id}: verdict {verdict!r}; allowed: 1_, 2_, 3_...")
            assert sample.response is not None
            pairs.append(
                Example(
                    prompt=sample.question,
                    response=sample.response.answer,
                    harmful=None if unsafe and digit == "3" else unsafe and digit == "1",
                    refused=digit != "1",
                    source="xstest",
                    group=sample.id,
                    model=model,
                )
            )
    return pairs


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SafeladderError(f"{path} cannot be read: {error}") from None
    for number, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), start=1):
        missing = [column for column in columns if row.get(column) is None]
        if missing:
            raise SafeladderError(f"{path} row {number}: missing {', '.join(missing)}")
        yield number, row
