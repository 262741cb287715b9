"""`safeladder edit`: ask a model, see its reasoning in numbered steps, correct one, let it go on or answer anew."""

from __future__ import annotations

import argparse
import json
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeladder.types import Message, Part, SafeladderError, Sample, SamplingParams

if TYPE_CHECKING:
    from rich.console import Console

    from safeladder.steering.edit_memory import EditMemory
    from safeladder.steering.edit_session import EditSession, Turn
    from safeladder.types import Engine, Rollout

_HELP = (
    "N TEXT: correct step N and continue; =N TEXT: correct it and re-answer; ok: it is right; ?: new question; q: quit"
)


def add_parser(verbs: Any) -> None:
    """Add the verb `edit` to the subparsers of `safeladder`; its `run` takes the parsed options."""
    parser = verbs.add_parser(
        "edit",
        allow_abbrev=False,
        help="correct a step of a model's reasoning; the model goes on from there, or answers anew",
        epilog="In a terminal, without --step: correct and ask in turn until q or Ctrl-D.",
    )
    parser.add_argument("model", metavar="MODEL", help="folder of a checkpoint (runs/NAME/checkpoints/RUNG)")
    parser.add_argument("question", nargs="?", metavar="QUESTION")
    parser.add_argument("--image", metavar="FILE", help="a picture that the question is about")
    parser.add_argument("--step", type=int, metavar="N", help="the step to correct, counted from 1")
    parser.add_argument("--text", metavar="TEXT", help="what step N should say")
    how = parser.add_mutually_exclusive_group()
    how.add_argument(
        "--continue",
        dest="how",
        action="store_const",
        const="continue",
        help="drop what follows the step and let the model reason on (default)",
    )
    how.add_argument(
        "--re-answer",
        dest="how",
        action="store_const",
        const="re-answer",
        help="keep all other steps and regenerate the answer only",
    )
    parser.add_argument("--confirm", action="store_true", help="the reasoning is right; store that in --memory")
    parser.add_argument(
        "--memory", metavar="FILE", help="JSONL of corrections: applied to the question, and new ones are stored"
    )
    parser.add_argument("--temperature", type=float, default=0.0, metavar="T", help="default: 0, greedy")
    parser.add_argument("--max-tokens", type=int, default=512, metavar="N", help="of a reply (default: 512)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the sampling (default: 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run, how="continue")


def run(options: argparse.Namespace) -> int:
    """Ask, edit and print; returns the exit code: 0, or 1 where the last reply is not well-formed.

    Raises:
        SafeladderError: an option out of range or without its partner, no such checkpoint, image, memory or step.
    """
    interactive = options.step is None and not options.json and not options.confirm and _is_terminal()
    _check(options, interactive)
    from rich.console import Console

    from safeladder.rollout.local import LocalEngine
    from safeladder.steering.edit_memory import EditMemory

    memory = None
    if options.memory:
        memory = EditMemory.load(options.memory) if Path(options.memory).exists() else EditMemory()
    engine = LocalEngine.load(options.model)
    if interactive:
        return converse(engine, options, memory, Console(highlight=False), _read)
    return once(engine, options, memory, Console(highlight=False))


def once(engine: Engine, options: argparse.Namespace, memory: EditMemory | None, console: Console) -> int:
    """One question and at most one correction."""
    session = _session(engine, options, memory)
    turn = session.ask(_sample(1, options.question, options.image))
    if options.step is not None:
        session.correct(options.step, options.text, options.how)
    stored = session.accept() if options.confirm else len(turn.edits)
    if memory is not None and stored:
        memory.save(options.memory)
    if options.json:
        print(json.dumps(as_json(turn, memory), ensure_ascii=False))
    else:
        show(turn, console)
        if options.confirm:
            _line(console, "memory", f"{stored} steps stored as right" if stored else _NOTHING_TO_CONFIRM)
    return 0 if turn.now.response is not None else 1


def converse(
    engine: Engine,
    options: argparse.Namespace,
    memory: EditMemory | None,
    console: Console,
    read: Callable[[str], str],
) -> int:
    """Questions and corrections in turn, until `q` or the end of the input; mistakes are said and asked again."""
    session = _session(engine, options, memory)
    question, image = options.question, options.image
    try:
        while True:
            if not question:
                question = read("question> ").strip()
                image = read("image file, or nothing> ").strip() or None
            try:
                turn = session.ask(_sample(len(session.turns) + 1, question, image))
            except SafeladderError as error:
                _line(console, "error", str(error), style="red")
            else:
                show(turn, console)
                _line(console, "", _HELP, style="dim")
                if not _correct(session, options, console, read):
                    break
            question = ""
    except EOFError:
        pass
    if session.turns:
        distances = ", ".join(f"{value:.2f}" for value in session.distances)
        _line(console, "edits", f"{distances} (share of each chain that was changed)")
    return 0


_NOTHING_TO_CONFIRM = "nothing stored: no rule would have changed this reply"


def _correct(session: EditSession, options: argparse.Namespace, console: Console, read: Callable[[str], str]) -> bool:
    """Corrections of the newest reply; whether another question follows."""
    while True:
        said = read("edit> ").strip()
        if said in ("q", "?"):
            return said == "?"
        try:
            if said == "ok":
                stored = session.accept()
                _line(console, "memory", f"{stored} steps stored as right" if stored else _NOTHING_TO_CONFIRM)
            else:
                number, _, text = said.removeprefix("=").partition(" ")
                if not number.isdigit() or not text.strip():
                    _line(console, "", _HELP, style="dim")
                    continue
                session.correct(int(number), text, "re-answer" if said.startswith("=") else "continue")
                show(session.turns[-1], console)
            if session.memory is not None:
                session.memory.save(options.memory)
        except SafeladderError as error:
            _line(console, "error", str(error), style="red")


def as_json(turn: Turn, memory: EditMemory | None) -> dict[str, Any]:
    """What happened on a question: the reply that was shown, the one after the edits, and what the memory did."""
    applied = turn.applied
    return {
        "question": turn.shown.sample.question,
        "reply": _reply(turn.shown),
        "edits": [{"step": e.number, "original": e.original, "edited": e.edited, "how": e.how} for e in turn.edits],
        "edited_reply": _reply(turn.now) if turn.edits else None,
        "distance": turn.distance,
        "memory": None
        if applied is None or memory is None
        else {
            "outcome": str(applied.outcome),
            "step": applied.number,
            "original": applied.original,
            "edited": applied.edited,
            "rule": applied.rule,
            "support": applied.support,
            "forced": applied.forced,
            "tokens": applied.tokens,
            "corrections": len(memory.pairs),
        },
    }


def _reply(rollout: Rollout) -> dict[str, Any]:
    response = rollout.response
    return {
        "steps": _steps(rollout),
        "answer": response.answer if response else None,
        "stop_reason": str(rollout.stop_reason),
        "text": rollout.text,
        "tokens": rollout.length,
    }


def show(turn: Turn, console: Console) -> None:
    """The reply as it is now: what the memory did, the steps with their numbers, the answer."""
    from safeladder.steering.edit_transfer import Outcome

    applied, rollout = turn.applied, turn.now
    if applied is not None:
        if applied.outcome == Outcome.APPLIED:
            how = "written in" if applied.forced else f"support {applied.support:.2f}"
            _line(console, "memory", f"step {applied.number}: {applied.original} → {applied.edited} ({how})")
        else:
            _line(console, "memory", f"not applied: {applied.outcome}")
    for number, step in enumerate(_steps(rollout), start=1):
        changed = any(edit.number == number for edit in turn.edits)
        _line(console, f"step {number}", step, style="bold" if changed else "")
    if rollout.response is not None:
        _line(console, "answer", rollout.response.answer)
    else:
        _line(console, "answer", f"none: the reply is malformed (ended by {rollout.stop_reason}): {rollout.text}")
    if turn.edits:
        _line(console, "changed", f"{turn.distance:.2f} of the reasoning")


def _steps(rollout: Rollout) -> list[str]:
    from safeladder.steering.editing import written_reasoning
    from safeladder.steering.steps import split_steps

    return [step.text.strip() for step in split_steps(written_reasoning(rollout.text) or "")]


def _session(engine: Engine, options: argparse.Namespace, memory: EditMemory | None) -> EditSession:
    from safeladder.steering.edit_session import EditSession

    # A prompt must keep some room beside the reply.
    budget = min(options.max_tokens, max(1, engine.context_length // 2))
    params = SamplingParams(max_new_tokens=budget, temperature=options.temperature)
    return EditSession(engine, params, memory=memory, seed=options.seed)


def _sample(number: int, question: str, image: str | None) -> Sample:
    if not question.strip():
        raise SafeladderError("the question is empty")
    parts = [Part(text=question)]
    if image is not None:
        from safeladder.data.images import check_image

        problem = check_image(image)
        if problem is not None:
            raise SafeladderError(problem)
        parts.insert(0, Part(image=image))
    return Sample(id=f"edit-{number}", label="edit", messages=(Message(role="user", parts=tuple(parts)),))


def _check(options: argparse.Namespace, interactive: bool) -> None:
    if options.question is None and not interactive:
        raise SafeladderError("a question is needed: safeladder edit MODEL QUESTION")
    if (options.step is None) != (options.text is None):
        raise SafeladderError("--step and --text belong together: --step N --text TEXT")
    if options.confirm and options.step is not None:
        raise SafeladderError("--confirm says that the reasoning is right; it cannot be given with --step")
    if options.confirm and not options.memory:
        raise SafeladderError("--confirm stores something: it needs --memory FILE")
    if options.max_tokens < 1:
        raise SafeladderError(f"--max-tokens: {options.max_tokens} is too small, at least 1 is needed")
    if not 0.0 <= options.temperature <= 100.0:
        raise SafeladderError(f"--temperature: {options.temperature} is not between 0 and 100")
    if options.memory and not Path(options.memory).resolve().parent.is_dir():
        raise SafeladderError(f"--memory: folder {Path(options.memory).parent} not found")


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty()


def _read(prompt: str) -> str:
    return input(prompt)


def _line(console: Console, name: str, text: str, style: str = "") -> None:
    """One line of output; control characters of a reply never reach the terminal."""
    from rich.text import Text

    clean = "".join(" " if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in text)
    console.print(Text.assemble((f"{name:>10}  ", "cyan"), (clean, style)), soft_wrap=True)
