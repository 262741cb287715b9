"""Small byte-level BPE tokenizers in the shape of each family's own.

A trained tokenizer has the family's special tokens and chat template, and the think and action tags as single
ordinary tokens, so a laptop model reads and writes exactly what a released checkpoint does. Any UTF-8 text
round-trips, since all 256 bytes are in the alphabet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AddedToken, PreTrainedTokenizerFast

from safeladder.models.families import ACTION_TAGS, THINK_TAGS, family_of
from safeladder.types import SafeladderError

_ALPHABET = 256
_TAGS = (*THINK_TAGS, *ACTION_TAGS)

# Words keep their leading space; digits are single tokens, so a number reads the same wherever it stands.
_SPLIT = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"

_CHATML = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '\\n' -}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}{{- 'IMAGE' -}}"
    "{%- elif part['type'] == 'video' -%}{{- 'VIDEO' -}}"
    "{%- elif part['type'] == 'text' -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)

_DEEPSEEK = (
    "{{- bos_token -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}{{- '<｜User｜>' + message['content'] -}}"
    "{%- elif message['role'] == 'assistant' -%}{{- '<｜Assistant｜>' + message['content'] + eos_token -}}"
    "{%- else -%}{{- message['content'] -}}{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<｜Assistant｜>' -}}{%- endif -%}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Style:
    """Special tokens and chat template of one family."""

    specials: tuple[str, ...]
    eos: str
    pad: str
    template: str
    bos: str | None = None
    named: dict[str, str] = field(default_factory=dict)
    """Attributes that the family's processor looks up on the tokenizer."""
    scaffold: str = ""
    """Plain words the template writes; they are trained on, so that a prompt does not spell them in bytes."""


_ROLES = "system\nuser\nassistant\n"

_STYLES: dict[str, _Style] = {
    "qwen2_5_vl": _Style(
        specials=(
            "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>",
            "<|image_pad|>", "<|video_pad|>",
        ),
        eos="<|im_end|>",
        pad="<|endoftext|>",
        template=_CHATML.replace("IMAGE", "<|vision_start|><|image_pad|><|vision_end|>").replace(
            "VIDEO", "<|vision_start|><|video_pad|><|vision_end|>"
        ),
        named={"image_token": "<|image_pad|>", "video_token": "<|video_pad|>"},
        scaffold=_ROLES,
    ),
    "internvl": _Style(
        specials=(
            "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>", "<video>",
        ),
        eos="<|im_end|>",
        pad="<|endoftext|>",
        template=_CHATML.replace("IMAGE", "<IMG_CONTEXT>\\n").replace("VIDEO", "<video>\\n"),
        named={
            "start_image_token": "<img>",
            "end_image_token": "</img>",
            "context_image_token": "<IMG_CONTEXT>",
            "video_token": "<video>",
        },
        scaffold=_ROLES,
    ),
    "llama": _Style(
        specials=(
            "<｜▁pad▁｜>", "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>",
            "<｜User｜>", "<｜Assistant｜>",
        ),
        bos="<｜begin▁of▁sentence｜>",
        eos="<｜end▁of▁sentence｜>",
        pad="<｜▁pad▁｜>",
        template=_DEEPSEEK,
    ),
}  # fmt: skip


def train_tokenizer(texts: Iterable[str], *, vocab_size: int, family: str) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer with the special tokens and chat template of a family.

    Training is deterministic. Fewer than `vocab_size` tokens result where the texts offer fewer merges.

    Args:
        texts: training texts; think and action tags in them are removed, for they are tokens of their own.
        vocab_size: number of tokens wanted, special tokens and tags included.
        family: `qwen2_5_vl`, `internvl` (both ChatML) or `llama` (as DeepSeek-R1 distilled).

    Raises:
        SafeladderError: the family is unknown, or `vocab_size` cannot hold the bytes and special tokens.
    """
    style = _STYLES[family_of(family).name]
    smallest = _ALPHABET + len(style.specials) + len(_TAGS)
    if vocab_size < smallest:
        raise SafeladderError(f"vocab_size {vocab_size} is too small for {family}: at least {smallest} needed")
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        _corpus(texts, style.scaffold),
        trainers.BpeTrainer(
            vocab_size=vocab_size - len(_TAGS),
            special_tokens=list(style.specials),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=style.bos,
        eos_token=style.eos,
        pad_token=style.pad,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        extra_special_tokens=style.named,
    )
    # Not special: the tags are part of the response's text and must survive decoding.
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in _TAGS])
    tokenizer.chat_template = style.template
    return tokenizer


def _corpus(texts: Iterable[str], scaffold: str) -> Iterator[str]:
    for text in texts:
        for tag in _TAGS:
            text = text.replace(tag, "\n")
        yield text
        if scaffold:
            yield scaffold
