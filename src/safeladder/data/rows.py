"""Rows of published benchmark files: JSON, JSON lines, CSV. Every complaint names the file and the row."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safeladder.types import SafeladderError, Sample

_SHOWN = 60
_FIELD = 10_000_000
"""Characters a CSV field may have; the csv module's own limit (131,072) is below some published questions."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row and where it stands. The getters raise `SafeladderError` naming file, row and field."""

    where: str
    values: Mapping[str, Any]

    def error(self, message: str) -> SafeladderError:
        """A complaint about this row."""
        return SafeladderError(f"{self.where}: {message}")

    def has(self, key: str) -> bool:
        """Whether the field is there and not null."""
        return self.values.get(key) is not None

    def text(self, key: str) -> str:
        """A string that is not blank."""
        value = self._value(key)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{key} must be a text that is not blank")
        return self._encodable(key, value)

    def optional(self, key: str) -> str | None:
        """A text, or None where the field is missing, null or blank (CSV has no null)."""
        value = self.values.get(key)
        return None if value is None or (isinstance(value, str) and not value.strip()) else self.text(key)

    def word(self, key: str) -> str:
        """A short text; a number is taken as its digits (ids are written both ways)."""
        value = self._value(key)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if not isinstance(value, str) or not value.strip():
            raise self.error(f"{key} must be a text or a whole number")
        return self._encodable(key, value).strip()

    def one_of(self, key: str, allowed: Collection[str]) -> str:
        """A text out of a closed list."""
        value = self.word(key)
        if value not in allowed:
            raise self.error(f"{key} {value[:_SHOWN]!r}; allowed: {', '.join(sorted(allowed))}")
        return value

    def texts(self, key: str) -> list[str]:
        """A list of texts, not empty, none of them blank."""
        value = self._value(key)
        if not isinstance(value, list) or not value:
            raise self.error(f"{key} must be a list of texts that is not empty")
        if not all(isinstance(item, str) and item.strip() for item in value):
            raise self.error(f"{key} holds something that is no text, or a blank one")
        return [self._encodable(key, item) for item in value]

    def rows(self, key: str) -> list[Row]:
        """A list of objects, as rows of their own."""
        value = self._value(key)
        if not isinstance(value, list):
            raise self.error(f"{key} must be a list of objects")
        return list(_objects(value, f"{self.where} {key}", "item"))

    def _value(self, key: str) -> Any:
        if not self.has(key):
            raise self.error(f"missing {key}")
        return self.values[key]

    def _encodable(self, key: str, value: str) -> str:
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.error(f"{key} is not valid Unicode") from None
        return value


