from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from safeladder.models import pixels
from safeladder.types import Message, Part, SafeladderError, Sample

from .conftest import ask, encode, picture

# --- pixels equal to Hugging Face ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(56, 56), (28, 112), (84, 84), (112, 112)])
def test_qwen_fast_path_equals_hugging_face(tiny, size, monkeypatch):
    _, processor, family = tiny("qwen2_5_vl")
    image = picture(*size, seed=1)
    expected = processor.image_processor(images=[image], return_tensors="pt")
    monkeypatch.setattr(pixels, "_hugging_face", None)  # the fast path must not need it
    encoded = encode(processor, family, ask(image, "x"))
    assert torch.equal(encoded.pixel_values, expected["pixel_values"])
    assert torch.equal(encoded.image_grid_thw, expected["image_grid_thw"])


@pytest.mark.parametrize("size", [(760, 760), (57, 61), (20, 200), (113, 112)])
def test_qwen_resized_images_equal_hugging_face(tiny, size):
    _, processor, family = tiny("qwen2_5_vl")
    image = picture(*size, seed=2)
    expected = processor.image_processor(images=[image], return_tensors="pt")
    encoded = encode(processor, family, ask(image, "x"))
    assert torch.equal(encoded.pixel_values, expected["pixel_values"])
    assert torch.equal(encoded.image_grid_thw, expected["image_grid_thw"])
    assert encoded.image_grid_thw[0].prod() * 14 * 14 <= 112 * 112


def test_qwen_native_resolution_figure(tiny):
    """A 760 x 760 image under a released checkpoint's pixel limits: 27 x 27 merged patches."""
    settings_of_7b = Qwen2VLImageProcessorPil(size={"shortest_edge": 3136, "longest_edge": 12845056})
    _, processor, family = tiny("qwen2_5_vl")
    big = type(processor)(settings_of_7b, processor.tokenizer, chat_template=processor.chat_template)
    image = picture(760, 760)
    encoded = encode(big, family, ask(image, "x"))
    assert encoded.image_grid_thw.tolist() == [[1, 54, 54]]
    assert encoded.prompt_ids.count(processor.image_token_id) == 27 * 27
    assert torch.equal(encoded.pixel_values, settings_of_7b(images=[image], return_tensors="pt")["pixel_values"])


@pytest.mark.parametrize("mode", ["RGBA", "L"])
@pytest.mark.parametrize("size", [56, 60])
def test_other_image_modes_equal_hugging_face(tiny, mode, size):
    _, processor, family = tiny("qwen2_5_vl")
    image = picture(size, size, mode=mode)
    expected = processor.image_processor(images=[image], return_tensors="pt")["pixel_values"]
    assert torch.equal(encode(processor, family, ask(image, "x")).pixel_values, expected)


@pytest.mark.parametrize("size", [(56, 56), (112, 56), (200, 130)])
def test_internvl_tiles_equal_hugging_face(tiny, size):
    _, processor, family = tiny("internvl")
    image = picture(*size)
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "how many?"}]}]
    text = processor.apply_chat_template(chat, add_generation_prompt=True)
    expected = processor(text=text, images=[image], return_tensors="pt")
    encoded = encode(processor, family, ask(image, "how many?"))
    assert torch.equal(encoded.pixel_values, expected["pixel_values"])
    assert list(encoded.prompt_ids) == expected["input_ids"][0].tolist()
    assert isinstance(processor.image_processor, GotOcr2ImageProcessorPil)


# --- video --------------------------------------------------------------------------------------------------


