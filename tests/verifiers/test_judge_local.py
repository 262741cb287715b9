"""A local checkpoint as a judge: every family, its own template, images that count, probabilities of its own tokens."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from judging import judged, picture

from safeladder.models.identity import checkpoint_hash
from safeladder.models.load import save_checkpoint
from safeladder.models.tiny import build_tiny
from safeladder.types import Message, Part, SafeladderError, Sample
from safeladder.verifiers.judges import (
    HarmJudge,
    KnowledgeJudge,
    SafetyJudge,
    harm,
    identity,
    knowledge,
    open_judge,
    require_other,
    safety,
)
from safeladder.verifiers.judges.local import LocalJudge, choice_tokens, first_token

FAMILIES = ("qwen2_5_vl", "internvl", "llama")
WORDS = ["TRUE", " TRUE", "FALSE", " FALSE", "safe", " safe", "unsafe", " unsafe", "what is this? a cup."]
PROMPTS = [safety._PROMPT, safety._JAILBREAK_PROMPT, harm._PROMPT, knowledge._REFERENCE_PROMPT]
PROMPTS += [f"{name}: {what}" for name, what in harm.CATEGORIES["task"]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny checkpoint of each family, with weights large enough to matter."""
    made = {}
    for name in FAMILIES:
        model, processor = build_tiny(name, [*PROMPTS, *WORDS * 40], seed=3, size="test", vocab_size=700)
        with torch.no_grad():
            for key, value in model.named_parameters():
                if value.ndim >= 2 and "embed_tokens" not in key:
                    value.mul_(5.0)
        made[name] = tmp_path_factory.mktemp("judges") / name
        save_checkpoint(model, processor, made[name])
    return made


@pytest.fixture(scope="module")
def judges(folders: dict[str, Path]) -> dict[str, LocalJudge]:
    return {name: LocalJudge.load(str(folder)) for name, folder in folders.items()}


def ask(*content: Any) -> tuple[Message, ...]:
    """One turn of the user's: strings are text, pictures and paths are images."""

    def part(piece: Any) -> Part:
        if isinstance(piece, str):
            return Part(text=piece)
        return Part(image=str(piece) if isinstance(piece, Path) else piece)

    return (Message(role="user", parts=tuple(map(part, content))),)


def sample_of(talk: tuple[Message, ...]) -> Sample:
    return Sample(id="x", messages=talk, label="x")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # Golden strings, written out from each family's published template.
        ("qwen2_5_vl", "<|im_start|>user\nwhat is this?<|im_end|>\n<|im_start|>assistant\n"),
        ("internvl", "<|im_start|>user\nwhat is this?<|im_end|>\n<|im_start|>assistant\n"),
        ("llama", None),
    ],
)
def test_A03_A05_judge_prompts_go_through_the_judges_own_template(judges, name, expected):
    engine = judges[name]._engine
    rendered = engine.decode(engine.prompt_ids(sample_of(ask("what is this?"))))
    engine.forget()
    if expected is None:
        tokenizer = engine.policy.tokenizer
        chat = [{"role": "user", "content": "what is this?"}]
        expected = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert "what is this?" in expected and expected != "what is this?"
    assert rendered.endswith(expected)


