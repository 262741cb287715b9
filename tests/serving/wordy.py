"""A tiny policy that says a few words and tags, and looks at what it is asked and shown."""

from __future__ import annotations

from rollout.tiny_policies import policy
from safeladder.models.policy import Policy

WORDS = ("red", "blue", "12", "?")


def wordy(family: str = "qwen2_5_vl") -> Policy:
    """About one token in ten ends the reply; many replies are well-formed."""
    made = policy(family).requires_grad_(False)
    tokenizer = made.tokenizer
    said = ["<think>", "</think>", *(piece for word in WORDS for piece in (word, f" {word}"))]
    allowed = {made.eos_token_id, *(i for text in said for i in tokenizer.encode(text, add_special_tokens=False))}
    for id in range(len(made.logit_bias)):
        if id not in allowed:
            made.logit_bias[id] = -1e9
    made.logit_bias[made.tokenizer.convert_tokens_to_ids("<think>")] += 1.5
    return made
