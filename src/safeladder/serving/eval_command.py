"""`safeladder eval`: benchmark a model, list the benchmarks, compare two results."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeladder.types import SafeladderError

if TYPE_CHECKING:
    from safeladder.evaluation.replies import Reply
    from safeladder.evaluation.subjects import Subject
    from safeladder.evaluation.suites.bench import Bench
    from safeladder.verifiers.judges.model import JudgeModel

_EXCLUSIVE = "one of: MODEL with --suite, --list, --compare A B"


def add_parser(verbs: Any) -> None:
    """Add the verb `eval`; its `run` takes the parsed options."""
    parser = verbs.add_parser(
        "eval",
        allow_abbrev=False,
        help="measure a model on published benchmarks; list them; compare two results",
        epilog="An endpoint's key is read from SAFELADDER_API_KEY, a judge's from SAFELADDER_JUDGE_KEY.",
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="checkpoint folder, http(s)://host/v1#name, or a model name of Inspect",
    )
    parser.add_argument("--suite", metavar="NAME[,NAME]", help="what to measure")
    parser.add_argument("--subset", metavar="S", help="of every suite named (default: each suite's first)")
    parser.add_argument("--transform", metavar="NAME", help="ask every request under this red-team transform")
    parser.add_argument("--limit", type=int, metavar="N", help="ask only N rows of each, drawn with the seed")
    parser.add_argument(
        "--judge", metavar="SPEC", help="judge model: folder or http(s)://host/v1#name (default: offline)"
    )
    parser.add_argument(
        "--allow-self-judge", action="store_true", help="let the model judge itself; the report says so"
    )
    parser.add_argument("--data", metavar="DIR", help="folder of the benchmarks' folders (default: $SAFELADDER_DATA)")
    parser.add_argument("--out", metavar="DIR", help="result folder (default: runs/eval-MODEL)")
    parser.add_argument(
        "--resume", action="store_true", help="continue in the folder: what is there is not asked again"
    )
    parser.add_argument("--max-tokens", type=int, metavar="N", help="token budget of a reply (default: the suite's)")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of --limit's draw and the engine (default: 0)"
    )
    parser.add_argument(
        "-M", "--model-arg", action="append", default=[], metavar="KEY=VALUE", help="of the model, e.g. batch_size=8"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument(
        "--list", action="store_true", help="the suites, their rows and licences, and what data is here"
    )
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"), help="paired tests of two result folders")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """List, compare or measure; returns the exit code.

    Raises:
        SafeladderError: a mistake in the options, the data, the model or the judge.
    """
    chosen = [options.list, options.compare is not None, options.model is not None]
    if sum(chosen) != 1 or (options.suite is not None and options.model is None):
        raise SafeladderError(f"safeladder eval needs {_EXCLUSIVE}")
    if options.list:
        return _list(options)
    if options.compare is not None:
        return _compare(options)
    return _measure(options)


def _list(options: argparse.Namespace) -> int:
    from safeladder.evaluation.suites.listing import list_suites

    rows = list_suites(options.data)
    if options.json:
        from safeladder.atomic import to_json

        print(to_json(rows), end="")
        return 0
    from rich.console import Console
    from rich.table import Table

    table = Table("suite", "subset", "axis", "rows", "data", "licence", "what")
    for row in rows:
        n = "" if row["rows"] is None else str(row["rows"])
        table.add_row(row["suite"], row["subset"], row["axis"], n, row["data"], row["licence"], row["what"])
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    return 0


def _compare(options: argparse.Namespace) -> int:
    from safeladder.atomic import to_json
    from safeladder.evaluation.compare import as_markdown, compare_folders

    found = compare_folders(Path(options.compare[0]), Path(options.compare[1]))
    print(to_json(found) if options.json else as_markdown(found), end="")
    return 0


def _measure(options: argparse.Namespace) -> int:
    if not options.suite:
        raise SafeladderError("safeladder eval MODEL needs --suite NAME[,NAME]; --list shows them")
    for name in ("limit", "max_tokens"):
        value = getattr(options, name)
        if value is not None and value < 1:
            raise SafeladderError(f"--{name.replace('_', '-')}: {value} is too small, at least 1 is needed")
    from safeladder.evaluation.redteam import transform
    from safeladder.evaluation.subjects import open_subject, parse_arguments
    from safeladder.evaluation.suites.registry import data_root, load_suite, require_subset
    from safeladder.evaluation.tasks import require_inspect

    require_inspect()
    # What is cheap to find wrong is found before weights are loaded.
    names = [name.strip() for name in options.suite.split(",") if name.strip()]
    if not names or len(set(names)) < len(names):
        raise SafeladderError(f"--suite {options.suite}: names that occur once are needed")
    suites = [(suite, require_subset(suite, options.subset)) for suite in map(load_suite, names)]
    if options.transform is not None:
        transform(options.transform)
    root = data_root(options.data)
    arguments = parse_arguments(options.model_arg)
    out = Path(options.out or Path("runs", f"eval-{_slug(options.model)}"))
    _require_free(out, options.resume)

    from safeladder.evaluation.redteam.bench import under
    from safeladder.evaluation.suites.bench import prepare
    from safeladder.evaluation.suites.run import is_same

    judge = _open_judge(options.judge)
    benches = [prepare(suite, subset, root, judge, limit=options.limit, seed=options.seed) for suite, subset in suites]
    if options.transform is not None:
        benches = [under(bench, options.transform, seed=options.seed) for bench in benches]
    subject = open_subject(options.model, arguments)
    self_judged = judge is not None and is_same(judge, subject.aliases)
    if judge is not None and self_judged and not options.allow_self_judge:
        raise SafeladderError(
            f"the judge {judge.name} is the judged model itself: name another judge, or pass --allow-self-judge"
        )
    return _run_all(benches, subject, judge, out, options, self_judged=self_judged)


def _run_all(
    benches: Sequence[Bench],
    subject: Subject,
    judge: JudgeModel | None,
    out: Path,
    options: argparse.Namespace,
    *,
    self_judged: bool,
) -> int:
    from safeladder.analysis.suite_page import suite_page
    from safeladder.analysis.suite_text import as_markdown, summary_lines
    from safeladder.atomic import to_json, write_json, write_text
    from safeladder.evaluation.replies import AppendOnly
    from safeladder.evaluation.results import (
        REPORT,
        build_report,
        claim,
        suite_entry,
        write_items,
    )
    from safeladder.evaluation.suites.run import Keeping, run_suite

    claim(out, subject)
    replies, verdicts = AppendOnly(out / "replies.jsonl"), AppendOnly(out / "verdicts.jsonl")
    entries = []
    try:
        for bench in benches:
            with _Progress(bench) as progress:
                keeping = Keeping(replies=replies, verdicts=verdicts, logs=out / "logs", progress=progress.seen)
                done = run_suite(bench, subject, keeping, max_tokens=options.max_tokens, seed=options.seed)
            write_items(out, done)
            entries.append(suite_entry(done, out, limit=options.limit))
    finally:
        replies.close()
        verdicts.close()
    report = build_report(
        subject,
        entries,
        judge=judge.name if judge is not None else None,
        self_judged=self_judged,
        seed=options.seed,
    )
    write_json(out / REPORT, report)
    write_text(out / "report.md", as_markdown(report))
    write_text(out / "report.html", suite_page(report))
    if options.json:
        print(to_json(report), end="")
    else:
        print("\n".join(summary_lines(report)))
        print(f"report: {out / 'report.html'}")
    return 0


class _Progress:
    """A bar on a terminal, a line a tenth elsewhere; both on stderr."""

    def __init__(self, bench: Bench) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._name, self._total, self._done, self._bad = bench.name, len(bench.samples), 0, 0
        self._console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"), console=self._console, disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task(bench.name, total=self._total, note="")
        if self._total < bench.in_files:
            self._console.print(f"{bench.name}: {self._total} of {bench.in_files} rows (--limit)", highlight=False)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._bar.stop()

    def seen(self, reply: Reply) -> None:
        """One item is done."""
        from safeladder.evaluation.replies import State

        self._done += 1
        self._bad += reply.state is not State.ANSWERED
        self._bar.update(self._task, advance=1, note=f"{self._bad} without an answer" if self._bad else "")
        step = max(1, self._total // 10)
        if not self._console.is_terminal and (self._done % step == 0 or self._done == self._total):
            told = f"{self._name}: {self._done} of {self._total}, {self._bad} without an answer"
            self._console.print(told, highlight=False)


def _open_judge(spec: str | None) -> JudgeModel | None:
    if spec is None:
        return None
    import os

    import torch

    from safeladder.verifiers.judges.opening import open_judge

    key = "SAFELADDER_JUDGE_KEY" if os.environ.get("SAFELADDER_JUDGE_KEY") else None
    if torch.cuda.is_available():
        return open_judge(spec, key_variable=key, device="cuda", dtype="bfloat16")
    return open_judge(spec, key_variable=key)


def _slug(model: str) -> str:
    """A folder name that tells models apart: the last parts of a path or an address."""
    return re.sub(r"[^\w.-]+", "-", "-".join(model.rstrip("/").split("/")[-3:])).strip("-.") or "model"


def _require_free(out: Path, resume: bool) -> None:
    if out.exists() and not out.is_dir():
        raise SafeladderError(f"--out: {out} is not a folder")
    if not resume and out.is_dir() and any(out.iterdir()):
        raise SafeladderError(f"{out} is not empty: --resume continues there, --out DIR starts in another folder")
