"""Writing samples: what was written is read back, and a failed write leaves nothing behind."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from safeladder.data import read_samples, write_samples
from safeladder.rollout.parse import ResponseFormat
from safeladder.types import Message, Part, Response, SafeladderError, Sample


def read(path):
    return read_samples(path, labels=None, format=ResponseFormat())


def test_round_trip(tmp_path, png):
    samples = [
        Sample(
            id="1",
            label="x",
            messages=(
                Message(role="system", parts=(Part(text="be kind"),)),
                Message(role="user", parts=(Part(image=str(png)), Part(text="是什么？"), Part(video=(str(png),)))),
            ),
            reference="猫",
            taxonomy=("a",),
            source="s",
            group_id="g",
            language="zh",
            response=Response(answer="猫", reasoning="看"),
            meta={"k": [1, 2.5, None]},
        ),
        Sample(id="2", label="y", source="s", messages=(Message(role="user", parts=(Part(text="hi"),)),)),
    ]
    write_samples(tmp_path / "out.jsonl", samples)
    assert read(tmp_path / "out.jsonl") == samples
    assert (
        "/"
        not in json.loads((tmp_path / "out.jsonl").read_text().splitlines()[0])["messages"][1]["content"][0]["image"]
    )


def test_images_in_memory_survive_writing(tmp_path):
    image = Image.effect_noise((9, 7), 50)
    sample = Sample(id="1", label="x", messages=(Message(role="user", parts=(Part(image=image), Part(text="?"))),))
    write_samples(tmp_path / "out.jsonl", [sample])
    (back,) = read(tmp_path / "out.jsonl")
    assert isinstance(back.images[0], Image.Image)
    assert back.images[0].tobytes() == image.tobytes() and back.images[0].size == (9, 7)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("old\n")
    before = path.read_bytes()
    message = (Message(role="user", parts=(Part(text="hi"),)),)
    good = Sample(id="1", label="x", messages=message)
    for bad in (
        Sample(id="2", label="x", messages=message, meta={"k": object()}),
        Sample(id="2", label="x", messages=message, meta={"k": float("nan")}),
        Sample(id="2", label="x", messages=(Message(role="user", parts=(Part(text="an <image>"),)),)),
    ):
        with pytest.raises(SafeladderError, match=r"2|<image>"):
            write_samples(path, [good, bad])
        assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["rows.jsonl"]


text = st.text(st.characters(exclude_categories=("Cs",)), min_size=1).filter(lambda t: t.strip())
clean = text.map(str.strip).filter(lambda t: not any(tag in t for tag in ("<think>", "</think>")))


responses = st.builds(Response, answer=clean, reasoning=st.none() | clean)


@given(question=text, reference=st.none() | text, response=st.none() | responses)
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_survives_the_round_trip(tmp_path, question, reference, response):
    if "<image>" in question or "<video>" in question:
        return
    sample = Sample(
        id="1",
        label="x",
        source="s",
        messages=(Message(role="user", parts=(Part(text=question),)),),
        reference=reference,
        response=response,
    )
    write_samples(tmp_path / "out.jsonl", [sample])
    assert read(tmp_path / "out.jsonl") == [sample]
