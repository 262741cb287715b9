"""`safeladder search ask`: what is shown, the verdict, votes, and mistakes."""

from __future__ import annotations

import argparse
import io
import json
from dataclasses import asdict

import pytest
from rich.console import Console

from rollout.tiny_policies import policy
from safeladder.models.load import save_checkpoint
from safeladder.search.index import build_index
from safeladder.search.retriever import Document, Hit, MemoryRetriever, RetrievalFault
from safeladder.search.settings import SearchSettings
from safeladder.serving.ask import add_parser, ask, run, verdict
from safeladder.types import SafeladderError
from search.engines import Speaker, plain
from search.tokens import single

PAGES = [
    Document(id="7", title="Acme \x1b[31mred", text="Acme was founded by Jo Ray .\n\x1b]0;owned\x07 It makes boats ."),
    Document(id="8", title="Boats", text="Boats are red ."),
]
SEARCH = "<think> who ?</think><confidence> 2</confidence><search> founded Acme</search>"
READ = "<confidence> 5</confidence><read> 7</read>"


def answer(confidence: int, text: str = "Jo Ray") -> str:
    return f"<confidence> {confidence}</confidence><answer> {text}</answer>"


def asked(*turns: str, retriever=None, question: str = "who ?", **options) -> tuple[int, str]:
    tokenizer = single()
    engine = Speaker(tokenizer, {"ask": [plain(tokenizer, turn) for turn in turns]})
    out = io.StringIO()
    console = Console(file=out, width=100, highlight=False)
    named = {"k": "top_k", "turns": "max_turns", **{name: name for name in ("first_sentences", "missing_words")}}
    settings = SearchSettings(**{named[name]: options.pop(name) for name in tuple(options) if name in named})
    code = ask(engine, tokenizer, retriever or MemoryRetriever(PAGES), question, console, settings=settings, **options)
    return code, out.getvalue()


def lines(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines()]


def test_the_whole_trace_in_order_then_sources_answer_and_verdict():
    code, text = asked(SEARCH, READ, answer(9), turns=3, k=1)
    shown = lines(text)
    assert code == 0
    assert shown[:3] == ["think who ?", "confidence 2", "search founded Acme"]
    assert shown[3].startswith("1) id 7 | Acme")
    assert shown[4:6] == ["confidence 5", "read 7"] and shown[6].startswith("id 7 | Acme")
    assert "answer now ." in shown[8], "the turn limit was near"
    assert shown[9:11] == ["confidence 9", "answer Jo Ray"]
    assert shown[-4:] == ["source [7] Acme [31mred", "answer Jo Ray", "confidence 9 of 10", "verdict certain"]
    assert "\x1b" not in text and "\x07" not in text, "a page must not speak to the terminal"


@pytest.mark.parametrize(("confidence", "said"), [(0, "uncertain"), (5, "uncertain"), (6, "certain"), (10, "certain")])
def test_certain_is_above_five(confidence, said):
    assert verdict(confidence) == said
    assert lines(asked(answer(confidence))[1])[-1] == f"verdict {said}"


def test_results_that_were_not_read_are_named_as_such():
    shown = lines(asked(SEARCH, answer(3), k=1)[1])
    assert "source none read; results shown: [7] Acme [31mred" in shown
    assert "source none" in lines(asked(answer(3))[1])


@pytest.mark.parametrize(
    ("turns", "problem"),
    [
        (["<think> x</think><search></search>", answer(9)], "turn 1: empty <search>"),
        ([SEARCH, "<read> 7</read>", answer(9)], "turn 2: confidence is not restated"),
        ([SEARCH, READ], "no answer"),
    ],
)
def test_an_answer_that_is_not_well_formed_is_none(turns, problem):
    code, text = asked(*turns, turns=len(turns))
    assert code == 1 and lines(text)[-1] == f"answer none ({problem})" and "verdict" not in text
    if "empty" in problem:
        assert "malformed empty <search>: <think> x</think><search></search>" in lines(text)


def test_votes_are_weighed_by_confidence():
    code, text = asked(
        answer(2, "Acme"), answer(3, "acme ."), answer(9, "Jo Ray"), "<answer> Acme</answer>", votes=4, turns=1
    )
    shown = lines(text)
    assert code == 0
    assert "sample 2 acme . (confidence 3)" in shown and "sample 4 malformed" in shown
    assert shown[-3:] == ["answer Jo Ray", "confidence 9 of 10", "verdict certain"]
    assert asked("<answer> x</answer>", "<answer> x</answer>", votes=2, turns=1)[0] == 1


def test_a_failed_retrieval_is_an_error_and_no_verdict():
    class Down:
        def search(self, query: str, k: int) -> list[Hit]:
            raise RetrievalFault("timeout after 5 s")

        def read(self, id: str) -> Document | None:
            raise AssertionError

    with pytest.raises(SafeladderError, match="no answer: retrieval: timeout after 5 s"):
        asked(SEARCH, retriever=Down())


def test_a_question_beyond_the_context():
    with pytest.raises(SafeladderError, match="too long"):
        asked(answer(3), question="who ? " * 6000)


def options(*given: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers())
    return parser.parse_args(["ask", "model", "index", *given])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((" ",), "the question is empty"),
        (("q", "--k", "0"), "--k"),
        (("q", "--turns", "0"), "--turns"),
        (("q", "--votes", "0"), "--votes"),
        (("q", "--votes", "4"), "--temperature above 0"),
        (("q", "--temperature", "-1"), "--temperature"),
        (("q", "--temperature", "nan"), "--temperature"),
    ],
)
def test_mistakes_are_named_before_anything_is_loaded(given, message):
    with pytest.raises(SafeladderError, match=message):
        run(options(*given))


def test_from_a_checkpoint_and_an_index_on_disk(tmp_path, capsys):
    """The command itself over a real index. A tiny untrained policy gives no answer, so the exit code is 1."""
    learner = policy("qwen2_5_vl")
    save_checkpoint(learner.model, learner.processor, tmp_path / "model")
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(asdict(page)) + "\n" for page in PAGES))
    build_index(corpus, tmp_path / "index")
    given = options("who founded Acme ?", "--turns", "2")
    given.model, given.index = str(tmp_path / "model"), str(tmp_path / "index")
    assert run(given) == 1
    shown = lines(capsys.readouterr().out)
    assert shown[-2:] == ["source none", "answer none (truncated)"] and shown[0].startswith("malformed")
    given.index = str(tmp_path / "nowhere")
    with pytest.raises(SafeladderError, match="nowhere"):
        run(given)


def test_a_search_shows_what_the_checkpoint_learned_on():
    pages = [Document(id="7", title="Acme", text="a firm . founded by Jo Ray .")]
    whole = asked(SEARCH, answer(3), retriever=MemoryRetriever(pages))[1]
    first = asked(SEARCH, answer(3), retriever=MemoryRetriever(pages), first_sentences=True)[1]
    assert "founded by" in whole and "founded by" not in first and "a firm ." in first
    named = asked(SEARCH, answer(3), retriever=MemoryRetriever(pages), first_sentences=True, missing_words=True)[1]
    assert "missing" not in first and "a firm . | missing : founded" in named
