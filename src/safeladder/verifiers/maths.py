"""Numeric and symbolic answers; math-verify runs in a killable process."""

from __future__ import annotations

import importlib.util
import json
import re
import selectors
import subprocess
import sys
import time
import unicodedata
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

from safeladder.types import Rollout, Score

_NUMBER = re.compile(
    r"(?:(?<![A-Za-z0-9_.)])[-+])?(?<![A-Za-z0-9_.])"  # 10-4: not a sign; H2, v1.2.3: not a number of its own
    r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|\.\d+)(?:e[-+]?\d{1,3}(?!\d))?(?:/\d+(?:\.\d+)?)?",
    re.IGNORECASE | re.ASCII,
)
_MARKED = re.compile(r"####\s*([^\n]+)")
_LONGEST = 2_000


def boxed(text: str) -> str | None:
    r"""The content of the last ``\boxed{...}``, braces balanced; None where there is none, or none closed."""
    start = text.rfind(r"\boxed{")
    if start < 0:
        return None
    start += len(r"\boxed{")
    depth = 1
    for position in range(start, len(text)):
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position].strip()
    return None


def final_answer(text: str) -> str | None:
    r"""The result a text states: the last ``\boxed{}``, else the last ``#### n``, else the last number."""
    text = _plain(text)
    inside = boxed(text)
    if inside is not None:
        return inside
    marked = _MARKED.findall(text)
    if marked:
        return marked[-1].strip()
    numbers = _NUMBER.findall(text)
    return numbers[-1] if numbers else None


def number(text: str) -> Fraction | None:
    """The exact value of a text that is one number, a currency or percent sign aside; None otherwise."""
    text = _plain(text).strip().strip("$€£¥% .。").replace(r"\$", "").replace(r"\%", "").strip()
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return Fraction(text.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return _ratio(text)


class MathWorker:
    """One child process running math-verify: spawned at first use, killed when an answer takes too long.

    Timeouts by signal work in main threads only and raise BaseException inside library code; killing a
    process works everywhere. Requests and replies are JSON lines.
    """

    def __init__(self, timeout: float = 5.0, start_timeout: float = 60.0) -> None:
        self.timeout, self.start_timeout = timeout, start_timeout
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def installed() -> bool:
        """Whether math-verify can be imported."""
        return importlib.util.find_spec("math_verify") is not None

    def equal(self, gold: str, answer: str) -> bool:
        """Whether two LaTeX expressions have the same value.

        Raises:
            TimeoutError: the comparison took longer than `timeout` seconds; the process has been killed.
            RuntimeError: the comparison failed or the process died.
        """
        fresh = self._process is None or self._process.poll() is not None
        if fresh:
            self.close()
            self._process = self._start()
            self._exchange({"gold": "1", "answer": "1", "seconds": self.start_timeout}, self.start_timeout)
        reply = self._exchange({"gold": gold, "answer": answer, "seconds": self.timeout}, self.timeout)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["equal"]

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __del__(self) -> None:
        self.close()

    @staticmethod
    def _start() -> subprocess.Popen[bytes]:
        script = str(Path(__file__).with_name("mathworker.py"))
        # -P: the script's folder stays off the import path, where our module names could shadow installed
        # ones.
        return subprocess.Popen(
            [sys.executable, "-P", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            start_new_session=True,  # Ctrl-C in the terminal is for the parent, which then closes the pipe
        )

    def _exchange(self, request: dict[str, str | float], seconds: float) -> dict[str, bool]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        deadline = time.monotonic() + seconds
        received = b""
        try:
            process.stdin.write((json.dumps(request) + "\n").encode())
            with selectors.DefaultSelector() as selector:
                selector.register(process.stdout, selectors.EVENT_READ)
                while not received.endswith(b"\n"):
                    if not selector.select(max(0.0, deadline - time.monotonic())):
                        self.close()
                        raise TimeoutError(f"no verdict within {seconds:g} s")
                    chunk = process.stdout.read(65_536)
                    if not chunk:
                        raise BrokenPipeError
                    received += chunk
        except BrokenPipeError:
            self.close()
            raise RuntimeError("the math-verify process died") from None
        return json.loads(received)


class NumericAnswer:
    r"""Whether the answer's result equals the reference, exactly as numbers, else symbolically.

    Results that are not plain numbers (LaTeX) go to math-verify; without it, or where it fails or takes too
    long, they are unscored. GSM8K-style references never need it.
    """

    name = "math"
    principle = "general"
    requires: ClassVar[tuple[str, ...]] = ("reference",)

    def __init__(self, timeout: float = 5.0) -> None:
        self._worker = MathWorker(timeout)

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        """1 where the results are equal, 0 where they differ or the answer states none."""
        return [self._score(rollout) for rollout in rollouts]

    def _score(self, rollout: Rollout) -> Score:
        reference = rollout.sample.reference
        if reference is None:
            return Score.unscored("the sample has no reference")
        if rollout.response is None:
            return Score(value=0.0, label="malformed")
        answer = final_answer(rollout.response.answer)
        gold = boxed(reference) or reference.rpartition("####")[2].strip()
        if answer is None:
            return Score(value=0.0, label="no result")
        answer_value, gold_value = number(answer), number(gold)
        if answer_value is not None and gold_value is not None:
            return _verdict(answer_value == gold_value)
        if _plain(answer).split() == _plain(gold).split():
            return _verdict(True)
        return self._symbolic(gold, answer)

    def _symbolic(self, gold: str, answer: str) -> Score:
        if not MathWorker.installed():
            return Score.unscored("comparing expressions needs math-verify")
        if max(len(gold), len(answer)) > _LONGEST:
            return Score.unscored(f"an expression of more than {_LONGEST} characters")
        try:
            return _verdict(self._worker.equal(gold, answer))
        except (TimeoutError, RuntimeError) as error:
            return Score.unscored(f"math-verify: {type(error).__name__}: {error}")


def _verdict(equal: bool) -> Score:
    return Score(value=float(equal), label="correct" if equal else "wrong")


def _plain(text: str) -> str:
    """Full-width forms and typographic minus signs as ASCII."""
    return unicodedata.normalize("NFKC", text).replace("−", "-")


def _ratio(text: str) -> Fraction | None:
    """A quotient whose parts are not integers, such as 1.5/2."""
    top, _, bottom = text.replace(",", "").partition("/")
    try:
        return Fraction(top) / Fraction(bottom)
    except (ValueError, ZeroDivisionError):
        return None
