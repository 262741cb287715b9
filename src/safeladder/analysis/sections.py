"""The sections of the report as HTML, one function each; None where there is nothing to show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from safeladder.analysis.examples import Example
from safeladder.analysis.page import Html, fold, join, table, tag, text, void
from safeladder.analysis.results import format_number, format_percent
from safeladder.analysis.schema import COUNTS

Report = Mapping[str, Any]
Metric = Mapping[str, float]

TITLES = {
    "safety": "Safety",
    "capability": "Capability",
    "value_alignment": "Value alignment",
    "knowledge": "Knowledge",
    "over_refusal": "Over-refusal",
    "response_tokens": "Tokens a reply",
    "format": "Well-formed",
    "accuracy": "Accuracy",
    "reliability": "Reliability",
    "false_certain": "False certainty, of all",
    "coverage_answerable": "Certain, of the answerable",
    "searches": "Searches a question",
    "reads": "Reads a question",
}
_CARDS = ("safety", "capability", "over_refusal", "response_tokens")
_TABLES = {
    "kind": "Share of correct replies by kind of task",
    "language": "By language",
    "novelty": "By novelty: items that combine what training never combined, and familiar ones",
    "source": "By source of the items",
}


def subtitle(report: Report) -> str:
    """One line under the title."""
    minutes = format_number(report["wall_seconds"] / 60)
    return f"Seed {report['seed']}, {minutes} minutes in all. Held-out items, {confidence(report)} intervals."


def confidence(report: Report) -> str:
    """The level of the report's intervals, e.g. "95 %"."""
    return f"{100 * report.get('provenance', {}).get('confidence', 0.95):g} %"


def headline(report: Report) -> Html | None:
    """First against last rung: values, paired difference, relative change and its formula."""
    found = report.get("headline", {})
    cards = [_card(name, found["metrics"][name]) for name in _CARDS if name in found.get("metrics", {})]
    parts: list[Html] = []
    if cards:
        parts += [
            tag("p", f"From {found['from']} to {found['to']}, on the same items:"),
            tag("div", *cards, class_="cards"),
            tag(
                "p",
                f"{found['formula']}. Intervals resample groups of items (paired bootstrap). "
                "Numbers are rounded once, here; report.json holds them unrounded.",
                class_="muted",
            ),
        ]
    if found.get("note"):
        parts += [tag("h3", "Where the gain comes from"), tag("p", found["note"])]
    return join(parts) if parts else None


def rung_table(report: Report) -> Html:
    """Rungs by metrics, each with interval and n."""
    names = _ordered(rung["metrics"] for rung in report["rungs"])
    return table(
        "Every metric with its interval and the number of items",
        ["rung", *(TITLES.get(name, name) for name in names), "training"],
        (
            [
                rung["name"],
                *(_metric(name, rung["metrics"].get(name)) for name in names),
                f"{format_number(rung['train_seconds'])} s",
            ]
            for rung in report["rungs"]
        ),
    )


def gates(report: Report) -> Html:
    """The gate's verdict on every rung and its reasons."""
    details = report.get("details", {})

    def reasons(name: str) -> Html:
        given = details.get(name, {}).get("gate_reasons", ())
        return tag("ul", *(tag("li", reason) for reason in given)) if given else text("nothing to compare with")

    return join(
        [
            tag(
                "p",
                "A rung is rejected where safety or capability fell, or over-refusal rose, beyond the "
                "interval of the paired difference to the rung it started from.",
            ),
            table(
                "Verdicts",
                ["rung", "verdict", "because"],
                ([rung["name"], _verdict(rung["gate"]), reasons(rung["name"])] for rung in report["rungs"]),
            ),
        ]
    )


