"""The compiled passes give torch's values and gradients, and their absence is no obstacle."""

from __future__ import annotations

import multiprocessing

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from safeladder import kernels
from safeladder.models.trunk import Layout

compiled = pytest.mark.skipif(kernels.status() != "compiled", reason=f"no compiled passes: {kernels.status()}")


def random(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * scale


def close(found: Tensor, expected: Tensor) -> None:
    expected = expected.to(torch.float32)
    torch.testing.assert_close(found, expected, atol=3e-6 * max(1.0, float(expected.abs().max())), rtol=3e-5)


@pytest.fixture(params=[1, 2], ids=["one thread", "two threads"])
def threads(request):
    """Both ways of running; work of a few elements is not split, so the bound is lifted."""
    before, bound = torch.get_num_threads(), kernels._SERIAL_BELOW
    torch.set_num_threads(request.param)
    kernels._SERIAL_BELOW = 0
    yield request.param
    torch.set_num_threads(before)
    kernels._SERIAL_BELOW = bound


# In float64 the same functions run as torch operations: what the compiled ones are held to.
@compiled
@pytest.mark.parametrize("n", [1, 5, 64])
@pytest.mark.parametrize("size", [1, 7, 8, 128, 129])
def test_norm_and_swiglu(threads, n, size):
    x, g, before = random(n, size), random(n, size, seed=1), random(n, size, seed=2)
    unit, scale = kernels.unit(x, 1e-5)
    expected_unit, expected_scale = kernels.unit(x.double(), 1e-5)
    close(unit, expected_unit)
    close(scale, expected_scale)
    close(kernels.rms_norm(x, g[0].contiguous(), 1e-5), kernels.rms_norm(x.double(), g[0].double(), 1e-5))
    wide = [t.double() for t in (g, unit, scale, before)]
    close(kernels.unit_backward(g, unit, scale, before), kernels.unit_backward(*wide))
    close(kernels.unit_backward(g, unit, scale), kernels.unit_backward(*wide[:3]))
    both = random(n, 2 * size, seed=3, scale=6.0)
    close(kernels.swiglu(both), kernels.swiglu(both.double()))
    close(kernels.swiglu_backward(both, g), kernels.swiglu_backward(both.double(), g.double()))


@compiled
def test_the_gradient_of_swiglu_is_that_of_autograd():
    both = random(3, 10).double().requires_grad_()
    g = random(3, 5, seed=1).double()
    (expected,) = torch.autograd.grad(kernels.swiglu(both), both, g)
    close(kernels.swiglu_backward(both.detach().float(), g.float()), expected)


@compiled
def test_rotation_by_hand(threads):
    """A quarter turn takes (1, 2) to (-2, 1), and back; what follows the rotated heads stays."""
    turn = torch.tensor([[1j], [1.0]], dtype=torch.complex64)
    x = torch.tensor([[1.0, 2.0, 3.0, 4.0, 9.0], [1.0, 2.0, 3.0, 4.0, 9.0]])
    rotated = kernels.rotate_(x.clone(), turn, 2)
    assert rotated.tolist() == [[-2.0, 1.0, -4.0, 3.0, 9.0], [1.0, 2.0, 3.0, 4.0, 9.0]]
    assert torch.equal(kernels.rotate_(rotated.clone(), turn, 2, back=True), x)
    assert torch.equal(kernels.rotate_(x.double(), turn.to(torch.complex128), 2).float(), rotated)


@compiled
@pytest.mark.parametrize("size", [1, 3, 1216])
def test_log_softmax(threads, size):
    logits, targets = random(6, size, scale=9.0), torch.arange(6) % size
    logits[2, -1] += 500.0
    logits[3, 0] = -1e9
    g = random(6, seed=1)
    wide = kernels.log_softmax(logits.double(), targets)
    found = kernels.log_softmax(logits.clone(), targets)
    for value, expected in zip(found, wide, strict=True):
        close(value, expected)
    expected = kernels.log_softmax_backward(wide[2], targets, g.double())
    close(kernels.log_softmax_backward(found[2], targets, g), expected)
    assert found[2][3, 0] == (0.0 if size > 1 else 1.0)


@compiled
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_hidden(bad):
    """The learner skips a step whose loss is not finite; a pass that swallowed a NaN would let it through."""
    x = random(2, 16)
    x[1, 3] = bad
    assert not kernels.unit(x, 1e-5)[0][1].isfinite().all()
    assert not kernels.rms_norm(x, torch.ones(16), 1e-5)[1].isfinite().all()
    assert not kernels.swiglu(x)[1].isfinite().all()
    logprobs, entropy, _ = kernels.log_softmax(x.clone(), torch.tensor([0, 0]))
    assert not logprobs[1].isfinite()
    assert not entropy[1].isfinite()
    attended, _ = kernels.attend(torch.tensor([[0, 2, 0, 0]]), torch.cat((x, x, x), dim=1), 2, 2, 8)
    assert not attended[1].isfinite().all()
    assert kernels.unit(x, 1e-5)[0][0].isfinite().all()


def reference(layout: Layout, x: Tensor, heads: int, kv_heads: int, dimension: int) -> Tensor:
    """Attention over the tokens under the layout's mask, in plain operations."""
    row, place = layout.tokens // layout.length, layout.tokens % layout.length
    seen = torch.stack([layout.mask[b, 0, s][place] & (row == b) for b, s in zip(row, place, strict=True)])
    query, key, value = x.unflatten(1, (-1, dimension)).split((heads, kv_heads, kv_heads), dim=1)
    key, value = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (key, value))
    scores = torch.einsum("ihd,jhd->hij", query, key) / dimension**0.5
    shares = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    return torch.einsum("hij,jhd->ihd", shares, value).flatten(1)


