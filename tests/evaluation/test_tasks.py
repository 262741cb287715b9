"""Rollouts out, an Inspect log that opens, nothing from the network."""

from __future__ import annotations

import gc
import logging
import math
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_engine import FakeEngine
from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import Sample as InspectSample
from inspect_ai.log import EvalLog, list_eval_logs, read_eval_log
from inspect_ai.model import GenerateConfig, Model
from PIL import Image

from safeladder.evaluation._registry import attach
from safeladder.evaluation.provider import Attachment
from safeladder.evaluation.rollouts import judge_with
from safeladder.evaluation.scorers import verifier_scorer
from safeladder.evaluation.tasks import IN_PROCESS, guarded, run_inspect
from safeladder.models.identity import checkpoint_hash
from safeladder.rollout.parse import ResponseFormat
from safeladder.types import (
    Message,
    Part,
    Rollout,
    SafeladderError,
    Sample,
    SamplingParams,
    Score,
    StopReason,
)

PARAMS = SamplingParams(max_new_tokens=80, temperature=0.0)


class Exact:
    """1 where the answer is the reference; no opinion on items without one."""

    name = "exact"
    principle = "general"

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        return [self._one(r) for r in rollouts]

    @staticmethod
    def _one(rollout: Rollout) -> Score:
        if rollout.sample.reference is None:
            return Score.unscored("no reference")
        right = rollout.response is not None and rollout.response.answer == rollout.sample.reference
        return Score(value=float(right), label="right" if right else "wrong", explanation="compared")


class Format:
    name = "format"
    principle = "format"

    def score(self, rollouts: Sequence[Rollout]) -> list[Score]:
        return [Score(value=float(r.response is not None), label="form") for r in rollouts]


def samples(n: int, *, image: bool = False, reference: str | None = "7") -> list[Sample]:
    return [
        Sample(
            id=f"item-{i}",
            messages=(
                Message(
                    role="user",
                    parts=(
                        *([Part(image=Image.new("RGB", (8, 8), (i, 0, 0)))] if image else []),
                        Part(text=f"what is row {i} ?"),
                    ),
                ),
            ),
            label="general_rule",
            reference=reference,
            meta={"kind": "count"},
        )
        for i in range(n)
    ]


def answer(text: str = "7") -> str:
    return f"<think>look : row</think>{text}"


def evaluate(engine: FakeEngine, items: list[Sample], folder: Path, **more: Any) -> tuple[list[Rollout], EvalLog]:
    settings = {"name": "m3-rl", "params": PARAMS, "judge": judge_with([Exact(), Format()])} | more
    rollouts, path = run_inspect(engine, items, log_dir=folder, format=ResponseFormat(), **settings)
    return rollouts, read_eval_log(str(path))


def test_rollouts_come_back_judged_in_order_and_the_log_shows_them(tmp_path: Path) -> None:
    engine = FakeEngine(lambda s: answer("7" if s.id != "item-1" else "8"))
    rollouts, log = evaluate(engine, samples(5, image=True), tmp_path)

    assert [r.sample.id for r in rollouts] == [f"item-{i}" for i in range(5)]
    assert [r.scores["exact"].value for r in rollouts] == [1.0, 0.0, 1.0, 1.0, 1.0]
    assert rollouts[0].token_ids == tuple(map(ord, answer())) and rollouts[0].prompt_ids[-1] == 0

    assert log.status == "success" and log.samples is not None
    shown = {str(s.id): s for s in log.samples}
    first = shown["item-0"]
    assert first.input[0].text == "[image] what is row 0 ?"  # type: ignore[union-attr]
    reasoning, reply = first.output.message.content
    assert (reasoning.type, reasoning.reasoning) == ("reasoning", "look : row")  # type: ignore[union-attr]
    assert (reply.type, reply.text) == ("text", "7")  # type: ignore[union-attr]
    assert first.scores is not None
    assert first.scores["verifiers"].value == {"exact": 1.0, "format": 1.0}
    assert first.scores["verifiers"].metadata["labels"] == {"exact": "right", "format": "form"}  # type: ignore[index]
    assert shown["item-1"].scores["verifiers"].value["exact"] == 0.0  # type: ignore[index, call-overload]
    assert log.results is not None
    means = {name: m.value for name, m in log.results.scores[0].metrics.items()}
    assert means == {"exact": 0.8, "format": 1.0}


def test_E01_as_many_are_evaluated_as_were_declared(tmp_path: Path) -> None:
    rollouts, log = evaluate(FakeEngine(lambda s: answer()), samples(41), tmp_path, batch_size=4)
    assert len(rollouts) == 41
    assert log.results is not None
    assert log.results.total_samples == log.results.completed_samples == 41
    assert log.eval.config.limit is None


