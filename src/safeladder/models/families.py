"""What differs between the model families, in one table.

Everything else in the project asks a `Family` instead of testing model types: where the text model and
the vision tower sit, which token stands for an image, what ends a turn, which modules LoRA adapts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from safeladder.types import SafeladderError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

THINK_TAGS = ("<think>", "</think>")
"""Opening and closing tag of the reasoning block; single tokens in tokenizers we train, never forbidden."""

ACTION_TAGS = (
    "<search>", "</search>", "<read>", "</read>", "<confidence>", "</confidence>", "<answer>", "</answer>",
    "<information>", "</information>",
)  # fmt: skip
"""Tags of a deliberative search's actions and of what the environment says back; tokens as the think tags are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """One model family: the facts about its Hugging Face classes that the rest of the project needs.

    Paths are module paths inside the plain (not LoRA-wrapped) model; the accessors unwrap a PEFT model first.
    """

    name: str
    model_type: str
    auto_class: str
    """Name of the transformers auto class that loads the model."""
    processor_class: str | None
    """Official processor class; None where the tokenizer alone is the processor."""
    text_path: str
    vision_path: str | None = None
    frozen_paths: tuple[str, ...] = ()
    """Everything that turns pixels into features, projector included: once frozen, features can be cached."""
    image_token: str | None = None
    """The placeholder whose positions take image features."""
    video_token: str | None = None
    image_wrap: tuple[str, str] | None = None
    """Tokens that the processor, not the chat template, puts around an image's placeholders."""
    turn_end: tuple[str, ...] = ()
    """Tokens that may end the policy's turn, besides the tokenizer's own end token."""
    control_tokens: tuple[str, ...] = ()
    """Tokens that structure a chat but that some tokenizers do not flag as special."""
    supports_images: bool = False
    supports_video: bool = False
    rope_dimensions: int = 1
    """Rows of the position ids: 3 for multimodal rotary embeddings (time, height, width), else 1."""
    mask_is_mapping: bool = False
    """Whether the text model takes `{"full_attention": mask}`, which spares it building a mask of its own."""
    lora_targets: tuple[str, ...] = (
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    )  # fmt: skip

    def text_model(self, model: nn.Module) -> Any:
        """The decoder stack (token embeddings to last norm), without the language-model head."""
        return unwrap(model).get_submodule(self.text_path)

    def vision_module(self, model: nn.Module) -> Any | None:
        """The vision tower, or None for a text-only family."""
        return None if self.vision_path is None else unwrap(model).get_submodule(self.vision_path)

    def visual_features(self, model: nn.Module, pixel_values: Tensor, grid_thw: Tensor | None) -> Tensor:
        """Features of images and video frames, in the order of their placeholders.

        Args:
            model: the policy's model, LoRA-wrapped or not.
            pixel_values: as `Encoded` holds them, concatenated: [patches, patch size] for Qwen2.5-VL,
                [tiles, 3, height, width] for InternVL.
            grid_thw: [visuals, 3] grids of the same visuals (Qwen2.5-VL), or None (InternVL).

        Returns:
            [n, hidden]: one row a placeholder token.
        """
        inner = unwrap(model).model
        if grid_thw is None:
            return inner.get_image_features(pixel_values=pixel_values, return_dict=True).pooler_output.flatten(0, 1)
        layout = _window_layout(tuple(map(tuple, grid_thw.tolist())), *_window_settings(inner.visual.config))
        indices = {name: index.to(pixel_values.device) for name, index in layout.items()}
        return inner.visual(pixel_values.to(inner.visual.dtype), grid_thw=grid_thw, **indices).pooler_output

    def lm_head(self, model: nn.Module) -> Any:
        """The output projection, hidden size to vocabulary rows."""
        return unwrap(model).get_submodule("lm_head")

    def image_token_id(self, config: PreTrainedConfig) -> int | None:
        """Id of the image placeholder, or None for a text-only family."""
        return config.image_token_id if self.supports_images else None

    def video_token_id(self, config: PreTrainedConfig) -> int | None:
        """Id of the video placeholder, or None where the family has no video input."""
        return config.video_token_id if self.supports_video else None

    def stop_ids(self, tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
        """Ids that end the policy's turn, the tokenizer's end token first."""
        vocabulary = tokenizer.get_vocab()
        ids = [tokenizer.eos_token_id, *(vocabulary[token] for token in self.turn_end if token in vocabulary)]
        return tuple(dict.fromkeys(i for i in ids if i is not None))


def _window_settings(config: PreTrainedConfig) -> tuple[int, int, int]:
    return config.spatial_merge_size, config.window_size, config.patch_size


@lru_cache(maxsize=1024)
def _window_layout(grids: tuple[tuple[int, ...], ...], merge: int, window: int, patch: int) -> dict[str, Tensor]:
    """What a Qwen2.5-VL tower derives from the grids alone, kept: a small one spends a third of its time on it."""
    import torch
    from transformers.vision_utils import get_vision_position_ids, get_vision_window_index

    with torch.inference_mode(False):  # what is kept after sampling is used in training as well
        grid_thw = torch.tensor(grids)
        index, lengths = get_vision_window_index(grid_thw, merge, window, patch)
        return {
            "position_ids": get_vision_position_ids(grid_thw, merge),
            "window_index": index,
            "cu_window_seqlens": lengths,
        }


_CHATML = ("<|im_start|>", "<|im_end|>")

FAMILIES: dict[str, Family] = {
    family.model_type: family
    for family in (
        Family(
            name="qwen2_5_vl",
            model_type="qwen2_5_vl",
            auto_class="AutoModelForImageTextToText",
            processor_class="Qwen2_5_VLProcessor",
            text_path="model.language_model",
            vision_path="model.visual",
            frozen_paths=("model.visual",),
            image_token="<|image_pad|>",
            video_token="<|video_pad|>",
            turn_end=("<|im_end|>",),
            control_tokens=(*_CHATML, "<|vision_start|>", "<|vision_end|>", "<|vision_pad|>"),
            supports_images=True,
            supports_video=True,
            rope_dimensions=3,
            mask_is_mapping=True,
        ),
        Family(
            name="internvl",
            model_type="internvl",
            auto_class="AutoModelForImageTextToText",
            processor_class="InternVLProcessor",
            text_path="model.language_model",
            vision_path="model.vision_tower",
            frozen_paths=("model.vision_tower", "model.multi_modal_projector"),
            image_token="<IMG_CONTEXT>",
            image_wrap=("<img>", "</img>"),
            turn_end=("<|im_end|>",),
            control_tokens=(*_CHATML, "<video>"),
            supports_images=True,
        ),
        Family(
            name="llama",
            model_type="llama",
            auto_class="AutoModelForCausalLM",
            processor_class=None,
            text_path="model",
            turn_end=("<｜end▁of▁sentence｜>", "<|eot_id|>"),
            control_tokens=("<｜User｜>", "<｜Assistant｜>", "<｜begin▁of▁sentence｜>"),
        ),
    )
}


def unwrap(model: nn.Module) -> Any:
    """The plain Hugging Face model behind a PEFT wrapper, or the model itself."""
    get_base_model = getattr(model, "get_base_model", None)
    return model if get_base_model is None else get_base_model()


def family_of(config_or_model_type: PreTrainedConfig | str) -> Family:
    """The family of a config or of a `model_type`.

    Raises:
        SafeladderError: the family is not one we support.
    """
    model_type = (
        config_or_model_type
        if isinstance(config_or_model_type, str)
        else getattr(config_or_model_type, "model_type", None)
    )
    if model_type in FAMILIES:
        return FAMILIES[model_type]
    hint = " (use the Hugging Face native '-hf' checkpoint)" if model_type == "internvl_chat" else ""
    raise SafeladderError(f"unknown model family {model_type!r}{hint}; allowed: {', '.join(FAMILIES)}")


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of a processor; a text-only family's processor is its tokenizer."""
    return getattr(processor, "tokenizer", processor)


def vocabulary_rows(config: PreTrainedConfig) -> int:
    """Rows of the embedding and of the language-model head, padding rows included."""
    return config.get_text_config().vocab_size


def control_strings(tokenizer: PreTrainedTokenizerBase, family: Family) -> tuple[str, ...]:
    """Every token that carries structure, not text: the tokenizer's special tokens and the family's own."""
    added = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    known = [*family.control_tokens, *family.turn_end, *(family.image_wrap or ())]
    placeholders = [token for token in (family.image_token, family.video_token) if token]
    named = [*tokenizer.all_special_tokens, *added, *known, *placeholders]
    return tuple(token for token in dict.fromkeys(named) if token not in THINK_TAGS)


def forbidden_token_ids(processor: Any, config: PreTrainedConfig) -> list[int]:
    """Ids the policy must never sample, ascending.

    These are the special and structural tokens (a sampled image placeholder has no feature and kills the
    next forward pass; a sampled role token forges a turn) and the padded vocabulary rows that no token
    owns. Turn-ending tokens and think tags stay allowed. The same ids must be masked in the learner's
    softmax, or sampler and learner disagree.

    Args:
        processor: a processor or a tokenizer.
        config: the model's config.
    """
    family, tokenizer = family_of(config), tokenizer_of(processor)
    vocabulary = tokenizer.get_vocab()
    forbidden = {vocabulary[token] for token in control_strings(tokenizer, family) if token in vocabulary}
    owned = set(vocabulary.values())
    forbidden |= {row for row in range(vocabulary_rows(config)) if row not in owned}
    return sorted(forbidden - set(family.stop_ids(tokenizer)))


def require_family(family: Family, expected: Sequence[str], where: str) -> None:
    """Raise a SafeladderError that names `where` unless the family is one of the expected names."""
    if family.name not in expected:
        raise SafeladderError(f"{where} is a {family.name} checkpoint; expected: {', '.join(expected)}")
