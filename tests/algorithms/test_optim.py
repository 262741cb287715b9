"""Muon, the composite optimizer and the schedules."""

from __future__ import annotations

import copy
import io
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from safeladder.algorithms.optim import (
    Muon,
    Optimizers,
    build_optimizer,
    learning_rate,
    orthogonalize,
    parameter_groups,
)
from safeladder.types import SafeladderError


def _randn(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_orthogonalize_is_the_quintic_of_the_singular_values() -> None:
    # Five times p(s) = 3.4445 s - 4.7750 s^3 + 2.0315 s^5 on S / ||S|| of an exact SVD.
    matrices = _randn(3, 5, 9, dtype=torch.float64)
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    s = s / s.norm(dim=-1, keepdim=True)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    assert_close(orthogonalize(matrices), u @ torch.diag_embed(s) @ vh, atol=1e-10, rtol=0)
    assert_close(orthogonalize(matrices.float()), (u @ torch.diag_embed(s) @ vh).float(), atol=1e-5, rtol=0)
    assert s.min() > 0.6
    assert s.max() < 1.3


def test_orthogonalize_zero_is_zero() -> None:
    assert torch.equal(orthogonalize(torch.zeros(1, 2, 3)), torch.zeros(1, 2, 3))


def _by_hand(p: Tensor, grads: list[Tensor], lr: float, decay: float, scale: float) -> Tensor:
    """Muon one matrix at a time, straight from the equations."""
    buffer = torch.zeros_like(p)
    for g in grads:
        buffer = 0.95 * buffer + 0.05 * g
        nesterov = 0.05 * g + 0.95 * buffer
        tall = p.shape[0] > p.shape[1]
        x = nesterov.T if tall else nesterov
        x = x / x.norm()
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        p = p * (1 - lr * decay) - lr * scale * (x.T if tall else x)
    return p


@pytest.mark.parametrize("scaling", ["original", "match-rms-adamw"])
def test_muon_batches_shapes_without_mixing_them(scaling: Any) -> None:
    # Wide, tall (same stack as wide), square, and a second one of each.
    shapes = [(4, 6), (6, 4), (5, 5), (4, 6), (6, 4), (5, 5), (3, 8)]
    start = [_randn(*shape, seed=i) for i, shape in enumerate(shapes)]
    grads = [[_randn(*shape, seed=100 + 10 * step + i) for step in range(3)] for i, shape in enumerate(shapes)]
    parameters = [nn.Parameter(p.clone()) for p in start]
    optimizer = Muon(parameters, 0.1, weight_decay=0.2, lr_scaling=scaling)
    for step in range(3):
        for p, g in zip(parameters, grads, strict=True):
            p.grad = g[step].clone()
        optimizer.step()
    for p, first, g in zip(parameters, start, grads, strict=True):
        rows, columns = first.shape
        scale = max(1, rows / columns) ** 0.5 if scaling == "original" else 0.2 * max(rows, columns) ** 0.5
        assert_close(p.detach(), _by_hand(first, g, 0.1, 0.2, scale), atol=1e-5, rtol=0)


def test_muon_large_stacks_are_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def run() -> list[Tensor]:
        parameters = [nn.Parameter(_randn(4, 6, seed=i)) for i in range(5)]
        for i, p in enumerate(parameters):
            p.grad = _randn(4, 6, seed=50 + i)
        Muon(parameters, 0.1).step()
        return [p.detach() for p in parameters]

    whole = run()
    monkeypatch.setattr("safeladder.algorithms.optim.muon._STACK_ELEMENTS", 2 * 24)
    assert_close(run(), whole, atol=1e-6, rtol=0)


def test_muon_agrees_with_torch_up_to_its_bfloat16() -> None:
    # torch.optim.Muon iterates in bfloat16 (8 bits), ours in float32: they agree to about 2^-7.
    ours, theirs = (nn.Parameter(_randn(8, 12)) for _ in range(2))
    a = Muon([ours], 0.1, weight_decay=0.1)
    b = torch.optim.Muon([theirs], lr=0.1, weight_decay=0.1, adjust_lr_fn="original")
    for step in range(4):
        for p in (ours, theirs):
            p.grad = _randn(8, 12, seed=step + 1)
        a.step()
        b.step()
    moved = (ours - _randn(8, 12)).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_muon_skips_what_has_no_gradient_and_refuses_what_is_no_matrix() -> None:
    still, moving = nn.Parameter(_randn(3, 3)), nn.Parameter(_randn(3, 3))
    moving.grad = _randn(3, 3, seed=1)
    Muon([still, moving], 0.1, weight_decay=0.5).step()
    assert torch.equal(still, _randn(3, 3))
    assert not torch.equal(moving, _randn(3, 3))
    with pytest.raises(SafeladderError, match="matrices"):
        Muon([nn.Parameter(torch.zeros(3))])
    with pytest.raises(SafeladderError, match="original, match-rms-adamw"):
        Muon([still], lr_scaling="none")  # pyright: ignore[reportArgumentType]


class Tiny(nn.Module):
    """Names and ranks as in a vision-language model."""

    def __init__(self) -> None:
        super().__init__()
        self.patch_embed = nn.Conv2d(3, 8, 2)
        self.embed_tokens = nn.Embedding(11, 8)
        self.position_table = nn.Parameter(torch.zeros(4, 8))
        self.q_proj = nn.Linear(8, 8)
        self.down_proj = nn.Linear(16, 8, bias=False)
        self.norm = nn.LayerNorm(8)
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.lm_head = nn.Linear(8, 11, bias=False)


def test_parameter_groups() -> None:
    model = Tiny()
    names = {id(p): name for name, p in model.named_parameters()}
    groups = {k: [names[id(p)] for p in v] for k, v in parameter_groups(model.named_parameters()).items()}
    assert groups == {
        "matrices": ["q_proj.weight", "down_proj.weight"],
        "tables": ["position_table", "patch_embed.weight", "embed_tokens.weight", "lm_head.weight"],
        "vectors": ["patch_embed.bias", "q_proj.bias", "norm.weight", "norm.bias"],
    }


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_every_trainable_parameter_is_updated_once(name: Any) -> None:
    model = Tiny()
    optimizer = build_optimizer(model, name, lr=0.1)
    held = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
    assert [type(o).__name__ for o in optimizer.optimizers] == (["Muon"] if name == "muon" else []) + ["AdamW"]
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    assert decays[id(model.norm.weight)] == decays[id(model.q_proj.bias)] == 0
    assert decays[id(model.q_proj.weight)] == decays[id(model.lm_head.weight)] == 0.01
    assert all(g["initial_lr"] == g["lr"] == 0.1 for g in optimizer.param_groups)


def _train(model: nn.Module, optimizer: Optimizers, steps: range) -> None:
    for step in steps:
        for i, p in enumerate(model.parameters()):
            if p.requires_grad:
                p.grad = _randn(*p.shape, seed=1000 * step + i)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_resume_is_bit_identical(name: Any) -> None:
    torch.manual_seed(0)
    model = Tiny()
    optimizer = build_optimizer(model, name, lr=0.01)
    _train(model, optimizer, range(2))
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    _train(model, optimizer, range(2, 4))

    resumed = Tiny()
    resumed.load_state_dict(weights)
    again = build_optimizer(resumed, name, lr=0.01)
    again.load_state_dict(state)
    _train(resumed, again, range(2, 4))
    for a, b in zip(model.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    assert all(p.grad is None for p in model.parameters())


def test_state_is_tensors_and_plain_values_only() -> None:
    model = Tiny()
    optimizer = build_optimizer(model, "muon", lr=0.01)
    _train(model, optimizer, range(1))
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    torch.load(buffer, weights_only=True)  # fails on anything but tensors, numbers, strings and containers


def test_adamw_matches_torch() -> None:
    torch.manual_seed(0)
    model = nn.Linear(4, 3, bias=False)
    other = copy.deepcopy(model)
    _train(model, build_optimizer(model, "adamw", lr=0.01), range(3))
    plain = torch.optim.AdamW(other.parameters(), lr=0.01, betas=(0.9, 0.95), weight_decay=0.01, foreach=False)
    _train(other, Optimizers([plain]), range(3))
    assert_close(model.weight, other.weight, atol=1e-7, rtol=0)


def test_optimizer_errors() -> None:
    model = Tiny()
    with pytest.raises(SafeladderError, match="adamw, muon"):
        build_optimizer(model, "sgd", lr=0.1)  # pyright: ignore[reportArgumentType]
    with pytest.raises(SafeladderError, match="freezes"):
        build_optimizer(model.requires_grad_(False), "adamw", lr=0.1)
    state = build_optimizer(Tiny(), "adamw", lr=0.1).state_dict()
    with pytest.raises(SafeladderError, match="1 optimizers, this run has 2"):
        build_optimizer(Tiny(), "muon", lr=0.1).load_state_dict(state)


def test_muon_has_its_own_peak_where_asked() -> None:
    optimizer = build_optimizer(Tiny(), "muon", lr=0.001, muon_lr=0.02, lr_scaling="original")
    assert [g["initial_lr"] for g in optimizer.param_groups] == [0.02, 0.001, 0.001]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        # warm-up 2 of 10 updates, peak 1, minimum .2: updates 0, 1, 2, 6 (half of the decay), 10 (its end)
        ("constant", [0.5, 1.0, 1.0, 1.0, 1.0]),
        ("linear", [0.5, 1.0, 1.0, 0.6, 0.2]),
        ("cosine", [0.5, 1.0, 1.0, 0.6, 0.2]),
        # decay from 5: update 6 is a fifth of the way, 1 - .8 / 5
        ("wsd", [0.5, 1.0, 1.0, 0.84, 0.2]),
    ],
)
def test_learning_rate_golden(kind: Any, expected: list[float]) -> None:
    rates = [
        learning_rate(s, 10, peak=1.0, warmup=2, kind=kind, minimum_ratio=0.2, decay_start=5) for s in (0, 1, 2, 6, 10)
    ]
    assert rates == pytest.approx(expected)


def test_cosine_is_not_a_line() -> None:
    # a quarter of the way: .2 + .8 * (1 + cos(pi / 4)) / 2 = .882843
    rate = learning_rate(4, 10, peak=1.0, warmup=2, kind="cosine", minimum_ratio=0.2)
    assert rate == pytest.approx(0.882843, abs=1e-6)


def test_schedule_without_updates_after_warmup() -> None:
    assert [learning_rate(s, 2, peak=1.0, warmup=2, kind="cosine") for s in range(2)] == [0.5, 1.0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "step"}, "constant, linear, cosine, wsd"),
        ({"warmup": 11}, "warmup"),
        ({"minimum_ratio": 1.5}, "minimum_ratio"),
        ({"kind": "wsd"}, "decay_start"),
        ({"kind": "wsd", "warmup": 5, "decay_start": 4}, "decay_start"),
    ],
)
def test_schedule_errors(options: Any, message: str) -> None:
    with pytest.raises(SafeladderError, match=message):
        learning_rate(0, 10, peak=1.0, **options)
