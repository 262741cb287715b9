"""The `safeladder` command: parse, call, print. A mistake ends in one line and an exit code, no traceback.

Exit codes: 0 done; 1 a defect of safeladder, or the machine does not suit the recipe (`doctor`); 2 a mistake
in what was given, or memory or disk ran out; 130 interrupted.
"""

from __future__ import annotations

import _thread
import argparse
import contextlib
import difflib
import errno
import json
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeladder import __version__
from safeladder.arguments import positive
from safeladder.types import SafeladderError

if TYPE_CHECKING:
    from safeladder.config import Recipe

_MOMENT = 0.05
"""Seconds until a swallowed interrupt is tried again."""
_CLIMB_OPTIONS = ("--out", "--seed", "--resume", "--check", "--data", "--help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        with _interrupts_arrive():
            code = _run(given)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        if arguments is None:  # the process ends now: another Ctrl-C must not break into its last words
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        hint = "; rerun with --resume" if given[:1] in (["climb"], ["eval"]) else ""
        if given[:2] == ["search", "index"]:
            hint = "; the same command continues"
        return _fail(f"interrupted{hint}", 130)
    except BrokenPipeError:
        # Whoever read our output has left (`safeladder doctor | head`); nothing more can be said.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if os.environ.get("SAFELADDER_TRACEBACK") == "1":
            raise
        return _fail(*_describe(error))


@contextlib.contextmanager
def _interrupts_arrive() -> Iterator[None]:
    """See to it that Ctrl-C ends what runs here.

    Where it hits Python inside a `__del__` or a weakref callback no exception can leave: Python prints a traceback
    and goes on. Such an interrupt is delivered again, a moment later. A launcher's workers start with it held back.
    """
    previous = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            previous(unraisable)
            return
        again = threading.Timer(_MOMENT, _interrupt_main)
        again.daemon = True
        again.start()

    sys.unraisablehook = hook
    try:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        yield
    finally:
        sys.unraisablehook = previous


def _interrupt_main() -> None:
    if hasattr(signal, "pthread_kill"):  # a real signal: it ends a sleep or a wait, too
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
    else:
        _thread.interrupt_main()


def _run(given: list[str]) -> int:
    overrides: dict[str, str] = {}
    plain = given
    if given[:1] == ["climb"]:
        plain, overrides = _split_overrides(given)
    try:
        options = _parser().parse_args(plain)
    except SystemExit as stop:  # --help and --version have printed
        return int(stop.code or 0)
    if options.verb == "climb":
        return _climb(options, overrides, given)
    if options.verb == "world":
        return _world_show(options)
    if hasattr(options, "run"):
        return options.run(options)
    return _doctor(options)


def _climb(options: argparse.Namespace, overrides: dict[str, str], given: list[str]) -> int:
    recipe = _load(options, overrides)
    from safeladder.ladder.check import check, process_count, require_runnable
    from safeladder.training.launch import follow_parent, is_worker, launch

    if options.check:
        print("\n".join(check(recipe)))
        return 0
    out = Path(options.out or Path("runs", recipe.name))
    if os.environ.get("RANK", "0") == "0":  # the other workers may already see what the first one writes
        require_runnable(recipe)
        _require_free(out, options.resume)
    if is_worker():
        follow_parent()
    elif (processes := process_count(recipe)) > 1:
        return launch(processes, given)
    from safeladder.ladder.climb import climb

    return climb(recipe, out, resume=options.resume)


def _require_free(out: Path, resume: bool) -> None:
    if out.exists() and not out.is_dir():
        raise SafeladderError(f"--out: {out} is not a folder")
    if not resume and out.is_dir() and any(out.iterdir()):
        raise SafeladderError(f"{out} is not empty: --resume continues its run, --out DIR starts in another folder")


def _load(options: argparse.Namespace, overrides: dict[str, str]):
    from safeladder.config import load_recipe

    if options.seed is not None:
        overrides = {**overrides, "seed": str(options.seed)}
    recipe = load_recipe(options.recipe, overrides)
    if not options.data:
        return recipe
    if "data.files" in overrides:
        raise SafeladderError("give --data or --data.files, not both")
    chosen = any(key.split(".")[:2] == ["data", "world"] for key in overrides)
    if not chosen and not (recipe.data.files and recipe.data.world is not None):
        overrides = {**overrides, "data.world": "null", **_without_pages(recipe)}
    return load_recipe(options.recipe, {**overrides, "data.files": json.dumps(options.data)})


def _without_pages(recipe: Recipe) -> dict[str, str]:
    """Overrides that leave out the rungs that search the built-in world's pages, which the user's rows switch off."""
    on = recipe.data.world is not None
    names = [name for name, rung in recipe.rungs.items() if on and rung.kind == "search" and rung.corpus is None]
    for name in names:
        if "RANK" not in os.environ:  # the launcher has said it
            print(
                f"rung {name} is left out: the world's pages are off; to climb it pass --rungs.{name}.corpus DIR "
                "and rows labelled search"
            )
    return {f"rungs.{name}": "null" for name in names}


def _world_show(options: argparse.Namespace) -> int:
    from safeladder.world import World, WorldConfig
    from safeladder.world.show import contact_sheet

    out = Path(options.out)
    if out.suffix not in (".png", ".html"):
        raise SafeladderError(f"--out: {out} must end in .png or .html")
    if not out.parent.is_dir():
        raise SafeladderError(f"--out: folder {out.parent} not found")
    contact_sheet(World(WorldConfig(seed=options.seed)), out, per_kind=options.per_kind, split=options.split)
    print(f"wrote {out}")
    return 0


def _doctor(options: argparse.Namespace) -> int:
    from safeladder.doctor import diagnose

    recipe = None
    if options.recipe is not None:
        from safeladder.config import load_recipe

        recipe = load_recipe(options.recipe)
    report = diagnose(recipe)
    print("\n".join(report.lines))
    return 0 if report.suits else 1


class _Parser(argparse.ArgumentParser):
    """argparse whose complaints are one line, like every other."""

    def error(self, message: str):
        raise SafeladderError(f"{message}; see {self.prog} --help")


def _parser() -> argparse.ArgumentParser:
    from safeladder.serving import eval_command, serve_command

    parser = _Parser(prog="safeladder", description="Climb from a helpful-only model to a safe and capable one.")
    parser.add_argument("--version", action="version", version=f"safeladder {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    climb = verbs.add_parser(
        "climb",
        allow_abbrev=False,
        help="train every rung of a recipe, evaluate after each, write a report",
        epilog="Any recipe key can be set: --any.recipe.key VALUE, the value in YAML (docs/recipes.md).",
    )
    climb.add_argument("recipe", metavar="RECIPE", help="YAML file, such as recipes/laptop.yaml")
    climb.add_argument("--out", metavar="DIR", help="run folder (default: runs/NAME of the recipe)")
    climb.add_argument("--seed", type=int, metavar="N", help="random seed (default: the recipe's)")
    climb.add_argument("--resume", action="store_true", help="continue the run in the folder, if there is one")
    climb.add_argument("--check", action="store_true", help="validate and say what is needed; loads no weights")
    climb.add_argument(
        "--data",
        nargs="+",
        action="extend",
        metavar="FILE.jsonl",
        help="train on these rows instead of the built-in world (--data.world '{}' keeps it)",
    )

    world = verbs.add_parser("world", help="the built-in world")
    actions = world.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser(
        "show", allow_abbrev=False, help="samples with their gold responses, as a picture or a page"
    )
    show.add_argument("--out", default="contact.png", metavar="FILE", help=".png or .html (default: contact.png)")
    show.add_argument("--seed", type=int, default=0, metavar="N", help="seed of the world (default: 0)")
    show.add_argument("--split", choices=("train", "heldout"), default="train", help="default: train")
    show.add_argument("--per-kind", type=positive, default=3, metavar="N", help="samples a kind (default: 3)")

    _add_search(verbs)
    _add_judging(verbs)
    _add_audit(verbs)
    _add_risk(verbs)
    eval_command.add_parser(verbs)
    serve_command.add_parser(verbs)
    _add_guidance(verbs)

    doctor = verbs.add_parser(
        "doctor",
        allow_abbrev=False,
        help="what is installed, what extras add, does the machine suit a recipe",
    )
    doctor.add_argument("recipe", nargs="?", metavar="RECIPE", help="YAML file to judge the machine by")
    return parser


def _add_audit(verbs: Any) -> None:
    from safeladder.evaluation import audit_command

    audit_command.add_parser(verbs)


def _add_judging(verbs: Any) -> None:
    from safeladder.ladder import verifier_command
    from safeladder.serving import judge_command

    judge_command.add_parser(verbs)
    verifier_command.add_parser(verbs)


def _add_search(verbs: Any) -> None:
    from safeladder.analysis import calibration_command
    from safeladder.search import commands
    from safeladder.serving import ask

    search = verbs.add_parser("search", help="an index of pages, a model that searches it, and its calibration")
    actions = search.add_subparsers(dest="action", required=True, metavar="ACTION")
    commands.add_parsers(actions)
    ask.add_parser(actions)
    calibration_command.add_parser(actions)


def _add_guidance(verbs: Any) -> None:
    from safeladder.steering import directions_command, edit_command, value_command

    value_command.add_parser(verbs)
    edit_command.add_parser(verbs)
    directions_command.add_parser(verbs)


def _add_risk(verbs: Any) -> None:
    from safeladder.analysis.frontier_page import frontier_page
    from safeladder.evaluation.frontier import command, simulate_command

    command.add_parser(verbs, page=frontier_page)
    simulate_command.add_parser(verbs)


def _split_overrides(given: Sequence[str]) -> tuple[list[str], dict[str, str]]:
    """Take `--a.b.c VALUE` and `--a.b.c=VALUE` out of the arguments; the rest is for argparse.

    argparse cannot do it: it would take the value of an option it does not know for the recipe.
    """
    rest: list[str] = []
    overrides: dict[str, str] = {}
    tokens = iter(given)
    for token in tokens:
        key, equals, value = token.removeprefix("--").partition("=")
        if not token.startswith("--") or token == "--" or f"--{key}" in _CLIMB_OPTIONS:
            rest.append(token)
            continue
        _known(key)
        if not equals:
            value = next(tokens, "--")
            if value.startswith("--"):
                raise SafeladderError(f"--{key} needs a value: --{key} VALUE")
        overrides[key] = value
    return rest, overrides


def _known(key: str) -> None:
    from safeladder.config import Recipe

    first = key.split(".")[0]
    if first in Recipe.model_fields:
        return
    allowed = [*(option.removeprefix("--") for option in _CLIMB_OPTIONS), *Recipe.model_fields]
    close = difflib.get_close_matches(first, allowed, n=1)
    hint = f"did you mean --{close[0]}? " if close else ""
    raise SafeladderError(
        f"unknown option --{key}; {hint}options: {', '.join(_CLIMB_OPTIONS)}; "
        f"recipe keys: {', '.join(Recipe.model_fields)}"
    )


def _describe(error: BaseException) -> tuple[str, int]:
    """One line and an exit code for anything that was raised."""
    if isinstance(error, SafeladderError):
        return str(error), 2
    for cause in _causes(error):
        text = str(cause)
        if getattr(cause, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left on device" in text:
            return f"the disk is full{_at(cause)}; free some space and rerun with --resume", 2
        if isinstance(cause, MemoryError) or _is_out_of_memory(cause):
            return (
                "out of memory; lower micro_batch_tokens or prompts_per_step, or use more processes "
                "(safeladder doctor RECIPE estimates the need)"
            ), 2
    if isinstance(error, OSError):
        return f"{error.strerror or error}{_at(error)}", 2
    return f"internal error, {type(error).__name__}: {error} (SAFELADDER_TRACEBACK=1 shows where)", 1


def _causes(error: BaseException) -> Iterator[BaseException]:
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__


def _is_out_of_memory(error: BaseException) -> bool:
    """torch's own errors, told by name and text so that torch need not be imported."""
    if type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


def _at(error: BaseException) -> str:
    name = getattr(error, "filename", None)
    return f" ({name})" if name else ""


def _fail(message: str, code: int) -> int:
    with contextlib.suppress(OSError):  # stderr may be on the full disk
        print(f"safeladder: error: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