def test_usage_is_what_the_engine_counted(tmp_path: Path) -> None:
    items = samples(2)
    _, log = evaluate(FakeEngine(lambda s: answer()), items, tmp_path)
    assert log.samples is not None
    for sample, item in zip(log.samples, items, strict=True):
        usage = sample.output.usage
        assert usage is not None
        asked, said = len(item.question), len(answer())
        assert (usage.input_tokens, usage.output_tokens, usage.total_tokens) == (asked, said, asked + said)
        assert sample.output.metadata["logprob"] == [pytest.approx(-0.5 * said)]  # type: ignore[index]


def test_a_truncated_reply_has_no_answer_and_never_passes(tmp_path: Path) -> None:
    engine = FakeEngine(lambda s: "<think>" + "7 " * 200)
    rollouts, log = evaluate(engine, samples(1), tmp_path)
    assert rollouts[0].stop_reason is StopReason.LENGTH and rollouts[0].response is None
    assert log.samples is not None
    output = log.samples[0].output
    assert (output.stop_reason, output.completion) == ("max_tokens", "")
    assert log.samples[0].scores["verifiers"].value == {"exact": 0.0, "format": 0.0}  # type: ignore[index]


def test_unscored_is_no_answer_and_stays_out_of_the_mean(tmp_path: Path) -> None:
    unknown = Sample(id="open", messages=samples(1)[0].messages, label="general_rule")
    items = [*samples(3), unknown]
    _, log = evaluate(FakeEngine(lambda s: answer()), items, tmp_path)
    assert log.samples is not None and log.results is not None
    value = log.samples[3].scores["verifiers"].value  # type: ignore[index]
    assert value == {"exact": "N", "format": 1.0}
    means = {name: m.value for name, m in log.results.scores[0].metrics.items()}
    assert means == {"exact": 1.0, "exact:unscored": 1.0, "format": 1.0}
    assert not any(math.isnan(v) for v in means.values())


def test_items_may_be_routed_to_different_verifiers(tmp_path: Path) -> None:
    def route(rollouts: Sequence[Rollout]) -> list[Rollout]:
        return [r.judged({r.sample.id: Score(value=1.0)} if r.sample.id != "item-2" else {}, 1.0) for r in rollouts]

    _, log = evaluate(FakeEngine(lambda s: answer()), samples(3), tmp_path, judge=route)
    assert log.samples is not None
    assert [s.scores["verifiers"].value for s in log.samples[:2]] == [{"item-0": 1.0}, {"item-1": 1.0}]  # type: ignore[index]
    assert math.isnan(log.samples[2].scores["verifiers"].value)  # type: ignore[index, arg-type]


def test_the_engine_is_asked_in_full_batches_in_the_samples_order(tmp_path: Path) -> None:
    engine = FakeEngine(lambda s: answer())
    evaluate(engine, samples(30), tmp_path, batch_size=16)
    assert engine.batches == [[f"item-{i}" for i in range(16)], [f"item-{i}" for i in range(16, 30)]]


def test_a_judge_that_loses_a_rollout_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="2 of 3 rollouts"):
        evaluate(FakeEngine(lambda s: answer()), samples(3), tmp_path, judge=lambda found: list(found)[1:])


def test_the_log_is_what_inspects_own_run_would_leave(tmp_path: Path) -> None:
    """The same engine as a provider, the same verifiers as a scorer, run by Inspect itself."""
    replies = {"item-0": answer(), "item-1": answer("8"), "item-2": answer(""), "item-3": "<think>" + "7 " * 200}
    items = samples(4)
    _, ours = evaluate(FakeEngine(lambda s: replies[s.id]), items, tmp_path / "ours", seed=5)

    texts = {item.question: replies[item.id] for item in items}
    engine = FakeEngine(lambda s: texts[s.question])
    task = Task(
        name="m3-rl",
        dataset=[InspectSample(id=s.id, input=s.question, target=s.reference or "") for s in items],
        scorer=verifier_scorer([Exact(), Format()]),
    )
    with guarded():
        (theirs,) = inspect_eval(
            task,
            model=Model(
                attach("m3-rl", Attachment(engine=engine, format=ResponseFormat(), batch_size=8)), GenerateConfig()
            ),
            log_dir=str(tmp_path / "theirs"),
            **IN_PROCESS,
            max_tokens=PARAMS.max_new_tokens,
            temperature=0.0,
            seed=5,
        )
    assert ours.samples is not None and theirs.samples is not None
    for one, other in zip(ours.samples, theirs.samples, strict=True):
        assert (one.id, one.epoch, one.target) == (other.id, other.epoch, other.target)
        assert one.output.completion == other.output.completion
        assert one.output.stop_reason == other.output.stop_reason
        assert one.output.usage == other.output.usage
        assert one.output.metadata == other.output.metadata
        assert [m.role for m in one.messages] == [m.role for m in other.messages]
        assert [m.text for m in one.messages] == [m.text for m in other.messages]
        assert [c.model_dump() for c in one.output.message.content] == [
            c.model_dump() for c in other.output.message.content
        ]  # type: ignore[union-attr]
        assert one.scores["verifiers"].value == other.scores["verifiers"].value  # type: ignore[index]
        assert one.model_usage == other.model_usage
        kinds = [event.event for event in other.events if event.event in ("model", "score")]
        assert [event.event for event in one.events] == kinds == ["model", "score"]
    assert ours.eval.model == theirs.eval.model
    assert ours.plan.config == theirs.plan.config
    assert ours.stats.model_usage == theirs.stats.model_usage
    assert ours.results is not None and theirs.results is not None
    assert ours.results.scores[0].metrics == theirs.results.scores[0].metrics
    assert ours.results.scores[0].scored_samples == theirs.results.scores[0].scored_samples == 4
    (name,) = (path.name for path in (tmp_path / "ours").glob("*_m3-rl_*.eval"))
    assert [info.task for info in list_eval_logs(str(tmp_path / "ours"))] == ["m3-rl"], name


