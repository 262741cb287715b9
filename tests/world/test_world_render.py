"""Pictures are told apart, and the contact sheet is written whole or not at all."""

from __future__ import annotations

import html
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from safeladder.types import SafeladderError
from safeladder.world import KINDS, SEARCH, World, WorldConfig, show
from safeladder.world.lexicon import ACTS, COLOURS, GROWTH, SHAPES, SIGNS, SIZES
from safeladder.world.render import CELL, digit_images, scene_image, tile
from safeladder.world.show import contact_sheet

DRAWN = [
    *({"what": s, "colour": c, "size": z} for s in SHAPES for c in COLOURS for z in SIZES),
    *({"what": w} for w in (*SIGNS, *ACTS, *(t for pair in GROWTH for t in pair))),
]


def test_no_two_pictures_look_alike() -> None:
    arrays = np.stack([np.asarray(tile(cell), dtype=float) for cell in DRAWN])
    difference = np.abs(arrays[:, None] - arrays[None]).mean(axis=(2, 3, 4))
    np.fill_diagonal(difference, 255)
    assert difference.min() > 2.0
    assert (255 - arrays).mean(axis=(1, 2, 3)).min() > 4.0  # none is nearly empty


def test_digits_are_the_real_handwritten_ones_by_disjoint_writers() -> None:
    data: Any = load_digits()
    for value in range(10):
        train, held = digit_images(value, False), digit_images(value, True)
        assert len(train) > 100 and len(held) > 30 and max(train) < min(held)
        assert {int(data.target[i]) for i in (*train, *held)} == {value}
    big = np.asarray(tile({"what": "0", "size": "big", "image": 0}))[2:26, 2:26].astype(float)
    shrunk = 255 - big.reshape(8, 3, 8, 3, 3).mean(axis=(1, 3, 4))
    assert np.corrcoef(shrunk.ravel(), data.images[0].ravel())[0, 1] > 0.97


def test_a_scene_puts_each_tile_in_its_cell() -> None:
    flame = {"what": "flame"}
    picture = scene_image([None, None, None, None, None, flame, None, None, None], 3)
    assert picture.size == (3 * CELL, 3 * CELL)
    box = (2 * CELL, CELL, 3 * CELL, 2 * CELL)
    assert picture.crop(box).tobytes() == tile(flame).tobytes()
    outside = np.asarray(picture).copy()
    outside[CELL : 2 * CELL, 2 * CELL :] = 255
    assert (outside == 255).all()


def test_contact_sheet_as_a_self_contained_page(tmp_path: Path) -> None:
    world, path = World(WorldConfig(chinese_share=0.5)), tmp_path / "sheet.html"
    contact_sheet(world, path, per_kind=2, split="heldout")
    page = path.read_text(encoding="utf-8")
    assert [p.name for p in tmp_path.iterdir()] == ["sheet.html"]
    assert page.count("<article>") == 2 * len((*KINDS, *SEARCH)) and "class=bad" not in page
    for kind in (*KINDS, *SEARCH):
        sample = world.item(kind, "heldout", 1)
        assert html.escape(sample.question) in page and html.escape(sample.reference or "") in page
    for turn in ("&lt;search&gt;", "&lt;read&gt;", "&lt;answer&gt;", "\n1) id "):
        assert turn in page
    assert set(re.findall(r'src="([^,]*),', page)) == {"data:image/png;base64"} and "http" not in page


def test_contact_sheet_as_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "new" / "sheet.png"
    contact_sheet(World(WorldConfig(chinese_share=0.0)), path, per_kind=1)
    assert [p.name for p in path.parent.iterdir()] == ["sheet.png"]
    with Image.open(path) as sheet:
        assert sheet.height > 100 * len(KINDS) + 400 * len(SEARCH)
    monkeypatch.setattr(show, "_CJK_FONTS", ())
    show._font.cache_clear()
    contact_sheet(World(WorldConfig(chinese_share=1.0)), path, per_kind=1)
    show._font.cache_clear()
    assert sorted(p.name for p in path.parent.iterdir()) == ["sheet.html", "sheet.png"]


def test_contact_sheet_mistakes_leave_nothing_behind(tmp_path: Path) -> None:
    world = World(WorldConfig())
    with pytest.raises(SafeladderError, match=r"sheet\.pdf: the name must end in \.html or \.png"):
        contact_sheet(world, tmp_path / "sheet.pdf")
    with pytest.raises(SafeladderError, match="per_kind is 0"):
        contact_sheet(world, tmp_path / "sheet.png", per_kind=0)
    with pytest.raises(SafeladderError, match="unknown split 'test'"):
        contact_sheet(world, tmp_path / "sheet.png", split="test")
    (tmp_path / "taken.html").mkdir()
    with pytest.raises(SafeladderError, match=r"cannot write .*taken\.html"):
        contact_sheet(world, tmp_path / "taken.html", per_kind=1)
    assert [p.name for p in tmp_path.iterdir()] == ["taken.html"]


def test_missing_scikit_learn_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    from safeladder.world import render

    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    render._digits.cache_clear()
    try:
        with pytest.raises(SafeladderError, match=r"pip install 'safeladder\[world\]'"):
            render._digits()
    finally:
        monkeypatch.undo()
        render._digits.cache_clear()
