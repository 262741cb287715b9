"""TRL's side of benchmarks/rl_step.py: GRPOTrainer as its documentation shows it; rank 0 writes the result."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import torch
from datasets import Dataset
from transformers import Qwen2_5_VLForConditionalGeneration, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from safeladder.models.processors import load_processor
from safeladder.rollout.parse import ResponseFormat
from safeladder.world import World, WorldConfig, judge


def main(job: dict) -> None:
    torch.set_num_threads(job["threads"])
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    processor = load_processor(job["checkpoint"])
    processor.tokenizer.padding_side = "left"
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(job["checkpoint"])
    world = World(WorldConfig(seed=job["seed"]))
    samples = world.samples(
        "train", job["prompts"] * job["steps"], {"count": 1, "compare": 1, "colour": 1, "spatial": 1}
    )
    table = {s.id: s for s in samples}
    data = Dataset.from_list(
        [
            {
                "prompt": [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": s.question}]}],
                "image": s.images[0],
                "sample": s.id,
            }
            for s in samples
        ]
    )
    lengths: list[float] = []
    form = ResponseFormat()

    def reward(completions, sample, completion_ids, **_):
        lengths.append(sum(map(len, completion_ids)) / len(completion_ids))
        values = []
        for completion, key in zip(completions, sample, strict=True):
            content = completion if isinstance(completion, str) else completion[0]["content"]
            text = content if isinstance(content, str) else content[0]["text"]
            values.append(float(judge(table[key], form.parse(text.replace("<|im_end|>", ""))).correct))
        return values

    fixed = job["setting"] == "fixed"
    config = GRPOConfig(
        output_dir=str(Path(job["out"]).parent / "trl"),
        per_device_train_batch_size=job["prompts"] * job["group"] // processes,
        num_generations=job["group"],
        max_completion_length=job["tokens"],
        generation_kwargs={"min_new_tokens": job["tokens"]} if fixed else None,
        max_steps=job["steps"],
        learning_rate=1e-4,
        temperature=1.0,
        beta=0.0,
        loss_type="dapo",
        report_to=[],
        save_strategy="no",
        logging_steps=1000,
        disable_tqdm=True,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        seed=job["seed"],
    )

    class Clock(TrainerCallback):
        begun = 0.0
        seconds: list[float] = []  # noqa: RUF012

        def on_step_begin(self, *args, **kwargs):
            self.begun = time.perf_counter()

        def on_step_end(self, *args, **kwargs):
            self.seconds.append(time.perf_counter() - self.begun)

    clock = Clock()
    trainer = GRPOTrainer(
        model=model, reward_funcs=reward, args=config, train_dataset=data, processing_class=processor, callbacks=[clock]
    )
    for parameter in model.model.visual.parameters():
        parameter.requires_grad_(False)
    trainer.train()
    if os.environ.get("RANK", "0") == "0":
        Path(job["out"]).write_text(json.dumps({"seconds": clock.seconds[3:], "lengths": lengths[3:]}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
