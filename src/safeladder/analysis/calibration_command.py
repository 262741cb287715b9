"""`safeladder search report FILE.jsonl`: the calibration of any system, from its answers and confidences."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from safeladder.types import SafeladderError


def add_parser(actions: Any) -> None:
    """Add the action `report` to the subparsers of `safeladder search`; its `run` takes the parsed options."""
    parser = actions.add_parser(
        "report",
        allow_abbrev=False,
        help="does a system know when it does not know? from its answers and confidences",
        epilog='A line is {"correct": true, "confidence": 0..10} or {"answer": ..., "reference": ..., "confidence": '
        "0..10}; see docs/calibration.md.",
    )
    parser.add_argument("file", metavar="FILE.jsonl", help="one JSON object a question")
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument("--figure", metavar="PATH.png", help="also draw it")
    parser.add_argument("--cut", type=int, default=5, metavar="N", help="certain above this confidence (default: 5)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the report; returns the exit code.

    Raises:
        SafeladderError: a wrong row by its line, an unusable cut or figure path, or nothing to count.
    """
    figure = None if options.figure is None else Path(options.figure)
    if figure is not None and figure.suffix != ".png":
        raise SafeladderError(f"--figure: {figure} must end in .png")
    if figure is not None and not figure.parent.is_dir():
        raise SafeladderError(f"--figure: folder {figure.parent} not found")
    # torch takes seconds to import, and `safeladder --help` needs none of this.
    from safeladder.analysis.calibration import calibration_report
    from safeladder.analysis.calibration_figures import calibration_png
    from safeladder.analysis.calibration_rows import read_outcomes
    from safeladder.analysis.calibration_section import calibration_text
    from safeladder.atomic import write_bytes

    report = calibration_report(read_outcomes(options.file), cut=options.cut)
    if figure is not None:
        write_bytes(figure, calibration_png(report))
    print(
        json.dumps(report, ensure_ascii=False, indent=1, allow_nan=False) if options.json else calibration_text(report)
    )
    if figure is not None and not options.json:
        print(f"wrote {figure}")
    return 0