def read_rows(path: Path, *, fallback: str | None = None) -> list[Row]:
    """The rows of a `.csv`, `.tsv`, `.jsonl` or `.json` file; a `.json` file may hold an array or JSON lines.

    `fallback` is the encoding of a file that is not UTF-8.

    Raises:
        SafeladderError: the file is missing, empty or malformed.
    """
    text = read_text(path, fallback=fallback)
    if path.suffix in (".csv", ".tsv"):
        rows = list(_table(path, text, "\t" if path.suffix == ".tsv" else ","))
    elif path.suffix == ".jsonl" or _is_lines(text):
        rows = list(_lines(path, text))
    else:
        value = parse_json(text, str(path))
        if not isinstance(value, list):
            raise SafeladderError(f"{path}: a JSON array of rows is needed")
        rows = list(_objects(value, str(path), "row"))
    if not rows:
        raise SafeladderError(f"{path} holds no rows")
    return rows


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds one object.

    Raises:
        SafeladderError: the file is missing, malformed, empty or something else.
    """
    value = parse_json(read_text(path), str(path))
    if not isinstance(value, dict) or not value:
        raise SafeladderError(f"{path}: a JSON object that is not empty is needed")
    return value


def keyed_rows(values: Mapping[str, Any], where: str) -> list[Row]:
    """The rows of an object of objects, in order; `where` and the key name them."""
    rows = []
    for key, value in values.items():
        if not isinstance(value, dict):
            raise SafeladderError(f"{where} row {key[:_SHOWN]!r}: not an object")
        rows.append(Row(f"{where} row {key[:_SHOWN]!r}", value))
    return rows


def require_unique(samples: Sequence[Sample], where: Path) -> list[Sample]:
    """The samples, where no two have one id.

    Raises:
        SafeladderError: two rows have one id (one would replace the other's answer), or there is no sample.
    """
    seen: set[str] = set()
    for number, sample in enumerate(samples, start=1):
        if sample.id in seen:
            raise SafeladderError(f"{where} sample {number}: the id {sample.id[:_SHOWN]!r} appears twice")
        seen.add(sample.id)
    if not samples:
        raise SafeladderError(f"{where} holds no rows of this subset")
    return list(samples)


def require_subset(suite: str, subset: str, subsets: Collection[str]) -> None:
    """Complain about a subset the suite does not have."""
    if subset not in subsets:
        raise SafeladderError(f"{suite} has no subset {subset!r}; allowed: {', '.join(subsets)}")


def read_text(path: Path, *, fallback: str | None = None) -> str:
    """A UTF-8 file, or one in the encoding `fallback`.

    Raises:
        SafeladderError: missing or unreadable.
    """
    try:
        raw = path.read_bytes()
        try:
            return raw.decode("utf-8-sig")
        except UnicodeDecodeError:
            if fallback is None:
                raise
            return raw.decode(fallback)
    except FileNotFoundError:
        raise SafeladderError(f"benchmark file {path} not found") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SafeladderError(f"benchmark file {path} row {line}: not {fallback or 'UTF-8'} text") from None
    except (OSError, ValueError) as error:
        raise SafeladderError(f"benchmark file {path} cannot be read: {error}") from None


def parse_json(text: str, where: str) -> Any:
    """Strict JSON: no NaN, no key twice in an object (the first would be lost).

    Raises:
        SafeladderError: anything else; `where` is named.
    """
    try:
        return _STRICT.decode(text)
    except json.JSONDecodeError as error:
        raise SafeladderError(f"{where} is not valid JSON: {error}") from None
    except (ValueError, RecursionError) as error:
        raise SafeladderError(f"{where}{_bad_item(text)} is not usable JSON: {error}") from None


def _bad_item(text: str) -> str:
    """Which item of an array cannot be decoded, as " row N"; empty where the text is no array."""
    place = text.find("[")
    if place < 0 or text[:place].strip():
        return ""
    number = 0
    while place >= 0 and (start := _NOT_SPACE.search(text, place + 1)):
        number += 1
        try:
            _, end = _STRICT.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            return f" row {number}"
        place = text.find(",", end)
    return ""


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {twice[:_SHOWN]!r} appears twice in one object")
    return found


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON number")


_NOT_SPACE = re.compile(r"\S")
_STRICT = json.JSONDecoder(object_pairs_hook=_unique_keys, parse_constant=_no_constant)


def _is_lines(text: str) -> bool:
    """Whether a `.json` file is really JSON lines: a complete object on its first line, and more lines."""
    first, _, rest = text.strip().partition("\n")
    if not first.lstrip().startswith("{") or not rest.strip():
        return False
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(path: Path, text: str) -> Iterator[Row]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            where = f"{path} row {number}"
            value = parse_json(line, where)
            if not isinstance(value, dict):
                raise SafeladderError(f"{where}: not an object")
            yield Row(where, value)


def _objects(values: list[Any], where: str, noun: str) -> Iterator[Row]:
    for number, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise SafeladderError(f"{where} {noun} {number}: not an object")
        yield Row(f"{where} {noun} {number}", value)


def _table(path: Path, text: str, delimiter: str) -> Iterator[Row]:
    limit = csv.field_size_limit(_FIELD)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        header = next(reader, [])
        if len(set(header)) < len(header):
            raise SafeladderError(f"{path} row 1: a column name appears twice")
        for number, cells in enumerate(reader, start=2):
            if not cells:
                continue
            if len(cells) != len(header):
                raise SafeladderError(f"{path} row {number}: {len(cells)} fields, the header has {len(header)}")
            yield Row(f"{path} row {number}", dict(zip(header, cells, strict=True)))
    except csv.Error as error:
        raise SafeladderError(f"{path} row {reader.line_num}: not valid CSV: {error}") from None
    finally:
        csv.field_size_limit(limit)
