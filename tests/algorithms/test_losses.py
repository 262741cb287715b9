"""Losses against hand-computed values, closed-form gradients and other ways of writing the same equation."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from safeladder.algorithms import losses
from safeladder.algorithms.kl import kl
from safeladder.types import SafeladderError

# One sequence of ratios 1.1, 1.5 and .5, and a masked token.
OLD = torch.tensor([[-1.0, -2.0, -3.0, -4.0]], dtype=torch.float64)
RATIO = torch.tensor([[1.1, 1.5, 0.5, 7.0]], dtype=torch.float64)
NEW = OLD + RATIO.log()
MASK = torch.tensor([[1, 1, 1, 0]])


def _advantage(value: float) -> Tensor:
    return torch.tensor([value], dtype=torch.float64)


def _close(actual: Tensor, expected: float) -> None:
    assert_close(actual, torch.tensor(expected, dtype=torch.float64), atol=1e-6, rtol=0)


def _random(seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Log-ratios well on both sides of every bound: new, old [5, 7], advantages [5], mask."""
    generator = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(5, 7, generator=generator, dtype=torch.float64)
    new = old + 0.6 * torch.randn(5, 7, generator=generator, dtype=torch.float64)
    advantages = torch.tensor([0.8, -1.2, 0.3, -0.5, 1.5], dtype=torch.float64)
    mask = (torch.arange(7) < torch.tensor([[7], [3], [5], [1], [6]])).long()
    return new, old, advantages, mask


def _gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(loss, leaf)[0]


def _differences(f, x: Tensor, step: float = 1e-6) -> Tensor:
    """Central finite differences of a scalar function."""
    gradient = torch.zeros_like(x)
    for i in range(x.numel()):
        shift = torch.zeros_like(x)
        shift.view(-1)[i] = step
        gradient.view(-1)[i] = (f(x + shift) - f(x - shift)) / (2 * step)
    return gradient


def test_sft_golden() -> None:
    # (1 + 2 + 3) / 3
    output = losses.sft(OLD, MASK)
    _close(output.loss, 2.0)
    _close(output.metrics["nll"], 2.0)


def test_dpo_golden() -> None:
    # beta .5, log-ratios +1 and -1: margin 1; -ln sigma(1) = ln(1 + e^-1) = .313262
    one = torch.tensor([-4.0, -4.0])
    output = losses.dpo(one + 1, one - 1, one, one, beta=0.5)
    assert_close(output.loss, torch.tensor(0.313262), atol=1e-6, rtol=0)
    expected = {"chosen_reward": 0.5, "rejected_reward": -0.5, "margin": 1.0, "accuracy": 1.0}
    assert {k: float(v) for k, v in output.metrics.items()} == pytest.approx(expected)
    # half of a batch of four pairs
    assert_close(losses.dpo(one + 1, one - 1, one, one, beta=0.5, normalizer=4).loss, output.loss / 2)


def test_dpo_gradient() -> None:
    # d/d(chosen) = -beta * sigma(-margin) / N and the opposite for rejected; none for the reference
    chosen, rejected = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    ref = torch.tensor([-1.2, -1.2])
    leaves = [t.clone().requires_grad_() for t in (chosen, rejected, ref)]
    output = losses.dpo(leaves[0], leaves[1], leaves[2], ref, beta=0.3)
    grads = torch.autograd.grad(output.loss, leaves, allow_unused=True)
    expected = -0.3 * torch.sigmoid(-0.3 * (chosen - rejected)) / 2
    assert_close(grads[0], expected)
    assert_close(grads[1], -expected)
    assert grads[2] is None
    with pytest.raises(SafeladderError, match="beta"):
        losses.dpo(chosen, rejected, ref, ref, beta=0.0)


