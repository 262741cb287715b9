"""Reading samples: every layout, and every malformed row by line and cause."""

from __future__ import annotations

import base64
import io
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from safeladder.data import read_samples
from safeladder.rollout.parse import ResponseFormat
from safeladder.types import Message, Part, Response, SafeladderError, Sample

FORMAT = ResponseFormat()
ROW = {"id": "a", "label": "x", "messages": [{"role": "user", "content": "hi"}]}


def write(path, *rows):
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
    return path


def read(path, **options):
    return read_samples(path, **{"labels": None, "format": FORMAT} | options)


def cause(tmp_path, row, **options):
    """The error message for a file whose only row is `row`."""
    with pytest.raises(SafeladderError) as error:
        read(write(tmp_path / "rows.jsonl", row), **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def asking(content, **fields):
    return ROW | {"messages": [{"role": "user", "content": content}]} | fields


def uri(image=None):
    buffer = io.BytesIO()
    (image or Image.new("RGB", (2, 2))).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def test_every_field(tmp_path, png):
    row = {
        "id": "r1",
        "label": "safety",
        "reference": 7,
        "taxonomy": ["a", "b"],
        "source": "mine",
        "group_id": "g",
        "language": "zh",
        "meta": {"prompt_label": "safe"},
        "messages": [
            {"role": "system", "content": "be kind"},
            {
                "role": "user",
                "content": [{"type": "image", "image": "cat.png"}, {"type": "text", "text": "what?"}],
            },
            {"role": "assistant", "content": "<think>a cat</think>cat"},
        ],
    }
    (sample,) = read(write(tmp_path / "rows.jsonl", row))
    assert sample == Sample(
        id="r1",
        label="safety",
        reference="7",
        taxonomy=("a", "b"),
        source="mine",
        group_id="g",
        language="zh",
        meta={"prompt_label": "safe"},
        messages=(
            Message(role="system", parts=(Part(text="be kind"),)),
            Message(role="user", parts=(Part(image=str(png)), Part(text="what?"))),
        ),
        response=Response(answer="cat", reasoning="a cat"),
    )


def test_defaults(tmp_path):
    first, second = read(
        write(tmp_path / "mine.jsonl", {"prompt": "hi", "label": "x"}, "", {"prompt": "你好", "label": "x"})
    )
    assert (first.id, first.group_id, first.source, first.language) == ("mine:1", "mine:1", "mine", "en")
    assert (second.id, second.language, second.response, second.reference) == ("mine:3", "zh", None, None)


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "<image>\nwhat is it?", "images": ["cat.png"]},
        {"prompt": [{"role": "user", "content": "<image>what is it?"}], "images": ["cat.png"]},
        {"conversations": [{"from": "human", "value": "<image>\nwhat is it?"}], "images": ["cat.png"]},
        {"messages": [{"role": "user", "content": "<image>what is it?"}], "images": ["cat.png"]},
        {
            "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it?"}]}],
            "images": ["cat.png"],
        },
        asking([{"type": "image", "image": "cat.png"}, {"type": "text", "text": "what is it?"}]),
        asking([{"type": "image_url", "image_url": {"url": "cat.png"}}, {"type": "text", "text": "what is it?"}]),
    ],
)
def test_layouts_with_an_image(tmp_path, png, row):
    (sample,) = read(write(tmp_path / "rows.jsonl", {"label": "x"} | row))
    assert sample.messages == (Message(role="user", parts=(Part(image=str(png)), Part(text="what is it?"))),)


def test_images_keep_their_place_between_texts(tmp_path, png):
    row = {"label": "x", "prompt": "first <image> then <image> which?", "images": ["cat.png", uri()]}
    (sample,) = read(write(tmp_path / "rows.jsonl", row))
    kinds = ["text" if p.text is not None else type(p.image).__name__ for p in sample.messages[0].parts]
    assert kinds == ["text", "str", "text", "PngImageFile", "text"]


