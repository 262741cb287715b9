"""Samples per second of an evaluation: ours through Inspect against one sample at a time with transformers.

The other side is what evaluation harnesses with a plain Hugging Face path do: apply the chat template, call the
processor and `model.generate` for each sample, greedy, with the KV cache. Same checkpoint, same prompts with one image
each, same number of new tokens (the end token is forbidden, so that both decode as much), one thread.

Processor time decides, not wall time: the machine may have other work. A third row puts an engine that does nothing
under Inspect: what is left is the work of Inspect and of our records, judge and figures.

    python benchmarks/eval_speed.py [--samples 64] [--tokens 64] [--out benchmarks/results/eval_speed.json]
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
import torch
import transformers
from inspect_ai.model import Model
from PIL import Image

from safeladder.evaluation._registry import attach
from safeladder.evaluation.provider import Attachment
from safeladder.evaluation.replies import AppendOnly
from safeladder.evaluation.subjects import Subject
from safeladder.evaluation.suites.bench import Bench
from safeladder.evaluation.suites.registry import load_suite
from safeladder.evaluation.suites.run import Keeping, run_suite
from safeladder.models.families import family_of
from safeladder.models.policy import Policy
from safeladder.models.tiny import build_tiny
from safeladder.rollout.local import LocalEngine
from safeladder.rollout.parse import ResponseFormat
from safeladder.types import Completion, Engine, Message, Part, Sample, StopReason
from safeladder.verifiers import RefusalDetector

TEXTS = ["how many red circles are there in the picture? <think>two circles, one square</think>3"] * 20


class Idle:
    """An engine that has answered before it was asked."""

    context_length = 1 << 20

    def prompt_ids(self, sample: Sample) -> tuple[int, ...]:
        return (0,)

    def generate(self, requests: Any, params: Any, *, seed: int) -> list[list[Completion]]:
        done = Completion(token_ids=(1,), logprobs=(0.0,), stop_reason=StopReason.EOS)
        return [[done] for _ in requests]

    def decode(self, token_ids: Any) -> str:
        return "<think>a</think>b"

    def load_weights(self, weights: Any) -> None:
        """It has none."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "eval_speed.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    samples = questions(options.samples)
    model, processor = build_tiny("qwen2_5_vl", TEXTS, seed=0, size="laptop", vocab_size=400)
    policy = Policy(model, processor, family_of("qwen2_5_vl")).eval()
    policy.logit_bias[policy.eos_token_id] = -1e9
    engine = LocalEngine(policy)
    sides: dict[str, Callable[[list[Sample]], int]] = {
        "safeladder through Inspect": lambda rows: through_inspect(engine, rows, options),
        "transformers, one sample at a time": lambda rows: one_at_a_time(model, processor, rows, options.tokens),
        "Inspect over an idle engine": lambda rows: through_inspect(Idle(), rows, options),
    }
    found = {}
    for name, side in sides.items():
        side(samples[:4])  # imports, caches
        wall, used = time.perf_counter(), time.process_time()
        tokens = side(samples)
        wall, used = time.perf_counter() - wall, time.process_time() - used
        found[name] = {
            "samples": len(samples),
            "tokens": tokens,
            "cpu_seconds": used,
            "wall_seconds": wall,
            "samples_per_cpu_second": len(samples) / used,
            "cpu_ms_a_sample": 1000 * used / len(samples),
        }
        print(f"{name}: {len(samples) / used:.2f} samples a processor second, {tokens} tokens, {wall:.1f} s wall")
    ours, theirs, idle = found.values()
    ratio = ours["samples_per_cpu_second"] / theirs["samples_per_cpu_second"]
    print(f"times faster: {ratio:.1f}; Inspect's own share: {idle['cpu_ms_a_sample']:.1f} ms a sample")
    result = {
        "sides": found,
        "times_faster": ratio,
        "inspect_ms_a_sample": idle["cpu_ms_a_sample"],
        "options": {"samples": options.samples, "tokens": options.tokens, "batch": options.batch},
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")


def questions(count: int) -> list[Sample]:
    """One image of 112 x 112 pixels and a short question each."""
    rng = np.random.default_rng(0)
    pictures = [Image.fromarray(rng.integers(0, 256, (112, 112, 3), dtype=np.uint8)) for _ in range(count)]
    return [
        Sample(
            id=str(i),
            messages=(Message(role="user", parts=(Part(image=picture), Part(text="how many red circles are there?"))),),
            label="safety",
            taxonomy=("xstest", "homonyms"),
            meta={"prompt_label": "safe"},
        )
        for i, picture in enumerate(pictures)
    ]


def through_inspect(engine: Engine, samples: list[Sample], options: argparse.Namespace) -> int:
    """A whole run of the suite: messages, provider, engine, records, judge, figures, log. Returns tokens said."""
    suite = load_suite("xstest")
    bench = Bench(
        suite=suite,
        subset="all",
        samples={sample.id: sample for sample in samples},
        in_files=len(samples),
        verifiers=[RefusalDetector()],
        judge="offline: refusal",
    )
    attachment = Attachment(engine=engine, format=ResponseFormat(), batch_size=options.batch)
    api = attach("benchmark", attachment)
    subject = Subject(kind="local", name="m", identity="m", revision="", model=Model(api, _config()), arguments={})
    with tempfile.TemporaryDirectory() as folder:
        keeping = Keeping(
            replies=AppendOnly(Path(folder, "replies.jsonl")),
            verdicts=AppendOnly(Path(folder, "verdicts.jsonl")),
            logs=Path(folder, "logs"),
            progress=lambda reply: None,
        )
        done = run_suite(bench, subject, keeping, max_tokens=options.tokens, seed=0)
    return sum(reply.output_tokens for reply in done.replies)


def _config() -> Any:
    from inspect_ai.model import GenerateConfig

    return GenerateConfig()


@torch.inference_mode()
def one_at_a_time(model: Any, processor: Any, samples: list[Sample], tokens: int) -> int:
    """Chat template, processor and `generate` for each sample."""
    said = 0
    for sample in samples:
        content = [{"type": "image"}, {"type": "text", "text": sample.question}]
        text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        inputs = processor(text=[text], images=list(sample.images), return_tensors="pt")
        out = model.generate(**inputs, do_sample=False, max_new_tokens=tokens, min_new_tokens=tokens)
        said += out.shape[1] - inputs["input_ids"].shape[1]
        processor.batch_decode(out[:, inputs["input_ids"].shape[1] :])
    return said


if __name__ == "__main__":
    main()