def test_ppo_clip_golden() -> None:
    # A = 1: min(1.1, 1.1), min(1.5, 1.2), min(.5, .8): 1.1 + 1.2 + .5 = 2.8
    output = losses.ppo_clip(NEW, OLD, _advantage(1), MASK)
    _close(output.loss, -2.8 / 3)
    _close(output.metrics["clip_fraction"], 1 / 3)
    _close(output.metrics["ratio_mean"], 3.1 / 3)
    _close(output.metrics["ratio_max"], 1.5)
    # k3: sum of r - 1 - ln r = (.1 - .0953102) + (.5 - .4054651) + (-.5 + .6931472) = .2923719
    _close(output.metrics["approx_kl"], 0.2923719 / 3)
    # A = -2: min(-2.2, -2.2), min(-3, -2.4), min(-1, -1.6): -2.2 - 3 - 1.6
    output = losses.ppo_clip(NEW, OLD, _advantage(-2), MASK)
    _close(output.loss, 6.8 / 3)
    _close(output.metrics["clip_fraction"], 1 / 3)


def test_ppo_clip_higher_golden() -> None:
    # DAPO's bounds .2 / .28: 1.1 + 1.28 + .5
    _close(losses.ppo_clip(NEW, OLD, _advantage(1), MASK, clip_high=0.28).loss, -2.88 / 3)


def test_ppo_dual_clip_golden() -> None:
    # A = -2, c = 1.25: -3 becomes c * A = -2.5: -2.2 - 2.5 - 1.6; positive advantages keep their loss
    output = losses.ppo_clip(NEW, OLD, _advantage(-2), MASK, dual_clip=1.25)
    _close(output.loss, 6.3 / 3)
    _close(output.metrics["dual_clip_fraction"], 1 / 3)
    _close(losses.ppo_clip(NEW, OLD, _advantage(1), MASK, dual_clip=1.05).loss, -2.8 / 3)


@pytest.mark.parametrize("dual_clip", [None, 1.4])
def test_ppo_clip_equals_the_min_clip_form(dual_clip: float | None) -> None:
    new, old, advantages, mask = _random()
    leaf = new.clone().requires_grad_()
    ratio = (leaf - old).exp()
    a = advantages.unsqueeze(-1)
    surrogate = torch.minimum(ratio * a, ratio.clamp(0.8, 1.28) * a)
    if dual_clip is not None:
        surrogate = torch.where(a < 0, torch.maximum(surrogate, dual_clip * a), surrogate)
    expected = -(surrogate * mask).sum() / mask.sum()
    actual = losses.ppo_clip(leaf, old, advantages, mask, clip_low=0.2, clip_high=0.28, dual_clip=dual_clip).loss
    assert_close(actual, expected)
    assert_close(_gradient(actual, leaf), _gradient(expected, leaf))


def test_ppo_clip_survives_a_ratio_that_overflows() -> None:
    # exp(200) is infinite in float32; with A > 0 the token is clipped and its gradient is exactly 0.
    leaf = torch.tensor([[200.0, 0.0]], requires_grad=True)
    output = losses.ppo_clip(leaf, torch.zeros(1, 2), torch.ones(1), torch.ones(1, 2))
    gradient = _gradient(output.loss, leaf)
    assert_close(gradient, torch.tensor([[0.0, -0.5]]))


def test_gspo_golden() -> None:
    # log-ratios .1 and .3: s = e^.2 = 1.221403 for every token; clipped at 1.1
    old = torch.zeros(1, 3)
    new = torch.tensor([[0.1, 0.3, 9.0]])
    mask, a = torch.tensor([[1, 1, 0]]), torch.ones(1)
    output = losses.gspo(new, old, a, mask, clip_low=0.5, clip_high=0.5)
    assert_close(output.loss, torch.tensor(-1.221403), atol=1e-6, rtol=0)
    assert output.metrics["clip_fraction"] == 0
    output = losses.gspo(new, old, a, mask, clip_low=0.5, clip_high=0.1)
    assert_close(output.loss, torch.tensor(-1.1), atol=1e-6, rtol=0)
    assert output.metrics["clip_fraction"] == 1