@pytest.mark.parametrize("name", FAMILIES)
def test_A06_A07_probabilities_are_those_of_the_models_own_forward_pass(judges, name):
    judge = judges[name]
    talk = ask("what is this?") if name == "llama" else ask("what is ", picture(40, 56), "this?")
    (reply,) = judge.reply([talk], max_new_tokens=3, choices=("TRUE", "FALSE"))
    policy = judge._engine.policy
    prompt = policy.prompt(sample_of(talk))
    inputs: dict[str, Any] = {"input_ids": torch.tensor([prompt.ids])}
    inputs |= {"attention_mask": torch.ones_like(inputs["input_ids"])}
    if prompt.encoded.pixel_values is not None:
        inputs["pixel_values"] = prompt.encoded.pixel_values
    if prompt.encoded.image_grid_thw is not None:
        inputs["image_grid_thw"] = prompt.encoded.image_grid_thw
        inputs["mm_token_type_ids"] = (inputs["input_ids"] == policy.model.config.image_token_id).int()
    with torch.inference_mode():
        logits = policy.model(**inputs).logits[0, -1].float() + policy.logit_bias
    expected = logits.softmax(-1)
    tokens = choice_tokens(policy.tokenizer, ("TRUE", "FALSE"), "judge")
    assert reply.choices is not None
    for word, ids in tokens.items():
        assert reply.choices[word] == pytest.approx(float(expected[ids].sum()), abs=1e-5)
    assert reply.truncated or reply.text  # it said something, or ran out


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl"])
def test_A04_a_blanked_image_changes_what_the_judge_thinks(judges, name):
    judge = judges[name]
    seen = judge.reply([ask("what is ", picture(250, 56), "this?")], max_new_tokens=1, choices=("TRUE", "FALSE"))
    blank = judge.reply([ask("what is ", picture(0, 56), "this?")], max_new_tokens=1, choices=("TRUE", "FALSE"))
    assert seen[0].choices is not None and blank[0].choices is not None
    assert abs(seen[0].choices["TRUE"] - blank[0].choices["TRUE"]) > 1e-5


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl"])
def test_A04_every_image_of_a_judged_sample_is_encoded(judges, name, monkeypatch):
    judge = judges[name]
    encoded: list[int] = []
    encode = judge._engine.policy.prompt

    def count(sample):
        prompt = encode(sample)
        token = judge._engine.policy.family.image_token_id(judge._engine.policy.model.config)
        encoded.append(len(sample.images))
        assert prompt.ids.count(token) > 0
        return prompt

    monkeypatch.setattr(judge._engine.policy, "prompt", count)
    rollouts = [
        judged("Yes.", parts=("a ", picture(10, 56), " b ", picture(90, 56))),
        judged("No.", parts=("a ", picture(50, 56))),
    ]
    scores = SafetyJudge(judge).score(rollouts)
    assert encoded == [2, 1] and all(identity(score) == judge.name for score in scores)


@pytest.mark.parametrize("name", FAMILIES)
def test_O03_replies_do_not_depend_on_what_else_is_asked(judges, name):
    judge = judges[name]
    talks = [ask("what is this?"), ask("safe or unsafe? a cup. " * 3), ask("what?")] * 7  # more than one group of 16
    together = judge.reply(talks, max_new_tokens=6, choices=("safe", "unsafe"))
    for talk, reply in zip(talks[:3], together[:3], strict=True):
        (alone,) = judge.reply([talk], max_new_tokens=6, choices=("safe", "unsafe"))
        assert (alone.text, alone.truncated) == (reply.text, reply.truncated)
        assert alone.choices == pytest.approx(reply.choices, abs=1e-6)
    assert [r.text for r in together[:3]] == [r.text for r in together[3:6]]


def test_a_reply_that_runs_out_of_tokens_is_truncated_and_unscored(judges):
    judge = judges["qwen2_5_vl"]
    (reply,) = judge.reply([ask("what is this?")], max_new_tokens=1)
    assert reply.truncated and reply.choices is None
    (score,) = KnowledgeJudge(judge).score([judged("a cup.", reference="a cup.")])
    assert score.value is None and score.explanation.startswith(f"[{judge.name}] ")


def test_H05_a_missing_image_and_a_too_long_prompt_fail_alone(judges, tmp_path):
    judge = judges["qwen2_5_vl"]
    gone = ask("what is ", tmp_path / "gone.png")
    long = ask("what is this? " * 1500)
    missing, fine, exceeding = judge.reply([gone, ask("what is this?"), long], max_new_tokens=2)
    assert "gone.png" in missing.problem and missing.text == ""
    assert not fine.problem and "exceed" in exceeding.problem
    scores = SafetyJudge(judge).score([judged("Yes.", parts=("a ", tmp_path / "gone.png"))])
    assert scores[0].value is None and "no reply" in scores[0].explanation