def controls(report: Report) -> Html | None:
    """What the gain is to be held against."""
    parts: list[Html] = []
    others = [("control", report.get("control")), *(("ablation", a) for a in report.get("ablations", []))]
    entries = [(role, entry) for role, entry in others if entry is not None]
    if entries:
        names = _ordered(entry["metrics"] for _, entry in entries)
        parts.append(
            table(
                "Control: as much compute as the ladder, helpful-only data. Ablations: one thing changed",
                ["run", "role", *(TITLES.get(name, name) for name in names)],
                (
                    [entry["name"], role, *(_metric(name, entry["metrics"].get(name)) for name in names)]
                    for role, entry in entries
                ),
            )
        )
    if report.get("pass_at_k"):
        draws = list(dict.fromkeys(k for row in report["pass_at_k"].values() for k in row))
        parts.append(
            table(
                f"pass@k of {report['rungs'][0]['name']}: share of items with a correct reply among k draws",
                ["principle", *draws],
                (
                    [TITLES.get(p, p), *(_metric(p, row.get(k)) for k in draws)]
                    for p, row in report["pass_at_k"].items()
                ),
            )
        )
    return join(parts) if parts else None


def breakdowns(report: Report) -> Html | None:
    """Shares of correct replies by kind, language, novelty and source, a column a rung."""
    found = {name: row.get("breakdowns", {}) for name, row in report.get("details", {}).items()}
    rungs = [rung["name"] for rung in report["rungs"]]
    parts = []
    for key, caption in _TABLES.items():
        rows = list(dict.fromkeys(row for rung in rungs for row in found.get(rung, {}).get(key, {})))
        if rows:
            cells = ([row, *(_metric("", found.get(rung, {}).get(key, {}).get(row)) for rung in rungs)] for row in rows)
            whole = table(caption, [key, *rungs], cells)
            parts.append(whole if key == "kind" else fold(caption, whole))
    return join(parts) if parts else None


def verifiers(report: Report) -> Html | None:
    """Every verifier's mean score with its unscored count, and the replies that were broken in form."""
    details = report.get("details", {})
    rungs = [rung["name"] for rung in report["rungs"]]
    scores = {rung: details.get(rung, {}).get("verifier_scores", {}) for rung in rungs}
    counts = {rung: details.get(rung, {}).get("counts", {}) for rung in rungs}
    parts = []
    names = sorted({name for rows in scores.values() for name in rows})
    if names:
        parts.append(
            table(
                "Mean score of every verifier over the items routed to it: rewards, not correctness",
                ["verifier", *rungs],
                ([name, *(_metric("verifier", scores[rung].get(name)) for rung in rungs)] for name in names),
            )
        )
    kinds = list(dict.fromkeys(kind for row in counts.values() for kind in row))
    if kinds:
        parts.append(
            table(
                "Replies by form: none of the broken ones counts as safe or correct",
                ["replies", *rungs],
                ([kind, *(counts[rung].get(kind, "not counted") for rung in rungs)] for kind in kinds),
            )
        )
    return join(parts) if parts else None


def examples(chosen: Sequence[Example], rungs: Sequence[str]) -> Html | None:
    """The same item at every rung: question, reasoning, answer, verdicts."""
    if not chosen:
        return None
    intro = tag(
        "p",
        f"Items whose reward changed most between {rungs[0]} and {rungs[-1]}, kinds taking turns: "
        "chosen to show the change, not to measure it. They may hold harmful text.",
    )
    return join([intro, *(_example(example, is_open=i == 0) for i, example in enumerate(chosen))])


def provenance(report: Report) -> Html:
    """Everything needed to run it again."""
    details = report.get("details", {})
    rows: list[tuple[str, object]] = [
        ("recipe", report["recipe"]),
        ("seed", report["seed"]),
        ("wall time", f"{format_number(report['wall_seconds'])} s"),
        *_flat(report.get("provenance", {})),
    ]
    files = (
        [
            rung["name"],
            rung["checkpoint"],
            details.get(rung["name"], {}).get("log") or "none",
            f"{details[rung['name']]['train_flops']:.3g}" if rung["name"] in details else "unknown",
        ]
        for rung in report["rungs"]
    )
    return join(
        [
            table("What the run depends on", ["what", "value"], rows),
            table("What it left behind", ["rung", "checkpoint", "Inspect log", "training FLOPs"], files),
        ]
    )


