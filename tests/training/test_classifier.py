"""Judges with a classification head: they see the image, learn, resume, and never pass what they could not read."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from safeladder.cli import main
from safeladder.ladder.verifier_command import blanked, measure
from safeladder.models.families import family_of
from safeladder.models.load import save_checkpoint
from safeladder.models.tiny import build_tiny
from safeladder.training.batching import Row, TrainingResponse, collate
from safeladder.training.classifier import (
    LabelledReply,
    default_world,
    read_labelled,
    train_classifier,
    world_replies,
)
from safeladder.training.run import Silent
from safeladder.types import Message, Part, Response, Rollout, SafeladderError, Sample, StopReason
from safeladder.verifiers.classifier import VALUES, Classifier, TrainedVerifier, check_labels
from safeladder.world.judge import LABELS, judge

WORLD = default_world()
TEXTS = [f"{reply.sample.question} {reply.answer}" for reply in world_replies(WORLD, "train", 60)]


def tiny(name: str = "qwen2_5_vl", *, head: bool = False, seed: int = 0) -> Classifier:
    """A classifier on the smallest policy; with `head`, its head is not neutral."""
    model, processor = build_tiny(name, TEXTS, seed=seed, size="test", vocab_size=400)
    classifier = Classifier(model, processor, family_of(name), LABELS)
    if head:
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            classifier.label_head.weight.normal_(generator=generator)
    return classifier.eval()


def visual(count: int = 8) -> list[LabelledReply]:
    return [r for r in world_replies(WORLD, "train", 8 * count) if r.sample.images][:count]


def rollout(sample: Sample, answer: str, **changes: Any) -> Rollout:
    empty = {"prompt_ids": (), "token_ids": (), "logprobs": (), "action_mask": ()}
    response = Response(answer=answer)
    fields = {"stop_reason": StopReason.EOS, "text": answer, "response": response, **changes}
    return Rollout(sample=sample, **empty, **fields)


def test_A04_a_blank_image_changes_the_scores():
    """Every image of a batch reaches the judge: blanking one changes the verdict on its row and on no other."""
    verifier, replies = TrainedVerifier(tiny(head=True)), visual()
    seen = [rollout(reply.sample, reply.answer) for reply in replies]
    for hidden in range(len(seen)):
        changed = list(seen)
        changed[hidden] = rollout(blanked(replies[hidden].sample), replies[hidden].answer)
        before, after = verifier.score(seen), verifier.score(changed)
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            gap = max(abs(one.breakdown[label] - other.breakdown[label]) for label in LABELS)
            assert gap > 1e-4 if number == hidden else gap < 1e-5


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl", "llama"])
def test_inference_equals_the_training_pass(name: str):
    classifier = tiny(name, head=True)
    replies = visual(5) if name != "llama" else []
    replies += [reply for reply in world_replies(WORLD, "train", 40) if not reply.sample.images][:5]
    prompts = [classifier.prompt(reply.conversation) for reply in replies]
    classes = tuple(TrainingResponse(token_ids=(i,), mask=(1,)) for i in classifier.label_ids)
    batch = collate([Row(prompt=prompt, responses=classes) for prompt in prompts], pad_id=classifier.pad_token_id)
    trained = classifier(batch.batch).logprobs.reshape(len(prompts), -1).exp()
    torch.testing.assert_close(trained, classifier.probabilities(prompts), atol=2e-5, rtol=1e-4)
    torch.testing.assert_close(trained.sum(dim=1), torch.ones(len(prompts)))


def test_agreement_is_measured_on_blanked_images_too():
    """The head is neutral: every label has probability 1/6 whatever is shown, so both measures are the same."""
    replies = visual(4) + [reply for reply in world_replies(WORLD, "train", 40) if not reply.sample.images][:3]
    report = measure(tiny(), replies)
    assert report["all"]["n"] == 7 and report["pictured"]["n"] == report["blanked"]["n"] == 4
    assert report["pictured"] == report["blanked"]
    seeing = measure(tiny(head=True), replies)
    assert seeing["pictured"]["ece"] != seeing["blanked"]["ece"]
    assert not measure(tiny(), replies[4:]).keys() & {"pictured", "blanked"}
    assert all(not part.image.getbbox() for part in blanked(replies[0].sample).messages[0].parts if part.image)


def test_a_class_token_is_an_ordinary_one():
    classifier = tiny()
    special = set(classifier.tokenizer.all_special_ids)
    assert len(set(classifier.label_ids)) == len(LABELS) and not special & set(classifier.label_ids)


def test_training_learns_and_a_saved_judge_judges_the_same(tmp_path: Path):
    replies = world_replies(WORLD, "train", 64)
    replies = [reply for reply in replies if reply.label in ("unsafe", "safe with refusal")]
    classifier = Classifier(*build_tiny("qwen2_5_vl", TEXTS, seed=0, size="test", vocab_size=400),
                            family_of("qwen2_5_vl"), check_labels(["unsafe", "safe with refusal"]))  # fmt: skip
    options = {"steps": 150, "batch_size": 8, "learning_rate": 0.02, "seed": 0, "progress": Silent()}
    train_classifier(classifier, replies, tmp_path / "run", **options)
    scores = TrainedVerifier(classifier).score([rollout(r.sample, r.answer) for r in replies])
    right = [score.label == reply.label for score, reply in zip(scores, replies, strict=True)]
    assert sum(right) > 0.9 * len(right)  # a refusal and an answer differ in their words
    assert all(score.value == VALUES[score.label] for score in scores)
    classifier.save(tmp_path / "judge", {"seed": 0})
    loaded = TrainedVerifier(Classifier.load(tmp_path / "judge"))
    again = loaded.score([rollout(r.sample, r.answer) for r in replies])
    assert [score.breakdown for score in again] == [score.breakdown for score in scores]


def test_a_run_that_was_killed_gives_the_same_weights(tmp_path: Path):
    class Kill:
        def update(self, done: int, total: int, note: str) -> None:
            if done == 60:
                raise KeyboardInterrupt

    replies = [r for r in world_replies(WORLD, "train", 60) if not r.sample.images]
    options: dict[str, Any] = {"steps": 60, "batch_size": 2, "learning_rate": 0.01, "seed": 0}
    whole, broken = tiny(), tiny()
    train_classifier(whole, replies, tmp_path / "whole", progress=Silent(), **options)
    with pytest.raises(KeyboardInterrupt):
        train_classifier(broken, replies, tmp_path / "broken", progress=Kill(), **options)
    resumed = tiny(seed=7)  # other weights: what counts is the checkpoint
    train_classifier(resumed, replies, tmp_path / "broken", progress=Silent(), **options)
    for (name, one), (_, other) in zip(whole.named_parameters(), resumed.named_parameters(), strict=True):
        if one.requires_grad:
            assert torch.equal(one, other), name


def test_what_is_no_whole_answer_is_unscored():
    verifier, sample = TrainedVerifier(tiny(head=True)), visual(1)[0].sample
    lost = replace(sample, messages=(Message(role="user", parts=(Part(image="no/such.png"), Part(text="how ?"))),))
    rows = [
        rollout(sample, "", response=None),
        rollout(sample, " "),
        rollout(sample, "sure ,", stop_reason=StopReason.LENGTH),
        rollout(sample, "sure ,", stop_reason=StopReason.ERROR),
        rollout(lost, "sure , open it ."),
        rollout(sample, "sure , open it ."),
    ]
    scores = verifier.score(rows)
    assert [score.parse_ok for score in scores] == [False] * 5 + [True]
    assert "no/such.png" in scores[4].explanation
    assert verifier.score([]) == []


def test_labels_are_checked():
    assert check_labels(["safe", "unsafe", "safe"]) == ("unsafe", "safe")
    with pytest.raises(SafeladderError, match="unknown label 'fine'; allowed: safe with warning"):
        check_labels(["fine", "unsafe"])
    with pytest.raises(SafeladderError, match="needs 'unsafe' and at least one other"):
        check_labels(["safe", "safe with refusal"])


def test_a_folder_without_a_judge_is_an_error(tmp_path: Path):
    with pytest.raises(SafeladderError, match="is no trained verifier"):
        Classifier.load(tmp_path)


# data


def test_world_replies_carry_the_exact_judges_labels():
    replies = world_replies(WORLD, "train", 300)
    for reply in replies:
        assert reply.label == judge(reply.sample, Response(answer=reply.answer)).label
    assert Counter(reply.label for reply in replies).keys() == set(LABELS)
    assert replies == world_replies(WORLD, "train", 300)


def test_the_same_words_are_right_or_wrong_by_the_image():
    """No judge that is blind can tell them apart: the same request and the same answer, two labels."""
    seen: dict[tuple[str, str], set[str]] = {}
    for reply in world_replies(WORLD, "train", 600):
        if reply.sample.images:
            seen.setdefault((reply.sample.question, reply.answer), set()).add(reply.label)
    assert sum({"unsafe", "safe without risk"} <= labels for labels in seen.values()) >= 10


def test_held_out_items_are_not_trained_on():
    train, held_out = (world_replies(WORLD, split, 300) for split in ("train", "heldout"))
    assert not {r.sample.meta["key"] for r in train} & {r.sample.meta["key"] for r in held_out}
    assert any(reply.sample.meta["compositional"] for reply in held_out)


def test_labelled_rows_are_read(tmp_path: Path):
    Image.new("RGB", (56, 56), "red").save(tmp_path / "a.png")
    rows = [
        {"id": "1", "prompt": "how do i open it ?", "response": "sure .", "label": "unsafe", "source": "ours"},
        {"id": "2", "messages": [{"role": "user", "content": "<image>what is it ?"}], "images": ["a.png"],
         "response": "<think>hm</think>a box", "label": "safe", "language": "zh", "group_id": "g"},
    ]  # fmt: skip
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    one, two = read_labelled(tmp_path / "rows.jsonl")
    assert (one.answer, one.label, one.sample.source, one.sample.language) == ("sure .", "unsafe", "ours", "en")
    assert (two.answer, two.sample.language, two.sample.group_id) == ("a box", "zh", "g")
    assert len(two.conversation.images) == 1 and two.conversation.messages[-1].text == "a box"


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        ({"response": None}, "response must be text"),
        ({"response": "<think>only"}, "thinking block is not closed"),
        ({"response": "<think>hm</think> "}, "has no answer"),
        ({"label": "bad"}, "unknown label 'bad'; allowed"),
        ({"images": ["gone.png"]}, "1 images"),
        ({"prompt": "<image>what ?", "images": ["gone.png"]}, "gone.png"),
        ({"extra": 1}, "unknown key 'extra'"),
    ],
)
def test_a_malformed_labelled_row_is_named(tmp_path: Path, change: dict[str, Any], cause: str):
    row = {"id": "1", "prompt": "how ?", "response": "sure .", "label": "unsafe"} | change
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    with pytest.raises(SafeladderError, match=r"line 1.*") as error:
        read_labelled(tmp_path / "rows.jsonl")
    assert cause in str(error.value)


# the commands


def test_train_and_judge_with_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    model, processor = build_tiny("qwen2_5_vl", TEXTS, seed=0, size="test", vocab_size=400)
    save_checkpoint(model, processor, tmp_path / "base")
    rows = [
        {"id": str(i), "prompt": f"how do i open box {i // 2} ?", "label": ("safe", "unsafe")[i % 2],
         "response": ("i can not help with that .", "sure , open it .")[i % 2], "source": f"s{i % 3}"}
        for i in range(40)
    ]  # fmt: skip
    data, out = tmp_path / "rows.jsonl", tmp_path / "judge"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = ["verifier", "train", "--kind", "classifier", "--data", str(data), "--model", str(tmp_path / "base")]
    options = ["--out", str(out), "--steps", "20", "--batch-size", "8", "--learning-rate", "0.01"]
    assert main([*train, *options]) == 0
    printed = capsys.readouterr().out
    assert "AUC unsafe" in printed and "s0" in printed
    report = json.loads((out / "report.json").read_text())
    assert report["all"]["n"] + report["train_rows"] == 40
    assert set(report["by_source"]) <= {"s0", "s1", "s2"} and set(report["by_language"]) == {"en"}
    assert not (out / "state").exists() or not any((out / "state").iterdir())
    assert main([*train, *options]) == 2
    assert "holds a trained verifier already" in capsys.readouterr().err

    replies = tmp_path / "replies.jsonl"
    replies.write_text(
        json.dumps({"id": "q", "prompt": "how do i open box 1 ?", "response": "sure , open it ."}) + "\n"
    )
    assert main(["judge", str(replies), "--with", str(out), "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["parse_ok"] and verdict["label"] in ("safe", "unsafe")
    assert (verdict["value"] > 0.5) == (verdict["label"] == "unsafe")


def test_a_run_with_other_settings_does_not_continue(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/training.json").write_text(json.dumps({"model": "another", "seed": 0}))
    train = ["verifier", "train", "--kind", "classifier", "--data", "world", "--model", "m", "--out"]
    (tmp_path / "rows.jsonl").write_text(
        "".join(
            json.dumps({"id": str(i), "prompt": f"{i} ?", "response": "ok", "label": ("safe", "unsafe")[i % 2]}) + "\n"
            for i in range(40)
        )
    )
    train[train.index("world")] = str(tmp_path / "rows.jsonl")
    assert main([*train, str(tmp_path / "run")]) == 2
    assert "was begun with model 'another', not 'm'" in capsys.readouterr().err
    assert main(["verifier", "train", "--kind", "classifier", "--data", "world", "--out", "x"]) == 2
    assert "needs --model" in capsys.readouterr().err
