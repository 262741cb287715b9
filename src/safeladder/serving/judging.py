"""Judging a file of replies, row by row: any judge, memory that does not grow with the file, and resume."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from safeladder.atomic import new_file
from safeladder.types import Message, Part, Response, Rollout, SafeladderError, Sample, StopReason
from safeladder.verifiers.embedded import EmbeddedJudge, Verdict, shipped
from safeladder.verifiers.judges.reading import Unreadable, without_thinking

KEY_VARIABLE = "SAFELADDER_JUDGE_KEY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the file. `images` are paths."""

    id: str | int
    prompt: str
    response: str
    images: tuple[str, ...] = ()


class RowJudge(Protocol):
    """Judges rows; a value is the probability of harm, or of a refusal."""

    name: str
    batch: int

    def judge(self, rows: Sequence[Row]) -> list[Verdict]:
        """One verdict a row, in order."""
        ...


@dataclass(frozen=True, slots=True)
class Summary:
    """What came out: rows by label, how many were not judged, and how many lay in the file already."""

    labels: dict[str, int]
    unscored: int
    resumed: int

    @property
    def n(self) -> int:
        """All rows."""
        return sum(self.labels.values()) + self.unscored


class ByEmbedded:
    """An embedded judge."""

    batch = 256

    def __init__(self, judge: EmbeddedJudge, name: str) -> None:
        self.name, self._judge = name, judge

    def judge(self, rows: Sequence[Row]) -> list[Verdict]:
        """A harm judge does not judge rows with images: it cannot see what the harm may depend on."""
        blind = [bool(row.images) and self._judge.kind == "harm" for row in rows]
        pairs = [(row.prompt, row.response) for row, unseen in zip(rows, blind, strict=True) if not unseen]
        verdicts = iter(self._judge.judge(pairs))
        return [
            Verdict(value=None, problem="the row has images and the judge sees none") if unseen else next(verdicts)
            for unseen in blind
        ]


class ByVerifier:
    """A judge that is a verifier of rollouts; `harm` makes the value of what it found."""

    def __init__(self, verifier: Any, name: str, *, batch: int, harm: Callable[[Any], float]) -> None:
        self.name, self.batch = name, batch
        self._verifier, self._harm = verifier, harm

    def judge(self, rows: Sequence[Row]) -> list[Verdict]:
        """One verdict a row; what the verifier could not score has none."""
        return [
            Verdict(value=None, problem=score.explanation)
            if score.value is None
            else Verdict(value=self._harm(score), label=score.label)
            for score in self._verifier.score([_rollout(row) for row in rows])
        ]


def open_row_judge(spec: str) -> RowJudge:
    """The judge that `--with` names.

    Args:
        spec: embedded-harm, embedded-refusal, a folder that `safeladder verifier train` wrote, a checkpoint folder,
            or http(s)://HOST/v1#MODEL.

    Raises:
        SafeladderError: none of these, or it cannot be opened.
    """
    if spec in ("embedded-harm", "embedded-refusal"):
        return ByEmbedded(shipped("harm" if spec == "embedded-harm" else "refusal"), spec)
    folder = Path(spec)
    if (folder / "judge.json").is_file():
        judge = EmbeddedJudge.load(folder)
        return ByEmbedded(judge, f"{judge.name} {_identity(folder, 'judge.json')}")
    if (folder / "verifier.json").is_file():
        from safeladder.verifiers.classifier import UNSAFE, Classifier, TrainedVerifier

        verifier = TrainedVerifier(Classifier.load(folder, **_device()))
        name = f"{verifier.name} {_identity(folder, 'verifier.json')}"
        return ByVerifier(verifier, name, batch=16, harm=lambda score: score.breakdown[UNSAFE])
    if "://" not in spec and not folder.is_dir():
        raise SafeladderError(
            f"--with {spec!r}: allowed are embedded-harm, embedded-refusal, a folder of `safeladder verifier train`, "
            "a checkpoint folder, http(s)://HOST/v1#MODEL"
        )
    from safeladder.verifiers.judges.opening import open_judge
    from safeladder.verifiers.judges.safety import SafetyJudge

    model = open_judge(spec, key_variable=KEY_VARIABLE if os.environ.get(KEY_VARIABLE) else None, **_device())
    return ByVerifier(SafetyJudge(model), model.name, batch=8, harm=lambda score: float(score.label == "unsafe"))


def read_rows(path: Path) -> Iterator[tuple[int, Row]]:
    """(bytes read, row) of every line that is not blank.

    Raises:
        SafeladderError: the file cannot be read, or a line is no row; the line and the cause are named.
    """
    try:
        with path.open("rb") as stream:
            read = 0
            for number, line in enumerate(stream, start=1):
                read += len(line)
                if not line.strip():
                    continue
                try:
                    yield read, _row(line, path.parent)
                except SafeladderError as error:
                    raise SafeladderError(f"{path} line {number}: {error}") from None
    except OSError as error:
        raise SafeladderError(f"{path} cannot be read: {error.strerror}") from None