def test_video_frames(tmp_path, png):
    video = [{"type": "video", "video": ["cat.png", "cat.png"]}, {"type": "text", "text": "what?"}]
    (sample,) = read(write(tmp_path / "rows.jsonl", asking(video)))
    assert sample.videos == ((str(png), str(png)),) and sample.images == ()


@pytest.mark.parametrize(
    ("turn", "response"),
    [
        ({"content": "<think>r</think>a"}, Response(answer="a", reasoning="r")),
        ({"content": "a", "reasoning_content": "r"}, Response(answer="a", reasoning="r")),
        ({"content": [{"type": "text", "text": "<think>r</think>"}, {"type": "text", "text": "a"}]},
         Response(answer="a", reasoning="r")),
        ({"content": " a "}, Response(answer="a")),
    ],
)  # fmt: skip
def test_demonstrations(tmp_path, turn, response):
    row = ROW | {"messages": [*ROW["messages"], {"role": "assistant", **turn}]}
    (sample,) = read(write(tmp_path / "rows.jsonl", row))
    assert sample.response == response and len(sample.messages) == 1


def test_several_turns_keep_the_history(tmp_path):
    turns = [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")]
    row = ROW | {"messages": [{"role": role, "content": text} for role, text in turns]}
    (sample,) = read(write(tmp_path / "rows.jsonl", row))
    assert [m.role for m in sample.messages] == ["user", "assistant", "user"]
    assert sample.question == "c" and sample.response == Response(answer="d")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("{", "not valid JSON"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"label": "x", "prompt": "\\ud800"}', "not UTF-8 text"),
        ("[" * 100_000, "not valid JSON"),
        ("[1]", "must be a JSON object, found list"),
        ({"label": "x"}, "needs exactly one of: messages, conversations, prompt (found: none)"),
        (ROW | {"prompt": "hi"}, "found: messages, prompt"),
        (ROW | {"refrence": "4"}, "unknown key 'refrence'; did you mean 'reference'?"),
        (ROW | {"chosen": "4"}, "unknown key 'chosen'; put further fields under meta"),
        ({"prompt": "hi"}, "label is missing"),
        (ROW | {"label": 3}, "label must be text"),
        (ROW | {"id": " "}, "id must be text that is not empty"),
        (ROW | {"reference": True}, "reference must be text or a number"),
        (ROW | {"reference": ""}, "reference must be text or a number"),
        (ROW | {"taxonomy": "a"}, "taxonomy must be a list"),
        (ROW | {"meta": []}, "meta must be an object"),
        (ROW | {"language": "de"}, "language 'de'; allowed: en, zh"),
        (ROW | {"language": ["en"]}, "allowed: en, zh"),
        (ROW | {"images": "cat.png"}, "images must be a list"),
        (ROW | {"messages": []}, "must be a list of messages"),
        (ROW | {"messages": ["hi"]}, "message 1 must be an object"),
        (ROW | {"messages": [{"role": "tool", "content": "x"}]}, "role 'tool'; allowed: system, user"),
        (ROW | {"messages": [{"role": ["user"], "content": "x"}]}, "allowed: system, user"),
        (ROW | {"messages": [{"role": "user"}]}, "content must be text or a list of parts, found NoneType"),
        (ROW | {"messages": [{"role": "system", "content": "x"}]}, "must end with a user message"),
        (ROW | {"messages": [{"role": "assistant", "content": "x"}]}, "must end with a user message"),
        (asking(""), "message 1 is empty"),
        (asking("  \n"), "message 1 is empty"),
        (asking([{"type": "image", "image": "cat.png"}]), "the last user message has no text"),
        (asking([{"type": "audio"}]), "content part of type 'audio'; allowed: text, image, image_url, video"),
        (asking(["text"]), "content part of type None"),
        (asking([{"type": "text", "text": 3}]), "content part of type 'text'"),
        (asking([{"type": "video", "video": "clip.mp4"}]), "a list of frame images"),
        (asking("<video> what?"), "give the frames as a video part"),
        (asking([{"type": "image", "image": "dog.png"}]), "dog.png' not found"),
        (asking([{"type": "image", "image": "rows.jsonl"}]), "is not an image file"),
        (asking([{"type": "image", "image": "cut.png"}]), "cut.png' is corrupt"),
        (asking([{"type": "image", "image": "cut.jpg"}]), "cut.jpg' is corrupt"),
        (asking([{"type": "image", "image": "flipped.png"}]), "flipped.png' is corrupt"),
        (asking([{"type": "image", "image": "a\0b"}]), "a\\x00b' not found"),
        (asking([{"type": "image", "image": "a\nb"}]), "a\\nb' not found"),
        (asking([{"type": "image", "image": 3}]), "an image must be a path or a data: address"),
        (asking([{"type": "image_url", "image_url": {}}]), "an image must be a path or a data: address"),
        (asking([{"type": "image_url", "image_url": {"url": "https://h/x.png"}}]), "is a network address"),
        (asking([{"type": "image", "image": "file:///x.png"}]), "is a network address"),
        (asking([{"type": "image", "image": "data:image/png;base64,%%%"}]), "not valid base64"),
        (asking([{"type": "image", "image": "data:image/png;base64,aGVsbG8="}]), "is not an image file"),
        (asking([{"type": "image", "image": "data:text/plain,hello"}]), "must look like data:image/png"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)  # fmt: skip
def test_malformed_rows_say_why(tmp_path, png, row, message):
    whole = png.read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) * 2 // 3])
    flipped = bytearray(whole)
    flipped[whole.index(b"IEND") - 5] ^= 255  # the checksum of the pixels: the decoder alone would not notice
    (tmp_path / "flipped.png").write_bytes(flipped)
    photo = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(photo, format="JPEG")
    (tmp_path / "cut.jpg").write_bytes(photo.getvalue()[: len(photo.getvalue()) // 2])
    text = cause(tmp_path, row)
    assert message in text and "rows.jsonl: 1 of 1 rows malformed: line 1: " in text


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"content": "<think>never closed"}, "not <think>reasoning</think>answer"),
        ({"content": "<think></think>a"}, "not <think>reasoning</think>answer"),
        ({"content": "<think>r</think>"}, "not <think>reasoning</think>answer"),
        ({"content": "<think>r</think>a", "reasoning_content": "r"}, "not both"),
        ({"content": "a", "reasoning_content": " "}, "reasoning_content must be text"),
        ({"content": "a", "reasoning_content": "r <think> r"}, "holds a reasoning tag"),
        ({"content": " "}, "the assistant's answer is empty"),
        ({"content": [{"type": "image", "image": "cat.png"}]}, "may hold text only"),
    ],
)
def test_malformed_demonstrations(tmp_path, png, turn, message):
    assert message in cause(tmp_path, ROW | {"messages": [*ROW["messages"], {"role": "assistant", **turn}]})


