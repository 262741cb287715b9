"""How a policy learned to search, kept with its checkpoint."""

import json

import pytest

from safeladder.search.retriever import Document, MemoryRetriever
from safeladder.search.settings import FILE, SearchSettings
from safeladder.types import Message, Part, SafeladderError, Sample

SETTINGS = SearchSettings(
    top_k=2, max_turns=6, turn_tokens=32, observation_tokens=112, episode_tokens=400, missing_words=True,
    first_sentences=True, instructions="查",
)  # fmt: skip


def test_what_is_saved_is_read_again_and_a_checkpoint_that_does_not_say_has_the_defaults(tmp_path):
    assert SearchSettings.of(tmp_path) == SearchSettings()
    SETTINGS.save(tmp_path)
    assert SearchSettings.of(tmp_path) == SETTINGS


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ('{"k": 3}', "unknown key 'k'"),
        ('{"top_k": 0}', "top_k is 0"),
        ('{"top_k": true}', "top_k is True"),
        ('{"max_turns": null}', "max_turns is None"),
        ('{"turn_tokens": 1.5}', "turn_tokens is 1.5"),
        ('{"missing_words": 1}', "missing_words is 1"),
        ('{"first_sentences": 1}', "first_sentences is 1"),
        ('{"instructions": 7}', "instructions is 7"),
    ],
)
def test_a_file_of_something_else_is_refused_by_name(tmp_path, text, names):
    (tmp_path / FILE).write_text(text)
    with pytest.raises(SafeladderError, match=r"search\.json") as caught:
        SearchSettings.of(tmp_path)
    assert names in str(caught.value)


def test_tokens_may_be_left_open(tmp_path):
    (tmp_path / FILE).write_text(json.dumps({"turn_tokens": None, "top_k": 1}))
    assert SearchSettings.of(tmp_path) == SearchSettings(top_k=1)


def test_instructions_stand_before_the_question_once():
    question = Message(role="user", parts=(Part(text="who ?"),))
    sample = Sample(id="1", label="search", messages=(question,))
    told = SETTINGS.instruct(sample)
    assert [(m.role, m.text) for m in told.messages] == [("system", "查"), ("user", "who ?")]
    assert SETTINGS.instruct(told) is told and SearchSettings().instruct(sample) is sample


def test_first_sentences_only_where_the_policy_learned_on_them():
    pages = MemoryRetriever([Document(id="7", title="nib ulf", text="a man . nib ulf gift ring .")])
    assert [hit.abstract for hit in SETTINGS.over(pages).search("nib", 1)] == ["a man ."]
    assert SETTINGS.over(pages).read("7") == pages.read("7")
    assert SearchSettings().over(pages) is pages
