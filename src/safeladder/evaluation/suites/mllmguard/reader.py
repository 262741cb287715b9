"""MLLMGuard's folders, each with `prompt.csv` and `imgs/`, read by column position as its own loader does."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from safeladder.data.rows import Row, read_rows, require_subset, require_unique
from safeladder.evaluation.suites.images import ask, image_part
from safeladder.types import SafeladderError, Sample

VALUE_DIMENSIONS = ("privacy", "bias", "toxicity", "legality")
HALLUCINATION, POSITION, NOISE = "hallucination", "position-swapping", "noise-injection"
TRUTHFULNESS = (HALLUCINATION, NOISE, POSITION)
FOLDERS = (*VALUE_DIMENSIONS, *TRUTHFULNESS)

SUBSETS: Mapping[str, str] = {
    "all": "all five dimensions in both languages",
    "en": "the English rows",
    "zh": "the Chinese rows",
    **{name: f"the dimension {name}" for name in (*VALUE_DIMENSIONS, "truthfulness")},
}
_LANGUAGES = {
    "en": "en", "english": "en", "英文": "en", "英语": "en",
    "zh": "zh", "cn": "zh", "ch": "zh", "chinese": "zh", "中文": "zh",
}  # fmt: skip
_VALUE_LANGUAGE, _RULE_LANGUAGE = 4, 5
_ANSWER = "Answer"
_BY_OPTIONS = {"en": "Answer with one of the options: ", "zh": "请从选项中选择作答："}
_BY_LETTER = {"en": "Answer with the letter of one option.", "zh": "请只回答一个选项的字母。"}


def read(folder: Path, subset: str) -> list[Sample]:
    """The samples of a subset. ``taxonomy`` is (dimension,) or ("truthfulness", task).

    The halves of a pair (a picture and its noisy copy, a pair of swapped options, a question asked freely and with
    options) share a group; ``meta["half"]`` is "first" or "second".

    Raises:
        SafeladderError: a malformed row, or a missing picture; a noisy copy that is missing is one too (D05).
    """
    require_subset("mllmguard", subset, SUBSETS)
    root = folder / "desensitize" if (folder / "desensitize").is_dir() else folder
    names = {"truthfulness": TRUTHFULNESS}.get(subset, (subset,) if subset in VALUE_DIMENSIONS else FOLDERS)
    samples = [sample for name in names for sample in _folder(root, name)]
    if subset in ("en", "zh"):
        samples = [sample for sample in samples if sample.language == subset]
    return require_unique(samples, root)


def _folder(root: Path, name: str) -> Iterator[Sample]:
    home = root / name
    if not home.is_dir():
        raise SafeladderError(f"mllmguard: folder {home} not found; needed: {', '.join(FOLDERS)}")
    make = {POSITION: _swapped, HALLUCINATION: _asked_twice, NOISE: _noisy}.get(name, _value)
    for number, row in enumerate(read_rows(home / "prompt.csv"), start=1):
        yield from make(home, name, number, row)


def _value(home: Path, name: str, number: int, row: Row) -> Iterator[Sample]:
    language = _language(row, _VALUE_LANGUAGE)
    yield _sample(home, name, number, row, image=_cell(row, 0), text=_cell(row, 1), language=language)


def _swapped(home: Path, name: str, number: int, row: Row) -> Iterator[Sample]:
    language = _language(row, _RULE_LANGUAGE)
    for half, column in (("first", 0), ("second", 1)):
        text = f"{_cell(row, 2)}\n{_BY_LETTER[language]}"
        yield _sample(home, name, number, row, image=_cell(row, column), text=text, language=language, half=half)


def _asked_twice(home: Path, name: str, number: int, row: Row) -> Iterator[Sample]:
    language, question, image = _language(row, _RULE_LANGUAGE), _cell(row, 1), _cell(row, 0)
    yield _sample(home, name, number, row, image=image, text=question, language=language, half="first")
    text = f"{question}\n{_BY_OPTIONS[language]}{_cell(row, 2)}"
    yield _sample(home, name, number, row, image=image, text=text, language=language, half="second")


def _noisy(home: Path, name: str, number: int, row: Row) -> Iterator[Sample]:
    language, image = _language(row, _RULE_LANGUAGE), _cell(row, 0)
    clean = PurePosixPath(image)
    noisy = str(clean.with_name(f"{clean.stem}_noise{clean.suffix}"))
    gold = row.text(_ANSWER).strip().strip("().").upper()
    if gold not in ("A", "B"):
        raise row.error(f"{_ANSWER} {gold[:20]!r}; allowed: A, B")
    for half, shown in (("first", image), ("second", noisy)):
        text = f"{_cell(row, 1)}\n{_BY_LETTER[language]}"
        yield _sample(home, name, number, row, image=shown, text=text, language=language, half=half, reference=gold)


def _sample(
    home: Path,
    name: str,
    number: int,
    row: Row,
    *,
    image: str,
    text: str,
    language: str,
    half: str = "",
    reference: str | None = None,
) -> Sample:
    group = f"mllmguard-{name}-{number}"
    return Sample(
        id=f"{group}-{half}" if half else group,
        messages=ask(text, image_part(home / "imgs", image, row)),
        label="safety" if name in VALUE_DIMENSIONS else "general_rule",
        reference=reference,
        taxonomy=(name,) if name in VALUE_DIMENSIONS else ("truthfulness", name),
        source="mllmguard",
        group_id=group,
        language=language,
        meta={"task": name, "half": half},
    )


def _cell(row: Row, column: int) -> str:
    cells = list(row.values.items())
    if len(cells) <= column:
        raise row.error(f"{len(cells)} columns; column {column + 1} is needed")
    name, value = cells[column]
    if not isinstance(value, str) or not value.strip():
        raise row.error(f"column {column + 1} ({name}) is blank")
    return value.strip()


def _language(row: Row, column: int) -> str:
    said = _cell(row, column)
    language = _LANGUAGES.get(said.casefold())
    if language is None:
        raise row.error(f"language {said[:20]!r}; allowed: {', '.join(_LANGUAGES)}")
    return language
