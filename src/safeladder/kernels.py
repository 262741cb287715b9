"""What a small model on a CPU does beside its large matrix products, compiled from `kernels.c` where there is a C
compiler: the passes between the products, products of few rows or of symmetric matrices, and drawing a token.

On small models the thin passes (norms, rotation, attention over short rows, SwiGLU, log-softmax) take as long as the
products, because torch runs each as several operations over memory. Compiled, each is one. Where there is no compiler,
for other types than float32 and on other devices torch operations do the same; both are held to the same values by
tests.

The library is compiled once a machine (about two seconds) into the user's cache, `$XDG_CACHE_HOME/safeladder` or
`~/.cache/safeladder`. `SAFELADDER_KERNELS=off` does without, `CC` names the compiler.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from safeladder.atomic import new_file

_SOURCE = Path(__file__).with_name("kernels.c")
_FLAGS = ("-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast", "-fopenmp", "-shared",
          "-fPIC")  # fmt: skip
_SERIAL_BELOW = 1 << 15
"""Elements below which starting threads costs more than it saves."""
_MAX_KEYS = 1024
"""Rows of attention up to this long keep their scores in the cache; longer ones are torch's."""

_POINTER, _SIZE, _REAL, _COUNT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float, ctypes.c_int
_SIGNATURES = {
    "unit": (2, "eps", 4),
    "unit_backward": (2, None, 5),
    "swiglu": (2, None, 2),
    "swiglu_backward": (2, None, 3),
    "rotate": (4, "sign", 2),
    "log_softmax": (2, None, 4),
    "log_softmax_backward": (2, None, 4),
}


def status() -> str:
    """One line for people: whether the compiled passes are in use, and why not."""
    library, reason = _load()
    return reason if library is None else "compiled"


@functools.cache
def _load() -> tuple[ctypes.CDLL | None, str]:
    """The compiled passes, or why they cannot be had."""
    if os.environ.get("SAFELADDER_KERNELS") == "off":
        return None, "switched off by SAFELADDER_KERNELS"
    compiler = shutil.which(os.environ.get("CC") or "cc")
    if compiler is None:
        return None, "no C compiler"
    try:
        return _declared(ctypes.CDLL(str(_compiled(compiler)))), ""
    except (OSError, AttributeError, subprocess.SubprocessError) as error:
        return None, f"{compiler}: {str(error).splitlines()[0]}"


def _compiled(compiler: str) -> Path:
    """Path of the library for this source, compiler and processor."""
    version = subprocess.run([compiler, "--version"], capture_output=True, check=True, timeout=60).stdout
    processor = Path("/proc/cpuinfo")
    lines = processor.read_text().splitlines() if processor.is_file() else [platform.processor()]
    kind = next((line for line in lines if line.startswith(("flags", "Features"))), lines[0])
    parts = (_SOURCE.read_bytes(), version, kind.encode(), " ".join(_FLAGS).encode())
    key = hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "safeladder"
    library = home / f"kernels-{key}.so"
    if not library.is_file():
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        with new_file(library) as fresh:
            command = [compiler, *_FLAGS, str(_SOURCE), "-o", str(fresh), "-lm"]
            subprocess.run(command, capture_output=True, check=True, timeout=120)
    return library


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    for name, (sizes, real, pointers) in _SIGNATURES.items():
        function = getattr(library, name)
        function.restype = None
        function.argtypes = [*[_SIZE] * sizes, *[_REAL] * (real is not None), *[_POINTER] * pointers, _COUNT]
    library.attend.argtypes = [_SIZE, _POINTER, *[_SIZE] * 4, *[_POINTER] * 3, _COUNT]
    library.attend_backward.argtypes = [_SIZE, _POINTER, *[_SIZE] * 4, *[_POINTER] * 5, _COUNT]
    library.decode.argtypes = [_SIZE, *[_POINTER] * 5, _SIZE, *[_POINTER] * 3, _COUNT]
    library.pack.argtypes = [*[_SIZE] * 2, *[_POINTER] * 2, _COUNT]
    library.project.argtypes = [*[_SIZE] * 3, *[_POINTER] * 4, _COUNT]
    library.step.argtypes = [_SIZE, _POINTER, *[_SIZE] * 3, _REAL, *[_POINTER] * 5, _SIZE, _POINTER, _COUNT]
    library.newton_schulz.argtypes = [*[_SIZE] * 3, *[_REAL] * 3, *[_POINTER] * 2, _COUNT]
    library.draw.argtypes = [*[_SIZE] * 2, *[_POINTER] * 3, _COUNT]
    return library


