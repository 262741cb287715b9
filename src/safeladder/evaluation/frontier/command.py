"""`safeladder risk`: zones by area, out of logs and a file of evidence."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from safeladder.atomic import write_json, write_text
from safeladder.types import SafeladderError

Page = Callable[[Mapping[str, Any]], str]
"""Draws the report; handed in, since drawing is the business of `analysis`."""


def add_parser(verbs: Any, page: Page) -> None:
    """Add the verb `risk` to the subparsers of `safeladder`; its `run` takes the parsed options."""
    parser = verbs.add_parser(
        "risk",
        allow_abbrev=False,
        help="frontier-risk zones by area, with the reason for each and what is missing",
        epilog="Missing evidence is never green. The columns of FILE.csv are in docs/frontier-risk.md.",
    )
    parser.add_argument("logs", nargs="*", metavar="LOGS", help="Inspect logs (.eval), or folders of them")
    parser.add_argument("--evidence", metavar="FILE.csv", help="measurements from elsewhere, and baselines")
    parser.add_argument("--signoffs", metavar="FILE.yaml", help="expert records")
    parser.add_argument("--thresholds", metavar="FILE.yaml", help="lines and rules (default: the provisional ones)")
    parser.add_argument("--out", metavar="DIR", help="write risk.json, risk.md and risk.html there")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.set_defaults(run=partial(run, page=page))


def run(options: argparse.Namespace, *, page: Page) -> int:
    """Assess and print; returns the exit code.

    Raises:
        SafeladderError: nothing was given, a file does not fit, or there is no evidence of any model.
    """
    from safeladder.evaluation.frontier.assessment import assess
    from safeladder.evaluation.frontier.evidence import read_evidence, read_signoffs
    from safeladder.evaluation.frontier.framework import load_framework
    from safeladder.evaluation.frontier.logs import Imported, find_logs, import_logs
    from safeladder.evaluation.frontier.report import to_json, to_markdown

    framework = load_framework(options.thresholds)
    if not options.logs and options.evidence is None:
        raise SafeladderError("risk needs logs or --evidence FILE.csv; see safeladder risk --help")
    paths = find_logs(options.logs)
    if paths:
        print(f"reading {len(paths)} logs", file=sys.stderr, flush=True)
    found = import_logs(paths, framework) if paths else Imported()
    evidence = list(found.evidence)
    if options.evidence is not None:
        evidence += read_evidence(options.evidence, framework)
    signoffs = read_signoffs(options.signoffs, framework) if options.signoffs else []
    subjects = {row.subject for row in evidence if not row.baseline}
    if not subjects:
        why = f": {found.unused[0]}" if found.unused else ""
        raise SafeladderError(f"no evidence of any model{why}")
    stray = [record for record in signoffs if record.subject not in subjects]
    unused = [
        *found.unused,
        *(f"sign-off of {record.reviewer} on {record.area}: no evidence of {record.subject}" for record in stray),
    ]
    kept = [record for record in signoffs if record.subject in subjects]
    report = to_json(assess(framework, evidence, kept), framework, unused)
    if options.out is not None:
        _write(Path(options.out), report, to_markdown(report), page(report))
    print(json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False) if options.json else _summary(report))
    return 0


def _summary(report: Mapping[str, Any]) -> str:
    lines = []
    for subject in report["subjects"]:
        lines.append(subject["subject"])
        for area in subject["areas"]:
            lacks = f"; missing: {len(area['missing'])}" if area["missing"] else ""
            review = f"; {area['review']}" if area["review"] != "not required" else ""
            lines.append(f"  {area['id']:<17} {area['label']}{review}{lacks}")
    lines += [f"not used: {text}" for text in report["not_used"]]
    status = report["framework"]["status"]
    return "\n".join([*lines, f"thresholds {report['framework']['thresholds']} are {status}; there is no total"])


def _write(folder: Path, report: Mapping[str, Any], markdown: str, html: str) -> None:
    if folder.exists() and not folder.is_dir():
        raise SafeladderError(f"--out: {folder} is not a folder")
    write_json(folder / "risk.json", report)
    write_text(folder / "risk.md", markdown)
    write_text(folder / "risk.html", html)
    print(f"wrote {folder / 'risk.html'}, risk.md and risk.json", file=sys.stderr)
