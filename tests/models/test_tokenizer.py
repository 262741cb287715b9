from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safeladder.models.families import FAMILIES, control_strings, family_of
from safeladder.models.tokenizer import train_tokenizer
from safeladder.types import SafeladderError

from .conftest import FAMILY_NAMES, TEXTS

TOKENIZERS = {name: train_tokenizer(TEXTS, vocab_size=320, family=name) for name in FAMILY_NAMES}


@pytest.mark.parametrize("name", FAMILY_NAMES)
def test_think_tags_and_specials_are_single_tokens(name):
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode("<think>", add_special_tokens=False) + tokenizer.encode("</think>", add_special_tokens=False)
    assert len(ids) == 2
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<think></think>"
    for token in (tokenizer.eos_token, tokenizer.pad_token):
        assert len(tokenizer.encode(str(token), add_special_tokens=False)) == 1
    assert tokenizer.eos_token_id != tokenizer.pad_token_id


def test_digits_are_single_tokens_also_after_a_space():
    tokenizer = train_tokenizer(["12 12 12 12"] * 9, vocab_size=300, family="qwen2_5_vl")
    assert [t.replace("Ġ", " ") for t in tokenizer.tokenize("12 12")] == ["1", "2", " 1", "2"]


def test_vocabulary_keeps_to_the_size_asked_for():
    tokenizer = train_tokenizer(TEXTS, vocab_size=300, family="qwen2_5_vl")
    assert len(tokenizer) == 300
    assert sorted(tokenizer.get_vocab().values()) == list(range(300))


def test_training_is_deterministic():
    again = train_tokenizer(iter(TEXTS), vocab_size=320, family="internvl")
    assert again.get_vocab() == TOKENIZERS["internvl"].get_vocab()


def test_too_small_vocabulary_names_the_minimum():
    with pytest.raises(SafeladderError, match="vocab_size 256 is too small for qwen2_5_vl: at least 275"):
        train_tokenizer(TEXTS, vocab_size=256, family="qwen2_5_vl")


def test_unknown_family_lists_the_allowed():
    with pytest.raises(SafeladderError, match=r"'bert'; allowed: qwen2_5_vl, internvl, llama"):
        train_tokenizer(TEXTS, vocab_size=320, family="bert")
    with pytest.raises(SafeladderError, match="-hf"):
        family_of("internvl_chat")


@pytest.mark.parametrize("name", FAMILY_NAMES)
@settings(max_examples=50, deadline=None)
@given(text=st.text(max_size=40))
def test_any_text_round_trips(name, text):
    tokenizer = TOKENIZERS[name]
    if any(token in text for token in control_strings(tokenizer, FAMILIES[name])):
        return
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False)) == text
