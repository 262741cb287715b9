"""How much memory a recipe needs a process, from shapes alone. No torch, no weights.

Counted: weights, gradients, optimizer state, a reference model, the in-process engine's copy of the language
model, and the KV cache. Not counted: activations and allocator slack; `HEADROOM` of a device is left to them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from safeladder.config import Recipe, RlRung

HEADROOM = 0.2
"""Share of a device's memory left to activations, logits and fragmentation."""
PROCESS_BYTES = 700_000_000
"""Resident size of a process that has imported torch and transformers."""
ENGINE_ROWS = 256
"""Responses that the in-process engine decodes together."""
PROMPT_TEXT_TOKENS = 512
"""Text tokens that a prompt is counted with, beside its image."""
_PIXELS_PER_TOKEN = 28 * 28
_ADAPTED = 7
"""Linear maps of a decoder layer that LoRA adapts: q, k, v, o, gate, up, down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What memory depends on: all parameters, and the sizes of the language model (Llama-shaped)."""

    parameters: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    qkv_bias: bool
    tied: bool = False

    @property
    def language(self) -> int:
        """Parameters of the language model, embeddings and output head included."""
        query, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden * (2 * query + 2 * kv) + (query + 2 * kv if self.qkv_bias else 0)
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        tables = self.vocabulary * self.hidden * (1 if self.tied else 2)
        return self.layers * layer + self.hidden + tables

    @property
    def vision(self) -> int:
        """Parameters that turn pixels into features, projector included."""
        return max(0, self.parameters - self.language)


_QWEN_72B = {
    "layers": 80,
    "hidden": 8192,
    "intermediate": 29_568,
    "heads": 64,
    "kv_heads": 8,
    "head_dim": 128,
    "qkv_bias": True,
}

PUBLISHED: Mapping[str, Shape] = {
    # Sizes from each checkpoint's published config.json. Parameters: counted on the transformers classes with
    # these sizes (a test counts again); they agree with the model cards: 8.29 B, 73.4 B, 78.4 B, 70.6 B.
    "Qwen/Qwen2.5-VL-7B-Instruct": Shape(
        parameters=8_292_166_656,
        layers=28,
        hidden=3584,
        intermediate=18_944,
        heads=28,
        kv_heads=4,
        head_dim=128,
        vocabulary=152_064,
        qkv_bias=True,
    ),
    "Qwen/Qwen2.5-VL-72B-Instruct": Shape(parameters=73_410_777_344, vocabulary=152_064, **_QWEN_72B),
    "OpenGVLab/InternVL3-78B-hf": Shape(parameters=78_408_318_336, vocabulary=151_674, **_QWEN_72B),
    "deepseek-ai/DeepSeek-R1-Distill-Llama-70B": Shape(
        parameters=70_553_706_496,
        layers=80,
        hidden=8192,
        intermediate=28_672,
        heads=64,
        kv_heads=8,
        head_dim=128,
        vocabulary=128_256,
        qkv_bias=False,
    ),
}

LAPTOP = Shape(
    parameters=1_300_000,
    layers=4,
    hidden=128,
    intermediate=384,
    heads=4,
    kv_heads=2,
    head_dim=32,
    vocabulary=1024,
    qkv_bias=True,
    tied=True,
)
"""The model that is built without a checkpoint, rounded up: its vocabulary depends on the data."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Bytes on one process."""

    weights: int
    gradients: int
    optimizer: int
    reference: int
    engine: int
    kv_cache: int
    kv_row: int
    """KV cache of one response of full length; not part of the total, it is in `kv_cache`."""
    rows: int
    """Responses decoded together."""

    @property
    def total(self) -> int:
        parts = (self.weights, self.gradients, self.optimizer, self.reference, self.engine, self.kv_cache)
        return sum(parts) + PROCESS_BYTES


def trained_parameters(shape: Shape, recipe: Recipe) -> int:
    """Parameters that receive gradients in an RL rung."""
    if recipe.model.lora is None:
        return shape.parameters - (shape.vision if recipe.model.freeze_vision else 0)
    kv = shape.kv_heads * shape.head_dim
    attention = 2 * (shape.hidden + shape.hidden) + 2 * (shape.hidden + kv)
    mlp = 3 * (shape.hidden + shape.intermediate)
    return recipe.model.lora.rank * shape.layers * (attention + mlp)


def estimate(shape: Shape, recipe: Recipe, *, processes: int, reference: bool = False) -> Memory:
    """Memory of one of `processes` processes in the recipe's largest RL rung.

    Frozen weights are held in `model.dtype`, trained ones with their gradients and AdamW's two moments in
    float32: a step of 1e-6 is lost in bfloat16's 8 bits. With LoRA only the adapters train, and the reference
    is the model with its adapters off.

    Args:
        processes: data-parallel processes.
        reference: a second copy of the weights stands for the reference policy of a KL term.
    """
    width = 4 if recipe.model.dtype == "float32" else 2
    trained = trained_parameters(shape, recipe)
    lora = recipe.model.lora is not None
    rungs = [rung for rung in recipe.rungs.values() if isinstance(rung, RlRung)]
    rows = max((rung.prompts_per_step * rung.group_size for rung in rungs), default=0)
    rows = min(-(-rows // processes), ENGINE_ROWS)
    image = 0 if recipe.model.family == "llama" else recipe.model.max_pixels // _PIXELS_PER_TOKEN
    tokens = PROMPT_TEXT_TOKENS + image + max((rung.longest_reply for rung in rungs), default=0)
    kv_row = 2 * shape.layers * shape.kv_heads * shape.head_dim * width * tokens
    frozen = shape.parameters if lora else shape.parameters - trained
    return Memory(
        weights=width * frozen + 4 * trained,
        gradients=4 * trained,
        optimizer=8 * trained,
        reference=width * shape.parameters if reference and not lora else 0,
        engine=width * (shape.parameters - shape.vision) if rungs else 0,
        kv_cache=kv_row * rows,
        kv_row=kv_row,
        rows=rows,
    )


def gigabytes(count: int) -> str:
    """Bytes as a person reads them: '3.2 GB', '45 MB' (decimal, as memory is sold and billed)."""
    return f"{count / 1e9:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.0f} MB"
