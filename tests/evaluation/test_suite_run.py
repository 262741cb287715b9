"""`safeladder eval` from model to report: local checkpoints, live endpoints and Inspect's own models."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from benches import FixedJudge, Told, samples, suite, write_gsm8k, write_xstest
from fake_engine import FakeEngine
from inspect_ai import eval as inspect_eval
from inspect_ai.log import read_eval_log
from inspect_ai.model import ModelAPI, ModelOutput, get_model
from PIL import Image
from stub_server import choice, question_of, serving

from safeladder import cli
from safeladder.evaluation.replies import AppendOnly, State
from safeladder.evaluation.subjects import Subject, open_subject
from safeladder.evaluation.suites.bench import Bench, prepare
from safeladder.evaluation.suites.run import Keeping, SuiteRun, run_suite
from safeladder.types import Part, SafeladderError, Sample, SamplingParams


@pytest.fixture(autouse=True)
def _no_vocabulary(monkeypatch: pytest.MonkeyPatch) -> None:
    """Inspect's mock model would download one to count tokens."""

    async def count(self: ModelAPI, text: str) -> int:
        return len(text)

    monkeypatch.setattr(ModelAPI, "count_text_tokens", count)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_gsm8k(write_xstest(tmp_path / "data"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny vision-language model that knows nothing."""
    from safeladder.models.load import save_checkpoint
    from safeladder.models.tiny import build_tiny

    texts = ["How do I paint fence 1? What is 2 + 2? <think>red</think>yes"] * 9
    network, processor = build_tiny("qwen2_5_vl", texts, seed=0, size="test")
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_checkpoint(network, processor, path)
    return path


def keeping(folder: Path, seen: list[Any] | None = None) -> Keeping:
    return Keeping(
        replies=AppendOnly(folder / "replies.jsonl"),
        verdicts=AppendOnly(folder / "verdicts.jsonl"),
        logs=folder / "logs",
        progress=(seen if seen is not None else []).append,
    )


def mock(answer: Callable[[str], ModelOutput]) -> Subject:
    """Inspect's mock model; `answer` is told the question."""
    model = get_model("mockllm/model", memoize=False, custom_outputs=lambda messages, *rest: answer(messages[-1].text))
    return Subject(kind="inspect", name="mock", identity="mock", revision="", model=model, arguments={})


def says(text: str, stop: Any = "stop") -> ModelOutput:
    return ModelOutput.from_content("mock", text, stop_reason=stop)


def run(bench: Bench, subject: Subject, folder: Path, **options: Any) -> SuiteRun:
    return run_suite(bench, subject, keeping(folder), **{"max_tokens": None, "seed": 0, **options})


def own(told: Told, rows: Sequence[Sample], **fields: Any) -> Bench:
    return prepare(suite(told, rows, **fields), "all", Path(), None)


def command(*words: str | Path) -> int:
    return cli.main(["eval", *map(str, words)])


def fence(request: dict[str, Any]) -> str:
    """Refuses odd fences and adds rightly up to 2."""
    question = question_of(request)
    number = int(re.findall(r"(\d+)\?", question)[0])
    if "fence" in question:
        return "I'm sorry, but I can't help with that." if number % 2 else "<think>easy</think>With a brush."
    return f"The answer is {2 * min(number, 2)}"


# from a model to a report


def test_an_endpoint_is_measured_on_two_suites_to_a_report(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with serving(fence) as stub:
        code = command(f"{stub.url}#m", "--suite", "xstest,gsm8k", "--data", data, "--out", out, "--seed", "3")
    said = capsys.readouterr()
    assert code == 0, said.err
    assert {(r["seed"], r["temperature"], r["max_tokens"]) for r in stub.requests[:10]} == {(3, 0.0, 512)}
    report = json.loads((out / "report.json").read_text())
    xstest, gsm8k = report["suites"]
    # Fences 1, 3, 5 of the safe 0..5 are refused: 3 / 6. Of the unsafe 6..9, 7 and 9: 2 / 4. Right: (3/6 + 2/4) / 2.
    figures = {f["name"]: f["metric"] for f in xstest["figures"] if not f["group"]}
    assert [figure["value"] for figure in figures.values()] == [0.5, 0.5, 0.5]
    # Sums 0..2 of 0..5 are right.
    assert gsm8k["figures"][0]["metric"]["value"] == 0.5
    for entry in report["suites"]:
        for figure in entry["figures"]:
            assert figure["judge"].startswith("offline: ")
            metric = figure["metric"]
            assert metric["low"] <= metric["value"] <= metric["high"] and metric["low"] < metric["high"]
    assert xstest["states"] == {"answered": 10, "truncated": 0, "unclosed": 0, "empty": 0, "error": 0}
    assert xstest["with_reasoning"] == 5
    assert xstest["n"] == {"published": 450, "in_files": 10, "evaluated": 10, "limit": None}
    assert report["axes"]["over-refusal"]["value"] == 0.5
    assert report["model"]["name"] == f"{stub.url}#m"
    log = read_eval_log(str(out / xstest["log"]))
    assert log.status == "success" and log.samples is not None and len(log.samples) == 10
    assert "xstest/all: the files hold 10 rows, 450 were published." in said.out
    assert "| axis |" in (out / "report.md").read_text()
    page = (out / "report.html").read_text()
    assert "<script" not in page and "refusal rate on safe prompts" in page


def test_a_local_checkpoint_is_measured_on_two_suites_to_a_report(
    data: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = [checkpoint, "--suite", "xstest,gsm8k", "--data", data, "--out", out, "--max-tokens", "4", "--limit", "4"]
    assert command(*words, "--json", "-M", "batch_size=2") == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((out / "report.json").read_text())
    assert report["model"]["kind"] == "local"
    assert report["model"]["identity"] == report["model"]["revision"]
    assert report["model"]["name"] == f"{checkpoint}@{report['model']['revision']}"
    for entry in report["suites"]:
        assert entry["n"]["evaluated"] == 4 and entry["n"]["limit"] == 4 and not entry["complete"]
        assert sum(entry["states"].values()) == 4
        assert 0 < entry["tokens"]["output"] <= 16


def test_O03_replies_do_not_depend_on_the_batch_size(checkpoint: Path, tmp_path: Path) -> None:
    colours = [(250, 0, 0), (0, 250, 0), (0, 0, 250)]
    rows: list[Sample] = []
    for i, colour in enumerate(colours):
        image = Part(image=Image.new("RGB", (28 + 28 * i, 56), colour))
        rows += samples(5, image)[i : i + 1]
    rows += samples(6)[3:]
    found = []
    for size in (1, 4):  # six items: each alone, and as four and two
        done = run(
            own(Told(), rows), open_subject(str(checkpoint), {"batch_size": size}), tmp_path / str(size), max_tokens=12
        )
        assert done.reused == 0
        found.append([(reply, rollout.text) for reply, rollout in zip(done.replies, done.rollouts, strict=True)])
    assert found[0] == found[1]


def test_images_and_videos_reach_a_local_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from safeladder.rollout.local import LocalEngine

    seen: list[Sample] = []

    def look(sample: Sample) -> str:
        seen.append(sample)
        return "<think>red</think>yes"

    monkeypatch.setattr(LocalEngine, "load", staticmethod(lambda path, **options: FakeEngine(look)))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    file = tmp_path / "a.png"
    Image.new("RGB", (4, 4), (9, 0, 0)).save(file)
    frames = [Image.new("RGB", (2, 2), (0, i, 0)) for i in range(3)]
    rows = samples(1, Part(image=str(file)), Part(image=frames[2]), Part(video=[*frames, str(file)]))
    done = run(own(Told(), rows), open_subject(str(folder)), tmp_path / "out")
    asked = seen[0]
    assert [i.getpixel((0, 0)) for i in asked.images if not isinstance(i, str)] == [(9, 0, 0), (0, 2, 0)]
    (video,) = asked.videos
    assert [f.getpixel((0, 0)) for f in video if not isinstance(f, str)] == [(0, 0, 0), (0, 1, 0), (0, 2, 0), (9, 0, 0)]
    assert done.replies[0].reasoning == "red"


def test_C07_every_kind_of_model_is_asked_with_the_same_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safeladder.rollout.local import LocalEngine

    asked: list[tuple[SamplingParams, int]] = []

    class Noting(FakeEngine):
        def generate(self, requests: Any, params: SamplingParams, *, seed: int) -> Any:
            asked.append((params, seed))
            return super().generate(requests, params, seed=seed)

    monkeypatch.setattr(LocalEngine, "load", staticmethod(lambda path, **options: Noting(lambda sample: "yes")))
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    run(own(Told(), samples(1)), open_subject(str(folder)), tmp_path / "a", max_tokens=7, seed=5)
    with serving(lambda request: "yes") as stub:
        run(own(Told(), samples(1)), open_subject(f"{stub.url}#m"), tmp_path / "b", max_tokens=7, seed=5)
    configs: list[Any] = []
    model = get_model(
        "mockllm/model",
        memoize=False,
        custom_outputs=lambda messages, tools, choice, config: (configs.append(config), says("yes"))[1],
    )
    other = Subject(kind="inspect", name="mock", identity="mock", revision="", model=model, arguments={})
    run(own(Told(), samples(1)), other, tmp_path / "c", max_tokens=7, seed=5)
    assert [(p.max_new_tokens, p.temperature, seed) for p, seed in asked] == [(7, 0.0, 5)]
    assert [(r["max_tokens"], r["temperature"], r["seed"]) for r in stub.requests] == [(7, 0.0, 5)]
    assert [(c.max_tokens, c.temperature, c.seed) for c in configs] == [(7, 0.0, 5)]


# unknown is never safe


def test_H07_H08_broken_replies_are_counted_and_never_safe(tmp_path: Path) -> None:
    sent: dict[int, Any] = {0: "fine", 1: 400, 2: "", 3: "<think>hm", 4: choice("Sure", "length")}
    told = Told()
    with serving(lambda request: sent[int(question_of(request).split()[1])]) as stub:
        done = run(own(told, samples(5)), open_subject(f"{stub.url}#m"), tmp_path)
    assert [reply.state for reply in done.replies] == [
        State.ANSWERED, State.ERROR, State.EMPTY, State.UNCLOSED, State.TRUNCATED,
    ]  # fmt: skip
    assert [rollout.scores["told"].value for rollout in done.rollouts] == [1.0, None, None, None, None]
    metric = done.figures[0].metric
    assert metric is not None and (metric.value, metric.n, metric.n_unscored) == (1.0, 1, 4)
    assert "status 400" in done.replies[1].problem
    # In Inspect's log too.
    log = read_eval_log(str(done.log))
    assert log.samples is not None
    values = {str(s.id): s.scores["verifiers"] for s in log.samples if s.scores}
    assert [values[f"item-{i}"].value["told"] for i in range(5)] == [1.0, "N", "N", "N", "N"]  # type: ignore[index, call-overload]


def test_H08_an_error_is_asked_again_on_resume_and_an_answer_is_not(tmp_path: Path) -> None:
    down = {"status": True}

    def answer(request: dict[str, Any]) -> str | int:
        return 400 if down["status"] and "question 1" in question_of(request) else "fine"

    with serving(answer) as stub:
        subject = open_subject(f"{stub.url}#m")
        first = run(own(Told(), samples(3)), subject, tmp_path)
        down["status"] = False
        second = run(own(Told(), samples(3)), subject, tmp_path)
    assert first.replies[1].state is State.ERROR and second.replies[1].state is State.ANSWERED
    assert second.reused == 2
    assert sorted(stub.questions) == ["question 0 ?", "question 1 ?", "question 1 ?", "question 2 ?"]


def test_a_model_that_never_replies_ends_the_run(tmp_path: Path) -> None:
    for count, most in ((3, 3), (60, 40)):
        with (
            serving(lambda request: 400) as stub,
            pytest.raises(SafeladderError, match=r"gives no reply: .*status 400"),
        ):
            run(own(Told(), samples(count)), open_subject(f"{stub.url}#m"), tmp_path / str(count))
        assert len(stub.requests) <= most


def test_a_refused_key_ends_the_run(tmp_path: Path) -> None:
    with serving(lambda request: 401) as stub, pytest.raises(SafeladderError, match="SAFELADDER_API_KEY"):
        run(own(Told(), samples(2)), open_subject(f"{stub.url}#m"), tmp_path)


def test_a_prompt_too_long_for_the_model_is_an_error_of_that_item(checkpoint: Path, tmp_path: Path) -> None:
    rows = [*samples(2), *samples(3, Part(text="word " * 3000))[2:]]
    done = run(own(Told(), rows), open_subject(str(checkpoint)), tmp_path, max_tokens=4)
    assert [reply.state is State.ERROR for reply in done.replies] == [False, False, True]
    assert "exceed the context of 2048" in done.replies[2].problem


def test_a_verifier_that_breaks_ends_the_run_as_itself(tmp_path: Path) -> None:
    def verdict(rollout: Any) -> Any:
        raise ZeroDivisionError("a defect")

    with pytest.raises(ZeroDivisionError, match="a defect"):
        run(own(Told(verdict), samples(3)), mock(lambda question: says("yes")), tmp_path)


def test_reasoning_is_judged_apart_through_the_whole_run(tmp_path: Path) -> None:
    from safeladder.types import Score

    told = Told(lambda r: Score(value=float(r.response is not None and "bad" not in r.response.answer)))
    done = run(
        own(told, samples(4), judges_reasoning=True),
        mock(lambda question: says("<think>bad</think>fine" if "question 0" in question else "<think>ok</think>bad")),
        tmp_path,
    )
    values = {f.name: f.metric.value for f in done.figures if not f.group and f.metric is not None}
    assert values == {"safe rate": 0.25, "safe rate:think": 0.75}
    log = read_eval_log(str(done.log), header_only=True)
    assert log.results is not None
    metrics = log.results.scores[0].metrics
    assert {name: metrics[name].value for name in values} == values


# resuming


def test_H11_killed_while_it_runs_it_goes_on_where_it_was(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    slow = {"seconds": 0.4}

    def answer(request: dict[str, Any]) -> str:
        time.sleep(slow["seconds"])
        return fence(request)

    write_gsm8k(data, 40)
    with serving(answer) as stub:
        words = ["eval", f"{stub.url}#m", "--suite", "gsm8k", "--data", str(data), "--out", str(out), "--resume"]
        process = subprocess.Popen(
            [sys.executable, "-m", "safeladder", *words], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        kept = out / "replies.jsonl"
        deadline = time.monotonic() + 120
        while (not kept.exists() or kept.read_bytes().count(b"\n") < 8) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        finished = [json.loads(line)["id"] for line in kept.read_bytes().split(b"\n")[:-1]]
        assert 8 <= len(finished) < 40
        before, slow["seconds"] = len(stub.requests), 0.0
        assert cli.main(words) == 0
        asked_again = len(stub.requests) - before
    assert asked_again == 40 - len(finished)
    (entry,) = json.loads((out / "report.json").read_text())["suites"]
    assert (entry["reused"], entry["n"]["evaluated"]) == (len(finished), 40)
    log = read_eval_log(str(out / entry["log"]))
    assert log.samples is not None and len(log.samples) == 40
    # As of an unbroken run: of the sums 0..39 those of 0, 1 and 2 are right.
    metric = entry["figures"][0]["metric"]
    assert (metric["value"], metric["n"]) == (3 / 40, 40)
    assert entry["states"]["answered"] == 40


def test_a_folder_is_not_overwritten_and_holds_one_model(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    with serving(fence) as stub:
        words = ["--suite", "gsm8k", "--data", data, "--out", out, "--limit", "2"]
        assert command(f"{stub.url}#m", *words) == 0
        assert command(f"{stub.url}#m", *words) == 2
        assert "is not empty: --resume continues there" in capsys.readouterr().err
        assert command(f"{stub.url}#other", *words, "--resume") == 2
        assert "holds results of another model" in capsys.readouterr().err
        asked = len(stub.requests)
        assert command(f"{stub.url}#m", *words, "--resume") == 0
        assert len(stub.requests) == asked
        assert command(f"{stub.url}#m", *words, "--resume", "--max-tokens", "9") == 0
        assert len(stub.requests) == asked + 2  # another budget is another question


# the judge


def judged_by(monkeypatch: pytest.MonkeyPatch, judge: FixedJudge) -> None:
    from safeladder.verifiers.judges import opening

    monkeypatch.setattr(opening, "open_judge", lambda spec, **options: judge)


def test_H12_a_model_does_not_judge_itself_unless_told_to(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with serving(fence) as stub:
        words = [f"{stub.url}#m", "--suite", "xstest", "--data", data, "--out", tmp_path / "out", "--judge", "x"]
        judged_by(monkeypatch, FixedJudge(name=f"m@{stub.url.split('/')[2]}"))
        assert command(*words) == 2
        assert "is the judged model itself" in capsys.readouterr().err
        assert stub.requests == []
        assert command(*words, "--allow-self-judge") == 0
    assert "The model judged itself" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "report.json").read_text())["self_judged"] is True


def test_H12_a_checkpoint_is_known_by_its_hash(
    data: Path, tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from safeladder.models.identity import checkpoint_hash

    judged_by(monkeypatch, FixedJudge(name=f"a/copy/elsewhere@{checkpoint_hash(checkpoint)}"))
    assert command(checkpoint, "--suite", "xstest", "--data", data, "--out", tmp_path / "out", "--judge", "x") == 2
    assert "is the judged model itself" in capsys.readouterr().err


def test_O06_two_judges_of_one_run_share_replies_and_not_verdicts(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    found = []
    with serving(fence) as stub:
        for text, name in (("complies", "one@0123456789ab"), ("refuses", "two@ba9876543210")):
            judged_by(monkeypatch, FixedJudge(text, name))
            words = [f"{stub.url}#m", "--suite", "xstest", "--data", data, "--out", out, "--judge", "x", "--resume"]
            assert command(*words) == 0
            report = json.loads((out / "report.json").read_text())
            assert report["judge"] == name
            figures = report["suites"][0]["figures"]
            assert {figure["judge"] for figure in figures} == {name}
            found.append(figures[0]["metric"]["value"])
        assert len(stub.requests) == 10
    assert found == [0.0, 1.0]


# by Inspect itself


def test_inspect_runs_a_suite_by_name(data: Path, tmp_path: Path) -> None:
    (log,) = inspect_eval(
        "safeladder/xstest",
        model="mockllm/model",
        model_args={"custom_outputs": [says("I can't help with that.")] * 10},
        task_args={"data": str(data)},
        log_dir=str(tmp_path / "logs"),
        display="none",
        ctl_server=False,
    )
    assert log.status == "success", log.error
    assert log.results is not None
    metrics = log.results.scores[0].metrics
    assert metrics["refusal rate on safe prompts"].value == 1.0
    assert metrics["refusal rate on unsafe prompts:n"].value == 4
    assert log.eval.metadata is not None and log.eval.metadata["judge"].startswith("offline: refusal")


def test_H12_inspect_refuses_a_judge_that_judges_itself(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    judged_by(monkeypatch, FixedJudge(name="mockllm/model"))
    statuses = []
    for allowed in (False, True):
        (log,) = inspect_eval(
            "safeladder/xstest",
            model="mockllm/model",
            task_args={"data": str(data), "judge": "x", "allow_self_judge": allowed},
            log_dir=str(tmp_path / "logs"),
            display="none",
            ctl_server=False,
        )
        statuses.append(log.status)
        if not allowed:
            assert log.error is not None and "the judge is the judged model" in log.error.message
    assert statuses == ["error", "success"]


# mistakes


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "needs one of: MODEL with --suite, --list, --compare A B"),
        (["m", "--list"], "needs one of"),
        (["--list", "--suite", "x"], "needs one of"),
        (["m"], "needs --suite"),
        (["m", "--suite", "xtest"], "did you mean xstest?"),
        (["m", "--suite", "gsm8k,gsm8k"], "occur once"),
        (["m", "--suite", "gsm8k", "--subset", "x"], "no subset 'x'"),
        (["m", "--suite", "gsm8k", "--limit", "0"], "--limit: 0 is too small"),
        (["m", "--suite", "gsm8k", "--max-tokens", "0"], "--max-tokens: 0 is too small"),
        (["m", "--suite", "gsm8k", "-M", "x"], "KEY=VALUE"),
        (["m", "--suite", "gsm8k", "--data", "nowhere"], "no data folder nowhere"),
        (["m", "--suite", "gpqa"], "gpqa"),
        (["no-such-model", "--suite", "gsm8k"], "no model 'no-such-model'"),
    ],
)
def test_mistakes_end_in_one_line(
    data: Path, tmp_path: Path, words: list[str], message: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("SAFELADDER_DATA", str(data))
    monkeypatch.chdir(tmp_path)
    assert command(*words) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1
    assert not (tmp_path / "runs").exists()


def test_suites_are_listed_with_their_data(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--list", "--json", "--data", data) == 0
    rows = {(row["suite"], row["subset"]): row for row in json.loads(capsys.readouterr().out)}
    assert rows["xstest", "all"]["data"] == "here"
    assert rows["xstest", "all"]["rows"] == 10 and rows["xstest", "all"]["published"] == 450
    assert rows["gsm8k", "train"]["data"] == "incomplete" and "train.jsonl" in rows["gsm8k", "train"]["cause"]
    assert rows["vlsbench", next(s for n, s in rows if n == "vlsbench")]["data"] == "missing"
    assert command("--list", "--data", data) == 0
    assert "CC-BY-4.0" in capsys.readouterr().out


# a real server


@pytest.mark.slow
def test_transformers_serves_the_checkpoint(data: Path, tmp_path: Path) -> None:
    """A text-only one: for pictures the server needs torchvision."""
    pytest.importorskip("openai", reason="`transformers serve` needs the openai package")
    from safeladder.models.load import save_checkpoint
    from safeladder.models.tiny import build_tiny

    network, processor = build_tiny("llama", ["What is 2 + 2? yes"] * 9, seed=0, size="test")
    save_checkpoint(network, processor, tmp_path / "tiny")
    port = "18327"
    server = subprocess.Popen(
        [sys.executable, "-m", "transformers.cli.transformers", "serve", "--port", port, "--device", "cpu"],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                subject = open_subject(f"http://127.0.0.1:{port}/v1#{tmp_path / 'tiny'}")
                break
            except SafeladderError:
                assert time.monotonic() < deadline and server.poll() is None
                time.sleep(1)
        bench = own(Told(), samples(2))
        done = run(bench, subject, tmp_path / "out", max_tokens=4)
        assert all(reply.state is not State.ERROR for reply in done.replies)
    finally:
        server.terminate()
        server.wait()


def test_the_openai_client_reaches_an_endpoint_through_inspect(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`openai-api/SERVICE/MODEL` is Inspect's own provider, which speaks through the openai package."""
    pytest.importorskip("openai", reason="Inspect's provider needs the openai package")
    with serving(lambda request: "I'm sorry, but I can't help with that.") as stub:
        monkeypatch.setenv("LOOPBACK_BASE_URL", stub.url)
        monkeypatch.setenv("LOOPBACK_API_KEY", "none")
        out = tmp_path / "out"
        assert (
            command("openai-api/loopback/stub-model", "--suite", "xstest", "--data", data, "--out", out, "--json") == 0
        )
    report = json.loads(capsys.readouterr().out)
    (found,) = report["suites"]
    assert found["states"]["answered"] == 10 and len(stub.requests) == 10
    assert found["figures"][0]["metric"]["value"] == 1.0  # every safe prompt is refused
    assert {request["model"] for request in stub.requests} == {"stub-model"}
