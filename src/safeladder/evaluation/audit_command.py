"""`safeladder audit leakage`: does the text of image-text pairs give their risk away?"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safeladder.arguments import positive
from safeladder.atomic import to_json, write_text
from safeladder.types import SafeladderError

if TYPE_CHECKING:
    from safeladder.evaluation.leakage import Leakage, PairJudge
    from safeladder.evaluation.metrics import Metric

EMBEDDED = "embedded-safety"
_ABOUT = {
    EMBEDDED: " (made for replies, weak on requests: a rough figure, see docs/leakage.md)",
    "labels": " (the data's own; no picture was looked at)",
}
_EVERY = 10.0
"""Seconds between lines of progress."""


def add_parser(verbs: Any) -> None:
    """Add the verb `audit` with its action `leakage`; its `run` takes the parsed options."""
    audit = verbs.add_parser("audit", help="what a data set measures, before a model is measured with it")
    actions = audit.add_subparsers(dest="action", required=True, metavar="ACTION")
    leakage = actions.add_parser(
        "leakage",
        allow_abbrev=False,
        help="how much of the risk of image-text pairs their text gives away (VSIL)",
        epilog="A row has a text, may have image, category, id and label; VLSBench's folder is read as it is. See "
        "docs/leakage.md. A SPEC is a checkpoint folder or http(s)://HOST/v1#MODEL.",
    )
    leakage.add_argument("data", metavar="DATA", help="VLSBench's folder, or a JSON, JSONL or CSV file")
    leakage.add_argument(
        "--text-judge", default=EMBEDDED, metavar="SPEC", help=f"judge of the text alone (default: {EMBEDDED})"
    )
    leakage.add_argument(
        "--pair-judge",
        default="labels",
        metavar="SPEC",
        help="judge of text and picture together (default: labels, the data's own)",
    )
    leakage.add_argument("--limit", type=positive, metavar="N", help="the first N pairs only, and say so")
    leakage.add_argument("--seed", type=int, default=0, metavar="N", help="of the bootstrap (default: 0)")
    leakage.add_argument("--out", metavar="FILE.json", help="also write the audit there")
    leakage.add_argument("--json", action="store_true", help="print it as JSON")
    leakage.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Audit and print; returns the exit code.

    Raises:
        SafeladderError: unusable data, judge or output path.
    """
    out = None if options.out is None else Path(options.out)
    if out is not None and not out.parent.is_dir():
        raise SafeladderError(f"--out: folder {out.parent} not found")
    from safeladder.evaluation.leakage import audit, read_pairs
    from safeladder.evaluation.metrics import Bootstrap

    data = Path(options.data)
    pairs = read_pairs(data)
    total = len(pairs)
    pairs = pairs[: options.limit]
    folder = data if data.is_dir() else data.parent
    pair_judge, text_judge = _pair_judge(options.pair_judge, folder), _text_judge(options.text_judge)
    found = audit(pairs, text_judge, pair_judge, bootstrap=Bootstrap(seed=options.seed), progress=_Progress())
    row = {"data": str(options.data), "rows": total, "limit": options.limit, "seed": options.seed, **found.to_json()}
    document = to_json(row)
    if out is not None:
        write_text(out, document)
    print(document.rstrip() if options.json else describe(found, total))
    if out is not None and not options.json:
        print(f"wrote {out}")
    return 0


def describe(found: Leakage, total: int) -> str:
    """The audit in words and numbers."""
    few = "" if found.n == total else f" (the first {found.n} of {total}: --limit)"
    lines = [
        f"{found.n} pairs{few}",
        f"text judge:  {found.text_judge}{_ABOUT.get(found.text_judge, '')}",
        f"pair judge:  {found.pair_judge}{_ABOUT.get(found.pair_judge, '')}",
        f"R1, unsafe pairs:               {_number(found.r1)}",
        f"R2, unsafe pairs that leak:     {_number(found.r2)}",
        f"leak share, R2 / R1:            {_number(found.leak_share)}",
        f"leakless unsafe pairs, R1 - R2: {_number(found.leakless)}",
    ]
    for category, metric in found.by_category.items():
        lines.append(f"  leak share of {category}: {_number(metric)}")
    for judge, reasons in found.unscored.items():
        lines += [f"not judged by the {judge} judge: {count} ({reason})" for reason, count in reasons.items()]
    return "\n".join(lines)


def _number(metric: Metric | None) -> str:
    if metric is None:
        return "not assessed"
    unscored = f", {metric.n_unscored} not judged" if metric.n_unscored else ""
    return f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}], n {metric.n}{unscored}"


def _text_judge(spec: str) -> PairJudge:
    from safeladder.evaluation.leakage import ModelOnRequests, VerifierOnText
    from safeladder.evaluation.suites.offline import embedded

    if spec == EMBEDDED:
        return VerifierOnText(embedded(EMBEDDED))
    return ModelOnRequests(_open(spec, "--text-judge"), folder=None)


def _pair_judge(spec: str, folder: Path) -> PairJudge:
    from safeladder.evaluation.leakage import LABELS, DeclaredPairs, ModelOnRequests

    if spec == LABELS:
        return DeclaredPairs()
    return ModelOnRequests(_open(spec, "--pair-judge"), folder=folder)


def _open(spec: str, flag: str):
    from safeladder.verifiers.judges.opening import open_judge

    if "://" not in spec and not Path(spec).is_dir():
        known = f"{EMBEDDED}, " if flag == "--text-judge" else "labels, "
        raise SafeladderError(f"{flag} {spec!r}: allowed are {known}a checkpoint folder and http(s)://HOST/v1#MODEL")
    return open_judge(spec)


class _Progress:
    """A line on stderr every few seconds of a long audit."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() - self._last >= _EVERY:
            self._last = time.monotonic()
            print(f"judged {done:,} of {total:,} pairs", file=sys.stderr, flush=True)