def _card(name: str, difference: Metric) -> Html:
    relative = "no relative change: the first value is 0"
    if "relative" in difference:
        relative = f"{_signed(difference['relative'])} % relative"
        if "relative_low" in difference:
            relative += f" ({_signed(difference['relative_low'])} to {_signed(difference['relative_high'])})"
    scale = 1 if name == "response_tokens" else 100
    unit = "tokens" if name == "response_tokens" else "points"
    change = _signed(scale * difference["value"])
    low, high = _signed(scale * difference["low"]), _signed(scale * difference["high"])
    return tag(
        "div",
        tag("div", TITLES[name], class_="muted"),
        tag("div", f"{_value(name, difference['before'])} → {_value(name, difference['after'])}", class_="big"),
        tag("div", relative),
        tag(
            "div",
            f"difference {change} {unit} ({low} to {high}), n = {difference['n']}",
            class_="muted",
        ),
        class_="card",
    )


def _example(example: Example, *, is_open: bool) -> Html:
    first = example.rows[0]
    image = next((row["image"] for row in example.rows if _is_png(row.get("image"))), None)
    picture = void("img", src=image, alt=f"the image of item {example.sample_id}", class_="item") if image else ""
    replies = (
        [
            row["rung"],
            tag("pre", row.get("reasoning") or "none"),
            tag("pre", row["answer"] if row.get("answer") is not None else f"malformed: {row.get('text', '')}"),
            _scores(row),
            "unscored" if row.get("reward") is None else format_number(row["reward"], 2),
            f"{row.get('tokens')} ({row.get('stop_reason')})",
        ]
        for row in example.rows
    )
    return fold(
        f"{example.kind}: {_shortened(first['question'])}",
        picture,
        tag("pre", first["question"]),
        table(
            f"Replies to {example.sample_id}",
            ["rung", "reasoning", "answer", "verdicts", "reward", "tokens (ended by)"],
            replies,
        ),
        is_open=is_open,
    )


def _scores(row: Mapping[str, Any]) -> Html:
    lines = []
    for name, score in row.get("scores", {}).items():
        value = "unscored" if score["value"] is None else format_number(score["value"], 2)
        lines.append(tag("div", f"{name}: {value} {score.get('label', '')}"))
    return join(lines)


def _metric(name: str, metric: Metric | None) -> Html:
    """A metric as a table cell: value, then interval and n, and what could not be scored."""
    if metric is None:
        return text("not measured")
    if "value" not in metric:
        return text(f"nothing scored ({metric['n_unscored']:g} unscored)")
    low, high = _value(name, metric["low"]), _value(name, metric["high"])
    lines = [f"{low.removesuffix(' %')} to {high}", f"n = {metric['n']:g}"]
    if metric.get("n_unscored"):
        lines.append(f"{metric['n_unscored']:g} unscored")
        if "if_all_fail" in metric:
            worst, best = _value(name, metric["if_all_fail"]), _value(name, metric["if_all_pass"])
            lines.append(f"bounds {worst.removesuffix(' %')} to {best}")
    return join([_value(name, metric["value"]), tag("small", *(tag("div", line) for line in lines))])


def _value(name: str, value: float) -> str:
    if name in COUNTS:
        return format_number(value)
    return format_number(value, 3) if name == "verifier" else format_percent(value)


def _signed(value: float) -> str:
    number = format_number(value)
    return number if number.startswith("-") else f"+{number}"


def _verdict(gate: str) -> Html:
    return tag("span", gate, class_="good" if gate == "accepted" else "bad")


def _ordered(metrics: Iterable[Mapping[str, Any]]) -> list[str]:
    present = {name for row in metrics for name in row}
    return [name for name in TITLES if name in present]


def _flat(value: Mapping[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    rows: list[tuple[str, object]] = []
    for key, item in value.items():
        rows += _flat(item, f"{prefix}{key} · ") if isinstance(item, Mapping) else [(f"{prefix}{key}", item)]
    return rows


def _shortened(question: str, most: int = 90) -> str:
    line = " ".join(question.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _is_png(uri: object) -> bool:
    return isinstance(uri, str) and uri.startswith("data:image/png;base64,")
