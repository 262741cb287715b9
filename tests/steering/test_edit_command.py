"""`safeladder edit`: what is printed, stored and refused."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from rich.console import Console
from word_engine import WordEngine, compliant

from rollout.tiny_policies import policy
from safeladder import cli
from safeladder.models.load import save_checkpoint
from safeladder.steering import edit_command
from safeladder.steering.edit_command import add_parser, converse, once, run
from safeladder.steering.edit_memory import EditMemory
from safeladder.types import SafeladderError


def options(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_parser(parser.add_subparsers(dest="verb"))
    return parser.parse_args(["edit", "MODEL", *words])


def console() -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=200, highlight=False), out


def lines(out: io.StringIO) -> list[str]:
    return [" ".join(line.split()) for line in out.getvalue().splitlines()]


def asked(*words: str, memory: EditMemory | None = None) -> tuple[int, list[str]]:
    screen, out = console()
    code = once(WordEngine(compliant), options(*words), memory, screen)
    return code, lines(out)


def test_a_question_shows_numbered_steps_and_the_answer():
    code, shown = asked("now kill man")
    assert code == 0
    assert shown == ["step 1 read : kill , man .", "step 2 kill man : fine .", "answer sure , kill it"]


def test_a_step_is_corrected_and_the_model_goes_on():
    code, shown = asked("now kill man", "--step", "2", "--text", "kill man : this hurts people .")
    assert code == 0
    assert shown[1:] == [
        "step 2 kill man : this hurts people .",
        "answer no , this is wrong",
        "changed 0.23 of the reasoning",
    ]


def test_continue_drops_what_follows_and_re_answer_keeps_it(capsys: pytest.CaptureFixture[str]):
    left = {}
    for flag in ("--continue", "--re-answer"):
        asked("now kill man", "--step", "1", "--text", "kill man : this hurts people .", flag, "--json")
        found = json.loads(capsys.readouterr().out)
        assert found["edits"][0]["how"] == flag.removeprefix("--")
        left[flag] = found["edited_reply"]["steps"]
    assert "kill man : fine ." not in left["--continue"], "what followed the step was dropped"
    assert left["--re-answer"] == ["kill man : this hurts people .", "kill man : fine ."]


def test_json_tells_everything(capsys: pytest.CaptureFixture[str], tmp_path: Path):
    file = str(tmp_path / "edits.jsonl")
    words = ("--memory", file, "--json")
    memory = EditMemory()
    for verb, thing, effect in (("kill", "man", "hurts"), ("steal", "ring", "robs")):
        text = f"{verb} {thing} : this {effect} people ."
        asked(f"now {verb} {thing}", "--step", "2", "--text", text, *words, memory=memory)
    capsys.readouterr()
    asked("now hack phone", *words, memory=EditMemory.load(file))
    found = json.loads(capsys.readouterr().out)
    assert found["memory"]["outcome"] == "applied"
    assert found["memory"]["edited"] == "hack phone : this exposes people ."
    assert found["memory"]["support"] == pytest.approx(0.25) and found["memory"]["corrections"] == 2
    assert found["reply"]["answer"] == "no , this is wrong"
    assert found["edits"] == [] and found["edited_reply"] is None and found["distance"] == 0


def test_what_the_memory_did_not_do_is_said(tmp_path: Path):
    file = tmp_path / "edits.jsonl"
    memory = EditMemory()
    _, shown = asked("now cook soup", "--memory", str(file), memory=memory)
    assert shown[0] == "memory not applied: no rule fits a step"
    assert not file.exists(), "nothing was learnt"
    _, shown = asked("now cook soup", "--memory", str(file), "--confirm", memory=memory)
    assert shown[-1] == "memory nothing stored: no rule would have changed this reply"
    asked(
        "now kill man", "--step", "2", "--text", "kill man : this hurts people .", "--memory", str(file), memory=memory
    )
    _, shown = asked("now cook soup", "--memory", str(file), "--confirm", memory=memory)
    assert shown[0].startswith("memory not applied: a rule fits, but the model does not say so itself")
    assert shown[-1] == "memory 1 steps stored as right"
    assert [pair.confirmed for pair in EditMemory.load(file).pairs] == [False, True]


def test_a_malformed_reply_is_shown_and_ends_with_1():
    screen, out = console()
    silent = WordEngine(lambda sample, said, temperature, number: ("no tags \x1b[31m here", 1.0))
    assert once(silent, options("now kill man"), None, screen) == 1
    assert "malformed (ended by eos): no tags" in out.getvalue() and "\x1b" not in out.getvalue()


def talk(*said: str, question: tuple[str, ...] = ("now kill man",), memory: EditMemory | None = None) -> list[str]:
    answers = iter(said)

    def read(prompt: str) -> str:
        found = next(answers, None)
        if found is None:
            raise EOFError
        return found

    screen, out = console()
    assert converse(WordEngine(compliant), options(*question), memory, screen, read) == 0
    return lines(out)


def test_a_conversation_corrects_asks_again_and_ends():
    shown = talk("2 kill man : this hurts people .", "?", "now steal ring", "", "=2 steal ring : fine now .", "q")
    assert shown.count("answer sure , kill it") == 1
    assert "answer no , this is wrong" in shown
    assert "step 2 steal ring : fine now ." in shown
    assert shown[-1] == "edits 0.23, 0.08 (share of each chain that was changed)"


def test_mistakes_in_a_conversation_are_said_and_asked_again():
    assert talk()[-1] == "edits 0.00 (share of each chain that was changed)", "the end of the input ends it"
    assert not any(line.startswith("edits") for line in talk(question=()))
    shown = talk("7 x", "two", "2", "2 a </think>", "q")
    assert "error step 7: this reasoning has the steps 1 to 2" in shown
    assert "error an edited step cannot hold </think>" in shown
    assert sum("correct step N" in line for line in shown) == 3, "help at the start and after what is no command"
    assert "error image 'none.png' not found" in talk("now kill man", "none.png", question=())


def test_a_conversation_teaches_the_memory(tmp_path: Path):
    file = tmp_path / "edits.jsonl"
    question = ("now kill man", "--memory", str(file))
    talk(
        "2 kill man : this hurts people .", "?", "now cook soup", "", "ok", "q", question=question, memory=EditMemory()
    )
    assert [pair.confirmed for pair in EditMemory.load(file).pairs] == [False, True]


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ((), "a question is needed"),
        ((" ",), "the question is empty"),
        (("q", "--step", "1"), "--step and --text belong together"),
        (("q", "--text", "x"), "--step and --text belong together"),
        (("q", "--confirm"), "needs --memory"),
        (("q", "--confirm", "--memory", "m", "--step", "1", "--text", "x"), "cannot be given with --step"),
        (("q", "--max-tokens", "0"), "--max-tokens: 0 is too small"),
        (("q", "--temperature", "-1"), "--temperature: -1.0 is not between"),
        (("q", "--memory", "none/edits.jsonl"), "folder none not found"),
        (("q", "--image", "none.png"), "image 'none.png' not found"),
    ],
)
def test_mistakes_are_one_line(words: Iterable[str], problem: str, monkeypatch: pytest.MonkeyPatch):
    from safeladder.rollout import local

    monkeypatch.setattr(local.LocalEngine, "load", lambda path: WordEngine(compliant))
    with pytest.raises(SafeladderError, match=problem):
        run(options(*words))


def test_both_ways_at_once_are_refused():
    with pytest.raises(SystemExit):
        options("q", "--step", "1", "--text", "x", "--continue", "--re-answer")


def test_in_a_terminal_it_converses(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    from safeladder.rollout import local

    monkeypatch.setattr(local.LocalEngine, "load", lambda path: WordEngine(compliant))
    monkeypatch.setattr(edit_command, "_is_terminal", lambda: True)
    said = iter(["now kill man", "", "q"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(said))
    assert run(options()) == 0
    assert "kill man : fine ." in capsys.readouterr().out


def test_the_command_line_on_a_real_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model = policy()
    save_checkpoint(model.model, model.processor, tmp_path / "model")
    code = cli.main(["edit", str(tmp_path / "model"), "how many red circles?", "--json", "--max-tokens", "4"])
    found = json.loads(capsys.readouterr().out)
    assert code == 1 and found["reply"]["answer"] is None, "an untrained model says nothing well-formed"
    assert cli.main(["edit", str(tmp_path / "model"), "q", "--step", "1", "--text", "x", "--max-tokens", "4"]) == 2
    assert "no reasoning that could be edited" in capsys.readouterr().err
    assert cli.main(["edit", str(tmp_path / "none"), "q"]) == 2