def test_O03_results_do_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    def run(batch_size: int) -> list[tuple[str, tuple[int, ...]]]:
        engine = FakeEngine(lambda s: answer(s.id))
        rollouts, _ = evaluate(engine, samples(13), tmp_path / str(batch_size), batch_size=batch_size, seed=5)
        assert set(engine.seeds) == {5}
        return [(r.text, r.token_ids) for r in rollouts]

    assert run(1) == run(4) == run(64)


def test_O01_images_reach_the_engine_and_stay_out_of_the_log(tmp_path: Path) -> None:
    seen: list[tuple[int, ...]] = []

    def look(sample: Sample) -> str:
        (image,) = sample.images
        assert isinstance(image, Image.Image)
        seen.append(image.getpixel((0, 0)))  # type: ignore[arg-type]
        return answer()

    _, log = evaluate(FakeEngine(look), samples(3, image=True), tmp_path)
    assert {pixel[0] for pixel in seen} == {0, 1, 2}
    assert "data:image" not in log.model_dump_json()


def test_O02_the_models_name_carries_the_checkpoints_hash(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"first weights")
    before = checkpoint_hash(checkpoint)
    _, log = evaluate(FakeEngine(lambda s: answer()), samples(1), tmp_path / "a", checkpoint=checkpoint)
    assert log.eval.model == f"safeladder/m3-rl@{before}"
    (checkpoint / "model.safetensors").write_bytes(b"other weights")
    assert checkpoint_hash(checkpoint) != before


def test_no_connection_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"):
            return real(self, address)
        raise AssertionError(f"connection to {address}")

    def nothing_resolves(host: Any, *_: Any, **__: Any) -> Any:
        raise AssertionError(f"name look-up of {host}")

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", nothing_resolves)
    rollouts, log = evaluate(FakeEngine(lambda s: answer()), samples(10, image=True), tmp_path)
    assert len(rollouts) == 10 and log.status == "success"


def test_an_engine_failure_is_raised_as_itself(tmp_path: Path) -> None:
    def fail(sample: Sample) -> str:
        raise MemoryError("out of memory")

    with pytest.raises(MemoryError, match="out of memory"):
        evaluate(FakeEngine(fail), samples(3), tmp_path)


def test_a_judges_failure_is_raised_as_itself(tmp_path: Path) -> None:
    def fail(rollouts: Sequence[Rollout]) -> list[Rollout]:
        raise SafeladderError("unknown label")

    with pytest.raises(SafeladderError, match="unknown label"):
        evaluate(FakeEngine(lambda s: answer()), samples(3), tmp_path, judge=fail)


@pytest.mark.parametrize(
    ("items", "params", "message"),
    [
        ([], PARAMS, "ids that occur once; got 0"),
        (samples(1) * 2, PARAMS, "ids that occur once; got 2"),
        (samples(1), SamplingParams(max_new_tokens=8, n=4), "one reply a sample, got n = 4"),
    ],
)
def test_mistakes_are_told(items: list[Sample], params: SamplingParams, message: str, tmp_path: Path) -> None:
    with pytest.raises(SafeladderError, match=message):
        evaluate(FakeEngine(lambda s: answer()), items, tmp_path, params=params)


def test_the_applications_logging_and_collector_are_left_alone(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers), gc.get_threshold(), gc.get_freeze_count())
    evaluate(FakeEngine(lambda s: answer()), samples(2), tmp_path)
    assert (root.level, list(root.handlers), gc.get_threshold(), gc.get_freeze_count()) == before
