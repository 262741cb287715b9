"""Memory estimates: published sizes, hand-computed bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from safeladder.config import Recipe, load_recipe
from safeladder.ladder.memory import (
    ENGINE_ROWS,
    PROCESS_BYTES,
    PUBLISHED,
    Shape,
    estimate,
    trained_parameters,
)

# A toy: 2 layers, hidden 4, two heads of 2, one kv head, intermediate 8, vocabulary 10, no biases, untied.
# attention 4*4 + 4*2 + 4*2 + 4*4 = 48; mlp 3*4*8 = 96; norms 2*4 = 8: 152 a layer, 304; last norm 4;
# tables 2*10*4 = 80: language 388. With 12 more parameters the vision tower has 12.
TOY = Shape(
    parameters=400,
    layers=2,
    hidden=4,
    intermediate=8,
    heads=2,
    kv_heads=1,
    head_dim=2,
    vocabulary=10,
    qkv_bias=False,
)


def recipe(tmp_path: Path, **overrides: str) -> Recipe:
    path = tmp_path / "toy.yaml"
    path.write_text(
        "name: toy\nmodel: {max_pixels: 784}\nrungs:\n  rl: {kind: rl, prompts_per_step: 6, group_size: 4, "
        "max_new_tokens: 87, stages: {s: {steps: 1}}}\n"
    )
    return load_recipe(path, {key.replace("__", "."): value for key, value in overrides.items()})


def test_language_and_vision_parameters_by_hand():
    assert (TOY.language, TOY.vision) == (388, 12)


@pytest.mark.parametrize(
    ("name", "language", "vision"),
    [
        # The language models' published counts: Qwen2.5-7B, Qwen2.5-72B, DeepSeek-R1-Distill-Llama-70B.
        ("Qwen/Qwen2.5-VL-7B-Instruct", 7_615_616_512, 676_550_144),
        ("Qwen/Qwen2.5-VL-72B-Instruct", 72_706_203_648, 704_573_696),
        ("deepseek-ai/DeepSeek-R1-Distill-Llama-70B", 70_553_706_496, 0),
    ],
)
def test_published_sizes(name: str, language: int, vision: int):
    assert (PUBLISHED[name].language, PUBLISHED[name].vision) == (language, vision)


def test_float32_replicated_by_hand(tmp_path: Path):
    need = estimate(TOY, recipe(tmp_path), processes=2)
    assert need.weights == 4 * 400
    assert need.gradients == 4 * 388, "the vision tower is frozen"
    assert need.optimizer == 8 * 388
    assert need.reference == 0
    assert need.engine == 4 * 388
    # 24 responses on 2 processes; 512 + 1 + 87 tokens; keys and values of 2 layers, 1 head, 2 wide, 4 bytes.
    assert (need.rows, need.kv_row) == (12, 600 * 2 * 2 * 1 * 2 * 4)
    assert need.kv_cache == 12 * need.kv_row
    assert need.total == 1600 + 1552 + 3104 + 1552 + need.kv_cache + PROCESS_BYTES


def test_bfloat16_trains_in_float32(tmp_path: Path):
    need = estimate(TOY, recipe(tmp_path, model__dtype="bfloat16"), processes=4, reference=True)
    assert need.weights == 2 * 12 + 4 * 388, "the vision tower is frozen and stays in bfloat16"
    assert need.gradients == 4 * 388
    assert need.optimizer == 8 * 388
    assert need.reference == 2 * 400
    assert need.engine == 2 * 388, "every process holds a whole copy for generation"


def test_lora_trains_the_adapters_only(tmp_path: Path):
    # q 4+4, k 4+2, v 4+2, o 4+4 = 28; gate, up, down 3 * 12 = 36: 64 a layer and rank, 2 layers, rank 3: 384.
    chosen = recipe(tmp_path, model__lora__rank="3")
    assert trained_parameters(TOY, chosen) == 384
    need = estimate(TOY, chosen, processes=1, reference=True)
    assert (need.gradients, need.optimizer, need.reference) == (4 * 384, 8 * 384, 0)


def test_training_the_vision_tower_counts_it(tmp_path: Path):
    assert trained_parameters(TOY, recipe(tmp_path, model__freeze_vision="false")) == 400


def test_rows_are_bounded_by_the_engine(tmp_path: Path):
    need = estimate(TOY, recipe(tmp_path, rungs__rl__prompts_per_step="1000"), processes=1)
    assert need.rows == ENGINE_ROWS


def test_text_models_have_no_image_tokens(tmp_path: Path):
    need = estimate(TOY, recipe(tmp_path, model__family="llama"), processes=1)
    assert need.kv_row == 599 * 32