def test_reasoning_belongs_to_the_last_turn(tmp_path):
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "reasoning_content": "r"},
        {"role": "user", "content": "c"},
    ]
    assert "last assistant message only" in cause(tmp_path, ROW | {"messages": turns})


@pytest.mark.parametrize(
    ("text", "images", "message"),
    [
        ("what?", ["cat.png"], "0 <image> markers in the text but 1 images"),
        ("<image> what?", ["cat.png", "cat.png"], "1 <image> markers in the text but 2 images"),
        ("<image> and <image>?", ["cat.png"], "more <image> markers in the text than images"),
        ("<image> what?", [], "more <image> markers in the text than images"),
    ],
)
@pytest.mark.parametrize("layout", ["prompt", "conversations", "messages"])
def test_K12_image_markers_and_images_must_match(tmp_path, png, layout, text, images, message):
    body = {
        "prompt": text,
        "conversations": [{"from": "human", "value": text}],
        "messages": [{"role": "user", "content": text}],
    }[layout]
    assert message in cause(tmp_path, {"label": "x", layout: body, "images": images})


def test_H05_a_row_with_a_missing_image_stops_the_run_instead_of_vanishing(tmp_path, png):
    rows = [{"label": "x", "prompt": "<image>what?", "images": [name]} for name in ("cat.png", "gone.png")]
    with pytest.raises(SafeladderError, match=r"1 of 2 rows malformed: line 2: image .*gone\.png' not found"):
        read(write(tmp_path / "rows.jsonl", *rows))


