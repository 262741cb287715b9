"""A tiny checkpoint that has learned two trains of thought by heart, in seconds: it thinks in steps, and answers by
what it has thought."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from PIL import Image

from rollout.tiny_policies import ask
from safeladder.config import Optimizer
from safeladder.models.families import family_of
from safeladder.models.load import save_checkpoint
from safeladder.models.policy import Policy
from safeladder.models.tiny import build_tiny
from safeladder.rollout.parse import ResponseFormat
from safeladder.training.learner import Learner
from safeladder.training.parallel import Parallel, Replicated
from safeladder.training.sft import Demonstrations, encode_response
from safeladder.types import Response
from serving.browsing import picture
from training.tiny_runs import sft

QUESTION = "how many shapes are there?"
THREE = Response(
    reasoning="there are two red circles. there is one blue square. so there are three shapes.", answer="three"
)
FOUR = Response(
    reasoning="there are two red circles. there are two blue squares. so there are four shapes.", answer="four"
)
STEPS = 60


def teach(folder: Path) -> Path:
    """Write the checkpoint to `folder`. It says THREE of its own accord, and goes on with FOUR where that has begun."""
    texts = [QUESTION, *(f"<think>{r.reasoning}</think>{r.answer}" for r in (THREE, FOUR))] * 20
    model, processor = build_tiny("qwen2_5_vl", texts, seed=0, size="test", vocab_size=310)
    policy = Policy(model, processor, family_of(model.config))
    image = Image.open(io.BytesIO(picture())).convert("RGB")
    shown = [(THREE, "a"), (THREE, "b"), (FOUR, "c")]
    samples = [ask(id, image, QUESTION) for _, id in shown]
    said = {sample.id: response for sample, (response, _) in zip(samples, shown, strict=True)}
    encode = encode_response(policy, ResponseFormat())
    data = Demonstrations(policy, lambda s: encode(replace(s, response=said[s.id])), samples)
    learner = Learner(
        policy,
        Replicated(policy, Parallel()),
        Optimizer(learning_rate=0.02, weight_decay=0.0),
        total_steps=STEPS,
        micro_batch_tokens=4096,
    )
    rows = [data.row(number) for number in range(len(samples))]
    for _ in range(STEPS):
        learner.step(rows, sft)
    save_checkpoint(model, processor, folder)
    return folder
