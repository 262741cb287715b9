"""From logits to the next token, for rows that each sample in their own way.

A row's randomness is one uniform number a token, drawn from (seed, sample id, context length, sample number): the same
seed gives the same tokens however rows are batched.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from safeladder import kernels
from safeladder.types import GenerationRequest

_COLDEST = 1e-6
"""Below this a temperature is as good as 0, and logits divided by it might overflow."""


def draw(
    logits: Tensor, uniform: Tensor, temperature: float | Sequence[float], top_p: float | Sequence[float]
) -> tuple[Tensor, Tensor]:
    """One token a row by inverse-CDF sampling: one uniform number a token instead of one a vocabulary entry.

    Args:
        logits: [B, V]; what is returned may lie in their place.
        uniform: [B] in [0, 1).
        temperature: of all rows or of each; 0 takes the likeliest token.
        top_p: of all rows or of each, in (0, 1]; below 1 only the nucleus is sampled from (arXiv 1904.09751).

    Returns:
        Tokens [B] and log-probabilities [B, V] at the row's temperature (at 1 where greedy), before the nucleus is cut.
    """
    rows = len(logits)
    temperatures = [temperature] * rows if isinstance(temperature, float | int) else temperature
    nuclei = [top_p] * rows if isinstance(top_p, float | int) else top_p
    if any(t not in (0, 1) for t in temperatures):
        scale = logits.new_tensor([max(t, _COLDEST) if t else 1.0 for t in temperatures])
        logits = logits / scale.unsqueeze(1)
    greedy = [t == 0 for t in temperatures]
    if all(p == 1 for p in nuclei):
        if any(greedy):
            uniform = uniform.masked_fill(torch.tensor(greedy, device=uniform.device), -1.0)
        drawn = kernels.draw(logits, uniform.contiguous())
        if drawn is not None:
            return drawn
    logp = torch.log_softmax(logits, dim=-1)
    if all(greedy):
        return logp.argmax(dim=-1), logp
    probabilities = logp.exp()
    if any(p < 1 for p in nuclei):
        probabilities = nucleus(probabilities, logits.new_tensor(nuclei))
    cumulative = probabilities.cumsum(dim=-1)
    total = cumulative[:, -1:]
    # Strictly below the total, or rounding could land on a forbidden token after the last allowed one.
    target = torch.minimum(uniform.unsqueeze(1) * total, torch.nextafter(total, torch.zeros_like(total)))
    tokens = torch.searchsorted(cumulative, target, right=True).squeeze(1)
    if any(greedy):
        tokens = torch.where(torch.tensor(greedy, device=tokens.device), logp.argmax(dim=-1), tokens)
    return tokens, logp


def nucleus(probabilities: Tensor, top_p: Tensor) -> Tensor:
    """Probabilities [B, V] with all but the smallest set of likeliest tokens that holds `top_p` [B] set to 0.

    Tokens as likely as the last of that set stay as well, so the order of the vocabulary decides nothing.
    """
    ordered = probabilities.sort(dim=-1, descending=True).values
    before = ordered.cumsum(dim=-1) - ordered
    share = top_p.unsqueeze(1)
    # The likeliest token stays, even where a tiny share is rounded to 0.
    last = ordered.masked_fill((before >= share) & (before > 0), torch.inf).amin(dim=-1, keepdim=True)
    # Rounding may let the sum reach 1 before the last token; a whole distribution is never cut.
    return probabilities.masked_fill((probabilities < last) & (share < 1), 0.0)


def uniforms(seed: int, sample_id: str, position: int, number: int, count: int) -> np.ndarray:
    """`count` numbers in [0, 1), float32, for sample `number` of a prompt of `position` tokens."""
    digest = hashlib.blake2b(f"{seed}/{sample_id}/{position}/{number}".encode(), digest_size=8).digest()
    return np.random.Generator(np.random.Philox(int.from_bytes(digest, "little"))).random(count, dtype=np.float32)


def first_numbers(requests: Sequence[GenerationRequest], n: int) -> list[int]:
    """The sample number that each request begins at: 0, n, 2n, ... for requests of one sample."""
    seen: Counter[str] = Counter()
    numbers = []
    for request in requests:
        numbers.append(seen[request.sample.id] * n)
        seen[request.sample.id] += 1
    return numbers