def compiled_for(*tensors: Tensor) -> ctypes.CDLL | None:
    """The library, if it can run on these tensors."""
    for t in tensors:
        if t.dtype != torch.float32 or not t.is_cpu or not t.is_contiguous():
            return None
    return _load()[0]


def threads(elements: int) -> int:
    return 1 if elements < _SERIAL_BELOW else torch.get_num_threads()


def unit(x: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x / RMS(x) and 1 / RMS(x) [N, 1] of x [N, H]."""
    library = compiled_for(x)
    if library is None:
        scale = torch.linalg.vecdot(x, x).div_(x.shape[-1]).add_(eps).rsqrt_().unsqueeze(1)
        return x * scale, scale
    out, scale = torch.empty_like(x), x.new_empty(len(x), 1)
    library.unit(*x.shape, eps, x.data_ptr(), None, out.data_ptr(), scale.data_ptr(), threads(x.numel()))
    return out, scale


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / RMS(x) · weight of x [..., H]."""
    library = compiled_for(x, weight)
    if library is None:
        return F.rms_norm(x, (x.shape[-1],), weight, eps)
    out = torch.empty_like(x)
    rows = x.numel() // x.shape[-1]
    pointers = (x.data_ptr(), weight.data_ptr(), out.data_ptr())
    library.unit(rows, x.shape[-1], eps, *pointers, None, threads(x.numel()))
    return out


def unit_backward(gradient: Tensor, unit: Tensor, scale: Tensor, before: Tensor | None = None) -> Tensor:
    """Gradient of x: `before` plus (g - u·mean(g·u)) / RMS, all [N, H]."""
    before = torch.zeros_like(unit) if before is None else before
    library = compiled_for(gradient, unit, scale, before)
    if library is None:
        out = torch.addcmul(before, gradient, scale)
        along = torch.linalg.vecdot(gradient, unit).div_(-unit.shape[-1]).unsqueeze(1)
        return out.addcmul_(unit, along.mul_(scale))
    out = torch.empty_like(unit)
    pointers = (t.data_ptr() for t in (gradient, unit, scale, before, out))
    library.unit_backward(*unit.shape, *pointers, threads(unit.numel()))
    return out


def swiglu(both: Tensor) -> Tensor:
    """silu(gate)·up [..., I] of `both` [..., 2·I] = gate, up."""
    library = compiled_for(both)
    if library is None:
        gate, up = both.chunk(2, dim=-1)
        return F.silu(gate) * up
    size = both.shape[-1] // 2
    out = both.new_empty(*both.shape[:-1], size)
    library.swiglu(out.numel() // size, size, both.data_ptr(), out.data_ptr(), threads(out.numel()))
    return out


def swiglu_backward(both: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of `both` [N, 2·I] from that of silu(gate)·up [N, I]."""
    out = torch.empty_like(both)
    library = compiled_for(both, gradient)
    if library is None:
        gate, up = both.chunk(2, dim=1)
        d_gate, d_up = out.chunk(2, dim=1)
        sigmoid = torch.sigmoid(gate)
        silu = gate * sigmoid
        torch.mul(gradient, silu, out=d_up)
        # silu' = sigmoid·(1 + gate - silu)
        torch.sub(gate, silu, out=d_gate)
        d_gate.add_(1.0).mul_(sigmoid).mul_(gradient * up)
        return out
    pointers = (t.data_ptr() for t in (both, gradient, out))
    library.swiglu_backward(*gradient.shape, *pointers, threads(gradient.numel()))
    return out


def rotate_(x: Tensor, turn: Tensor, heads: int, *, back: bool = False) -> Tensor:
    """Rotate the first `heads` heads of x [N, W] in place, pairs side by side, by `turn` [N, D/2] (complex)."""
    half = turn.shape[1]
    library = compiled_for(x, torch.view_as_real(turn))
    if library is None:
        pairs = x[:, : heads * 2 * half].unflatten(1, (heads, half, 2))
        angle = turn.conj() if back else turn
        pairs.copy_(torch.view_as_real(torch.view_as_complex(pairs.contiguous()) * angle.unsqueeze(1)))
        return x
    sign = -1.0 if back else 1.0
    library.rotate(len(x), heads, half, x.shape[1], sign, turn.data_ptr(), x.data_ptr(), threads(x.numel()))
    return x


def log_softmax(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities [M] of `targets` [M], entropies [M] and probabilities [M, V], where `logits` [M, V] may lie."""
    library = compiled_for(logits)
    if library is None:
        probabilities = torch.softmax(logits, dim=-1)
        likeliest, where = probabilities.max(dim=-1)
        total = logits.gather(1, where.unsqueeze(1)).squeeze(1) - likeliest.log()  # log Σ exp
        logprobs = logits.gather(1, targets.unsqueeze(1)).squeeze(1) - total
        return logprobs, total - torch.linalg.vecdot(probabilities, logits), probabilities
    logprobs, entropy = logits.new_empty(len(logits)), logits.new_empty(len(logits))
    pointers = (t.data_ptr() for t in (targets.contiguous(), logits, logprobs, entropy))
    library.log_softmax(*logits.shape, *pointers, threads(logits.numel()))
    return logprobs, entropy, logits


def log_softmax_backward(probabilities: Tensor, targets: Tensor, gradient: Tensor) -> Tensor:
    """Gradient of the logits [M, V] from that of the log-probabilities [M] of `targets`."""
    gradient = gradient.contiguous()
    library = compiled_for(probabilities, gradient)
    if library is None:
        out = probabilities * -gradient.unsqueeze(1)
        out[torch.arange(len(targets)), targets] += gradient
        return out
    out = torch.empty_like(probabilities)
    pointers = (t.data_ptr() for t in (targets.contiguous(), probabilities, gradient, out))
    library.log_softmax_backward(*out.shape, *pointers, threads(out.numel()))
    return out


def attends(spans: Tensor, x: Tensor, dimension: int) -> bool:
    """Whether `attend` runs here: rows short enough, heads of whole vectors, a compiler."""
    longest = int((spans[:, 1] + spans[:, 3]).max())
    return longest <= _MAX_KEYS and dimension % 8 == 0 and compiled_for(x) is not None


def attend(spans: Tensor, x: Tensor, heads: int, kv_heads: int, dimension: int) -> tuple[Tensor, Tensor]:
    """Causal attention of packed rows, scaled by 1/√D.

    Args:
        spans: int64 [R, 4]: a row's first token and its number of tokens, and those of the prompt that all of it
            sees as well (0, 0: none). Rows do not overlap.
        x: [N, (heads + 2·kv_heads)·D] queries, keys and values of every token.

    Returns:
        [N, heads·D], and log Σ exp of the scores [N, heads], for `attend_backward`.
    """
    library = compiled_for(x)
    assert library is not None
    out, lse = x.new_zeros(len(x), heads * dimension), x.new_zeros(len(x), heads)
    sizes = (heads, kv_heads, dimension, x.shape[1])
    pointers = (x.data_ptr(), out.data_ptr(), lse.data_ptr())
    if library.attend(len(spans), spans.data_ptr(), *sizes, *pointers, threads(x.numel())):
        raise MemoryError
    return out, lse


def attend_backward(
    spans: Tensor, x: Tensor, attended: Tensor, lse: Tensor, gradient: Tensor, heads: int, kv_heads: int, dimension: int
) -> Tensor:
    """Gradient of `x` from that of what `attend` returned, [N, heads·D]."""
    library = compiled_for(x, attended, lse, gradient)
    assert library is not None
    out = torch.zeros_like(x)
    sizes = (heads, kv_heads, dimension, x.shape[1])
    pointers = (t.data_ptr() for t in (x, attended, lse, gradient, out))
    if library.attend_backward(len(spans), spans.data_ptr(), *sizes, *pointers, threads(x.numel())):
        raise MemoryError
    return out


def decode(
    x: Tensor, cos: Tensor, sin: Tensor, keys: Tensor, values: Tensor, place: int, visible: Tensor | None
) -> Tensor | None:
    """Attention of one new token a row, which joins `keys` and `values` [B, kv_heads, capacity, D] at slot `place`.

    Args:
        x: [B, (heads + 2·kv_heads)·D] its query, key and value, not rotated.
        cos, sin: [B, D] its rotary table.
        visible: bool [B, place + 1] what each row sees; None = everything.

    Returns:
        [B, heads·D]; None, with nothing done, where there are no compiled passes for these tensors.
    """
    library = compiled_for(x, cos, sin)
    if library is None or not joins(keys, values, visible):
        return None
    rows, dimension = cos.shape
    heads = x.shape[1] // dimension - 2 * keys.shape[1]
    out = x.new_empty(rows, heads * dimension)
    seen = (0, 0) if visible is None else (visible.data_ptr(), visible.stride(0))
    before, after = (x.data_ptr(), cos.data_ptr(), sin.data_ptr()), (keys.data_ptr(), values.data_ptr(), out.data_ptr())
    work = rows * heads * (place + 1) * dimension
    if library.decode(rows, cached(heads, keys, place), *before, *seen, *after, threads(work)):
        raise MemoryError
    return out


def joins(keys: Tensor, values: Tensor, visible: Tensor | None) -> bool:
    """Whether a new token can join this cache in a compiled pass: heads of whole vectors, slots side by side."""
    strides, dimension = keys.stride(), keys.shape[3]
    alike = strides == values.stride() and strides[2:] == (dimension, 1)
    return dimension % 8 == 0 and alike and (visible is None or visible.stride(1) == 1)


def cached(heads: int, keys: Tensor, place: int) -> ctypes.Array[ctypes.c_int64]:
    """The shape of a cache as the compiled passes take it."""
    return (_SIZE * 6)(heads, keys.shape[1], keys.shape[3], place, *keys.stride()[:2])


def draw(logits: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor] | None:
    """Tokens [B] and log-probabilities [B, V], which take the place of `logits`; None where nothing is compiled.

    Args:
        uniform: [B] in [0, 1): where in the running sum of probabilities a row's token lies; negative: the likeliest.
    """
    library = compiled_for(logits, uniform)
    if library is None:
        return None
    tokens = torch.empty(len(logits), dtype=torch.long)
    pointers = (uniform.data_ptr(), logits.data_ptr(), tokens.data_ptr())
    if library.draw(*logits.shape, *pointers, threads(logits.numel())):
        raise MemoryError
    return tokens, logits


def newton_schulz(grams: Tensor, steps: int, coefficients: tuple[float, float, float]) -> Tensor | None:
    """The product [N, m, m] of the polynomials P = a I + b G + c G² of all steps, where G <- P G P.

    All of these are symmetric and commute: half of every product is computed. `grams` [N, m, m] is lost. None, with
    nothing done, where nothing is compiled.
    """
    library = compiled_for(grams)
    if library is None:
        return None
    out = torch.empty_like(grams)
    pointers = (grams.data_ptr(), out.data_ptr())
    if library.newton_schulz(*grams.shape[:2], steps, *coefficients, *pointers, threads(grams.numel())):
        raise MemoryError
    return out