@pytest.mark.parametrize("sign", [1, -1])
def test_gspo_gradient_is_the_sequence_objectives(sign: int) -> None:
    new, old, advantages, mask = _random()
    advantages = sign * advantages
    leaf = new.clone().requires_grad_()
    s = (((leaf - old) * mask).sum(-1) / mask.sum(-1)).exp()
    expected = -torch.minimum(s * advantages, s.clamp(0.97, 1.1) * advantages).mean()
    options = {"clip_low": 0.03, "clip_high": 0.1}
    output = losses.gspo(leaf, old, advantages, mask, reduction="sequence-mean", **options)
    assert_close(output.loss, expected)
    gradient = _gradient(expected, leaf)
    assert_close(_gradient(output.loss, leaf), gradient)
    clipped = (gradient == 0) & mask.bool()
    assert_close(output.metrics["clip_fraction"], (clipped.sum(-1) / mask.sum(-1)).double().mean())


def test_gspo_clips_whole_sequences() -> None:
    new, old, advantages, mask = _random()
    fractions = [
        losses.gspo(new, old, sign * advantages, mask, clip_low=0.03, reduction="sequence-mean").metrics
        for sign in (1, -1)
    ]
    # Every mean log-ratio lies beyond one of the bounds, so each sequence is clipped for one sign of A.
    assert sum(float(m["clip_fraction"]) for m in fractions) == pytest.approx(1.0)


def test_cpgd_golden() -> None:
    # Phi (A = 1): ln 1.1 + ln 1.2 + ln .5 = .0953102 + .1823216 - .6931472 = -.4155154
    # ln pi = -1 + .0953102, -2 + .4054651, -3 - .6931472
    # E: .1 * -.9046898 + .5 * -1.5945349 - .5 * -3.6931472 = -.0904690 - .7972675 + 1.8465736 = .9588371
    output = losses.cpgd(NEW, OLD, _advantage(1), MASK)
    _close(output.loss, (0.4155154 + 0.01 * 0.9588371) / 3)
    _close(output.metrics["drift"], 0.9588371 / 3)
    _close(output.metrics["clip_fraction"], 1 / 3)
    _close(output.metrics["drift_cap_fraction"], 0.0)
    # A = -1: -ln 1.1 - ln 1.5 + min(...) = max(x, ln .8): -.0953102 - .4054651 + .2231436 = -.2776317
    _close(losses.cpgd(NEW, OLD, _advantage(-1), MASK, drift_weight=0).loss, 0.2776317 / 3)


def test_cpgd_tight_to_loose_golden() -> None:
    # |y| = 3, start .4, clip .3: eps = .3 * (.4 + .6 * t/3) = .18, .24, .3; ratio 1.25 at every token
    new = OLD + math.log(1.25)
    output = losses.cpgd(new, OLD, _advantage(1), MASK, clip=0.3, clip_start=0.4, drift_weight=0)
    _close(output.loss, -(math.log(1.18) + math.log(1.24) + math.log(1.25)) / 3)
    _close(output.metrics["clip_fraction"], 2 / 3)


@pytest.mark.parametrize("clip_start", [1.0, 0.5])
def test_cpgd_gradient_matches_finite_differences(clip_start: float) -> None:
    new, old, advantages, mask = _random()
    weight, cap = 0.3, 0.5
    frozen = ((new - old).exp() - 1).clamp(max=cap)  # the stop-gradient factor does not move

    def objective(x: Tensor) -> Tensor:
        t = torch.arange(1, 8) / mask.sum(-1, keepdim=True)
        eps = 0.2 * (clip_start + (1 - clip_start) * t)
        a, ratio = advantages.unsqueeze(-1), x - old
        bounded = torch.maximum(torch.minimum(ratio, (1 + eps).log()), (1 - eps).log())
        phi = torch.minimum(ratio * a, bounded * a)
        return -((phi - weight * frozen * x) * mask).sum() / mask.sum()

    leaf = new.clone().requires_grad_()
    output = losses.cpgd(leaf, old, advantages, mask, drift_weight=weight, drift_cap=cap, clip_start=clip_start)
    assert 0 < output.metrics["clip_fraction"] < 1
    assert_close(output.loss, objective(new))
    assert_close(_gradient(output.loss, leaf), _differences(objective, new), atol=1e-8, rtol=0)