def reference_patches(frames: np.ndarray) -> np.ndarray:
    """Qwen2-VL's patch order, spelled out one patch at a time."""
    frames = np.concatenate((frames, frames[-1:])) if len(frames) % 2 else frames
    mean = np.array([0.48145466, 0.4578275, 0.40821073])
    std = np.array([0.26862954, 0.26130258, 0.27577711])
    values = ((frames / 255 - mean) / std).transpose(0, 3, 1, 2)
    count, _, height, width = values.shape
    rows = []
    for pair in range(0, count, 2):
        for block_y in range(0, height, 28):
            for block_x in range(0, width, 28):
                for y in (block_y, block_y + 14):
                    for x in (block_x, block_x + 14):
                        cube = values[pair : pair + 2, :, y : y + 14, x : x + 14]
                        rows.append(cube.transpose(1, 0, 2, 3).reshape(-1))
    return np.stack(rows)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_video_patches_equal_the_reference_order(tiny, count):
    _, processor, family = tiny("qwen2_5_vl")
    frames = [picture(56, 84, seed=k) for k in range(count)]
    encoded = encode(processor, family, ask(frames, "what happens?"))
    assert encoded.pixel_values is None and encoded.image_grid_thw is None
    assert encoded.video_grid_thw.tolist() == [[(count + 1) // 2, 4, 6]]
    expected = reference_patches(np.stack([np.asarray(f) for f in frames]))
    np.testing.assert_allclose(encoded.video_pixel_values.numpy(), expected, atol=1e-6)
    assert encoded.prompt_ids.count(processor.video_token_id) == (count + 1) // 2 * 2 * 3


def test_a_still_video_equals_its_image(tiny):
    _, processor, family = tiny("qwen2_5_vl")
    frame = picture(100, 70)
    image = encode(processor, family, ask(frame, "x"))
    video = encode(processor, family, ask([frame, frame], "x"))
    assert torch.equal(image.pixel_values, video.video_pixel_values)
    assert torch.equal(image.image_grid_thw, video.video_grid_thw)


def test_video_frames_must_share_a_size(tiny):
    _, processor, family = tiny("qwen2_5_vl")
    with pytest.raises(SafeladderError, match="'s': the frames of a video differ in size"):
        encode(processor, family, ask([picture(56, 56), picture(56, 84)], "x"))
    with pytest.raises(SafeladderError, match="'s': a video has no frames"):
        encode(processor, family, ask([], "x"))


@pytest.mark.parametrize("name", ["internvl", "llama"])
def test_video_is_refused_where_unsupported(tiny, name):
    _, processor, family = tiny(name)
    with pytest.raises(SafeladderError, match=f"video, but the {name} family"):
        encode(processor, family, ask([picture()], "x"))


# --- images that are not there ------------------------------------------------------------------------------


def path_sample(path) -> Sample:
    message = Message(role="user", parts=(Part(image=str(path)), Part(text="x")))
    return Sample(id="s", label="x", messages=(message,))


@pytest.mark.parametrize("content", [b"", b"not an image", "cut"])
def test_damaged_image_files(tiny, tmp_path, content):
    _, processor, family = tiny("qwen2_5_vl")
    path = tmp_path / "bad.png"
    if content == "cut":
        picture(200, 200).save(path)
        path.write_bytes(path.read_bytes()[:5000])
    else:
        path.write_bytes(content)
    with pytest.raises(SafeladderError, match=r"bad\.png cannot be read") as caught:
        encode(processor, family, path_sample(path))
    assert "\n" not in str(caught.value)


def test_a_missing_image_names_the_path(tiny, tmp_path):
    _, processor, family = tiny("qwen2_5_vl")
    with pytest.raises(SafeladderError, match=r"'s': image file .*gone\.png does not exist"):
        encode(processor, family, path_sample(tmp_path / "gone.png"))


def test_a_folder_is_not_an_image(tiny, tmp_path):
    _, processor, family = tiny("qwen2_5_vl")
    with pytest.raises(SafeladderError, match="cannot be read"):
        encode(processor, family, path_sample(tmp_path))


def test_paths_and_pil_images_are_the_same(tiny, tmp_path):
    _, processor, family = tiny("qwen2_5_vl")
    picture(70, 90).save(tmp_path / "a.png")
    by_path = encode(processor, family, path_sample(tmp_path / "a.png"))
    by_image = encode(processor, family, ask(picture(70, 90), "x"))
    assert torch.equal(by_path.pixel_values, by_image.pixel_values)


def test_exif_orientation_of_files_is_applied(tiny, tmp_path):
    _, processor, family = tiny("qwen2_5_vl")
    exif = Image.Exif()
    exif[0x0112] = 6  # rotated by a quarter turn
    picture(56, 84).save(tmp_path / "a.png", exif=exif)
    assert encode(processor, family, path_sample(tmp_path / "a.png")).image_grid_thw.tolist() == [[1, 6, 4]]


def test_extreme_shapes_are_one_clear_line(tiny):
    _, processor, family = tiny("qwen2_5_vl")
    with pytest.raises(SafeladderError, match=r"'s': an image of 1x300 is refused"):
        encode(processor, family, ask(picture(300, 1), "x"))


def test_images_are_refused_by_a_text_family(tiny):
    _, processor, family = tiny("llama")
    with pytest.raises(SafeladderError, match="'s' has images, but the llama family takes text only"):
        encode(processor, family, ask(picture(), "x"))