def test_A09_unknown_label_is_an_error_when_data_is_loaded(tmp_path):
    assert "unknown label 'x'; allowed: a, b" in cause(tmp_path, ROW, labels={"b", "a"})


def test_what_a_labels_verifiers_need(tmp_path):
    needs = {"x": ("reference", "meta.prompt_label")}
    assert "label 'x' needs 'reference'" in cause(tmp_path, ROW, requires=needs)
    assert "label 'x' needs 'meta.prompt_label'" in cause(tmp_path, ROW | {"reference": "4"}, requires=needs)
    row = ROW | {"reference": "4", "meta": {"prompt_label": "safe"}}
    assert read(write(tmp_path / "rows.jsonl", row), requires=needs)[0].reference == "4"


def test_duplicate_ids(tmp_path):
    with pytest.raises(SafeladderError, match=r"line 3: duplicate id 'a' \(first on line 1\)"):
        read(write(tmp_path / "rows.jsonl", ROW, "", ROW))


def test_ten_errors_are_named_and_all_are_counted(tmp_path):
    with pytest.raises(SafeladderError) as error:
        read(write(tmp_path / "rows.jsonl", ROW, *(["{"] * 13)))
    text = str(error.value)
    assert "13 of 14 rows malformed" in text and text.endswith("; and 3 more")
    assert "line 2: " in text and "line 11: " in text and "line 12: " not in text


def test_files(tmp_path):
    with pytest.raises(SafeladderError, match=r"none\.jsonl not found"):
        read(tmp_path / "none.jsonl")
    with pytest.raises(SafeladderError, match="cannot be read"):
        read(tmp_path)
    with pytest.raises(SafeladderError, match="holds no rows"):
        read(write(tmp_path / "rows.jsonl", "", "  "))
    (tmp_path / "latin.jsonl").write_bytes(b'{"prompt": "caf\xe9", "label": "x"}\n')
    with pytest.raises(SafeladderError, match="line 1: not UTF-8"):
        read(tmp_path / "latin.jsonl")
    (tmp_path / "bom.jsonl").write_bytes(b'\xef\xbb\xbf{"prompt": "hi", "label": "x"}\r\n')
    assert read(tmp_path / "bom.jsonl")[0].question == "hi"


def test_no_network(tmp_path, monkeypatch):
    import socket

    def refuse(*_):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert "network address" in cause(tmp_path, {"label": "x", "prompt": "<image>?", "images": ["http://h/a.png"]})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["user", "text", "image", "x"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["role", "content", "type", "text", "image", "from", "value", "video"]), inner
        )
    ),
    max_leaves=12,
)
keys = st.sampled_from(
    ["id", "label", "messages", "conversations", "prompt", "images", "meta", "reference", "taxonomy"]
)


@given(st.dictionaries(keys, json_values).map(json.dumps) | st.text())
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_row_is_read_or_refused_in_one_line(tmp_path, row):
    (tmp_path / "rows.jsonl").write_bytes(row.encode("utf-8", "surrogatepass"))
    try:
        read(tmp_path / "rows.jsonl")
    except SafeladderError as error:
        assert "\n" not in str(error)


def test_the_rows_of_the_documentation_are_read(tmp_path):
    from pathlib import Path

    document = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")
    rows = [line for line in document.splitlines() if line.startswith('{"id"')]
    (tmp_path / "images").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "images" / "cup.png")
    samples = read(write(tmp_path / "rows.jsonl", *rows))
    assert len(samples) == 6 and sum(s.response is not None for s in samples) == 2
    assert sum(len(s.images) for s in samples) == 2
