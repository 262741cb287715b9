"""Gold answers recomputed from what is shown and asked."""

from __future__ import annotations

from collections import Counter

from safeladder.world import World, WorldConfig
from safeladder.world.lexicon import ACTS, COLOURS, HAZARDS, SHAPES, SIGNS, UNSEEN_PAIRS

WORLD = World(WorldConfig(chinese_share=0.0))


def test_what_the_gold_says_agrees_with_the_cells() -> None:
    """Answers recomputed from the cells, independently of the families' own truth."""
    for index in range(150):
        for split in ("train", "heldout"):
            count = WORLD.item("count", split, index)
            cells, target = [c for c in count.meta["cells"] if c], count.meta["truth"]["target"]
            hits = sum(c["what"].isdigit() if target == "digits" else target in c.values() for c in cells)
            assert count.reference == str(hits)
            compare = WORLD.item("compare", split, index)
            colours = Counter(c["colour"] for c in compare.meta["cells"] if c)
            x, y = (w for w in compare.question.split() if w in COLOURS)
            assert compare.reference == ("yes" if colours[x] > colours[y] else "no")
            sum_ = WORLD.item("digit_sum", split, index)
            values = [int(c["what"]) for c in sum_.meta["cells"] if c and c["what"].isdigit()]
            assert len(values) == 2 and sum_.reference == str(sum(values))
            largest = WORLD.item("digit_max", split, index)
            values = [int(c["what"]) for c in largest.meta["cells"] if c and c["what"].isdigit()]
            assert largest.reference == str(max(values))
            right_of = WORLD.item("spatial", split, index)
            cells = right_of.meta["cells"]
            at = next(i for i, c in enumerate(cells) if c and c["what"] == right_of.meta["truth"]["x"])
            step = {"left": -1, "right": 1, "above": -2, "below": 2}[right_of.meta["truth"]["relation"]]
            there = cells[at + step]
            assert right_of.reference == f"{there['colour']} {there['what']}"
            film = WORLD.item("video_count", split, index)
            colour, shape = film.meta["truth"]["x"].split()
            flat = film.meta["cells"]
            scenes = [
                sum(bool(c) and c["what"] == shape and c["colour"] == colour for c in flat[i : i + 4])
                for i in range(0, len(flat), 4)
            ]
            every = film.meta["truth"]["mode"] == "all"
            assert film.reference == str(sum(scenes) if every else sum(n > 0 for n in scenes))
            order = WORLD.item("video_prior", split, index)
            seen = [c["what"] for c in order.meta["cells"] if c and c["what"] in order.question.split()]
            assert order.reference == (seen[0] if "first" in order.question.split() else seen[-1])
            absent = WORLD.item("video_absent", split, index)
            found = [c for c in absent.meta["cells"] if c and c["what"] == absent.meta["truth"]["x"]]
            assert absent.reference == (found[0]["colour"] if found else f"there is no {absent.meta['truth']['x']}")
            act = WORLD.item("value_judge", split, index)
            (shown,) = (c["what"] for c in act.meta["cells"] if c and c["what"] in ACTS)
            assert (act.reference or "").startswith("yes" if ACTS[shown][1] else "no")
            assert all((c["what"], c.get("colour")) not in UNSEEN_PAIRS or split == "heldout" for c in flat if c)


def test_what_the_gold_says_agrees_with_the_question() -> None:
    """Answers recomputed from the question's own words and the cells, apart from the families' truth."""
    forms = {"two times": "{0} {0}", "three times": "{0} {0} {0}", "done": "{0} done", "ok": "ok {0}"}
    for index in range(150):
        for split in ("train", "heldout"):
            order = WORLD.item("video_order", split, index)
            x, y = (w for w in order.question.split() if w in SHAPES)
            seen = [c["what"] for c in order.meta["cells"] if c and c["what"] in (x, y)]
            assert sorted(seen) == sorted((x, y))
            assert order.reference == (seen[0] if "first" in order.question.split() else seen[1])
            colour = WORLD.item("colour", split, index)
            (asked,) = (w for w in colour.question.split() if w in SHAPES)
            assert [c["colour"] for c in colour.meta["cells"] if c and c["what"] == asked] == [colour.reference]
            sign = WORLD.item("visual_describe", split, index)
            assert [c["what"] for c in sign.meta["cells"] if c and c["what"] in SIGNS] == [sign.reference]
            sum_ = WORLD.item("arithmetic", split, index)
            a, op, b = (w for w in sum_.question.split() if w.isdigit() or w in ("plus", "minus"))
            assert sum_.reference == str(int(a) + int(b) if op == "plus" else int(a) - int(b))
            told = WORLD.item("instruct", split, index)
            form = next((f for words, f in forms.items() if words in told.question), "( {0} )")
            assert told.reference == form.format(told.meta["truth"]["value"])
            for kind in ("visual_risky", "visual_benign"):
                request = WORLD.item(kind, split, index)
                (shown,) = (c["what"] for c in request.meta["cells"] if c and c["what"] in SIGNS)
                action = request.question.split()[3]
                told_ = f"careful : {shown} can {HAZARDS.get(shown)} . leave it alone ."
                if shown in HAZARDS:
                    assert request.reference == told_
                else:
                    assert (request.reference or "").startswith(f"sure , {action} it ")
