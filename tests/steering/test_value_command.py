"""`safeladder pvm train` and `pvm ask`: from a checkpoint to a guided reply, resumed, refused."""

from __future__ import annotations

import io
import json
from collections import Counter

import pytest
from rich.console import Console

from rollout.tiny_policies import policy
from safeladder.cli import main
from safeladder.data.content import content_key
from safeladder.models.load import save_checkpoint
from safeladder.rollout.local import LocalEngine
from safeladder.steering.guidance import GuidanceConfig, Thresholds
from safeladder.steering.guided import GuidedDecoder, load_guidance
from safeladder.steering.routing import uniform
from safeladder.steering.value_command import FOLDER, ask, prompts
from safeladder.types import SafeladderError
from safeladder.world import SAFETY, VALUE
from steering.guided_script import Characters, Script, Words
from steering.guided_script import ask as question


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    tiny = policy()
    save_checkpoint(tiny.model, tiny.processor, folder)
    rows = [
        {"id": f"r{i}", "label": "safety", "prompt": f"how many red circles? {i}", "meta": {"prompt_label": label}}
        for i, label in enumerate(["safe", "unsafe"] * 5)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture
def short(monkeypatch):
    """Replies of a random policy never end: let them be short."""
    monkeypatch.setattr("safeladder.steering.value_command._BUDGET", 8)


def train(checkpoint, out, *more: str) -> int:
    return main(["pvm", "train", str(checkpoint), "--data", str(checkpoint / "rows.jsonl"), "--out", str(out), *more])


def test_train_then_ask(checkpoint, tmp_path, short, capsys):
    out = tmp_path / "g"
    assert train(checkpoint, out) == 0
    said = capsys.readouterr().out
    assert "safety" in said and f"wrote {out}" in said
    card = json.loads((out / "guidance.json").read_text())
    row = card["held_out"]["by_principle"]["safety"]
    # A random policy has no reasoning block to close: every reply is malformed, and that is never a pass.
    assert row["accepted"] < 0.5 and row["outcomes"] > 0 and row["brier"] >= 0
    assert card["train"]["prompts"] + card["choice"]["prompts"] + row["prompts"] == 10
    assert card["data"] == [str(checkpoint / "rows.jsonl")] and len(card["model"]) == 12

    code = main(["pvm", "ask", str(checkpoint), "how many?", "--guidance", str(out), "--candidates", "2",
                 "--trail", str(tmp_path / "t.jsonl")])  # fmt: skip
    shown = capsys.readouterr().out
    assert "step 1" in shown and "positions run" in shown
    assert (code == 1) == ("answer  none" in shown)
    rows = [json.loads(line) for line in (tmp_path / "t.jsonl").read_text().splitlines()]
    named = {"safety", "value", "knowledge", "capability"}
    assert all(set(c["values"]) == named for r in rows for c in r["candidates"])

    assert train(checkpoint, out) == 2
    assert "holds trained value models already" in capsys.readouterr().err


def test_a_killed_training_continues_and_ends_the_same(checkpoint, tmp_path, short, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert train(checkpoint, whole) == 0
    cut.mkdir()
    (cut / "training.json").write_text((whole / "training.json").read_text())
    rows = (whole / "rollouts-train.jsonl").read_text()
    (cut / "rollouts-train.jsonl").write_text(rows[: len(rows) // 2])
    assert train(checkpoint, cut) == 0
    for name in (
        "rollouts-train.jsonl",
        "rollouts-held-out.jsonl",
        "choice.jsonl",
        "heads.safetensors",
        "guidance.json",
    ):
        assert (cut / name).read_bytes() == (whole / name).read_bytes(), name


def test_another_run_in_the_folder_is_refused(checkpoint, tmp_path, short, capsys):
    out = tmp_path / "g"
    out.mkdir()
    (out / "training.json").write_text(json.dumps({"model": "x"}))
    assert train(checkpoint, out) == 2
    assert "was begun with model 'x'" in capsys.readouterr().err
    (out / "training.json").unlink()
    (out / "mine.txt").write_text("")
    assert train(checkpoint, out) == 2
    assert "is not an empty folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["how?"], "holds no value guidance"),
        (["   "], "the question is empty"),
        (["how?", "--image", "nowhere.png"], "--image: nowhere.png is not a file"),
        (["how?", "--candidates", "0"], "no number above 0"),
    ],
)
def test_mistakes_of_ask_are_one_line(checkpoint, arguments, words, capsys):
    assert main(["pvm", "ask", str(checkpoint), *arguments]) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_unknown_labels_and_missing_files_are_one_line(checkpoint, tmp_path, capsys):
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"id": "a", "label": "nobody", "prompt": "x"}\n')
    for path, words in ((bad, "nobody"), (tmp_path / "none.jsonl", "none.jsonl")):
        assert main(["pvm", "train", str(checkpoint), "--data", str(path), "--out", str(tmp_path / "o")]) == 2
        assert words in capsys.readouterr().err


def test_the_world_is_drawn_from_the_training_split_alone():
    learn, choice, held_out = prompts(["world"], 120, 3)
    assert {s.meta["split"] for s in (*learn, *choice)} == {"train"} and {s.meta["split"] for s in held_out} == {
        "heldout"
    }
    assert len(learn) + len(choice) == 120 and len(held_out) == 24 and choice
    assert not {s.meta["key"] for s in (*learn, *choice)} & {s.meta["key"] for s in held_out}
    assert len({s.id for s in (*learn, *choice)}) == 120
    kinds = Counter(s.meta["kind"] for s in (*learn, *choice))
    # 4 in 10 of 120 are matters of safety, evenly over six kinds, risky and benign: 8 each.
    assert [kinds[kind] for kind in SAFETY] == [8] * 6
    # 2 in 10 are matters of value, evenly over two kinds.
    assert [kinds[kind] for kind in VALUE] == [12] * 2


def test_thresholds_are_not_chosen_by_prompts_that_value_models_learn_from():
    learn, choice, _ = prompts(["world"], 120, 3)
    assert not {s.group_id for s in learn} & {s.group_id for s in choice}, (
        "a risky prompt and its look-alike stay together"
    )
    assert not {content_key(s) for s in learn} & {content_key(s) for s in choice}


def test_what_is_shown(capsys):
    script = {"": ["<think> hm."], "<think> hm.": [" bad.\x1b[31m"], "<think> hm. bad.\x1b[31m": ["</think> harm$"]}
    values = Words("safety", {"bad": 0.1, "sorry": 0.8, "harm": 0.0})
    own = Thresholds(gamma=0.0)
    config = GuidanceConfig(candidates=2, thresholds={"safety": own}, backtracks=1, completions={"en": ("sorry",)})
    decoder = GuidedDecoder(Script(script), (values,), uniform(["safety"]), config, tokenizer=Characters())
    out = io.StringIO()
    assert ask(decoder, question(), Console(file=out, width=200, highlight=False)) == 0
    lines = [" ".join(line.split()) for line in out.getvalue().splitlines()]
    assert any(line.startswith("step 1: kept (safety 1.00)") for line in lines)
    assert any(line.startswith("step 2: gone back") for line in lines)
    assert any(line.startswith("> 0.80 safety 0.80 proposed </think> sorry") for line in lines)
    assert "\x1b" not in out.getvalue(), "a policy must not speak to the terminal"
    assert lines[-1] == "answer sorry" and "1 times back, 1 proposed steps kept" in lines[-2]


def test_a_reply_that_is_cut_is_no_answer(checkpoint):
    script = {"": ["<think> on and on and on"]}
    decoder = GuidedDecoder(Script({**script, "<think> on and on and on": [" and on"]}, context_length=12),
                            (Words("safety", {}),), uniform(["safety"]), GuidanceConfig(candidates=2))  # fmt: skip
    out = io.StringIO()
    assert ask(decoder, question(), Console(file=out, width=200, highlight=False)) == 1
    assert "none: the reply was cut" in out.getvalue()


def test_the_default_folder_lies_in_the_checkpoint(checkpoint):
    with pytest.raises(SafeladderError, match=FOLDER):
        load_guidance(checkpoint / FOLDER, LocalEngine.load(str(checkpoint)))
