"""Tokenizers of both kinds: tags as single tokens, and tags spelled in several that run into their neighbours."""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from safeladder.models.tokenizer import train_tokenizer

TEXTS = [
    "Jo Ray founded Acme in Paris . Acme makes boats .",
    "1) id 7 | Acme | founder of Acme ? answer now . no page has this id . asked before . not understood :",
    "who founded Acme ? 10 9 8 who is the founder ?",
    "乔 创立 了 公司 。",
] * 20


@cache
def single(family: str = "qwen2_5_vl") -> PreTrainedTokenizerFast:
    """A laptop tokenizer: every tag is one added token."""
    return train_tokenizer(TEXTS, vocab_size=460, family=family)


@cache
def spelled() -> PreTrainedTokenizerFast:
    """As a released checkpoint's: tags are ordinary text, and merges run over their edges (``></``, ``>.``)."""
    turn = "<think> who ?</think><confidence> 7</confidence><search> Acme</search>.\n<read> 7</read>x"
    more = "<information> Acme</information><confidence> 9</confidence><answer> Jo</answer>"
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        [*TEXTS, *[turn, more] * 20],
        trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "[INST]"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            max_token_length=4,
            show_progress=False,
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
    )


def added_ids(tokenizer: PreTrainedTokenizerFast) -> set[int]:
    return set(tokenizer.added_tokens_decoder)
