"""Per-token estimators of the KL divergence from a reference policy."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor

from safeladder.types import SafeladderError

Estimator = Literal["k1", "k2", "k3"]

METRIC_BOUND = 10.0
"""Largest |log-ratio| that enters a *metric*. One token whose ratio overflows would otherwise hide every
other token of the batch in the logged mean. Losses are never bounded."""


def kl(logprobs: Tensor, ref_logprobs: Tensor, estimator: Estimator = "k3", *, bound: float | None = None) -> Tensor:
    """Estimate KL(pi || ref) at every token sampled from pi. Schulman, "Approximating KL divergence" (2020).

    With d = ln pi - ln ref::

        k1 = d                     unbiased, signed; as a loss its expected gradient is zero
        k2 = d^2 / 2               biased, its gradient d * grad(ln pi) is that of the token's KL
        k3 = exp(-d) - 1 + d       unbiased, non-negative

    `logprobs`, `ref_logprobs`: any equal shape, in nats. Returns that shape. `bound` clamps |d| and is meant
    for metrics (`METRIC_BOUND`). Raises `SafeladderError` on an unknown estimator.
    """
    d = logprobs - ref_logprobs
    if bound is not None:
        d = d.clamp(-bound, bound)
    if estimator == "k1":
        return d
    if estimator == "k2":
        return d.square() / 2
    if estimator == "k3":
        return (-d).exp() - 1 + d
    raise SafeladderError(f"unknown KL estimator {estimator!r}; allowed: {', '.join(get_args(Estimator))}")