def test_cpgd_equals_the_where_clamp_form_of_the_papers_code() -> None:
    new, old, advantages, mask = _random()
    leaf = new.clone().requires_grad_()
    a = advantages.unsqueeze(-1)
    kept = torch.where(a > 0, leaf.clamp(max=old + math.log(1.2)), leaf.clamp(min=old + math.log(0.8)))
    drift = ((leaf.detach() - old).exp() - 1).clamp(max=2.0) * leaf
    expected = (-(kept * a * mask).sum() + 0.01 * (drift * mask).sum()) / mask.sum()
    actual = losses.cpgd(leaf, old, advantages, mask).loss
    assert_close(_gradient(actual, leaf), _gradient(expected, leaf), atol=1e-15, rtol=0)


def test_B05_drift_gradient_is_closed_form_capped_and_stopped() -> None:
    # Zero advantage leaves the drift: d L / d lp_t = weight * min(ratio_t - 1, cap) / tokens, and no more:
    # without the stop-gradient there would be a term ratio * ln pi.
    ratios = torch.tensor([[0.5, 1.0, 2.0, 3.0, 10.0]], dtype=torch.float64)
    old = torch.full((1, 5), -2.0, dtype=torch.float64)
    leaf = (old + ratios.log()).requires_grad_()
    output = losses.cpgd(leaf, old, _advantage(0), torch.ones(1, 5), drift_weight=0.1, drift_cap=1.5)
    expected = 0.1 * torch.tensor([[-0.5, 0.0, 1.0, 1.5, 1.5]], dtype=torch.float64) / 5
    assert_close(_gradient(output.loss, leaf), expected)
    _close(output.metrics["drift_cap_fraction"], 2 / 5)
    off = losses.cpgd(leaf, old, _advantage(0), torch.ones(1, 5), drift_weight=0.0)
    assert_close(_gradient(off.loss, leaf), torch.zeros_like(leaf))


def test_A16_cpgd_defaults_are_the_papers() -> None:
    new, old, advantages, mask = _random()
    explicit = losses.cpgd(new, old, advantages, mask, clip=0.2, drift_weight=0.01, drift_cap=2.0)
    assert_close(losses.cpgd(new, old, advantages, mask).loss, explicit.loss)


def test_cpgd_token_gradient_does_not_grow_with_the_ratio() -> None:
    # A = -1 at ratio e^3: CPGD's gradient is |A|, PPO's |A| * e^3.
    leaf = torch.full((1, 1), 3.0, dtype=torch.float64, requires_grad=True)
    old, mask = torch.zeros(1, 1, dtype=torch.float64), torch.ones(1, 1)
    cpgd = losses.cpgd(leaf, old, _advantage(-1), mask, drift_weight=0)
    _close(_gradient(cpgd.loss, leaf).squeeze(), 1.0)
    ppo = losses.ppo_clip(leaf, old, _advantage(-1), mask)
    _close(_gradient(ppo.loss, leaf).squeeze(), math.exp(3))


@pytest.mark.parametrize("loss", [losses.ppo_clip, losses.gspo, losses.cpgd])
def test_first_update_is_the_plain_policy_gradient(loss) -> None:
    _, old, advantages, mask = _random()
    leaf = old.clone().requires_grad_()
    output = loss(leaf, old, advantages, mask, reduction="sequence-mean")
    expected = -advantages.unsqueeze(-1) * mask / mask.sum(-1, keepdim=True) / 5
    assert_close(_gradient(output.loss, leaf), expected)
    assert output.metrics["clip_fraction"] == 0
    assert output.metrics["approx_kl"] == 0


@pytest.mark.parametrize("loss", [losses.ppo_clip, losses.gspo, losses.cpgd])
def test_token_advantages_are_taken_token_by_token(loss) -> None:
    new, old, advantages, mask = _random()
    expected = loss(new, old, advantages, mask).loss
    assert_close(loss(new, old, advantages.unsqueeze(-1).expand(5, 7), mask).loss, expected)
    other = advantages.unsqueeze(-1) * torch.arange(7)
    assert loss(new, old, other, mask).loss != expected