def judge_file(
    path: Path,
    judge: RowJudge,
    write: Callable[[dict[str, Any]], None],
    *,
    done: Iterable[dict[str, Any]] = (),
    progress: Callable[[int, int], None] = lambda rows, read: None,
) -> Summary:
    """Judge every row that is not done yet and write `{id, value, label, parse_ok}`.

    Args:
        done: rows written by an interrupted run, in order.
        progress: called with the rows and bytes read so far.

    Raises:
        SafeladderError: a malformed line; done rows that are not those of this file.
    """
    labels: dict[str, int] = {}
    unscored = resumed = count = 0
    rows = read_rows(path)

    def tally(found: dict[str, Any]) -> None:
        nonlocal unscored
        if found["parse_ok"]:
            labels[found["label"]] = labels.get(found["label"], 0) + 1
        else:
            unscored += 1

    for earlier in done:
        read, row = next(rows, (0, None))
        if row is None or row.id != earlier["id"]:
            raise SafeladderError(f"--out holds rows of another file: {earlier['id']!r} is not the next row of {path}")
        tally(earlier)
        resumed, count = resumed + 1, count + 1
        progress(count, read)
    while chunk := list(islice(rows, judge.batch)):
        for (_, row), verdict in zip(chunk, _judged(judge, [row for _, row in chunk]), strict=True):
            found = {
                "id": row.id,
                "value": verdict.value,
                "label": verdict.label,
                "parse_ok": verdict.value is not None,
            }
            write(found)
            tally(found)
        count += len(chunk)
        progress(count, chunk[-1][0])
    if not count:
        raise SafeladderError(f"{path} holds no rows")
    return Summary(labels=dict(sorted(labels.items())), unscored=unscored, resumed=resumed)


class Output:
    """The file of `--out`: written beside it as ``NAME.partial``, which an interrupted run leaves to the next.

    The first line of the partial file names the judge; another judge never continues it.
    """

    def __init__(self, path: Path, judge: str) -> None:
        self.path, self._partial = path, path.with_name(f"{path.name}.partial")
        if path.exists():
            raise SafeladderError(f"--out: {path} exists already")
        if not path.parent.is_dir():
            raise SafeladderError(f"--out: folder {path.parent} not found")
        header = json.dumps({"judge": judge}).encode() + b"\n"
        self._start = len(header)
        if self._partial.exists() and self._partial.stat().st_size >= self._start:
            with self._partial.open("rb") as file:
                if file.read(self._start) != header:
                    raise SafeladderError(f"--out: {self._partial} was begun by another judge; remove it first")
        else:
            self._partial.write_bytes(header)
        with self._partial.open("r+b") as file:
            self._keep = _whole_lines(file)
            file.truncate(self._keep)
        self._file: Any = None

    def done(self) -> Iterator[dict[str, Any]]:
        """Rows of the interrupted run."""
        with self._partial.open("rb") as file:
            file.seek(self._start)
            while file.tell() < self._keep:
                yield json.loads(file.readline())

    def write(self, row: dict[str, Any]) -> None:
        """Append a row."""
        if self._file is None:
            self._file = self._partial.open("ab")
        self._file.write(json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n")

    def close(self) -> None:
        """Flush what was written; the partial file stays."""
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def finish(self) -> None:
        """All rows are there: write them without the header under the file's own name."""
        self.close()
        with new_file(self.path) as temporary, self._partial.open("rb") as source, temporary.open("wb") as target:
            source.seek(self._start)
            shutil.copyfileobj(source, target, 1 << 20)
        self._partial.unlink()


def _whole_lines(file: BinaryIO) -> int:
    """Bytes up to the end of the last complete line: a kill may have cut the newest row."""
    end = kept = 0
    for line in file:
        end += len(line)
        if line.endswith(b"\n"):
            kept = end
    return kept


def _judged(judge: RowJudge, rows: Sequence[Row]) -> list[Verdict]:
    """Rows without a whole answer are not shown to the judge."""
    verdicts: list[Verdict | None] = []
    whole: list[Row] = []
    for row in rows:
        try:
            answer = without_thinking(row.response)
        except Unreadable as trouble:
            verdicts.append(Verdict(value=None, problem=str(trouble)))
            continue
        if not answer.strip():
            verdicts.append(Verdict(value=None, problem="the response is empty"))
            continue
        verdicts.append(None)
        whole.append(Row(id=row.id, prompt=row.prompt, response=answer.strip(), images=row.images))
    found = iter(judge.judge(whole))
    return [verdict or next(found) for verdict in verdicts]


def _row(line: bytes, root: Path) -> Row:
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise SafeladderError("not UTF-8 text") from None
    except (ValueError, RecursionError) as error:
        raise SafeladderError(f"not valid JSON ({error})") from None
    if not isinstance(row, dict):
        raise SafeladderError(f"must be a JSON object, found {type(row).__name__}")
    if isinstance(row.get("id"), bool) or not isinstance(row.get("id"), str | int):
        raise SafeladderError("'id' must be text or a whole number")
    for key in ("prompt", "response"):
        if not isinstance(row.get(key), str):
            raise SafeladderError(f"{key!r} must be text, found {type(row[key]).__name__ if key in row else 'nothing'}")
    images = row.get("images", [])
    if not isinstance(images, list) or not all(isinstance(image, str) and image for image in images):
        raise SafeladderError("'images' must be a list of paths")
    return Row(
        id=row["id"],
        prompt=row["prompt"],
        response=row["response"],
        images=tuple(str(root / image) for image in images),
    )


def _rollout(row: Row) -> Rollout:
    parts = (*(Part(image=image) for image in row.images), Part(text=row.prompt))
    return Rollout(
        sample=Sample(id=str(row.id), messages=(Message(role="user", parts=parts),), label="safety"),
        prompt_ids=(),
        token_ids=(),
        logprobs=(),
        action_mask=(),
        stop_reason=StopReason.EOS,
        text=row.response,
        response=Response(answer=row.response),
    )


def _device() -> dict[str, Any]:
    """The first GPU in half precision, where there is one."""
    import torch

    return {"device": "cuda", "dtype": "bfloat16"} if torch.cuda.is_available() else {}


def _identity(folder: Path, settings: str) -> str:
    import hashlib

    return hashlib.sha256((folder / settings).read_bytes()).hexdigest()[:12]
