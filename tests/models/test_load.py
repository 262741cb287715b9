from __future__ import annotations

import json
import os
import runpy
import shutil
import socket
import struct
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from safeladder.models import load
from safeladder.models.families import tokenizer_of
from safeladder.models.load import (
    check_shapes,
    freeze_vision,
    load_checkpoint,
    save_checkpoint,
    trainable_parameters,
)
from safeladder.types import SafeladderError

from .conftest import FAMILY_NAMES, ask, encode, picture, question_for


def logits(model, processor, family, name):
    encoded = encode(processor, family, question_for(name))
    inputs = {"input_ids": torch.tensor([encoded.prompt_ids])}
    if encoded.pixel_values is not None:
        inputs["pixel_values"] = encoded.pixel_values
    if encoded.image_grid_thw is not None:
        inputs["image_grid_thw"] = encoded.image_grid_thw
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == model.config.image_token_id).int()
    with torch.no_grad():
        return model(**inputs).logits


@pytest.fixture(scope="module")
def saved(tiny, tmp_path_factory):
    """Path of each family's saved test model; copy before damaging it."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for name in FAMILY_NAMES:
        model, processor, _ = tiny(name)
        save_checkpoint(model, processor, folder / name)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    def make(name: str) -> Path:
        return shutil.copytree(saved / name, tmp_path / name)

    return make


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_saved_and_loaded_logits_are_bit_equal(tiny, saved, name, no_network):
    model, processor, family = tiny(name)
    again, its_processor, its_family = load_checkpoint(saved / name)
    assert its_family is family and not again.training
    assert type(again) is type(model) and type(its_processor) is type(processor)
    assert torch.equal(logits(again, its_processor, family, name), logits(model, processor, family, name))
    assert tokenizer_of(its_processor).get_vocab() == tokenizer_of(processor).get_vocab()
    assert again.generation_config.eos_token_id == tokenizer_of(processor).eos_token_id


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_plain_transformers_loads_it(tiny, saved, name, no_network):
    model, processor, family = tiny(name)
    auto = AutoModelForCausalLM if name == "llama" else AutoModelForImageTextToText
    plain = auto.from_pretrained(saved / name, local_files_only=True)
    assert torch.equal(logits(plain, processor, family, name), logits(model, processor, family, name))
    tokenizer = AutoTokenizer.from_pretrained(saved / name, local_files_only=True)
    text = "how many 12 <think>红</think><|im_end|>"
    assert tokenizer.encode(text) == tokenizer_of(processor).encode(text)
    assert tokenizer.decode(tokenizer.encode("a  b ,c")) == "a  b ,c"


def test_saved_pixels_are_bit_equal(saved, tiny):
    _, processor, family = tiny("qwen2_5_vl")
    _, again, _ = load_checkpoint(saved / "qwen2_5_vl")
    for sample in (ask(picture(300, 200), "x"), ask([picture(300, 200)] * 3, "x")):
        a, b = encode(processor, family, sample), encode(again, family, sample)
        assert a.prompt_ids == b.prompt_ids
        for field in ("pixel_values", "video_pixel_values"):
            x, y = getattr(a, field), getattr(b, field)
            assert x is y is None or torch.equal(x, y)


def test_official_processor_names_are_written(saved):
    qwen = json.loads((saved / "qwen2_5_vl" / "processor_config.json").read_text())
    assert qwen["processor_class"] == "Qwen2_5_VLProcessor"
    assert qwen["image_processor"]["image_processor_type"] == "Qwen2VLImageProcessor"
    assert qwen["video_processor"]["video_processor_type"] == "Qwen2VLVideoProcessor"
    assert qwen["video_processor"]["size"] == qwen["image_processor"]["size"]
    intern = json.loads((saved / "internvl" / "processor_config.json").read_text())
    assert intern["processor_class"] == "InternVLProcessor"
    assert intern["video_processor"]["video_processor_type"] == "InternVLVideoProcessor"
    assert intern["video_processor"]["image_mean"] == [0.485, 0.456, 0.406]
    assert intern["image_seq_length"] == 4
    for name in ("qwen2_5_vl", "internvl"):
        text = "".join(f.read_text() for f in (saved / name).glob("*.json"))
        assert "ImageOnly" not in text and "ProcessorPil" not in text


def test_a_released_layout_loads(saved, copy):
    """Released Qwen2.5-VL: preprocessor_config.json, chat_template.json, no processor_config.json."""
    folder = copy("qwen2_5_vl")
    settings = json.loads((folder / "processor_config.json").read_text())["image_processor"]
    template = (folder / "chat_template.jinja").read_text()
    (folder / "processor_config.json").unlink()
    (folder / "chat_template.jinja").unlink()
    size = settings.pop("size")
    limits = {"min_pixels": size["shortest_edge"], "max_pixels": 60 * 60}
    (folder / "preprocessor_config.json").write_text(
        json.dumps(settings | limits | {"processor_class": "Qwen2_5_VLProcessor"})
    )
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    model, processor, family = load_checkpoint(folder)
    encoded = encode(processor, family, question_for("qwen2_5_vl"))
    assert encoded.prompt_ids.count(model.config.image_token_id) == 4
    assert encode(processor, family, ask(picture(300, 300), "x")).image_grid_thw.tolist() == [[1, 4, 4]]
    assert encode(processor, family, ask([picture(300, 300)], "x")).video_grid_thw.tolist() == [[1, 4, 4]]


def test_internvl_with_a_llama_text_tower(tiny, tmp_path):
    model, processor, family = tiny("internvl")
    config = model.config.to_dict()
    config["text_config"] = {
        **{k: v for k, v in config["text_config"].items() if k not in ("model_type", "layer_types")},
        "model_type": "llama",
    }
    other = AutoModelForImageTextToText.from_config(type(model.config)(**config)).eval()
    assert type(family.text_model(other)).__name__ == "LlamaModel"
    save_checkpoint(other, processor, tmp_path / "c")
    again, its_processor, _ = load_checkpoint(tmp_path / "c")
    assert torch.equal(logits(again, its_processor, family, "internvl"), logits(other, processor, family, "internvl"))


def test_bfloat16(saved):
    model, *_ = load_checkpoint(saved / "llama", dtype="bfloat16")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


# --- what is refused ----------------------------------------------------------------------------------------


def one_line(error) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_another_family_than_expected(saved):
    with pytest.raises(SafeladderError, match="is a llama checkpoint; expected: qwen2_5_vl"):
        load_checkpoint(saved / "llama", expected="qwen2_5_vl")


def test_unknown_family(copy):
    folder = copy("llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "mamba"}))
    with pytest.raises(SafeladderError, match="unknown model family 'mamba'; allowed"):
        load_checkpoint(folder)


@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_refused_unread(copy, file):
    folder = copy("llama")
    (folder / "model.safetensors").unlink()
    (folder / file).write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    with pytest.raises(SafeladderError, match="is a pickle, which can run code") as error:
        load_checkpoint(folder)
    assert file in one_line(error)


def test_no_checkpoint(tmp_path, copy):
    with pytest.raises(SafeladderError, match="does not exist"):
        load_checkpoint(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(SafeladderError, match=r"no config\.json"):
        load_checkpoint(tmp_path / "empty")
    folder = copy("llama")
    (folder / "model.safetensors").unlink()
    with pytest.raises(SafeladderError, match="has no weights"):
        load_checkpoint(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(SafeladderError, match=r"cannot read .*config\.json"):
        load_checkpoint(folder)


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_damaged_weights(copy, keep):
    folder = copy("llama")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(SafeladderError, match=r"truncated|damaged") as error:
        load_checkpoint(folder)
    one_line(error)


def test_a_lying_header_does_not_eat_memory(copy):
    folder = copy("llama")
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    with pytest.raises(SafeladderError, match="damaged"):
        check_shapes(folder)


def test_missing_weights_are_not_filled_with_random_ones(copy):
    folder = copy("llama")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SafeladderError, match=r"1 missing keys .*layers\.1\.mlp\.up_proj"):
        load_checkpoint(folder)


def test_misshapen_weights(copy):
    folder = copy("llama")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.ones(7)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SafeladderError) as error:
        load_checkpoint(folder)
    assert "llama" in one_line(error)


def test_a_missing_shard(copy):
    folder = copy("llama")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    index = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(SafeladderError, match=r"weight file model-00002-of-00002\.safetensors is missing"):
        check_shapes(folder)


def test_a_missing_tokenizer(copy):
    folder = copy("qwen2_5_vl")
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(SafeladderError, match="has no tokenizer") as error:
        load_checkpoint(folder)
    one_line(error)


@pytest.mark.parametrize(("name", "kind"), [("qwen2_5_vl", "image"), ("qwen2_5_vl", "video"), ("internvl", "image")])
def test_K12_image_token_is_checked_at_load(copy, name, kind):
    folder = copy(name)
    config = json.loads((folder / "config.json").read_text())
    config[f"{kind}_token_id"] = 7
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SafeladderError, match=f"the model's {kind} token id is 7"):
        load_checkpoint(folder)


def test_a_tokenizer_larger_than_the_embedding(tiny, tmp_path, build):
    model, tokenizer = build("llama")
    tokenizer.add_tokens([f"<extra{k}>" for k in range(100)])
    save_checkpoint(model, tokenizer, tmp_path / "c")
    with pytest.raises(SafeladderError, match=r"embedding rows, but the tokenizer has \d+ tokens"):
        load_checkpoint(tmp_path / "c")


# --- looking without loading --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_check_shapes_counts_what_is_stored(tiny, saved, name):
    model, _, family = tiny(name)
    info = check_shapes(saved / name)
    parameters = sum(p.numel() for p in model.parameters())
    assert (info.family, info.parameters, info.dtype, info.shards) == (family, parameters, "float32", 1)
    assert info.bytes == 4 * parameters


def test_check_shapes_adds_shards(tiny, tmp_path):
    model, *_ = tiny("llama")
    model.save_pretrained(tmp_path, max_shard_size="50KB")
    info = check_shapes(tmp_path)
    assert info.shards > 1
    assert info.parameters == sum(p.numel() for p in model.parameters())


# --- saving -------------------------------------------------------------------------------------------------


def test_saving_replaces_a_checkpoint_and_leaves_nothing_behind(build, tmp_path):
    for seed in (0, 1):
        model, processor = build("llama", seed)
        save_checkpoint(model, processor, tmp_path / "runs" / "c")
    again, *_ = load_checkpoint(tmp_path / "runs" / "c")
    assert torch.equal(again.lm_head.weight, model.lm_head.weight)
    assert os.listdir(tmp_path / "runs") == ["c"]


def test_a_full_disk_keeps_the_old_checkpoint(build, tmp_path, monkeypatch):
    old, processor = build("llama", 0)
    save_checkpoint(old, processor, tmp_path / "c")
    new, _ = build("llama", 1)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(load, "save_processor", full)
    with pytest.raises(SafeladderError, match=r"cannot write checkpoint .*No space left on device"):
        save_checkpoint(new, processor, tmp_path / "c")
    assert os.listdir(tmp_path) == ["c"]
    assert torch.equal(load_checkpoint(tmp_path / "c")[0].lm_head.weight, old.lm_head.weight)


def test_killed_between_the_two_moves(build, tmp_path):
    model, processor = build("llama")
    save_checkpoint(model, processor, tmp_path / "c")
    (tmp_path / "c").rename(tmp_path / ".c.previous")
    assert torch.equal(load_checkpoint(tmp_path / "c")[0].lm_head.weight, model.lm_head.weight)


# --- freezing -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl"])
def test_a_frozen_tower_gets_no_gradient(build, tiny, name):
    model, processor = build(name)
    family = tiny(name)[2]
    everything = trainable_parameters(model)
    freeze_vision(model, family)
    text = trainable_parameters(model)
    frozen = set(everything) - set(text)
    assert frozen and all(n.startswith(family.frozen_paths) for n in frozen)
    assert all(n.startswith(("model.language_model.", "lm_head.")) for n in text)
    encoded = encode(processor, family, question_for(name))
    grid = {} if encoded.image_grid_thw is None else {"image_grid_thw": encoded.image_grid_thw}
    model(
        input_ids=torch.tensor([encoded.prompt_ids]), pixel_values=encoded.pixel_values, **grid
    ).logits.sum().backward()
    parameters = dict(model.named_parameters())
    assert all(parameters[n].grad is None for n in frozen)
    assert all(parameters[n].grad is not None for n in text)


def test_loading_and_saving_print_nothing(saved, tmp_path, capfd):
    for name in FAMILY_NAMES:
        model, processor, _ = load_checkpoint(saved / name)
        save_checkpoint(model, processor, tmp_path / name)
    assert capfd.readouterr() == ("", "")


# --- imports ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "module", ["families", "tokenizer", "pixels", "processing", "processors", "tiny", "load", "lora"]
)
def test_B17_importing_models_needs_no_engine_or_extra(monkeypatch, module):
    for name in ("deepspeed", "vllm", "sglang", "ray", "inspect_ai", "peft", "trl", "torchvision"):
        monkeypatch.setitem(sys.modules, name, None)  # importing it now raises
    runpy.run_path(str(Path(load.__file__).with_name(f"{module}.py")))