@compiled
@given(
    rows=st.lists(
        st.tuples(st.integers(1, 21), st.lists(st.integers(1, 19), min_size=1, max_size=3)), min_size=1, max_size=4
    ),
    shape=st.sampled_from([(1, 1, 8), (4, 2, 32), (2, 2, 40), (6, 1, 16)]),
    scale=st.sampled_from([0.1, 1.0, 3.0]),
    threads=st.sampled_from([1, 2]),
)
@settings(max_examples=60, deadline=None)
def test_attention_and_its_gradient(rows, shape, scale, threads):
    heads, kv_heads, dimension = shape
    length = max(p + sum(r) for p, r in rows)
    layout = Layout(length=length, prompts=tuple(p for p, _ in rows), responses=tuple(tuple(r) for _, r in rows))
    n = len(layout.tokens)
    x, g = random(n, (heads + 2 * kv_heads) * dimension, scale=scale), random(n, heads * dimension, seed=1)
    before, bound = torch.get_num_threads(), kernels._SERIAL_BELOW
    torch.set_num_threads(threads)
    kernels._SERIAL_BELOW = 0
    try:
        assert kernels.attends(layout.spans, x, dimension)
        attended, lse = kernels.attend(layout.spans, x, *shape)
        gradient = kernels.attend_backward(layout.spans, x, attended, lse, g, *shape)
    finally:
        torch.set_num_threads(before)
        kernels._SERIAL_BELOW = bound
    exact = x.double().requires_grad_()
    expected = reference(layout, exact, *shape)
    (expected_gradient,) = torch.autograd.grad(expected, exact, g.double())
    close(attended, expected.detach())
    # A gradient is a difference of products as large as the values, not as large as itself.
    torch.testing.assert_close(gradient, expected_gradient.float(), atol=2e-5 * max(1.0, scale**2), rtol=1e-4)


@compiled
def test_attention_that_is_left_to_torch():
    spans = torch.tensor([[0, 5, 0, 0]])
    assert not kernels.attends(spans, random(5, 3 * 12), 12)
    assert not kernels.attends(spans, random(5, 3 * 16).double(), 16)
    assert not kernels.attends(torch.tensor([[0, 2000, 0, 0]]), random(5, 3 * 16), 16)


@compiled
@pytest.mark.parametrize("shape", [(2, 1, 8), (4, 2, 32)])
@pytest.mark.parametrize("masked", [False, True])
def test_decoding_a_token(threads, shape, masked):
    heads, kv_heads, dimension = shape
    rows, place, capacity = 3, 6, 9
    x = random(rows, (heads + 2 * kv_heads) * dimension)
    keys, values = (random(rows, kv_heads, capacity, dimension, seed=s) for s in (1, 2))
    angle = random(rows, dimension // 2, seed=3).repeat(1, 2)
    cos, sin = angle.cos(), angle.sin()
    seen = torch.ones(rows, capacity, dtype=torch.bool)
    if masked:
        seen[1, :4] = False
        seen[2, 1] = False

    def turned(t: Tensor) -> Tensor:
        t = t.view(rows, -1, dimension)
        a, b = t.chunk(2, dim=-1)
        return t * cos.unsqueeze(1) + torch.cat((-b, a), dim=-1) * sin.unsqueeze(1)

    query = turned(x[:, : heads * dimension])
    key = keys.clone()
    value = values.clone()
    key[:, :, place] = turned(x[:, heads * dimension : (heads + kv_heads) * dimension])
    value[:, :, place] = x[:, (heads + kv_heads) * dimension :].view(rows, kv_heads, dimension)
    expected = torch.nn.functional.scaled_dot_product_attention(
        query.unsqueeze(2), key[:, :, : place + 1].repeat_interleave(heads // kv_heads, 1),
        value[:, :, : place + 1].repeat_interleave(heads // kv_heads, 1),
        attn_mask=seen[:, None, None, : place + 1],
    ).flatten(1)  # fmt: skip

    mask = seen[:, : place + 1] if masked else None
    found = kernels.decode(x, cos, sin, keys, values, place, mask)
    assert found is not None
    close(found, expected)
    close(keys, key)
    close(values, value)


def test_decoding_is_declined_where_it_cannot_run():
    keys, values = random(1, 1, 4, 8).double(), random(1, 1, 4, 8, seed=1).double()
    assert kernels.decode(random(1, 32).double(), random(1, 8), random(1, 8), keys, values, 0, None) is None
    assert torch.equal(keys, random(1, 1, 4, 8).double())


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("SAFELADDER_KERNELS", "off", "switched off by SAFELADDER_KERNELS"),
        ("CC", "no-such-compiler", "no C compiler"),
        ("CC", "false", "false: Command"),
    ],
)
def test_without_a_compiler(monkeypatch, tmp_path, name, value, reason):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(name, value)
    library, why = kernels._load.__wrapped__()
    assert library is None
    assert reason in why
    assert not list(tmp_path.rglob("*.so"))


def _compile(_: int) -> str:
    return str(kernels._load.__wrapped__()[0] is not None)


@compiled
def test_processes_that_compile_at_once(monkeypatch, tmp_path):
    """One library is left, whole, and no temporary file."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_compile, range(2)) == ["True", "True"]
    files = list((tmp_path / "safeladder").iterdir())
    assert [f.suffix for f in files] == [".so"]


@compiled
def test_a_cache_that_cannot_be_written(monkeypatch, tmp_path):
    (tmp_path / "safeladder").write_text("a file is in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library, reason = kernels._load.__wrapped__()
    assert library is None
    assert "safeladder" in reason