@pytest.mark.parametrize("loss", [losses.ppo_clip, losses.gspo, losses.cpgd])
def test_B14_metrics_stay_bounded_when_one_ratio_overflows(loss) -> None:
    new = torch.zeros(4, 8)
    new[0, 0] = 500.0
    output = loss(new, torch.zeros(4, 8), torch.ones(4), torch.ones(4, 8))
    assert all(m.isfinite() for m in output.metrics.values())
    assert output.metrics["approx_kl"] < math.exp(10)
    assert output.metrics["ratio_max"] <= math.exp(10) * 1.0001


def test_B14_reference_kl_metric_is_bounded_and_the_loss_is_not() -> None:
    leaf = torch.full((1, 2), -20.0, requires_grad=True)
    zero = losses.LossOutput(loss=torch.zeros(()), metrics={})
    output = losses.add_reference_kl(zero, leaf, torch.zeros(1, 2), torch.ones(1, 2), weight=1.0)
    assert_close(output.loss, torch.tensor(math.exp(20) - 21))
    assert_close(output.metrics["reference_kl"], torch.tensor(math.exp(10) - 11))


def test_reference_kl_golden() -> None:
    # d = -ln 2 and 0 (ratio ref/pi = 2 and 1): k3 = 2 - 1 - ln 2 = .306853, mean over 2 tokens, weight .5
    new, ref = torch.zeros(1, 2), torch.tensor([[math.log(2), 0.0]])
    base = losses.LossOutput(loss=torch.tensor(1.0), metrics={"a": torch.tensor(2.0)})
    output = losses.add_reference_kl(base, new, ref, torch.ones(1, 2), weight=0.5)
    assert_close(output.loss, torch.tensor(1 + 0.5 * 0.306853 / 2), atol=1e-6, rtol=0)
    assert_close(output.metrics["reference_kl"], torch.tensor(0.306853 / 2), atol=1e-6, rtol=0)
    assert output.metrics["a"] == 2
    measured = losses.add_reference_kl(base, new, ref, torch.ones(1, 2), weight=0.0)
    assert measured.loss == 1
    assert measured.metrics["reference_kl"] > 0


def test_kl_golden() -> None:
    # d = ln pi - ln ref = ln 2: k1 = .693147, k2 = .240227, k3 = 1/2 - 1 + .693147 = .193147
    new, ref = torch.tensor([math.log(0.5)]), torch.tensor([math.log(0.25)])
    for estimator, expected in (("k1", 0.693147), ("k2", 0.240227), ("k3", 0.193147)):
        value = kl(new, ref, estimator)  # pyright: ignore[reportArgumentType]
        assert_close(value, torch.tensor([expected]), atol=1e-6, rtol=0)
    with pytest.raises(SafeladderError, match="k1, k2, k3"):
        kl(new, ref, "k4")  # pyright: ignore[reportArgumentType]


def test_kl_estimators_have_the_right_expectation() -> None:
    # Exactly, over all tokens: E_pi[k1] = E_pi[k3] = KL(pi || ref).
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    pi, ref = logits.log_softmax(-1)
    true = (pi.exp() * (pi - ref)).sum()
    for estimator in ("k1", "k3"):
        assert_close((pi.exp() * kl(pi, ref, estimator)).sum(), true)


def test_B15_kl_is_not_clamped_unless_asked() -> None:
    new, ref = torch.tensor([-30.0]), torch.tensor([0.0])
    assert kl(new, ref, "k1").item() == -30
    assert kl(new, ref, "k1", bound=10.0).item() == -10


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (losses.ppo_clip, {"clip_low": 1.0}),
        (losses.ppo_clip, {"clip_high": 0.0}),
        (losses.ppo_clip, {"dual_clip": 1.0}),
        (losses.gspo, {"clip_low": -0.1}),
        (losses.cpgd, {"clip": 1.0}),
        (losses.cpgd, {"clip_start": 0.0}),
        (losses.cpgd, {"drift_weight": -1.0}),
        (losses.cpgd, {"drift_cap": 0.0}),
    ],
)
def test_options_out_of_range(loss, options: dict[str, float]) -> None:
    with pytest.raises(SafeladderError, match=next(iter(options))):
        loss(NEW, OLD, _advantage(1), MASK, **options)
