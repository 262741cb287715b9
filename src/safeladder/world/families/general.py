"""General capability: count, compare, colour, spatial relation, handwritten digits, arithmetic in text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

from safeladder.world.kinds import (
    Cell,
    Draft,
    Find,
    Imagine,
    Kind,
    Propose,
    Say,
    Scope,
    Truth,
    name_of,
    others,
)
from safeladder.world.lexicon import COLOURS, RELATIONS, SHAPES, pick, tr


def with_value(truth: Truth, values: tuple[str, ...]) -> list[Truth]:
    """The same task with each of these results."""
    return [{**truth, "value": value} for value in values]


def value(truth: Truth, language: str) -> str:
    """The bare result."""
    return tr(language, truth["value"])


def numbers(high: int) -> tuple[str, ...]:
    """0 to high, as words."""
    return tuple(str(n) for n in range(high + 1))


def yes_no(flag: bool) -> str:
    """The word for a truth value."""
    return "yes" if flag else "no"


# count


def propose_count(rng: Random, scope: Scope) -> Draft:
    n = scope.number(rng, 1, min(scope.cells, 6))
    hits = rng.randint(0, min(n, 4))
    target = rng.choice((*SHAPES, *COLOURS, *["digits"] * 3))
    if target == "digits":
        things = [scope.digit(rng, rng.randrange(10)) for _ in range(hits)]
        things += [scope.thing(rng) for _ in range(n - hits)]
    elif target in SHAPES:
        things = [scope.thing(rng, shapes=(target,)) for _ in range(hits)]
        things += [scope.thing(rng, shapes=others(SHAPES, target)) for _ in range(n - hits)]
    else:
        things = [scope.thing(rng, colours=(target,)) for _ in range(hits)]
        things += [scope.thing(rng, colours=others(COLOURS, target)) for _ in range(n - hits)]
    truth = {"target": target, "value": str(hits), "phrasing": rng.randrange(2)}
    return Draft(truth=truth, asked=f"count {target}", cells=scope.place(rng, things), scenes=1, hard=n >= 3)


def ask_count(truth: Truth, language: str) -> str:
    x = truth["target"] if truth["target"] == "digits" else f"{truth['target']} shapes"
    x_zh = tr("zh", truth["target"])
    if truth["phrasing"]:
        return f"count the {x} ." if language == "en" else f"数 一 数 {x_zh} ."
    return f"how many {x} are there ?" if language == "en" else f"有 几 个 {x_zh} ?"


def key_count(truth: Truth, language: str) -> tuple[str, str]:
    return "", f"{tr(language, truth['target'])} {truth['value']}"


# compare

_MORE = tuple((a, b) for a in range(5) for b in range(5) if a > b and a + b <= 4)
_NOT_MORE = tuple((a, b) for a in range(4) for b in range(5) if a <= b and 0 < a + b <= 4)


def propose_compare(rng: Random, scope: Scope) -> Draft:
    a, b = rng.choice(_MORE if scope.variant else _NOT_MORE)
    x, y = rng.sample(COLOURS, 2)
    n = max(a + b, scope.number(rng, 1, min(scope.cells, 6)))
    things = [scope.thing(rng, colours=(x,)) for _ in range(a)] + [scope.thing(rng, colours=(y,)) for _ in range(b)]
    things += [scope.thing(rng, colours=others(COLOURS, x, y)) for _ in range(n - a - b)]
    truth = {"x": x, "y": y, "n": [a, b], "value": yes_no(a > b), "phrasing": 0}
    return Draft(truth=truth, asked=f"more {x} {y}", cells=scope.place(rng, things), scenes=1, hard=True)


def ask_compare(truth: Truth, language: str) -> str:
    return pick(language, "are there more {x} than {y} shapes ?", "{x} 比 {y} 多 吗 ?", x=truth["x"], y=truth["y"])


def key_compare(truth: Truth, language: str) -> tuple[str, str]:
    a, b = truth["n"]
    return f"{tr(language, truth['x'])} {a} , {tr(language, truth['y'])} {b}", f": {value(truth, language)}"


# colour


def propose_colour(rng: Random, scope: Scope) -> Draft:
    n = scope.number(rng, 1, min(scope.cells, 6))
    shape = rng.choice(SHAPES)
    target = scope.thing(rng, shapes=(shape,))
    assert target is not None
    things = [target] + [scope.thing(rng, shapes=others(SHAPES, shape)) for _ in range(n - 1)]
    truth = {"x": shape, "value": target["colour"], "phrasing": rng.randrange(2)}
    return Draft(truth=truth, asked=f"colour {shape}", cells=scope.place(rng, things), scenes=1)


def ask_colour(truth: Truth, language: str) -> str:
    if truth["phrasing"]:
        return pick(language, "tell me the colour of the {x} .", "说 {x} 的 颜色 .", x=truth["x"])
    return pick(language, "what colour is the {x} ?", "{x} 是 什么 颜色 ?", x=truth["x"])


def key_colour(truth: Truth, language: str) -> tuple[str, str]:
    return "", pick(language, "{x} is {c}", "{x} 是 {c}", x=truth["x"], c=truth["value"])


# spatial

_STEP = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}


def neighbour(position: int, relation: str, grid: int) -> int | None:
    """The cell that lies left of, right of, above or below a cell, or None outside the picture."""
    row, column = position // grid + _STEP[relation][0], position % grid + _STEP[relation][1]
    return row * grid + column if 0 <= row < grid and 0 <= column < grid else None


def propose_spatial(rng: Random, scope: Scope) -> Draft:
    shape, relation = rng.choice(SHAPES), rng.choice(tuple(RELATIONS))
    spots = [p for p in range(scope.cells) if neighbour(p, relation, scope.grid) is not None]
    at = rng.choice(spots)
    there = neighbour(at, relation, scope.grid)
    assert there is not None
    cells: list[Cell] = [None] * scope.cells
    cells[at] = scope.thing(rng, shapes=(shape,))
    cells[there] = scope.thing(rng, shapes=others(SHAPES, shape))
    free = [p for p in range(scope.cells) if p not in (at, there)]
    n = scope.number(rng, 2, min(scope.cells, 6))
    for p in rng.sample(free, n - 2):
        cells[p] = scope.thing(rng, shapes=others(SHAPES, shape))
    truth = {"x": shape, "relation": relation, "value": name_of(cells[there]), "phrasing": 0}
    return Draft(truth=truth, asked=f"{relation} {shape}", cells=cells, scenes=1, hard=n >= 3)


def ask_spatial(truth: Truth, language: str) -> str:
    where = pick(language, *RELATIONS[truth["relation"]], x=truth["x"])
    return f"what is {where} ?" if language == "en" else f"{where} 是 什么 ?"


def key_spatial(truth: Truth, language: str) -> tuple[str, str]:
    return pick(language, *RELATIONS[truth["relation"]], x=truth["x"]), f": {value(truth, language)}"


_OBJECTS = tuple(f"{c} {s}" for c in COLOURS for s in SHAPES)


# handwritten digits


def _digit_scene(rng: Random, scope: Scope, digits: Sequence[int]) -> list[Cell]:
    n = max(len(digits), scope.number(rng, len(digits), min(scope.cells, 6)))
    things = [scope.digit(rng, d) for d in digits] + [scope.thing(rng) for _ in range(n - len(digits))]
    return scope.place(rng, things)


def _read(cells: Sequence[Cell]) -> list[str]:
    """The digits of a scene, in reading order."""
    return [c["what"] for c in cells if c is not None and c["what"].isdigit()]


def objects(cells: Sequence[Cell]) -> int:
    """How many things are shown."""
    return sum(c is not None for c in cells)


def propose_digit_sum(rng: Random, scope: Scope) -> Draft:
    cells = _digit_scene(rng, scope, [rng.randrange(10), rng.randrange(10)])
    a, b = _read(cells)
    truth = {"a": a, "b": b, "op": "plus", "value": str(int(a) + int(b)), "phrasing": rng.randrange(2)}
    return Draft(truth=truth, asked="sum", cells=cells, scenes=1, hard=int(a) + int(b) > 9 or objects(cells) >= 3)


def ask_digit_sum(truth: Truth, language: str) -> str:
    if truth["phrasing"]:
        return pick(language, "add the digits .", "加 数字 .")
    return pick(language, "what is the sum of the digits ?", "数字 一共 是 几 ?")


def key_sum(truth: Truth, language: str) -> tuple[str, str]:
    return f"{truth['a']} {tr(language, truth['op'])} {truth['b']}", pick(
        language, "is {v}", "是 {v}", v=truth["value"]
    )


def propose_digit_max(rng: Random, scope: Scope) -> Draft:
    n = scope.number(rng, 2, 3)
    cells = _digit_scene(rng, scope, rng.sample(range(10), n))
    digits = _read(cells)
    truth = {"digits": digits, "value": max(digits), "phrasing": 0}
    return Draft(truth=truth, asked="largest", cells=cells, scenes=1, hard=n >= 3)


def ask_digit_max(truth: Truth, language: str) -> str:
    return pick(language, "which digit is the largest ?", "最大 的 数字 是 几 ?")


def key_digit_max(truth: Truth, language: str) -> tuple[str, str]:
    return f"{' , '.join(truth['digits'])} :", pick(language, "largest {v}", "最大 {v}", v=truth["value"])


# arithmetic in text


def propose_arithmetic(rng: Random, scope: Scope) -> Draft:
    a, b = rng.randrange(10), rng.randrange(10)
    op = rng.choice(("plus", "minus"))
    if op == "minus":
        a, b = max(a, b), min(a, b)
    result = a + b if op == "plus" else a - b
    phrasing = rng.randrange(2)
    truth = {"a": str(a), "b": str(b), "op": op, "value": str(result), "phrasing": phrasing}
    # The phrasing belongs to the content: a table of 155 results is learned by heart, so what is held out is a
    # pair in a phrasing that it was never asked in, not the result itself.
    return Draft(truth=truth, asked=f"{a} {op} {b} ({phrasing})", hard=result > 9)


def ask_arithmetic(truth: Truth, language: str) -> str:
    sum_ = f"{truth['a']} {tr(language, truth['op'])} {truth['b']}"
    if truth["phrasing"]:
        return f"{sum_} ?"
    return f"what is {sum_} ?" if language == "en" else f"{sum_} 是 几 ?"


def view_arithmetic(meta: Mapping[str, Any], language: str) -> tuple[str, str]:
    truth = meta["truth"]
    return pick(language, "read :", "读 :"), f"{truth['a']} , {truth['b']} , {tr(language, truth['op'])}"


def alternatives_arithmetic(truth: Truth) -> list[Truth]:
    return with_value(truth, numbers(18) if truth["op"] == "plus" else numbers(9))


def _general(name: str, propose: Propose, ask: Say, key: Find, alternatives: Imagine, **more: Any) -> Kind:
    return Kind(
        name=name,
        family="general",
        label="general_rule",
        propose=propose,
        ask=ask,
        key=key,
        answer=value,
        alternatives=alternatives,
        **more,
    )


KINDS = (
    _general("count", propose_count, ask_count, key_count, lambda t: with_value(t, numbers(4))),
    _general("compare", propose_compare, ask_compare, key_compare, lambda t: with_value(t, ("yes", "no"))),
    _general("colour", propose_colour, ask_colour, key_colour, lambda t: with_value(t, COLOURS)),
    _general("spatial", propose_spatial, ask_spatial, key_spatial, lambda t: with_value(t, _OBJECTS)),
    _general("digit_sum", propose_digit_sum, ask_digit_sum, key_sum, lambda t: with_value(t, numbers(18))),
    _general("digit_max", propose_digit_max, ask_digit_max, key_digit_max, lambda t: with_value(t, numbers(9))),
    _general(
        "arithmetic",
        propose_arithmetic,
        ask_arithmetic,
        key_sum,
        alternatives_arithmetic,
        view=view_arithmetic,
        composes=False,
    ),
)
