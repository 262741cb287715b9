"""The pages on disk: found by place and by id, sorted in bounded memory, repeated ids told from equal digests."""

from __future__ import annotations

from pathlib import Path

import pytest

from safeladder.search import pages
from safeladder.search.pages import PAGES, PageFile, RepeatedId, pack_entry, pack_page, sort_ids
from safeladder.search.retriever import Document


def write(folder: Path, documents: list[Document]) -> list[int]:
    places, place = [], 0
    with (folder / PAGES).open("wb") as file, (folder / "entries").open("wb") as entries:
        for document in documents:
            places.append(place)
            entries.write(pack_entry(document.id, place))
            place += file.write(pack_page(document))
    return places


def document(id: str, text: str = "text\nof two lines") -> Document:
    return Document(id=id, title=f"title {id}", text=text)


def test_pages_by_place_and_by_id(tmp_path):
    documents = [document(str(i), text="é" * (i % 3000)) for i in range(0, 9000, 7)]
    places = write(tmp_path, documents)
    sort_ids(tmp_path, tmp_path / "entries")
    file = PageFile(tmp_path)
    assert [file.at(place) for place in places] == documents
    assert [file.find(d.id) for d in documents] == documents
    assert file.find("1") is None
    assert file.find("") is None


def test_no_page_beyond_the_end(tmp_path):
    write(tmp_path, [document("1")])
    sort_ids(tmp_path, tmp_path / "entries")
    size = (tmp_path / PAGES).stat().st_size
    file = PageFile(tmp_path)
    with pytest.raises(OSError, match="no page at"):
        file.at(size)
    (tmp_path / PAGES).write_bytes((tmp_path / PAGES).read_bytes()[:-3])
    with pytest.raises(OSError, match="cut off"):
        PageFile(tmp_path).at(0)


def test_sorting_in_slices_gives_the_same_table(tmp_path, monkeypatch):
    """Memory is bounded by the slice; here seven slices and a bit."""
    documents = [document(f"page {i}") for i in range(1500)]
    write(tmp_path, documents)
    sort_ids(tmp_path, tmp_path / "entries")
    whole = [(tmp_path / name).read_bytes() for name in ("ids.bin", "places.bin")]
    monkeypatch.setattr(pages, "_SORTED_AT_ONCE", 200)
    sort_ids(tmp_path, tmp_path / "entries")
    assert [(tmp_path / name).read_bytes() for name in ("ids.bin", "places.bin")] == whole
    assert PageFile(tmp_path).find("page 1499") == documents[1499]


@pytest.mark.parametrize("at_once", [2, 100])
def test_a_repeated_id_is_found(tmp_path, monkeypatch, at_once):
    monkeypatch.setattr(pages, "_SORTED_AT_ONCE", at_once)
    write(tmp_path, [document(id) for id in ("a", "b", "c", "b", "d")])
    with pytest.raises(RepeatedId) as caught:
        sort_ids(tmp_path, tmp_path / "entries")
    assert caught.value.args == ("b",)


def test_different_ids_may_share_a_digest(tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "digest_of", lambda id: b"\x00" * 7 + bytes([len(id)]))
    documents = [document(id) for id in ("a", "b", "cc", "d", "ee")]
    write(tmp_path, documents)
    sort_ids(tmp_path, tmp_path / "entries")
    file = PageFile(tmp_path)
    assert [file.find(d.id) for d in documents] == documents
    assert file.find("z") is None
    write(tmp_path, [*documents, document("b")])
    with pytest.raises(RepeatedId):
        sort_ids(tmp_path, tmp_path / "entries")