def test_D09_a_text_only_family_refuses_images(judges):
    judge = judges["llama"]
    assert judge.sees_images is False and judges["internvl"].sees_images is True
    with pytest.raises(SafeladderError, match="text-only model and was given images"):
        judge.reply([ask("what is ", picture(1))], max_new_tokens=2)
    assert judge.reply([], max_new_tokens=2) == []


@pytest.mark.parametrize("name", FAMILIES)
def test_C04_choices_are_the_judges_own_single_tokens(judges, name):
    tokenizer = judges[name]._engine.policy.tokenizer
    tokens = choice_tokens(tokenizer, ("safe", "unsafe"), "judge")
    for word, ids in tokens.items():
        assert ids and all(tokenizer.decode([i]).strip().lower() == word for i in ids)
    assert set(tokens["safe"]).isdisjoint(tokens["unsafe"])
    assert not {15426, 5023} & set(tokens["safe"] + tokens["unsafe"])  # the published ids are another tokenizer's
    with pytest.raises(SafeladderError, match="no single token for 'incomprehensibility'"):
        choice_tokens(tokenizer, ("incomprehensibility",), "judge")
    with pytest.raises(SafeladderError, match="spells two of safe, Safe"):
        choice_tokens(tokenizer, ("safe", "Safe"), "judge")
    (score,) = HarmJudge(judges[name]).score([judged("a cup.")])  # asks for both words, reads whatever comes
    assert identity(score) == judges[name].name


def test_first_token_probabilities_are_probabilities(judges):
    judge = judges["qwen2_5_vl"]
    every = {"all": list(range(len(judge._engine.policy.logit_bias)))}
    assert first_token(judge._engine, sample_of(ask("what?")), every)["all"] == pytest.approx(1.0, abs=1e-5)
    judge._engine.forget()


def test_O06_the_identity_is_the_checkpoints_hash_as_evaluation_writes_it(folders, judges, tmp_path):
    judge = judges["qwen2_5_vl"]
    assert judge.name == f"qwen2_5_vl@{checkpoint_hash(folders['qwen2_5_vl'])}"
    assert len({j.name for j in judges.values()}) == len(FAMILIES)
    with pytest.raises(SafeladderError, match="the judged model itself"):  # H12, also for a copy elsewhere
        require_other(judge, f"runs/elsewhere@{checkpoint_hash(folders['qwen2_5_vl'])}")


def test_open_judge_takes_a_folder_and_names_what_is_wrong(folders, tmp_path):
    judge = open_judge(str(folders["llama"]))
    assert judge.name.startswith("llama@") and judge.sees_images is False
    for spec, message in [
        (str(tmp_path / "nowhere"), "does not exist"),
        (str(tmp_path), "no config.json"),
        ("http://127.0.0.1:9/v1", r"allowed are a checkpoint folder and http\(s\)://HOST/v1#MODEL"),
        ("ftp://host/v1#m", "allowed are"),
    ]:
        with pytest.raises(SafeladderError, match=message):
            open_judge(spec)


def test_A14_where_a_judge_runs_is_said_and_never_read_off_its_path(folders, tmp_path):
    """The published code takes the parallel size from "7B" or "72B" in the path."""
    names = ("value-7B", "safety-72B-tp8", "InternVL3-78B-fp16")
    placed = []
    for name in names:
        shutil.copytree(folders["llama"], tmp_path / name)
        policy = LocalJudge.load(str(tmp_path / name))._engine.policy
        placed.append({(p.device.type, p.dtype) for p in policy.model.parameters()})
    assert placed == [{("cpu", torch.float32)}] * len(names)
    said = LocalJudge.load(str(tmp_path / names[0]), dtype="bfloat16")._engine.policy
    assert {p.dtype for p in said.model.parameters()} == {torch.bfloat16}
